# SPDX-License-Identifier: BSD-2-Clause
"""The dpdk backend: 60-byte frames sent through /dev/netmap into a device of DPDK's, beside a program of DPDK's own."""

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cuse_netmap.backends.dpdk import unavailable
from cuse_netmap.client import Port

HERE = Path(__file__).resolve().parent
EAL = "--no-huge -m 256 --no-pci"
OWN = ["--no-telemetry", "--no-shconf", "--file-prefix=cuse-netmap-bench"]
BATCHES = (512, 4000)  # frames between two syncs; at the device both sides have bursts of 64
SLOTS = 4096
ARCHIVE = "libcuse_netmap_core.a"
ROUNDS = 5
SECONDS = 1.0
SLEEP_SECONDS = 3.0


@dataclass(frozen=True)
class Target:
    """A device for each side, alike.

    door: whether what crosses the door is judged too, where a frame's way to the device costs more than the door does.
    """

    name: str
    ours: str
    bare: str
    door: bool


TARGETS = [
    Target("net_null", "net_null0,no-rx=1", "net_null1,no-rx=1", door=False),
    Target("net_af_packet", "net_af_packet0,iface=benchd0", "net_af_packet1,iface=benchd2", door=True),
]


def missing() -> str:
    """Why this cannot be measured here; "" if it can."""
    return unavailable()


def build(folder: Path) -> Path:
    """The program of DPDK's own."""
    said = subprocess.run(["pkg-config", "--cflags", "--libs", "libdpdk"], capture_output=True, text=True, check=True)
    package = HERE.parent / "cuse_netmap"
    flags = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", f"-I{package}", f"-I{package / 'include'}"]
    sources = [HERE / "dpdk.c", *sorted((package / "dpdk").glob("*.c")), HERE.parent / "build/plain" / ARCHIVE]
    program = folder / "dpdk"
    subprocess.run(["gcc", *flags, "-o", program, *sources, *said.stdout.split(), "-luring"], check=True)
    return program


def make_wires() -> None:
    """Two pairs of interfaces, in the network namespace that we are in."""
    for near, far in (("benchd0", "benchd1"), ("benchd2", "benchd3")):
        subprocess.run(["ip", "link", "add", near, "type", "veth", "peer", "name", far], check=True)
        for name in (near, far):
            subprocess.run(["ip", "link", "set", name, "up"], check=True)


def configure(folder: Path) -> Path:
    """A configuration with a port for each target, under its driver's name."""
    tables = [
        f'[ports.{target.name}]\nbackend = "dpdk"\ndevargs = "{target.ours}"\nslots = {SLOTS}\n' for target in TARGETS
    ]
    path = folder / "dpdk.toml"
    path.write_text(f'[memory]\nring_size = 131072\n[dpdk]\neal = "{EAL}"\n{"".join(tables)}')
    return path


def measure(flow: Path, program: Path) -> Iterator[tuple[str, float, float, bool]]:
    """What is sent how, frames a second with netmap and without, all taking turns, and whether that is judged."""
    for target in TARGETS:
        bare: list[float] = []
        engine: list[float] = []
        door: dict[int, list[float]] = {batch: [] for batch in BATCHES}
        for _ in range(ROUNDS):
            bare.append(_alone(program, "bare", target.bare))
            engine.append(_alone(program, "engine", target.bare))
            for batch, rates in door.items():
                rates.append(_through_the_door(flow, target.name, batch))
        yield f"{target.name}, the engine", median(engine), median(bare), True
        for batch, rates in door.items():
            yield (
                f"{target.name}, batches of {batch}",
                median(rates),
                median(bare),
                target.door and batch == BATCHES[-1],
            )


def sleeper(pid: int, used: Callable[[int], float]) -> float:
    """The share of a CPU that the daemon uses while a program sleeps for frames that a device could have any time."""
    with Port(TARGETS[0].name) as port:
        port.poll(select.POLLIN, 0.2)
        before, start = used(pid), time.monotonic()
        port.poll(select.POLLIN, SLEEP_SECONDS)
        return (used(pid) - before) / (time.monotonic() - start)


def _alone(program: Path, way: str, device: str) -> float:
    return _rate([str(program), way, device, str(BATCHES[0]), str(SECONDS), *EAL.split(), *_own()])


def _own() -> Sequence[str]:
    """An EAL like the daemon's: one lcore, on all CPUs there are."""
    cpus = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
    return [*OWN, f"--lcores=0@({cpus})"]


def _through_the_door(flow: Path, name: str, batch: int) -> float:
    command = [str(flow), "send", f"netmap:{name}", str(batch), "busy", "write"]
    sender = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    if sender.stdout.readline() != "ready\n":
        raise SystemExit(f"bench: flow did not start on {name}")
    time.sleep(SECONDS)
    sender.terminate()
    return float(sender.communicate(timeout=10)[0].split()[1])


def _rate(command: Sequence[str]) -> float:
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True, timeout=60)
    return float(done.stdout.split()[-2])
