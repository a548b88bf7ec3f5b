# SPDX-License-Identifier: BSD-2-Clause
"""The gated backend: the kernel's interfaces as `raw` has them, which take as long to open as a test wants."""

import os
from pathlib import Path

from cuse_netmap.backends import BACKENDS, Interface, Place
from cuse_netmap.backends.raw import Options

__all__ = ["Options", "open_port"]


def open_port(place: Place, name: str, options: Options) -> Interface:
    gate = Path(os.environ["NETMAP_GATES"]) / name
    if gate.is_fifo():
        gate.read_bytes()  # until somebody has opened it for writing, and closed it
    return BACKENDS["raw"].open_port(place, name, options)
