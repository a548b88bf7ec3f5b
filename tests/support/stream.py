# SPDX-License-Identifier: BSD-2-Clause
"""tests/clients/stream.c as tests use it, and what the daemon says has crossed a port."""

import re
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from tests.support.daemon import Daemon
from tests.support.patience import at_most
from tests.support.program import Program


@dataclass(frozen=True)
class Report:
    """How a stream ended: numbers of frames, and the first and last number on them."""

    frames: int
    first: int
    last: int
    gaps: int = 0  # numbers that never came
    repeats: int = 0  # numbers that came late or twice
    bad: int = 0  # not what was sent

    @property
    def clean(self) -> bool:
        """Every number once, in order, unharmed."""
        return (self.gaps, self.repeats, self.bad) == (0, 0, 0) and self.frames == self.last - self.first + 1


class Stream(Program):
    """One that has its port; `way` is "send" or "receive"."""

    def __init__(self, program: Path, way: str, port: str, *options: object) -> None:
        super().__init__(program, way, *options, port)
        self.way = way
        self.wait_for("ready")

    def report(self, seconds: float = at_most(20.0)) -> Report:
        """Once it has sent or received as many as it was to."""
        words = ["frames", "first", "last", *(["gaps", "repeats", "bad"] if self.way == "receive" else [])]
        return Report(**{word: self.number(word, seconds) for word in words})

    def end(self) -> Report:
        """Ends it where it is."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        report = self.report()
        self.wait()
        return report


SIDE = re.compile(r"(received|sent) (\d+) packets, (\d+) bytes(?:, dropped ([^;\[\n]*))?")


def crossed(daemon: Daemon, port: str, times: int = 1) -> dict[str, int]:
    """What the log says has crossed a port, once it has been released that many times.

    "received", "sent", and each kind of drop as "received full" and the like; what is not there is 0.
    """
    deadline = time.monotonic() + at_most(5)
    while (log := daemon.log).count(f" {port} released by ") < times:
        assert time.monotonic() < deadline, f"{port} was not released {times} times:\n{log}"
        time.sleep(0.01)
    counts: dict[str, int] = defaultdict(int)
    for line in log.splitlines():
        if f" {port}: received " not in line:
            continue
        for verb, packets, _, drops in SIDE.findall(line):
            counts[verb] += int(packets)
            for drop in drops.split(", ") if drops else []:
                number, kind = drop.split(" ", 1)
                counts[f"{verb} {kind}"] += int(number)
    return counts
