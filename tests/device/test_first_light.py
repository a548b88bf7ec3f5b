# SPDX-License-Identifier: BSD-2-Clause
"""Frames from a program's ring to the host and back; the finer rules have files of their own."""

import socket
from collections.abc import Iterator

import pytest

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.patience import at_most

pytestmark = pytest.mark.door

ETH_P_TEST = 0x88B5  # IEEE 802, local experiments


@pytest.fixture
def host(daemon: Daemon) -> Iterator[socket.socket]:
    """The host's side of tap0."""
    del daemon
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_TEST)) as sock:
        sock.bind(("tap0", ETH_P_TEST))
        sock.settimeout(at_most(5))
        yield sock


def frame(number: int, size: int = 60) -> bytes:
    return (b"\xff" * 6 + b"\x02\0\0\0\0\x01" + ETH_P_TEST.to_bytes(2) + number.to_bytes(4)).ljust(size, b"\xa5")


def test_what_a_program_sends_the_host_receives(host: socket.socket) -> None:
    with Port("tap0") as port:
        for number in range(100):
            port.send(frame(number))
        assert [host.recv(2048) for _ in range(100)] == [frame(number) for number in range(100)]


def test_what_the_host_sends_a_program_receives(host: socket.socket) -> None:
    with Port("tap0") as port:
        for number in range(100):
            host.send(frame(number, 1000))
        wanted = (received for received in iter(port.receive, b"") if received[12:14] == ETH_P_TEST.to_bytes(2))
        assert [next(wanted) for _ in range(100)] == [frame(number, 1000) for number in range(100)]
