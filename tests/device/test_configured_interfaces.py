# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces of the kernel's that the configuration names as ports (docs/interfaces.md, "As a port")."""

import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.host import Host, frame
from tests.support.steps import wait_until
from tests.support.veth import QUIET, SOON, Wire

MINE = f"netmap-c{os.getpid()}"
PORTS = Path("/run/cuse-netmap", MINE, "ports")


def configure(folder: Path, backend: str, name: str = "v0") -> Path:
    path = folder / "c.toml"
    path.write_text(f'[device]\nname = "{MINE}"\n[ports.{name}]\nbackend = "{backend}"\n')
    return path


@pytest.fixture(params=["raw", "xdp", "auto"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def own() -> Iterator[Wire]:
    """The near host is the test's network namespace, and with it the daemon's."""
    with Wire() as made, network_namespace(made.near.namespace):
        yield made


@pytest.fixture
def served(own: Wire, backend: str, start_daemon: Callable[..., Daemon], tmp_path: Path) -> Daemon:
    """A daemon with the port v0."""
    del own
    return start_daemon(f"--config={configure(tmp_path, backend)}")


def opened() -> Port:
    return Port("v0", device=f"/dev/{MINE}")


def test_a_program_has_it_and_the_host_stack_before_and_after(served: Daemon, own: Wire) -> None:
    del served
    assert own.near.pings()
    with network_namespace(own.far.namespace):
        far = Host("v1")
    with far, opened() as port:
        port.send(frame(1))
        assert far.receive() == frame(1)
        far.send(frame(2))
        assert port.receive() == frame(2)
        assert not own.near.pings(QUIET)
    assert own.near.pings()


def test_a_program_of_another_namespace_has_it_too(served: Daemon, own: Wire) -> None:
    """docs/interfaces.md: the configured port where it has none of that name."""
    del served
    with network_namespace(own.far.namespace):
        far, port = Host("v1"), opened()
    with far, port:
        port.send(frame(1))
        assert far.receive() == frame(1)
        far.send(frame(2))
        assert port.receive() == frame(2)


def test_it_is_open_and_described_while_no_program_has_it(served: Daemon, backend: str) -> None:
    del served
    assert (PORTS / "v0/backend").read_text() == f"{backend}\n"
    assert (PORTS / "v0/users").read_text() == "0\n"
    assert (PORTS / "v0/description").read_text().startswith("xdp" if backend == "xdp" else "raw")


def test_another_mtu_is_followed_while_a_program_has_it(served: Daemon, own: Wire) -> None:
    del served
    with opened():
        own.near.run("ip link set v0 mtu 1400")
        wait_until(lambda: (PORTS / "v0/mtu").read_text() == "1400\n")


def test_one_that_is_deleted_is_taken_anew_by_a_reload(served: Daemon, own: Wire) -> None:
    with opened() as port:
        own.near.run("ip link del v0")
        assert port.poll(select.POLLIN, SOON) & select.POLLERR
        served.wait_for_log("the interface behind v0 has been deleted: a reload (SIGHUP) makes it anew")
    own.near.run("ip link add v0 type veth peer name v1")
    own.near.run("ip link set v0 up")
    own.near.run("ip link set v1 up")
    served.process.send_signal(signal.SIGHUP)
    served.wait_for_log("reload: [ports.v0]: made anew")
    with Host("v1") as far, opened() as port:
        port.send(frame(1))
        assert far.receive() == frame(1)


def test_a_reload_gives_it_back(served: Daemon, own: Wire, tmp_path: Path) -> None:
    configure(tmp_path, "null", "nil")
    served.process.send_signal(signal.SIGHUP)
    served.wait_for_log("reload: [ports.v0]: done")
    wait_until(lambda: own.near.settings() == own.untouched)


def test_without_the_interface_the_daemon_does_not_start(own: Wire, backend: str, tmp_path: Path) -> None:
    del own
    daemon = Daemon(tmp_path / "log", f"--config={configure(tmp_path, backend, 'v9')}", expect_ready=False)
    assert daemon.process.returncode == 1
    assert "cuse-netmap: port v9: there is no interface 'v9'" in daemon.log
