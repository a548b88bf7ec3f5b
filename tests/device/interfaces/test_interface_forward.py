# SPDX-License-Identifier: BSD-2-Clause
"""Transparent mode: slots that a program releases marked NS_FORWARD go on, from the wire to the host and back."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from cuse_netmap.client import NR_FORWARD, NS_BUF_CHANGED, NS_FORWARD, Port
from cuse_netmap.control.requests import Mode, Register
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, number_of
from tests.support.interfaces import Way
from tests.support.patience import at_most
from tests.support.state import write
from tests.support.steps import wait_until
from tests.support.stream import crossed
from tests.support.veth import QUIET, Peer, Wire, mtu, received

NIC, HOST = 0, 1
ETH_P_TEST = 0x88B5

WAYS = (Way("raw"), Way("xdp"))  # in generic mode nothing goes on to the host: docs/interfaces.md


def transparent(mode: Mode = Mode.NIC_SW) -> Port:
    """All rings of v0, all RX rings saying NR_FORWARD."""
    port = Port("v0", Register(mode=mode))
    for ring in port.rx.values():
        ring.flags |= NR_FORWARD
    return port


def release(port: Port, ring: int, *, marked: Callable[[int], bool] = lambda number: number >= 0) -> int:
    """Gives back all that an RX ring holds, marked or not by the number of each frame (-1: not ours); how many slots.

    The stacks have things to say too, such as who has an address.
    """
    rx = port.rx[ring]
    count = 0
    while rx.head != rx.tail:
        index, length, flags, pointer = rx.slot(rx.head)
        forward = NS_FORWARD if marked(number_of(bytes(rx.buffer(index)[:18]))) else 0
        rx.set_slot(rx.head, index, length, flags | forward, pointer)
        rx.advance()
        count += 1
    return count


def filled(port: Port, ring: int, count: int) -> list[int]:
    """Waits until a ring holds so many frames of ours; the slots where they begin."""
    rx = port.rx[ring]

    def ours() -> list[int]:
        port.rxsync()
        slots = [rx.next(rx.head, n) for n in range(rx.space)]
        return [slot for slot in slots if number_of(bytes(rx.buffer(rx.slot(slot)[0])[:18])) >= 0]

    wait_until(lambda: len(ours()) >= count)
    return ours()


@contextmanager
def listener(peer: Peer) -> Iterator[socket.socket]:
    """A packet socket that gets our frames."""
    with peer.open(socket.AF_PACKET, socket.SOCK_RAW) as heard:
        heard.bind((peer.interface, ETH_P_TEST))
        yield heard


@contextmanager
def marking(port: Port) -> Iterator[None]:
    """A program that marks all it gets, both ways, and does nothing else."""
    done = threading.Event()

    def run() -> None:
        while not done.is_set():
            port.poll(select.POLLIN, 0.05)
            for ring in port.rx:
                release(port, ring, marked=lambda _: True)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.fixture
def all_forwarded() -> Iterator[None]:
    """The parameter fwd, while a test lasts."""
    assert write("parameters/fwd", 1) == 0
    yield
    assert write("parameters/fwd", 0) == 0


# ---- from the wire to the host


@pytest.mark.parametrize("mode", [Mode.NIC_SW, Mode.ALL_NIC])
def test_the_host_receives_released_frames_of_the_wire_that_are_marked(near: Wire, far: Host, mode: Mode) -> None:
    """ABI.md 10.2: and no others; host rings need not be bound for it."""
    with transparent(mode) as port, listener(near.near) as heard:
        far.send(*(frame(n) for n in range(10)))
        filled(port, NIC, 10)
        release(port, NIC, marked=lambda n: n % 2 == 0)
        port.rxsync()
        assert received(heard, QUIET, wanted=6) == [frame(n) for n in range(0, 10, 2)]


def test_a_mark_is_cleared_when_its_frame_goes_on(near: Wire, far: Host) -> None:
    """ABI.md 10.2: flag cleared."""
    del near
    with transparent() as port:
        far.send(frame(1))
        (slot,) = filled(port, NIC, 1)
        release(port, NIC)
        port.rxsync()
        assert not port.rx[NIC].slot(slot)[2] & NS_FORWARD


def test_without_nr_forward_marks_mean_nothing(near: Wire, far: Host) -> None:
    """ABI.md 10.2: NR_FORWARD in the RX ring's flags, or the parameter fwd."""
    with Port("v0", Register(mode=Mode.NIC_SW)) as port, listener(near.near) as heard:
        far.send(frame(1))
        filled(port, NIC, 1)
        release(port, NIC)
        port.rxsync()
        assert not received(heard, QUIET, wanted=1)


@pytest.mark.usefixtures("all_forwarded")
def test_with_fwd_all_goes_on_marked_or_not(near: Wire, far: Host) -> None:
    """ABI.md 10.2, 14: all if fwd is 1."""
    with Port("v0", Register(mode=Mode.NIC_SW)) as port, listener(near.near) as heard:
        far.send(frame(1))
        filled(port, NIC, 1)
        release(port, NIC, marked=lambda _: False)
        port.rxsync()
        assert received(heard, QUIET, wanted=1) == [frame(1)]


def test_a_frame_without_an_ethernet_header_does_not_go_on_and_is_counted(near: Wire, far: Host, wires: Daemon) -> None:
    """ABI.md 10.2: frames of less than 14 bytes are skipped."""
    before = crossed(wires, "v0", 0)
    with transparent() as port, listener(near.near) as heard:
        far.send(frame(1), frame(2))
        rx, first = port.rx[NIC], filled(port, NIC, 2)[0]
        rx.set_slot(first, rx.slot(first)[0], 13)
        release(port, NIC)
        port.rxsync()
        assert received(heard, QUIET, wanted=2) == [frame(2)]
    wait_until(lambda: crossed(wires, "v0", 0)["received short"] == before["received short"] + 1)


def test_a_long_frame_in_several_slots_goes_on_whole(near: Wire, far: Host, way: Way) -> None:
    """ABI.md 12.1: frames of more than a buffer are several slots; they are one frame to the host too."""
    if way.xdp:
        pytest.skip("AF_XDP drops what is longer than a buffer")
    with transparent() as port, mtu(near, 9000), listener(near.near) as heard:
        far.send(frame(1, 8000))
        filled(port, NIC, 1)
        release(port, NIC)
        port.rxsync()
        assert received(heard, QUIET, wanted=1) == [frame(1, 8000)]


def test_a_whole_ring_goes_on_in_one_sync(near: Wire, far: Host) -> None:
    """ABI.md 10.2: the slots [hwcur, head), as many as they are."""
    del near
    with transparent() as port, Host("v0") as host:
        far.send(*(frame(n) for n in range(900)))
        filled(port, NIC, 900)
        release(port, NIC)
        port.rxsync()
        assert host.take(900) == [frame(n) for n in range(900)]


def test_frames_that_are_sent_and_frames_that_go_on_to_the_host_keep_apart(near: Wire, far: Host) -> None:
    """ABI.md 10.2: syncs of a TX and of an RX ring run at once, and both send."""
    rounds, each, sent = 150, 20, 1 << 20
    with transparent() as port, listener(near.near) as heard, marking(port):
        for number in range(0, rounds * each, each):
            far.send(*(frame(n) for n in range(number, number + each)))
            for n in range(number, number + each):
                assert port.put(frame(sent + n))
            port.txsync()
            assert far.take(each) == [frame(sent + n) for n in range(number, number + each)]
            up = received(heard, at_most(5), wanted=each)
            assert up == [frame(n) for n in range(number, number + each)]


# ---- from the host to the wire


def test_the_wire_gets_released_frames_of_the_host_that_are_marked(near: Wire, far: Host) -> None:
    """ABI.md 10.2: in poll the NIC TX rings are synced at once."""
    with transparent() as port, Host("v0") as host:
        host.send(*(frame(n) for n in range(10)))
        filled(port, HOST, 10)
        release(port, HOST, marked=lambda n: n % 2 == 1)
        port.poll(select.POLLIN, 0)
        assert far.take(5) == [frame(n) for n in range(1, 10, 2)]
    del near


def test_rxsync_puts_frames_of_the_host_into_a_tx_ring(near: Wire, far: Host) -> None:
    """ABI.md 10.2: buffers are swapped, head and cur move, NS_BUF_CHANGED is set on both sides; TXSYNC sends."""
    del near
    with transparent() as port, Host("v0") as host:
        host.send(frame(1))
        (source,) = filled(port, HOST, 1)
        theirs, ours = port.rx[HOST].slot(source)[0], port.tx[NIC].slot(0)[0]
        release(port, HOST)
        port.rxsync()
        assert (port.tx[NIC].head, port.tx[NIC].cur) == (1, 1)
        assert port.tx[NIC].slot(0)[:3] == (theirs, 60, NS_BUF_CHANGED)
        assert port.rx[HOST].slot(source)[0] == ours
        assert not far.waiting()
        port.txsync()
        assert far.receive() == frame(1)


def test_a_descriptor_without_all_tx_rings_sends_nothing_down(near: Wire, far: Host) -> None:
    """ABI.md 10.2: only if the descriptor bound all NIC TX rings."""
    del near
    with Port("v0"), transparent(Mode.SW) as port, Host("v0") as host:
        host.send(frame(1))
        filled(port, HOST, 1)
        release(port, HOST)
        port.poll(select.POLLIN, 0)
        assert not far.waiting()


def test_frames_of_the_host_that_find_no_room_are_dropped_and_counted(near: Wire, wires: Daemon) -> None:
    """ABI.md 10.2: they go into NIC TX rings that have room."""
    del near
    before = crossed(wires, "v0", 0)
    with transparent() as port, Host("v0") as host:
        tx = port.tx[NIC]
        for _ in range(tx.num_slots - 3):  # and are not synced
            port.put(frame(0))
        host.send(*(frame(n) for n in range(5)))
        filled(port, HOST, 5)
        release(port, HOST)
        port.rxsync()
        assert tx.space == 0
    wait_until(lambda: crossed(wires, "v0", 0)["received full"] == before["received full"] + 3)


# ---- both


def test_the_host_works_through_a_program_that_marks_everything(near: Wire) -> None:
    """Issue C: NS_FORWARD and NR_FORWARD: the host keeps working."""
    with transparent() as port:
        assert not near.far.pings(QUIET)
        with marking(port):
            assert near.far.pings()
            assert near.near.pings()
