# SPDX-License-Identifier: BSD-2-Clause
"""Programs of API 10 to 13: their requests and netmap_if in the layouts of their time (ABI.md 2 and 16)."""

import ctypes
import errno
import fcntl
import mmap
import struct
from collections.abc import Iterator

import pytest

from cuse_netmap.client import Port, Ring
from cuse_netmap.control.requests import (
    NIOCCTRL,
    NIOCREGIF,
    NIOCRXSYNC,
    NIOCTXSYNC,
    Legacy,
    Mode,
    Register,
    RequestType,
)
from tests.support.host import Host, frame
from tests.support.ioctls import LIBC, Block, device, header, ioctl

pytestmark = pytest.mark.usefixtures("wires")

GUARD = b"\xa5" * 32  # behind each body: to be left alone
MEMSIZE = 343019520

# offset, memsize, tx_slots, rx_slots, tx_rings, rx_rings, mem_id, ringid, mode; then what differs
REGISTER_12 = struct.Struct("<QQIIHHHHI4xQI4x")  # flags, extra_bufs
REGISTER_13 = struct.Struct("<QQIIHHHHIIQ")  # extra_bufs, flags
PORT_INFO = struct.Struct("<QIIHHH2x")


@pytest.fixture
def fd() -> Iterator[int]:
    with device() as opened:
        yield opened


def ask(fd: int, version: int, kind: RequestType, name: str, body: bytes) -> tuple[int, bytes]:
    """One NIOCCTRL of that version: (0 or the errno, the body as it comes back); nothing behind it is touched."""
    block = Block(body + GUARD)
    asked = header(kind, name, block, version=version)
    before = asked.data
    result = ioctl(fd, NIOCCTRL, asked)
    assert asked.data == before
    assert block.data[len(body) :] == GUARD
    return result, block.data[: len(body)]


def rings_of(fd: int, offset: int, start: int, count: int) -> str:
    """Which of the first `count` offsets of a netmap_if, from byte `start` of it on, are there."""
    with mmap.mmap(fd, 1 << 20) as memory:
        offsets = struct.unpack_from(f"<{count}q", memory, offset + start)
    return "".join("X" if one else "-" for one in offsets)


# ---- NIOCCTRL of 12 and 13


def test_register_of_api_12_has_its_flags_before_its_extra_buffers(fd: int) -> None:
    """ABI.md 16: mem_id at 28, ringid at 30, mode at 32, flags at 40, extra buffers at 48."""
    flags = 0x2000  # RX_RINGS_ONLY
    body = REGISTER_12.pack(0, 0, 0, 0, 0, 0, 1, 2, Mode.ONE_NIC, flags, 7)
    result, answer = ask(fd, 12, RequestType.REGISTER, "quad", body)
    assert result == 0
    offset, *rest = REGISTER_12.unpack(answer)
    assert rest == [MEMSIZE, 1024, 1024, 4, 4, 1, 2, Mode.ONE_NIC, flags, 7]
    assert rings_of(fd, offset, 56, 10) == "-------X--"


def test_register_of_api_13_has_its_extra_buffers_before_its_flags(fd: int) -> None:
    """ABI.md 16: 48 bytes, extra buffers at 36, flags at 40."""
    flags = 0x4000  # TX_RINGS_ONLY
    body = REGISTER_13.pack(0, 0, 0, 0, 0, 0, 1, 3, Mode.ONE_NIC, 9, flags)
    result, answer = ask(fd, 13, RequestType.REGISTER, "quad", body)
    assert result == 0
    offset, *rest = REGISTER_13.unpack(answer)
    assert rest == [MEMSIZE, 1024, 1024, 4, 4, 1, 3, Mode.ONE_NIC, 9, flags]
    assert rings_of(fd, offset, 56, 10) == "---X------"


@pytest.mark.parametrize("version", [12, 13])
def test_port_info_of_api_12_and_13_has_24_bytes(fd: int, version: int) -> None:
    """ABI.md 16: mem_id at 20."""
    result, answer = ask(fd, version, RequestType.PORT_INFO_GET, "quad", bytes(24))
    assert (result, PORT_INFO.unpack(answer)) == (0, (MEMSIZE, 1024, 1024, 4, 4, 1))


@pytest.mark.parametrize(
    ("version", "attach", "detach"),
    [(12, 64, 4), (13, 56, 8), (14, 64, 8)],
)
def test_ports_are_attached_and_detached_by_bodies_of_each_version(
    fd: int, version: int, attach: int, detach: int
) -> None:
    """ABI.md 16: 64 and 4 bytes in 12, 56 and 8 in 13; the port's index comes back behind the register's part."""
    body = bytearray(b"\0" * attach)
    struct.pack_into("<I", body, 36 if version == 14 else 32, Mode.ALL_NIC)
    index = 48 if version == 13 else 56
    body[index : index + 4] = b"\xff" * 4
    result, answer = ask(fd, version, RequestType.VALE_ATTACH, "vale7:quad", bytes(body))
    assert (result, struct.unpack_from("<I", answer, index)[0]) == (0, 0)
    assert ask(fd, version, RequestType.VALE_DETACH, "vale7:quad", bytes(detach))[0] == 0


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (RequestType.PORT_HDR_GET, 4),
        (RequestType.PORT_HDR_SET, 4),
        (RequestType.VALE_DETACH, 4),
        (RequestType.VALE_POLLING_ENABLE, 12),
        (RequestType.VALE_POLLING_DISABLE, 12),
        (RequestType.SYNC_KLOOP_START, 4),
    ],
)
def test_no_more_of_a_body_is_read_than_api_12_had(fd: int, kind: RequestType, size: int) -> None:
    """ABI.md 16: a body that ends with mapped memory is enough, one that does not is a fault."""
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as memory:
        start = ctypes.c_char.from_buffer(memory)
        edge = ctypes.addressof(start) + mmap.PAGESIZE
        del start
        assert LIBC.mprotect(ctypes.c_void_p(edge), mmap.PAGESIZE, 0) == 0
        whole = header(kind, "missing", edge - size, version=12)
        assert ioctl(fd, NIOCCTRL, whole) in (errno.ENXIO, errno.EINVAL)
        assert ioctl(fd, NIOCCTRL, header(kind, "missing", edge - size + 1, version=12)) == errno.EFAULT
        assert LIBC.mprotect(ctypes.c_void_p(edge), mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_WRITE) == 0


# ---- API 10


def regif(fd: int, name: bytes, version: int, **fields: int) -> Legacy:
    asked = Legacy(name.ljust(16, b"\0"), version, *[0] * 13)
    for field, value in fields.items():
        setattr(asked, field, value)
    data = bytearray(asked.encode())
    fcntl.ioctl(fd, NIOCREGIF, data)
    return Legacy.decode(bytes(data))


@pytest.mark.parametrize(
    ("ringid", "expected"),
    [(0, "XXXX-XXXX-"), (0x2000, "----X----X"), (0x4002, "--X----X--"), (0xC001, "-X----X---")],
)
def test_the_offsets_of_api_10_begin_at_byte_40(fd: int, ringid: int, expected: str) -> None:
    """ABI.md 16: 40 bytes before ring_ofs, of which the last 8, rings that never were, are 0."""
    answer = regif(fd, b"quad", 10, ringid=ringid)
    assert rings_of(fd, answer.offset, 40, 10) == expected
    with mmap.mmap(fd, 1 << 20) as memory:
        assert struct.unpack_from("<16s6I", memory, answer.offset) == (b"quad".ljust(16, b"\0"), 0, 0, 4, 4, 0, 0)


def test_api_10_says_nothing_by_the_fields_that_it_did_not_have(fd: int) -> None:
    """ABI.md 16: nr_arg3 and nr_flags are spare words, neither read nor written; nr_arg2 asks for no region."""
    answer = regif(fd, b"quad", 10, ringid=0x4003, arg2=77, arg3=5, flags=0xFFFFFFFF)
    assert (answer.arg2, answer.arg3, answer.flags) == (77, 5, 0xFFFFFFFF)
    assert rings_of(fd, answer.offset, 40, 10) == "---X----X-"


@pytest.mark.parametrize(("version", "start"), [(10, 40), (11, 56), (12, 56), (13, 56)])
def test_old_programs_count_one_host_ring_although_there_are_more(fd: int, version: int, start: int) -> None:
    """ABI.md 3.5: RXRING(i) is ring_ofs[i + ni_tx_rings + 1] up to API 13; the words for host rings are spare."""
    with Port("quad", Register(mode=Mode.SW, host_tx_rings=3, host_rx_rings=2)):
        answer = regif(fd, b"quad", version)
    assert rings_of(fd, answer.offset, start, 10) == "XXXX-XXXX-"
    with mmap.mmap(fd, 1 << 20) as memory:
        assert start == 40 or struct.unpack_from("<2I", memory, answer.offset + 36) == (0, 0)


def test_frames_of_api_10_cross_a_wire(host: Host, fd: int) -> None:
    """ABI.md 16: rings and slots of API 10 are today's."""
    answer = regif(fd, b"tap1", 10)
    with mmap.mmap(fd, answer.memsize) as memory:
        offsets = struct.unpack_from("<4q", memory, answer.offset + 40)
        tx, rx = (Ring(memory, answer.offset + offsets[i]) for i in (0, 2))
        sent = frame(1)
        buffer = tx.slot(0)[0]
        tx.buffer(buffer)[: len(sent)] = sent
        tx.set_slot(0, buffer, len(sent))
        tx.advance()
        fcntl.ioctl(fd, NIOCTXSYNC)
        assert host.take(1) == [sent]
        host.send(frame(2))
        fcntl.ioctl(fd, NIOCRXSYNC)
        assert rx.space == 1
        index, length, _, _ = rx.slot(rx.head)
        assert bytes(rx.buffer(index)[:length]) == frame(2)
        del tx, rx


def test_programs_of_api_10_and_14_meet_on_one_pipe(fd: int) -> None:
    """Issue E: a register of an old program is no reason to refuse a new one."""
    answer = regif(fd, b"quad{5", 10)
    with Port("quad}5") as other, mmap.mmap(fd, answer.memsize) as memory:
        (offset,) = struct.unpack_from("<q", memory, answer.offset + 40)
        tx = Ring(memory, answer.offset + offset)
        tx.set_slot(0, tx.slot(0)[0], 60)
        tx.advance()
        fcntl.ioctl(fd, NIOCTXSYNC)
        assert len(other.receive()) == 60
        del tx
