# SPDX-License-Identifier: BSD-2-Clause
"""What a VALE switch does with each frame: to whom, into which ring and slots, and when it is dropped (ABI.md 12.5)."""

import errno
import select
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cuse_netmap.client import NS_BUF_CHANGED, NS_MOREFRAG, Port
from cuse_netmap.control.requests import Flag
from tests.support.daemon import Daemon
from tests.support.ioctls import settled
from tests.support.patience import at_most
from tests.support.stream import Stream
from tests.support.switches import BROADCAST, arrived, frame, mac, opened, raw, refusal, send

A, B, C, STRANGER = mac(1), mac(2), mac(3), mac(99)


@pytest.fixture(scope="module", autouse=True)
def served(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon for each way in."""
    with Daemon(tmp_path_factory.mktemp("vale") / "log", *way) as daemon:
        yield daemon


@pytest.fixture
def three() -> Iterator[tuple[Port, Port, Port]]:
    """Three ports of one switch, which nobody has sent from yet."""
    with opened("vale0:a") as a, opened("vale0:b") as b, opened("vale0:c") as c:
        yield a, b, c


# ---- to whom


@pytest.mark.parametrize("to", [BROADCAST, "01:00:5e:00:00:01", "33:33:00:00:00:01", STRANGER])
def test_group_and_unknown_addresses_reach_all_other_ports(three: tuple[Port, Port, Port], to: str) -> None:
    """ABI.md 12.5: multicast/broadcast bit or unknown: all other ports."""
    a, b, c = three
    sent = frame(to, A)
    send(a, sent)
    assert [arrived(port) for port in (a, b, c)] == [[], [sent], [sent]]


def test_a_known_address_is_reached_alone(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5 (randomized test 007): broadcast, then unicast must reach one port only."""
    a, b, c = three
    send(b, frame(BROADCAST, B))
    for port in (a, c):
        arrived(port)
    sent = frame(B, A)
    send(a, sent)
    assert [arrived(port) for port in (a, b, c)] == [[], [sent], []]


def test_a_frame_to_an_address_of_its_own_port_goes_nowhere(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: own port: dropped."""
    a, b, c = three
    send(a, frame(BROADCAST, A))
    arrived(b), arrived(c)
    send(a, frame(A, STRANGER))
    assert [arrived(port) for port in (a, b, c)] == [[], [], []]


def test_an_address_that_moves_is_found_at_its_new_port(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: learning overwrites."""
    a, b, c = three
    send(b, frame(BROADCAST, B))
    send(c, frame(BROADCAST, B))
    for port in (a, b, c):
        arrived(port)
    sent = frame(B, A)
    send(a, sent)
    assert [arrived(port) for port in (b, c)] == [[], [sent]]


def test_an_address_that_moves_back_is_found_only_after_another_source() -> None:
    """ABI.md 12.5, K: a moved MAC is not re-learned until another source is seen at the port."""
    with opened("vale0:a") as a, opened("vale0:b") as b, opened("vale0:c") as c:
        for port in (b, c, b):
            send(port, frame(BROADCAST, B))
        send(a, frame(B, A, 1))
        assert frame(B, A, 1) in arrived(c)
        send(b, frame(BROADCAST, STRANGER), frame(BROADCAST, B))
        send(a, frame(B, A, 2))
        assert frame(B, A, 2) in arrived(b)


def test_a_group_address_is_not_learned(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: src MAC not multicast."""
    a, b, c = three
    group = "01:00:00:00:00:09"
    send(b, frame(BROADCAST, group))
    arrived(a), arrived(c)
    send(a, frame(group, A))
    assert [len(arrived(port)) for port in (b, c)] == [1, 1]


def test_the_frames_of_one_burst_find_each_its_own_receiver(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: per packet, whatever stands before and behind it in the batch."""
    a, b, c = three
    send(b, frame(BROADCAST, B))
    send(c, frame(BROADCAST, C))
    for port in (a, b, c):
        arrived(port)
    destinations = [B, C, BROADCAST, B, B, STRANGER, C, BROADCAST, B]
    burst = [frame(to, A, i) for i, to in enumerate(destinations)]
    send(a, *burst)
    for port, own in ((b, B), (c, C)):
        wanted = [one for to, one in zip(destinations, burst, strict=True) if to in (own, BROADCAST, STRANGER)]
        assert arrived(port) == wanted


def test_switches_do_not_meet() -> None:
    """ABI.md 12.5: ports of one switch only."""
    with opened("vale0:a") as a, opened("vale1:a") as stranger, opened("vale:a") as unnamed:
        send(a, frame(BROADCAST, A))
        assert arrived(stranger) == arrived(unnamed) == []


def test_a_port_that_is_alone_sends_into_nothing() -> None:
    """ABI.md 12.5: afterwards hwcur = head, tail = head-1."""
    with opened("vale0:a") as a:
        send(a, *[frame(BROADCAST, A, i) for i in range(100)])
        assert (a.tx[0].head, a.tx[0].tail) == (100, 99)


def test_a_forgotten_table_floods(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: a port that has gone takes its addresses with it."""
    a, b, c = three
    send(b, frame(BROADCAST, B))
    arrived(a), arrived(c)
    b.close()
    assert settled(lambda: refusal("vale0:b", flags=Flag.EXCLUSIVE), 0) == 0
    with opened("vale0:new") as new:
        sent = frame(B, A)
        send(a, sent)
        assert [arrived(port) for port in (c, new)] == [[sent], [sent]]


def test_as_many_addresses_as_the_table_has_do_not_mislead_frames(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: 1024 entries, overwrite on collision: an address is at its port or unknown, never elsewhere."""
    a, b, c = three
    addresses = [mac(1000 + i) for i in range(3000)]
    for first in range(0, 3000, 500):
        send(b, *[frame(STRANGER, address) for address in addresses[first : first + 500]])
        arrived(a), arrived(c)
    known = 0
    for first in range(0, 3000, 500):
        send(a, *[frame(address, A, first + i) for i, address in enumerate(addresses[first : first + 500])])
        assert len(arrived(b)) == 500
        known += 500 - len(arrived(c))
    assert 500 < known <= 1024


# ---- rings


def test_known_unicast_keeps_its_ring_and_flooding_takes_ring_0() -> None:
    """ABI.md 12.5: the same ring index as the source ring, modulo the receiver's rings; all else ring 0."""
    with (
        opened("vale0:a", tx_rings=4, rx_rings=4) as a,
        opened("vale0:b", tx_rings=2, rx_rings=2) as b,
    ):
        send(b, frame(BROADCAST, B))
        for ring in range(4):
            send(a, frame(B, A, ring), ring=ring)
            send(a, frame(BROADCAST, A, ring + 10), ring=ring)
        b.rxsync()
        assert list(b.take(0)) == [
            frame(to, A, number)
            for to, number in [(B, 0), (BROADCAST, 10), (BROADCAST, 11), (B, 2), (BROADCAST, 12), (BROADCAST, 13)]
        ]
        assert list(b.take(1)) == [frame(B, A, 1), frame(B, A, 3)]


def test_a_receiver_whose_ring_is_not_bound_gets_nothing() -> None:
    """ABI.md 12.5: the receiver must be open with RX rings."""
    with opened("vale0:a") as a, opened("vale0:b", flags=Flag.TX_RINGS_ONLY) as b, opened("vale0:c") as c:
        send(b, frame(BROADCAST, B))
        arrived(a), arrived(c)
        send(a, frame(B, A), frame(BROADCAST, A))
        assert arrived(c) == [frame(BROADCAST, A)]
        with opened("vale0:b", flags=Flag.RX_RINGS_ONLY) as late:
            assert arrived(late) == []


def test_two_programs_on_one_port_share_its_ring() -> None:
    """ABI.md 12.5: opening an existing ephemeral port again shares it; both see one set of indices."""
    with opened("vale0:a") as a, opened("vale0:b") as one, opened("vale0:b") as other:
        send(a, frame(BROADCAST, A))
        other.rxsync()
        assert (one.rx[0].tail, other.rx[0].tail) == (1, 1)
        assert list(one.take()) == [frame(BROADCAST, A)]
        assert other.rx[0].head == 1


# ---- slots


def test_a_frame_of_one_slot_has_the_flags_of_one_fragment(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: flags = fragments << 8: 0x0100; the sender's own flags do not travel."""
    a, b, _ = three
    index = b.rx[0].slot(0)[0]
    a.put(frame(BROADCAST, A))
    sent_index = a.tx[0].slot(0)[0]
    a.tx[0].set_slot(0, sent_index, 60, NS_BUF_CHANGED | 0x0002, 0xABCD)
    a.txsync()
    b.rxsync()
    assert b.rx[0].slot(0) == (index, 60, 0x0100, 0)
    assert a.tx[0].slot(0)[0] == sent_index
    assert a.tx[0].slot(0)[2] & NS_BUF_CHANGED == 0


def test_a_released_slot_loses_buf_changed(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 10: the kernel clears it in released RX slots."""
    a, b, _ = three
    send(a, frame(BROADCAST, A))
    b.rxsync()
    b.rx[0].set_slot(0, b.rx[0].slot(0)[0], 60, NS_BUF_CHANGED)
    b.rx[0].advance()
    b.rxsync()
    assert b.rx[0].slot(0)[2] == 0


@pytest.mark.parametrize("slots", [2, 5, 64])
def test_a_packet_of_several_slots_says_how_many_and_has_morefrag_but_on_the_last(
    three: tuple[Port, Port, Port], slots: int
) -> None:
    """ABI.md 12.5: (fragments << 8), plus MOREFRAG on all but the last fragment."""
    a, b, _ = three
    sent = frame(BROADCAST, A, 7, 2048 * (slots - 1) + 100)
    send(a, sent)
    b.rxsync()
    assert [b.rx[0].slot(i)[2] for i in range(slots)] == [slots << 8 | NS_MOREFRAG] * (slots - 1) + [slots << 8]
    assert list(b.take()) == [sent]


@pytest.mark.parametrize("size", [14, 15, 59, 60, 63, 64, 65, 127, 128, 129, 511, 512, 513, 1514, 2047, 2048])
def test_a_frame_of_any_size_arrives_byte_for_byte(three: tuple[Port, Port, Port], size: int) -> None:
    """ABI.md 12.5: no padding; 14 bytes are a frame; the buffer size is the longest."""
    a, b, _ = three
    sent = (raw(BROADCAST) + raw(A) + bytes(i * 7 % 251 for i in range(size)))[:size]
    send(a, sent)
    assert arrived(b) == [sent]


@pytest.mark.parametrize("size", [0, 1, 13])
def test_a_frame_without_a_whole_ethernet_header_is_dropped(three: tuple[Port, Port, Port], size: int) -> None:
    """ABI.md 12.5: frame < 14 bytes dropped; those beside it are not."""
    a, b, _ = three
    send(a, frame(BROADCAST, A, 1), frame(BROADCAST, A)[:size], frame(BROADCAST, A, 2))
    assert arrived(b) == [frame(BROADCAST, A, 1), frame(BROADCAST, A, 2)]


@pytest.mark.parametrize(("index", "length"), [(None, 2049), (None, 65535)])
def test_a_slot_longer_than_its_buffer_is_dropped(
    three: tuple[Port, Port, Port], index: int | None, length: int
) -> None:
    """ABI.md 10: len > buffer size: VALE drops the packet."""
    a, b, _ = three
    a.put(frame(BROADCAST, A, 1))
    a.tx[0].set_slot(0, index or a.tx[0].slot(0)[0], length)
    send(a, frame(BROADCAST, A, 2))
    assert arrived(b) == [frame(BROADCAST, A, 2)]


@pytest.mark.parametrize("index", [0, 1, 163840, 0xFFFFFFFF])
def test_a_slot_without_a_buffer_harms_neither_its_sender_nor_others(
    three: tuple[Port, Port, Port], index: int
) -> None:
    """ABI.md 10: bad buf_idx in TX reads buffer 0."""
    a, b, _ = three
    a.put(frame(BROADCAST, A, 1))
    a.tx[0].set_slot(0, index, 60)
    send(a, frame(BROADCAST, A, 2))
    assert arrived(b)[-1] == frame(BROADCAST, A, 2)


@pytest.mark.parametrize("index", [0, 1, 163840, 0xFFFFFFFF])
def test_a_receiver_without_a_buffer_in_a_slot_gets_the_next_frame_right(
    three: tuple[Port, Port, Port], index: int
) -> None:
    """ABI.md 10: what a receiver writes into its slots is its own loss."""
    a, b, c = three
    b.rx[0].set_slot(0, index, 0)
    send(a, frame(BROADCAST, A, 1), frame(BROADCAST, A, 2))
    b.rxsync()
    assert b.rx[0].space == 2
    second = b.rx[0].slot(1)
    assert bytes(b.rx[0].buffer(second[0])[:60]) == frame(BROADCAST, A, 2)
    assert arrived(c) == [frame(BROADCAST, A, 1), frame(BROADCAST, A, 2)]


# ---- several slots: whole or not at all


def chain(port: Port, count: int, last: int = 0, size: int = 60) -> None:
    """A packet of `count` slots; `last` are the flags of the last."""
    ring = port.tx[0]
    for i in range(count):
        index = ring.slot(ring.head)[0]
        ring.buffer(index)[:60] = frame(BROADCAST, A)
        ring.set_slot(ring.head, index, size, NS_MOREFRAG if i + 1 < count else last)
        ring.advance()


def test_a_packet_for_which_there_is_not_room_enough_leaves_no_part() -> None:
    """ABI.md 12.5: delivered whole or not at all; a later, shorter one may fit."""
    with opened("vale0:a") as a, opened("vale0:b", rx_slots=8) as b:
        chain(a, 5)
        chain(a, 3)
        chain(a, 2)
        chain(a, 1)
        a.txsync()
        b.rxsync()
        assert [b.rx[0].slot(i)[2] >> 8 for i in range(b.rx[0].space)] == [5, 5, 5, 5, 5, 2, 2]


def test_a_packet_of_65_slots_is_dropped_whole(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 3.6: NETMAP_MAX_FRAGS is 64; whoever receives never sees more."""
    a, b, _ = three
    chain(a, 65)
    chain(a, 64)
    a.txsync()
    b.rxsync()
    assert (b.rx[0].space, {b.rx[0].slot(i)[2] >> 8 for i in range(64)}) == (64, {64})


def test_a_chain_that_never_ends_is_dropped_and_stops_nobody(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: the sender never blocks: afterwards hwcur = head, tail = head-1."""
    a, b, c = three
    for _ in range(3):
        chain(a, 1000, NS_MOREFRAG)
        a.txsync()
        assert a.tx[0].space == 1023
    send(c, frame(BROADCAST, C))
    assert arrived(b) == [frame(BROADCAST, C)]
    send(a, frame(BROADCAST, A))
    assert arrived(b) == [frame(BROADCAST, A)]


def test_a_header_split_over_slots_does_not_count(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 12.5: the Ethernet header is in the first slot, or there is none."""
    a, b, _ = three
    chain(a, 2, size=13)
    a.txsync()
    assert arrived(b) == []


# ---- receivers


def test_a_full_receiver_loses_frames_and_the_sender_does_not_notice() -> None:
    """ABI.md 12.5: no room: dropped silently. Sender never blocks."""
    with opened("vale0:a") as a, opened("vale0:b", rx_slots=8) as b, opened("vale0:c") as c:
        for i in range(20):
            send(a, frame(BROADCAST, A, i))
            assert a.tx[0].space == 1023
        assert arrived(b) == [frame(BROADCAST, A, i) for i in range(7)]
        assert arrived(c) == [frame(BROADCAST, A, i) for i in range(20)]


def test_a_receiver_that_makes_room_gets_what_is_sent_then() -> None:
    """ABI.md 12.5: room comes with the receiver's rxsync."""
    with opened("vale0:a") as a, opened("vale0:b", rx_slots=8) as b:
        send(a, *[frame(BROADCAST, A, i) for i in range(10)])
        b.rxsync()
        b.rx[0].advance(3)
        send(a, frame(BROADCAST, A, 10))
        b.rxsync()
        send(a, *[frame(BROADCAST, A, i) for i in range(11, 20)])
        assert [int.from_bytes(one[14:18]) for one in arrived(b)] == [3, 4, 5, 6, 11, 12, 13]


def test_poll_sends_and_any_poll_does(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 11: any poll() pushes pending TX packets; POLLOUT is true at once."""
    a, b, _ = three
    a.put(frame(BROADCAST, A, 1))
    assert a.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
    a.put(frame(BROADCAST, A, 2))
    assert a.poll(0, 0) == 0
    assert arrived(b) == [frame(BROADCAST, A, 1), frame(BROADCAST, A, 2)]


def test_a_frame_wakes_every_receiver(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 11: VALE peer activity wakes the sleepers, each once."""
    a, b, c = three
    timer = threading.Timer(0.05, send, [a, frame(BROADCAST, A)])
    woken: list[int] = []
    others = threading.Thread(target=lambda: woken.append(c.poll(select.POLLIN, at_most(5))))
    others.start()
    timer.start()
    assert b.poll(select.POLLIN, at_most(5)) == select.POLLIN
    others.join()
    timer.join()
    assert woken == [select.POLLIN]


def test_edge_triggered_epoll_reports_every_burst(three: tuple[Port, Port, Port]) -> None:
    """ABI.md 11: EPOLLET gets an edge per wake-up, though nobody polls again in between."""
    a, b, _ = three
    with select.epoll() as epoll:
        epoll.register(b, select.EPOLLIN | select.EPOLLET)
        for turn in range(5):
            send(a, frame(BROADCAST, A, turn))
            assert epoll.poll(at_most(5)) == [(b.fd, select.EPOLLIN)], turn
            assert arrived(b) == [frame(BROADCAST, A, turn)]


def test_many_receivers_get_each_a_copy() -> None:
    """ABI.md 12.5: all other ports."""
    with ExitStack() as stack, opened("vale0:a") as a:
        ports = [stack.enter_context(opened(f"vale0:r{i}", rx_slots=16, tx_slots=2)) for i in range(40)]
        send(a, *[frame(BROADCAST, A, i) for i in range(5)])
        for port in ports:
            assert arrived(port) == [frame(BROADCAST, A, i) for i in range(5)]


# ---- programs


@pytest.mark.parametrize(
    "options", [[], ["-p"], ["-x"], ["-l", 9000, "-m", 5]], ids=["ioctl", "poll", "extra", "slots"]
)
def test_what_arrives_of_a_long_stream_is_in_order_and_unharmed(stream: Path, options: list[object]) -> None:
    """ABI.md 12.5: frames may be missing, where the receiver was full; never out of order, twice or in parts."""
    with Stream(stream, "receive", "vale0:b", *options) as receiver:
        with Stream(stream, "send", "vale0:a", "-n", 20000, *options) as sender:
            sender.report()
        got = receiver.end()
    assert (got.repeats, got.bad, got.frames + got.gaps) == (0, 0, got.last - got.first + 1)
    assert got.frames > 500


def test_programs_of_three_users_share_a_switch(stream: Path) -> None:
    """ABI.md 12.5: a switch belongs to nobody; who may open the device may use it."""
    Path("/dev/netmap").chmod(0o666)
    try:
        with Stream(stream, "receive", "vale0:b", "-s", A) as receiver:
            for user in (1, 65534):
                with Stream(stream, "send", f"vale0:u{user}", "-u", user, "-n", 500, "-b", 8, "-f", user) as sender:
                    assert sender.report().frames == 500
            got = receiver.end()
        assert (got.first, got.last, got.bad) == (1, 65534 + 499, 0)
    finally:
        Path("/dev/netmap").chmod(0o660)


def test_two_senders_at_once_do_not_mix_their_frames(stream: Path) -> None:
    """ABI.md 12.5: several fill one ring, each frame whole."""
    with Stream(stream, "receive", "vale0:c", "-l", 5000, "-m", 3) as receiver:
        senders = [
            Stream(stream, "send", f"vale0:{name}", "-n", 5000, "-l", 5000, "-m", 3, "-s", source, "-d", C)
            for name, source in (("a", A), ("b", B))
        ]
        for sender in senders:
            with sender:
                sender.report()
        got = receiver.end()
    assert (got.bad, got.frames > 100) == (0, True)


def test_an_exclusive_vale_port_is_busy_for_others_and_receives_all_the_same() -> None:
    """ABI.md 7 (randomized test 001)."""
    with opened("vale0:a", flags=Flag.EXCLUSIVE) as a, opened("vale0:b") as b:
        assert refusal("vale0:a") == errno.EBUSY
        send(b, frame(A, B))
        assert arrived(a) == [frame(A, B)]
