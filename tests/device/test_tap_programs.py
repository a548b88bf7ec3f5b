# SPDX-License-Identifier: BSD-2-Clause
"""C programs on a TAP, compiled against the public headers alone, one of them without a dynamic linker."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.host import Host, frame
from tests.support.patience import at_most

pytestmark = pytest.mark.door

COUNT = 3000


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_c_program_receives_and_sends(daemon: Daemon, client_program: Callable[..., Path], static: bool) -> None:
    program = client_program("echo", static=static)
    if static and daemon.mmap == "helper":
        # Nothing can be preloaded into it: the kernel's ENODEV is final, and the log says what to do.
        assert subprocess.run([program, "netmap:tap0", "100", "1"], timeout=at_most(20), check=False).returncode != 0
        daemon.wait_for_log("cuse-netmap preload --enable")
        return
    with Host("tap0") as host:
        echo = subprocess.Popen([program, "netmap:tap0", "100", str(COUNT)], stdout=subprocess.PIPE, text=True)
        try:
            assert echo.stdout
            assert echo.stdout.readline() == "ready\n"
            for first in range(0, COUNT, 500):
                host.send(*(frame(number, 100) for number in range(first, first + 500)))
                back = host.take(500)
                assert back == [b"\x02" + frame(number, 100)[1:] for number in range(first, first + 500)]
            assert echo.wait(at_most(10)) == 0
        finally:
            echo.kill()
            echo.communicate()


def test_the_static_program_is_static(client_program: Callable[..., Path]) -> None:
    """Nothing could be preloaded into it: its mmap is the kernel's. Its ELF names no interpreter."""
    assert b"/ld-linux" not in client_program("echo", static=True).read_bytes()[:4096]
    assert b"/ld-linux" in client_program("echo").read_bytes()[:4096]
