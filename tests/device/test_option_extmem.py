# SPDX-License-Identifier: BSD-2-Clause
"""The option EXTMEM: packet memory that a program brings (ABI.md 13.1 and 8)."""

import ctypes
import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import (
    NIOCCTRL,
    NIOCTXSYNC,
    ExtmemBody,
    Mode,
    Option,
    OptionType,
    PoolsInfo,
    PortInfo,
    Register,
    RequestType,
)
from cuse_netmap.log import PERIOD
from tests.support import program
from tests.support.daemon import Daemon
from tests.support.host import frame
from tests.support.ioctls import Block, device, header, ioctl, option, register, request, settled, status
from tests.support.old import API_5, OldPort
from tests.support.patience import at_most

pytestmark = pytest.mark.usefixtures("wires")

MIB = 1 << 20
SIZE = 16 * MIB
PAGE = mmap.PAGESIZE
TOP = 1 << 64
# Room for more than the defaults have: two pipes and some ports.
ROOMY = {"if_total": 20, "ring_total": 40}
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p


def address_of(memory: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def extmem(address: int, memsize: int, **info: int) -> Block:
    """The option, as a program writes it."""
    body = ExtmemBody(address, PoolsInfo(memsize=memsize, **info).encode()).encode()
    return option(OptionType.EXTMEM, body=body)


def answer(block: Block) -> ExtmemBody:
    return ExtmemBody.decode(block.data[Option.size() :])


def attempt(name: str, wanted: Block, **fields: int) -> tuple[int, int]:
    """REGISTER with the option, on a descriptor of its own: (0 or the errno, the option's status)."""
    with device() as fd:
        body = Block(Register(tx_slots=16, rx_slots=16, **fields).encode())
        return ioctl(fd, NIOCCTRL, header(RequestType.REGISTER, name, body, wanted)), status(wanted)


@contextmanager
def brought(
    name: str, memory: mmap.mmap, pools: dict[str, int] | None = None, asked: Register | None = None
) -> Iterator[Port]:
    wanted = extmem(address_of(memory), len(memory), **pools or {})
    with Port(name, asked, options=wanted.address, memory=memory) as port:
        yield port


def within(name: str, memory: mmap.mmap, mem_id: int, mode: int = Mode.ALL_NIC, **fields: int) -> Port:
    """Another port in the same region."""
    return Port(name, Register(mode=mode, mem_id=mem_id, **fields), memory=memory)


def known(mem_id: int) -> bool:
    """Whether there is such a region."""
    with device() as fd:
        return request(fd, RequestType.PORT_INFO_GET, "", PortInfo(mem_id=mem_id))[0] == 0


@pytest.fixture
def memory() -> mmap.mmap:
    """Shared memory without a name, which ends with the last who looks at it."""
    return mmap.mmap(-1, SIZE)


def test_a_vale_port_lives_in_the_programs_memory(memory: mmap.mmap) -> None:
    """ABI.md 13.1: no map of the descriptor; nr_offset counts from nro_usrptr, buffers are the program's pages."""
    with brought("vale0:a", memory) as port, Port("vale0:b") as other:
        assert port.granted.mem_id >= 2
        assert port.granted.memsize == SIZE
        assert (port.name, port.tx[0].num_slots) == ("vale0:a", 1024)
        for i in range(3000):
            port.send(frame(i, 100 + i % 1000))
            other.send(frame(i + 1, 60 + i % 1000))
            assert other.receive() == frame(i, 100 + i % 1000)
            assert port.receive() == frame(i + 1, 60 + i % 1000)


def test_programs_that_know_one_region_do_not_get_into_another(memory: mmap.mmap) -> None:
    """docs/compatibility.md: API 10 and before map region 1, whatever they register."""
    with brought("vale0:a", memory), OldPort(API_5) as old:
        assert old.regif("vale0:a") == errno.EINVAL
        assert old.regif("vale0:a", version=10) == errno.EINVAL
        assert old.regif("vale0:b") == 0


def test_nothing_of_it_is_in_the_programs_own_region_flags_but_that_it_is_private(memory: mmap.mmap) -> None:
    """ABI.md 3.6 and 8: NI_PRIV_MEM."""
    with brought("vale0:a", memory) as port, Port("vale0:b") as other:
        flags = [p.memory[p.if_offset + 20 : p.if_offset + 24] for p in (port, other)]
        assert flags == [b"\1\0\0\0", bytes(4)]


def test_what_is_zero_is_filled_in_and_the_rest_comes_back_as_sent(memory: mmap.mmap) -> None:
    """ABI.md 13.1: private defaults; T: usrptr, memsize and nro_next unchanged."""
    wanted = extmem(address_of(memory), SIZE, if_total=3, mem_id=77)
    assert attempt("vale0:a", wanted) == (0, 0)
    assert answer(wanted).address == address_of(memory)
    expected = PoolsInfo(SIZE, 77, 0, 3, 1024, 0, 4, 20480, 0, 4098, 2048)
    assert answer(wanted).info == expected
    assert Option.decode(wanted.data[: Option.size()]).next == 0


def test_what_the_pools_do_not_take_is_buffers(memory: mmap.mmap) -> None:
    """ABI.md 13.1: surplus goes to buffers; all of them can be had."""
    asked = Register(tx_slots=16, rx_slots=16, extra_bufs=1_000_000)
    with brought("vale0:a", memory, asked=asked) as port:
        rest = SIZE - PAGE - 4 * 20480
        assert port.granted.extra_bufs == rest // 2048 - 2 - 32


def test_the_pools_are_where_they_are_said_to_be(memory: mmap.mmap) -> None:
    """ABI.md 4.2 and 13.1: POOLS_INFO_GET of a port tells of the region it lives in."""
    pools = {"if_total": 5, "if_size": 1000, "ring_size": 4096}
    with brought("vale0:a", memory, pools) as port, device() as fd:
        result, body = request(fd, RequestType.POOLS_INFO_GET, "vale0:a", PoolsInfo())
        info = PoolsInfo.decode(body)
        assert (result, info.mem_id, info.memsize) == (0, port.granted.mem_id, port.granted.memsize)
        assert (info.if_offset, info.if_total, info.if_size) == (0, 5, 1024)
        assert (info.ring_offset, info.ring_total, info.ring_size) == (2 * PAGE, 4, 4096)
        assert info.buf_offset == 6 * PAGE
        assert port.tx[0].buffers == info.buf_offset


def test_the_same_memory_is_the_same_region(memory: mmap.mmap) -> None:
    """ABI.md 13.1: registered twice, one mem_id; other memory, another. Buffers of one region may be swapped."""
    with ExitStack() as stack:
        first = stack.enter_context(brought("vale0:a", memory, ROOMY))
        second = stack.enter_context(brought("vale0:b", memory, ROOMY))
        third = stack.enter_context(brought("vale0:c", mmap.mmap(-1, SIZE)))
        assert first.granted.mem_id == second.granted.mem_id
        assert third.granted.mem_id not in (1, first.granted.mem_id)
        assert first.tx[0].offset != second.tx[0].offset
        assert first.tx[0].buffers == second.tx[0].buffers


def test_two_programs_with_one_file_share_the_region(tmp_path: Path) -> None:
    """ABI.md 13.1: the same pages, wherever they are mapped; a file in a file system serves as well."""
    with (tmp_path / "memory").open("w+b") as file:
        file.truncate(SIZE)
        maps = [mmap.mmap(file.fileno(), SIZE) for _ in range(2)]
    with brought("vale0:a", maps[0], ROOMY) as first, brought("vale0:b", maps[1], ROOMY) as second:
        assert first.granted.mem_id == second.granted.mem_id
        first.send(frame(1, 500))
        assert second.receive() == frame(1, 500)


def test_other_ports_are_made_in_the_region_by_its_id(memory: mmap.mmap) -> None:
    """ABI.md 7 and 8: nr_mem_id of a later REGISTER, of VALE, pipes, null ports; pipes of its ports without."""
    with brought("vale0:a", memory, ROOMY) as port, ExitStack() as stack:
        mem_id = port.granted.mem_id
        others = [
            within("vale0:b", memory, mem_id),
            within("alone{1", memory, mem_id, tx_slots=64, rx_slots=64),
            within("alone}1", memory, mem_id),
            within("vale0:a{1", memory, 0, tx_slots=64, rx_slots=64),
            within("hold", memory, mem_id, Mode.NULL, extra_bufs=5),
        ]
        for other in others:
            stack.enter_context(other)
        assert {other.granted.mem_id for other in others} == {mem_id}
        assert others[4].granted.extra_bufs == 5
        others[1].send(frame(1, 700))
        assert others[2].receive() == frame(1, 700)
        port.send(frame(2, 700))
        assert others[0].receive() == frame(2, 700)


def test_the_region_ends_with_its_last_port(memory: mmap.mmap) -> None:
    """ABI.md 8: freed when the last port using it goes; unknown ids are invalid."""
    with brought("vale0:a", memory, ROOMY) as port:
        mem_id = port.granted.mem_id
        later = within("vale0:b", memory, mem_id)
    with later:
        time.sleep(0.3)
        assert known(mem_id)
        later.txsync()
    assert settled(lambda: known(mem_id), wanted=0) == 0
    with device() as fd:
        assert register(fd, "vale0:c", mem_id=mem_id)[0] == errno.EINVAL


def test_a_failed_register_leaves_no_region(memory: mmap.mmap) -> None:
    """ABI.md 4.1 point 10: undone."""
    with brought("vale0:x", mmap.mmap(-1, SIZE)) as port:
        newest = port.granted.mem_id
    wanted = extmem(address_of(memory), SIZE)
    assert attempt("vale0:a", wanted, ringid=9, mode=Mode.ONE_NIC)[0] == errno.EINVAL
    assert status(wanted) == 0
    assert not known(newest + 1)


@pytest.mark.parametrize("name", ["tap0", "quad", "nil{1"])
def test_a_port_with_memory_of_its_own_does_not_move(memory: mmap.mmap, name: str) -> None:
    """ABI.md 13.1: what cannot be honoured is EOPNOTSUPP, and nothing stays bound."""
    assert attempt(name, extmem(address_of(memory), SIZE)) == (errno.EOPNOTSUPP, errno.EOPNOTSUPP)
    with Port(name) as port:
        assert port.granted.mem_id == 1


def test_a_descriptor_that_is_bound_stays_so(memory: mmap.mmap) -> None:
    """ABI.md 7: EBUSY."""
    with device() as fd:
        assert register(fd, "nil")[0] == 0
        asked = header(RequestType.REGISTER, "vale0:a", Block(Register().encode()), extmem(address_of(memory), SIZE))
        assert ioctl(fd, NIOCCTRL, asked) == errno.EBUSY


# ---- what cannot be


@pytest.mark.parametrize(
    ("info", "error"),
    [
        ({"memsize": 4 * MIB}, errno.ENOMEM),
        ({"memsize": 0}, errno.ENOMEM),
        ({"ring_size": MIB, "ring_total": 64}, errno.ENOMEM),
        ({"buf_total": 0xFFFFFFFF, "buf_size": 0xFFFFFFFF}, errno.ENOMEM),
        ({"ring_size": 131072 + 64}, errno.EINVAL),
        ({"if_size": 55}, errno.EINVAL),
        ({"if_total": 101}, errno.EINVAL),
        ({"ring_total": 1}, errno.EINVAL),
        ({"buf_total": 3}, errno.EINVAL),
        ({"buf_size": 1}, errno.EINVAL),
    ],
)
def test_pools_that_cannot_be(memory: mmap.mmap, info: dict[str, int], error: int) -> None:
    """ABI.md 13.1: ENOMEM if they are larger than the memory (T: 1 MiB ring objects), EINVAL beyond netmap's limits."""
    wanted = extmem(address_of(memory), **{"memsize": SIZE, **info})
    assert attempt("vale0:a", wanted) == (error, error)


@pytest.mark.parametrize(
    ("address", "size"),
    [
        (0, SIZE),
        (0x1000, SIZE),
        (TOP - PAGE, SIZE),
        (TOP - PAGE, TOP - 1),
        (0xFFFF800000000000, SIZE),
        (0x7FFFFFFFF000, PAGE),
        (0x7FFFFFFFF000, TOP - 1),
    ],
)
def test_memory_that_is_nowhere_is_a_fault(address: int, size: int) -> None:
    """ABI.md 13.1: unmapped: EFAULT."""
    assert attempt("vale0:a", extmem(address, size)) == (errno.EFAULT, errno.EFAULT)


def test_memory_that_ends_too_early_is_a_fault(memory: mmap.mmap) -> None:
    """ABI.md 13.1: EFAULT for what is not mapped at the end or in the middle."""
    address = address_of(memory)
    for size in (TOP - 1, 1 << 47):
        assert attempt("vale0:a", extmem(address, size)) == (errno.EFAULT, errno.EFAULT)
    hole = LIBC.mmap(None, ctypes.c_size_t(SIZE), 3, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS, -1, ctypes.c_long(0))
    LIBC.munmap(ctypes.c_void_p(hole + SIZE // 2), ctypes.c_size_t(PAGE))
    assert attempt("vale0:a", extmem(hole, SIZE)) == (errno.EFAULT, errno.EFAULT)
    LIBC.munmap(ctypes.c_void_p(hole), ctypes.c_size_t(SIZE))


def test_memory_that_may_only_be_read_is_a_fault(tmp_path: Path) -> None:
    """ABI.md 13.1: EFAULT, although it is shared."""
    path = tmp_path / "memory"
    path.write_bytes(bytes(SIZE))
    with path.open("rb") as file:
        address = LIBC.mmap(
            None, ctypes.c_size_t(SIZE), mmap.PROT_READ, mmap.MAP_SHARED, file.fileno(), ctypes.c_long(0)
        )
    assert attempt("vale0:a", extmem(address, SIZE)) == (errno.EFAULT, errno.EFAULT)
    LIBC.munmap(ctypes.c_void_p(address), ctypes.c_size_t(SIZE))
    assert path.read_bytes() == bytes(SIZE)


def test_private_memory_is_not_supported_and_the_log_says_why(wires: Daemon) -> None:
    """Issue B: EOPNOTSUPP in the option's status."""
    time.sleep(PERIOD)  # the log has had enough refusals from us
    memory = mmap.mmap(-1, SIZE, flags=mmap.MAP_PRIVATE)
    wanted = extmem(address_of(memory), SIZE)
    assert attempt("vale0:a", wanted) == (errno.EOPNOTSUPP, errno.EOPNOTSUPP)
    wires.wait_for_log("MAP_SHARED")


def test_memory_on_the_device_itself_is_not_supported() -> None:
    """ABI.md 13.1: its file system would be ours to serve."""
    with Port("nil") as port:
        assert attempt("vale0:a", extmem(address_of(port.memory), SIZE)) in (
            (errno.EOPNOTSUPP, errno.EOPNOTSUPP),
            (errno.EINVAL, errno.EINVAL),
        )


def test_memory_begins_with_a_page(memory: mmap.mmap) -> None:
    """ABI.md 13.1: offsets count from nro_usrptr, which therefore must be where a page is."""
    assert attempt("vale0:a", extmem(address_of(memory) + 64, SIZE // 2)) == (errno.EINVAL, errno.EINVAL)


def test_memory_may_be_of_several_files() -> None:
    """ABI.md 13.1: whatever lies side by side in the program, from wherever in the files."""
    files = [os.memfd_create(f"part{i}") for i in range(2)]
    for fd in files:
        os.ftruncate(fd, SIZE)
    memory = mmap.mmap(-1, SIZE)
    address, part = address_of(memory), SIZE // 4
    for i in range(4):
        at = LIBC.mmap(
            ctypes.c_void_p(address + i * part),
            ctypes.c_size_t(part),
            mmap.PROT_READ | mmap.PROT_WRITE,
            mmap.MAP_SHARED | 0x10,
            files[i % 2],
            ctypes.c_long((3 - i) * part),
        )
        assert at == address + i * part
    with brought("vale0:a", memory) as port, Port("vale0:b") as other:
        for i in range(3000):
            port.send(frame(i, 100))
            assert other.receive() == frame(i, 100)
    for fd in files:
        os.close(fd)


# ---- memory that changes under us


def truncated(name: str, daemon: Daemon) -> None:
    """A port in a file that then is truncated, and synced."""
    fd = os.memfd_create("short")
    os.ftruncate(fd, SIZE)
    memory = mmap.mmap(fd, SIZE)
    wanted = extmem(address_of(memory), SIZE)
    with device() as netmap:
        body = Block(Register(extra_bufs=100).encode())
        assert ioctl(netmap, NIOCCTRL, header(RequestType.REGISTER, name, body, wanted)) == 0
        mem_id = Register.decode(body.data).mem_id
        os.ftruncate(fd, 0)
        for _ in range(3):
            assert ioctl(netmap, NIOCTXSYNC) in (0, errno.EIO)
        daemon.wait_for_log(f"memory region {mem_id}, of")
        assert settled(lambda: ioctl(netmap, NIOCTXSYNC), errno.EIO) == errno.EIO
        with device() as second:
            assert register(second, "vale9:z", mem_id=mem_id)[0] == errno.EINVAL
    os.close(fd)
    assert settled(lambda: known(mem_id), wanted=0) == 0


def test_a_file_that_is_truncated_costs_its_own_ports_only(wires: Daemon) -> None:
    """Issue B, bad input: the daemon goes on, the log says so, others' traffic does not notice."""
    with Port("vale0:a") as sender, Port("vale0:b") as receiver:
        for i in range(8):
            truncated("vale1:short", wires)
            sender.send(frame(i, 300))
            assert receiver.receive() == frame(i, 300)


def test_a_receiver_whose_file_is_truncated_does_not_stop_the_sender(wires: Daemon) -> None:
    """Issue B, bad input: the fault happens in the sender's sync."""
    fd = os.memfd_create("short")
    os.ftruncate(fd, SIZE)
    memory = mmap.mmap(fd, SIZE)
    with Port("vale0:a") as sender, Port("vale0:b") as receiver, device() as netmap:
        body = Block(Register().encode())
        asked = header(RequestType.REGISTER, "vale0:c", body, extmem(address_of(memory), SIZE))
        assert ioctl(netmap, NIOCCTRL, asked) == 0
        os.ftruncate(fd, PAGE)
        for i in range(100):
            sender.send(frame(i, 300))
            assert receiver.receive() == frame(i, 300)
        wires.wait_for_log(f"memory region {Register.decode(body.data).mem_id}, of")
    os.close(fd)


def test_memory_that_is_exchanged_while_it_is_looked_at_harms_nobody(
    wires: Daemon, client_program: Callable[..., Path], tmp_path: Path
) -> None:
    """Issue B, bad input: unmapped or remapped by another thread; a file that may only be read is never written."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"\xa5" * MIB)
    succeeded = int(program.run(client_program("extmem_race"), "vale7:race", 2000, victim, seconds=at_most(60)))
    assert succeeded > 0
    assert victim.read_bytes() == b"\xa5" * MIB
    with Port("vale0:a") as sender, Port("vale0:b") as receiver:
        sender.send(frame(1))
        assert receiver.receive() == frame(1)
    assert wires.process.poll() is None


def test_nothing_of_a_programs_memory_stays_mapped_or_open(wires: Daemon) -> None:
    """Issue B: regions end, so do the daemon's maps and descriptors of them."""

    def count() -> int:
        maps = Path(f"/proc/{wires.pid}/maps").read_text().count("extmem-leak")
        return maps + sum("extmem-leak" in str(link.readlink()) for link in _links(wires.pid))

    for i in range(100):
        fd = os.memfd_create("extmem-leak")
        os.ftruncate(fd, SIZE)
        memory = mmap.mmap(fd, SIZE)
        os.close(fd)
        ring_size = 0 if i % 2 else 1
        attempt("vale0:a", extmem(address_of(memory), SIZE, ring_size=ring_size))
    assert settled(count, 0) == 0


def _links(pid: int) -> list[Path]:
    return [link for link in Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()]
