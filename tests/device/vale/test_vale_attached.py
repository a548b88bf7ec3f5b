# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces and persistent ports on switches: what crosses them, attach and detach under traffic (ABI.md 12.5)."""

import errno
import select
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from tests.support.host import Host, ip, link, number_of
from tests.support.host import frame as numbered
from tests.support.ioctls import free_buffers, settled
from tests.support.patience import at_most
from tests.support.stream import Stream
from tests.support.switches import (
    BROADCAST,
    TWO_CPUS,
    all_ports,
    arrived,
    attach,
    attached,
    detach,
    frame,
    mac,
    opened,
    persistent,
    place_of,
    poll_off,
    poll_on,
    refusal,
    send,
)

pytestmark = pytest.mark.usefixtures("wires", "switches_go")

A, B = mac(1), mac(2)


def received(port: Port, count: int) -> list[bytes]:
    """The next frames of ours that arrive."""
    frames: list[bytes] = []
    while len(frames) < count:
        one = port.receive()
        if number_of(one) >= 0:
            frames.append(one)
    return frames


# ---- a TAP on a switch


def test_a_tap_on_a_switch_carries_frames_both_ways() -> None:
    """ABI.md 12.5: NIC on a switch: what it receives is forwarded, what is forwarded to it is sent."""
    with attached("vale0:tap0"), opened("vale0:a") as a, Host("tap0") as host:
        frames = [numbered(i) for i in range(100)]
        send(a, *frames)
        assert host.take(100) == frames
        host.send(*frames)
        assert received(a, 100) == frames


def test_two_taps_on_a_switch_are_bridged() -> None:
    """ABI.md 12.5: no program in between."""
    with (
        attached("vale0:tap0"),
        mtu("jumbo", 1500),
        attached("vale0:jumbo"),
        Host("tap0") as one,
        Host("jumbo") as other,
    ):
        one.send(*[numbered(i) for i in range(100)])
        assert other.take(100) == [numbered(i) for i in range(100)]
        other.send(*[numbered(i, 1500) for i in range(100)])
        assert one.take(100) == [numbered(i, 1500) for i in range(100)]


def test_addresses_behind_a_tap_are_learned() -> None:
    """ABI.md 12.5: learning, at the interface's place."""
    with attached("vale0:tap0"), opened("vale0:a") as a, opened("vale0:b") as b, Host("tap0") as host:
        host.send(frame(BROADCAST, B, 1))
        assert received(b, 1) == [frame(BROADCAST, B, 1)]
        send(a, frame(B, A, 2))
        assert host.receive() == frame(B, A, 2)
        assert frame(B, A, 2) not in arrived(b)


@contextmanager
def mtu(interface: str, size: int) -> Iterator[None]:
    before = link(interface)["mtu"]
    ip("link", "set", interface, "mtu", str(size))
    yield
    ip("link", "set", interface, "mtu", str(before))


@pytest.mark.parametrize("size", [60, 2048, 2049, 2062])
def test_a_frame_of_two_slots_crosses_a_tap(size: int) -> None:
    """ABI.md 12.1 and 12.5: split with NS_MOREFRAG, whole at either side; no program has opened it with this MTU."""
    with mtu("tap0", 2048), attached("vale0:tap0"), opened("vale0:a") as a, Host("tap0") as host:
        host.send(numbered(1, size))
        assert received(a, 1) == [numbered(1, size)]
        send(a, numbered(2, size))
        assert host.receive() == numbered(2, size)


def test_an_interface_whose_mtu_does_not_fit_the_buffers_cannot_be_attached() -> None:
    """ABI.md 7: the MTU check of the first open, which an attachment is."""
    assert attach("vale0:jumbo")[0] == errno.EINVAL
    assert place_of("vale0")[0] == errno.ENOENT


def test_an_interface_with_more_slots_than_room_loses_frames_and_goes_on() -> None:
    """ABI.md 12.5: no room: dropped silently (tap1 has 16 slots)."""
    with attached("vale0:tap1"), opened("vale0:a") as a, Host("tap1") as host:
        for turn in range(20):
            send(a, *[numbered(turn * 100 + i) for i in range(100)])
        send(a, numbered(99999))
        host.socket.settimeout(at_most(5))
        numbers = [number_of(host.receive())]
        while numbers[-1] != 99999:
            numbers.append(number_of(host.receive()))
            if numbers[-1] == 1999:
                send(a, numbered(99999))
        assert numbers == sorted(set(numbers))


def test_an_attached_interface_is_busy_for_programs() -> None:
    """ABI.md 12.5: NIC then is EBUSY for all opens, by either name, and free again when it is detached."""
    with attached("vale0:tap0"):
        assert refusal("tap0") == refusal("vale0:tap0") == errno.EBUSY
        assert attach("vale0:tap0")[0] == attach("vale1:tap0")[0] == errno.EBUSY
    assert refusal("tap0") == 0


def test_an_interface_that_a_program_has_cannot_be_attached() -> None:
    """ABI.md 4.2: in use by a netmap fd."""
    with Port("tap0"):
        assert attach("vale0:tap0")[0] == errno.EBUSY
        assert place_of("vale0")[0] == errno.ENOENT
    with attached("vale0:tap0"):
        pass


def test_an_attached_interface_gives_everything_back() -> None:
    """ABI.md 15: rings and buffers."""
    whole = settled(free_buffers, 163838)
    with attached("vale0:tap0"), attached("vale0:quad"):
        assert free_buffers() < whole
    assert settled(free_buffers, whole) == whole


def test_detach_stops_the_traffic_and_attach_starts_it_anew() -> None:
    """ABI.md 12.5: with its addresses forgotten."""
    with opened("vale0:a") as a, Host("tap0") as host:
        for turn in range(3):
            with attached("vale0:tap0"):
                send(a, numbered(turn))
                assert host.receive() == numbered(turn)
            send(a, numbered(100 + turn))
        assert host.waiting() == []


def test_host_rings_are_a_port_of_their_own() -> None:
    """ABI.md 12.5: -h: plus host stack as second port; detached together."""
    with attached("vale0:tap0", mode=3) as place:
        assert all_ports() == ["vale0:tap0", "vale0:tap0^"]
        assert place_of("vale0:tap0") == (0, 0, place)
    assert place_of("vale0")[0] == errno.ENOENT


@TWO_CPUS
def test_a_polled_interface_carries_frames_too() -> None:
    """ABI.md 12.5: -p; and after polling is off."""
    with attached("vale0:tap0"), opened("vale0:a") as a, Host("tap0") as host:
        assert poll_on("vale0:tap0") == 0
        for _ in range(2):
            host.send(*[numbered(i) for i in range(50)])
            assert received(a, 50) == [numbered(i) for i in range(50)]
            send(a, numbered(7))
            assert host.receive() == numbered(7)
            poll_off("vale0:tap0")


# ---- switches in a row


def test_a_port_on_two_switches_joins_them() -> None:
    """ABI.md 12.5: attaching to a second bridge works (through a wrapper)."""
    with (
        persistent("link"),
        attached("vale0:link"),
        attached("vale1:link"),
        opened("vale0:a") as a,
        opened("vale1:b") as b,
    ):
        send(a, frame(BROADCAST, A, 1))
        assert b.receive() == frame(BROADCAST, A, 1)
        send(b, frame(A, B, 2))
        assert a.receive() == frame(A, B, 2)


def test_a_loop_of_switches_does_not_stop_the_daemon() -> None:
    """Issue B: two ports join two switches: what is flooded goes round for ever, and everything else goes on."""
    with ExitStack() as stack:
        for name in ("one", "two"):
            stack.enter_context(persistent(name))
        a, b = stack.enter_context(opened("vale0:a")), stack.enter_context(opened("vale1:b"))
        for name in ("one", "two"):
            stack.enter_context(attached(f"vale0:{name}"))
            stack.enter_context(attached(f"vale1:{name}"))
        for i in range(5):
            send(a, frame(BROADCAST, A, i))
        assert b.poll(select.POLLIN, at_most(5)) == select.POLLIN
        for _ in range(50):
            arrived(a), arrived(b)
        with opened("vale2:c") as c, opened("vale2:d") as d:
            send(c, frame(BROADCAST, A))
            assert arrived(d) == [frame(BROADCAST, A)]
        assert detach("vale1:two") == 0
        assert attach("vale1:two")[0] == 0


# ---- under traffic


def test_attach_and_detach_while_frames_flow_harm_no_stream(stream: Path) -> None:
    """Issue B: attach/detach while traffic runs: whoever stays gets frames in order, unharmed."""
    whole = settled(free_buffers, 163838)
    with persistent("pers"):
        with Stream(stream, "receive", "vale0:b") as receiver, Stream(stream, "send", "vale0:a", "-p") as sender:
            for _ in range(30):
                with attached("vale0:pers"), attached("vale0:tap0"):
                    pass
                with attached("vale0:quad"), attached("vale1:pers"):
                    pass
            sent, got = sender.end(), receiver.end()
        assert sent.frames > 1000
        assert (got.bad, got.repeats, got.frames > 0) == (0, 0, True)
    assert settled(free_buffers, whole) == whole


def test_joining_and_leaving_while_frames_flow_harms_no_stream(stream: Path) -> None:
    """Issue B: ports come and go, with frames on their way to them."""
    whole = settled(free_buffers, 163838)
    with Stream(stream, "receive", "vale0:b") as receiver, Stream(stream, "send", "vale0:a", "-p") as sender:
        for turn in range(40):
            with opened(f"vale0:c{turn % 3}", rx_rings=2) as port:
                port.rxsync()
                assert all(one[12:14] == b"\x88\xb5" for one in port.take())
        sent, got = sender.end(), receiver.end()
    assert (got.bad, got.repeats, sent.frames > 1000) == (0, 0, True)
    assert settled(free_buffers, whole) == whole


def test_programs_killed_in_the_middle_of_bursts_harm_no_frame_of_others(stream: Path) -> None:
    """Issue B: SIGKILL in the middle of a VALE burst: senders and receivers, with buffers half swapped."""
    whole = settled(free_buffers, 163838)
    with Stream(stream, "receive", "vale0:b", "-p") as receiver, Stream(stream, "send", "vale0:a", "-p") as sender:
        for turn in range(6):
            with (
                Stream(stream, "receive", "vale0:r", "-x") as dying_receiver,
                Stream(stream, "send", "vale0:s", "-x", "-f", 1 << 40) as dying_sender,
            ):
                time.sleep(0.003 * turn)
                dying_sender.process.send_signal(signal.SIGKILL)
                dying_receiver.kill()
        sent, got = sender.end(), receiver.end()
    assert (sent.frames > 1000, got.frames > 1000, got.bad) == (True, True, 0)
    assert settled(free_buffers, whole) == whole
