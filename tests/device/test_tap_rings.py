# SPDX-License-Identifier: BSD-2-Clause
"""A TAP with four queues: a ring pair for each, a program for each ring, every flow on one of them (ABI.md 12.1)."""

import functools
import json
import select
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, Register
from tests.support.daemon import Daemon
from tests.support.host import Host, frame
from tests.support.patience import at_most

ROOT = Path(__file__).parents[2]
RINGS, FLOWS, EACH = 4, 64, 15  # all flows together fit the queue of the device
CONFIG = f"""
[ports.wide]
backend = "tap"
queues = {RINGS}
"""
SOON = at_most(3.0)

RECEIVER = """
import json, select, sys
from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
ring = int(sys.argv[1])
with Port("wide", Register(mode=Mode.ONE_NIC, ringid=ring)) as port:
    assert list(port.tx) == list(port.rx) == [ring]
    print("ready", flush=True)
    seen = []
    while True:
        over = select.select([sys.stdin], [], [], 0)[0]  # all that was sent before can be received now
        port.poll(select.POLLIN, 0.1)
        frames = list(port.take(ring))
        if over and not frames:
            break
        for frame in frames:
            if frame[12:14] == b"\\x08\\x00":
                seen.append([int.from_bytes(frame[34:36]), int.from_bytes(frame[42:46])])
print(json.dumps(seen))
"""
SENDER = """
import select, sys
from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
sys.path.insert(0, ".")
from tests.support.host import frame
from tests.support.patience import at_most
ring = int(sys.argv[1])
with Port("wide", Register(mode=Mode.ONE_NIC, ringid=ring)) as port:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(2000):
        while not port.put(frame(ring << 16 | number), ring):
            port.poll(select.POLLOUT, at_most(5))
    port.txsync()
"""


@pytest.fixture(scope="module", autouse=True)
def served(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("rings")
    (folder / "config.toml").write_text(CONFIG)
    with Daemon(folder / "log", f"--config={folder / 'config.toml'}", *way):
        yield


@pytest.fixture
def programs() -> Iterator[Callable[[str], list[subprocess.Popen[str]]]]:
    """Starts a program for each ring and waits until all have it."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str) -> list[subprocess.Popen[str]]:
        pipe = subprocess.PIPE
        for ring in range(RINGS):
            command = [sys.executable, "-c", code, str(ring)]
            started.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT))
        for program in started:
            assert program.stdout
            assert program.stdout.readline() == "ready\n"
        return started

    yield start
    for program in started:
        program.kill()
        program.communicate()


@functools.cache
def flow(number: int, count: int = 0) -> bytes:
    """A UDP packet of flow `number`, its source port; bytes 42 to 46 are `count`."""
    header = Ether(src="02:00:00:00:00:02", dst="02:00:00:00:00:01") / IP(src="198.51.100.1", dst="198.51.100.2")
    return bytes(header / UDP(sport=1000 + number, dport=9) / Raw(count.to_bytes(4)))


def on_ring(port: Port, ring: int, *, wait: float = SOON) -> list[int]:
    """The flows of the frames that wait in a ring."""
    port.poll(select.POLLIN, wait)
    return [int.from_bytes(received[34:36]) - 1000 for received in port.take(ring) if received[12:14] == b"\x08\0"]


def test_every_flow_stays_on_one_ring_all_rings_are_used_and_nothing_is_lost(
    programs: Callable[[str], list[subprocess.Popen[str]]],
) -> None:
    receivers = programs(RECEIVER)
    with Host("wide") as host:
        for count in range(EACH):
            host.send(*(flow(number, count) for number in range(FLOWS)))
    rings_of: dict[int, set[int]] = defaultdict(set)
    counts_of: dict[int, list[int]] = defaultdict(list)
    for ring, receiver in enumerate(receivers):
        seen = json.loads(receiver.communicate(timeout=at_most(20))[0])
        assert seen, f"ring {ring} was not used"
        for source, count in seen:
            rings_of[source].add(ring)
            counts_of[source].append(count)
    assert {source: len(rings) for source, rings in rings_of.items()} == {1000 + n: 1 for n in range(FLOWS)}
    assert all(counts == list(range(EACH)) for counts in counts_of.values()), "lost or out of order"


def test_four_programs_send_each_on_its_own_ring(programs: Callable[[str], list[subprocess.Popen[str]]]) -> None:
    with Host("wide") as host:
        for sender in programs(SENDER):
            assert sender.stdin
            sender.stdin.write("go\n")
            sender.stdin.flush()
        received = host.take(RINGS * 2000)
    for ring in range(RINGS):
        mine = [one for one in received if int.from_bytes(one[14:16]) == ring]
        assert mine == [frame(ring << 16 | number) for number in range(2000)]


def test_a_program_sleeps_through_what_arrives_on_another_ring() -> None:
    ports = [Port("wide", Register(mode=Mode.ONE_NIC, ringid=ring)) for ring in range(2)]
    try:
        with Host("wide") as host:
            flows: tuple[list[int], list[int]] = ([], [])
            for number in range(FLOWS):
                host.send(flow(number))
                for ring in range(2):
                    flows[ring].extend(on_ring(ports[ring], ring, wait=0))
            assert flows[0]
            assert flows[1]
            host.send(flow(flows[1][0]))
            assert ports[0].poll(select.POLLIN, 0.2) == 0
            assert on_ring(ports[1], 1) == [flows[1][0]]
            host.send(flow(flows[0][0]))
            assert ports[1].poll(select.POLLIN, 0.2) == 0
            assert on_ring(ports[0], 0) == [flows[0][0]]
    finally:
        for port in ports:
            port.close()


def test_a_program_that_does_not_take_its_frames_holds_up_no_other_ring() -> None:
    lazy = Port("wide", Register(mode=Mode.ONE_NIC, ringid=0))
    with lazy, Port("wide", Register(mode=Mode.ONE_NIC, ringid=1)) as busy, Host("wide") as host:

        def send_to_all() -> int:
            host.send(*(flow(number) for number in range(FLOWS)))
            return len(on_ring(busy, 1))

        while lazy.rx[0].space < 1000:  # how many of the flows are on this ring, the kernel draws at every boot
            send_to_all()
            lazy.rxsync()
        assert sum(send_to_all() for _ in range(100)) >= 100


def test_a_flow_comes_back_on_the_ring_that_sends_it() -> None:
    """The kernel learns from what a queue sends where the answers belong."""
    with Port("wide") as port, Host("wide") as host:
        for ring in range(RINGS):
            answer = Ether(flow(5))
            answer[IP].src, answer[IP].dst = answer[IP].dst, answer[IP].src
            answer[UDP].sport, answer[UDP].dport = answer[UDP].dport, answer[UDP].sport
            port.put(bytes(answer), ring)
            port.txsync()
            host.send(flow(5))
            port.poll(select.POLLIN, SOON)
            assert {i for i in range(RINGS) if on_ring(port, i, wait=0)} == {ring}


def test_a_descriptor_of_all_rings_has_them_all() -> None:
    with Port("wide") as port, Host("wide") as host:
        host.send(*(flow(number) for number in range(FLOWS)))
        received: list[int] = []
        rings = set()
        while len(received) < FLOWS:
            assert port.poll(select.POLLIN, SOON)
            for ring in range(RINGS):
                here = on_ring(port, ring, wait=0)
                received += here
                rings |= {ring} if here else set()
    assert sorted(received) == list(range(FLOWS))
    assert rings == set(range(RINGS))


def test_one_ring_exclusively_leaves_the_others_to_anybody() -> None:
    with Port("wide", Register(mode=Mode.ONE_NIC, ringid=2, flags=Flag.EXCLUSIVE)):
        for ring in (0, 1, 3):
            Port("wide", Register(mode=Mode.ONE_NIC, ringid=ring)).close()
        with pytest.raises(OSError, match="busy"):
            Port("wide", Register(mode=Mode.ONE_NIC, ringid=2))
