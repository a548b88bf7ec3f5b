# SPDX-License-Identifier: BSD-2-Clause
"""A short run of the engine's fuzzer; `make fuzz` runs it for long."""

from pathlib import Path

import pytest

from tests.support import fuzz


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz.compile_engine(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("seed", range(1, 5))
def test_nothing_that_programs_write_breaks_the_engine(engine: Path, seed: int) -> None:
    """ABI.md 7 to 11, under the sanitizers: no access out of bounds, and all memory comes back."""
    fuzz.run(engine, seed, 30000, seconds=50)
