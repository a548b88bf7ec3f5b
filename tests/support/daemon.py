# SPDX-License-Identifier: BSD-2-Clause
"""A real daemon as a test runs it: started by the command, stopped by a signal, its log looked through."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.support import stacks
from tests.support.patience import at_most

STOP_SECONDS = at_most(10)
# What no log may contain, whatever a test does to the daemon.
BAD_WORDS = ("Traceback", "control failed", "AddressSanitizer", "runtime error", "Segmentation fault", "Aborted")

running: "dict[int, Daemon]" = {}


class Daemon:
    """`cuse-netmap serve OPTIONS`, ready when made. AssertionError, with the log, if it does not start.

    under: a command that starts it, such as setpriv.
    """

    def __init__(self, log: Path, *options: str, expect_ready: bool = True, under: Sequence[str] = ()) -> None:
        self.log_path = log
        reader, writer = os.pipe()
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "cuse_netmap", "serve", *options, "--ready-fd", str(writer)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(writer,),
                env={**os.environ, "PYTHONFAULTHANDLER": "1"},
            )
        os.close(writer)
        running[self.process.pid] = self
        try:
            self.mmap = os.read(reader, 64).decode()  # "passthrough" or "helper"; "" if it did not start
        finally:
            os.close(reader)
        if not self.mmap:
            self.process.wait(STOP_SECONDS)
            running.pop(self.process.pid)
        if expect_ready:
            assert self.mmap, f"the daemon did not start:\n{self.log}"

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def wait_for_log(self, text: str, seconds: float = at_most(5.0)) -> str:
        """The log once it contains `text`; AssertionError after a while."""
        deadline = time.monotonic() + seconds
        while text not in self.log:
            assert time.monotonic() < deadline, f"no {text!r} in the log:\n{self.log}"
            time.sleep(0.01)
        return self.log

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal, waits, looks through the log; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            report = stacks.dump(self.pid)
            stacks.python_stacks(self.pid)
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the daemon does not end:\n{report}\n{self.log}") from None
        finally:
            running.pop(self.pid, None)
        bad = [word for word in BAD_WORDS if word in self.log]
        assert not bad, f"{bad} in the log:\n{self.log}"
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        status = self.stop()
        if kind is None:
            assert status == 0, f"exit status {status}:\n{self.log}"


def report_all() -> str:
    """The stacks and logs of all daemons that run now, which it ends."""
    parts = []
    for pid, daemon in list(running.items()):
        parts.append(stacks.dump(pid))
        stacks.python_stacks(pid)
        daemon.process.kill()
        parts.append(daemon.log)
    return "\n".join(parts)
