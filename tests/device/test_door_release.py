# SPDX-License-Identifier: BSD-2-Clause
"""close() and what can be opened right behind it, although the kernel's RELEASE comes later."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Register
from tests.support.patience import at_most
from tests.support.program import run

pytestmark = pytest.mark.usefixtures("daemon")

EXCLUSIVE = Register(flags=Flag.EXCLUSIVE)


def seconds_until_refused() -> float:
    start = time.monotonic()
    with pytest.raises(OSError, match="busy") as refusal:
        Port("tap0", EXCLUSIVE)
    assert refusal.value.errno == errno.EBUSY
    return time.monotonic() - start


@pytest.mark.parametrize(
    ("how", "count"),
    [("same", 1000), ("cpus", 500), ("dup", 300), ("map", 300), ("thread", 300), ("exit", 100), ("kill", 200)],
)
def test_an_exclusive_open_right_after_the_last_close_never_fails(
    client_program: Callable[..., Path], how: str, count: int
) -> None:
    """DESIGN.md section 2: RELEASE is asynchronous and gets overtaken; ABI.md section 15: close gives back."""
    assert run(client_program("reopen"), count, how) == ""


def test_two_processes_that_take_turns_never_find_the_port_taken(client_program: Callable[..., Path]) -> None:
    """ABI.md section 7: a ring is free once nobody holds it, whoever held it."""
    for _ in range(10):
        for how in ("same", "kill"):
            assert run(client_program("reopen"), 5, how) == ""


def test_a_port_that_is_really_held_is_refused_soon() -> None:
    """ABI.md section 7: EBUSY if a wanted ring has a user; DESIGN.md section 2: tried again for a while."""
    with Port("tap0", EXCLUSIVE):
        assert seconds_until_refused() < at_most(0.05)


def test_a_holder_that_closed_a_copy_still_holds() -> None:
    """ABI.md section 15: state is per open file; a copy closed is not the last."""
    with Port("tap0", EXCLUSIVE) as port:
        os.close(os.dup(port.fd))
        assert seconds_until_refused() < at_most(0.35)  # it may be closing, so this one waits
        os.close(os.dup(port.fd))
        port.txsync()
        assert seconds_until_refused() < at_most(0.05)  # it is not: it was used since
    Port("tap0", EXCLUSIVE).close()


def test_rings_that_do_not_meet_are_no_reason_to_refuse() -> None:
    """ABI.md section 7: exclusive is per ring; a port that others close is free for shared use all the time."""
    with Port("tap0"):
        for _ in range(50):
            Port("tap0").close()
