# SPDX-License-Identifier: BSD-2-Clause
"""The tests' ground: mount and network namespaces of their own, and the fixtures that need root and the kernel."""

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cuse_netmap.namespace import unshare_mounts
from tests.support import clients
from tests.support import daemon as daemons
from tests.support.daemon import Daemon
from tests.support.patience import PATIENCE, at_most
from tests.support.places import mount_private_places
from tests.support.ways import WAYS, ways_here

if TYPE_CHECKING:
    import pluggy

CLONE_NEWNET = 0x40000000


def missing() -> str:
    """Why tests against a real device cannot run here; "" if they can."""
    if os.geteuid() != 0:
        return "needs root (sudo make test)"
    if not Path("/dev/fuse").exists():
        return "needs /dev/fuse"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    return ""


MISSING = missing()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Nothing that a test mounts or creates is seen outside, or outlives the run; and the limits of pyproject.toml."""
    if config.option.timeout is None:
        config.option.timeout = at_most(float(config.getini("timeout")))
    stacks_after = at_most(float(config.getini("faulthandler_timeout")))
    config._inicache["faulthandler_timeout"] = stacks_after  # there is no option for it
    if not MISSING:
        # What is started in the background ignores these, and so would all that the tests start and then signal.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in (signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_DFL)
        unshare_mounts()
        if "PYTEST_XDIST_WORKER" in os.environ:
            mount_private_places()
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        ipv6 = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
        if ipv6.exists():  # interfaces say nothing that no test made them say
            ipv6.write_text("1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything under tests/device works on a real device, and what is under tests/compat makes some."""
    for item in items:
        if MISSING and item.path.parent.name in ("device", "compat"):
            item.add_marker(pytest.mark.skip(reason=MISSING))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, "pluggy.Result[pytest.TestReport]", None]:
    """A test that hit its time limit leaves the stacks of the daemons behind."""
    del item
    outcome = yield
    if call.excinfo is not None and "Timeout" in str(call.excinfo.value):
        outcome.get_result().sections.append(("daemons", daemons.report_all()))


def pytest_report_header() -> list[str]:
    """Says which ways in are tested, and with what patience."""
    ways = [f"way in: {name}: {reason or 'tested'}" for name, reason in ways_here().items()]
    return [*ways, f"time limits: {PATIENCE:g} times what is written (PATIENCE)"]


@pytest.fixture(scope="module", params=[name for name, reason in ways_here().items() if not reason])
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options of serve for each way in that this kernel has."""
    return WAYS[str(request.param)]


@pytest.fixture(scope="module")
def daemon(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the TAP wires tap0 and tap1, one for all tests of a module and way in."""
    log = tmp_path_factory.mktemp("daemon") / "log"
    with Daemon(log, *way, "--tap=tap0", "--tap=tap1") as served:
        yield served


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Starts daemons of a test's own, with the options it is called with; they are stopped behind it."""
    started: list[Daemon] = []

    def start(*options: str) -> Daemon:
        started.append(Daemon(tmp_path / f"log{len(started)}", *options))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture(scope="session")
def client_program(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles tests/clients/NAME.c and gives its path; static=True links it statically, age=N is as old as that."""
    compiled = os.environ.get("CUSE_NETMAP_TEST_CLIENTS")  # where there is no compiler
    folder = Path(compiled) if compiled else tmp_path_factory.mktemp("clients")

    def path(name: str, *, static: bool = False, age: int = 0) -> Path:
        return clients.compile_client(name, folder, static=static, age=age)

    return path
