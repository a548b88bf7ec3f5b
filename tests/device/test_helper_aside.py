# SPDX-License-Identifier: BSD-2-Clause
"""The helper stays out of the way of programs with more rights than their caller, or with fewer system calls."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap.device import helper_library
from tests.support.command import NOBODY
from tests.support.daemon import Daemon
from tests.support.patience import at_most

pytestmark = pytest.mark.door

Client = Callable[..., Path]


def tried(program: Path, *arguments: str, user: int | None = None) -> str:
    """What the program says, with the helper preloaded."""
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, "LD_PRELOAD": helper_library()},
        capture_output=True,
        text=True,
        timeout=at_most(20),
        check=False,
        user=user,
    )
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout.rstrip("\n")


def test_a_program_without_restrictions_maps(daemon: Daemon, client_program: Client) -> None:
    """What the others are compared with."""
    assert daemon.mmap in ("passthrough", "helper")
    assert tried(client_program("restricted"), "/dev/netmap") == "secure 0 preloaded 1: mapped"


def test_under_a_seccomp_filter_mmap_fails_as_the_kernel_has_it_and_the_program_lives(
    daemon: Daemon, client_program: Client
) -> None:
    """The filter ends the program for each call with which the helper would fetch the memory."""
    wanted = "mapped" if daemon.mmap == "passthrough" else "ENODEV"
    assert tried(client_program("restricted"), "/dev/netmap", "few") == f"secure 0 preloaded 1: {wanted}"


@pytest.mark.parametrize("path", ["/dev/null", "socket"])
def test_under_a_seccomp_filter_nobody_looks_what_an_unmappable_file_is(client_program: Client, path: str) -> None:
    assert tried(client_program("restricted"), path, "few") == "secure 0 preloaded 1: ENODEV"


def test_under_the_strictest_filter_what_is_no_device_costs_no_call_but_fstat(client_program: Client) -> None:
    """A socket cannot be mapped, nor can many files: a program that tries must not die of the helper's curiosity."""
    assert tried(client_program("restricted"), "socket", "none") == "secure 0 preloaded 1: ENODEV"


@pytest.fixture
def setuid_program(client_program: Client) -> Iterator[Path]:
    """Root's, and setuid; not below /tmp, which may be mounted nosuid."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        program = Path(folder, "restricted")
        shutil.copy(client_program("restricted"), program)
        program.chmod(0o4755)
        Path(folder).chmod(0o755)
        yield program


def test_a_setuid_program_is_not_preloaded_and_mmap_is_the_kernels(daemon: Daemon, setuid_program: Path) -> None:
    """By glibc: what a caller preloads is not for programs with other rights than the caller's."""
    wanted = "mapped" if daemon.mmap == "passthrough" else "ENODEV"
    assert tried(setuid_program, "/dev/netmap", user=NOBODY) == f"secure 1 preloaded 0: {wanted}"
