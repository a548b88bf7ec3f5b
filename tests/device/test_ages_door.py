# SPDX-License-Identifier: BSD-2-Clause
"""Programs of 2011 to 2013 by every way in: they map the device before they have a port (ABI.md section 16)."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.stream import Stream

pytestmark = pytest.mark.door


@pytest.mark.parametrize("age", [1, 2, 3, 5], ids=["page", "2011", "api3", "api5"])
@pytest.mark.parametrize("waits", ["-p", "-e"], ids=["poll", "select"])
def test_frames_of_old_programs_cross_a_pipe(
    daemon: Daemon, client_program: Callable[..., Path], age: int, waits: str
) -> None:
    """Issue E: NIOCGINFO without a name, mmap, NIOCREGIF; select and poll wake."""
    del daemon
    program = client_program("stream", age=age)
    with (
        Stream(program, "receive", "p}1", waits, "-n", 2000) as receiver,
        Stream(program, "send", "p{1", waits, "-n", 2000),
    ):
        assert receiver.report().clean
