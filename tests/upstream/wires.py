# SPDX-License-Identifier: BSD-2-Clause
"""Upstream's programs on interfaces of the kernel's: veth pairs between hosts, which are network namespaces.

Each scenario is a shell script in which `{near}`, `{far}` and `{third}` run a command on a host, `{through}` pings and
transfers from a host to another, and every program says its exit status as "NAME: STATUS".
"""

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.veth import Peer
from tests.upstream.ground import Ground
from tests.upstream.results import Result, judged, last_said, skip

SECONDS = 90.0
FRAMES = 200_000
MEGABYTES = 100


@dataclass(frozen=True)
class Scenario:
    """What is run, the programs of upstream's that it needs, and what the output must contain, each pattern once."""

    needs: tuple[str, ...]
    script: str
    says: tuple[str, ...]


SENT = rf"Sent {FRAMES} packets"
PASSED = rf"tcp ([0-9a-f]{{64}}) \1\b.*\n{MEGABYTES} MB in [\d.]+ s"

SCENARIOS = {
    "pkt-gen sends": Scenario(
        ("pkt-gen",),
        """
        {near} pkt-gen -i netmap:v0 -f tx -n {frames} -w 1; echo "pkt-gen: $?"
        {far} ip -s link show v1
        """,
        (SENT, r"pkt-gen: 0", rf"RX:.*\n\s*{FRAMES * 60}\s+{FRAMES} "),
    ),
    "pkt-gen receives from pkt-gen": Scenario(
        ("pkt-gen",),
        """
        {near} timeout 30 pkt-gen -i netmap:v0 -f rx -n 100000 -w 1 & receiver=$!
        sleep 2
        {far} pkt-gen -i netmap:v1 -f tx -n {frames} -w 1; echo "sender: $?"
        wait $receiver; echo "receiver: $?"
        """,
        (SENT, r"sender: 0", r"Received 1\d{5} packets", r"receiver: 0"),
    ),
    "pkt-gen pings pkt-gen": Scenario(
        ("pkt-gen",),
        """
        {near} timeout 30 pkt-gen -i netmap:v0 -f pong -w 1 & pong=$!
        sleep 2
        {far} timeout 20 pkt-gen -i netmap:v1 -f ping -n 1000 -w 1; echo "ping: $?"
        kill -INT $pong; wait $pong; echo "pong ended"
        """,
        (r"ping: 0", r"pong ended"),
    ),
    "bridge between two interfaces": Scenario(
        ("bridge",),
        """
        {near} bridge -w 1 -i netmap:v0 -i netmap:w0 & bridge=$!
        sleep 2
        {through} {far_pid} {third_pid} 10.9.0.3 {megabytes}
        kill -INT $bridge; wait $bridge; echo "bridge ended"
        """,
        (r"ping 3 of 3", PASSED, r"bridge ended"),
    ),
    "bridge between an interface and its host": Scenario(
        ("bridge",),
        """
        {near} bridge -w 1 -i netmap:v0 -i netmap:v0^ & bridge=$!
        sleep 2
        {through} {far_pid} {near_pid} 10.9.0.1 {megabytes}
        {through} {near_pid} {far_pid} 10.9.0.2 {megabytes}
        kill -INT $bridge; wait $bridge; echo "bridge ended"
        """,
        (rf"(?s)ping 3 of 3.*{PASSED}.*ping 3 of 3.*tcp ([0-9a-f]{{64}}) \2\b", r"bridge ended"),
    ),
    "lb spreads over two pipes": Scenario(
        ("lb", "pkt-gen"),
        """
        {near} lb -i netmap:v0 -p bal:2 -w 1 & lb=$!
        sleep 2
        {near} timeout 30 pkt-gen -i 'netmap:bal}}0' -f rx -w 1 & one=$!
        {near} timeout 30 pkt-gen -i 'netmap:bal}}1' -f rx -w 1 & other=$!
        sleep 2
        {far} pkt-gen -i netmap:v1 -f tx -n {frames} -R 50000 -w 1 -z \\
            -s 10.0.0.1:2000-10.0.0.9:2999 -d 10.1.0.1:3000-10.1.0.9:3999; echo "sender: $?"
        sleep 1
        kill -INT $one $other; wait $one $other
        kill -INT $lb; wait $lb; echo "lb ended"
        """,
        (SENT, r"sender: 0", r"(?s)Received [1-9]\d{3,} packets.*Received [1-9]\d{3,} packets", r"lb ended"),
    ),
}


@contextmanager
def hosts() -> Iterator[dict[str, Peer]]:
    """Near with v0 and w0, far with v1 on the first wire, third with w1 on the second; one network for all."""
    with ExitStack() as undo:
        made = {
            "near": Peer("v0", "10.9.0.1", "10.9.0.2"),
            "far": Peer("v1", "10.9.0.2", "10.9.0.1"),
            "third": Peer("w1", "10.9.0.3", "10.9.0.2"),
        }
        for peer in made.values():
            undo.callback(peer.close)
        near, far, third = made.values()
        near.run(f"ip link add v0 type veth peer name v1 netns {far.sleeper.pid}")
        near.run(f"ip link add w0 type veth peer name w1 netns {third.sleeper.pid}")
        for peer in made.values():
            peer.set_up()
        near.run("ip link set w0 up")
        yield made


def interfaces(ground: Ground, _source: Path | None) -> Iterator[Result]:
    """Each scenario with hosts and a daemon of its own."""
    for case, scenario in SCENARIOS.items():
        if reason := ground.missing(*scenario.needs, "ip", "nsenter", "timeout"):
            yield Result(case, skip("").verdict, reason)
            continue
        with hosts() as made:
            words = {name: f"nsenter --net=/proc/{peer.sleeper.pid}/ns/net" for name, peer in made.items()}
            words |= {f"{name}_pid": str(peer.sleeper.pid) for name, peer in made.items()}
            script = scenario.script.format(
                **words, frames=FRAMES, megabytes=MEGABYTES, through=f"{sys.executable} -m tests.upstream.through"
            )
            ended = ground.run(["sh", "-c", script], SECONDS)
        said = "\n".join(ended.lines)
        absent = next((pattern for pattern in scenario.says if not re.search(pattern, said)), "")
        failure = "" if not absent else f"it does not say {absent!r}; last: {last_said(ended.lines)}"
        yield judged(case, failure if ended.status is not None else ended.ending)
