# SPDX-License-Identifier: BSD-2-Clause
"""What crosses a pipe: slots change hands, whole packets only, nothing is lost (ABI.md sections 10, 11 and 12.3)."""

import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cuse_netmap.client import NS_BUF_CHANGED, NS_MOREFRAG, Port, Ring
from cuse_netmap.control.requests import Flag, Register
from tests.support.daemon import Daemon
from tests.support.ioctls import extra_list, free_buffers, settled
from tests.support.patience import at_most
from tests.support.stream import Stream

SLOTS = 16


@pytest.fixture(scope="module", autouse=True)
def served(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for each way in."""
    with Daemon(tmp_path_factory.mktemp("pipes") / "log", *way) as daemon:
        yield daemon


@contextmanager
def pipe(slots: int = SLOTS, rings: int = 1, **fields: int) -> Iterator[tuple[Port, Port]]:
    asked = Register(tx_slots=slots, rx_slots=slots, tx_rings=rings, rx_rings=rings, **fields)
    with Port("p{1", asked) as master, Port("p}1", asked) as slave:
        yield master, slave


@pytest.fixture
def ends() -> Iterator[tuple[Port, Port]]:
    with pipe() as both:
        yield both


def frame(number: int, size: int = 60) -> bytes:
    return number.to_bytes(4).ljust(size, bytes([number % 251]))


def indices(ring: Ring) -> tuple[int, int, int]:
    return ring.head, ring.cur, ring.tail


# ---- slots change hands


def test_data_sent_before_the_other_end_is_opened_waits() -> None:
    """ABI.md 12.3: it waits in the ring."""
    with Port("p{1") as master:
        for i in range(100):
            master.put(frame(i))
        master.txsync()
        with Port("p}1") as slave:
            slave.rxsync()
            assert list(slave.take()) == [frame(i) for i in range(100)]


def test_a_buffer_is_handed_over_not_copied(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: whole slots, index included."""
    master, slave = ends
    index = master.tx[0].slot(0)[0]
    master.send(frame(1))
    slave.rxsync()
    assert slave.rx[0].slot(0)[:2] == (index, 60)
    master.tx[0].buffer(index)[:4] = b"late"
    assert bytes(slave.rx[0].buffer(index)[:4]) == b"late"


def test_the_sender_gets_back_the_buffer_that_the_receiver_put_in_its_place() -> None:
    """ABI.md 12.3: buf_idx changes in TX slots as slots return; lb and pkt-gen rely on seeing NS_BUF_CHANGED there."""
    with pipe(extra_bufs=1) as (master, slave):
        mine, extra = master.tx[0].slot(0)[0], extra_list(slave)[0]
        master.send(frame(1))
        slave.rxsync()
        slave.rx[0].set_slot(0, extra, 60, NS_BUF_CHANGED)
        slave.rx[0].advance()
        slave.rxsync()
        master.txsync()
        assert master.tx[0].slot(0) == (extra, 60, NS_BUF_CHANGED, 0)
        assert slave.rx[0].slot(0)[2] == 0
        slave.memory[slave.if_offset + 32 : slave.if_offset + 36] = mine.to_bytes(4, "little")
        slave.rx[0].buffer(mine)[:4] = bytes(4)


def test_a_slot_travels_with_all_its_fields(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: copies whole slots; the flag that the receiver needs to see stays, the sender's is cleared (10)."""
    master, slave = ends
    index = master.tx[0].slot(0)[0]
    master.tx[0].set_slot(0, index, 77, NS_BUF_CHANGED | 0x0300, 0x1122334455667788)
    master.tx[0].advance()
    master.txsync()
    slave.rxsync()
    assert slave.rx[0].slot(0) == (index, 77, NS_BUF_CHANGED | 0x0300, 0x1122334455667788)
    assert master.tx[0].slot(0)[2] & NS_BUF_CHANGED == 0


def test_an_empty_frame_is_a_frame(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: a pipe looks into no frame."""
    master, slave = ends
    master.send(b"")
    slave.rxsync()
    assert list(slave.take()) == [b""]


def test_frames_come_in_order_over_many_turns_of_the_ring(ends: tuple[Port, Port]) -> None:
    """ABI.md 10: indices wrap, at both ends alike."""
    master, slave = ends
    received: list[bytes] = []
    number = 0
    for burst in [1, 2, 7, SLOTS - 1, 5] * 20:
        for _ in range(burst):
            assert master.put(frame(number))
            number += 1
        master.txsync()
        slave.rxsync()
        received += slave.take()
        slave.rxsync()
        master.txsync()
    assert received == [frame(i) for i in range(number)]


# ---- capacity


def test_a_pipe_holds_one_frame_less_than_it_has_slots(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: capacity num_slots - 1; a full pipe blocks the sender."""
    master, slave = ends
    for i in range(SLOTS - 1):
        assert master.put(frame(i))
    master.txsync()
    assert not master.put(frame(99))
    assert indices(master.tx[0]) == (SLOTS - 1, SLOTS - 1, SLOTS - 1)
    slave.rxsync()
    assert slave.rx[0].space == SLOTS - 1


def test_room_comes_back_when_the_receiver_syncs_and_then_the_sender(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: TX tail moves when receiver releases (rxsync) and sender syncs; neither alone is enough."""
    master, slave = ends
    for i in range(SLOTS - 1):
        master.put(frame(i))
    master.txsync()
    slave.rxsync()
    slave.rx[0].advance(3)
    master.txsync()
    assert master.tx[0].space == 0
    slave.rxsync()
    assert master.tx[0].space == 0
    master.txsync()
    assert master.tx[0].space == 3


@pytest.mark.parametrize(("sent", "received"), [(10, 7), (1, 1), (15, 0), (15, 15), (3, 2)])
def test_free_slots_tell_exactly_how_many_frames_are_pending(sent: int, received: int) -> None:
    """ABI.md 12.3 (randomized test 008): max - avail == sent - received."""
    with pipe() as (master, slave):
        for i in range(sent):
            master.put(frame(i))
        master.txsync()
        slave.rxsync()
        slave.rx[0].advance(received)
        slave.rxsync()
        master.txsync()
        assert SLOTS - 1 - master.tx[0].space == sent - received


def test_what_is_not_synced_is_not_sent(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: data moves at txsync of the sender."""
    master, slave = ends
    master.put(frame(1))
    slave.rxsync()
    assert slave.rx[0].space == 0


# ---- packets of several slots


def test_a_packet_is_shown_only_when_it_is_complete(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: publishes only complete packets, up to the last slot without MOREFRAG."""
    master, slave = ends
    ring = master.tx[0]
    for flags in (0, NS_MOREFRAG, NS_MOREFRAG):
        ring.set_slot(ring.head, ring.slot(ring.head)[0], 10, flags)
        ring.advance()
    master.txsync()
    slave.rxsync()
    assert slave.rx[0].space == 1
    ring.set_slot(ring.head, ring.slot(ring.head)[0], 10, 0)
    ring.advance()
    master.txsync()
    slave.rxsync()
    assert [slave.rx[0].slot(i)[2] & NS_MOREFRAG for i in range(4)] == [0, NS_MOREFRAG, NS_MOREFRAG, 0]
    assert slave.rx[0].space == 4


def test_a_long_packet_arrives_as_it_was_sent(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: over as many slots as it has."""
    master, slave = ends
    packet = bytes(i % 251 for i in range(10049))
    master.send(packet)
    slave.rxsync()
    assert list(slave.take()) == [packet]


def test_a_chain_that_never_ends_blocks_its_sender_only(ends: tuple[Port, Port]) -> None:
    """ABI.md 12.3: nothing of it is shown; the other direction goes on; its ring is simply full."""
    master, slave = ends
    ring = master.tx[0]
    for _ in range(SLOTS - 1):
        ring.set_slot(ring.head, ring.slot(ring.head)[0], 10, NS_MOREFRAG)
        ring.advance()
    for _ in range(3):
        master.txsync()
        slave.rxsync()
    assert (slave.rx[0].space, master.tx[0].space) == (0, 0)
    slave.send(frame(1))
    master.rxsync()
    assert list(master.take()) == [frame(1)]


def test_the_rest_of_a_packet_may_come_from_the_next_program_that_opens_the_end() -> None:
    """ABI.md 12.3: closing and reopening one end finds the old indices, half a packet included."""
    with Port("p}1") as slave:
        with Port("p{1") as master:
            ring = master.tx[0]
            ring.set_slot(0, ring.slot(0)[0], 10, NS_MOREFRAG)
            ring.advance()
            master.txsync()
        with Port("p{1") as again:
            again.send(frame(2))
            slave.rxsync()
            assert slave.rx[0].space == 2


# ---- poll


def test_a_frame_wakes_the_receiver(ends: tuple[Port, Port]) -> None:
    """ABI.md 11: pipe peer activity wakes the sleepers."""
    master, slave = ends
    timer = threading.Timer(0.05, master.send, [frame(1)])
    timer.start()
    assert slave.poll(select.POLLIN, at_most(5)) == select.POLLIN
    timer.join()
    assert list(slave.take()) == [frame(1)]


def test_room_wakes_the_sender(ends: tuple[Port, Port]) -> None:
    """ABI.md 11 and 12.3: a full pipe blocks the sender, until the receiver releases."""
    master, slave = ends
    for i in range(SLOTS - 1):
        master.put(frame(i))
    assert master.poll(select.POLLOUT, 0.02) == 0
    slave.rxsync()
    slave.rx[0].advance()
    timer = threading.Timer(0.05, slave.rxsync)
    timer.start()
    assert master.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
    timer.join()
    assert master.tx[0].space == 1


def test_polling_for_input_sends_what_is_pending(ends: tuple[Port, Port]) -> None:
    """ABI.md 11: any poll() pushes pending TX packets."""
    master, slave = ends
    master.put(frame(1))
    assert master.poll(select.POLLIN, 0) == 0
    slave.rxsync()
    assert list(slave.take()) == [frame(1)]


def test_polling_for_input_sends_nothing_with_no_tx_poll() -> None:
    """ABI.md 11: NR_NO_TX_POLL."""
    with Port("p{1", Register(flags=Flag.NO_TX_POLL)) as master, Port("p}1") as slave:
        master.put(frame(1))
        assert master.poll(select.POLLIN, 0) == 0
        slave.rxsync()
        assert slave.rx[0].space == 0


def test_edge_triggered_epoll_reports_every_frame_and_every_room(ends: tuple[Port, Port]) -> None:
    """ABI.md 11: EPOLLET gets an edge per wake-up, though nobody polls again in between."""
    master, slave = ends
    with select.epoll() as epoll:
        epoll.register(slave, select.EPOLLIN | select.EPOLLET)
        epoll.register(master, select.EPOLLOUT | select.EPOLLET)
        assert epoll.poll(at_most(5)) == [(master.fd, select.EPOLLOUT)]
        for turn in range(5):
            for i in range(SLOTS - 1):
                master.put(frame(i))
            master.txsync()
            assert epoll.poll(at_most(5)) == [(slave.fd, select.EPOLLIN)], turn
            slave.rxsync()
            assert len(list(slave.take())) == SLOTS - 1
            slave.rxsync()
            assert epoll.poll(at_most(5)) == [(master.fd, select.EPOLLOUT)], turn
            master.txsync()


def test_one_sleeper_on_many_rings_is_woken_by_each() -> None:
    """ABI.md 11: a descriptor with several rings waits for all of them."""
    with pipe(rings=3) as (master, slave):
        for ring in (2, 0, 1):
            assert slave.poll(select.POLLIN, 0) == 0
            timer = threading.Timer(0.02, master.txsync)
            master.put(frame(ring), ring)
            timer.start()
            assert slave.poll(select.POLLIN, at_most(5)) == select.POLLIN
            timer.join()
            assert list(slave.take(ring)) == [frame(ring)]


# ---- bad input


@pytest.mark.parametrize("index", [0, 1, 163840, 0xFFFFFFFF])
def test_a_buffer_that_does_not_exist_reaches_the_other_end_as_none_that_could_harm(
    ends: tuple[Port, Port], index: int
) -> None:
    """ABI.md 10: index 0 marks no buffer."""
    master, slave = ends
    master.tx[0].set_slot(0, index, 60)
    master.tx[0].advance()
    master.txsync()
    slave.rxsync()
    assert slave.rx[0].slot(0)[0] in (0, index if index < 163840 else 0)
    assert slave.rx[0].space == 1


@pytest.mark.parametrize("length", [2049, 65535])
def test_a_length_beyond_the_buffer_reaches_the_other_end_as_zero(ends: tuple[Port, Port], length: int) -> None:
    """ABI.md 10: what no buffer holds is no length."""
    master, slave = ends
    master.tx[0].set_slot(0, master.tx[0].slot(0)[0], length)
    master.tx[0].advance()
    master.txsync()
    slave.rxsync()
    assert slave.rx[0].slot(0)[1] == 0


def test_a_receiver_gives_back_no_buffer_that_does_not_exist(ends: tuple[Port, Port]) -> None:
    """ABI.md 10: the sender's slot is made harmless, too."""
    master, slave = ends
    master.send(frame(1))
    slave.rxsync()
    slave.rx[0].set_slot(0, 0xDEADBEEF, 65535, NS_BUF_CHANGED)
    slave.rx[0].advance()
    slave.rxsync()
    assert master.tx[0].slot(0)[:2] == (0, 0)


def test_indices_out_of_bounds_at_one_end_do_not_disturb_the_other(ends: tuple[Port, Port]) -> None:
    """ABI.md 10: the private indices count; the other end sees right frames and its own indices."""
    master, slave = ends
    for head, cur in ((99, 99), (3, 1), (0xFFFFFFFF, 0), (SLOTS, SLOTS)):
        master.tx[0].head, master.tx[0].cur = head, cur
        master.txsync()
        slave.rxsync()
        assert indices(slave.rx[0]) == (0, 0, 0)
    master.tx[0].head = master.tx[0].cur = 0
    master.send(frame(1))
    slave.rxsync()
    assert list(slave.take()) == [frame(1)]


def test_a_receiver_cannot_give_back_what_it_has_not_got(ends: tuple[Port, Port]) -> None:
    """ABI.md 10: head beyond the tail: nothing moves, the sender gets no room that is not there."""
    master, slave = ends
    for i in range(SLOTS - 1):
        master.put(frame(i))
    master.txsync()
    slave.rx[0].head = slave.rx[0].cur = 5
    slave.rxsync()
    slave.rxsync()
    master.txsync()
    assert master.tx[0].space in (0, 5)
    assert indices(master.tx[0])[2] in (SLOTS - 1, (SLOTS - 1 + 5) % SLOTS)


# ---- nothing is lost


def whole() -> int:
    return settled(free_buffers, 163838)


@pytest.mark.parametrize(
    "options",
    [[], ["-p"], ["-b", 1], ["-x"], ["-l", 6000, "-m", 5], ["-l", 6000, "-m", 5, "-x", "-p"]],
    ids=["ioctl", "poll", "single", "extra", "slots", "all"],
)
def test_every_frame_of_a_long_stream_arrives_once_in_order_and_unharmed(stream: Path, options: list[object]) -> None:
    """ABI.md 12.3: no loss; with extra buffers swapped in at both ends, too."""
    before = whole()
    with (
        Stream(stream, "receive", "p}1", "-n", 5000, *options) as receiver,
        Stream(stream, "send", "p{1", "-n", 5000, *options) as sender,
    ):
        got = receiver.report()
        assert (sender.report().frames, got.frames, got.first, got.clean) == (5000, 5000, 0, True)
    assert settled(free_buffers, before) == before


def test_two_streams_cross_each_other_in_one_pipe(stream: Path) -> None:
    """ABI.md 12.3: two directions, two programs each."""
    streams = [("receive", "p}1"), ("send", "p{1"), ("receive", "p{1"), ("send", "p}1")]
    running = [Stream(stream, way, port, "-n", 5000, "-p") for way, port in streams]
    for one in running:
        with one:
            report = one.report()
            assert (report.frames, report.clean) == (5000, True)
