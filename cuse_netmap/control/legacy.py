# SPDX-License-Identifier: BSD-2-Clause
"""NIOCGINFO and NIOCREGIF in terms of today's requests, and back (ABI.md section 5)."""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from cuse_netmap.control.requests import (
    LEGACY_COMMANDS_VERSION,
    LEGACY_DO_RX_POLL,
    LEGACY_FLAGS_VERSION,
    LEGACY_HW_RING,
    LEGACY_MODE_MASK,
    LEGACY_NO_TX_POLL,
    LEGACY_RING_MASK,
    LEGACY_SW_RING,
    LEGACY_TODAYS_RINGS,
    Flag,
    Legacy,
    LegacyCommand,
    Mode,
    NewInterface,
    PollingMode,
    PortHeader,
    PortInfo,
    Record,
    Register,
    RequestType,
    ValeAttach,
    ValeDetach,
    ValeList,
    ValePolling,
    encode_name,
)
from cuse_netmap.errors import Refused

NAME_MAX = 63  # of the modern name that a pipe's is built in
NAME_FIELD = 15  # characters of nr_name
ATTACH_HOST = 1  # in nr_arg1 of BDG_ATTACH: with the host rings
U32 = 0xFFFFFFFF


def without_what_came_later(request: Legacy) -> Legacy:
    """What the request's version of the API says: nothing in fields that it did not have."""
    if request.version < LEGACY_COMMANDS_VERSION:
        return replace(request, cmd=0, arg1=0, arg2=0, arg3=0, flags=0)
    if request.version < LEGACY_FLAGS_VERSION:
        return replace(request, arg2=0, arg3=0, flags=0)
    return request


def to_register(request: Legacy) -> tuple[str, Register]:
    """The name and the REGISTER that a NIOCREGIF means. Refused ENOMEM: a pipe's name does not fit."""
    request = without_what_came_later(request)
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
    if request.version >= LEGACY_FLAGS_VERSION:
        request.arg3 = answer.extra_bufs
    _sizes(request, answer)


# ---- nr_cmd: the requests that NIOCCTRL has types for


@dataclass(frozen=True)
class Command:
    """The request that an nr_cmd means, and what goes back of its answer."""

    type: RequestType
    body: Callable[[Legacy], Record | None]
    answer: Callable[[Legacy, Any], None] = lambda _request, _answer: None


def _attach(request: Legacy) -> ValeAttach:
    _, register = to_register(request)
    register.mode = Mode.NIC_SW if request.arg1 & ATTACH_HOST else Mode.ALL_NIC
    return ValeAttach(register.encode(), 0)


def _new_interface(request: Legacy) -> NewInterface:
    return NewInterface(request.tx_slots, request.rx_slots, request.tx_rings, request.rx_rings, request.arg2)


def _polling(request: Legacy) -> ValePolling:
    modes = {Mode.ONE_NIC: PollingMode.MULTI_CPU, Mode.ALL_NIC: PollingMode.SINGLE_CPU}
    mode = modes.get(Mode(request.flags & LEGACY_MODE_MASK), 0) if request.flags & LEGACY_MODE_MASK in modes else 0
    return ValePolling(mode, request.ringid & LEGACY_RING_MASK, request.arg1)


def _port_info(request: Legacy) -> PortInfo:
    return PortInfo(mem_id=without_what_came_later(request).arg2)


def _header_back(request: Legacy, answer: PortHeader) -> None:
    request.arg1 = answer.length


def _list_back(request: Legacy, answer: ValeList) -> None:
    request.arg1, request.arg2 = answer.bridge_idx, answer.port_idx


def _sizes_back(request: Legacy, answer: NewInterface) -> None:
    request.tx_slots, request.rx_slots = answer.tx_slots, answer.rx_slots
    request.tx_rings, request.rx_rings = answer.tx_rings, answer.rx_rings
    request.arg2 = answer.mem_id


def _info_back(request: Legacy, answer: PortInfo) -> None:
    _sizes(request, answer)
    if request.version < LEGACY_TODAYS_RINGS:
        request.offset = 0


INFO = Command(RequestType.PORT_INFO_GET, _port_info, _info_back)
LIST = Command(RequestType.VALE_LIST, lambda request: ValeList(request.arg1, request.arg2), _list_back)
COMMANDS: Mapping[int, Command] = MappingProxyType(
    {
        LegacyCommand.BDG_ATTACH: Command(RequestType.VALE_ATTACH, _attach),
        LegacyCommand.BDG_DETACH: Command(RequestType.VALE_DETACH, lambda _request: ValeDetach()),
        LegacyCommand.BDG_VNET_HDR: Command(RequestType.PORT_HDR_SET, lambda request: PortHeader(request.arg1)),
        LegacyCommand.VNET_HDR_GET: Command(RequestType.PORT_HDR_GET, lambda _request: PortHeader(), _header_back),
        LegacyCommand.BDG_NEWIF: Command(RequestType.VALE_NEWIF, _new_interface, _sizes_back),
        LegacyCommand.BDG_DELIF: Command(RequestType.VALE_DELIF, lambda _request: None),
        LegacyCommand.BDG_POLLING_ON: Command(RequestType.VALE_POLLING_ENABLE, _polling),
        LegacyCommand.BDG_POLLING_OFF: Command(RequestType.VALE_POLLING_DISABLE, _polling),
    }
)


COMMANDS_OF_API_5 = (LegacyCommand.BDG_ATTACH, LegacyCommand.BDG_DETACH)  # and BDG_LIST, of NIOCGINFO


def number(request: Legacy) -> int:
    """Its nr_cmd, which is a spare word of API 3 and before."""
    return without_what_came_later(request).cmd


def command(request: Legacy) -> Command:
    """What a NIOCREGIF with an nr_cmd means. Refused ENOMEM: ptnetmap, as there; EINVAL: there is no such command."""
    if request.version < LEGACY_TODAYS_RINGS and request.cmd not in COMMANDS_OF_API_5:
        raise Refused(errno.EINVAL, f"API {request.version} has no nr_cmd {request.cmd}")
    if request.cmd in (LegacyCommand.PT_HOST_CREATE, LegacyCommand.PT_HOST_DELETE):
        raise Refused(errno.ENOMEM, "ptnetmap is gone")
    if request.cmd not in COMMANDS:
        raise Refused(errno.EINVAL, f"there is no nr_cmd {request.cmd}")
    return COMMANDS[request.cmd]


def write_name(request: Legacy, name: str) -> None:
    request.raw_name = encode_name(name)[:NAME_FIELD].ljust(NAME_FIELD + 1, b"\0")


def _sizes(request: Legacy, answer: Register | PortInfo) -> None:
    request.memsize = answer.memsize & U32
    request.tx_slots, request.rx_slots = answer.tx_slots, answer.rx_slots
    request.tx_rings, request.rx_rings = answer.tx_rings, answer.rx_rings
    if request.version >= LEGACY_FLAGS_VERSION:
        request.arg2 = answer.mem_id
