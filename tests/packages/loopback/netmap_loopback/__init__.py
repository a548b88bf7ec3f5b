# SPDX-License-Identifier: BSD-2-Clause
"""The loopback backend: what a program sends on a port it receives there."""

import dataclasses

from cuse_netmap.backends import Interface, Place, make_port
from cuse_netmap.options import PortOptions, flag, integer


@dataclasses.dataclass(frozen=True)
class Options(PortOptions):
    """[ports.NAME] of the loopback backend."""

    limit: int = integer(64, 1, 1024)  # packets that may be on the way in each queue; what is more is dropped
    stale: bool = flag(False)  # as a package that was compiled with another release of cuse-netmap


def open_port(place: Place, name: str, options: Options) -> Interface:
    from netmap_loopback._loopback import lib

    queues = [lib.loopback_queue(options.limit) for _ in range(options.queues)]
    port = make_port(place, name, lib.loopback_backend(options.stale), queues, options.slots)
    return Interface(port, f"loopback, {options.queues} ring pair(s) of {options.slots} slots")
