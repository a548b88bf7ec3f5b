# SPDX-License-Identifier: BSD-2-Clause
"""What can be told of a process: another's name, and what we may do ourselves."""

import logging
import os
from pathlib import Path

CAP_SYS_ADMIN = 21
SELF_TEST = "netmap-selftest"  # our program that proves a device at its start, by the name that its process has too


def command_of(pid: int) -> str:
    """The name of the program that a thread belongs to; "?" once it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="backslashreplace").rstrip("\n")
    except OSError:
        return "?"


def news_level(command: str) -> int:
    """How loudly it is said that such a program comes and goes."""
    return logging.DEBUG if command == SELF_TEST else logging.INFO


def privileged() -> bool:
    """Whether we are root, of a container perhaps, or have been given the capability that a mount takes."""
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return os.geteuid() == 0 or bool(int(effective.split()[1], 16) >> CAP_SYS_ADMIN & 1)
