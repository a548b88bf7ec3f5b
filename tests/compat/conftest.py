# SPDX-License-Identifier: BSD-2-Clause
"""The library, compiled once, and clients with it inside."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import inside
from tests.support.clients import HERE
from tests.support.patience import at_most

HERE_ONLY = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever comes first compiles the library, which no test's time is for."""
    for item in items:
        if item.path.parent == HERE_ONLY:
            item.add_marker(pytest.mark.timeout(at_most(60), func_only=True))


@pytest.fixture(scope="session")
def library() -> Path:
    """The folder that `make compat` fills."""
    if reason := inside.missing():
        pytest.skip(reason)
    inside.build()
    return inside.BUILD


@pytest.fixture(scope="session")
def bridge(library: Path) -> Path:
    """compat/examples/bridge.c."""
    return library / "bridge"


@pytest.fixture(scope="session")
def client_inside(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Compiles tests/clients/NAME.c with netmap inside, and gives its path; `age`: old/NAME.c, as NETMAP_OLD_API."""
    del library
    folder = tmp_path_factory.mktemp("inside")

    def path(name: str, *, age: int = 0) -> Path:
        return inside.client_inside(name, folder, age=age)

    return path


@pytest.fixture(scope="session")
def calls(library: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compiles tests/compat/clients/calls_PART.c, and gives its path."""
    del library
    folder = tmp_path_factory.mktemp("calls")

    def path(part: str) -> Path:
        source = HERE / "compat" / "clients" / f"calls_{part}.c"
        return inside.compile_with(source, folder / source.stem)

    return path
