# SPDX-License-Identifier: BSD-2-Clause
"""Programs that answer each other at once: a poll may wait a moment before its program sleeps (doors/spin.c)."""

import select
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.host import frame, number_of
from tests.support.patience import at_most
from tests.support.program import Program

ROUNDS = 20000  # of some ten microseconds each: polls learn to wait in a few
LENGTH = len(frame(0))


@pytest.fixture
def near(wires: Daemon) -> Iterator[Port]:
    """One end of a pipe, so that the other keeps what is sent to it between two programs."""
    del wires
    with Port("answers{1") as port:
        yield port


def test_no_wake_is_lost_between_programs_that_answer_each_other(
    near: Port, client_program: Callable[..., Path]
) -> None:
    """ABI.md section 11: whatever is published before a program sleeps wakes it."""
    del near
    echo = client_program("echo")
    with Program(echo, "netmap:answers}1", LENGTH, ROUNDS) as one:
        one.wait_for("ready")
        with Program(echo, "netmap:answers{1", LENGTH, ROUNDS, "begin") as other:
            assert (one.wait(at_most(50)), other.wait(at_most(10))) == (0, 0)


def test_a_descriptor_that_one_thread_has_polled_wakes_several(near: Port, client_program: Callable[..., Path]) -> None:
    """ABI.md section 11: sleepers wait on a queue; all of them re-run the sync."""
    rounds = 1000
    with Program(client_program("echo"), "netmap:answers}1", LENGTH, rounds) as echo:
        echo.wait_for("ready")
        for number in range(rounds):
            near.send(frame(number))
            assert near.poll(select.POLLIN, at_most(5)) == select.POLLIN, f"round {number}"
            assert [number_of(data) for data in near.take()] == [number]
        assert echo.wait(at_most(10)) == 0
    woken: list[int] = []
    with Port("answers}1") as far:
        waiters = [
            threading.Thread(target=lambda: woken.append(near.poll(select.POLLIN, at_most(5)))) for _ in range(5)
        ]
        for waiter in waiters:
            waiter.start()
        far.send(frame(1))
        for waiter in waiters:
            waiter.join()
    assert woken == [select.POLLIN] * 5
