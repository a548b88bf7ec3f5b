# SPDX-License-Identifier: BSD-2-Clause
"""How sync loops end, and what they cost others: by every way in (ABI.md section 13.3)."""

import errno
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Register
from tests.support.csb import Csb, Kicks, Loop, Pages, start, stop
from tests.support.daemon import Daemon
from tests.support.ioctls import settled
from tests.support.patience import at_most
from tests.support.program import Program, run
from tests.support.steps import wait_until

pytestmark = pytest.mark.usefixtures("daemon")

EXCLUSIVE = Register(flags=Flag.EXCLUSIVE)
KINDS = ("busy", "kicks", "full", "stuck")


@pytest.fixture
def kloop(client_program: Callable[..., Path]) -> Path:
    return client_program("kloop")


@pytest.fixture
def csb() -> Csb:
    return Csb()


@pytest.fixture
def tap(csb: Csb) -> Iterator[Port]:
    """A port with a wire, in CSB mode."""
    with Port("tap0", EXCLUSIVE) as port:
        assert csb.enable(port.fd) == 0
        yield port


def loops(daemon: Daemon) -> int:
    """How many threads of the daemon are loops."""
    found = 0
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        with suppress(OSError):  # it has ended since, or ends
            found += (task / "comm").read_text() == "kloop\n"
    return found


def descriptors(daemon: Daemon) -> int:
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def descriptors_at_rest(daemon: Daemon) -> int:
    """A daemon that has just started puts some away yet."""
    found: list[int] = []

    def at_rest() -> bool:
        time.sleep(0.05)
        found.append(descriptors(daemon))
        return found[-3:] == [found[-1]] * 3

    wait_until(at_rest)
    return found[-1]


@pytest.fixture(autouse=True)
def nothing_is_left(daemon: Daemon) -> Iterator[None]:
    """Behind each test there are as many loops and descriptors as before, and the port is free."""
    assert settled(lambda: loops(daemon), 0) == 0
    before = descriptors_at_rest(daemon)
    yield
    assert settled(lambda: loops(daemon), 0) == 0
    assert settled(lambda: descriptors(daemon), before) == before
    Port("tap0", EXCLUSIVE).close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_killed_while_it_loops_is_gone_at_once(daemon: Daemon, kloop: Path, kind: str) -> None:
    """Issue B: client death while looping; DESIGN.md section 2: within 100 ms of its INTERRUPT."""
    for _ in range(3):
        with Program(kloop, kind, "tap0") as looping:
            looping.wait_for("looping")
            assert settled(lambda: loops(daemon), 1) == 1
            assert looping.kill() < at_most(5)  # a caller that nobody answers stays for ever
        assert settled(lambda: loops(daemon), 0) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_signal_ends_start_with_eintr_and_the_loop_with_it(kloop: Path, kind: str) -> None:
    """DESIGN.md section 2: an interrupted request is answered, whatever holds it up."""
    with Program(kloop, kind, "tap0") as looping:
        looping.wait_for("looping")
        thread = max(int(task.name) for task in Path(f"/proc/{looping.pid}/task").iterdir())
        sent = time.monotonic()
        os.kill(thread, signal.SIGUSR1)
        assert looping.number("errno") == errno.EINTR
        assert time.monotonic() - sent < at_most(5)  # it is not the program that ends it


@pytest.mark.parametrize("with_kicks", [False, True])
@pytest.mark.parametrize("array", ["to_kernel", "to_program"])
def test_arrays_unmapped_under_the_loop_end_it_with_efault(
    tap: Port, csb: Csb, array: str, *, with_kicks: bool
) -> None:
    """Issue B, bad input: CSB arrays unmapped while the loop runs."""
    pages: Pages = getattr(csb, array)
    with Kicks() as kicks, Loop(tap.fd, csb, 100, kicks.option() if with_kicks else 0) as loop:
        pages.unmap()
        if array == "to_program":
            csb.move(0, 1)  # something to tell
        kicks.kick(0)
        assert loop.join() == errno.EFAULT
    again = Csb()
    assert again.enable(tap.fd) == 0
    with Loop(tap.fd, again):
        pass


def test_a_descriptor_closed_while_it_loops_is_released_when_the_loop_ends(daemon: Daemon) -> None:
    """ABI.md section 15: the system call keeps the file; SIGUSR1 is the only way out then."""
    csb, port = Csb(), Port("tap0", EXCLUSIVE)
    assert csb.enable(port.fd) == 0
    with Loop(port.fd, csb) as loop:
        port.close()
        assert settled(lambda: loops(daemon), 1) == 1
        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.pthread_kill(loop.thread.ident or 0, signal.SIGUSR1)
        assert loop.join() == errno.EINTR
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("kind", ["busy", "stuck"])
def test_loops_cost_no_other_client_its_sync(client_program: Callable[..., Path], kloop: Path, kind: str) -> None:
    """Issue B: a busy loop never costs another client its sync."""
    sync = client_program("sync")
    with Program(kloop, kind, "tap0") as looping:
        looping.wait_for("looping")
        for cpu in sorted(os.sched_getaffinity(0))[:2]:
            run(sync, "null", 2000, cpu, seconds=at_most(20))
            run(sync, "tap1", 2000, cpu, seconds=at_most(20))
        assert looping.said("errno") == 0


def test_loops_that_begin_and_end_all_the_time_leave_nothing(tap: Port) -> None:
    """ABI.md 13.3: START and STOP of several threads in any order."""
    over = threading.Event()
    results: set[int | None] = set()

    def stir(step: Callable[[], int]) -> None:
        while not over.is_set():
            results.add(step())

    def begin() -> int:
        return start(tap.fd, 50)

    def end() -> int:
        return stop(tap.fd)

    threads = [threading.Thread(target=stir, args=(step,)) for step in (begin, begin, end, end)]
    for thread in threads:
        thread.start()
    time.sleep(2)
    over.set()
    while any(thread.is_alive() for thread in threads):
        end()
    for thread in threads:
        thread.join()
    assert results <= {0, errno.EBUSY}
    assert 0 in results


@pytest.mark.parametrize("kind", KINDS)
def test_the_daemon_ends_while_clients_loop(
    way: tuple[str, ...], start_daemon: Callable[..., Daemon], kloop: Path, kind: str
) -> None:
    """Section 19 and the design: an orderly end, whatever programs do."""
    daemon = start_daemon(*way, "--tap=kend0", "--device=netmap-kend")
    with Program(kloop, kind, "kend0", "/dev/netmap-kend") as looping:
        looping.wait_for("looping")
        assert daemon.stop() == 0
        looping.wait_for("errno")
