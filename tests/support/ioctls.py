# SPDX-License-Identifier: BSD-2-Clause
"""Ioctls as a program can spell them, right or wrong: every address and byte is the test's; replies are read there."""

import ctypes
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cuse_netmap.client import Port
from cuse_netmap.control.requests import (
    API,
    NIOCCTRL,
    Header,
    Mode,
    Option,
    Record,
    Register,
    RequestType,
)
from tests.support.patience import at_most

LIBC = ctypes.CDLL(None, use_errno=True)
BAD_ADDRESS = 0x1000  # below what any program may map


class Block:
    """Bytes that stay where they are, as does what they point to."""

    def __init__(self, data: bytes, *pointed_to: object) -> None:
        self.buffer = ctypes.create_string_buffer(data, len(data))
        self.pointed_to = pointed_to

    @property
    def address(self) -> int:
        return ctypes.addressof(self.buffer)

    @property
    def data(self) -> bytes:
        return self.buffer.raw

    @data.setter
    def data(self, value: bytes) -> None:
        self.buffer.raw = value


@contextmanager
def device(path: str = "/dev/netmap") -> Iterator[int]:
    """A descriptor that nothing is registered on yet."""
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def ioctl(fd: int, command: int, argument: Block | int = 0) -> int:
    """0 or the errno."""
    address = argument.address if isinstance(argument, Block) else argument
    result = LIBC.ioctl(fd, ctypes.c_ulong(command), ctypes.c_void_p(address))
    return ctypes.get_errno() if result else 0


def option(kind: int, following: "Block | int" = 0, *, size: int = 0, body: bytes = b"") -> Block:
    """An option and its body; `size` goes to nro_size."""
    address = following.address if isinstance(following, Block) else following
    return Block(Option(address, kind, 0xDEAD, size).encode() + body, following)


def status(block: Block) -> int:
    """The nro_status that has come back."""
    return Option.decode(block.data[: Option.size()]).status


def header(
    kind: int,
    name: str | bytes = "",
    body: Block | int = 0,
    options: Block | int = 0,
    *,
    version: int = API,
    reserved: int = 0,
) -> Block:
    raw = name if isinstance(name, bytes) else name.encode()
    addresses = [part.address if isinstance(part, Block) else part for part in (options, body)]
    return Block(Header(version, kind, reserved, raw.ljust(64, b"\0"), *addresses).encode(), options, body)


def request(fd: int, kind: int, name: str | bytes, body: Record | bytes = b"") -> tuple[int, bytes]:
    """One NIOCCTRL: (0 or the errno, the body as it comes back)."""
    data = body if isinstance(body, bytes) else body.encode()
    block = Block(data)
    result = ioctl(fd, NIOCCTRL, header(kind, name, block if data else 0))
    return result, block.data


def register(fd: int, name: str | bytes, **fields: int) -> tuple[int, Register]:
    """REGISTER, mode ALL_NIC unless said otherwise: (0 or the errno, the body as it comes back)."""
    result, body = request(fd, RequestType.REGISTER, name, Register(**fields))
    return result, Register.decode(body)


def hold(name: str = "hold", **fields: int) -> Port:
    """A null port, which holds memory."""
    return Port(name, Register(mode=Mode.NULL, mem_id=1, **fields))


def free_buffers() -> int:
    """How many buffers the pool can give: asked of it by a null port that takes them all, and gives them back."""
    with hold(extra_bufs=1_000_000) as port:
        return port.granted.extra_bufs


def settled(measure: Callable[[], int], wanted: int) -> int:
    """What `measure` gives once it is `wanted`, or after five seconds: close() does not wait for its release."""
    deadline = time.monotonic() + at_most(5)
    while (found := measure()) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


def extra_list(port: Port) -> list[int]:
    """The indices on a port's list of extra buffers."""
    base = port.if_offset
    bufs_head = int.from_bytes(port.memory[base + 32 : base + 36], "little")
    ring = next(iter([*port.rx.values(), *port.tx.values()]))
    found = []
    while bufs_head:
        found.append(bufs_head)
        bufs_head = int.from_bytes(ring.buffer(bufs_head)[:4], "little")
    return found
