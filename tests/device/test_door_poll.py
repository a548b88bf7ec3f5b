# SPDX-License-Identifier: BSD-2-Clause
"""Waiting for packets that come from the host's side of a TAP: poll, select and epoll, alone and together."""

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.patience import at_most
from tests.support.program import Program

ETH_P_TEST = 0x88B5  # IEEE 802, local experiments
FRAME = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + ETH_P_TEST.to_bytes(2) + bytes(46)


@pytest.fixture
def host(daemon: Daemon) -> Iterator[socket.socket]:
    """The host's side of tap0, silent but for the test: no IPv6, which would announce itself."""
    del daemon
    Path("/proc/sys/net/ipv6/conf/tap0/disable_ipv6").write_text("1")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_TEST)) as sock:
        sock.bind(("tap0", ETH_P_TEST))
        yield sock


@pytest.fixture
def port(host: socket.socket) -> Iterator[Port]:
    """A port on tap0 with nothing to receive."""
    del host
    with Port("tap0") as port:
        while port.poll(select.POLLIN, 0.05):
            drain(port)
        yield port


def drain(port: Port) -> int:
    """Gives back what was received without a system call; the number of frames."""
    return sum(1 for _ in port.take())


def later(action: Callable[[], object], seconds: float = 0.05) -> threading.Timer:
    timer = threading.Timer(seconds, action)
    timer.start()
    return timer


def test_a_frame_wakes_a_poll_at_once(port: Port, host: socket.socket) -> None:
    """ABI.md section 11: new RX packets wake the sleepers."""
    for _ in range(20):
        sender = later(lambda: host.send(FRAME), 0.02)
        start = time.monotonic()
        assert port.poll(select.POLLIN, at_most(5)) == select.POLLIN
        assert time.monotonic() - start < at_most(0.2)
        sender.join()
        assert drain(port) == 1


def test_a_frame_wakes_a_select(port: Port, host: socket.socket) -> None:
    """ABI.md section 11: select as poll."""
    sender = later(lambda: host.send(FRAME))
    assert select.select([port], [], [], 5) == ([port], [], [])
    sender.join()


def test_level_triggered_epoll_reports_what_is_left(port: Port, host: socket.socket) -> None:
    """ABI.md section 11: level triggered."""
    with select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN)
        assert epoll.poll(0) == []
        host.send(FRAME)
        for _ in range(3):
            assert epoll.poll(at_most(5)) == [(port.fd, select.EPOLLIN)]
        assert drain(port) == 1
        assert epoll.poll(0) == []
        sender = later(lambda: host.send(FRAME))
        assert epoll.poll(at_most(5)) == [(port.fd, select.EPOLLIN)]
        sender.join()


def test_edge_triggered_epoll_reports_each_arrival(port: Port, host: socket.socket) -> None:
    """ABI.md section 11: EPOLLET gets an edge per wakeup."""
    with select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN | select.EPOLLET)
        for number in range(30):
            sender = later(lambda: host.send(FRAME), 0.005)
            assert epoll.poll(at_most(2)) == [(port.fd, select.EPOLLIN)], f"no edge for frame {number}"
            sender.join()
            if number % 3:
                port.rxsync()  # a program may or may not sync before it waits again
            assert drain(port) == 1


def test_edge_triggered_epoll_reports_room_after_a_full_ring(port: Port, host: socket.socket) -> None:
    """ABI.md section 11: TX completions wake the sleepers, of an edge too."""
    del host
    with select.epoll() as epoll:
        epoll.register(port, select.EPOLLOUT | select.EPOLLET)
        assert epoll.poll(at_most(1)) == [(port.fd, select.EPOLLOUT)]
        for _ in range(20):
            while port.put(FRAME):
                pass
            port.txsync()
            if not port.tx[0].space:  # the device could not take it all
                assert epoll.poll(at_most(2)) == [(port.fd, select.EPOLLOUT)]


def test_every_poller_of_a_descriptor_is_woken(port: Port, host: socket.socket) -> None:
    """ABI.md section 11: sleepers wait on a queue; all of them re-run the sync."""
    woken: list[int] = []

    def wait(events: int) -> None:
        woken.append(port.poll(events, at_most(5)))

    waiters = [threading.Thread(target=wait, args=(select.POLLIN,)) for _ in range(20)]
    for waiter in waiters:
        waiter.start()
    time.sleep(0.2)
    assert not woken
    host.send(FRAME)
    for waiter in waiters:
        waiter.join(at_most(5))
    assert woken == [select.POLLIN] * 20


def test_two_descriptors_of_one_ring_are_both_woken(port: Port, host: socket.socket) -> None:
    """ABI.md section 7: files that are not exclusive may share rings."""
    with Port("tap0") as other:
        woken: list[int] = []
        waiters = [
            threading.Thread(target=lambda p=p: woken.append(p.poll(select.POLLIN, at_most(5)))) for p in (port, other)
        ]
        for waiter in waiters:
            waiter.start()
        time.sleep(0.1)
        host.send(FRAME)
        for waiter in waiters:
            waiter.join(at_most(5))
        assert woken == [select.POLLIN] * 2


def test_a_poll_sleeps_while_others_close_and_open(port: Port, host: socket.socket) -> None:
    """ABI.md section 15: what happens to other descriptors is not this one's business."""
    woken: list[int] = []
    waiter = threading.Thread(target=lambda: woken.append(port.poll(select.POLLIN, at_most(10))))
    waiter.start()
    for _ in range(30):
        Port("tap0").close()
        os.close(os.dup(port.fd))
    assert not woken
    host.send(FRAME)
    waiter.join(at_most(5))
    assert woken == [select.POLLIN]


def test_no_wakeup_is_lost_between_many_arrivals_and_many_sleeps(port: Port, host: socket.socket) -> None:
    """ABI.md section 11: a sleeper re-runs the sync; whatever is published before it sleeps wakes it."""
    total = 3000

    def send() -> None:
        for _ in range(total):
            with suppress(BlockingIOError):
                host.send(FRAME)
            if not _ % 7:
                time.sleep(0)

    sender = threading.Thread(target=send)
    sender.start()
    received = 0
    while received < total:
        # The sender sends a lot in a second: a time-out is a wake-up that was lost, or a frame.
        assert port.poll(select.POLLIN, at_most(2)) == select.POLLIN, f"{received} of {total}"
        received += drain(port)
    sender.join()
    assert received == total


def test_clients_that_die_while_they_sleep_leave_others_alone(
    port: Port, host: socket.socket, client_program: Callable[..., Path]
) -> None:
    """ABI.md section 15: exit and kill release all."""
    with ExitStack() as stack:
        sleepers = [stack.enter_context(Program(client_program("hold"), how, "tap0")) for how in ("poll", "epoll") * 3]
        for sleeper in sleepers:
            sleeper.wait_for("ready")
        for sleeper in sleepers:
            host.send(FRAME)
            sleeper.kill(1)
    assert port.poll(select.POLLIN, at_most(5)) == select.POLLIN
