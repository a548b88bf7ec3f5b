# SPDX-License-Identifier: BSD-2-Clause
"""netmap for Python programs: open a port, look at its rings, send and receive frames.

Works on any /dev/netmap of API 14, ours or the kernel module's, and knows nothing of the daemon.
"""

import fcntl
import mmap
import os
import select
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Self

from cuse_netmap.control.requests import (
    API,
    NIOCCTRL,
    NIOCRXSYNC,
    NIOCTXSYNC,
    Header,
    Mode,
    Record,
    Register,
    RequestType,
)

NS_BUF_CHANGED = 0x0001
NS_REPORT = 0x0002
NS_FORWARD = 0x0004
NS_INDIRECT = 0x0010
NS_MOREFRAG = 0x0020
NR_FORWARD = 0x0004


def control(fd: int, kind: RequestType, name: str, body: Record | None = None, options: int = 0) -> bytes:
    """One NIOCCTRL; returns the body as it comes back. `options` is the address of the first. OSError."""
    data = bytearray(body.encode() if body else b"")
    raw_name = name.encode().ljust(64, b"\0")
    body_address = _address(data) if data else 0
    header = bytearray(Header(API, kind, 0, raw_name, options, body_address).encode())
    fcntl.ioctl(fd, NIOCCTRL, header)
    return bytes(data)


def _address(data: bytearray) -> int:
    import ctypes

    return ctypes.addressof(ctypes.c_char.from_buffer(data))


class _Field:
    """A 32-bit field of the ring header, `at` bytes into it.

    Others look at it meanwhile: slices are copied in one piece, `struct.pack_into` writes zeros first.
    """

    def __init__(self, at: int) -> None:
        self.at = at

    def __get__(self, ring: "Ring", owner: type) -> int:
        at = ring.offset + self.at
        return int.from_bytes(ring.memory[at : at + 4], "little")

    def __set__(self, ring: "Ring", value: int) -> None:
        at = ring.offset + self.at
        ring.memory[at : at + 4] = value.to_bytes(4, "little")


class Ring:
    """A ring in shared memory: indices to read and move, slots, and their buffers."""

    head = _Field(20)
    cur = _Field(24)
    tail = _Field(28)
    flags = _Field(32)
    num_slots: int
    buf_size: int

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self.memory = memory
        self.offset = offset
        buf_ofs, self.num_slots, self.buf_size, self.ringid, self.dir = struct.unpack_from("<qIIHH", memory, offset)
        self.buffers = offset + buf_ofs

    @property
    def timestamp(self) -> float:
        """Seconds since the epoch, of the latest sync."""
        seconds, microseconds = struct.unpack_from("<qq", self.memory, self.offset + 40)
        return float(seconds + microseconds / 1e6)

    @property
    def space(self) -> int:
        """Slots from head to tail: free ones on TX, received ones on RX."""
        return (self.tail - self.head) % self.num_slots

    def next(self, slot: int, by: int = 1) -> int:
        return (slot + by) % self.num_slots

    def advance(self, by: int = 1) -> None:
        """Moves head and cur."""
        self.cur = self.head = self.next(self.head, by)  # in this order: head never passes cur

    def slot(self, index: int) -> tuple[int, int, int, int]:
        """(buf_idx, len, flags, ptr)."""
        buf_idx, length, flags, pointer = struct.unpack_from("<IHHQ", self.memory, self._slot(index))
        return buf_idx, length, flags, pointer

    def set_slot(self, index: int, buf_idx: int, length: int, flags: int = 0, pointer: int = 0) -> None:
        at = self._slot(index)
        self.memory[at : at + 16] = struct.pack("<IHHQ", buf_idx, length, flags, pointer)

    def _slot(self, index: int) -> int:
        return self.offset + 256 + 16 * index

    def buffer(self, buf_idx: int) -> memoryview:
        """The bytes of a buffer, to read or write in place."""
        start = self.buffers + buf_idx * self.buf_size
        return memoryview(self.memory)[start : start + self.buf_size]


class Port:
    """A registered descriptor and its mapping; `name` is bare, without "netmap:". OSError as REGISTER refuses.

    `options` is the address of the first option. With `memory`, that of an option EXTMEM or another port's map of the
    same region, nothing is mapped.
    """

    def __init__(
        self,
        name: str,
        request: Register | None = None,
        *,
        device: str = "/dev/netmap",
        options: int = 0,
        memory: mmap.mmap | None = None,
    ) -> None:
        self.fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        try:
            body = control(self.fd, RequestType.REGISTER, name, request or Register(mode=Mode.ALL_NIC), options)
            self.granted = Register.decode(body)
            self.memory = memory or mmap.mmap(self.fd, self.granted.memsize)
        except OSError:
            os.close(self.fd)
            raise
        self.mapped = memory is None
        self.if_offset = self.granted.offset
        fields = struct.unpack_from("<16s7I", self.memory, self.if_offset)
        self.name = fields[0].split(b"\0")[0].decode()
        _, _, tx, rx, self.bufs_head, host_tx, host_rx = fields[1:]
        offsets = struct.unpack_from(f"<{tx + host_tx + rx + host_rx}q", self.memory, self.if_offset + 56)
        self.tx = self._rings(offsets[: tx + host_tx])
        self.rx = self._rings(offsets[tx + host_tx :])

    def _rings(self, offsets: tuple[int, ...]) -> dict[int, Ring]:
        return {i: Ring(self.memory, self.if_offset + offset) for i, offset in enumerate(offsets) if offset}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Gives the port back. The map goes first: on the kernel's netmap it would keep the port."""
        if self.mapped:
            self.memory.close()
        with suppress(OSError):  # a daemon that has died cannot be told; the descriptor is closed all the same
            os.close(self.fd)

    def fileno(self) -> int:
        return self.fd

    def txsync(self) -> None:
        fcntl.ioctl(self.fd, NIOCTXSYNC)

    def rxsync(self) -> None:
        fcntl.ioctl(self.fd, NIOCRXSYNC)

    def poll(self, events: int, timeout: float) -> int:
        """The events that are true, after at most `timeout` seconds."""
        poller = select.poll()
        poller.register(self.fd, events)
        ready = poller.poll(timeout * 1000)
        return ready[0][1] if ready else 0

    def put(self, frame: bytes, ring: int = 0) -> bool:
        """Places a frame in a TX ring, over several slots if need be; the next sync or poll sends it."""
        tx = self.tx[ring]
        pieces = [frame[i : i + tx.buf_size] for i in range(0, len(frame), tx.buf_size)] or [b""]
        if tx.space < len(pieces):
            return False
        for left, piece in zip(range(len(pieces) - 1, -1, -1), pieces, strict=True):
            at = tx.head
            buf_idx = tx.slot(at)[0]
            tx.buffer(buf_idx)[: len(piece)] = piece
            tx.set_slot(at, buf_idx, len(piece), NS_MOREFRAG if left else 0)
            tx.advance()
        return True

    def send(self, frame: bytes, timeout: float = 5.0) -> None:
        """Sends one frame, waiting for room. TimeoutError."""
        while not self.put(frame):
            if not self.poll(select.POLLOUT, timeout):
                raise TimeoutError("the TX ring stays full")
        self.txsync()

    def take(self, ring: int = 0) -> Iterator[bytes]:
        """The whole frames that an RX ring holds; each is given back before it is yielded."""
        rx = self.rx[ring]
        parts: list[bytes] = []
        at = rx.head
        while at != rx.tail:
            buf_idx, length, flags, _ = rx.slot(at)
            parts.append(bytes(rx.buffer(buf_idx)[:length]))
            at = rx.next(at)
            if not flags & NS_MOREFRAG:
                rx.cur = rx.head = at
                yield b"".join(parts)
                parts = []

    def receive(self, timeout: float = 5.0, ring: int = 0) -> bytes:
        """The next frame of a ring, waiting for it. TimeoutError."""
        for frame in self.take(ring):
            return frame
        if not self.poll(select.POLLIN, timeout):
            raise TimeoutError("nothing arrived")
        return next(self.take(ring))
