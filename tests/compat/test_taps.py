# SPDX-License-Identifier: BSD-2-Clause
"""Ports whose far end is this host's kernel: net_tap, and the TAP devices that stand behind host rings."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.host import Host, frame, ip, link
from tests.support.inside import inside
from tests.support.patience import at_most
from tests.support.program import Program
from tests.support.veth import SOON

COUNT = 400
BATCH = 20
Compile = Callable[..., Path]


@pytest.fixture
def echo(client_inside: Compile) -> Iterator[Program]:
    """A program that sends back what its port 0, a net_tap, receives."""
    with inside("net_tap0,iface=ctap0"), Program(client_inside("echo"), "netmap:0", 600, COUNT) as program:
        program.wait_for("ready")
        ip("link", "set", "ctap0", "up")
        yield program


def test_a_tap_of_dpdk_carries_frames_both_ways(echo: Program) -> None:
    """Issue: "Tests with ... net_tap": and no signal of its driver reaches the program."""
    sent = [frame(number, 600) for number in range(COUNT)]
    with Host("ctap0") as host:
        for start in range(0, COUNT, BATCH):
            host.send(*sent[start : start + BATCH])
            assert host.take(BATCH) == [b"\x02" + one[1:] for one in sent[start : start + BATCH]]
    assert echo.wait() == 0


def test_scapy_on_a_tap_of_dpdk_hears_the_program(echo: Program) -> None:
    """Issue: "scapy on the far side compares contents"."""
    from scapy.config import conf
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.sendrecv import AsyncSniffer, sendp

    conf.ifaces.reload()
    packets = [Ether(dst="06:00:00:00:00:09", type=0x88B5) / Raw(bytes([number]) * 586) for number in range(10)]
    listening = threading.Event()
    echoes = {"iface": "ctap0", "count": 10, "lfilter": lambda heard: bytes(heard)[:1] == b"\x02"}
    sniffer = AsyncSniffer(started_callback=listening.set, **echoes)
    sniffer.start()
    assert listening.wait(SOON)
    sendp(packets, iface="ctap0", verbose=False)
    sniffer.join(SOON)
    assert echo.process.poll() is None
    assert [bytes(heard) for heard in sniffer.results or []] == [b"\x02" + bytes(packet)[1:] for packet in packets]


# ---- host rings


def test_host_rings_are_a_tap_device_with_the_address_of_the_port(client_inside: Compile) -> None:
    """Issue: "host rings": what the host sends there the program receives, and the reverse."""
    with inside("net_null0"), Program(client_inside("echo"), "netmap:0^", 600, COUNT) as program:
        program.wait_for("ready")
        facts = link("dpdk0")
        assert facts["mtu"] == 1500
        assert "UP" in facts["flags"]
        sent = [frame(number, 600) for number in range(COUNT)]
        with Host("dpdk0") as host:
            for start in range(0, COUNT, BATCH):
                host.send(*sent[start : start + BATCH])
                assert host.take(BATCH) == [b"\x02" + one[1:] for one in sent[start : start + BATCH]]
        assert program.wait() == 0
    assert "dpdk0" not in ip("-o", "link")


def test_the_hosts_stack_speaks_through_host_rings(client_inside: Compile) -> None:
    """Issue: host rings lead to the host's stack: what it sends to an address behind the device arrives."""
    with inside("net_null0"), Program(client_inside("echo"), "netmap:0^", 142, 1) as program:
        program.wait_for("ready")
        ip("addr", "add", "10.9.7.1/24", "dev", "dpdk0")
        ip("neigh", "add", "10.9.7.2", "lladdr", "02:00:00:00:00:07", "dev", "dpdk0")
        with Host("dpdk0"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram:
            datagram.sendto(b"x" * 100, ("10.9.7.2", 9))
            assert program.wait() == 0  # it has had its frame of 14 + 20 + 8 + 100 bytes


def test_without_the_right_to_make_devices_host_rings_are_refused(client_inside: Compile) -> None:
    """compat_netmap(3): EPERM, with a line that says what was to be made."""
    command = ["setpriv", "--bounding-set", "-net_admin", str(client_inside("echo")), "netmap:0^", "60", "1"]
    with inside("net_null0"):
        done = subprocess.run(command, capture_output=True, text=True, timeout=at_most(30), check=False)
    assert done.returncode == 1
    assert "nm_open: Operation not permitted" in done.stderr
    said = done.stdout + done.stderr
    assert "netmap: port 0: no TAP device dpdk0 for its host rings: Operation not permitted" in said
