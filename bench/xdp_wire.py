# SPDX-License-Identifier: BSD-2-Clause
"""A veth pair by AF_XDP: one program that sends or receives, by netmap and by a bare loop, taking turns."""

import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

ROUNDS = 9
FRAMES = 500_000
BATCH = 512  # gen's own
SECONDS = 1.0
NEAR, FAR = "benchx0", "benchx1"


@contextmanager
def wire() -> Iterator[None]:
    """Both ends in this network namespace, which is the bench's own."""
    subprocess.run(["ip", "link", "add", NEAR, "type", "veth", "peer", "name", FAR], check=True)
    try:
        for name in (NEAR, FAR):
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield
    finally:
        subprocess.run(["ip", "link", "del", NEAR], check=True)


def _number(text: str, pattern: str) -> float:
    match = re.search(pattern, text)
    assert match is not None, text
    return float(match[1])


def _output(*command: str | Path) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout


def _received(far: Callable[[], object], *command: str | Path) -> str:
    """What a receiver says that `far` sends to."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as receiver:
        time.sleep(0.4)
        far()
        return receiver.communicate(timeout=60)[0]


def send(bare: Path, traffic: str) -> tuple[float, float]:
    """Frames a second that gen sends, and that the bare loop sends."""
    rates: tuple[list[float], list[float]] = [], []
    for _ in range(ROUNDS):
        gen = _output(traffic, "gen", f"netmap:{NEAR}", "-q", "-n", str(FRAMES))
        rates[0].append(_number(gen, r"(\d+) pps"))
        rates[1].append(_number(_output(bare, "send", NEAR, str(FRAMES), str(BATCH)), r"(\d+)"))
    return median(rates[0]), median(rates[1])


def receive(bare: Path, traffic: str) -> tuple[float, float]:
    """Frames a second that sink receives, and that the bare loop receives, while the bare loop sends."""
    rates: tuple[list[float], list[float]] = [], []

    def far() -> None:
        _output(bare, "send", FAR, str(FRAMES), str(BATCH))

    for _ in range(ROUNDS):
        sink = _received(far, traffic, "sink", f"netmap:{NEAR}", "-q", "-t", "0.6")
        rates[0].append(_number(sink, r"(\d+) pps"))
        rates[1].append(_number(_received(far, bare, "receive", NEAR, "1.8"), r"\n(\d+)\n"))
    return median(rates[0]), median(rates[1])
