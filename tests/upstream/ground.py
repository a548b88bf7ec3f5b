# SPDX-License-Identifier: BSD-2-Clause
"""The ground upstream's programs run on: namespaces, `cuse-netmap run` around each, nothing left behind."""

import ctypes
import os
import pty
import re
import resource
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from cuse_netmap.namespace import unshare_mounts
from tests.support import stacks

CLONE_NEWNET = 0x40000000
PR_SET_CHILD_SUBREAPER = 36
# fd_server closes every descriptor up to the limit: with a million of them each of its starts takes a second.
DESCRIPTORS = 4096
END_SECONDS = 8.0  # what `run` may take to end its daemon, and some more
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
ROOT = Path(__file__).resolve().parent.parent.parent

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass
class Ended:
    """How a program ended: its exit status, None if it hung and was killed; what it and the daemon said."""

    status: int | None = None
    lines: list[str] = field(default_factory=list)

    @property
    def ending(self) -> str:
        """That status in words."""
        return "it hangs" if self.status is None else f"exit status {self.status}"


def unshare(*needed: Path) -> None:
    """Mounts, interfaces and orphans are ours from now on, and /tmp, where the suites' servers have fixed names.

    /tmp stays everybody's if one of the `needed` paths lies there. OSError, SetupError.
    """
    unshare_mounts()
    if _libc.unshare(CLONE_NEWNET) or _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "a private network namespace")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    if not any(path.resolve().is_relative_to("/tmp") for path in (ROOT, Path(sys.prefix), *needed)):  # noqa: S108
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/tmp"], check=True)  # noqa: S108
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(DESCRIPTORS, hard), hard))


class Ground:
    """Runs the programs of one folder, which stands first in their PATH, and writes all they say to a log."""

    def __init__(self, binaries: Path, log: TextIO, stubs: Path) -> None:
        self.binaries = binaries
        self.log = log
        for name in ("modprobe", "rmmod"):  # the kernel's own netmap stays out of it
            (stubs / name).symlink_to(shutil.which("true") or "/bin/true")
        path = f"{stubs}:{binaries}:{os.environ.get('PATH', os.defpath)}"
        self.environment = {**os.environ, "PATH": path, "LC_ALL": "C", "PYTHONPATH": str(ROOT)}

    def missing(self, *programs: str) -> str:
        """Why a suite that needs these cannot run; "" if it can."""
        absent = [name for name in programs if not shutil.which(name, path=self.environment["PATH"])]
        return f"no {', '.join(absent)} in {self.binaries} or PATH" if absent else ""

    def listing(self, *command: str) -> list[str]:
        """What a program prints that needs no device."""
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=20, env=self.environment)
        return done.stdout.splitlines()

    def run(self, command: Sequence[str], seconds: float, *, tap: str = "", case_begins: str = "") -> Ended:
        """`cuse-netmap run COMMAND` in a terminal, with our TAP device `tap` if named.

        A terminal, so that programs that are killed have said what they had to say. It may be silent for no longer than
        `seconds` after its start or after a line with `case_begins` in it; then it is killed.
        """
        options = [f"--tap={tap}"] if tap else []
        command = [sys.executable, "-m", "cuse_netmap", "run", "--no-ports", *options, "--", *command]
        self.log.write(f"\n# {' '.join(command)}\n")
        ended = Ended()
        with self._terminal(command) as (process, reader):
            deadline = time.monotonic() + seconds
            for line in _lines(process, reader):
                if line is None:
                    if time.monotonic() < deadline:
                        continue
                    self._report_hang(process)
                    break
                ended.lines.append(line)
                self.log.write(f"{line}\n")
                self.log.flush()
                if case_begins and case_begins in line:
                    deadline = time.monotonic() + seconds
            else:
                ended.status = process.wait()
        self.log.write(f"# {ended.ending}\n")
        return ended

    @contextmanager
    def _terminal(self, command: Sequence[str]) -> Iterator[tuple["subprocess.Popen[bytes]", int]]:
        reader, terminal = pty.openpty()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=terminal,
                env=self.environment,
                start_new_session=True,
            )
        finally:
            os.close(terminal)
        try:
            yield process, reader
        finally:
            os.close(reader)
            _end(process)

    def _report_hang(self, process: "subprocess.Popen[bytes]") -> None:
        self.log.write("# it hangs\n")
        for pid in _descendants(os.getpid()):
            self.log.write(f"{stacks.dump(pid)}\n")
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)


def _lines(process: "subprocess.Popen[bytes]", reader: int) -> Iterator[str | None]:
    """What is said until the program has ended; None again and again while nothing is."""
    rest = b""
    while True:
        running = process.poll() is None
        data = b""
        if select.select([reader], [], [], 0.1 if running else 0)[0]:
            with suppress(OSError):  # EIO: nobody has the terminal any more
                data = os.read(reader, 65536)
            if not data:
                time.sleep(0.01)
        *complete, rest = (rest + data).split(b"\n")
        yield from (_plain(line) for line in complete)
        if not data:
            if not running:
                break
            yield None
    if rest:
        yield _plain(rest)


def _plain(line: bytes) -> str:
    return COLOURS.sub("", line.decode(errors="replace")).rstrip("\r")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Kills what is left of it: itself, its daemon, and servers that it left behind, which are our children now."""
    if process.poll() is None:
        process.kill()
        process.wait()
    deadline = time.monotonic() + END_SECONDS
    while left := _descendants(os.getpid()):
        for pid in left:
            # A daemon whose `run` is gone takes its mount away and ends; an end by force comes later.
            if time.monotonic() > deadline or not _is_daemon(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.01)


def _is_daemon(pid: int) -> bool:
    with suppress(OSError):
        return b"cuse_netmap\0serve\0" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(path.parent.name))
    found: list[int] = []
    following = list(children.get(ancestor, []))
    while following:
        found.append(following.pop())
        following += children.get(found[-1], [])
    return found
