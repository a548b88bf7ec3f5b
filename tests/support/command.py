# SPDX-License-Identifier: BSD-2-Clause
"""The command as somebody types it, and what it says when it cannot."""

import subprocess
import sys

import pytest

from tests.support.patience import at_most

COMMAND = [sys.executable, "-m", "cuse_netmap"]
NOBODY = 65534


def cuse_netmap(*arguments: str, user: int | None = None) -> "subprocess.CompletedProcess[str]":
    """To its end, as root or as that user and no member of any group."""
    try:
        return subprocess.run(
            [*COMMAND, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=at_most(30),
            stdin=subprocess.DEVNULL,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
    except PermissionError:  # somebody's home, in Debian 12
        pytest.skip("the checkout is in a folder that other users may not enter")


def one_sentence(result: "subprocess.CompletedProcess[str]") -> str:
    """Exit status 1, nothing on standard output, one line (but for notes) on standard error: what it says."""
    assert result.returncode == 1, result
    assert result.stdout == ""
    lines = [line for line in result.stderr.splitlines() if ": INFO: " not in line]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("cuse-netmap: ")
    return lines[0].removeprefix("cuse-netmap: ")
