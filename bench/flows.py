# SPDX-License-Identifier: BSD-2-Clause
"""Pipes and switches: 60-byte frames between programs through /dev/netmap, beside the same C called without it."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

SWEEP = (1, 4, 16, 64, 256, 512, 1023)  # a ring of 1024 slots holds 1023
JUDGED = 512
ROUNDS = 5
SECONDS = 1.0
BROADCAST_RECEIVERS = 8


@dataclass(frozen=True)
class Flow:
    """What the programs of one kind do: their ports, and how much of it all must arrive."""

    kind: str  # engine.c's word
    send: str  # flow.c's word
    sender: str
    receivers: Sequence[str]


PIPE = Flow("pipe", "send", "netmap:bench{1", ["netmap:bench}1"])
VALE = Flow("vale", "send", "vale0:s", ["vale0:r"])
BROADCAST = Flow("broadcast", "broadcast", "vale0:s", [f"vale0:r{i}" for i in range(BROADCAST_RECEIVERS)])


def through_the_door(flow: Path, what: Flow, batch: int, way: str) -> float:
    """Frames a second that arrive at all receivers together."""
    size = str(batch)
    programs = [_start(flow, "receive", port, size, way) for port in what.receivers]
    programs.append(_start(flow, what.send, what.sender, size, way))
    time.sleep(SECONDS)
    # Receivers first: what still comes while they end says nothing.
    for program in programs:
        program.send_signal(signal.SIGTERM)
    rates = [float(program.communicate(timeout=10)[0].split()[1]) for program in programs]
    return sum(rates[:-1])


def _start(flow: Path, *arguments: str) -> subprocess.Popen[str]:
    program = subprocess.Popen([flow, *arguments], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    if program.stdout.readline() != "ready\n":
        raise SystemExit(f"bench: flow {' '.join(arguments)} did not start")
    return program


def by_sender(flow: Path, sender: Path, batch: int) -> float:
    """Frames a second that a receiver of today gets over a pipe from a sender that is as old as it was compiled."""
    receiver = _start(flow, "receive", PIPE.receivers[0], str(batch), "poll")
    program = _start(sender, PIPE.sender.removeprefix("netmap:"), str(batch))
    time.sleep(SECONDS)
    for one in (receiver, program):
        one.send_signal(signal.SIGTERM)
    rate = float(receiver.communicate(timeout=10)[0].split()[1])
    program.communicate(timeout=10)
    return rate


def to_the_host(sender: Path, port: str, batch: int) -> float:
    """Frames a second that such a sender gets rid of on a TAP."""
    program = _start(sender, port, str(batch))
    time.sleep(SECONDS)
    program.send_signal(signal.SIGTERM)
    return float(program.communicate(timeout=10)[0].split()[1])


def engine_alone(engine: Path, what: Flow, batch: int) -> float:
    """The same by one thread that calls the engine itself."""
    command = [str(engine), what.kind, str(batch), str(SECONDS), str(len(what.receivers))]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout.splitlines()
    return sum(float(line.split()[1]) for line in lines[1:])


def measure(flow: Path, engine: Path, what: Flow, batches: Sequence[int]) -> Iterator[tuple[int, float, float]]:
    """(batch, with the door, without), frames a second; medians of rounds in which the two take turns."""
    for batch in batches:
        rounds = ROUNDS if batch >= JUDGED else 1
        ours, bare = [], []
        for _ in range(rounds):
            ours.append(through_the_door(flow, what, batch, "poll"))
            bare.append(engine_alone(engine, what, batch))
        yield batch, median(ours), median(bare)
