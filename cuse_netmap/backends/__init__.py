# SPDX-License-Identifier: BSD-2-Clause
"""The backends: for each name the options a configuration may set, and how a port is opened. Their C stands beside.

Other packages bring more: modules like ours, under the entry point group `cuse_netmap.backends` (docs/backends.md).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

from cuse_netmap.errors import Refused
from cuse_netmap.options import DeviceOptions

if TYPE_CHECKING:
    from cuse_netmap._core import Events, Port, Region
    from cuse_netmap.config import Dpdk

GROUP = "cuse_netmap.backends"
OWN = ("tap", "null", "raw", "xdp", "auto", "dpdk")
MAKERS = ("tap", "null", "dpdk")  # of what they move frames for: no interface of the kernel's is theirs by its name


@dataclass(frozen=True)
class Place:
    """Where a port is to be opened: the memory of its rings, and the network namespace of its interface."""

    region: "Region"
    events: "Events"
    namespace: int  # a descriptor, the caller's to close
    on_exit: str = "restore"  # what becomes of an interface whose host stack is disconnected: or "block"
    dpdk: "Dpdk | None" = None  # [dpdk]


class Interface:
    """What stands behind a port of some backend, for as long as the port is there."""

    holds_memory = False  # the device itself may still read packet memory, whoever has the port

    def __init__(self, port: "Port", description: str) -> None:
        self.port = port
        self.description = description

    def mtu(self) -> int:
        """Of the interface now, in bytes; 0 if there is none. Refused ENXIO: it has gone."""
        return 0

    def device(self) -> tuple[int, int] | None:
        """The kernel's interface: a descriptor of its network namespace, the caller's to close, and its index there.

        None: there is none.
        """
        return None

    def facts(self) -> dict[str, object]:
        """What there is to say of the device behind it now, by name; the backend's own."""
        return {}

    def deleted(self) -> bool:
        """Somebody has deleted the interface."""
        return False

    def change(self, key: str, value: object) -> None:
        """Sets a live option. Refused when the kernel does."""

    def follow(self) -> None:
        """The kernel says that some interface has changed."""

    def want_host_rings(self, tx: int, rx: int) -> None:
        """Somebody is about to bind host rings, of which there are so many. Refused when there can be none."""

    def bound(self, *, nic: bool, host: bool) -> None:
        """NIC rings are taken from the host; host rings have users. Refused when the interface cannot be used so."""

    def end(self) -> None:
        """The daemon is about to end: programs that leave from now on do so because of that."""

    def close(self) -> None:
        """Nobody has the port open; it goes too."""
        self.port.close()


def make_port(place: Place, name: str, operations: Any, queues: Sequence[Any], slots: int) -> "Port":  # noqa: ANN401
    """A port of one ring pair, of `slots` slots, for each of the queues, which it takes over and will close.

    operations: a struct nm_backend_ops, as a cffi pointer of any FFI or an address, that stays for ever; the queues
    likewise. Refused EINVAL: it was compiled with another version of backend.h; ENOMEM: a queue is NULL.
    """
    from cuse_netmap import _core

    return _core.nic_port(place.region, place.events, name, operations, queues, slots)


class Backend(Protocol):
    """A module of this package, or of another's."""

    @property
    def Options(self) -> type[DeviceOptions]:  # noqa: N802 - a class
        """The keys that [ports.NAME] takes."""

    def open_port(self, place: Place, name: str, options: Any) -> Interface:  # noqa: ANN401 - its Options
        """Makes or takes the interface, and makes its port. Refused with the errno of what failed."""


class Backends(Mapping[str, Backend]):
    """All there are by name, imported when they are first looked at. Refused ENOENT: it cannot be imported."""

    def __init__(self) -> None:
        self.others: dict[str, EntryPoint] | None = None

    def _others(self) -> dict[str, EntryPoint]:
        if self.others is None:
            self.others = {point.name: point for point in entry_points(group=GROUP) if point.name not in OWN}
        return self.others

    def __iter__(self) -> Iterator[str]:
        yield from OWN
        yield from self._others()

    def __len__(self) -> int:
        return len(OWN) + len(self._others())

    def __getitem__(self, name: str) -> Backend:
        if name in OWN:
            return cast("Backend", import_module(f"cuse_netmap.backends.{name}"))
        point = self._others()[name]
        try:
            return cast("Backend", point.load())
        except Exception as error:
            raise Refused(2, f"backend {name} ({point.value}): {error}") from error


BACKENDS = Backends()
