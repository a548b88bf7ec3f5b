# SPDX-License-Identifier: BSD-2-Clause
"""A TAP that somebody deletes: programs are told, and a reload brings it back (ABI.md 15)."""

import errno
import os
import select
import signal
import threading
from collections.abc import Callable

import pytest

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip
from tests.support.patience import at_most
from tests.support.steps import refused, wait_until

SOON = at_most(3.0)


@pytest.fixture
def fragile(start_daemon: Callable[..., Daemon], way: tuple[str, ...]) -> Daemon:
    """A daemon with a TAP that may be deleted."""
    return start_daemon("--tap=doomed", "--tap=other", *way)


def test_a_deleted_tap_ends_syncs_with_eio_and_polls_with_pollerr(fragile: Daemon) -> None:
    """ABI.md 15: interface unregistered while open."""
    with Port("doomed") as port, Port("other") as other:
        ip("link", "del", "doomed")
        fragile.wait_for_log("the interface behind doomed has been deleted")
        assert port.poll(select.POLLIN, 0) == select.POLLERR
        for sync in (port.rxsync, port.txsync):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                sync()
        assert port.poll(select.POLLIN | select.POLLOUT, SOON) == select.POLLERR
        assert other.poll(select.POLLOUT, SOON) == select.POLLOUT
    assert refused("doomed") == errno.ENXIO


@pytest.mark.parametrize("traffic", [False, True], ids=["idle", "after traffic"])
@pytest.mark.parametrize("full", [False, True], ids=["empty", "full"])
def test_deleting_the_tap_wakes_a_sleeper_with_pollerr(fragile: Daemon, traffic: bool, full: bool) -> None:
    del fragile
    with Port("doomed") as port:
        if traffic:
            with Host("doomed") as host:
                timer = threading.Timer(0.05, host.send, args=(frame(1),))
                timer.start()
                assert port.receive() == frame(1)
                timer.join()
        if full:
            with Host("doomed") as host:
                for _ in range(2):
                    host.send(*map(frame, range(900)))
                    port.poll(select.POLLIN, 0)
            assert port.rx[0].space == 1023
            port.rx[0].cur = port.rx[0].tail
        timer = threading.Timer(0.1, ip, args=("link", "del", "doomed"))
        timer.start()
        assert port.poll(select.POLLIN, SOON) == select.POLLERR
        timer.join()


@pytest.mark.parametrize("used", [False, True])
def test_after_sighup_a_deleted_tap_is_back(fragile: Daemon, used: bool) -> None:
    if used:
        with Port("doomed") as port, Host("doomed") as host:
            timer = threading.Timer(0.05, host.send, args=(frame(1),))
            timer.start()
            assert port.receive() == frame(1)
            timer.join()
    ip("link", "del", "doomed")
    fragile.process.send_signal(signal.SIGHUP)
    fragile.wait_for_log("[ports.doomed]: made anew")
    with Port("doomed") as port, Host("doomed") as host:
        host.send(frame(1))
        assert port.receive() == frame(1)


def test_a_program_that_still_holds_a_deleted_tap_does_not_disturb_the_new_one(fragile: Daemon) -> None:
    with Port("doomed") as port:
        ip("link", "del", "doomed")
        fragile.wait_for_log("the interface behind doomed has been deleted")
        fragile.process.send_signal(signal.SIGHUP)
        fragile.wait_for_log("made anew")
        successor = Port("doomed")
        assert port.poll(select.POLLIN, 0) == select.POLLERR
    with successor, Host("doomed") as host:
        host.send(frame(1))
        assert successor.receive() == frame(1)


def test_a_tap_whose_name_was_taken_meanwhile_comes_back_by_a_later_sighup(fragile: Daemon) -> None:
    ip("link", "del", "doomed")
    ip("link", "add", "doomed", "type", "bridge")
    try:
        wait_until(lambda: refused("doomed") == errno.ENXIO)
        fragile.process.send_signal(signal.SIGHUP)
        fragile.wait_for_log("an interface doomed exists already")
    finally:
        ip("link", "del", "doomed")
    fragile.process.send_signal(signal.SIGHUP)
    fragile.wait_for_log("reload: [ports.doomed]: done")
    with Port("doomed") as port:
        assert port.poll(select.POLLOUT, SOON) == select.POLLOUT
