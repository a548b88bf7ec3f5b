# SPDX-License-Identifier: BSD-2-Clause
"""poll, select and epoll on a TAP port, as in ABI.md section 11: what is ready, who sleeps and what wakes them."""

import select
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, Register
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ours
from tests.support.patience import at_most

pytestmark = pytest.mark.door

LATER = 0.2  # seconds: long enough that nobody wakes by chance
SOON = at_most(3.0)  # generous for a loaded machine


@pytest.fixture
def port(daemon: Daemon) -> Iterator[Port]:
    del daemon
    with Port("tap0") as opened:
        yield opened


@pytest.fixture
def host(port: Port) -> Iterator[Host]:
    del port  # open first: what comes before an open is dropped
    with Host("tap0") as opened:
        yield opened


def drain(port: Port) -> list[bytes]:
    """All that has arrived, its slots given back."""
    return ours(port.take())


def later(call: Callable[[], object]) -> threading.Timer:
    timer = threading.Timer(LATER, call)
    timer.start()
    return timer


def test_poll_for_room_on_an_idle_port_returns_at_once(port: Port) -> None:
    assert port.poll(select.POLLOUT, SOON) == select.POLLOUT


def test_poll_for_frames_on_an_idle_port_sleeps_until_its_timeout(port: Port, host: Host) -> None:
    del host
    before = time.monotonic()
    assert port.poll(select.POLLIN, LATER) == 0
    assert time.monotonic() - before >= LATER * 0.9


def test_poll_without_time_looks_and_returns(port: Port, host: Host) -> None:
    assert port.poll(select.POLLIN, 0) == 0
    host.send(frame(1))
    assert port.poll(select.POLLIN, 0) == select.POLLIN


def test_a_sleeper_wakes_when_a_frame_arrives(port: Port, host: Host) -> None:
    timer = later(lambda: host.send(frame(1)))
    assert port.poll(select.POLLIN, SOON) == select.POLLIN
    timer.join()
    assert drain(port) == [frame(1)]


def test_a_sleeper_wakes_for_each_of_many_frames(port: Port, host: Host) -> None:
    """A wake-up that is missed once would end this with a time-out."""
    for number in range(500):
        sender = threading.Thread(target=host.send, args=(frame(number),))
        sender.start()
        received: list[bytes] = []
        while not received:
            assert port.poll(select.POLLIN, SOON) == select.POLLIN
            received = drain(port)
        sender.join()
        assert received == [frame(number)]


def test_a_frame_wakes_at_once_though_others_wait_longer(port: Port, host: Host) -> None:
    """No interval of ours lies between arrival and wake-up: the best of a few is far below any timer's."""
    delays = []
    for number in range(20):
        sent: list[float] = []

        def send(number: int = number, sent: list[float] = sent) -> None:
            time.sleep(0.01)
            sent.append(time.monotonic())
            host.send(frame(number))

        thread = threading.Thread(target=send)
        thread.start()
        assert port.poll(select.POLLIN, SOON)
        delays.append(time.monotonic() - sent[0])
        thread.join()
        drain(port)
    assert min(delays) < at_most(0.01)


def test_frames_not_taken_are_still_ready(port: Port, host: Host) -> None:
    host.send(frame(1))
    assert port.poll(select.POLLIN, SOON) == select.POLLIN
    assert port.poll(select.POLLIN, SOON) == select.POLLIN
    drain(port)
    assert port.poll(select.POLLIN, 0) == 0


def test_cur_at_tail_asks_to_sleep_until_something_new_arrives(port: Port, host: Host) -> None:
    """Head may stay behind: the frames are kept, and only what is new wakes (ABI.md 11)."""
    host.send(frame(1))
    assert port.poll(select.POLLIN, SOON)
    ring = port.rx[0]
    ring.cur = ring.tail
    assert port.poll(select.POLLIN, LATER) == 0
    timer = later(lambda: host.send(frame(2)))
    assert port.poll(select.POLLIN, SOON) == select.POLLIN
    timer.join()
    assert drain(port) == [frame(1), frame(2)]


def test_two_directions_are_answered_each_for_itself(port: Port, host: Host) -> None:
    assert port.poll(select.POLLIN | select.POLLOUT, SOON) == select.POLLOUT
    host.send(frame(1))
    both = select.POLLIN | select.POLLOUT
    assert port.poll(both, SOON) == both


def test_poll_for_frames_sends_what_waits_in_tx_rings(port: Port, host: Host) -> None:
    port.put(frame(1))
    assert host.waiting() == []
    port.poll(select.POLLIN, 0)
    assert host.receive() == frame(1)


def test_poll_for_nothing_sends_what_waits_in_tx_rings(port: Port, host: Host) -> None:
    port.put(frame(1))
    port.poll(0, 0)
    assert host.receive() == frame(1)


def test_poll_for_room_sends_what_waits_in_tx_rings(port: Port, host: Host) -> None:
    port.put(frame(1))
    assert port.poll(select.POLLOUT, SOON) == select.POLLOUT
    assert host.receive() == frame(1)


def test_with_no_tx_poll_only_a_poll_for_room_sends(port: Port, host: Host) -> None:
    del port
    with Port("tap0", Register(mode=Mode.ALL_NIC, flags=Flag.NO_TX_POLL)) as quiet:
        quiet.put(frame(1))
        quiet.poll(select.POLLIN, 0)
        quiet.poll(0, 0)
        quiet.rxsync()
        assert host.waiting() == []
        assert quiet.poll(select.POLLOUT, SOON) == select.POLLOUT
        assert host.receive() == frame(1)


def test_an_rx_only_descriptor_never_has_room_and_no_error(daemon: Daemon) -> None:
    del daemon
    with Port("tap0", Register(mode=Mode.ALL_NIC, flags=Flag.RX_RINGS_ONLY)) as port:
        assert port.poll(select.POLLOUT, 0.05) == 0


def test_an_rx_ring_that_is_not_asked_about_is_left_alone(port: Port, host: Host) -> None:
    host.send(frame(1))
    assert port.poll(select.POLLOUT, SOON) == select.POLLOUT
    assert port.rx[0].space == 0
    assert port.poll(select.POLLIN, SOON) == select.POLLIN
    assert port.rx[0].space == 1


def test_a_full_rx_ring_does_not_spin_and_wakes_again_once_slots_return(port: Port, host: Host) -> None:
    ring = port.rx[0]
    host.send(*map(frame, range(900)))
    assert port.poll(select.POLLIN, SOON) == select.POLLIN
    host.send(*map(frame, range(900, 1800)))
    assert port.poll(select.POLLIN, SOON) == select.POLLIN
    assert ring.space == 1023
    ring.cur = ring.tail
    assert port.poll(select.POLLIN, LATER) == 0, "nothing can be added to a full ring"
    received = drain(port)
    while len(received) < 1800:
        assert port.poll(select.POLLIN, SOON) == select.POLLIN
        received += drain(port)
    assert received == [frame(number) for number in range(1800)]


def test_select_sees_the_same(port: Port, host: Host) -> None:
    assert select.select([port], [port], [], 0) == ([], [port], [])
    host.send(frame(1))
    assert select.select([port], [port], [port], SOON) == ([port], [port], [])


def test_epoll_reports_frames_as_long_as_they_wait(port: Port, host: Host) -> None:
    with select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN)
        assert epoll.poll(LATER) == []
        timer = later(lambda: host.send(frame(1)))
        assert epoll.poll(SOON) == [(port.fd, select.EPOLLIN)]
        timer.join()
        assert epoll.poll(SOON) == [(port.fd, select.EPOLLIN)]
        drain(port)
        assert epoll.poll(0) == []


def test_edge_triggered_epoll_reports_each_arrival_once(port: Port, host: Host) -> None:
    with select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN | select.EPOLLET)
        assert epoll.poll(0.02) == []
        for number in range(20):
            timer = threading.Timer(0.005, host.send, args=(frame(number),))
            timer.start()
            assert epoll.poll(SOON) == [(port.fd, select.EPOLLIN)]
            timer.join()
            assert drain(port) == [frame(number)]


def test_edge_triggered_epoll_reports_each_arrival_to_a_program_that_does_not_sync(port: Port, host: Host) -> None:
    """ABI.md 11: its only syncs are the polls with which the kernel answers a wake."""
    with select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN | select.EPOLLET)
        assert epoll.poll(0.02) == []
        for number in range(50):
            host.send(frame(number))  # at once, when nobody has looked since the last
            assert epoll.poll(SOON) == [(port.fd, select.EPOLLIN)]
            assert list(port.take()) == [frame(number)]


def test_one_sleeper_waits_on_two_ports(port: Port, host: Host) -> None:
    with Port("tap1") as other, Host("tap1") as far:
        poller = select.poll()
        poller.register(port, select.POLLIN)
        poller.register(other, select.POLLIN)
        assert poller.poll(50) == []
        timer = later(lambda: far.send(frame(1)))
        assert poller.poll(SOON * 1000) == [(other.fd, select.POLLIN)]
        timer.join()
        timer = later(lambda: host.send(frame(2)))
        drain(other)
        assert poller.poll(SOON * 1000) == [(port.fd, select.POLLIN)]
        timer.join()


def test_two_sleepers_on_one_port_are_both_woken(port: Port, host: Host) -> None:
    """Two descriptors share the ring; either may take the frame, neither may sleep on."""
    with Port("tap0") as second:
        woken: list[int] = []

        def sleep() -> None:
            woken.append(second.poll(select.POLLIN, SOON))

        thread = threading.Thread(target=sleep)
        thread.start()
        timer = later(lambda: host.send(frame(1)))
        assert port.poll(select.POLLIN, SOON) == select.POLLIN
        thread.join()
        timer.join()
        assert woken == [select.POLLIN]


def test_timestamps_are_of_the_latest_sync(port: Port, host: Host) -> None:
    before = time.time()
    host.send(frame(1))
    assert port.poll(select.POLLIN, SOON)
    assert before - 0.001 <= port.rx[0].timestamp <= time.time()
    assert port.tx[0].timestamp == 0
