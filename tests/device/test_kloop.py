# SPDX-License-Identifier: BSD-2-Clause
"""SYNC_KLOOP_START and STOP: who may, what moves and who is woken (ABI.md section 13.3)."""

import errno
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import NIOCCTRL, NIOCTXSYNC, Flag, Register, RequestType
from tests.support.csb import Csb, Kicks, Loop, eventfds_option, mode_option, start, stop
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip, number_of
from tests.support.ioctls import BAD_ADDRESS, Block, device, header, ioctl, option, settled, status
from tests.support.patience import at_most

DIRECT_TX, DIRECT_RX = 1, 2
PER_USER = 16  # loops, of kloop.h
TX, RX = 0, 1  # rings of a port with one each way, as the arrays have them
NS_INDIRECT = 0x10
PAUSES = (0, 50, 1000)  # microseconds
EXCLUSIVE = Register(flags=Flag.EXCLUSIVE)


@pytest.fixture(autouse=True)
def served(wires: Daemon) -> Daemon:
    return wires


@pytest.fixture
def csb() -> Csb:
    return Csb()


@pytest.fixture
def kicks() -> Iterator[Kicks]:
    with Kicks() as made:
        yield made


@pytest.fixture
def nil(csb: Csb) -> Iterator[Port]:
    """A port with no wire, in CSB mode."""
    with Port("nil", EXCLUSIVE) as port:
        assert csb.enable(port.fd) == 0
        yield port


@pytest.fixture
def tap(csb: Csb) -> Iterator[Port]:
    """A port with a wire, in CSB mode, behind whatever its interface had to say."""
    with Port("tap0", EXCLUSIVE) as port:
        assert csb.enable(port.fd) == 0
        yield port


@pytest.fixture
def host(tap: Port) -> Iterator[Host]:
    del tap
    with Host("tap0") as opened:
        yield opened


def eventually(true: Callable[[], bool]) -> bool:
    return bool(settled(lambda: int(true()), 1))


def put(port: Port, csb: Csb, number: int) -> None:
    """Places a frame at the head of the TX ring that the CSB says, and moves that."""
    ring, at, data = port.tx[0], csb.atok[TX]["head"], frame(number)
    buf_idx = ring.slot(at)[0]
    ring.buffer(buf_idx)[: len(data)] = data
    ring.set_slot(at, buf_idx, len(data))
    csb.move(TX, ring.next(at))


def take(port: Port, csb: Csb) -> list[int]:
    """The numbers of the frames between head and hwtail of the RX ring, which are given back."""
    ring, at, found = port.rx[0], csb.atok[RX]["head"], []
    while at != csb.ktoa[RX]["hwtail"]:
        buf_idx, length, _, _ = ring.slot(at)
        found.append(number_of(bytes(ring.buffer(buf_idx)[:length])))
        at = ring.next(at)
    csb.move(RX, at)
    return [number for number in found if number >= 0]


def shared(port: Port) -> list[tuple[int, int, int]]:
    return [(ring.head, ring.cur, ring.tail) for ring in (port.tx[0], port.rx[0])]


# ---- who may


def test_start_and_stop_need_a_registered_descriptor() -> None:
    """ABI.md 13.3: fd registered else ENXIO."""
    with device() as fd:
        assert start(fd) == errno.ENXIO
        assert stop(fd) == errno.ENXIO


def test_start_needs_a_csb_and_stop_does_not() -> None:
    """ABI.md 13.3: CSB set else EINVAL; STOP with no loop running returns 0."""
    with Port("nil", EXCLUSIVE) as port:
        assert start(port.fd) == errno.EINVAL
        assert stop(port.fd) == 0


def test_a_pause_is_a_second_at_most(nil: Port) -> None:
    """ABI.md 13.3: sleep_us <= 1000000 else EINVAL, whatever the descriptor is."""
    with device() as fd:
        assert start(fd, 1_000_001) == errno.EINVAL
    for pause in (1_000_001, 0xFFFFFFFF):
        assert start(nil.fd, pause) == errno.EINVAL
    assert stop(nil.fd) == 0
    assert start(nil.fd, 1_000_000) == 0


def test_stop_before_start_makes_the_next_start_return_at_once(nil: Port, csb: Csb) -> None:
    """ABI.md 13.3: STOP leaves the flag set; it counts for one START."""
    assert stop(nil.fd) == 0
    assert stop(nil.fd) == 0
    assert start(nil.fd) == 0
    with Loop(nil.fd, csb) as loop:
        time.sleep(0.1)
        assert loop.result is None


def test_stop_before_start_counts_although_the_csb_comes_in_between() -> None:
    """ABI.md 13.3: STOP on a registered descriptor leaves the stop flag set."""
    with Port("nil", EXCLUSIVE) as port:
        assert stop(port.fd) == 0
        assert Csb().enable(port.fd) == 0
        assert start(port.fd) == 0


@pytest.mark.parametrize("pause", [0, 50, 1_000_000])
def test_stop_ends_the_loop_and_returns_when_it_has_ended(nil: Port, csb: Csb, pause: int) -> None:
    """ABI.md 13.3: START blocks until STOP on the same fd; STOP waits for the end."""
    with Loop(nil.fd, csb, pause) as loop:
        assert stop(nil.fd) == 0
        assert csb.enable(nil.fd) == 0  # EBUSY while one runs
        assert loop.join() == 0


def test_several_stops_wait_for_the_same_end(nil: Port, csb: Csb) -> None:
    """ABI.md 13.3: STOP waits for the end."""
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(stop(nil.fd))) for _ in range(3)]
    with Loop(nil.fd, csb) as loop:
        for thread in threads:
            thread.start()
        assert loop.join() == 0
        for thread in threads:
            thread.join(at_most(5))
    assert results == [0, 0, 0]


def test_of_two_starts_exactly_one_succeeds(nil: Port, csb: Csb) -> None:
    """ABI.md 13.3: already running EBUSY."""
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(start(nil.fd))) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert settled(lambda: len(results), 1) == 1
    assert results == [errno.EBUSY]
    assert csb.enable(nil.fd) == errno.EBUSY
    assert stop(nil.fd) == 0
    for thread in threads:
        thread.join(at_most(5))
    assert results == [errno.EBUSY, 0]


def test_other_requests_of_the_descriptor_are_answered_while_it_loops(nil: Port, csb: Csb) -> None:
    """ABI.md 13.3: START blocks the thread that called it, nothing else."""
    with Loop(nil.fd, csb):
        body = Block(bytes(32))
        for _ in range(20):
            assert ioctl(nil.fd, NIOCCTRL, header(RequestType.PORT_INFO_GET, "nil", body)) == 0
        assert ioctl(nil.fd, NIOCTXSYNC) == errno.EBUSY
        assert nil.poll(select.POLLIN, at_most(5)) == select.POLLERR


def test_loops_of_a_user_are_counted(served: Daemon) -> None:
    """Design: a thread each, so there is an end to them; the log says which."""
    with ExitStack() as loops:
        for number in range(PER_USER + 1):
            request = Register(mode=7, mem_id=1, tx_rings=1, tx_slots=4, flags=Flag.EXCLUSIVE)
            port = loops.enter_context(Port(f"hold{number}", request))
            csb = Csb()
            assert csb.enable(port.fd) == 0
            if number < PER_USER:
                loops.enter_context(Loop(port.fd, csb, 1000))
            else:
                assert start(port.fd) == errno.EBUSY
        served.wait_for_log("16 sync loops run, 16 of this user")
    with Port("nil", EXCLUSIVE) as port:
        csb = Csb()
        assert csb.enable(port.fd) == 0
        with Loop(port.fd, csb):
            pass


# ---- options


def test_eventfds_are_two_for_each_bound_ring(nil: Port, kicks: Kicks) -> None:
    """ABI.md 13.3: nro_size must be 24 + 8*rings (else status EINVAL)."""
    for pairs, size in (
        (kicks.pairs[:1], None),
        (kicks.pairs * 2, None),
        (kicks.pairs, 24),
        (kicks.pairs, 41),
        ([], 0),
    ):
        given = eventfds_option(pairs, size=size)
        assert start(nil.fd, options=given) == errno.EINVAL
        assert status(given) == errno.EINVAL


def test_what_is_no_eventfd_is_refused(nil: Port) -> None:
    """Of a descriptor that is something else nobody knows what a write does; netmap says EINVAL, and EBADF for none."""
    reader, writer = os.pipe()
    eventfd = os.eventfd(0)
    try:
        for wrong, expected in (
            (reader, errno.EINVAL),
            (writer, errno.EINVAL),
            (nil.fd, errno.EINVAL),
            (9999, errno.EBADF),
        ):
            for pair in ((wrong, eventfd), (eventfd, wrong)):
                assert start(nil.fd, options=eventfds_option([(eventfd, eventfd), pair])) == expected
    finally:
        for fd in (reader, writer, eventfd):
            os.close(fd)


def test_one_eventfd_may_serve_for_all(nil: Port, csb: Csb) -> None:
    """ABI.md 13.3 wants none to be different."""
    eventfd = os.eventfd(0)
    try:
        with Loop(nil.fd, csb, options=eventfds_option([(eventfd, eventfd)] * 2)) as loop:
            assert stop(nil.fd) == 0
            assert loop.join() == 0
    finally:
        os.close(eventfd)


@pytest.mark.parametrize("mode", [4, 7, 0x80000000, 0xFFFFFFFF])
def test_modes_that_nobody_knows_are_refused(nil: Port, kicks: Kicks, mode: int) -> None:
    """ABI.md 13.3: other bits EINVAL."""
    given = mode_option(mode, kicks.option())
    assert start(nil.fd, options=given) == errno.EINVAL
    assert status(given) == errno.EINVAL


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_direct_processing_needs_all_ioeventfds(nil: Port, kicks: Kicks, mode: int) -> None:
    """ABI.md 13.3: only with all ioeventfds; else EINVAL."""
    assert start(nil.fd, options=mode_option(mode)) == errno.EINVAL
    given = eventfds_option([kicks.pairs[0], (-1, kicks.pairs[1][1])])
    assert start(nil.fd, options=mode_option(mode, given)) == errno.EINVAL
    assert status(given) == errno.EINVAL


def test_statuses_of_handled_options_are_0_and_others_do_no_harm(nil: Port, csb: Csb, kicks: Kicks) -> None:
    """ABI.md 13.3: status of handled options 0; 4.1 step 10: only REGISTER minds those that are left."""
    stranger = option(77)
    eventfds = kicks.option(stranger)
    mode = mode_option(0, eventfds)
    with Loop(nil.fd, csb, options=mode) as loop:
        assert stop(nil.fd) == 0
        assert loop.join() == 0
    assert [status(each) for each in (mode, eventfds, stranger)] == [0, 0, errno.EOPNOTSUPP]


# ---- without eventfds


@pytest.mark.parametrize("pause", PAUSES)
def test_a_loop_sends_what_is_before_head(tap: Port, csb: Csb, host: Host, pause: int) -> None:
    """ABI.md 13.3: for each TX ring read atok, txsync, write ktoa."""
    with Loop(tap.fd, csb, pause):
        for number in range(3000):
            while csb.ktoa[TX]["hwtail"] == csb.atok[TX]["head"]:
                pass
            put(tap, csb, number)
        assert host.take(3000) == [frame(number) for number in range(3000)]
        assert eventually(lambda: csb.ktoa[TX]["hwcur"] == 3000 % 1024)
        assert csb.ktoa[TX]["hwtail"] == 3000 % 1024 - 1


@pytest.mark.parametrize("pause", PAUSES)
def test_a_loop_receives_what_arrives(tap: Port, csb: Csb, host: Host, pause: int) -> None:
    """ABI.md 13.3: same for RX."""
    with Loop(tap.fd, csb, pause):
        received: list[int] = []
        for first in range(0, 3000, 500):
            host.send(*map(frame, range(first, first + 500)))
            deadline = time.monotonic() + at_most(5)
            while len(received) < first + 500 and time.monotonic() < deadline:
                received += take(tap, csb)
    assert received == list(range(3000))


def test_a_loop_leaves_the_indices_in_the_rings_alone(tap: Port, csb: Csb, host: Host) -> None:
    """ABI.md 13.2: the indices are the CSB's; sync_kloop_test keeps notes of its own in the rings."""
    tap.tx[0].cur, tap.tx[0].tail, tap.rx[0].cur, tap.rx[0].tail = 7, 9, 0xFFFFFFFF, 3
    before = shared(tap)
    with Loop(tap.fd, csb):
        put(tap, csb, 1)
        assert host.receive() == frame(1)
        host.send(frame(2))
        assert eventually(lambda: take(tap, csb) == [2])
    assert shared(tap) == before


def test_a_loop_without_eventfds_wants_no_kicks(nil: Port, csb: Csb) -> None:
    """ABI.md 13.3: the program writes to ioeventfd only if kern_need_kick."""
    with Loop(nil.fd, csb):
        for entry in csb.ktoa:
            assert eventually(lambda entry=entry: entry["kern_need_kick"] == 0)  # type: ignore[misc]


def test_a_ring_whose_indices_are_wrong_stands_still_until_they_are_right(tap: Port, csb: Csb, host: Host) -> None:
    """ABI.md section 10: head and cur out of bounds; section 19.5: a hostile client."""
    with Loop(tap.fd, csb):
        for head, cur in ((1024, 1024), (0xFFFFFFFF, 0), (0, 0xFFFFFFFF), (5, 4), (1023, 1024), (1 << 31, 1 << 31)):
            csb.atok[TX]["cur"], csb.atok[RX]["cur"] = cur, cur
            csb.atok[TX]["head"], csb.atok[RX]["head"] = head, head
            time.sleep(0.005)
            assert (csb.ktoa[TX]["hwcur"], csb.ktoa[RX]["hwcur"]) == (0, 0)
        csb.move(TX, 0)
        csb.move(RX, 0)
        put(tap, csb, 1)
        assert host.receive() == frame(1)


def test_irqfds_without_ioeventfds_are_signalled_all_the_same(tap: Port, csb: Csb, kicks: Kicks, host: Host) -> None:
    """ABI.md 13.3: some ioeventfd < 0: sleeping mode; irqfd[i] is signalled if >= 0."""
    pairs = [(-1, irqfd) for _, irqfd in kicks.pairs]
    with Loop(tap.fd, csb, options=eventfds_option(pairs)):
        kicks.interrupts(RX)
        host.send(frame(1))
        assert eventually(lambda: kicks.interrupts(RX) > 0)
        assert 1 in take(tap, csb)


# ---- with eventfds


def test_a_kick_sends_and_the_loop_then_wants_the_next(tap: Port, csb: Csb, kicks: Kicks, host: Host) -> None:
    """ABI.md 13.3: waits for kicks on ioeventfd[i]."""
    with Loop(tap.fd, csb, options=kicks.option()):
        for number in range(200):
            assert eventually(lambda: csb.ktoa[TX]["kern_need_kick"] == 1)
            put(tap, csb, number)
            kicks.kick(TX)
            assert host.receive() == frame(number)


def test_a_program_that_kicks_only_when_asked_to_misses_nothing(tap: Port, csb: Csb, kicks: Kicks, host: Host) -> None:
    """ABI.md 13.3: the application writes only if kern_need_kick, and reads that behind its own head."""
    with Loop(tap.fd, csb, options=kicks.option()):
        for number in range(5000):
            while csb.ktoa[TX]["hwtail"] == csb.atok[TX]["head"]:
                pass
            put(tap, csb, number)
            if csb.ktoa[TX]["kern_need_kick"]:
                kicks.kick(TX)
        assert host.take(5000) == [frame(number) for number in range(5000)]


def test_what_arrives_wakes_the_loop_and_the_program(tap: Port, csb: Csb, kicks: Kicks, host: Host) -> None:
    """ABI.md 13.3: waits for ring wakeups, signals irqfd[i] when appl_need_kick and something changed."""
    with Loop(tap.fd, csb, options=kicks.option()):
        for number in range(200):
            host.send(frame(number))
            found: list[int] = []
            while number not in found:
                assert select.select([kicks.pairs[RX][1]], [], [], 5)[0]
                kicks.interrupts(RX)
                found = take(tap, csb)


def test_a_program_that_wants_no_interrupts_gets_none(tap: Port, csb: Csb, kicks: Kicks, host: Host) -> None:
    """ABI.md 13.3: irqfd[i] only when appl_need_kick."""
    with Loop(tap.fd, csb, options=kicks.option()):
        for entry in csb.atok:
            entry["appl_need_kick"] = 0
        time.sleep(0.01)
        kicks.interrupts(RX)
        for number in range(20):
            host.send(frame(number))
            assert eventually(lambda wanted=number: wanted in take(tap, csb))  # type: ignore[misc]
        assert kicks.interrupts(RX) == 0


def test_nothing_new_is_no_interrupt(nil: Port, csb: Csb, kicks: Kicks) -> None:
    """ABI.md 13.3: when something changed."""
    with Loop(nil.fd, csb, options=kicks.option()):
        for _ in range(10):
            kicks.kick(TX)
            kicks.kick(RX)
            time.sleep(0.005)
        assert [kicks.interrupts(ring) for ring in (TX, RX)] == [0, 0]


def test_sent_frames_interrupt_a_program_that_waits_for_room(tap: Port, csb: Csb, kicks: Kicks, host: Host) -> None:
    """ABI.md 13.3: TX too: hwtail has moved."""
    with Loop(tap.fd, csb, options=kicks.option()):
        put(tap, csb, 1)
        kicks.kick(TX)
        assert host.receive() == frame(1)
        assert eventually(lambda: kicks.interrupts(TX) > 0)


@pytest.mark.parametrize("mode", [DIRECT_TX, DIRECT_RX, DIRECT_TX | DIRECT_RX])
def test_direct_rings_want_every_kick_and_tell_every_change(
    tap: Port, csb: Csb, kicks: Kicks, host: Host, mode: int
) -> None:
    """ABI.md 13.3: direct processing: kern_need_kick stays 1, the irqfd is signalled whatever appl_need_kick says."""
    with Loop(tap.fd, csb, options=mode_option(mode, kicks.option())):
        for entry in csb.atok:
            entry["appl_need_kick"] = 0
        time.sleep(0.01)
        for ring in (TX, RX):
            kicks.interrupts(ring)
        for number in range(50):
            put(tap, csb, number)
            kicks.kick(TX)
            assert host.receive() == frame(number)
            host.send(frame(1000 + number))
            assert eventually(lambda wanted=1000 + number: wanted in take(tap, csb))  # type: ignore[misc]
            for ring, bit in ((TX, DIRECT_TX), (RX, DIRECT_RX)):
                assert csb.ktoa[ring]["kern_need_kick"] == 1 or not mode & bit
        assert [kicks.interrupts(ring) > 0 for ring in (TX, RX)] == [bool(mode & DIRECT_TX), bool(mode & DIRECT_RX)]


def test_eventfds_closed_under_the_loop_do_no_harm(tap: Port, csb: Csb, kicks: Kicks, host: Host) -> None:
    """ABI.md 13.3; the loop has descriptors of its own, and goes on with what arrives until STOP."""
    with Loop(tap.fd, csb, options=kicks.option()) as loop:
        kicks.close()
        host.send(frame(1))
        assert eventually(lambda: 1 in take(tap, csb))
        assert stop(tap.fd) == 0
        assert loop.join() == 0


def test_loops_over_both_ends_of_a_pipe_wake_each_other() -> None:
    """ABI.md 12.3 and 13.3: what one end sends wakes the loop of the other, and room that is given back too."""
    sent, master_csb, slave_csb = 0, Csb(), Csb()
    got: list[int] = []
    with (
        Port("kp{1", EXCLUSIVE) as master,
        Port("kp}1", EXCLUSIVE) as slave,
        Kicks() as master_kicks,
        Kicks() as slave_kicks,
    ):
        assert master_csb.enable(master.fd) == 0
        assert slave_csb.enable(slave.fd) == 0
        with (
            Loop(master.fd, master_csb, options=master_kicks.option()),
            Loop(slave.fd, slave_csb, options=slave_kicks.option()),
        ):
            deadline = time.monotonic() + at_most(20)
            while len(got) < 5000:
                assert time.monotonic() < deadline, (sent, len(got))
                while sent < 5000 and master_csb.ktoa[TX]["hwtail"] != master_csb.atok[TX]["head"]:
                    put(master, master_csb, sent)
                    sent += 1
                if master_csb.ktoa[TX]["kern_need_kick"]:
                    master_kicks.kick(TX)
                got += take(slave, slave_csb)
                if slave_csb.ktoa[RX]["kern_need_kick"]:
                    slave_kicks.kick(RX)
    assert got == list(range(5000))


def test_indirect_slots_are_read_from_the_memory_of_the_program_that_loops() -> None:
    """ABI.md 12.5: NS_INDIRECT: slot->ptr in the sender's address space; 13.3: its loop syncs."""
    data, csb = Block(frame(77)), Csb()
    with Port("vale7:loop", EXCLUSIVE) as port, Port("vale7:other") as other:
        assert csb.enable(port.fd) == 0
        with Loop(port.fd, csb):
            for pointer in (BAD_ADDRESS, data.address, 1 << 63, data.address):
                at = csb.atok[TX]["head"]
                port.tx[0].set_slot(at, port.tx[0].slot(at)[0], 60, NS_INDIRECT, pointer)
                csb.move(TX, at + 1)
            assert [other.receive(), other.receive()] == [frame(77)] * 2
            assert eventually(lambda: csb.ktoa[TX]["hwcur"] == 4)
            other.rxsync()
            assert other.rx[0].space == 0  # those that lead nowhere were dropped


def test_all_rings_of_a_port_are_looped_over() -> None:
    """ABI.md 13.3: each TX ring, then each RX ring, eventfds and arrays in the same order."""
    csb = Csb(8)
    with Port("quad", EXCLUSIVE) as port, Kicks(8) as kicks:
        assert csb.enable(port.fd) == 0
        with Loop(port.fd, csb, options=kicks.option()):
            for ring in range(4):
                csb.move(ring, 10 * (ring + 1))
                kicks.kick(ring)
                assert eventually(lambda ring=ring: csb.ktoa[ring]["hwcur"] == 10 * (ring + 1))  # type: ignore[misc]
            assert [csb.ktoa[ring]["hwtail"] for ring in range(8)] == [9, 19, 29, 39, 0, 0, 0, 0]
            assert eventually(lambda: csb.ktoa[7]["kern_need_kick"] == 1)  # it has looked at all interrupts
            assert [kicks.interrupts(ring) > 0 for ring in range(8)] == [True] * 4 + [False] * 4


def test_a_loop_whose_interface_is_deleted_ends_with_eio(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md section 15: syncs fail with EIO from then on."""
    csb = Csb()
    daemon = start_daemon("--tap=gone0", "--device=netmap-gone")
    with Port("gone0", EXCLUSIVE, device="/dev/netmap-gone") as port, Kicks() as kicks:
        assert csb.enable(port.fd) == 0
        with Loop(port.fd, csb, options=kicks.option()) as loop:
            ip("link", "delete", "gone0")
            assert loop.join() == errno.EIO
    daemon.wait_for_log("gone0 has been deleted")
