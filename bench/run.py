# SPDX-License-Identifier: BSD-2-Clause
"""`make bench`: what netmap costs here beside what this machine does without it; docs/bench.md explains each row.

Runs as root, in mount and network namespaces of its own. Exit status 1 if a target is missed.
"""

import argparse
import ctypes
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import dpdk
import flows
import library
import wires

from cuse_netmap.device import URING_SWITCH, program, uring_enabled
from cuse_netmap.namespace import unshare_mounts

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent / "cuse_netmap"
CFLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Werror", "-pthread"]
SOURCES = {
    "fuse_noop": [HERE / "fuse_noop.c"],
    "sync": [HERE / "sync.c"],
    "wire": [HERE / "wire.c", PACKAGE / "programs" / "frame.c"],
    "packet": [HERE / "packet.c", PACKAGE / "programs" / "frame.c"],
    "bridge": [HERE / "bridge.c"],
    "flow": [HERE / "flow.c"],
    "xdp": [HERE / "xdp.c", PACKAGE / "programs" / "frame.c"],
    "aged": [HERE / "aged.c"],
    "aged-3": [HERE / "aged.c"],
    "engine": [HERE / "engine.c", HERE.parent / "build" / "plain" / "libcuse_netmap_core.a"],
}
DEFINES = {"aged-3": ["-DNETMAP_OLD_API=3"]}
LIBRARIES = {"fuse_noop": ["-luring"], "engine": ["-luring"], "xdp": ["-lxdp"]}
CLONE_NEWNET = 0x40000000
SYNC_ROUNDS, SYNC_CALLS = 15, 4000
SEND_ROUNDS, SEND_FRAMES = 7, 500_000
RECEIVE_ROUNDS, RECEIVE_SECONDS = 5, 1.0
WAKE_ROUNDS, WAKE_FRAMES = 3, 400
START_ROUNDS = 5
IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Row:
    """One line of the table: `base` is the same thing without netmap, `judged` what the target is about."""

    name: str
    figure: float
    unit: str
    base: float | None = None
    judged: str = ""  # "figure" or "ratio"; "" for information only
    most: float | None = None
    least: float | None = None
    skipped: str = ""  # why there is no figure

    @property
    def ratio(self) -> float | None:
        return self.figure / self.base if self.base else None

    @property
    def missed(self) -> bool:
        if self.skipped:
            return False
        value = {"figure": self.figure, "ratio": self.ratio}.get(self.judged)
        if value is None:
            return bool(self.judged)
        return (self.most is not None and value > self.most) or (self.least is not None and value < self.least)

    @property
    def target(self) -> str:
        if not self.judged:
            return ""
        bound = f"<= {self.most:g}" if self.most is not None else f">= {self.least:g}"
        return f"{self.judged} {bound}"

    def cells(self) -> list[str]:
        if self.skipped:
            return [self.name, "SKIP", "", "", "", self.skipped]
        base = f"{self.base:.4g} {self.unit}" if self.base is not None else ""
        ratio = f"{self.ratio:.2f}" if self.ratio is not None else ""
        verdict = ("NOT OK" if self.missed else "ok") if self.judged else ""
        return [self.name, f"{self.figure:.4g} {self.unit}", base, ratio, self.target, verdict]


@contextmanager
def one_cpu() -> Iterator[None]:
    """What is started inside stays on one CPU."""
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def output_of(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout


class Bench:
    """The programs, compiled, and the measurements, each of which gives rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, sources in SOURCES.items():
            libraries = LIBRARIES.get(name, [])
            includes = [f"-I{PACKAGE / 'include'}", f"-I{PACKAGE}"]
            defines = DEFINES.get(name, [])
            subprocess.run(["gcc", *CFLAGS, *defines, *includes, "-o", folder / name, *sources, *libraries], check=True)

    def call(self, name: str, *arguments: str) -> str:
        return output_of(str(self.folder / name), *arguments)

    # ---- what runs meanwhile

    @contextmanager
    def daemon(self, *options: str) -> Iterator[int]:
        """A daemon that is ready: its process id."""
        reader, writer = os.pipe()
        command = [sys.executable, "-m", "cuse_netmap", "serve", "--log-level=error", *options]
        served = subprocess.Popen([*command, f"--ready-fd={writer}"], pass_fds=(writer,), stdin=subprocess.DEVNULL)
        os.close(writer)
        try:
            if not os.read(reader, 1):
                sys.exit(f"bench: the daemon did not start: {' '.join(command)}")
            yield served.pid
        finally:
            os.close(reader)
            served.send_signal(signal.SIGTERM)
            served.wait(10)

    @contextmanager
    def fuse_noop(self, transport: str) -> Iterator[Path]:
        """A file whose ioctls do nothing."""
        path = self.folder / f"noop-{transport}"
        path.touch()
        pipe = subprocess.PIPE
        with uring_enabled() if transport == "uring" else nullcontext():
            server = subprocess.Popen([self.folder / "fuse_noop", path, transport], stdin=pipe, stdout=pipe)
            assert server.stdin is not None
            assert server.stdout is not None
            if not server.stdout.readline():
                sys.exit(f"bench: the bare FUSE server ({transport}) did not start")
        try:
            yield path
        finally:
            server.stdin.close()
            server.stdout.close()
            server.wait(10)

    # ---- measurements

    def sync(self) -> Iterator[Row]:
        """NIOCTXSYNC of an idle ring beside an ioctl that does nothing, alternating.

        Else the kernel decides for each pair of processes where it wakes the reader, which makes a factor of four.
        """
        transports = ["uring", "classic"] if URING_SWITCH.exists() else ["classic"]
        for transport in transports:
            with one_cpu(), self.daemon(f"--transport={transport}"), self.fuse_noop(transport) as noop:
                counts = [str(SYNC_CALLS), str(SYNC_ROUNDS)]
                output = self.call("sync", *counts, "netmap", "/dev/netmap", "noop", str(noop))
            found = re.findall(r"(\w+) ([\d.]+)", output)
            ours, bare = (
                statistics.median(float(value) / 1000 for name, value in found if name == wanted)
                for wanted in ("netmap", "noop")
            )
            yield Row(f"sync of an idle ring, {transport}", ours, "us", bare, "ratio", most=1.5)

    def send(self) -> Iterator[Row]:
        """Frames a second that gen sends beside a loop of write(), alternating."""
        ours, bare = [], []
        with self.daemon("--tap=bench0"):
            for _ in range(SEND_ROUNDS):
                bare.append(float(self.call("wire", "write", "bare0", str(SEND_FRAMES))))
                gen = [program("netmap-traffic"), "gen", "netmap:bench0", "-q", "-n", str(SEND_FRAMES)]
                output = output_of(*gen)
                match = re.search(r"(\d+) pps", output)
                assert match is not None
                ours.append(float(match[1]))
        figures = statistics.median(ours) / 1e6, statistics.median(bare) / 1e6
        yield Row("one sender on a TAP", figures[0], "Mpps", figures[1], "ratio", least=0.8)

    def receive(self) -> Iterator[Row]:
        """Frames a second that sink takes while the host floods it, beside a loop of poll() and read()."""
        ours, bare = [], []
        pipe = subprocess.PIPE
        with self.daemon("--tap=bench0"):
            for _ in range(RECEIVE_ROUNDS):
                reader = subprocess.Popen([self.folder / "wire", "read", "bare0"], stdin=pipe, stdout=pipe, text=True)
                assert reader.stdout is not None
                reader.stdout.readline()
                self.call("wire", "flood", "bare0", str(RECEIVE_SECONDS))
                bare.append(int(reader.communicate()[0]) / RECEIVE_SECONDS)
                sink = [program("netmap-traffic"), "sink", "netmap:bench0", "-q", "-t", "0.5"]
                receiver = subprocess.Popen(sink, stdout=pipe, text=True)
                time.sleep(0.2)
                self.call("wire", "flood", "bench0", str(RECEIVE_SECONDS))
                match = re.search(r"received (\d+)", receiver.communicate()[0])
                assert match is not None
                ours.append(int(match[1]) / RECEIVE_SECONDS)
        figures = statistics.median(ours) / 1e6, statistics.median(bare) / 1e6
        yield Row("one receiver on a TAP", figures[0], "Mpps", figures[1])

    def wake(self) -> Iterator[Row]:
        """From the host's send() to a sleeping program's return from poll() with the frame in hand."""
        ours: list[float] = []
        bare: list[float] = []
        with self.daemon("--tap=bench0"):
            for _ in range(WAKE_ROUNDS):
                for name, delays in (("tap:bare0", bare), ("netmap:bench0", ours)):
                    output = self.call("wire", "wake", name, str(WAKE_FRAMES))
                    delays += [float(line) for line in output.split()]
        yield Row("wake-up by a frame, median", statistics.median(ours), "us", statistics.median(bare))
        yield Row("wake-up by a frame, p99", percentile(ours, 0.99), "us", percentile(bare, 0.99))

    def pipe(self) -> Iterator[Row]:
        """One program sends over a pipe, another receives, at batches from one frame to all that fit."""
        yield from self._flow(flows.PIPE, flows.SWEEP, least=20)

    def vale(self) -> Iterator[Row]:
        """The same over a switch: what arrives."""
        yield from self._flow(flows.VALE, flows.SWEEP, least=6)

    def broadcast(self) -> Iterator[Row]:
        """One program sends to everybody, eight receive: what arrives in all."""
        yield from self._flow(flows.BROADCAST, [flows.JUDGED], least=4)

    def _flow(self, what: flows.Flow, batches: Sequence[int], least: float) -> Iterator[Row]:
        with self.daemon("--no-ports"):
            for batch, ours, bare in flows.measure(self.folder / "flow", self.folder / "engine", what, batches):
                judged = "figure" if batch >= flows.JUDGED else ""
                name = f"{what.kind}, batches of {batch}"
                yield Row(name, ours / 1e6, "Mpps", bare / 1e6, judged, least=least if judged else None)

    def dpdk(self) -> Iterator[Row]:
        """Frames sent into devices of DPDK's, beside a loop of rte_eth_tx_burst()."""
        if missing := dpdk.missing():
            print(f"dpdk: not measured: {missing}", file=sys.stderr)
            return
        dpdk.make_wires()
        bare_loop = dpdk.build(self.folder)
        with self.daemon(f"--config={dpdk.configure(self.folder)}") as pid:
            for name, ours, bare, judged in dpdk.measure(self.folder / "flow", bare_loop):
                least = 0.8 if judged else None
                yield Row(name, ours / 1e6, "Mpps", bare / 1e6, "ratio" if judged else "", least=least)
            yield Row("CPU of a sleeper, net_null", dpdk.sleeper(pid, cpu_seconds) * 100, "%")

    def interfaces(self) -> Iterator[Row]:
        """Interfaces of the kernel's, by each backend: sending, receiving, between two, and idle."""
        flood = self.folder / "packet"
        for kind in wires.KINDS.values():
            config = self.folder / f"{kind.backend}.toml"
            config.write_text(f'[interfaces]\nbackend = "{kind.backend}"\n')
            bare = self.folder / kind.bare
            with self.daemon("--no-ports", f"--config={config}") as pid:
                for figures in (
                    wires.send(kind, bare),
                    wires.receive(kind, bare, flood),
                    wires.bridge(kind, self.folder / "bridge", flood),
                ):
                    for figure in figures:
                        yield wire_row(figure)
                used = wires.idle(partial(cpu_seconds, pid))
                yield Row(f"{kind.backend}, CPU of the daemon, idle", used, "%", None, "figure", most=0.5)

    def ages(self) -> Iterator[Row]:
        """The same sender compiled for API 3 and for API 14, alternating, over a pipe and on a TAP."""
        flow = self.folder / "flow"
        measurements: dict[str, Callable[[Path], float]] = {
            "a pipe": lambda sender: flows.by_sender(flow, sender, flows.JUDGED),
            "a TAP": lambda sender: flows.to_the_host(sender, "bench0", flows.JUDGED),
        }
        with self.daemon("--tap=bench0"):
            for name, measure in measurements.items():
                rates: dict[str, list[float]] = {"aged-3": [], "aged": []}
                for _ in range(flows.ROUNDS):
                    for sender, found in rates.items():
                        found.append(measure(self.folder / sender) / 1e6)
                old, today = (statistics.median(found) for found in rates.values())
                yield Row(f"a sender of API 3 on {name}", old, "Mpps", today, "ratio", least=0.7)

    def library(self) -> Iterator[Row]:
        """Packets through the bridge of libcompat_netmap, beside a loop of bursts between the same devices."""
        if missing := library.missing():
            print(f"library: not measured: {missing}", file=sys.stderr)
            return
        library.make_wires()
        loop = library.build(self.folder)
        for name, ours, bare, judged in library.measure(loop, self.folder / "wire"):
            least = 0.85 if judged else None
            yield Row(
                f"library's bridge, {name}", ours / 1e6, "Mpps", bare / 1e6, "ratio" if judged else "", least=least
            )

    def idle(self) -> Iterator[Row]:
        """How long a daemon takes to be ready, and what it holds and uses when nobody asks for anything."""
        starts, sizes = [], []
        used = 0.0
        for attempt in range(START_ROUNDS):
            start = time.monotonic()
            with self.daemon("--tap=bench0") as pid:
                starts.append(time.monotonic() - start)
                status = Path(f"/proc/{pid}/status").read_text()
                sizes.append(int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6)
                if attempt == START_ROUNDS - 1:
                    time.sleep(0.5)
                    before = cpu_seconds(pid)
                    time.sleep(IDLE_SECONDS)
                    used = cpu_seconds(pid) - before
        yield Row("daemon ready after exec", statistics.median(starts), "s", None, "figure", most=0.7)
        yield Row("resident when idle", statistics.median(sizes), "MB", None, "figure", most=80)
        yield Row("CPU used when idle", used / IDLE_SECONDS * 100, "%")


def wire_row(figure: wires.Figure) -> Row:
    if figure.skipped:
        return Row(figure.name, 0, "Mpps", skipped=figure.skipped)
    return Row(figure.name, figure.ours / 1e6, "Mpps", figure.bare / 1e6, "ratio", least=figure.least)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


MEASUREMENTS = {
    "sync": Bench.sync,
    "send": Bench.send,
    "receive": Bench.receive,
    "wake": Bench.wake,
    "pipe": Bench.pipe,
    "vale": Bench.vale,
    "broadcast": Bench.broadcast,
    "dpdk": Bench.dpdk,
    "interfaces": Bench.interfaces,
    "ages": Bench.ages,
    "library": Bench.library,
    "idle": Bench.idle,
}
HEADINGS = ["", "with netmap", "without", "ratio", "target", ""]


def table(rows: list[Row]) -> str:
    cells = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")
    parser.add_argument("only", nargs="*", metavar="MEASUREMENT", help=f"of {', '.join(MEASUREMENTS)} (all)")
    given = parser.parse_args()
    if unknown := set(given.only) - set(MEASUREMENTS):
        parser.error(f"there is no measurement {', '.join(unknown)}")
    if os.geteuid() != 0:
        sys.exit("bench: needs root (sudo make bench)")
    unshare_mounts()
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
        sys.exit(f"bench: unshare(CLONE_NEWNET): {os.strerror(ctypes.get_errno())}")
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="cuse-netmap-bench-") as folder:
        bench = Bench(Path(folder))
        for name, measure in MEASUREMENTS.items():
            if not given.only or name in given.only:
                print(f"{name} ...", file=sys.stderr, flush=True)
                rows += measure(bench)
    print(table(rows))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    print(f"{os.uname().release}, {os.cpu_count()} CPUs, load average {load}")
    if given.json:
        given.json.write_text(
            json.dumps([{**asdict(row), "ratio": row.ratio, "missed": row.missed} for row in rows], indent=1)
        )
    return int(any(row.missed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
