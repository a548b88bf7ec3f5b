# SPDX-License-Identifier: BSD-2-Clause
"""Short runs of the fuzzers; `make fuzz` runs them for long."""

from pathlib import Path

import pytest

from tests.support import fuzz
from tests.support.patience import at_most


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz.compile_fuzzer("engine", tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def offload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz.compile_fuzzer("offload", tmp_path_factory.mktemp("fuzz"))


@pytest.fixture(scope="module")
def monitors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fuzz.compile_fuzzer("monitors", tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("seed", range(1, 5))
def test_nothing_that_programs_write_breaks_the_engine(engine: Path, seed: int) -> None:
    """ABI.md 7 to 11, under the sanitizers: no access out of bounds, and all memory comes back."""
    fuzz.run(engine, seed, 30000, seconds=at_most(50))


@pytest.mark.parametrize("seed", range(1, 5))
def test_no_header_of_a_packet_makes_a_switch_read_or_write_out_of_bounds(offload: Path, seed: int) -> None:
    """ABI.md 12.5, virtio-net headers: what is delivered is whole, what is not is counted once."""
    fuzz.run(offload, seed, 100000, seconds=at_most(50))


@pytest.mark.parametrize("seed", range(1, 3))
def test_monitors_that_come_and_go_and_ports_that_change_switches_race_with_nobody(monitors: Path, seed: int) -> None:
    """ABI.md 12.4, 12.5, under ThreadSanitizer: pipes, switches, interfaces, a thread a program; whole frames."""
    fuzz.run(monitors, seed, 50, seconds=at_most(50))
