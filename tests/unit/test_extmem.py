# SPDX-License-Identifier: BSD-2-Clause
"""Programs' memory without a device: how pools are laid out in it, and what a SIGBUS does (ABI.md 13.1 and 8)."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from cuse_netmap._core import Extmem, Region
from cuse_netmap.control.extmem import Mapping, Piece, covering, cut
from cuse_netmap.errors import Refused
from tests.support.patience import at_most

PAGE = 4096
DEFAULTS = {"if": (1024, 2), "ring": (20480, 4), "buf": (2048, 4098)}
Make = Callable[..., Region]


@pytest.fixture
def region() -> Iterator[Make]:
    """Makes regions in memory of some bytes, rounded up to pages, and ends them."""
    made: list[Region] = []

    def make(size: int, **pools: tuple[int, int]) -> Region:
        fd = os.memfd_create("unit")
        whole = size + -size % PAGE
        os.ftruncate(fd, whole)
        memory = Extmem([(fd, 0, whole)])
        os.close(fd)
        try:
            made.append(Region({**DEFAULTS, **pools}, memory, size))
        except Refused:
            memory.close()
            raise
        return made[-1]

    yield make
    for one in made:
        one.close()


def geometry(region: Region) -> list[tuple[int, int, int]]:
    return [(pool.offset, pool.objsize, pool.objtotal) for pool in map(region.pool, ("if", "ring", "buf"))]


def test_each_pool_begins_with_a_page_and_the_rest_is_buffers(region: Make) -> None:
    """ABI.md 13.1: surplus goes to buffers."""
    size = 3 * PAGE + 5 * 4096 + 100 * 2048
    made = region(size, **{"if": (1024, 5), "ring": (4096, 5), "buf": (2048, 50)})
    buffers = 7 * PAGE
    assert geometry(made) == [(0, 1024, 5), (2 * PAGE, 4096, 5), (buffers, 2048, (size - buffers) // 2048)]
    assert made.size == size


def test_a_request_that_fills_the_memory_to_the_byte_fits(region: Make) -> None:
    """ABI.md 13.1, T: 2 x 1024, 64 x 512 and 4096 x 2048 in as many bytes, which end within a page."""
    pools = {"if": (1024, 2), "ring": (512, 64), "buf": (2048, 4096)}
    made = region(2048 + 64 * 512 + 4096 * 2048, **pools)
    assert geometry(made) == [(0, 1024, 2), (PAGE, 512, 64), (9 * PAGE, 2048, 4096)]


def test_sizes_are_rounded_up_to_lines_and_buffers_pay_for_it(region: Make) -> None:
    """ABI.md 8: object size rounded up to 64."""
    size = 1000 * 4 + 4000 * 4 + 1000 * 100
    made = region(size, **{"if": (1000, 4), "ring": (4000, 4), "buf": (1000, 100)})
    whole = size + -size % PAGE
    assert geometry(made) == [(0, 1024, 4), (PAGE, 4032, 4), (5 * PAGE, 1024, (whole - 5 * PAGE) // 1024)]


@pytest.mark.parametrize(
    ("pools", "error"),
    [
        ({"ring": (1 << 20, 64)}, errno.ENOMEM),
        ({"buf": (0xFFFFFFFF, 0xFFFFFFFF)}, errno.ENOMEM),
        ({"ring": (131136, 2)}, errno.EINVAL),
        ({"ring": (255, 4)}, errno.EINVAL),
        ({"if": (4160, 2)}, errno.EINVAL),
        ({"if": (1024, 101)}, errno.EINVAL),
        ({"if": (1024, 0)}, errno.EINVAL),
        ({"buf": (63, 100)}, errno.EINVAL),
        ({"buf": (65600, 100)}, errno.EINVAL),
    ],
)
def test_pools_that_cannot_be_are_refused(region: Make, pools: dict[str, tuple[int, int]], error: int) -> None:
    """ABI.md 13.1."""
    with pytest.raises(Refused) as refusal:
        region(32 << 20, **pools)
    assert refusal.value.errno == error


def test_more_buffers_than_netmap_knows_are_left_alone(region: Make) -> None:
    """ABI.md 8: at most 1000000 buffers."""
    assert region(100 << 20, buf=(64, 4)).pool("buf").objtotal == 1_000_000


MAPS = [
    Mapping(0x1000, 0x3000, "rw-s", 0x5000, (0, 1), 7),
    Mapping(0x3000, 0x4000, "rw-s", 0, (0, 1), 8),
    Mapping(0x5000, 0x6000, "r--s", 0, (0, 1), 9),
]


def test_memory_is_found_across_maps_and_cut_to_what_was_asked_for() -> None:
    """ABI.md 13.1: the pages of [usrptr, usrptr + memsize)."""
    found = covering(iter(MAPS), 0x2000, 0x4000)
    assert cut(found, 0x2000, 0x4000) == [Piece((0, 1), 7, 0x6000, 0x1000), Piece((0, 1), 8, 0, 0x1000)]


@pytest.mark.parametrize(("start", "end"), [(0, 0x1000), (0x3000, 0x5000), (0x5000, 0x6000), (0x6000, 0x7000)])
def test_memory_that_is_not_all_there_is_a_fault(start: int, end: int) -> None:
    """ABI.md 13.1: unmapped, or not writable: EFAULT."""
    with pytest.raises(Refused) as refusal:
        covering(iter(MAPS), start, end)
    assert refusal.value.errno == errno.EFAULT


TOUCH = """
import ctypes, os, signal, sys
from cuse_netmap._core import Extmem, guard_extmem
event = guard_extmem()
fd = os.memfd_create("unit")
os.ftruncate(fd, 64 << 12)
memory, other = (Extmem([(fd, 0, 64 << 12)]) for _ in range(2))
os.ftruncate(fd, 0)
"""


def run(code: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", TOUCH + code], check=False, timeout=at_most(20), env={**os.environ}
    ).returncode


def test_touching_what_was_truncated_makes_zeroes_and_is_noticed() -> None:
    """Issue B, bad input: an access past the end of a program's file breaks that memory, and nothing else."""
    code = """
assert ctypes.string_at(memory.address + (9 << 12), 100) == bytes(100)
assert memory.broken and not other.broken
assert os.eventfd_read(event) == 1
ctypes.memset(memory.address, 7, 64 << 12)
ctypes.memset(other.address, 7, 1)
assert other.broken
memory.close(), other.close()
"""
    assert run(code) == 0


@pytest.mark.parametrize(
    "code",
    [
        "os.kill(os.getpid(), signal.SIGBUS)",
        "import mmap; os.ftruncate(fd, 4096);m = mmap.mmap(fd, 4096); os.ftruncate(fd, 0); m[0]",
        "memory.close(); other.close(); os.kill(os.getpid(), signal.SIGBUS)",
    ],
)
def test_any_other_sigbus_ends_the_process(code: str) -> None:
    """Issue B: the default happens."""
    if "asan" in os.environ.get("LD_PRELOAD", ""):
        pytest.skip("the sanitizer has its own handler")
    assert run(code) == -signal.SIGBUS
