# SPDX-License-Identifier: BSD-2-Clause
"""Requests about ports and switches, each through a descriptor of its own; and the frames that switches look at."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import (
    NIOCCTRL,
    Header,
    Mode,
    NewInterface,
    PortHeader,
    PortInfo,
    Record,
    Register,
    RequestType,
    ValeAttach,
    ValeDetach,
    ValeList,
    ValePolling,
)
from tests.support.ioctls import Block, device, header, ioctl, register, request

BROADCAST = "ff:ff:ff:ff:ff:ff"
NO_PORT = 255
TWO_CPUS = pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="polling by all CPUs is refused, and there is one")


def ask(kind: int, name: str | bytes, body: Record | bytes = b"") -> tuple[int, bytes]:
    """One NIOCCTRL: (0 or the errno, the body as it comes back)."""
    with device() as fd:
        return request(fd, kind, name, body)


def info(name: str | bytes, **asked: int) -> PortInfo:
    """PORT_INFO_GET, which succeeds."""
    result, body = ask(RequestType.PORT_INFO_GET, name, PortInfo(**asked))
    assert result == 0
    return PortInfo.decode(body)


def sizes(answer: object) -> tuple[int, ...]:
    return tuple(getattr(answer, field) for field in ("tx_rings", "rx_rings", "tx_slots", "rx_slots"))


def refusal(name: str | bytes, **fields: int) -> int:
    """0, or the errno of a REGISTER."""
    with device() as fd:
        return register(fd, name, **fields)[0]


def attach(name: str, **fields: int) -> tuple[int, ValeAttach]:
    result, body = ask(RequestType.VALE_ATTACH, name, ValeAttach(Register(**fields).encode(), 0))
    return result, ValeAttach.decode(body)


def detach(name: str) -> int:
    return ask(RequestType.VALE_DETACH, name, ValeDetach())[0]


@contextmanager
def attached(name: str, **fields: int) -> Iterator[int]:
    """The port's place on the switch, which it leaves at the end."""
    result, answer = attach(name, **fields)
    assert result == 0, errno.errorcode[result]
    try:
        yield answer.port_index
    finally:
        assert detach(name) == 0


@contextmanager
def persistent(name: str, **fields: int) -> Iterator[NewInterface]:
    """A persistent port."""
    result, body = ask(RequestType.VALE_NEWIF, name, NewInterface(**fields))
    assert result == 0, errno.errorcode[result]
    try:
        yield NewInterface.decode(body)
    finally:
        assert ask(RequestType.VALE_DELIF, name)[0] == 0


def place_of(name: str) -> tuple[int, int, int]:
    """VALE_LIST of a name: (0 or the errno, the bridge's index, the port's)."""
    result, body = ask(RequestType.VALE_LIST, name, ValeList())
    answer = ValeList.decode(body)
    return result, answer.bridge_idx, answer.port_idx


def next_port(bridge: int = 0, place: int = 0) -> tuple[str, ValeList] | None:
    """VALE_LIST without a name: the first port at or after the indices; None at the end."""
    body = Block(ValeList(bridge, place).encode())
    block = header(RequestType.VALE_LIST, "", body)
    with device() as fd:
        result = ioctl(fd, NIOCCTRL, block)
    if result:
        assert result == errno.ENOENT
        return None
    return Header.decode(block.data).name, ValeList.decode(body.data)


def all_ports() -> list[str]:
    """The names that a walk by VALE_LIST finds, in its order."""
    names = []
    found = next_port()
    while found:
        name, at = found
        names.append(name)
        found = next_port(at.bridge_idx, at.port_idx + 1)
    return names


def set_header(name: str, length: int) -> int:
    return ask(RequestType.PORT_HDR_SET, name, PortHeader(length))[0]


def get_header(name: str) -> tuple[int, int]:
    result, body = ask(RequestType.PORT_HDR_GET, name, PortHeader())
    return result, PortHeader.decode(body).length


def poll_on(name: str, mode: int = 1, first_cpu: int = 0, cpus: int = 1) -> int:
    return ask(RequestType.VALE_POLLING_ENABLE, name, ValePolling(mode, first_cpu, cpus))[0]


def poll_off(name: str) -> int:
    return ask(RequestType.VALE_POLLING_DISABLE, name, ValePolling(1, 0, 1))[0]


# ---- frames


def mac(number: int) -> str:
    """A unicast address of our own."""
    return f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}"


def raw(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def frame(to: str, source: str, number: int = 0, size: int = 60) -> bytes:
    """An Ethernet frame that says which one it is."""
    start = raw(to) + raw(source) + b"\x88\xb5" + number.to_bytes(4)
    return start.ljust(size, bytes([number % 251]))[:size]


def send(port: Port, *frames: bytes, ring: int = 0) -> None:
    """In one sync."""
    for one in frames:
        assert port.put(one, ring)
    port.txsync()


def arrived(port: Port, ring: int = 0) -> list[bytes]:
    """What has arrived: whole frames, given back."""
    port.rxsync()
    frames = list(port.take(ring))
    port.rxsync()
    return frames


def opened(name: str, **fields: int) -> Port:
    return Port(name, Register(mode=fields.pop("mode", Mode.ALL_NIC), **fields))
