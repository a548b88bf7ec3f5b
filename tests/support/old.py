# SPDX-License-Identifier: BSD-2-Clause
"""Ports as programs of 2011 to 2013 see them, byte by byte: requests, netmap_if, rings with avail and cur."""

import fcntl
import mmap
import os
import select
import struct
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from cuse_netmap.control.requests import NIOCRXSYNC, NIOCTXSYNC, NIOCUNREGIF
from tests.support.ioctls import Block, ioctl

HW_RING, SW_RING, NO_TX_POLL = 0x4000, 0x2000, 0x1000
MEMSIZE = 343019520


@dataclass(frozen=True)
class Age:
    """A generation of the API: byte offsets in its structs (ABI.md section 16); -1 where it has no such field."""

    name: str
    version: int  # of nr_version
    request: struct.Struct
    fields: tuple[str, ...]
    ring_ofs: int
    tx_rings: int
    rx_rings: int
    header: int
    slot: int
    reserved: int
    buf_size: int
    ring_flags: int
    ts: int

    def command(self, number: int) -> int:
        return 0xC0006900 | self.request.size << 16 | number

    @property
    def ginfo(self) -> int:
        return self.command(145)

    @property
    def regif(self) -> int:
        return self.command(146)


PAGE_FIELDS = ("name", "offset", "memsize", "slots", "rings", "ringid")
FIELDS_2011 = ("name", "version", "offset", "memsize", "slots", "rings", "ringid")
SIZES = ("tx_slots", "rx_slots", "tx_rings", "rx_rings")
FIELDS = ("name", "version", "offset", "memsize", *SIZES, "ringid", "cmd", "arg1", "arg2", "arg3", "flags", "spare2")
TODAY = struct.Struct("<16sIIIIIHHHHHHIII")

PAGE = Age("page", 0, struct.Struct("<16sIIIHH"), PAGE_FIELDS, 24, 16, 16, 24, 8, -1, 20, 22, -1)
OF_2011 = Age("2011", 77, struct.Struct("<16sIIIIHH"), FIELDS_2011, 32, 20, 20, 40, 8, -1, 20, 22, 24)
API_3 = Age("api3", 3, TODAY, FIELDS, 32, 24, 20, 48, 8, 20, 24, 26, 32)
API_5 = Age("api5", 5, TODAY, FIELDS, 32, 28, 24, 48, 16, 20, 24, 26, 32)
AGES = (PAGE, OF_2011, API_3, API_5)


class OldRing:
    """A ring in a map."""

    def __init__(self, age: Age, memory: mmap.mmap, offset: int) -> None:
        self.age = age
        self.memory = memory
        self.offset = offset
        self.num_slots = self.word(8)
        self.buf_size = int.from_bytes(memory[offset + age.buf_size : offset + age.buf_size + 2], "little")
        self.buffers = offset + struct.unpack_from("<q", memory, offset)[0]

    def word(self, at: int) -> int:
        at += self.offset
        return int.from_bytes(self.memory[at : at + 4], "little")

    def set_word(self, at: int, value: int) -> None:
        """In one piece, as in `cuse_netmap.client`."""
        at += self.offset
        self.memory[at : at + 4] = value.to_bytes(4, "little")

    @property
    def avail(self) -> int:
        return self.word(12)

    @avail.setter
    def avail(self, value: int) -> None:
        self.set_word(12, value)

    @property
    def cur(self) -> int:
        return self.word(16)

    @cur.setter
    def cur(self, value: int) -> None:
        self.set_word(16, value)

    @property
    def reserved(self) -> int:
        return self.word(self.age.reserved)

    @reserved.setter
    def reserved(self, value: int) -> None:
        self.set_word(self.age.reserved, value)

    @property
    def seconds(self) -> int:
        return int(struct.unpack_from("<q", self.memory, self.offset + self.age.ts)[0])

    def slot(self, k: int) -> tuple[int, int, int]:
        """buf_idx, len, flags."""
        buf_idx, length, flags = struct.unpack_from("<IHH", self.memory, self._slot(k))
        return buf_idx, length, flags

    def set_slot(self, k: int, buf_idx: int, length: int, flags: int = 0) -> None:
        at = self._slot(k)
        self.memory[at : at + 8] = struct.pack("<IHH", buf_idx, length, flags)

    def _slot(self, k: int) -> int:
        return self.offset + self.age.header + self.age.slot * k

    def read(self, buf_idx: int, size: int) -> bytes:
        """The beginning of a buffer."""
        start = self.buffers + buf_idx * self.buf_size
        return self.memory[start : start + size]

    def write(self, buf_idx: int, data: bytes) -> None:
        start = self.buffers + buf_idx * self.buf_size
        self.memory[start : start + len(data)] = data

    def put(self, frame: bytes) -> None:
        """As a generator does: fills the slot at cur, moves on, takes one off avail."""
        buf_idx = self.slot(self.cur)[0]
        self.write(buf_idx, frame)
        self.set_slot(self.cur, buf_idx, len(frame))
        self.advance()

    def advance(self, count: int = 1) -> None:
        self.cur = (self.cur + count) % self.num_slots
        self.avail -= count

    def look(self, k: int | None = None) -> bytes:
        """The packet in a slot, or at cur."""
        buf_idx, length, _ = self.slot(self.cur if k is None else k)
        return self.read(buf_idx, length)

    def take(self) -> list[bytes]:
        """All there are."""
        found = []
        while self.avail:
            found.append(self.look())
            self.advance()
        return found


class OldPort:
    """A descriptor of some age; unregistered until `regif`. Every request is kept as it came back."""

    def __init__(self, age: Age, name: str | None = None, ringid: int = 0) -> None:
        self.age = age
        self.fd = os.open("/dev/netmap", os.O_RDWR | os.O_CLOEXEC)
        self.answer: dict[str, int] = {}
        assert not self.ginfo("")  # as programs ask how much there is; on the CUSE door it lets them map
        self.memory = mmap.mmap(self.fd, MEMSIZE)
        if name is not None:
            result = self.regif(name, ringid)
            if result:
                self.close()
                raise OSError(result, os.strerror(result))

    def _call(self, command: int, name: str, fields: dict[str, int]) -> int:
        asked = dict.fromkeys(self.age.fields, 0) | {"version": self.age.version} | fields
        raw: list[object] = [name.encode().ljust(16, b"\0")]
        raw += [asked[field] for field in self.age.fields[1:]]
        block = Block(self.age.request.pack(*raw))
        result = ioctl(self.fd, command, block)
        self.answer = dict(zip(self.age.fields[1:], self.age.request.unpack(block.data)[1:], strict=True))
        return result

    def regif(self, name: str, ringid: int = 0, **fields: int) -> int:
        """0 or the errno."""
        result = self._call(self.age.regif, name, {"ringid": ringid, **fields})
        if not result:
            self.offset = self.answer["offset"]
        return result

    def ginfo(self, name: str, **fields: int) -> int:
        return self._call(self.age.ginfo, name, fields)

    def unregif(self) -> int:
        return ioctl(self.fd, NIOCUNREGIF)

    def counted(self) -> tuple[int, int]:
        """TX and RX rings that the netmap_if tells of."""
        places = (self.age.tx_rings, self.age.rx_rings)
        tx, rx = (struct.unpack_from("<I", self.memory, self.offset + at)[0] for at in places)
        return tx, rx

    def bound(self) -> str:
        """Which rings have an offset: TX and the host's, RX and the host's."""
        tx, rx = self.counted()
        offsets = struct.unpack_from(f"<{tx + rx + 2}q", self.memory, self.offset + self.age.ring_ofs)
        shown = "".join("X" if offset else "-" for offset in offsets)
        return f"{shown[: tx + 1]} {shown[tx + 1 :]}"

    def _ring(self, entry: int) -> OldRing:
        at = self.offset + self.age.ring_ofs + 8 * entry
        return OldRing(self.age, self.memory, self.offset + struct.unpack_from("<q", self.memory, at)[0])

    def tx(self, i: int = 0) -> OldRing:
        return self._ring(i)

    def rx(self, i: int = 0) -> OldRing:
        return self._ring(self.counted()[0] + 1 + i)

    def txsync(self) -> None:
        fcntl.ioctl(self.fd, NIOCTXSYNC)

    def rxsync(self) -> None:
        fcntl.ioctl(self.fd, NIOCRXSYNC)

    def poll(self, events: int, timeout: float) -> int:
        poller = select.poll()
        poller.register(self.fd, events)
        ready = poller.poll(timeout * 1000)
        return ready[0][1] if ready else 0

    def close(self) -> None:
        self.memory.close()  # it has a descriptor of its own
        os.close(self.fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
