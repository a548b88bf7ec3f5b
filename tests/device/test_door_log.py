# SPDX-License-Identifier: BSD-2-Clause
"""What an operator reads when a program is refused, and how much of it."""

import ctypes
import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from cuse_netmap.client import Port, control
from cuse_netmap.control.requests import Flag, Mode, Register, RequestType
from cuse_netmap.log import BURST, PERIOD
from tests.support.daemon import Daemon
from tests.support.program import Program

Start = Callable[..., Daemon]

TCGETS, NIOCCTRL, NIOCTXSYNC = 0x5401, 0xC0586997, 0x6994


@pytest.fixture
def served(way: tuple[str, ...], start_daemon: Start) -> Daemon:
    """A daemon of the test's own: its log starts empty."""
    return start_daemon(*way, "--tap=tap0")


def refusals(daemon: Daemon) -> list[str]:
    return [line for line in daemon.log.splitlines() if "refused" in line]


def test_every_refusal_is_one_line_with_who_what_and_why(served: Daemon, client_program: Callable[..., Path]) -> None:
    """Issue A, bad input: one line that names the client (pid, command), the request and the reason."""
    me = f"refused: pid {os.getpid()} ({Path('/proc/self/comm').read_text().strip()}): "
    fd = os.open("/dev/netmap", os.O_RDWR)
    body = Register()
    old = struct.pack("<HHI64sQQ", 3, 1, 0, b"", 0, 0)

    def register(name: str, request: Register) -> Callable[[], object]:
        return lambda: control(fd, RequestType.REGISTER, name, request)

    cases: list[tuple[Callable[[], object], int, str]] = [
        (lambda: fcntl.ioctl(fd, TCGETS, bytes(64)), errno.EOPNOTSUPP, "ioctl 0x5401: netmap has no such ioctl"),
        (lambda: fcntl.ioctl(fd, NIOCTXSYNC), errno.ENXIO, "NIOCTXSYNC: the descriptor is not registered on a port"),
        (register("tap9", body), errno.ENXIO, "NIOCCTRL REGISTER 'tap9': there is no port 'tap9' (configured: tap0)"),
        (register("tap0", Register(mode=Mode.DEFAULT)), errno.EINVAL, "NIOCCTRL REGISTER 'tap0': "),
        (register("tap0", Register(mem_id=9)), errno.EINVAL, "there is no memory region 9"),
        (
            lambda: control(fd, RequestType.REGISTER, "tap0", None),
            errno.EINVAL,
            "nr_body is 0x0, the request has a body",
        ),
        (
            lambda: fcntl.ioctl(fd, NIOCCTRL, old),
            errno.EINVAL,
            "API version 3",
        ),
        (
            lambda: control(fd, RequestType.REGISTER, "tap0", body, options=8),
            errno.EFAULT,
            "cannot read 24 bytes at 0x8",
        ),
    ]
    for number, (call, code, reason) in enumerate(cases, 1):
        with pytest.raises(OSError, match=r".") as refused:
            call()
        assert refused.value.errno == code
        name = "EOPNOTSUPP" if code == errno.EOPNOTSUPP else errno.errorcode[code]
        served.wait_for_log(f"({name})")
        lines = refusals(served)
        assert len(lines) == number
        assert me in lines[-1]
        assert reason in lines[-1]
    os.close(fd)
    with Port("tap0"), pytest.raises(OSError, match="busy"):
        Port("tap0", Register(flags=Flag.EXCLUSIVE))
    assert "EBUSY" in refusals(served)[-1]
    with Program(client_program("park"), "-t", 5) as parked:
        assert parked.number("errno") == errno.EBUSY
        served.wait_for_log("(park): NIOCCTRL: too many requests of this descriptor wait already (EBUSY)")


def test_who_comes_is_told_with_the_rings_in_words_and_the_self_test_is_not(served: Daemon) -> None:
    comers = {
        "all NIC rings": Register(),
        "NIC ring 0, RX only": Register(mode=Mode.ONE_NIC, flags=Flag.RX_RINGS_ONLY),
        "host ring 0": Register(mode=Mode.ONE_SW),
    }
    me = f"tap0 registered by pid {os.getpid()} ({Path('/proc/self/comm').read_text().strip()}): "
    for rings, request in comers.items():
        with Port("tap0", request):
            served.wait_for_log(f"{me}{rings}\n")
    assert "selftest" not in served.log


def test_a_flood_of_refusals_is_counted_not_written(served: Daemon) -> None:
    """Issue A, bad input; DESIGN.md section 5: logs are rate limited."""
    fd = os.open("/dev/netmap", os.O_RDWR)
    start = time.monotonic()
    for _ in range(10_000):
        with pytest.raises(OSError, match="not supported"):
            fcntl.ioctl(fd, TCGETS, bytes(64))
    periods = 1 + (time.monotonic() - start) // PERIOD
    os.close(fd)
    assert 1 <= len(refusals(served)) <= BURST * periods
    served.stop()
    # What was kept back is said at the latest at the end.
    kept_back = sum(int(number) for number in re.findall(r"and (\d+) like it", served.log))
    assert kept_back + len(refusals(served)) == 10_000


def test_no_name_of_a_program_or_port_makes_a_line_of_its_own(served: Daemon) -> None:
    """Issue A, bad input: one line; what a client names is not the log's to believe."""
    libc = ctypes.CDLL(None)
    before = Path("/proc/self/comm").read_bytes().strip()
    libc.prctl(15, b"x\nrefused: me\x1b[2J", 0, 0, 0)
    try:
        fd = os.open("/dev/netmap", os.O_RDWR)
        name = "evil\nrefused: pid 1\r\x1b[31m\u2028"
        with pytest.raises(OSError, match="No such device"):
            control(fd, RequestType.REGISTER, name, Register())
        slots = Register(mode=Mode.NULL, mem_id=1, tx_rings=1, rx_rings=1, tx_slots=8, rx_slots=8)
        control(fd, RequestType.REGISTER, name, slots)
        os.close(fd)
    finally:
        libc.prctl(15, before, 0, 0, 0)
    served.stop()
    assert len(refusals(served)) >= 1
    assert all(line.startswith("cuse-netmap: ") for line in served.log.splitlines())
    assert all(character.isprintable() for character in served.log.replace("\n", ""))


def test_a_wish_that_no_pool_can_fill_names_the_pool_that_is_short(start_daemon: Start) -> None:
    """Issue B: 64 VALE ports with default rings fit the default region; the log says which pool ends a larger wish."""
    daemon = start_daemon("--no-ports")
    with ExitStack() as stack:
        for i in range(79):
            stack.enter_context(Port(f"vale0:p{i}"))
        with pytest.raises(OSError, match="memory"):
            Port("vale0:p79")
    daemon.wait_for_log("the buffer pool is short: 2048 of 2048 bytes asked for, 2046 of 163838 are free (ENOMEM)")
