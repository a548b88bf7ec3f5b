# SPDX-License-Identifier: BSD-2-Clause
"""A wire slower than its sender: a full TX ring stays full, sleepers wake when it drains, and nothing is lost.

The slowness is real: what a program sends on the TAP is redirected to a link that a token bucket holds back, and the
frames in the bucket's queue count against the TAP's send buffer, which is small.
"""

import select
import threading
import time
from collections.abc import Iterator

import pytest

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip, link, tc
from tests.support.patience import at_most

CONFIG = """
[ports.slow]
backend = "tap"
slots = 64
sndbuf = 32768
"""
SIZE = 1000
RATE = 500_000  # bytes a second: 500 frames
FRAMES = 250


def let_through(verb: str, rate: int) -> None:
    """So many bytes a second; whatever waits in the queue stays there."""
    bucket = ("tbf", "rate", f"{rate}bps", "burst", "2kb", "limit", "10mb")
    tc("qdisc", verb, "dev", "bucket", "root", *bucket)


@pytest.fixture(scope="module")
def wire(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("pressure")
    (folder / "config.toml").write_text(CONFIG)
    with Daemon(folder / "log", f"--config={folder / 'config.toml'}", *way):
        ip("link", "add", "bucket", "type", "veth", "peer", "name", "far")
        ip("link", "set", "bucket", "up")
        ip("link", "set", "far", "up")
        let_through("add", RATE)
        tc("qdisc", "add", "dev", "slow", "ingress")
        everything = ("u32", "match", "u32", "0", "0")
        redirect = ("action", "mirred", "egress", "redirect", "dev", "bucket")
        tc("filter", "add", "dev", "slow", "parent", "ffff:", *everything, *redirect)
        yield
        ip("link", "del", "bucket")


@pytest.fixture
def far(wire: None) -> Iterator[Host]:
    del wire
    with Host("far") as opened:
        yield opened
        assert link("bucket")["stats64"]["tx"]["dropped"] == 0


@pytest.fixture
def port(far: Host) -> Iterator[Port]:
    del far
    with Port("slow") as opened:
        yield opened


def fill(port: Port, number: int = 0) -> int:
    """Sends until the ring stays full; the next frame's number."""
    for _ in range(20):
        while port.put(frame(number, SIZE)):
            number += 1
        port.txsync()
        if not port.tx[0].space:
            return number
    raise AssertionError("the ring never stayed full")


def finish(port: Port) -> None:
    """Syncs until the last frame has left."""
    ring = port.tx[0]
    while ring.space < ring.num_slots - 1:
        port.txsync()
        time.sleep(0.001)


def test_a_full_ring_stays_full_while_the_device_takes_nothing(port: Port, far: Host) -> None:
    let_through("change", SIZE)  # a frame a second
    count = fill(port)
    assert 63 < count < 63 + 64, "the device took some, and not all"
    assert port.poll(select.POLLOUT, 0) == 0
    assert not port.put(frame(count, SIZE))
    let_through("change", RATE)
    finish(port)
    assert far.take(count) == [frame(number, SIZE) for number in range(count)]


def test_a_sleeper_wakes_as_soon_as_the_device_takes_more(port: Port, far: Host) -> None:
    let_through("change", SIZE)
    count = fill(port)
    timer = threading.Timer(0.2, let_through, args=("change", RATE))
    before = time.monotonic()
    timer.start()
    assert port.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
    assert time.monotonic() - before > 0.1, "there was something to wait for"
    timer.join()
    assert port.tx[0].space > 0
    finish(port)
    assert far.take(count) == [frame(number, SIZE) for number in range(count)]


def test_nothing_is_lost_or_out_of_order_however_slow_the_wire(port: Port, far: Host) -> None:
    before = time.monotonic()
    for number in range(FRAMES):
        while not port.put(frame(number, SIZE)):
            assert port.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
    finish(port)
    assert far.take(FRAMES) == [frame(number, SIZE) for number in range(FRAMES)]
    assert time.monotonic() - before > FRAMES * SIZE / RATE / 2, "the wire was slow"


def test_epoll_with_edges_wakes_for_room_that_was_not_wanted_when_it_last_looked(port: Port, far: Host) -> None:
    """It looked while there was room; then the ring was filled by NIOCTXSYNC."""
    with select.epoll() as epoll:
        epoll.register(port, select.EPOLLOUT | select.EPOLLET)
        assert epoll.poll(at_most(1)) == [(port.fd, select.EPOLLOUT)]
        count = fill(port)
        assert epoll.poll(at_most(5)) == [(port.fd, select.EPOLLOUT)]
    finish(port)
    assert far.take(count) == [frame(number, SIZE) for number in range(count)]


def test_frames_arrive_though_the_other_direction_is_stuck(port: Port, far: Host) -> None:
    count = fill(port)
    with Host("slow") as host:
        host.send(frame(7))
        assert port.poll(select.POLLIN | select.POLLOUT, at_most(5)) & select.POLLIN
        assert port.receive() == frame(7)
    finish(port)
    assert far.take(count) == [frame(number, SIZE) for number in range(count)]
