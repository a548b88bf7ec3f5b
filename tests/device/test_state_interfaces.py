# SPDX-License-Identifier: BSD-2-Clause
"""What interfaces of the kernel's are called in the state files (docs/configuration.md, "State files")."""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
from cuse_netmap.namespace import network_namespace
from tests.support.steps import wait_until
from tests.support.veth import Wire

MINE = f"netmap-i{os.getpid()}"
FOLDER = Path("/run/cuse-netmap", MINE)
DEVICE = f"/dev/{MINE}"


@pytest.fixture
def own(start_daemon: Callable[..., object]) -> Iterator[Wire]:
    """The near host is the daemon's network namespace, and the test's."""
    with Wire() as made, network_namespace(made.near.namespace):
        start_daemon(f"--device={MINE}", "--no-ports", "--backend=raw")
        yield made


def ports() -> dict[str, int]:
    """Users by name."""
    found = {}
    for folder in (FOLDER / "ports").iterdir():
        with suppress(FileNotFoundError):  # it has just gone
            found[folder.name] = int((folder / "users").read_text())
    return found


def rings(mode: Mode) -> Port:
    return Port("v0", Register(mode=mode), device=DEVICE)


def client_ports() -> set[str]:
    found = set()
    for folder in (FOLDER / "clients").iterdir():
        with suppress(FileNotFoundError):
            found.add((folder / "port").read_text().strip())
    return found


def test_an_interface_has_its_own_name_whatever_descriptors_have_it(own: Wire) -> None:
    del own
    with rings(Mode.SW):
        with rings(Mode.ONE_NIC):
            assert ports() == {"v0": 2}
            assert client_ports() == {"v0"}
        wait_until(lambda: ports() == {"v0": 1})
        description = (FOLDER / "ports/v0/description").read_text()
        assert description.startswith("raw, 1 ring pair(s) of ")
    wait_until(lambda: ports() == {})


def test_one_of_another_namespace_has_that_in_its_name(own: Wire) -> None:
    with Wire() as elsewhere:
        inode = os.fstat(elsewhere.near.namespace).st_ino
        with network_namespace(elsewhere.near.namespace):
            there = rings(Mode.ALL_NIC)
        with there:
            assert ports() == {f"v0@{inode}": 1}
            with rings(Mode.ALL_NIC):
                assert ports() == {f"v0@{inode}": 1, "v0": 1}
                assert client_ports() == {f"v0@{inode}", "v0"}
            wait_until(lambda: ports() == {f"v0@{inode}": 1})
    del own


def test_one_that_is_deleted_keeps_its_name_beside_the_next(own: Wire) -> None:
    with rings(Mode.ALL_NIC):
        own.near.run("ip link del v0")
        wait_until(lambda: (FOLDER / "ports/v0/gone").read_text() == "1\n")
        own.near.run("ip link add v0 type veth peer name v0p")
        index = socket.if_nametoindex("v0")
        with rings(Mode.ALL_NIC):
            assert ports() == {"v0": 1, f"v0:{index}": 1}
            assert (FOLDER / "ports/v0/gone").read_text() == "1\n"
            assert (FOLDER / f"ports/v0:{index}/gone").read_text() == "0\n"
