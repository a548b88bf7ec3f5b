# SPDX-License-Identifier: BSD-2-Clause
"""Nothing vanishes: what was sent is received, pending, or counted where it was dropped, whoever is killed (issue B).

A daemon a test: the log, which has the counts, is rate limited.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cuse_netmap.client import NS_MOREFRAG, Port
from cuse_netmap.control.requests import Flag, Register
from tests.support.daemon import Daemon
from tests.support.ioctls import free_buffers, settled
from tests.support.stream import Stream, crossed
from tests.support.switches import BROADCAST, arrived, frame, mac, opened, persistent, send

POOL = 163838
A, B = mac(1), mac(2)
RECEIVES = Register(flags=Flag.RX_RINGS_ONLY)
TIMES: list[tuple[int, list[object]]] = [(0, []), (9, []), (3, ["-x"])]
KILLED = pytest.mark.parametrize(("milliseconds", "options"), TIMES, ids=["at once", "plain", "extra"])


@pytest.fixture
def daemon(start_daemon: Callable[..., Daemon]) -> Daemon:
    return start_daemon()


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


# ---- VALE


def test_every_frame_sent_into_a_switch_is_delivered_or_counted(daemon: Daemon) -> None:
    """ABI.md 12.5: per port, sent = delivered + dropped, and the counters say where."""
    with opened("vale0:b", rx_slots=16) as b, opened("vale0:a") as a:
        send(b, frame(BROADCAST, B))
        arrived(a)
        send(a, *[frame(B, A, i) for i in range(20)])  # 15 fit
        send(a, frame(A, A), frame(A, A))  # its own address
        send(a, b"short")
        tx = a.tx[0]
        for length, flags in ((3000, 0), (60, NS_MOREFRAG)):  # longer than a buffer, and never complete
            tx.set_slot(tx.head, tx.slot(tx.head)[0], length, flags)
            tx.advance()
            a.txsync()
        assert len(arrived(b)) == 15
    sender, receiver = crossed(daemon, "vale0:a"), crossed(daemon, "vale0:b")
    assert sender["sent"] == 20 + 2 + 1 + 1 + 1
    dropped = {kind.removeprefix("sent "): n for kind, n in sender.items() if kind.startswith("sent ")}
    assert dropped == {"nowhere": 2, "short": 2, "bad": 1}
    assert (receiver["received"], receiver["received full"]) == (15, 5)
    assert sender["sent"] == receiver["received"] + receiver["received full"] + sum(dropped.values())


def test_frames_to_nobody_are_counted(daemon: Daemon) -> None:
    """ABI.md 12.5: alone on a switch, and on none."""
    with opened("vale0:a") as a:
        send(a, *[frame(BROADCAST, A) for _ in range(7)])
    assert dict(crossed(daemon, "vale0:a")) == {"sent": 7, "sent nowhere": 7, "received": 0}
    with persistent("pers"):
        with opened("pers") as port:
            send(port, *[frame(BROADCAST, A) for _ in range(5)])
        assert dict(crossed(daemon, "pers")) == {"sent": 5, "sent sink": 5, "received": 0}


@pytest.mark.parametrize("milliseconds", [0, 9])
def test_a_sender_killed_in_a_burst_has_sent_what_was_delivered_or_counted(
    daemon: Daemon, stream: Path, milliseconds: int
) -> None:
    """ABI.md 12.5: sent = delivered + dropped, as the receiver itself counts them."""
    with Stream(stream, "receive", "vale0:b") as receiver:
        with Stream(stream, "send", "vale0:a") as sender:
            time.sleep(milliseconds / 1000)
            sender.kill()
        sent = crossed(daemon, "vale0:a")["sent"]
        got = receiver.end()
    counted = crossed(daemon, "vale0:b")
    assert (got.bad, got.repeats, got.frames) == (0, 0, counted["received"])
    assert sent == counted["received"] + counted["received full"]
    assert settled(free_buffers, POOL) == POOL


@pytest.mark.parametrize("milliseconds", [0, 9])
def test_a_receiver_killed_in_a_burst_has_been_given_what_was_not_dropped(
    daemon: Daemon, stream: Path, milliseconds: int
) -> None:
    """ABI.md 12.5: what comes after it had gone went nowhere, and is counted at the sender."""
    with Stream(stream, "send", "vale0:a") as sender:
        with Stream(stream, "receive", "vale0:b", "-x") as receiver:
            time.sleep(milliseconds / 1000)
            receiver.kill()
        receiver_counts = crossed(daemon, "vale0:b")
        sent = sender.end().frames
    counts = crossed(daemon, "vale0:a")
    assert counts["sent"] == sent
    assert sent == receiver_counts["received"] + receiver_counts["received full"] + counts["sent nowhere"]
    assert settled(free_buffers, POOL) == POOL


def test_a_flood_is_counted_at_each_receiver(daemon: Daemon, stream: Path) -> None:
    """ABI.md 12.5: each has its own count of what it got and what it lost."""
    with opened("vale0:c", rx_slots=32), Stream(stream, "receive", "vale0:b") as receiver:
        with Stream(stream, "send", "vale0:a", "-n", 5000) as sender:
            sender.report()
        got = receiver.end()
    b, c = crossed(daemon, "vale0:b"), crossed(daemon, "vale0:c")
    assert (b["received"], b["received"] + b["received full"]) == (got.frames, 5000)
    assert (c["received"], c["received full"]) == (31, 4969)
