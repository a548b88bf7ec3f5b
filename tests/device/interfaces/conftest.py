# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's interfaces behave the same by whichever backend: these tests run once for each."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.interfaces import TAP, Way

WAYS = (Way("raw"), Way("xdp"), Way("xdp", "generic"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A module may have WAYS of its own."""
    if "way" in metafunc.fixturenames:
        ways = getattr(metafunc.module, "WAYS", WAYS)
        metafunc.parametrize("way", ways, ids=str, indirect=True, scope="module")


@pytest.fixture(scope="module")
def way(request: pytest.FixtureRequest) -> Way:
    """By which backend."""
    made: Way = request.param
    return made


@pytest.fixture(scope="module")
def wires(way: Way, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose interfaces are served that way."""
    folder = tmp_path_factory.mktemp("wires")
    with Daemon(folder / "log", *way.options(folder, ports=TAP)) as served:
        yield served


@pytest.fixture
def start_such_daemon(way: Way, start_daemon: Callable[..., Daemon], tmp_path: Path) -> Callable[..., Daemon]:
    """Starts another one, of /dev/netmap2; `interfaces` are more lines of that table."""

    def start(interfaces: str = "") -> Daemon:
        return start_daemon("--device=netmap2", *way.options(tmp_path, interfaces))

    return start
