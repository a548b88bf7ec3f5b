# SPDX-License-Identifier: BSD-2-Clause
"""The null backend: rings without a wire. What is sent vanishes, nothing arrives."""

import dataclasses
from typing import TYPE_CHECKING

from cuse_netmap.options import PortOptions

if TYPE_CHECKING:
    from cuse_netmap._core import Events, Port, Region


@dataclasses.dataclass(frozen=True)
class Options(PortOptions):
    """[ports.NAME] of the null backend."""


class NullInterface:
    """A port with nothing behind it."""

    def __init__(self, port: "Port", description: str) -> None:
        self.port = port
        self.description = description

    def mtu(self) -> int:
        return 0

    def deleted(self) -> bool:
        return False

    def change(self, key: str, value: object) -> None:
        """There is nothing to change."""


def open_port(region: "Region", events: "Events", name: str, options: Options) -> NullInterface:
    from cuse_netmap import _core

    queues = _core.null_queues(options.queues)
    port = _core.nic_port(region, events, name, "null", queues, options.slots)
    return NullInterface(port, f"null, {options.queues} ring pair(s) of {options.slots} slots")
