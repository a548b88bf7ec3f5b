# SPDX-License-Identifier: BSD-2-Clause
"""A C client as a test talks to it: started with pipes, read line by line with a time limit, always ended."""

import os
import select
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.patience import at_most

SECONDS = at_most(10.0)


class Program:
    """A client that runs until the end of the `with` block. AssertionError where it is not heard of in time."""

    def __init__(self, program: Path, *arguments: object) -> None:
        command = [str(program), *map(str, arguments)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.lines: list[str] = []
        self.rest = b""

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_for(self, text: str, count: int = 1, seconds: float = SECONDS) -> None:
        """Until it has said the line `text`, or a line that starts with it, `count` times in all."""
        deadline = time.monotonic() + seconds
        while self.said(text) < count:
            assert self._read(deadline), f"{self.process.args!r} said {self.lines}, wanted {count} times {text!r}"

    def said(self, text: str) -> int:
        return sum(line.startswith(text) for line in self.lines)

    def number(self, word: str, seconds: float = SECONDS) -> int:
        """The number in its line "WORD NUMBER"."""
        self.wait_for(f"{word} ", seconds=seconds)
        return next(int(line.split()[1]) for line in self.lines if line.startswith(f"{word} "))

    def hear(self, seconds: float) -> None:
        """Reads whatever it says within the time."""
        deadline = time.monotonic() + seconds
        while self._read(deadline):
            pass

    def _read(self, deadline: float) -> bool:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return False
        data = os.read(fd, 4096)
        *lines, self.rest = (self.rest + data).split(b"\n")
        self.lines += [line.decode() for line in lines]
        return bool(data)

    def tell(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def kill(self, seconds: float = SECONDS) -> float:
        """SIGKILL; the seconds until it was gone."""
        start = time.monotonic()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(seconds)
        return time.monotonic() - start

    def wait(self, seconds: float = SECONDS) -> int:
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        if self.process.poll() is None:
            self.kill()
        self.process.stdout.close()


def run(program: Path, *arguments: object, seconds: float = at_most(30.0)) -> str:
    """Runs a client to its end; its output. AssertionError, with the output, unless it exits with 0."""
    done = subprocess.run(
        [program, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert done.returncode == 0, f"{program.name} {arguments}: {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout
