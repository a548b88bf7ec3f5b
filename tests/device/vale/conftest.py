# SPDX-License-Identifier: BSD-2-Clause
"""What tests of switches leave behind: nothing."""

from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon
from tests.support.ioctls import free_buffers, settled
from tests.support.switches import all_ports

POOL = 163838


@pytest.fixture(scope="module")
def buffers_come_back(wires: Daemon) -> Iterator[None]:
    """Behind all tests of a module the pool is whole."""
    del wires
    yield
    assert settled(free_buffers, POOL) == POOL


@pytest.fixture
def switches_go(wires: Daemon) -> Iterator[None]:
    """No switch is there before a test or behind it."""
    del wires
    assert settled(lambda: len(all_ports()), 0) == 0
    yield
    assert settled(lambda: len(all_ports()), 0) == 0
