# SPDX-License-Identifier: BSD-2-Clause
"""What can be told of another process."""

from pathlib import Path


def command_of(pid: int) -> str:
    """The name of the program that a thread belongs to; "?" once it has gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(errors="backslashreplace").rstrip("\n")
    except OSError:
        return "?"
