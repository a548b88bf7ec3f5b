# SPDX-License-Identifier: BSD-2-Clause
"""The requests for region 1: when they take effect, what programs see of it, and what cannot be asked for."""

import ctypes
import errno
import mmap
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap._core import Region
from cuse_netmap.client import Port
from cuse_netmap.control.requests import NewInterface, Register, RequestType, ValeAttach
from cuse_netmap.helper import MEMORY, TOKEN, HelperServer
from tests.support.daemon import Daemon
from tests.support.host import Host, frame
from tests.support.ioctls import hold, request, settled
from tests.support.state import number, state, write

BUFFERS = 163840


@pytest.fixture
def served(way: tuple[str, ...], start_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon of the test's own with the TAP wire tap0, by each way in."""
    return start_daemon(*way, "--tap=tap0")


def buffers(wanted: int) -> int:
    """How many the region has, once it is that many: close() does not wait for its release."""
    return settled(lambda: number("memory/1/buf/total"), wanted)


def only_where_the_kernel_maps(served: Daemon) -> None:
    if served.mmap == "helper":
        pytest.skip("on the CUSE door alone the node is a character device, which no memory is behind")


def crosses(port: Port) -> None:
    """A frame each way."""
    with Host("tap0") as host:
        port.send(frame(1))
        assert host.receive() == frame(1)
        host.send(frame(2))
        assert port.receive() == frame(2)


@pytest.mark.door
def test_a_request_takes_effect_once_the_last_program_has_closed(served: Daemon) -> None:
    """ABI.md section 14: buf_num and its like take effect when the region is not in use, `curr` is what there is."""
    with Port("tap0") as first:
        size = first.granted.memsize
        with hold():
            assert write("parameters/buf_num", 5000) == 0
            assert write("parameters/ring_size", 40000) == 0
            assert (number("parameters/buf_num"), number("parameters/buf_curr_num")) == (5000, BUFFERS)
            assert number("parameters/ring_curr_size") == 36864
            crosses(first)
        served.wait_for_log("hold released")
        assert number("parameters/buf_curr_num") == BUFFERS, "one program still has the port"
        with hold() as again:
            assert again.granted.memsize == size
    assert buffers(5000) == 5000
    assert (number("parameters/buf_curr_num"), number("parameters/ring_curr_size")) == (5000, 40000)
    with Port("tap0") as port:
        assert port.granted.memsize == number("memory/1/size") == len(port.memory) < size
        crosses(port)
    with hold(extra_bufs=10000) as all_of_them:
        assert all_of_them.granted.extra_bufs == 5000 - 2


@pytest.mark.door
def test_a_request_takes_effect_at_once_if_nobody_uses_the_region(served: Daemon) -> None:
    """ABI.md section 14."""
    del served
    assert write("parameters/buf_num", 200000) == 0
    assert number("memory/1/buf/total") == 200000
    with Port("tap0") as port:
        assert port.granted.memsize > 200000 * 2048
        port.memory[port.granted.memsize - 1] = 1  # the last byte is there
        crosses(port)


@pytest.mark.door
def test_what_there_is_is_not_said_before_the_first_use(served: Daemon) -> None:
    """ABI.md section 14: if_curr_size ... are 0 until first use."""
    del served
    assert number("parameters/buf_curr_num") == 0
    assert write("parameters/buf_num", 5000) == 0
    assert number("parameters/buf_curr_num") == 0
    with Port("tap0"):
        assert number("parameters/buf_curr_num") == 5000
        assert number("parameters/if_curr_size") == 1024
    assert number("parameters/buf_curr_num") == 5000


def test_an_open_descriptor_that_is_not_registered_keeps_the_region(served: Daemon) -> None:
    """All opens of a FUSE file must agree on what is behind it."""
    only_where_the_kernel_maps(served)
    fd = os.open("/dev/netmap", os.O_RDWR)
    assert write("parameters/buf_num", 5000) == 0
    assert number("memory/1/buf/total") == BUFFERS
    with Port("tap0") as port:
        crosses(port)
    served.wait_for_log("tap0 released")
    assert number("memory/1/buf/total") == BUFFERS
    os.close(fd)
    assert buffers(5000) == 5000


def test_the_size_of_the_node_is_the_regions(served: Daemon) -> None:
    only_where_the_kernel_maps(served)
    assert Path("/dev/netmap").stat().st_size == number("memory/1/size")
    assert write("parameters/buf_num", 5000) == 0
    assert Path("/dev/netmap").stat().st_size == number("memory/1/size")


def test_a_map_that_a_program_has_kept_stays_what_it_was(served: Daemon) -> None:
    """It does not keep the port (docs/compatibility.md), so it does not keep the region either."""
    del served
    with Port("tap0") as port:
        kept = keep_mapped(port.fd, port.granted.memsize)
        last = port.granted.memsize - 1
    kept[last] = b"x"
    assert write("parameters/buf_num", 5000) == 0
    assert buffers(5000) == 5000
    with Port("tap0") as port:
        crosses(port)
    assert kept[last] == b"x"


def keep_mapped(fd: int, size: int) -> "ctypes.Array[ctypes.c_char]":
    """The whole memory, mapped until this process ends; Python's own maps keep the descriptor open."""
    call = ctypes.CDLL(None, use_errno=True).mmap
    call.restype = ctypes.c_void_p
    call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    address = call(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    assert address != ctypes.c_void_p(-1).value, ctypes.get_errno()
    return (ctypes.c_char * size).from_address(address)


def test_many_changes_leave_nothing_behind(served: Daemon) -> None:
    descriptors, status = Path(f"/proc/{served.pid}/fd"), Path(f"/proc/{served.pid}/maps")

    def held() -> tuple[int, int]:
        return len(list(descriptors.iterdir())), status.read_text().count("memfd:netmap")

    with Port("tap0") as port:
        crosses(port)
    assert settled(lambda: number("memory/1/if/used"), 0) == 0
    before = held()
    for count in range(100):
        assert write("parameters/buf_num", 5000 + count) == 0
        assert number("memory/1/buf/total") >= 5000 + count
    assert held() == before
    with Port("tap0") as port:
        crosses(port)


@pytest.mark.parametrize(("first", "second"), [(("buf_size", 65536), ("buf_num", 70000))])
def test_a_region_of_4_gib_or_more_is_einval(
    start_daemon: Callable[..., Daemon], first: tuple[str, int], second: tuple[str, int]
) -> None:
    """The offsets of programs have 32 bits."""
    start_daemon("--no-ports")
    assert write(f"parameters/{first[0]}", first[1]) == errno.EINVAL, "163840 buffers of that size are too many"
    assert write("parameters/buf_num", 1000) == 0
    assert write(f"parameters/{first[0]}", first[1]) == 0
    assert write(f"parameters/{second[0]}", second[1]) == errno.EINVAL
    assert state(f"parameters/{second[0]}") == "1000"
    with hold() as port:
        assert port.granted.memsize == number("memory/1/size") < 1 << 32


def test_ports_that_nobody_uses_follow_the_region(served: Daemon) -> None:
    """A persistent VALE port is there all the time; its buffers are elsewhere afterwards."""
    fd = os.open("/dev/netmap", os.O_RDWR)
    assert request(fd, RequestType.VALE_NEWIF, "v0", NewInterface())[0] == 0
    assert request(fd, RequestType.VALE_ATTACH, "vale0:v0", ValeAttach(Register().encode(), 0))[0] == 0
    os.close(fd)
    assert write("parameters/buf_size", 4096) == 0
    assert write("parameters/buf_num", 20000) == 0
    assert buffers(20000) == 20000
    with Port("v0") as persistent, Port("vale0:other") as other:
        assert persistent.tx[0].buf_size == other.rx[0].buf_size == 4096
        for one, another in ((persistent, other), (other, persistent)):
            one.send(frame(1, 3000))
            assert another.receive() == frame(1, 3000)
    assert served.stop() == 0


# ---- through the helper


@pytest.fixture
def region() -> Iterator[Region]:
    one = Region({"if": (1024, 10), "ring": (4096, 4), "buf": (2048, 100)})
    yield one
    one.close()


def test_the_helper_gives_out_the_memory_there_is(region: Region, tmp_path: Path) -> None:
    helper = HelperServer(f"test-{os.getpid()}", region, tmp_path)
    try:
        for count in (100, 300):
            region.resize({"if": (1024, 10), "ring": (4096, 4), "buf": (2048, count)}, ())
            token, path = TOKEN.unpack(helper.token(1))
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path.split(b"\0")[0])
                connection.sendall(token)
                data, fds, _, _ = socket.recv_fds(connection, MEMORY.size, 1)
            assert MEMORY.unpack(data)[0] == region.size == os.fstat(fds[0]).st_size
            assert region.pool("buf").objtotal == count
            os.close(fds[0])
    finally:
        helper.close()
