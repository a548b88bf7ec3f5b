# SPDX-License-Identifier: BSD-2-Clause
"""compat/examples/bridge.c: between two hosts, and as a mirror of one."""

import hashlib
import random
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.inside import EAL, Between, devices
from tests.support.patience import at_most
from tests.support.program import Program
from tests.support.veth import SOON, received

BYTES = 16 << 20
ETH_P_TEST = 0x88B5


@pytest.fixture
def between() -> Iterator[Between]:
    with Between() as hosts:
        yield hosts


def started(between: Between, bridge: Path, *names: str) -> Program:
    """The bridge on these interfaces of the middle, once it carries frames."""
    wires = devices(*(f"net_af_packet{number},iface={name}" for number, name in enumerate(names)))
    ports = [word for number in range(len(names)) for word in ("-i", str(number))]
    program = between.start(bridge, *EAL, *wires, "--", *ports)
    program.wait_for("bridge: ")
    return program


def counters(program: Program) -> dict[str, int]:
    """Interrupts it: the packets that each port says it has received."""
    program.process.send_signal(signal.SIGINT)
    assert program.wait() == 0
    program.hear(1.0)
    lines = re.findall(r"^(\w+): (\d+) packets, (\d+) bytes received and passed on$", "\n".join(program.lines), re.M)
    return {name: int(packets) for name, packets, _ in lines}


def frames(count: int) -> list[bytes]:
    """Of all lengths, to and from all sorts of addresses, none of which is anybody's."""
    draw = random.Random(7)  # noqa: S311 - the same each time
    made = []
    for number in range(count):
        length = draw.choice([60, 61, 500, 511, 512, 513, 1000, 1513, 1514])
        addresses = bytes([0x02, *draw.randbytes(5), 0x06, *draw.randbytes(5)])
        made.append((addresses + ETH_P_TEST.to_bytes(2) + number.to_bytes(4) + draw.randbytes(length))[:length])
    return made


def exchange(here: socket.socket, there: socket.socket, sent: list[bytes]) -> list[bytes]:
    """What one host hears of what another sends, a few at a time: a veth has short queues."""
    heard: list[bytes] = []
    for start in range(0, len(sent), 20):
        batch = sent[start : start + 20]
        for frame in batch:
            here.send(frame)
        heard += received(there, SOON, wanted=len(batch))
    return heard


def test_two_hosts_ping_and_speak_tcp_through_the_bridge(between: Between, bridge: Path) -> None:
    """Issue: "the bridge between two veth pairs carries ping and a checksummed TCP transfer"."""
    data = random.Random(1).randbytes(BYTES)  # noqa: S311 - the same each time
    with started(between, bridge, "b0", "b1") as program:
        assert between.left.pings()
        assert between.right.pings()
        with between.right.open(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.bind((between.right.address, 4711))
            listener.listen(1)
            digest = []

            def serve() -> None:
                peer, _ = listener.accept()
                with peer:
                    peer.settimeout(SOON)
                    whole = hashlib.sha256()
                    while part := peer.recv(1 << 16):
                        whole.update(part)
                    digest.append(whole.digest())

            server = threading.Thread(target=serve)
            server.start()
            with between.left.open(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(at_most(40))
                client.connect((between.right.address, 4711))
                client.sendall(data)
            server.join(at_most(40))
        assert digest == [hashlib.sha256(data).digest()]
        counts = counters(program)
        assert counts["0"] > BYTES // 1448
        assert counts["1"] > 2


def test_frames_cross_the_bridge_unharmed_both_ways(between: Between, bridge: Path) -> None:
    """Issue: "two are bridged both ways, MAC addresses untouched"."""
    with (
        started(between, bridge, "b0", "b1") as program,
        between.left.capture() as left,
        between.right.capture() as right,
    ):
        sent = frames(400)
        assert exchange(left, right, sent) == sent
        assert exchange(right, left, sent) == sent
        assert counters(program) == {"0": 400, "1": 400}


def test_one_interface_returns_all_that_it_receives(between: Between, bridge: Path) -> None:
    """Issue: "one interface returns all it receives"."""
    with started(between, bridge, "b0") as program, between.left.capture() as left:
        sent = frames(200)
        assert exchange(left, left, sent) == sent
        assert counters(program) == {"0": 200}


def test_scapy_hears_its_own_packets_back(between: Between, bridge: Path) -> None:
    """Issue: "scapy on the far side compares contents"."""
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import Dot1Q, Ether
    from scapy.packet import Raw

    packets = [
        Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(dst="10.0.0.1") / UDP(dport=9) / Raw(b"x" * 200),
        Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff")
        / Dot1Q(vlan=7)
        / IP(dst="10.0.0.2")
        / Raw(b"tagged" * 20),
    ]
    with started(between, bridge, "b0", "b1"), between.left.capture() as left, between.right.capture() as right:
        sent = [bytes(packet) for packet in packets]
        heard = [Ether(frame) for frame in exchange(left, right, sent)]
    assert heard[0] == Ether(sent[0])
    # A packet socket hears a tag beside the frame and not in it, whoever sent it.
    untagged = sent[1][:12] + sent[1][16:]
    assert bytes(heard[1]) in (sent[1], untagged)


def test_the_bridge_names_ports_as_dpdk_does_and_ends_at_once(bridge: Path) -> None:
    """Issue: "SIGINT ends it cleanly", and quickly; a port may be named."""
    with Program(bridge, *EAL, *devices("net_ring0"), "--", "-i", "net_ring0") as program:
        program.wait_for("bridge: net_ring0 returns what it receives")
        start = time.monotonic()
        assert counters(program) == {"net_ring0": 0}
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-i", "7"], "bridge: port 7: No such device"),
        (["-i", "eth99"], "bridge: DPDK has no port eth99"),
        (["-i", "0", "-i", "1", "-i", "0"], "usage: bridge [EAL options] -- -i PORT [-i PORT]"),
        ([], "usage: bridge [EAL options] -- -i PORT [-i PORT]"),
        (["-i", "0", "more"], "usage: bridge [EAL options] -- -i PORT [-i PORT]"),
        (["-i", "0", "-i", "0"], "bridge: port 0: Device or resource busy"),
    ],
)
def test_the_bridge_refuses_with_a_sentence(bridge: Path, arguments: list[str], said: str) -> None:
    """Issue, bad input: "unknown port number"."""
    command = [str(bridge), *EAL, *devices("net_ring0", "net_null0"), "--", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=at_most(30), check=False)
    assert done.returncode == 1
    assert said in done.stderr.splitlines()


def test_bad_devargs_are_refused_by_the_eal_and_the_bridge_says_so(bridge: Path) -> None:
    """Issue, bad input: "bad devargs"."""
    command = [str(bridge), *EAL, *devices("net_af_packet0,iface=nosuch0"), "--", "-i", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=at_most(30), check=False)
    assert done.returncode == 1
    assert "bridge: " in done.stderr
