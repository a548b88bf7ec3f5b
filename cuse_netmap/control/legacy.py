# SPDX-License-Identifier: BSD-2-Clause
"""NIOCGINFO and NIOCREGIF in terms of today's requests, and back (ABI.md section 5)."""

import errno

from cuse_netmap.control.requests import (
    API,
    LEGACY_DO_RX_POLL,
    LEGACY_HW_RING,
    LEGACY_MIN_VERSION,
    LEGACY_MODE_MASK,
    LEGACY_NO_TX_POLL,
    LEGACY_RING_MASK,
    LEGACY_SW_RING,
    Flag,
    Legacy,
    Mode,
    PortInfo,
    Register,
)
from cuse_netmap.errors import Refused

NAME_MAX = 63  # of the modern name that a pipe's is built in
U32 = 0xFFFFFFFF


def check_version(request: Legacy) -> None:
    """Refused EINVAL for versions whose structs differ; the program finds ours written in its request."""
    if request.version < LEGACY_MIN_VERSION:
        version, request.version = request.version, API
        raise Refused(errno.EINVAL, f"API version {version}; {LEGACY_MIN_VERSION} and later are served, this is {API}")


def to_register(request: Legacy) -> tuple[str, Register]:
    """The name and the REGISTER that a NIOCREGIF means. Refused ENOMEM: a pipe's name does not fit."""
    name, ring = request.name, request.ringid & LEGACY_RING_MASK
    mode = request.flags & LEGACY_MODE_MASK
    if mode == Mode.DEFAULT:
        if request.ringid & LEGACY_SW_RING:
            mode = Mode.SW
        elif request.ringid & LEGACY_HW_RING:
            mode = Mode.ONE_NIC
        else:
            mode = Mode.ALL_NIC
    if mode in (Mode.PIPE_MASTER, Mode.PIPE_SLAVE):
        name += f"{'{' if mode == Mode.PIPE_MASTER else '}'}{ring}"
        mode, ring = Mode.ALL_NIC, 0
        if len(name) > NAME_MAX:
            raise Refused(errno.ENOMEM, f"the pipe's name {name!r} is too long")
    flags = request.flags & ~LEGACY_MODE_MASK
    if request.ringid & LEGACY_NO_TX_POLL:
        flags |= Flag.NO_TX_POLL
    if request.ringid & LEGACY_DO_RX_POLL:
        flags |= Flag.DO_RX_POLL
    return name, Register(
        tx_slots=request.tx_slots,
        rx_slots=request.rx_slots,
        tx_rings=request.tx_rings,
        rx_rings=request.rx_rings,
        mem_id=request.arg2,
        ringid=ring,
        mode=mode,
        extra_bufs=request.arg3,
        flags=flags,
    )


def from_register(request: Legacy, answer: Register) -> None:
    """What NIOCREGIF writes back; name, version, ringid, flags, cmd and arg1 stay as sent."""
    request.offset = answer.offset & U32
    request.arg3 = answer.extra_bufs
    _sizes(request, answer)


def from_port_info(request: Legacy, answer: PortInfo) -> None:
    """What NIOCGINFO writes back; nr_offset stays as sent."""
    _sizes(request, answer)


def _sizes(request: Legacy, answer: Register | PortInfo) -> None:
    request.memsize = answer.memsize & U32
    request.tx_slots, request.rx_slots = answer.tx_slots, answer.rx_slots
    request.tx_rings, request.rx_rings = answer.tx_rings, answer.rx_rings
    request.arg2 = answer.mem_id
