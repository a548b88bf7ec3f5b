# SPDX-License-Identifier: BSD-2-Clause
"""Nothing vanishes: what was sent is received, pending, or counted where it was dropped, whoever is killed (issue B).

A daemon a test: the log, which has the counts, is rate limited.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Register
from tests.support.daemon import Daemon
from tests.support.ioctls import free_buffers, settled
from tests.support.stream import Stream, crossed

POOL = 163838
RECEIVES = Register(flags=Flag.RX_RINGS_ONLY)
TIMES: list[tuple[int, list[object]]] = [(0, []), (9, []), (3, ["-x"])]
KILLED = pytest.mark.parametrize(("milliseconds", "options"), TIMES, ids=["at once", "plain", "extra"])


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    return start_daemon()


@pytest.fixture
def stream(client_program: Callable[..., Path]) -> Path:
    return client_program("stream")


def number_of(frame: bytes) -> int:
    """The number that stream.c has put in it."""
    return int.from_bytes(frame[16:24], "little")


# ---- pipes


@KILLED
def test_a_killed_sender_of_a_pipe_has_sent_what_was_received_and_what_is_pending(
    daemon: Daemon, stream: Path, milliseconds: int, options: list[object]
) -> None:
    """ABI.md 12.3: sent = received + pending, always; no buffer is lost."""
    with Stream(stream, "receive", "p}1", "-p", *options) as receiver:
        with Stream(stream, "send", "p{1", *options) as sender:
            time.sleep(milliseconds / 1000)
            sender.kill()
        sent = crossed(daemon, "p{1")["sent"]
        with Port("p}1", RECEIVES) as rest:
            got = receiver.end()
            rest.rxsync()
            assert (got.frames + rest.rx[0].space, got.frames == 0 or got.clean) == (sent, True)
    assert settled(free_buffers, POOL) == POOL


@KILLED
def test_a_killed_receiver_of_a_pipe_leaves_pending_what_it_has_not_released(
    daemon: Daemon, stream: Path, milliseconds: int, options: list[object]
) -> None:
    """ABI.md 12.3: sent = received + pending, always; no buffer is lost."""
    with Stream(stream, "send", "p{1", "-p", *options) as sender:
        with Stream(stream, "receive", "p}1", *options) as receiver:
            time.sleep(milliseconds / 1000)
            receiver.kill()
        with Port("p}1", RECEIVES) as rest:
            sent = sender.end().frames
            rest.rxsync()  # releases, too, what the dead receiver had moved its head over
            pending = rest.rx[0].space
            if not options:
                assert [number_of(frame) for frame in rest.take()] == list(range(sent - pending, sent))
    assert crossed(daemon, "p}1", 2)["received"] + pending == sent
    assert settled(free_buffers, POOL) == POOL


def test_senders_killed_one_after_the_other_lose_no_frame_of_a_pipe(daemon: Daemon, stream: Path) -> None:
    """ABI.md 12.3: each next one goes on where the last was stopped; what that had not synced yet is sent, too."""
    with Stream(stream, "receive", "p}1", "-p") as receiver:
        for turn in range(5):
            with Stream(stream, "send", "p{1", "-f", turn * 1_000_000_000) as sender:
                time.sleep(0.005)
                sender.kill()
        sent = crossed(daemon, "p{1", 5)["sent"]
        with Port("p}1", RECEIVES) as rest:
            got = receiver.end()
            rest.rxsync()
            assert (got.frames + rest.rx[0].space, got.bad, got.repeats) == (sent, 0, 0)
