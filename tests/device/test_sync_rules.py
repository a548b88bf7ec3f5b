# SPDX-License-Identifier: BSD-2-Clause
"""What a sync makes of head, cur and slots, right or wrong (ABI.md section 10)."""

import errno
import fcntl
import os
import select
import time
from collections.abc import Iterator

import pytest

from cuse_netmap.client import NS_BUF_CHANGED, NS_MOREFRAG, NS_REPORT, Port, Ring
from cuse_netmap.control.requests import NIOCRXSYNC, NIOCTXSYNC, Flag, Register
from tests.support.host import Host, frame
from tests.support.ioctls import device, hold, ioctl
from tests.support.patience import at_most

pytestmark = pytest.mark.usefixtures("wires")


@pytest.fixture
def port() -> Iterator[Port]:
    with Port("nil") as opened:
        yield opened


@pytest.fixture
def null() -> Iterator[Port]:
    """A null port of 16 slots: its TX ring is never emptied."""
    with hold(tx_rings=1, rx_rings=1, tx_slots=16, rx_slots=16) as opened:
        yield opened


def indices(ring: Ring) -> tuple[int, int, int]:
    return ring.head, ring.cur, ring.tail


# ---- who may sync


def test_a_sync_of_an_unregistered_descriptor_is_enxio() -> None:
    """ABI.md 1: and poll says POLLERR."""
    with device() as fd:
        assert (ioctl(fd, NIOCTXSYNC), ioctl(fd, NIOCRXSYNC)) == (errno.ENXIO, errno.ENXIO)
        poller = select.poll()
        poller.register(fd, select.POLLIN | select.POLLOUT)
        assert poller.poll(at_most(1) * 1000) == [(fd, select.POLLERR)]


def test_the_argument_of_a_sync_is_ignored(port: Port) -> None:
    """ABI.md 1."""
    for argument in (0, 1, 0xFFFF800000000000):
        assert ioctl(port.fd, NIOCTXSYNC, argument) == 0
        assert ioctl(port.fd, NIOCRXSYNC, argument) == 0


def test_a_sync_of_a_direction_that_is_not_bound_does_nothing() -> None:
    """ABI.md 10: success."""
    with Port("nil", Register(flags=Flag.RX_RINGS_ONLY | Flag.TX_RINGS_ONLY)) as port:
        port.txsync()
        port.rxsync()


def test_a_sync_through_a_duplicate_is_a_sync(port: Port) -> None:
    """ABI.md 1: state is per open file description."""
    copy = os.dup(port.fd)
    port.put(b"x" * 60)
    fcntl.ioctl(copy, NIOCTXSYNC)
    os.close(copy)
    assert port.tx[0].tail == 0


# ---- TX


@pytest.mark.parametrize("count", [1, 10, 1023])
def test_tx_ring_of_idle_port_ends_with_tail_before_head(port: Port, count: int) -> None:
    """ABI.md 10 and 12.1: nm_tx_pending() is false; pkt-gen waits for that."""
    for _ in range(count):
        assert port.put(b"x" * 60)
    if count == 1023:
        assert not port.put(b"x" * 60)
    port.txsync()
    assert indices(port.tx[0]) == (count, count, count - 1)


def test_a_tx_ring_goes_round_and_round(port: Port) -> None:
    """ABI.md 10: indices wrap."""
    ring, sent = port.tx[0], 0
    for burst in (1000, 1023, 7, 1023, 512) * 5:
        for _ in range(burst):
            assert port.put(b"x" * 60)
        port.txsync()
        sent += burst
        assert indices(ring) == (sent % 1024, sent % 1024, (sent - 1) % 1024)


def test_what_is_behind_head_is_not_sent(port: Port) -> None:
    """ABI.md 10: cur is only the wake-up point."""
    port.tx[0].head, port.tx[0].cur = 3, 50
    port.txsync()
    assert indices(port.tx[0]) == (3, 50, 2)


@pytest.mark.parametrize(("head", "cur"), [(1024, 1024), (5000, 3), (3, 1024), (0xFFFFFFFF, 0), (0, 0xFFFFFFFF)])
def test_an_index_outside_a_tx_ring_resets_it(port: Port, head: int, cur: int) -> None:
    """ABI.md 10: head = cur = hwcur, tail = hwtail; the ioctl says 0."""
    ring = port.tx[0]
    for _ in range(5):
        port.put(b"x" * 60)
    port.txsync()
    ring.head, ring.cur = head, cur
    port.txsync()
    assert indices(ring) == (5, 5, 4)
    port.put(b"x" * 60)
    port.txsync()
    assert indices(ring) == (6, 6, 5)


def test_a_cur_before_head_is_refused_and_not_mended(port: Port) -> None:
    """ABI.md 10: head <= cur; indices inside the ring are left to the program to mend."""
    ring = port.tx[0]
    ring.head, ring.cur = 5, 3
    for _ in range(3):
        port.txsync()
        assert indices(ring) == (5, 3, 1023)
    ring.cur = 5
    port.txsync()
    assert indices(ring) == (5, 5, 4)


def test_a_head_that_goes_back_is_refused_and_not_mended(null: Port) -> None:
    """ABI.md 10: rhead <= head."""
    ring = null.tx[0]
    ring.head = ring.cur = 5
    null.txsync()
    ring.head = ring.cur = 3
    for _ in range(3):
        null.txsync()
        assert indices(ring) == (3, 3, 15)
        assert null.poll(select.POLLOUT, 0) & select.POLLERR
    ring.head = ring.cur = 6
    null.txsync()
    assert null.poll(select.POLLOUT, 0) == select.POLLOUT


@pytest.mark.parametrize("tail", [0, 500, 1024, 0xFFFFFFFF])
def test_a_tail_that_was_overwritten_is_restored(port: Port, tail: int) -> None:
    """ABI.md 10: silently; frames go out all the same."""
    for _ in range(5):
        port.put(b"x" * 60)
    port.tx[0].tail = tail
    port.txsync()
    assert indices(port.tx[0]) == (5, 5, 4)
    port.rx[0].tail = tail
    port.rxsync()
    assert indices(port.rx[0]) == (0, 0, 0)


def test_a_bad_tail_makes_bad_indices_a_reset(port: Port) -> None:
    """ABI.md 10: any of head, cur, tail >= num_slots."""
    ring = port.tx[0]
    ring.head, ring.cur = 5, 3
    ring.tail = 1024
    port.txsync()
    assert indices(ring) == (0, 0, 1023)


def test_slots_are_cleaned_when_a_ring_is_wrong(port: Port) -> None:
    """ABI.md 10: buf_idx < 2 or too large: 0 and len 0; len too large: 0; the others stay."""
    ring = port.tx[0]
    before = [ring.slot(i) for i in range(1024)]
    spoilt = {0: (0, 9), 1: (1, 9), 2: (163840, 9), 3: (0xFFFFFFFF, 9), 4: (before[4][0], 2049), 1023: (1 << 31, 65535)}
    for slot, (index, length) in spoilt.items():
        ring.set_slot(slot, index, length, 0xFFFF, 77)
    ring.set_slot(5, 163839, 2048)
    ring.head = 2000
    port.txsync()
    cleaned = dict.fromkeys(spoilt, (0, 0, 0xFFFF, 77)) | {
        4: (before[4][0], 0, 0xFFFF, 77),
        5: (163839, 2048, 0, 0),
    }
    assert [ring.slot(i) for i in range(1024)] == [cleaned.get(i, before[i]) for i in range(1024)]


def test_slots_of_a_right_ring_are_not_touched(port: Port) -> None:
    """ABI.md 10: cleaning is for wrong rings only."""
    ring = port.tx[0]
    ring.set_slot(700, 0xFFFFFFFF, 65535, 0xFFFF, 5)
    port.put(b"x" * 60)
    port.txsync()
    assert ring.slot(700) == (0xFFFFFFFF, 65535, 0xFFFF, 5)


@pytest.mark.parametrize("index", [0, 1, 163840, 0xFFFFFFFF])
def test_a_slot_without_a_buffer_is_sent_from_buffer_0(wire: Port, host: Host, index: int) -> None:
    """ABI.md 10: the ring goes on, whatever arrives."""
    wire.tx[0].set_slot(0, index, 60)
    wire.tx[0].advance()
    wire.send(frame(7))
    assert indices(wire.tx[0]) == (2, 2, 1)
    assert frame(7) in iter(host.receive, b"")


def test_a_len_beyond_the_buffer_is_cut(wire: Port, host: Host) -> None:
    """ABI.md 10: generic clamps it to 2048."""
    ring = wire.tx[0]
    index = ring.slot(0)[0]
    ring.buffer(index)[:] = frame(1, 2048)
    ring.set_slot(0, index, 65535)
    ring.advance()
    wire.txsync()
    assert host.receive() == frame(1, 2048)
    assert indices(ring) == (1, 1, 0)


@pytest.mark.parametrize("length", [0, 1, 13])
def test_what_is_shorter_than_its_header_is_dropped_and_its_slot_comes_back(
    wire: Port, host: Host, length: int
) -> None:
    """ABI.md 12.1: slots return."""
    ring = wire.tx[0]
    ring.set_slot(0, ring.slot(0)[0], length)
    ring.advance()
    wire.send(frame(3))
    assert host.receive() == frame(3)
    assert indices(ring) == (2, 2, 1)


def test_flags_of_sent_slots_are_cleared(port: Port) -> None:
    """ABI.md 10: NS_BUF_CHANGED and NS_REPORT; of consumed slots only."""
    ring = port.tx[0]
    for slot in range(4):
        ring.set_slot(slot, ring.slot(slot)[0], 60, NS_BUF_CHANGED | NS_REPORT | 0x80)
    ring.head = ring.cur = 3
    port.txsync()
    assert [ring.slot(slot)[2] for slot in range(4)] == [0x80, 0x80, 0x80, 0x83]


def test_slots_with_morefrag_are_one_frame(wire: Port, host: Host) -> None:
    """ABI.md 3.5 and 12: NS_MOREFRAG says that the frame goes on."""
    ring, whole = wire.tx[0], frame(1, 1300)
    for slot, part in enumerate((whole[:500], whole[500:514], whole[514:])):
        index = ring.slot(slot)[0]
        ring.buffer(index)[: len(part)] = part
        ring.set_slot(slot, index, len(part), NS_MOREFRAG if slot < 2 else 0)
    ring.head = ring.cur = 3
    wire.txsync()
    assert host.receive() == whole
    assert indices(ring) == (3, 3, 2)


def test_half_a_frame_waits_for_the_other_half(wire: Port, host: Host) -> None:
    """ABI.md 12.3 says the same of pipes: only complete packets."""
    ring, whole = wire.tx[0], frame(1, 200)
    for slot, part in enumerate((whole[:100], whole[100:])):
        index = ring.slot(slot)[0]
        ring.buffer(index)[:100] = part
        ring.set_slot(slot, index, 100, NS_MOREFRAG if slot == 0 else 0)
    ring.head = ring.cur = 1
    wire.txsync()
    assert indices(ring) == (1, 1, 15)
    assert wire.poll(select.POLLOUT, 0.1) == select.POLLOUT
    ring.head = ring.cur = 2
    wire.txsync()
    assert host.receive() == whole
    assert indices(ring) == (2, 2, 1)


def test_a_chain_that_never_ends_is_cut_at_64_slots() -> None:
    """ABI.md 3.6: NETMAP_MAX_FRAGS."""
    with Host("tap0") as host, Port("tap0") as port:
        ring = port.tx[0]
        for slot in range(200):
            index = ring.slot(slot)[0]
            ring.buffer(index)[:20] = frame(slot, 20)
            ring.set_slot(slot, index, 20, NS_MOREFRAG)
        ring.head = ring.cur = 200
        port.txsync()
        for first in (0, 64, 128):
            assert host.receive() == b"".join(frame(slot, 20) for slot in range(first, first + 64))
        assert indices(ring) == (200, 200, 191)
        ring.set_slot(200, ring.slot(200)[0], 20)
        ring.head = ring.cur = 201
        port.txsync()
        assert len(host.receive()) == 9 * 20
        assert indices(ring) == (201, 201, 200)


# ---- RX


def test_an_rx_ring_holds_all_slots_but_one(wire: Port, host: Host) -> None:
    """ABI.md 9 and 10: the rest waits, in order."""
    for number in range(40):
        host.send(frame(number))
    ring = wire.rx[0]
    got: list[bytes] = []
    while len(got) < 40:
        wire.rxsync()
        assert ring.space == min(15, 40 - len(got))
        got += list(wire.take())
    assert got == [frame(number) for number in range(40)]


def test_a_partly_released_rx_ring_is_filled_up(wire: Port, host: Host) -> None:
    """ABI.md 10: moving head returns slots; tail never reaches hwcur."""
    for number in range(30):
        host.send(frame(number))
    wire.rxsync()
    ring = wire.rx[0]
    start = ring.head
    ring.head = ring.cur = ring.next(start, 4)
    wire.rxsync()
    assert ring.space == 15
    assert bytes(ring.buffer(ring.slot(ring.head)[0])[:60]) == frame(4)


def test_an_rx_slot_says_the_length_and_no_flags(wire: Port, host: Host) -> None:
    """ABI.md 12.1: no FCS; flags 0 for a whole frame."""
    ring = wire.rx[0]
    at = ring.tail
    ring.set_slot(at, ring.slot(at)[0], 7, 0xFFFF, 5)
    host.send(frame(1, 777))
    wire.rxsync()
    assert ring.slot(at)[1:3] == (777, 0)


def test_received_frames_have_the_time(wire: Port, host: Host) -> None:
    """ABI.md 10: ts after each sync of an RX ring, never on TX."""
    before = time.time()
    host.send(frame(1))
    wire.rxsync()
    assert before - 0.001 <= wire.rx[0].timestamp <= time.time()
    wire.txsync()
    assert wire.tx[0].timestamp == 0
    first = wire.rx[0].timestamp
    time.sleep(0.002)
    wire.poll(select.POLLIN, 0)
    assert wire.rx[0].timestamp > first


def test_buf_changed_is_cleared_in_released_rx_slots(wire: Port, host: Host) -> None:
    """ABI.md 10; and the buffer that was put there receives."""
    ring = wire.rx[0]
    host.send(frame(1))
    wire.rxsync()
    at, other = ring.head, wire.tx[0].slot(3)[0]
    wire.tx[0].set_slot(3, ring.slot(at)[0], 2048, NS_BUF_CHANGED)
    ring.set_slot(at, other, 2048, NS_BUF_CHANGED)
    ring.advance()
    wire.rxsync()
    assert ring.slot(at) == (other, 2048, 0, 0)
    for number in range(16):
        host.send(frame(number))
        wire.rxsync()
        here = ring.head
        if here == at:
            assert bytes(ring.buffer(other)[:60]) == frame(number)
        assert list(wire.take()) == [frame(number)]


@pytest.mark.parametrize(("head", "cur"), [(16, 16), (0xFFFFFFFF, 3), (3, 0x80000000)])
def test_an_index_outside_an_rx_ring_resets_it_and_frames_still_arrive(
    wire: Port, host: Host, head: int, cur: int
) -> None:
    """ABI.md 10: RX sync runs anyway; head = cur = hwcur."""
    ring = wire.rx[0]
    start = ring.head
    host.send(frame(1))
    ring.head, ring.cur = head, cur
    wire.rxsync()
    assert (ring.head, ring.cur, ring.space) == (start, start, 1)
    assert list(wire.take()) == [frame(1)]


def test_a_head_past_tail_is_refused_until_it_is_mended(wire: Port, host: Host) -> None:
    """ABI.md 10: not reset; slots are cleaned; what arrives is shown; a mended head goes on."""
    ring = wire.rx[0]
    host.send(frame(1))
    wire.rxsync()
    start = ring.head
    spoilt = ring.next(ring.tail, 5)
    ring.set_slot(spoilt, 0xFFFFFFFF, 60000)
    ring.head = ring.cur = ring.next(ring.tail, 3)
    wrong = ring.head
    host.send(frame(2))
    for _ in range(3):
        wire.rxsync()
        assert (ring.head, ring.cur) == (wrong, wrong)
    assert ring.tail == ring.next(start, 2)
    assert ring.slot(spoilt)[:2] == (0, 0)
    assert wire.poll(select.POLLIN, 0) & select.POLLERR
    ring.head = ring.cur = start
    wire.rxsync()
    assert list(wire.take()) == [frame(1), frame(2)]
    assert wire.poll(select.POLLIN, 0) == 0


def test_an_rx_slot_without_a_buffer_costs_its_frame_only(wire: Port, host: Host) -> None:
    """ABI.md 10: a bad index means buffer 0."""
    ring = wire.rx[0]
    at = ring.tail
    mine = ring.slot(at)[0]
    ring.set_slot(at, 163840, 2048)
    for number in range(3):
        host.send(frame(number))
    wire.rxsync()
    assert ring.space == 3
    assert ring.slot(at)[0] == 163840
    ring.set_slot(at, mine, 60)
    assert list(wire.take())[1:] == [frame(1), frame(2)]
