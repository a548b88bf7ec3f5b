# SPDX-License-Identifier: BSD-2-Clause
"""Monitors: a port for each file that asks to see what crosses another (ABI.md section 12.4)."""

import errno
from collections.abc import Callable

from cuse_netmap._core import Port, monitor_port
from cuse_netmap.control import names
from cuse_netmap.control.names import Kind
from cuse_netmap.control.requests import MONITOR, Flag, Register
from cuse_netmap.errors import Refused


def open_port(name: str, request: Register, find: Callable[[str], Port]) -> Port:
    """A monitor of the port of that name, for one file. Completes the flags as netmap does, and the host rings.

    Refused EINVAL: nobody has the port open, as is so with a pipe or VALE port that does not exist; else as `find`.
    """
    if request.flags & Flag.ZCOPY_MON:
        request.flags |= MONITOR
    try:
        parent = find(name)
    except Refused as refusal:
        if names.parse(name).kind is Kind.INTERFACE:
            raise
        raise Refused(errno.EINVAL, f"nobody has {name} open") from refusal
    port = monitor_port(parent, request.flags, request.tx_slots, request.rx_slots)
    request.host_tx_rings, request.host_rx_rings = 1, max(parent.host_rings("tx"), parent.host_rings("rx"))
    return port
