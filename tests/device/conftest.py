# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the ABI share: one daemon a module with ports of several kinds, and its wire with two ends."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.host import Host
from tests.support.packages import install
from tests.support.veth import Wire

PORTS = """
[ports.tap0]
backend = "tap"
[ports.tap1]
backend = "tap"
slots = 16
[ports.jumbo]
backend = "tap"
mtu = 9000
[ports.nil]
backend = "null"
[ports.quad]
backend = "null"
queues = 4
"""


@pytest.fixture(scope="session")
def other_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The backends loopback and gated, installed as a package of somebody else's; the folder for PYTHONPATH."""
    return install("loopback", tmp_path_factory.mktemp("other-package"))


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the ports tap0, tap1 (16 slots), jumbo (MTU 9000), nil (no wire) and quad (4 queues, no wire)."""
    folder = tmp_path_factory.mktemp("wires")
    config = folder / "ports.toml"
    config.write_text(PORTS)
    with Daemon(folder / "log", f"--config={config}") as served:
        yield served


@pytest.fixture
def stream(client_program: Callable[..., Path]) -> Path:
    """The client program that sends or receives numbered frames (tests/support/stream.py)."""
    return client_program("stream")


@pytest.fixture
def host(wires: Daemon) -> Iterator[Host]:
    """The host's side of tap1, whose rings have 16 slots."""
    del wires
    with Host("tap1") as opened:
        yield opened


@pytest.fixture
def wire(host: Host) -> Iterator[Port]:
    """The program's side of tap1."""
    del host
    with Port("tap1") as opened:
        yield opened


@pytest.fixture(scope="module")
def hosts() -> Iterator[Wire]:
    """Two hosts joined by v0 and v1, for all tests of a module."""
    with Wire() as made:
        yield made


@pytest.fixture
def near(wires: Daemon, hosts: Wire) -> Iterator[Wire]:
    """The test is a program on the near host, whose interface is v0, as in a container."""
    del wires
    with network_namespace(hosts.near.namespace):
        yield hosts


@pytest.fixture
def far(near: Wire) -> Iterator[Host]:
    """A raw socket on the far host's v1."""
    with network_namespace(near.far.namespace):
        opened = Host("v1")
    with opened:
        yield opened
