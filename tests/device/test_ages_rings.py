# SPDX-License-Identifier: BSD-2-Clause
"""Rings with avail, cur and reserved, and what programs may write there (ABI.md section 16, issue E)."""

import errno
import select
import time
from collections.abc import Iterator

import pytest

from cuse_netmap.client import NS_BUF_CHANGED, Port
from cuse_netmap.control.requests import Register
from tests.support.host import Host, frame
from tests.support.ioctls import free_buffers, settled
from tests.support.old import AGES, API_3, API_5, MEMSIZE, NO_TX_POLL, Age, OldPort, OldRing
from tests.support.patience import at_most

pytestmark = pytest.mark.usefixtures("wires")

ages = pytest.mark.parametrize("age", AGES, ids=lambda age: age.name)
with_reserved = pytest.mark.parametrize("age", [API_3, API_5], ids=lambda age: age.name)
MINUS_ONE = 0xFFFFFFFF
SLOTS = 16  # of tap1


@pytest.fixture
def old(host: Host, age: Age) -> Iterator[OldPort]:
    """A program of some age on tap1, whose rings have 16 slots."""
    del host
    with OldPort(age, "tap1") as port:
        yield port


def state(ring: OldRing) -> tuple[int, int]:
    return ring.cur, ring.avail


# ---- what is there


@ages
def test_fresh_rings_are_as_they_were_then(old: OldPort, age: Age) -> None:
    """ABI.md 16: TX avail is num_slots - 1, RX 0; nr_buf_size has 16 bits; everything lies inside nr_memsize."""
    tx, rx = old.tx(), old.rx()
    assert (state(tx), state(rx)) == ((0, SLOTS - 1), (0, 0))
    assert (tx.num_slots, rx.num_slots, tx.buf_size, rx.buf_size) == (SLOTS, SLOTS, 2048, 2048)
    slots = [ring.slot(k) for ring in (tx, rx) for k in range(SLOTS)]
    assert len({buf_idx for buf_idx, _, _ in slots}) == 2 * SLOTS
    assert all(buf_idx >= 2 and slot[1:] == (2048, 0) for slot in slots for buf_idx in slot[:1])
    assert old.answer["memsize"] == MEMSIZE
    assert 0 < tx.offset < MEMSIZE - age.header - age.slot * SLOTS
    assert tx.buffers + 2048 * max(slots)[0] < MEMSIZE


@ages
def test_the_map_comes_before_the_port(age: Age) -> None:
    """ABI.md 16: GINFO with an empty name tells how much to map; the map serves what is registered later."""
    with OldPort(age) as port, OldPort(age) as thread:
        assert (port.ginfo(""), port.answer["memsize"], port.answer["offset"]) == (0, MEMSIZE, 0)
        assert port.regif("quad") == 0
        thread.memory.close()
        thread.memory = port.memory
        assert thread.regif("quad", 0x4001) == 0
        assert thread.tx(1).num_slots == 1024


# ---- TX


@ages
@pytest.mark.parametrize("left", [0, 1, 5, 1000, MINUS_ONE, 0x80000000])
def test_what_is_left_in_tx_avail_means_nothing(old: OldPort, host: Host, left: int) -> None:
    """Issue E: output only: recomputed from cur at every sync and poll, never a reason to re-initialise."""
    ring = old.tx()
    for number in range(40):
        ring.put(frame(number))
        ring.avail = left
        if number % 2:
            old.txsync()
        else:
            assert old.poll(select.POLLOUT, at_most(1)) == select.POLLOUT
        assert state(ring) == ((number + 1) % SLOTS, SLOTS - 1)
    assert host.take(40) == [frame(number) for number in range(40)]


@ages
def test_poll_sends_what_is_there_whatever_is_asked_for(old: OldPort, host: Host) -> None:
    """Issue E: by default a poll or select pushes out any pending packets, even if no write events are specified."""
    old.tx().put(frame(1))
    assert old.poll(select.POLLIN, 0) == 0
    assert host.take(1) == [frame(1)]
    old.tx().put(frame(2))
    select.select([old.fd], [], [], 0)
    assert host.take(1) == [frame(2)]


@ages
def test_no_tx_poll_keeps_packets_until_they_are_asked_for(host: Host, age: Age) -> None:
    """ABI.md 16: NETMAP_NO_TX_POLL, the page's NETMAP_NO_TX_SYNC."""
    with OldPort(age, "tap1", NO_TX_POLL) as port:
        port.tx().put(frame(1))
        assert port.poll(select.POLLIN, 0) == 0
        assert host.waiting() == []
        assert port.poll(select.POLLOUT, at_most(1)) == select.POLLOUT
        assert host.take(1) == [frame(1)]


@ages
def test_a_buffer_put_into_a_tx_slot_is_sent_and_the_flag_cleared(old: OldPort, host: Host) -> None:
    """ABI.md 10."""
    ring = old.tx()
    mine, other = ring.slot(0)[0], ring.slot(5)[0]
    ring.write(other, frame(7))
    ring.set_slot(0, other, 60, NS_BUF_CHANGED)
    ring.set_slot(5, mine, 60, NS_BUF_CHANGED)
    ring.advance()
    old.txsync()
    assert host.take(1) == [frame(7)]
    assert ring.slot(0) == (other, 60, 0)
    assert ring.slot(5) == (mine, 60, NS_BUF_CHANGED)


@ages
def test_a_mark_on_every_slot_of_a_fresh_ring_stays_until_the_slot_is_used(old: OldPort, host: Host) -> None:
    """ABI.md 17: pkt-gen marks all slots once, also the one that it does not have yet, and copies where it finds it."""
    ring = old.tx()
    for k in range(SLOTS):
        ring.set_slot(k, ring.slot(k)[0], 60, NS_BUF_CHANGED)
    marked = 0
    for number in range(2 * SLOTS):
        marked += ring.slot(ring.cur)[2] & NS_BUF_CHANGED
        ring.put(frame(number))
        old.txsync()
    assert marked == SLOTS
    assert host.take(2 * SLOTS) == [frame(number) for number in range(2 * SLOTS)]


# ---- RX


@ages
def test_received_packets_count_from_cur(old: OldPort, host: Host) -> None:
    """ABI.md 16: avail is the number of packets; consumed ones are given back by the next sync."""
    ring = old.rx()
    for turn in range(5):
        host.send(*map(frame, range(10 * turn, 10 * turn + 10)))
        old.rxsync()
        assert ring.avail == 10
        assert ring.take() == [frame(number) for number in range(10 * turn, 10 * turn + 10)]
        assert state(ring) == ((10 * turn + 10) % SLOTS, 0)


@ages
def test_a_full_rx_ring_holds_all_slots_but_one(old: OldPort, host: Host) -> None:
    """ABI.md 9: the rest waits, and comes in order."""
    ring = old.rx()
    host.send(*map(frame, range(40)))
    got: list[bytes] = []
    while len(got) < 40:
        old.rxsync()
        assert ring.avail == min(SLOTS - 1, 40 - len(got))
        got += ring.take()
    assert got == [frame(number) for number in range(40)]


@ages
@pytest.mark.parametrize("waits", ["poll", "select"])
def test_a_sleeper_is_woken_by_a_packet_and_not_before(old: OldPort, host: Host, waits: str) -> None:
    """Issue E: select and poll wake as the page says; readiness is avail > 0."""

    def wait(seconds: float) -> bool:
        if waits == "poll":
            return bool(old.poll(select.POLLIN, seconds))
        return bool(select.select([old.fd], [], [], seconds)[0])

    assert not wait(0.05)
    host.send(frame(1))
    assert wait(at_most(5))
    assert old.rx().avail == 1
    assert wait(0)
    assert old.rx().take() == [frame(1)]
    assert not wait(0.05)


@with_reserved
def test_reserved_slots_stay_the_programs(old: OldPort, host: Host) -> None:
    """ABI.md 16: slots before cur that are not returned yet."""
    ring = old.rx()
    host.send(*map(frame, range(30)))
    old.rxsync()
    ring.advance(10)
    ring.reserved = 4
    old.rxsync()
    assert (ring.cur, ring.avail, ring.reserved) == (10, 11, 4)
    assert [ring.look(k) for k in range(6, 10)] == [frame(number) for number in range(6, 10)]
    ring.reserved = 0
    old.rxsync()
    assert (ring.cur, ring.avail) == (10, 15)
    assert ring.take() == [frame(number) for number in range(10, 25)]


@ages
def test_received_packets_have_the_time_where_there_is_room_for_it(old: OldPort, host: Host, age: Age) -> None:
    """ABI.md 16: ts; the page's ring has none, and slots where others have it."""
    before = int(time.time())
    host.send(frame(1))
    old.rxsync()
    if age.ts >= 0:
        assert before <= old.rx().seconds <= time.time()
        assert old.tx().seconds == 0
    assert old.rx().take() == [frame(1)]


# ---- nonsense


def spoilt(ring: OldRing, kind: str) -> bool:
    """Writes it, and says whether rings of that age have the field."""
    values = {
        "cur = num_slots": ("cur", ring.num_slots),
        "cur = 2^32 - 1": ("cur", MINUS_ONE),
        "cur past what was given": ("cur", (ring.cur + ring.avail + 1) % ring.num_slots),
        "avail one more than was given": ("avail", 7),
        "avail = 2^31": ("avail", 1 << 31),
        "reserved = num_slots": ("reserved", ring.num_slots),
        "reserved = 2^32 - 1": ("reserved", MINUS_ONE),
        "reserved one more than there are": ("reserved", 3),
    }
    field, value = values[kind]
    if field == "reserved" and ring.age.reserved < 0:
        return False
    setattr(ring, field, value)
    return True


@ages
@pytest.mark.parametrize("kind", ["cur = num_slots", "cur = 2^32 - 1"])
def test_a_tx_ring_with_a_bad_cur_is_begun_anew(old: OldPort, host: Host, kind: str) -> None:
    """Issue E, bad input: the ring re-initialised; nothing is sent; poll says POLLERR, an ioctl 0 (ABI.md 10)."""
    ring = old.tx()
    for number in range(3):
        ring.put(frame(number))
    old.txsync()
    assert host.take(3) == [frame(number) for number in range(3)]
    for command in ("ioctl", "poll"):
        spoilt(ring, kind)
        ring.set_slot(7, 0xFFFFFFFF, 60000)
        if command == "ioctl":
            old.txsync()
        else:
            assert old.poll(select.POLLOUT, 0) & select.POLLERR
        assert state(ring) == (3, SLOTS - 1)
        assert ring.slot(7)[:2] == (0, 0)
    ring.put(frame(9))
    old.txsync()
    assert host.take(1) == [frame(9)]
    assert host.waiting() == []


@ages
@pytest.mark.parametrize(
    "kind",
    [
        "cur = num_slots",
        "cur = 2^32 - 1",
        "cur past what was given",
        "avail one more than was given",
        "avail = 2^31",
        "reserved = num_slots",
        "reserved = 2^32 - 1",
        "reserved one more than there are",
    ],
)
def test_an_rx_ring_with_a_bad_index_is_begun_anew(old: OldPort, host: Host, age: Age, kind: str) -> None:
    """Issue E, bad input: what has arrived is shown again from the first packet that was not given back."""
    ring = old.rx()
    host.send(*map(frame, range(6)))
    old.rxsync()
    ring.advance(2)
    if not spoilt(ring, kind):
        assert age.reserved < 0
        return
    host.send(frame(6))
    old.rxsync()
    assert state(ring) == (0, 7)
    assert age.reserved < 0 or ring.reserved == 0
    spoilt(ring, "cur = num_slots")
    assert old.poll(select.POLLIN, 0) & select.POLLERR
    assert ring.take() == [frame(number) for number in range(7)]
    old.rxsync()
    assert state(ring) == (7, 0)


@ages
@pytest.mark.parametrize("beyond", [1, 5, 8])
def test_a_sender_that_goes_on_where_there_is_no_room_sends_nothing_twice(age: Age, beyond: int) -> None:
    """Issue E, bad input: `cur` past what was given; what was sent before stays sent."""
    with Port("p}1", Register(rx_slots=SLOTS, tx_slots=SLOTS)) as receiver, OldPort(age, "p{1") as old:
        ring = old.tx()
        while ring.avail:
            ring.put(frame(ring.cur))
        old.txsync()
        assert state(ring) == (SLOTS - 1, 0)
        ring.cur = (ring.cur + beyond) % SLOTS
        old.txsync()
        assert state(ring) == (SLOTS - 1, 0)
        receiver.rxsync()
        assert list(receiver.take()) == [frame(number) for number in range(SLOTS - 1)]
        receiver.rxsync()
        old.txsync()
        assert state(ring) == (SLOTS - 1, SLOTS - 1)
        receiver.rxsync()
        assert list(receiver.take()) == []


@ages
def test_rx_avail_of_minus_one_is_the_end_of_a_loop(old: OldPort, host: Host) -> None:
    """Issue E: `while (ring->avail-- > 0)` on the receiving side is no nonsense either."""
    ring = old.rx()
    for turn in range(10):
        host.send(frame(turn))
        old.rxsync()
        assert (ring.avail, ring.look()) == (1, frame(turn))
        ring.advance()
        ring.avail = MINUS_ONE
    old.rxsync()
    assert state(ring) == (10, 0)


@ages
@pytest.mark.parametrize("taken_off", [0, 2])
def test_rx_avail_that_lags_behind_cur_harms_nothing(old: OldPort, host: Host, taken_off: int) -> None:
    """docs/compatibility.md: old kernels wrote avail from their own count; a program that moves cur alone is right."""
    ring = old.rx()
    host.send(*map(frame, range(10)))
    old.rxsync()
    ring.advance(4)
    old.rxsync()
    assert state(ring) == (4, 6)
    ring.cur += 6
    ring.avail -= taken_off
    host.send(frame(10))
    old.rxsync()
    assert state(ring) == (10, 1)
    assert ring.take() == [frame(10)]


@ages
def test_nonsense_of_old_programs_harms_nobody_else(old: OldPort, age: Age) -> None:
    """Issue E: nobody else harmed: every index there is, on every sync, beside a pipe that works."""
    with Port("quiet{1") as left, Port("quiet}1") as right:
        for number in range(200):
            for ring in (old.tx(), old.rx()):
                for at in range(0, age.header, 4):
                    ring.set_word(at, (number * 2654435761 + at) & MINUS_ONE)
                for k in range(SLOTS):
                    ring.set_slot(k, number * 7919 + k, 0xFFFF, 0xFFFF)
            old.txsync()
            old.rxsync()
            old.poll(select.POLLIN | select.POLLOUT, 0)
            left.send(frame(number))
            assert right.receive() == frame(number)


@ages
def test_buffers_come_back_from_rings_with_anything_in_them(age: Age) -> None:
    """ABI.md 16: freeing reads slots that the program was given where the program sees them."""
    before = free_buffers()
    for turn in range(3):
        with OldPort(age, "tap1") as port:
            tx, rx = port.tx(), port.rx()
            for k in range(SLOTS):
                mine, other = tx.slot(k)[0], rx.slot(k)[0]
                tx.set_slot(k, other if turn else 3, 60)
                rx.set_slot(k, mine if turn < 2 else 1 << 30, 60)
    assert settled(free_buffers, before) == before


# ---- errors


@ages
def test_a_descriptor_without_a_port_syncs_and_polls_with_errors(age: Age) -> None:
    """ABI.md 1: ENXIO, POLLERR."""
    with OldPort(age) as port:
        for sync in (port.txsync, port.rxsync):
            with pytest.raises(OSError, match="No such device or address") as refused:
                sync()
            assert refused.value.errno == errno.ENXIO
        assert port.poll(select.POLLIN, 0) == select.POLLERR
