# SPDX-License-Identifier: BSD-2-Clause
"""What a daemon holds after thousands of clients, as compared to before."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
from tests.support.daemon import Daemon
from tests.support.program import Program, run

NULL = Register(mode=Mode.NULL, mem_id=1, tx_rings=1, rx_rings=1, tx_slots=8, rx_slots=8, extra_bufs=3)


@pytest.fixture(scope="module", autouse=True)
def remembers_little() -> Iterator[None]:
    """AddressSanitizer keeps what is freed, which is full before anything is measured."""
    with pytest.MonkeyPatch.context() as environment:
        options = os.environ.get("ASAN_OPTIONS", "")
        environment.setenv("ASAN_OPTIONS", f"{options}:quarantine_size_mb=2:thread_local_quarantine_size_kb=16")
        yield


def settled(daemon: Daemon) -> tuple[int, int]:
    """Descriptors and threads, once nothing is on its way any more."""
    latest = (-1, -1)
    for _ in range(100):
        process = Path(f"/proc/{daemon.pid}")
        now = len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))
        if now == latest:
            break
        latest = now
        time.sleep(0.05)
    return latest


def resident_kib(daemon: Daemon) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def churn(client_program: Callable[..., Path], rounds: int) -> None:
    run(client_program("reopen"), 8 * rounds, "same")
    run(client_program("reopen"), rounds // 2, "kill")
    run(client_program("reopen"), rounds // 2, "map")
    for _ in range(rounds):
        Port("tap0").close()
        with Port("leak", NULL) as port:
            port.txsync()
    for _ in range(max(1, rounds // 50)):
        with Program(client_program("park"), "-f", 6, "-t", 4) as parked:
            parked.wait_for("fault", 6)
            parked.kill()


def test_nothing_is_left_of_thousands_of_clients(daemon: Daemon, client_program: Callable[..., Path]) -> None:
    """ABI.md section 15: exit and kill release all; DESIGN.md section 3: buffers go back to the pool."""
    churn(client_program, 50)
    before, memory = settled(daemon), resident_kib(daemon)
    churn(client_program, 100)
    assert settled(daemon) == before
    # AddressSanitizer keeps some of what is freed in each thread.
    most = 4096 if "asan" in os.environ.get("LD_PRELOAD", "") else 2048
    assert resident_kib(daemon) - memory < most
