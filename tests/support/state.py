# SPDX-License-Identifier: BSD-2-Clause
"""A daemon's state files as a test reads and writes them."""

import os
from pathlib import Path

STATE = Path("/run/cuse-netmap/netmap")


def state(path: str) -> str:
    """The value of a file. OSError."""
    text = (STATE / path).read_text()
    assert text.endswith("\n"), f"{path}: {text!r}"
    return text[:-1]


def number(path: str) -> int:
    return int(state(path))


def write(path: str, value: object) -> int:
    """As `echo VALUE > FILE` does it; 0 or the errno."""
    try:
        fd = os.open(STATE / path, os.O_WRONLY | os.O_TRUNC | os.O_CREAT)
        try:
            os.write(fd, f"{value}\n".encode())
        finally:
            os.close(fd)
    except OSError as error:
        return error.errno or -1
    return 0
