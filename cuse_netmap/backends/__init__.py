# SPDX-License-Identifier: BSD-2-Clause
"""The backends: for each name the options a configuration may set, and how a port is opened. Their C stands beside."""

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from cuse_netmap.backends import null, tap
from cuse_netmap.options import PortOptions

if TYPE_CHECKING:
    from cuse_netmap._core import Events, Port, Region


class Interface(Protocol):
    """What stands behind a port of some backend, for as long as the port is configured."""

    port: "Port"
    description: str

    def mtu(self) -> int:
        """Of the interface now, in bytes; 0 if there is none. Refused ENXIO: it has gone."""

    def deleted(self) -> bool:
        """Somebody has deleted the interface."""

    def change(self, key: str, value: object) -> None:
        """Sets a live option. Refused when the kernel does."""


class Backend(Protocol):
    """A module of this package."""

    @property
    def Options(self) -> type[PortOptions]:  # noqa: N802 - a class
        """The keys that [ports.NAME] takes."""

    def open_port(self, region: "Region", events: "Events", name: str, options: Any) -> Interface:  # noqa: ANN401 - its Options
        """Makes the interface and its port. Refused with the errno of what failed."""


BACKENDS: MappingProxyType[str, Backend] = MappingProxyType({"tap": tap, "null": null})
