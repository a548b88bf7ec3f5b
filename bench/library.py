# SPDX-License-Identifier: BSD-2-Clause
"""The bridge over libcompat_netmap, beside a loop of bursts between the same devices."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from cuse_netmap.backends.dpdk import unavailable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
BRIDGE = ROOT / "build" / "compat" / "bridge"
EAL = ["--no-huge", "-m", "256", "--no-pci", "--no-telemetry", "--no-shconf"]
ROUNDS = 5
SECONDS = 1.0


@dataclass(frozen=True)
class Devices:
    """The two ports that are joined, and the interface that frames are sent on, if they do not make them themselves."""

    name: str
    devargs: tuple[str, str]
    judged: bool
    flood: str = ""


PAIRS = [
    Devices("net_af_packet", ("net_af_packet0,iface=benchl0", "net_af_packet1,iface=benchl2"), True, "benchl1"),
    Devices("net_null", ("net_null0", "net_null1"), False),
]


def missing() -> str:
    """Why this cannot be measured here; "" if it can."""
    return unavailable()


def build(folder: Path) -> Path:
    """The library with its bridge, and the bare loop: its path."""
    subprocess.run(["make", "--silent", "-j2", "compat-files"], cwd=ROOT, check=True, timeout=600)
    said = subprocess.run(["pkg-config", "--cflags", "--libs", "libdpdk"], capture_output=True, text=True, check=True)
    program = folder / "l2"
    subprocess.run(["gcc", "-std=gnu11", "-O2", "-o", program, HERE / "l2.c", *said.stdout.split()], check=True)
    return program


def make_wires() -> None:
    """Two pairs of interfaces, in the network namespace that we are in."""
    for near, far in (("benchl0", "benchl1"), ("benchl2", "benchl3")):
        subprocess.run(["ip", "link", "add", near, "type", "veth", "peer", "name", far], check=True)
        for name in (near, far):
            subprocess.run(["ip", "link", "set", name, "up"], check=True)


def measure(loop: Path, wire: Path) -> Iterator[tuple[str, float, float, bool]]:
    """Between which devices, packets a second passed on by the bridge and by the loop, and whether that is judged."""
    for devices in PAIRS:
        # One lcore, on all CPUs there are.
        cpus = ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))
        options = [*EAL, f"--lcores=0@({cpus})", *(f"--vdev={one}" for one in devices.devargs)]
        ours: list[float] = []
        bare: list[float] = []
        for _ in range(ROUNDS):
            bare.append(_rate([str(loop), *options], wire, devices.flood))
            ours.append(_rate([str(BRIDGE), *options, "--", "-i", "0", "-i", "1"], wire, devices.flood))
        yield devices.name, median(ours), median(bare), devices.judged


def _rate(command: list[str], wire: Path, flood: str) -> float:
    """Packets a second that the program says it has passed on while it had as many as it could take."""
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert program.stdout is not None
    if program.stdout.readline().partition(":")[0].strip() not in ("ready", "bridge"):
        raise SystemExit(f"bench: {command[0]} did not start")
    start = time.monotonic()
    if flood:
        subprocess.run([wire, "flood", flood, str(SECONDS)], stdout=subprocess.DEVNULL, check=True)
    else:
        time.sleep(SECONDS)
    program.send_signal(signal.SIGINT)
    elapsed = time.monotonic() - start
    said = program.communicate(timeout=10)[0]
    return sum(int(number) for number in re.findall(r"(?:^packets |: )(\d+)", said, re.M)) / elapsed
