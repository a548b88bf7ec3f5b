# SPDX-License-Identifier: BSD-2-Clause
"""Small steps that many tests take."""

import time
from collections.abc import Callable

from cuse_netmap.client import Port
from tests.support.patience import at_most


def wait_until(true: Callable[[], object], seconds: float = at_most(10.0)) -> None:
    """AssertionError if it is not true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_until_equal(now: Callable[[], str], expected: str, seconds: float = at_most(10.0)) -> None:
    """AssertionError with the difference if it does not become so in time."""
    deadline = time.monotonic() + seconds
    while (found := now()) != expected and time.monotonic() < deadline:
        time.sleep(0.005)
    assert found == expected


def refused(name: str) -> int | None:
    """The errno with which a port does not open; 0 if it does."""
    try:
        Port(name).close()
    except OSError as error:
        return error.errno
    return 0
