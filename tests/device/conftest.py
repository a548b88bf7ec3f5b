# SPDX-License-Identifier: BSD-2-Clause
"""What the tests of the ABI share: one daemon a module with ports of several kinds."""

from collections.abc import Iterator

import pytest

from tests.support.daemon import Daemon

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


@pytest.fixture(scope="module")
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the ports tap0, tap1 (16 slots), jumbo (MTU 9000), nil (no wire) and quad (4 queues, no wire)."""
    folder = tmp_path_factory.mktemp("wires")
    config = folder / "ports.toml"
    config.write_text(PORTS)
    with Daemon(folder / "log", f"--config={config}") as served:
        yield served
