# SPDX-License-Identifier: BSD-2-Clause
"""The gated backend: the kernel's interfaces as `raw` has them, whose work takes as long as a test wants.

A FIFO in the folder NETMAP_GATES holds up: named NAME its opening, named NAME.bound whatever tells its host.
"""

import os
from pathlib import Path

from cuse_netmap.backends import BACKENDS, Interface, Place
from cuse_netmap.backends.raw import Options

__all__ = ["Options", "open_port"]


def wait_at(name: str) -> None:
    gate = Path(os.environ["NETMAP_GATES"]) / name
    if gate.is_fifo():
        gate.read_bytes()  # until somebody has opened it for writing, and closed it


def open_port(place: Place, name: str, options: Options) -> Interface:
    wait_at(name)
    interface = BACKENDS["raw"].open_port(place, name, options)
    bound = interface.bound

    def slowly_bound(*, nic: bool, host: bool) -> None:
        interface.holds_memory = True
        wait_at(f"{name}.bound")
        bound(nic=nic, host=host)
        interface.holds_memory = nic

    interface.bound = slowly_bound  # type: ignore[method-assign]
    return interface
