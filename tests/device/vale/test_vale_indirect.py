# SPDX-License-Identifier: BSD-2-Clause
"""NS_INDIRECT: frames that are in the sender's own memory, where it says or not (ABI.md 12.5)."""

import ctypes
import mmap
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cuse_netmap.client import NS_INDIRECT, NS_MOREFRAG, Port
from cuse_netmap.control.requests import Flag
from tests.support.daemon import Daemon
from tests.support.held_back import HeldBack
from tests.support.ioctls import BAD_ADDRESS, Block, settled
from tests.support.patience import at_most
from tests.support.program import Program
from tests.support.switches import (
    BROADCAST,
    all_ports,
    arrived,
    attached,
    frame,
    mac,
    opened,
    persistent,
    send,
    set_header,
)

A, B = mac(1), mac(2)
PAGE = mmap.PAGESIZE


@pytest.fixture(scope="module", autouse=True)
def served(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for each way in."""
    with Daemon(tmp_path_factory.mktemp("indirect") / "log", *way) as daemon:
        yield daemon


@pytest.fixture
def two() -> Iterator[tuple[Port, Port]]:
    with opened("vale0:a") as a, opened("vale0:b") as b:
        yield a, b


Flush = Callable[[Port], object]
FLUSHES: list[Flush] = [
    Port.txsync,
    lambda port: port.poll(select.POLLOUT, at_most(5)),
    lambda port: port.poll(select.POLLIN, 0),
]
EVERY_WAY = pytest.mark.parametrize("flush", FLUSHES, ids=["ioctl", "pollout", "pollin"])


def point(port: Port, address: int, length: int = 60, flags: int = 0) -> None:
    """A frame that is somewhere else."""
    ring = port.tx[0]
    ring.set_slot(ring.head, ring.slot(ring.head)[0], length, NS_INDIRECT | flags, address)
    ring.advance()


def put(port: Port, number: int) -> bytes:
    sent = frame(BROADCAST, A, number)
    port.put(sent)
    return sent


@pytest.fixture
def cliff() -> Iterator[int]:
    """The address of the last byte that may be read before one that may not."""
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    start = libc.mmap(None, 2 * PAGE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    libc.munmap(ctypes.c_void_p(start + PAGE), ctypes.c_size_t(PAGE))
    yield start + PAGE - 1
    libc.munmap(ctypes.c_void_p(start), ctypes.c_size_t(PAGE))


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


# ---- good pointers


@EVERY_WAY
def test_a_frame_in_the_senders_memory_arrives(two: tuple[Port, Port], flush: Flush) -> None:
    """ABI.md 12.5: data is read from slot->ptr in the sender's address space at txsync, or poll."""
    a, b = two
    block = Block(frame(BROADCAST, A, 1))
    point(a, block.address)
    flush(a)
    assert arrived(b) == [block.data]
    assert a.tx[0].space == 1023


def test_the_receiver_gets_a_slot_of_its_own_buffer(two: tuple[Port, Port]) -> None:
    """ABI.md 12.5: flags = fragments << 8; neither the flag nor the pointer travel."""
    a, b = two
    block = Block(frame(BROADCAST, A, 1))
    index = b.rx[0].slot(0)[0]
    point(a, block.address)
    a.txsync()
    b.rxsync()
    assert b.rx[0].slot(0) == (index, 60, 0x0100, 0)


@pytest.mark.parametrize("size", [14, 15, 64, 65, 1514, 2048])
def test_a_frame_in_the_senders_memory_may_have_any_size(two: tuple[Port, Port], size: int) -> None:
    """ABI.md 12.5: length limit buffer size (2048)."""
    a, b = two
    block = Block(frame(BROADCAST, A, 1, size))
    point(a, block.address, size)
    a.txsync()
    assert arrived(b) == [block.data]


@pytest.mark.parametrize("size", [0, 13, 2049, 65535])
def test_a_length_that_no_frame_has_is_dropped_wherever_it_is(two: tuple[Port, Port], size: int) -> None:
    """ABI.md 12.5: frame < 14 bytes dropped; longer than a buffer too."""
    a, b = two
    block = Block(bytes(65536))
    point(a, block.address, size)
    last = put(a, 1)
    a.txsync()
    assert arrived(b) == [last]


def test_frames_here_and_there_keep_their_order(two: tuple[Port, Port]) -> None:
    """ABI.md 12.5: ring order."""
    a, b = two
    blocks = [Block(frame(BROADCAST, A, i)) for i in range(300)]
    for i, block in enumerate(blocks):
        if i % 3:
            point(a, block.address)
        else:
            put(a, i)
    a.txsync()
    assert arrived(b) == [block.data for block in blocks]


def test_a_full_ring_of_frames_in_the_senders_memory_arrives(two: tuple[Port, Port]) -> None:
    """ABI.md 12.5: batches of 1024."""
    a, b = two
    blocks = [Block(frame(BROADCAST, A, i)) for i in range(1023)]
    for block in blocks:
        point(a, block.address)
    a.txsync()
    assert arrived(b) == [block.data for block in blocks]


def test_a_packet_may_be_partly_in_the_senders_memory(two: tuple[Port, Port]) -> None:
    """ABI.md 12.5: each slot says where it is."""
    a, b = two
    start, middle = Block(frame(BROADCAST, A, 1)), Block(b"m" * 2048)
    point(a, start.address, 60, NS_MOREFRAG)
    ring = a.tx[0]
    buffer = ring.slot(ring.head)[0]
    ring.buffer(buffer)[:5] = b"ring!"
    ring.set_slot(ring.head, buffer, 5, NS_MOREFRAG)
    ring.advance()
    point(a, middle.address, 2048)
    a.txsync()
    assert arrived(b) == [start.data + b"ring!" + middle.data]


def test_pointers_of_one_program_are_not_looked_for_in_another(two: tuple[Port, Port]) -> None:
    """ABI.md 12.5: the caller's context: who syncs a ring is whose memory is read."""
    a, b = two
    block = Block(frame(BROADCAST, A, 1))
    point(a, block.address)
    b.txsync()
    b.poll(select.POLLIN, 0)
    assert arrived(b) == []
    a.txsync()
    assert arrived(b) == [block.data]


@pytest.mark.parametrize("kind", ["pipe", "nic"])
def test_other_kinds_of_port_take_no_pointers(kind: str) -> None:
    """ABI.md 12.5: only VALE; a slot of a pipe travels as it is, a wire sends the buffer."""
    if kind == "pipe":
        with opened("p{1") as one, opened("p}1") as other:
            point(one, BAD_ADDRESS)
            one.txsync()
            other.rxsync()
            assert other.rx[0].slot(0)[2:] == (NS_INDIRECT, BAD_ADDRESS)
    else:
        with opened("tap0") as port:
            point(port, BAD_ADDRESS)
            port.txsync()
            assert (port.tx[0].head, port.tx[0].tail) == (1, 0)


# ---- bad pointers


@EVERY_WAY
@pytest.mark.parametrize("address", [0, BAD_ADDRESS, 0xFFFFFFFFFFFFFFFF, 0xFFFF800000000000, 1 << 62])
def test_a_pointer_into_nowhere_is_a_dropped_frame(two: tuple[Port, Port], address: int, flush: Flush) -> None:
    """ABI.md 12.5: bad pointer: zero-length packet, which is less than 14 bytes; the others go."""
    a, b = two
    first = put(a, 1)
    point(a, address)
    last = put(a, 2)
    flush(a)
    assert arrived(b) == [first, last]
    assert a.tx[0].space == 1023


def test_a_frame_that_is_only_half_there_is_dropped(two: tuple[Port, Port], cliff: int) -> None:
    """ABI.md 12.5: bad pointer: nothing of it is sent; those behind it are read all the same."""
    a, b = two
    block = Block(frame(BROADCAST, A, 1))
    point(a, cliff - 30, 60)
    point(a, block.address)
    point(a, cliff, 2048)
    last = put(a, 2)
    a.txsync()
    assert arrived(b) == [block.data, last]


def test_a_frame_that_ends_where_the_memory_ends_is_whole(two: tuple[Port, Port], cliff: int) -> None:
    """ABI.md 12.5: not a byte more is read than it has."""
    a, b = two
    ctypes.memmove(cliff - 59, frame(BROADCAST, A, 1), 60)
    point(a, cliff - 59)
    a.txsync()
    assert arrived(b) == [frame(BROADCAST, A, 1)]


def test_a_full_ring_of_pointers_into_nowhere_is_a_ring_of_dropped_frames(two: tuple[Port, Port]) -> None:
    """ABI.md 12.5: the sender does not block."""
    a, b = two
    for _ in range(1023):
        point(a, BAD_ADDRESS)
    a.txsync()
    assert (arrived(b), a.tx[0].space) == ([], 1023)
    send(a, frame(BROADCAST, A))
    assert arrived(b) == [frame(BROADCAST, A)]


def test_pointers_at_a_port_on_no_switch_vanish() -> None:
    """ABI.md 12.5: TX goes nowhere."""
    with persistent("pers"), opened("pers") as port:
        point(port, BAD_ADDRESS)
        port.txsync()
        assert port.tx[0].space == 1023
        port.close()


# ---- memory that nobody serves


@pytest.fixture
def stuck(two: tuple[Port, Port]) -> Iterator[tuple[HeldBack, threading.Thread]]:
    """The first port's sync waits for a page of its own memory."""
    a, _ = two
    with HeldBack() as page:
        point(a, page.address)
        thread = threading.Thread(target=a.txsync)
        thread.start()
        try:
            page.wait_for_reader()
            yield page, thread
        finally:
            page.supply(frame(BROADCAST, A, 99))
            thread.join(at_most(5))
            assert not thread.is_alive()


def test_memory_that_comes_late_is_sent_when_it_comes(
    two: tuple[Port, Port], stuck: tuple[HeldBack, threading.Thread]
) -> None:
    """ABI.md 12.5: read at txsync, which takes as long as it takes."""
    _, b = two
    page, thread = stuck
    assert arrived(b) == []
    page.supply(frame(BROADCAST, A, 1))
    thread.join(at_most(5))
    assert arrived(b) == [frame(BROADCAST, A, 1)]


@pytest.mark.usefixtures("stuck")
def test_a_pointer_that_nobody_serves_holds_up_no_sync_of_others(two: tuple[Port, Port]) -> None:
    """Issue B, bad input: NS_INDIRECT harms nobody else; on the same switch, whatever the CPU."""
    _, b = two
    with opened("vale0:c") as c:
        for cpu in os.sched_getaffinity(0):
            with on_cpu(cpu):
                for i in range(100):
                    send(b, frame(BROADCAST, B, i))
                    assert arrived(c) == [frame(BROADCAST, B, i)]
                    assert c.poll(select.POLLIN | select.POLLOUT, 0) == select.POLLOUT


@pytest.mark.usefixtures("stuck")
@pytest.mark.parametrize("events", [select.POLLOUT, select.POLLIN, select.POLLIN | select.POLLOUT])
def test_a_poll_of_the_same_ring_waits_for_no_pointer(two: tuple[Port, Port], events: int) -> None:
    """Issue B, bad input: a program that shares the port, or another thread; and everybody's syncs after that."""
    a, b = two
    with opened("vale0:a") as shared:
        for cpu in os.sched_getaffinity(0):
            with on_cpu(cpu):
                for port in (shared, a):
                    port.poll(events, 0)
                    port.txsync()
                    port.rxsync()
                assert b.poll(select.POLLOUT, at_most(5)) == select.POLLOUT


def test_a_sleeper_on_the_same_ring_wakes_when_the_memory_has_come(
    two: tuple[Port, Port], stuck: tuple[HeldBack, threading.Thread]
) -> None:
    """ABI.md 11: TX completions wake the sleepers."""
    del two
    page, thread = stuck
    with opened("vale0:a") as shared:
        assert shared.poll(select.POLLOUT, 0.02) == 0
        timer = threading.Timer(0.05, page.supply, [frame(BROADCAST, A, 1)])
        timer.start()
        assert shared.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
        timer.join()
        thread.join(at_most(5))


@pytest.mark.usefixtures("stuck")
def test_ports_come_and_go_while_a_pointer_waits(two: tuple[Port, Port]) -> None:
    """Issue B, bad input: requests of others about the same switch, and the same port, are decided."""
    del two
    with opened("vale0:c"), opened("vale0:a"), opened("vale0:a", flags=Flag.MONITOR_TX | Flag.MONITOR_RX):
        pass
    with persistent("pers"), attached("vale0:pers"):
        pass
    assert set_header("vale0:b", 12) == set_header("vale0:b", 0) == 0
    assert settled(lambda: "vale0:c" in all_ports(), False) is False


WAITS = """
import sys
sys.path.append(sys.argv[2])
from tests.support.held_back import HeldBack
from tests.support.switches import opened
from cuse_netmap.client import NS_INDIRECT
page, port = HeldBack(), opened("vale0:dead")
port.tx[0].set_slot(0, port.tx[0].slot(0)[0], 60, NS_INDIRECT, page.address)
port.tx[0].advance()
print("ready", flush=True)
if sys.argv[1] == "poll":
    port.poll(4, 60)
else:
    port.txsync()
"""


@pytest.mark.parametrize("call", ["poll", "txsync"])
def test_a_program_killed_while_its_pointer_waits_is_gone_with_its_port(two: tuple[Port, Port], call: str) -> None:
    """Issue B, bad input: and the switch goes on."""
    a, b = two
    with Program(Path(sys.executable), "-c", WAITS, call, Path(__file__).parents[3]) as program:
        program.wait_for("ready")
        time.sleep(0.05)
        program.kill()
    assert settled(lambda: "vale0:dead" in all_ports(), False) is False
    send(a, frame(BROADCAST, A))
    assert arrived(b)[-1] == frame(BROADCAST, A)
