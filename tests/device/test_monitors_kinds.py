# SPDX-License-Identifier: BSD-2-Clause
"""Monitors of pipes and of ports on switches (ABI.md 12.3 to 12.5), where others than the port's user move packets."""

import ctypes
import mmap
import select
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cuse_netmap.client import Port, Ring, control
from cuse_netmap.control.requests import (
    ExtmemBody,
    Flag,
    Mode,
    OffsetsBody,
    OptionType,
    PoolsInfo,
    Register,
    RequestType,
    ValeAttach,
    ValeDetach,
)
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ours
from tests.support.ioctls import device, option
from tests.support.patience import at_most

NS_BUF_CHANGED, NS_INDIRECT, NS_TXMON = 0x01, 0x10, 0x40
BOTH = Flag.MONITOR_RX | Flag.MONITOR_TX
PAIRS = [("tap0{1", "tap0}1"), ("vale0:1", "vale0:2")]


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("monitors")
    with Daemon(folder / "log", "--no-ports", "--tap=tap0") as daemon:
        yield daemon


def monitor(name: str, flags: int, **fields: int) -> Port:
    """A monitor of the port of that name, in the ways of `flags`."""
    return Port(name, Register(flags=flags, **fields))


def seen(port: Port) -> list[bytes]:
    port.rxsync()
    return list(port.take())


def buffers(*parties: dict[int, Ring]) -> list[int]:
    """All that the slots of these rings name, in order."""
    rings = [ring for rings in parties for ring in rings.values()]
    return sorted(ring.slot(i)[0] for ring in rings for i in range(ring.num_slots))


@contextmanager
def attached(name: str) -> Iterator[None]:
    """An interface on a switch, without its host rings."""
    with device() as fd:
        control(fd, RequestType.VALE_ATTACH, name, ValeAttach(Register(mode=Mode.ALL_NIC).encode(), 0))
        try:
            yield
        finally:
            control(fd, RequestType.VALE_DETACH, name, ValeDetach())


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_copies_are_of_what_either_port_sends_and_receives(one: str, other: str) -> None:
    """12.4, T 012, 014, 018, 020: NS_TXMON at the sender only."""
    with (
        Port(one) as sender,
        Port(other) as receiver,
        monitor(one, BOTH) as at_sender,
        monitor(other, BOTH) as at_receiver,
    ):
        sender.send(frame(1))
        assert seen(at_sender) == [frame(1)]
        assert at_sender.rx[0].slot(0)[2] & NS_TXMON
        assert seen(at_receiver) == [frame(1)]
        assert not at_receiver.rx[0].slot(0)[2] & NS_TXMON
        receiver.rxsync()
        assert list(receiver.take()) == [frame(1)]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_monitor_is_woken_by_what_arrives_while_its_port_sleeps(one: str, other: str) -> None:
    """12.4: also if the parent's user sleeps."""
    with Port(one) as sender, Port(other), monitor(other, Flag.MONITOR_RX) as port, select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN)
        for number in range(100):
            assert epoll.poll(0) == []
            sender.send(frame(number))
            assert epoll.poll(at_most(5)) == [(port.fileno(), select.EPOLLIN)]
            assert seen(port) == [frame(number)]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_zero_copy_monitor_sees_nothing_before_the_receiver_releases_it(one: str, other: str) -> None:
    """12.4, T 015, 017."""
    with Port(one) as sender, Port(other) as receiver, monitor(other, Flag.ZCOPY_MON) as port:
        sender.send(frame(1))
        assert seen(port) == []
        receiver.rxsync()
        assert seen(port) == []
        assert list(receiver.take()) == [frame(1)]
        receiver.rxsync()
        assert seen(port) == [frame(1)]


def test_a_zero_copy_monitor_of_a_switch_port_sees_what_was_sent() -> None:
    """12.4, T 025: a VALE port's slots come back at once."""
    with Port("vale0:1") as sender, Port("vale0:2"), monitor("vale0:1", Flag.ZCOPY_MON) as port:
        sender.send(frame(1))
        assert sender.tx[0].slot(0)[2] & NS_BUF_CHANGED
        assert seen(port) == [frame(1)]


def test_a_zero_copy_monitor_of_a_pipe_sees_what_was_sent_when_the_slot_comes_back() -> None:
    """12.4, T 027: once the receiver has released it and the sender syncs."""
    with Port("tap0{1") as sender, Port("tap0}1") as receiver, monitor("tap0{1", Flag.ZCOPY_MON) as port:
        sender.send(frame(1))
        receiver.rxsync()
        assert list(receiver.take()) == [frame(1)]
        receiver.rxsync()
        assert seen(port) == []
        sender.txsync()
        assert seen(port) == [frame(1)]


def test_buffers_that_go_round_between_a_pipe_and_its_monitors_stay_the_same_ones() -> None:
    """8, 12.4: swapped, never lost nor doubled, wherever the monitor stands."""
    with (
        Port("tap0{1") as sender,
        Port("tap0}1") as receiver,
        monitor("tap0{1", Flag.ZCOPY_MON) as one,
        monitor("tap0}1", Flag.ZCOPY_MON) as other,
    ):
        # The rings of a pipe share their buffers: nothing is away now, so the senders have them all.
        parties = (sender.tx, receiver.tx, one.tx, one.rx, other.tx, other.rx)
        before = buffers(*parties)
        for number in range(3000):
            sender.send(frame(number))
            receiver.rxsync()
            assert list(receiver.take()) == [frame(number)]
            receiver.rxsync()
            sender.txsync()
            if number % 7 == 0:
                seen(one)
                assert seen(other)[-1] == frame(number)
        assert buffers(*parties) == before


@pytest.mark.parametrize("flags", [Flag.MONITOR_TX, Flag.ZCOPY_MON])
def test_what_a_sender_leaves_in_its_own_memory_is_seen_as_it_was_sent(flags: int) -> None:
    """12.5: NS_INDIRECT, data at slot->ptr in the sender's address space."""
    data = ctypes.create_string_buffer(frame(77), 60)
    with Port("vale0:1") as sender, Port("vale0:2") as receiver, monitor("vale0:1", flags) as port:
        tx = sender.tx[0]
        tx.set_slot(0, tx.slot(0)[0], 60, NS_INDIRECT, ctypes.addressof(data))
        tx.advance()
        assert sender.put(frame(78))
        sender.txsync()
        receiver.rxsync()
        assert list(receiver.take()) == [frame(77), frame(78)]
        assert seen(port) == [frame(77), frame(78)]


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_full_monitor_at_either_end_holds_nothing_up(one: str, other: str) -> None:
    """12.4: nothing blocks, whatever the monitor does not do."""
    with Port(one) as sender, Port(other) as receiver:
        full = [monitor(name, kind, rx_slots=4) for name in (one, other) for kind in (BOTH, Flag.ZCOPY_MON)]
        for first in range(0, 10000, 100):
            for number in range(first, first + 100):
                assert sender.put(frame(number))
            sender.txsync()
            receiver.rxsync()
            assert list(receiver.take()) == [frame(number) for number in range(first, first + 100)]
            receiver.rxsync()
            sender.txsync()
        for port in full:
            assert len(seen(port)) == 3
            port.close()


def test_an_interface_on_a_switch_is_monitored_and_forwards_all_the_same() -> None:
    """12.4, 12.5: a switch has it open; what a monitor lets in the switch still gets to see."""
    with (
        attached("vale1:tap0"),
        Port("vale1:p") as port,
        Host("tap0") as host,
        monitor("vale1:tap0", Flag.MONITOR_RX) as watcher,
    ):
        received: list[bytes] = []
        watched: list[bytes] = []
        for first in range(0, 2000, 100):
            host.send(*(frame(number) for number in range(first, first + 100)))
            while len(received) < first + 100:
                watched += ours(seen(watcher))
                assert port.poll(select.POLLIN, at_most(5))
                received += ours(port.take())
        assert received == [frame(number) for number in range(2000)]
        watched += ours(seen(watcher))
        assert watched == received


def test_a_monitor_of_a_port_that_leaves_its_switch_ends() -> None:
    """12.4: the switch was the port's user."""
    with attached("vale1:tap0"):
        port = monitor("vale1:tap0", BOTH)
    with port:
        assert port.poll(select.POLLIN, at_most(5)) & select.POLLERR


@pytest.mark.parametrize("name", ["tap0{9", "vale9:1"])
def test_a_port_that_nobody_has_made_cannot_be_monitored(name: str) -> None:
    """12.4: not in netmap mode: EINVAL; and it is not made for that."""
    with pytest.raises(OSError, match="Invalid argument"):
        monitor(name, Flag.MONITOR_RX)


def test_a_monitor_with_offsets_finds_frames_where_it_asked_for_them() -> None:
    """13.4: copy monitors take the option OFFSETS."""
    wanted = option(OptionType.OFFSETS, body=OffsetsBody(128, 128, 16).encode())
    request = Register(flags=Flag.MONITOR_TX)
    with Port("vale0:1") as sender, Port("vale0:2"), Port("vale0:1", request, options=wanted.address) as port:
        sender.send(frame(5))
        port.rxsync()
        buf_idx, length, _, pointer = port.rx[0].slot(0)
        assert pointer & 0xFFFF == 128
        assert bytes(port.rx[0].buffer(buf_idx)[128 : 128 + length]) == frame(5)


def test_a_zero_copy_monitor_has_no_offsets() -> None:
    """13.4: EOPNOTSUPP."""
    wanted = option(OptionType.OFFSETS, body=OffsetsBody(128, 128, 16).encode())
    with Port("vale0:1"), pytest.raises(OSError, match="not supported"):
        Port("vale0:1", Register(flags=Flag.ZCOPY_MON), options=wanted.address)


@pytest.mark.parametrize("flags", [Flag.MONITOR_TX, Flag.ZCOPY_MON])
def test_a_frame_that_begins_inside_its_buffer_is_seen_whole_by_a_monitor_without_offsets(flags: int) -> None:
    """13.4: where the parent's slot says it begins; zero-copy monitors get a copy then."""
    wanted = option(OptionType.OFFSETS, body=OffsetsBody(128, 100, 16).encode())
    with Port("vale0:1", options=wanted.address) as sender, Port("vale0:2"), monitor("vale0:1", flags) as port:
        tx = sender.tx[0]
        buf_idx = tx.slot(0)[0]
        tx.buffer(buf_idx)[100:160] = frame(5)
        tx.set_slot(0, buf_idx, 60, 0, 100)
        tx.advance()
        sender.txsync()
        assert seen(port) == [frame(5)]


def test_copies_of_what_crosses_memory_that_a_program_brought_are_for_everybody() -> None:
    """13.1, 12.4: a copying monitor has memory of its own, which any program can map; a zero-copy one the port's."""
    memory = mmap.mmap(-1, 32 << 20)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    pools = PoolsInfo(memsize=len(memory), if_total=10, ring_total=20)
    wanted = option(OptionType.EXTMEM, body=ExtmemBody(address, pools.encode()).encode())
    zero_copy = Register(flags=Flag.ZCOPY_MON)
    with (
        Port("vale0:1", options=wanted.address, memory=memory) as sender,
        Port("vale0:2") as receiver,
        monitor("vale0:1", BOTH) as copying,
        Port("vale0:1", zero_copy, memory=memory) as swapping,
    ):
        assert copying.granted.mem_id == receiver.granted.mem_id == 1
        assert swapping.granted.mem_id == sender.granted.mem_id > 1
        sender.send(frame(1))
        receiver.send(frame(2))
        assert sender.receive() == frame(2)
        sender.rxsync()
        assert seen(copying) == seen(swapping) == [frame(1), frame(2)]
