# SPDX-License-Identifier: BSD-2-Clause
"""A sender that a device of the kernel's holds up sleeps until the device has got on, and loses nothing."""

import os
import select
import socket
from collections.abc import Iterator

import pytest

from cuse_netmap import _core
from cuse_netmap.backends.hooks import Links
from cuse_netmap.client import Port
from cuse_netmap.namespace import network_namespace
from tests.support.host import Host, frame, number_of
from tests.support.state import STATE, number
from tests.support.veth import QUIET, SOON, Wire


@pytest.fixture
def slow(near: Wire) -> Iterator[Wire]:
    """The far host sends all that it gets back, so slowly that it stays on the way."""
    with network_namespace(near.far.namespace):
        index = socket.if_nametoindex("v1")
        if not Links.possible(index):
            pytest.skip("tcx needs Linux 6.6")
        program = _core.steer_load("to_rings", index)
        links = Links(index)
        links.put(program, ingress=True)
    os.close(program)
    near.far.run("tc qdisc add dev v1 root tbf rate 8bit burst 1600 limit 100000000")
    yield near
    links.remove(ingress=True)
    near.far.run("tc qdisc del dev v1 root")


def fill(port: Port) -> int:
    """Sends until the device takes no more and the ring is full; how many frames were given to it."""
    given, taken = 0, True
    while taken:
        before = given
        while port.put(frame(given)):
            given += 1
        taken = given > before
        port.txsync()
    return given


def test_a_sender_that_is_held_up_sleeps_until_the_device_has_got_on(slow: Wire) -> None:
    """Issue C: no busy polling: ABI.md 11, a sleeper is woken when it may get further, and not before."""
    with Port("v0") as port:
        given = fill(port)
        wakeups = state_of("tx/0/wakeups")
        assert port.poll(select.POLLOUT, QUIET) == 0
        assert state_of("tx/0/wakeups") == wakeups
        slow.far.run("tc qdisc replace dev v1 root pfifo")
        assert port.poll(select.POLLOUT, SOON) == select.POLLOUT
        assert given > port.tx[0].num_slots


def test_frames_that_find_the_ring_full_are_counted(near: Wire, far: Host) -> None:
    """Issue C: packets lost are reported with who lost them; ABI.md 12.1: rx_dropped."""
    del near
    with Port("v0") as port:
        far.send(*(frame(number) for number in range(5000)))  # several times what has room
        got = drained(port)
        far.send(frame(0))  # by which the kernel says that it has lost some
        got += drained(port)
        assert got < 5001
        assert state_of("rx/0/drops/full") == 5001 - got


def drained(port: Port) -> int:
    """How many frames of ours an RX ring gives until nothing comes any more."""
    count = 0
    while port.poll(select.POLLIN, QUIET):
        count += sum(1 for one in port.take() if number_of(one) >= 0)
    return count


def state_of(name: str) -> int:
    """A number among the state of the only port v0 of a program."""
    (folder,) = (STATE / "ports").glob("v0@*")
    return number(f"{folder.relative_to(STATE)}/{name}")
