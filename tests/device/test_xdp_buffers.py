# SPDX-License-Identifier: BSD-2-Clause
"""Whose buffer is whose when the pool is AF_XDP's own memory: swapped, in flight, lent, and given back."""

import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap import _core
from cuse_netmap.backends.hooks import Links
from cuse_netmap.client import NS_BUF_CHANGED, NS_MOREFRAG, Port
from cuse_netmap.control.requests import Flag, Mode, OffsetsBody, OptionType, Register
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, number_of
from tests.support.interfaces import Way
from tests.support.ioctls import extra_list, free_buffers, option, settled
from tests.support.patience import at_most
from tests.support.program import Program
from tests.support.steps import wait_until
from tests.support.stream import Stream, crossed
from tests.support.veth import SOON, Wire, received

POOL = 163838
REACHED = 4096  # buffers that AF_XDP reaches here
RING = 1024
OWN = 1280  # of a queue: what it can receive at once, and what it copies into


@pytest.fixture(scope="module", params=[Way("xdp"), Way("xdp", "generic")], ids=str)
def wires(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose interfaces are served by xdp."""
    folder = tmp_path_factory.mktemp("wires")
    with Daemon(folder / "log", *request.param.options(folder, f"xdp_buffers = {REACHED}")) as served:
        yield served


def take(port: Port, count: int) -> list[bytes]:
    """The next frames of ours."""
    frames: list[bytes] = []

    def arrived() -> bool:
        port.rxsync()
        frames.extend(one for one in port.take() if number_of(one) >= 0)
        return len(frames) >= count

    wait_until(arrived)
    return frames


def holds(port: Port, count: int) -> bool:
    """Its RX ring has so many frames."""
    port.rxsync()
    return port.rx[0].space >= count


def named(port: Port) -> set[int]:
    """The buffers that the slots of both rings name."""
    rings = (port.tx[0], port.rx[0])
    return {ring.slot(k)[0] for ring in rings for k in range(ring.num_slots)}


def lent(port: Port) -> list[int]:
    """The backend's own: the pool gives the lowest first, and nobody else has any."""
    return sorted(set(range(2, 2 + 2 * RING + OWN)) - named(port))


def put(port: Port, buffer: int, data: bytes, flags: int = 0) -> None:
    """In the next TX slot, which gets that buffer."""
    tx = port.tx[0]
    tx.buffer(buffer)[: len(data)] = data
    tx.set_slot(tx.head, buffer, len(data), NS_BUF_CHANGED | flags)
    tx.advance()


# ---- nothing is copied


def test_a_received_frame_comes_in_another_buffer_than_its_slot_had(near: Wire, far: Host) -> None:
    """Issue C: neither direction copies in the daemon; ABI.md 10.1: NS_BUF_CHANGED says that it was swapped."""
    del near
    with Port("v0") as port:
        rx = port.rx[0]
        had = [rx.slot(k)[0] for k in range(rx.num_slots)]
        far.send(frame(1), frame(2))
        wait_until(lambda: holds(port, 2))
        for k in range(2):
            buffer, _, flags, _ = rx.slot(k)
            assert buffer != had[k]
            assert flags & NS_BUF_CHANGED
        assert len(named(port)) == 2 * RING


def test_a_sent_slot_comes_back_with_the_buffer_it_had(near: Wire, far: Host) -> None:
    """ABI.md 10.1: slots return in order, as they were but for NS_BUF_CHANGED."""
    del near
    with Port("v0") as port:
        tx = port.tx[0]
        had = [tx.slot(k)[0] for k in range(tx.num_slots)]
        for number in range(2000):
            port.send(frame(number))
            assert far.receive() == frame(number)
        assert [tx.slot(k)[0] for k in range(tx.num_slots)] == had


def test_many_times_the_ring_is_received_and_every_buffer_stays_one_slot_s(near: Wire, far: Host) -> None:
    """Issue C: conservation: a slot's buffer and the one it is swapped for change places, none is there twice."""
    del near
    with Port("v0") as port:
        for first in range(0, 5000, 500):
            far.send(*(frame(number) for number in range(first, first + 500)))
            assert [number_of(one) for one in take(port, 500)] == list(range(first, first + 500))
        assert len(named(port)) == 2 * RING


@pytest.fixture
def high(near: Wire) -> Iterator[tuple[Port, int]]:
    """v0, and a buffer that AF_XDP cannot reach."""
    del near
    with Port("v0", Register(extra_bufs=3000)) as port:
        yield port, max(extra_list(port))


def test_a_buffer_beyond_the_reach_of_xdp_is_copied_and_sent(high: tuple[Port, int], far: Host) -> None:
    """DESIGN.md section 4: the lowest N buffers, and copy for others."""
    port, buffer = high
    assert buffer > REACHED
    put(port, buffer, frame(7, 1514))
    port.txsync()
    assert far.receive() == frame(7, 1514)
    assert port.tx[0].space == RING - 1


def test_a_slot_with_a_buffer_beyond_the_reach_of_xdp_receives(high: tuple[Port, int], far: Host) -> None:
    """DESIGN.md section 4: the lowest N buffers, and copy for others: the slot keeps the one it has."""
    port, _ = high
    rx = port.rx[0]
    theirs = sorted(extra_list(port))[-rx.num_slots :]
    assert theirs[0] > REACHED
    for k, buffer in enumerate(theirs):
        rx.set_slot(k, buffer, 0, NS_BUF_CHANGED)
    far.send(frame(7, 1514))
    assert take(port, 1) == [frame(7, 1514)]
    assert [rx.slot(k)[0] for k in range(rx.num_slots)] == theirs


def test_a_frame_of_several_slots_is_sent_as_one(near: Wire, far: Host) -> None:
    """docs/interfaces.md: a chain that fits a buffer is copied together; one that does not is dropped and counted."""
    del near
    with Port("v0") as port:
        tx = port.tx[0]
        whole = frame(7, 900)
        for k, piece in enumerate((whole[:14], whole[14:500], whole[500:])):
            put(port, tx.slot(tx.head)[0], piece, NS_MOREFRAG if k < 2 else 0)
        port.txsync()
        assert far.receive() == whole
        assert tx.space == RING - 1


def test_what_begins_inside_its_buffer_is_sent_from_there_and_received_there(near: Wire, far: Host) -> None:
    """ABI.md 13.4: data starts at buffer + offset in both directions; the slot that receives keeps its buffer."""
    del near
    wanted = option(OptionType.OFFSETS, body=OffsetsBody(256, 64, 16).encode())
    with Port("v0", options=wanted.address) as port:
        tx, rx = port.tx[0], port.rx[0]
        buffer, had = tx.slot(0)[0], rx.slot(0)[0]
        tx.buffer(buffer)[64 : 64 + 1514] = frame(7, 1514)
        tx.set_slot(0, buffer, 1514, 0, 64)
        tx.advance()
        port.txsync()
        assert far.receive() == frame(7, 1514)
        far.send(frame(8, 1514))
        wait_until(lambda: holds(port, 1))
        assert rx.slot(0)[0] == had
        assert rx.slot(0)[3] == 64
        assert bytes(rx.buffer(had)[64 : 64 + 1514]) == frame(8, 1514)


def test_larger_buffers_take_larger_frames(start_daemon: Callable[..., Daemon]) -> None:
    """docs/interfaces.md: a frame fits a buffer, and a page less what XDP keeps before it."""
    start_daemon("--device=netmap2", "--no-ports", "--backend=xdp", "--buf-size=4096", "--buf-num=20000")
    with Wire() as wire, network_namespace(wire.near.namespace):
        for peer, interface in ((wire.near, "v0"), (wire.far, "v1")):
            peer.run(f"ip link set {interface} mtu 3000")
        with network_namespace(wire.far.namespace):
            host = Host("v1")
        with host, Port("v0", device="/dev/netmap2") as port:
            host.send(frame(1, 3014))
            assert take(port, 1) == [frame(1, 3014)]
            port.send(frame(2, 3014))
            assert host.receive() == frame(2, 3014)


# ---- in flight


@pytest.fixture
def slow(near: Wire) -> Iterator[Callable[[], None]]:
    """The far host sends all that it gets back, so slowly that it stays on the way until this is called."""
    with network_namespace(near.far.namespace):
        index = socket.if_nametoindex("v1")
        if not Links.possible(index):
            pytest.skip("tcx needs Linux 6.6")
        program = _core.steer_load("to_rings", index)
        links = Links(index)
        links.put(program, ingress=True)
    os.close(program)
    near.far.run("tc qdisc add dev v1 root tbf rate 8bit burst 1600 limit 100000000")

    def let_go() -> None:
        near.far.run("tc qdisc replace dev v1 root pfifo limit 10000")

    yield let_go
    links.remove(ingress=True)
    near.far.run("tc qdisc del dev v1 root")


def send_until_some_stay(port: Port) -> None:
    """A ring full, most of which stays in flight."""
    number = 0
    while port.put(frame(number)):
        number += 1
    port.txsync()
    assert port.tx[0].space < RING // 2


def test_slots_come_back_when_the_device_is_done_and_not_before(near: Wire, slow: Callable[[], None]) -> None:
    """Issue C: a TX slot is a descriptor until its completion; ABI.md 11: a sleeper is woken then."""
    del near
    with Port("v0") as port:
        send_until_some_stay(port)
        time.sleep(0.1)
        port.txsync()
        assert port.tx[0].space < RING // 2
        while port.tx[0].space:
            assert port.put(frame(0))
        port.txsync()
        slow()
        assert port.poll(select.POLLOUT, at_most(5)) == select.POLLOUT

        def free() -> int:
            port.txsync()
            return port.tx[0].space

        assert settled(free, RING - 1) == RING - 1


def test_a_buffer_in_flight_may_be_sent_once_more(near: Wire, slow: Callable[[], None]) -> None:
    """ABI.md 10.1: several slots may name one buffer to send it several times: what is on its way is copied."""
    with Port("v0") as port, near.far.capture() as heard:
        buffer = port.tx[0].slot(0)[0]
        for _ in range(20):
            put(port, buffer, frame(7, 1514))
            port.txsync()
        assert received(heard, SOON, wanted=20) == [frame(7, 1514)] * 20
        assert port.tx[0].space < RING - 1
        slow()


@pytest.mark.parametrize("first", [True, False])
def test_buffers_in_flight_at_the_close_go_back_to_the_pool(near: Wire, slow: Callable[[], None], first: bool) -> None:
    """DESIGN.md section 3: buffers go back only when the kernel can no longer write them, and then all do."""
    with Port("v0", Register(flags=Flag.RX_RINGS_ONLY)) as other:
        with Port("v0", Register(flags=Flag.TX_RINGS_ONLY)) as port:
            send_until_some_stay(port)
            if first:
                other.close()
        if not first:
            slow()
            with Port("v0", Register(flags=Flag.TX_RINGS_ONLY)) as port, near.far.capture() as heard:
                deadline = time.monotonic() + at_most(10)
                while frame(5000) not in received(heard, 0.1):  # it has no room for all that was held up
                    assert time.monotonic() < deadline
                    port.send(frame(5000))
    assert settled(free_buffers, POOL) == POOL


# ---- lent


def test_a_lent_buffer_that_a_program_sends_is_refused(near: Wire, far: Host, wires: Daemon) -> None:
    """DESIGN.md section 3: a buf_idx that is lent is refused; it is counted, and the next frame is sent."""
    del near
    with Port("v0") as port:
        own = [port.tx[0].slot(k)[0] for k in range(RING)]
        for buffer in lent(port):
            put(port, buffer, frame(1))
            port.txsync()
        put(port, own[port.tx[0].head], frame(2))
        port.txsync()
        assert far.receive() == frame(2)
        far.send(frame(3))
        while frame(3) not in take(port, 1):  # what came in a buffer that was scribbled over then may come first
            pass
    wires.wait_for_log(f"{OWN} bad slots")


def test_a_lent_buffer_in_a_slot_that_receives_is_not_lent_twice(near: Wire, far: Host) -> None:
    """DESIGN.md section 3: the frame is lost, and what comes afterwards is not."""
    del near
    with Port("v0") as port:
        rx = port.rx[0]
        theirs = lent(port)
        own = [rx.slot(k)[0] for k in range(rx.num_slots)]
        for k in range(rx.num_slots):
            rx.set_slot(k, theirs[k % len(theirs)], 0, NS_BUF_CHANGED)
        far.send(*(frame(number) for number in range(100)))
        wait_until(lambda: holds(port, 100))
        for k in range(rx.num_slots):
            rx.set_slot(k, own[k], 0, NS_BUF_CHANGED)
        rx.cur = rx.head = rx.tail
        port.rxsync()
        far.send(*(frame(number) for number in range(2000, 2900)))
        assert [number_of(one) for one in take(port, 900)] == list(range(2000, 2900))
    assert settled(free_buffers, POOL) == POOL


def test_one_buffer_in_all_slots_is_received_into_once(near: Wire, far: Host) -> None:
    """DESIGN.md section 3: what a hostile program names twice is swapped once, and lost once."""
    del near
    with Port("v0") as port:
        rx = port.rx[0]
        buffer = rx.slot(5)[0]
        for k in range(rx.num_slots):
            rx.set_slot(k, buffer, 0, NS_BUF_CHANGED)
        far.send(*(frame(number) for number in range(500)))
        wait_until(lambda: holds(port, 500))
        named_now = [rx.slot(k)[0] for k in range(500)]
        assert len({one for one in named_now if one != buffer}) == 500 - named_now.count(buffer)
    assert settled(free_buffers, POOL) == POOL


def test_frames_longer_than_a_buffer_are_dropped_and_counted(near: Wire, far: Host, wires: Daemon) -> None:
    """Issue C, bad input: a frame longer than the buffer counted and reported."""
    with Port("v0") as port:
        before = crossed(wires, "v0", 0)["received long"]
        for peer, interface in ((near.near, "v0"), (near.far, "v1")):
            peer.run(f"ip link set {interface} mtu 3000")
        try:
            far.send(*(frame(number, 2500) for number in range(7)), frame(9))
            assert take(port, 1) == [frame(9)]
        finally:
            for peer, interface in ((near.near, "v0"), (near.far, "v1")):
                peer.run(f"ip link set {interface} mtu 1500")
    wires.wait_for_log("dropped 7 long")
    assert crossed(wires, "v0", 0)["received long"] == before + 7


# ---- killed


@pytest.mark.parametrize("milliseconds", [0, 20])
@pytest.mark.parametrize("way", ["send", "receive"])
def test_after_sigkill_in_a_burst_every_buffer_is_back(
    near: Wire, far: Host, client_program: Callable[..., Path], way: str, milliseconds: int
) -> None:
    """ABI.md 15: exit and kill release all; issue C: conservation."""
    del near
    with Stream(client_program("stream"), way, "v0") as stream:
        for number in range(100):
            far.send(frame(number))
        time.sleep(milliseconds / 1000)
        stream.kill()
    assert settled(free_buffers, POOL) == POOL


def test_a_program_that_scribbles_over_its_rings_costs_no_buffer(
    near: Wire, far: Host, client_program: Callable[..., Path]
) -> None:
    """DESIGN.md section 3: the daemon never leaks because of a client."""
    del near
    for seed in range(3):
        with Program(client_program("scribbler"), "v0", seed, 300) as program:
            for number in range(3000):
                far.send(frame(number))
            program.wait()
    assert settled(free_buffers, POOL) == POOL
    with Port("v0") as port:
        far.send(frame(1))
        assert take(port, 1) == [frame(1)]


# ---- host rings


def test_host_rings_and_generic_mode_are_raw_and_the_log_says_so(near: Wire, wires: Daemon, far: Host) -> None:
    """DESIGN.md section 4: generic-mode XDP steals re-injected frames: with host rings raw, also while programs run."""
    with Port("v0") as port:
        far.send(frame(1))
        assert take(port, 1) == [frame(1)]
        generic = "xdp in generic mode" in wires.log
        with Port("v0", Register(mode=Mode.SW)):
            said = "netmap:v0 is raw from now on" in wires.log
            assert said == generic
            far.send(frame(2))
            assert take(port, 1) == [frame(2)]
            port.send(frame(3))
            assert far.receive() == frame(3)
            assert len(named(port)) == 2 * RING
    del near
    assert settled(free_buffers, POOL) == POOL
