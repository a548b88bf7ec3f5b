# SPDX-License-Identifier: BSD-2-Clause
"""Where the threads of a process are: for a test that hit its time limit."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path


def dump(pid: int) -> str:
    """The kernel's view of every thread: its name, what it sleeps in, its stack where root may see it."""
    lines = [f"process {pid}: {_text(f'/proc/{pid}/cmdline').replace(chr(0), ' ')}"]
    with suppress(OSError):
        for task in sorted(Path(f"/proc/{pid}/task").iterdir()):
            lines.append(f"  thread {task.name} {_text(task / 'comm')} in {_text(task / 'wchan')}")
            lines += [f"    {frame}" for frame in _text(task / "stack").splitlines()]
    return "\n".join(lines)


def python_stacks(pid: int) -> None:
    """Makes a Python process with faulthandler write its threads' stacks to its log, and die."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)
        time.sleep(0.5)


def _text(path: Path | str) -> str:
    with suppress(OSError):
        return Path(path).read_text().strip()
    return "?"
