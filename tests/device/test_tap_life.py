# SPDX-License-Identifier: BSD-2-Clause
"""What happens to a TAP and its port while programs hold it: down, up, deleted, resized; programs killed; counters."""

import errno
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, Register
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip, ours
from tests.support.ioctls import settled
from tests.support.patience import at_most
from tests.support.steps import refused, wait_until

SOON = at_most(3.0)
ALL = 1 << 20  # more buffers than there are


def left(daemon: Daemon, port: str) -> dict[str, str]:
    """What the daemon logged when the last program left the port: by "received" and "sent"."""
    lines = re.findall(rf": {port}: (received .*); (sent .*)", daemon.log)
    return {"received": lines[-1][0], "sent": lines[-1][1]} if lines else {}


# ---- down and up


def test_frames_sent_while_the_interface_is_down_are_dropped_and_slots_return(daemon: Daemon) -> None:
    with Port("tap0") as port, Host("tap0") as host:
        ip("link", "set", "tap0", "down")
        for number in range(100):
            assert port.put(frame(number))
        port.txsync()
        assert port.tx[0].space == port.tx[0].num_slots - 1
        assert port.poll(select.POLLOUT, SOON) == select.POLLOUT
        ip("link", "set", "tap0", "up")
        port.send(frame(100))
        host.socket.settimeout(SOON)
        wait_until(lambda: _receives(host, frame(100)))
        host.send(frame(101))
        assert port.receive() == frame(101)
    daemon.wait_for_log("dropped 100 down")


def _receives(host: Host, wanted: bytes) -> bool:
    try:  # the socket is told once that the interface went down
        return host.receive() == wanted
    except OSError as error:
        if error.errno != errno.ENETDOWN:
            raise
        return False


def test_a_sleeper_sleeps_through_down_and_up_and_wakes_for_the_next_frame(daemon: Daemon) -> None:
    del daemon
    with Port("tap0") as port:
        ip("link", "set", "tap0", "down")
        assert port.poll(select.POLLIN, 0.1) == 0
        ip("link", "set", "tap0", "up")

        def send() -> None:
            with Host("tap0") as host:
                host.send(frame(1))

        timer = threading.Timer(0.1, send)
        timer.start()
        assert port.poll(select.POLLIN, SOON) == select.POLLIN
        timer.join()
        assert port.receive() == frame(1)


def test_a_port_opens_while_its_interface_is_down(daemon: Daemon) -> None:
    del daemon
    ip("link", "set", "tap0", "down")
    try:
        with Port("tap0") as port:
            assert port.poll(select.POLLIN, 0) == 0
            ip("link", "set", "tap0", "up")
            with Host("tap0") as host:
                host.send(frame(1))
                assert port.receive() == frame(1)
    finally:
        ip("link", "set", "tap0", "up")


# ---- MTU


def test_an_mtu_beyond_a_buffer_refuses_the_first_open_with_the_sizes_in_the_log(daemon: Daemon) -> None:
    ip("link", "set", "tap0", "mtu", "2049")
    try:
        assert refused("tap0") == errno.EINVAL
        daemon.wait_for_log("the MTU of tap0 is 2049, a buffer has 2048 bytes")
        ip("link", "set", "tap0", "mtu", "2048")
        assert refused("tap0") == 0
    finally:
        ip("link", "set", "tap0", "mtu", "1500")


def test_only_the_first_open_looks_at_the_mtu(daemon: Daemon) -> None:
    del daemon
    with Port("tap0"):
        ip("link", "set", "tap0", "mtu", "9000")
        try:
            assert refused("tap0") == 0
        finally:
            ip("link", "set", "tap0", "mtu", "1500")


# ---- what is counted


def test_frames_of_before_the_open_are_not_delivered_and_counted(daemon: Daemon) -> None:
    with Host("tap0") as host:
        host.send(*map(frame, range(5)))
        with Port("tap0") as port:
            host.send(frame(5))
            assert port.receive() == frame(5)
    daemon.wait_for_log("dropped 5 stale")
    assert left(daemon, "tap0") == {
        "received": "received 1 packets, 60 bytes, dropped 5 stale",
        "sent": "sent 0 packets, 0 bytes",
    }


def test_the_last_program_to_leave_gets_a_line_with_what_crossed_and_what_was_dropped(daemon: Daemon) -> None:
    lines = daemon.log.count("tap1: received")
    with Port("tap1") as first, Host("tap1") as host:
        with Port("tap1"):
            for number in range(10):
                first.send(frame(number, 100))
        host.send(frame(1), frame(2))
        assert [first.receive(), first.receive()] == [frame(1), frame(2)]
        first.put(b"short")
        first.txsync()
        ip("link", "set", "tap1", "mtu", "3000")
        host.send(frame(3, 2500))
        first.rxsync()
        ip("link", "set", "tap1", "mtu", "1500")
    daemon.wait_for_log("1 short")
    assert daemon.log.count("tap1: received") == lines + 1
    assert left(daemon, "tap1") == {
        "received": "received 2 packets, 120 bytes, dropped 1 long",
        "sent": "sent 10 packets, 1000 bytes, dropped 1 short",
    }


# ---- programs that are killed

VICTIM = """
import os, select, sys
from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
port = Port("tap0", Register(mode=Mode.ALL_NIC, extra_bufs=100))
os.write(1, b"1")
while True:
    for received in port.take():
        port.put(received)
    ring, spare = port.tx[0], port.bufs_head
    while ring.space:  # swaps buffers, so that it may be killed between the halves of one
        other, length, flags, _ = ring.slot(ring.head)
        ring.set_slot(ring.head, spare, 60, 1)
        spare = other
        ring.advance()
    port.poll(select.POLLIN | select.POLLOUT, 0.01)
"""


def free_buffers() -> int:
    """What a program is given that asks for all."""
    with Port("tap1", Register(mode=Mode.ALL_NIC, extra_bufs=ALL)) as port:
        return port.granted.extra_bufs


def test_a_program_killed_at_any_moment_leaves_everything_to_the_next(daemon: Daemon) -> None:
    del daemon
    before = free_buffers()
    moments = [number * 0.05 / 12 for number in range(12)]
    with Host("tap0") as host:
        for number, moment in enumerate(moments):
            victim = subprocess.Popen(
                [sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
            )
            assert victim.stdout
            assert victim.stdout.read(1) == b"1"
            victim.stdout.close()
            deadline = time.monotonic() + moment
            while time.monotonic() < deadline:
                host.send(*map(frame, range(20)))
            victim.kill()
            victim.wait(SOON)
            host.waiting()
            # Exclusively: nothing of the dead one is in the way, not even for a moment.
            with Port("tap0", Register(mode=Mode.ALL_NIC, flags=Flag.EXCLUSIVE)) as port:
                host.send(frame(number))
                assert ours([port.receive()]) == [frame(number)]
                port.send(frame(number + 100))
                while host.receive() != frame(number + 100):
                    pass
    assert settled(free_buffers, before) == before


def test_a_program_stopped_in_the_middle_delays_nobody(daemon: Daemon) -> None:
    del daemon
    victim = subprocess.Popen([sys.executable, "-c", VICTIM], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        assert victim.stdout
        assert victim.stdout.read(1) == b"1"
        victim.stdout.close()
        os.kill(victim.pid, signal.SIGSTOP)
        with Port("tap1") as port, Host("tap1") as host:
            host.send(frame(1))
            assert port.receive() == frame(1)
        with Port("tap0") as same:
            assert same.poll(select.POLLOUT, SOON) == select.POLLOUT
    finally:
        victim.kill()
        victim.wait(SOON)
