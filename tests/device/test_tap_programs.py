# SPDX-License-Identifier: BSD-2-Clause
"""C programs on a TAP, compiled against the public headers alone, one of them without a dynamic linker."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.host import Host, frame

COUNT = 3000


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_a_c_program_receives_and_sends(daemon: Daemon, client_program: Callable[..., Path], static: bool) -> None:
    del daemon
    program = client_program("echo", static=static)
    with Host("tap0") as host:
        echo = subprocess.Popen([program, "netmap:tap0", "100", str(COUNT)], stdout=subprocess.PIPE, text=True)
        try:
            assert echo.stdout
            assert echo.stdout.readline() == "ready\n"
            for first in range(0, COUNT, 500):
                host.send(*(frame(number, 100) for number in range(first, first + 500)))
                back = host.take(500)
                assert back == [b"\x02" + frame(number, 100)[1:] for number in range(first, first + 500)]
            assert echo.wait(10) == 0
        finally:
            echo.kill()
            echo.communicate()


def test_the_static_program_is_static(client_program: Callable[..., Path]) -> None:
    """Nothing could be preloaded into it: its mmap is the kernel's."""
    headers = subprocess.run(["readelf", "-l", client_program("echo", static=True)], capture_output=True, check=True)
    assert b"INTERP" not in headers.stdout
