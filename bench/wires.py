# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces of the kernel's: 60-byte frames over veth pairs through a backend, beside bare programs of the same kind.

Each kind is one line of KINDS; what it is held against takes turns with it, and who lost frames is said on stderr.
"""

import json
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cuse_netmap.device import program

ROUNDS = 7
SECONDS = 1.0
FRAMES = 500_000  # that are sent where a count is asked for, not a time
LENGTH = 60
IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Kind:
    """A backend, and the bare programs beside it: `send NAME SECONDS` and `receive NAME`, as packet.c's."""

    backend: str
    bare: str  # a program of bench/
    least_send: float  # of what the bare sender sends
    least_trafgen: float | None  # of what trafgen sends; None: it is another kind of sender
    least_receive: float = 0.9
    least_bridge: float = 0.45  # of what one sender sends through the backend


KINDS = {
    "raw": Kind("raw", "packet", least_send=0.9, least_trafgen=1.0),
    "xdp": Kind("xdp", "xdp", least_send=0.93, least_trafgen=None),
}


@dataclass(frozen=True)
class Figure:
    """One row: frames a second with netmap and without, and the least ratio of the two; or why there is none."""

    name: str
    ours: float = 0
    bare: float = 0
    least: float | None = None
    skipped: str = ""


@contextmanager
def pair(near: str, far: str) -> Iterator[None]:
    """A veth pair, up, whose ends have nothing to say themselves."""
    _ip(f"link add {near} type veth peer name {far}")
    try:
        for name in (near, far):
            ipv6 = Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6")
            if ipv6.exists():
                ipv6.write_text("1")
            _ip(f"link set {name} up")
        yield
    finally:
        _ip(f"link del {near}")


def _ip(words: str) -> str:
    return subprocess.run(["ip", *words.split()], stdout=subprocess.PIPE, text=True, check=True).stdout


def counters(name: str) -> dict[str, int]:
    """What the kernel has counted: "rx packets", "tx dropped" and the like."""
    (link,) = json.loads(_ip(f"-j -s link show {name}"))
    return {f"{way} {what}": count for way, all_of in link["stats64"].items() for what, count in all_of.items()}


def since(name: str, before: dict[str, int], what: str) -> int:
    return counters(name)[what] - before[what]


# ---- senders: (frames, frames a second)


def gen(port: str) -> tuple[int, float]:
    command = [program("netmap-traffic"), "gen", port, "-q", "-l", str(LENGTH), "-n", str(FRAMES)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    match = re.search(r"sent (\d+) packets.* (\d+) pps", output) or sys.exit(f"bench: gen said {output!r}")
    return int(match[1]), float(match[2])


def bare_sender(bare: Path, name: str) -> tuple[int, float]:
    command = [str(bare), "send", name, str(SECONDS)]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
    frames, seconds = output.split()
    return int(frames), int(frames) / float(seconds)


def frame() -> bytes:
    """A frame as gen and packet.c send them, for which the far stack does the same: UDP to 198.18.0.2."""
    ip: bytes = struct.pack("!BBHHHBBH", 0x45, 0, LENGTH - 14, 0, 0, 64, socket.IPPROTO_UDP, 0)
    ip += socket.inet_aton("198.18.0.1") + socket.inet_aton("198.18.0.2")
    words = sum(struct.unpack("!10H", ip))
    checksum = ~((words & 0xFFFF) + (words >> 16)) & 0xFFFF
    ip = ip[:10] + checksum.to_bytes(2) + ip[12:]
    header = b"\xff" * 6 + bytes.fromhex("020000000001") + b"\x08\x00" + ip
    return (header + struct.pack("!HHHH", 9, 9, LENGTH - 34, 0)).ljust(LENGTH, b"\0")


def trafgen(name: str) -> tuple[int, float]:
    """One process of it; it says itself how long it took."""
    packet = f"{{ {', '.join(map(hex, frame()))} }}"
    command = ["trafgen", "--dev", name, "--cpus", "1", "--num", str(FRAMES), packet]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    match = re.search(r"(\d+) sec, (\d+) usec on CPU\d+ \((\d+) packets\)", done.stdout + done.stderr)
    if match is None:
        sys.exit(f"bench: trafgen said {done.stdout}{done.stderr}")
    return int(match[3]), int(match[3]) / (int(match[1]) + int(match[2]) / 1e6)


# ---- measurements


def send(kind: Kind, bare: Path) -> Iterator[Figure]:
    """What gen sends through the backend, beside the bare sender and trafgen, in turns."""
    with_trafgen = kind.least_trafgen is not None and shutil.which("trafgen") is not None
    senders: dict[str, Callable[[], tuple[int, float]]] = {
        "ours": lambda: gen("netmap:bench0"),
        "bare": lambda: bare_sender(bare, "bench0"),
    }
    if with_trafgen:
        senders["trafgen"] = lambda: trafgen("bench0")
    rates: dict[str, list[float]] = {name: [] for name in senders}
    with pair("bench0", "bench1"):
        for _ in range(ROUNDS):
            for name, sender in senders.items():
                before = counters("bench1")
                frames, rate = sender()
                arrived = since("bench1", before, "rx packets")
                rates[name].append(rate)
                if arrived < frames:
                    lost = since("bench1", before, "rx dropped")
                    _say(
                        f"{kind.backend}: {name} sent {frames}, {arrived} arrived; the peer's interface dropped {lost}"
                    )
    ours = median(rates["ours"])
    yield Figure(f"{kind.backend}, one sender", ours, median(rates["bare"]), kind.least_send)
    if kind.least_trafgen is not None:
        name = f"{kind.backend}, one sender, trafgen"
        if with_trafgen:
            yield Figure(name, ours, median(rates["trafgen"]), kind.least_trafgen)
        else:
            yield Figure(name, skipped="there is no trafgen: apt-get install netsniff-ng")


def receive(kind: Kind, bare: Path, flood: Path) -> Iterator[Figure]:
    """What sink receives of a flood, beside the bare receiver, in turns."""
    rates: dict[str, list[float]] = {"ours": [], "bare": []}
    with pair("bench0", "bench1"):
        for _ in range(ROUNDS):
            for name, found in rates.items():
                before = counters("bench1")
                if name == "ours":
                    sink = [program("netmap-traffic"), "sink", "netmap:bench1", "-q"]
                    receiver = subprocess.Popen(sink, stdout=subprocess.PIPE, text=True)
                    time.sleep(0.5)  # it says nothing before it is ended
                else:
                    receiver = _ready([str(bare), "receive", "bench1"])
                frames, rate = bare_sender(flood, "bench0")
                receiver.send_signal(signal.SIGINT)
                said = receiver.communicate(timeout=20)[0]
                match = re.search(r"(?:received )?(\d+)", said) or sys.exit(f"bench: {name} said {said!r}")
                got = int(match[1])
                found.append(got * rate / frames)
                arrived = since("bench1", before, "rx packets")
                _say(
                    f"{kind.backend}: {frames} sent to {name}: {frames - arrived} lost on the wire, "
                    f"{max(arrived - got, 0)} found its ring full"
                )
    yield Figure(f"{kind.backend}, one receiver", median(rates["ours"]), median(rates["bare"]), kind.least_receive)


def bridge(kind: Kind, between: Path, flood: Path) -> Iterator[Figure]:
    """What comes out of a program between two interfaces, beside what one sender sends through the backend."""
    through, alone = [], []
    with pair("bench0", "bench1"), pair("bench2", "bench3"):
        for _ in range(ROUNDS):
            alone.append(gen("netmap:bench2")[1])
            with _running([str(between), "netmap:bench1", "netmap:bench2"]):
                before, received = counters("bench3"), counters("bench1")
                frames, rate = bare_sender(flood, "bench0")
                time.sleep(0.1)  # for what is on its way
                out = since("bench3", before, "rx packets")
                through.append(out * rate / frames)
                arrived = since("bench1", received, "rx packets")
                _say(
                    f"{kind.backend}: {frames} sent to the bridge: {frames - arrived} lost on the wire before it, "
                    f"{arrived - out} by it, whose RX ring was full"
                )
    yield Figure(f"{kind.backend}, bridge of two interfaces", median(through), median(alone), kind.least_bridge)


def idle(cpu_seconds: Callable[[], float]) -> float:
    """Of one CPU, in percent, while a program has an interface on which nothing happens."""
    with pair("bench0", "bench1"), _running([program("netmap-traffic"), "sink", "netmap:bench1", "-q"], says="") as _:
        time.sleep(0.5)
        before = cpu_seconds()
        time.sleep(IDLE_SECONDS)
        return (cpu_seconds() - before) / IDLE_SECONDS * 100


def _ready(command: Sequence[str]) -> "subprocess.Popen[str]":
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    if started.stdout.readline() != "ready\n":
        sys.exit(f"bench: {' '.join(command)} did not start")
    return started


@contextmanager
def _running(command: Sequence[str], *, says: str = "ready") -> Iterator[None]:
    started = _ready(command) if says else subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield
    finally:
        started.send_signal(signal.SIGTERM)
        started.communicate(timeout=20)


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
