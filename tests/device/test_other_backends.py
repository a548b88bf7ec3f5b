# SPDX-License-Identifier: BSD-2-Clause
"""A backend of another package: installed, found by its entry point, configured, and packets moved through it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.host import frame
from tests.support.packages import on_path
from tests.support.patience import at_most

CONFIG = """
[ports.loop0]
backend = "loopback"
slots = 128
limit = 2
[ports.loop1]
backend = "loopback"
queues = 2
"""
BUILD = at_most(150)  # seconds for pip on a machine with other work


@pytest.fixture(scope="module")
def loops(other_package: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with the ports loop0 (128 slots, 2 packets on the way) and loop1 (2 queues)."""
    folder = tmp_path_factory.mktemp("loops")
    (folder / "ports.toml").write_text(CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", on_path(other_package))
        with Daemon(folder / "log", f"--config={folder / 'ports.toml'}") as served:
            yield served


@pytest.mark.timeout(BUILD)
@pytest.mark.usefixtures("loops")
def test_packets_move_through_a_backend_of_another_package() -> None:
    """Issue C: found, configured and moves packets."""
    with Port("loop1") as port:
        for ring in (0, 1):
            assert port.put(frame(ring, 1000), ring)
        port.txsync()
        assert [port.receive(ring=ring) for ring in (1, 0)] == [frame(1, 1000), frame(0, 1000)]


@pytest.mark.usefixtures("loops")
def test_a_sleeper_is_woken_by_a_backend_of_another_package() -> None:
    """docs/backends.md: event_fd becomes readable when rx may get further."""
    with Port("loop1") as receiver, Port("loop1") as sender:
        assert sender.put(frame(5))
        sender.txsync()
        assert receiver.receive() == frame(5)


def test_the_options_of_another_s_backend_are_configured(loops: Daemon) -> None:
    """Issue C: its own table of options, beside those of every port."""
    with Port("loop0") as port:
        assert port.tx[0].num_slots == 128
        for number in range(3):
            assert port.put(frame(number))
        port.txsync()
        assert [port.receive() for _ in range(2)] == [frame(0), frame(1)]
    loops.wait_for_log("sent 2 packets, 120 bytes, dropped 1 full")


def test_an_option_that_another_s_backend_does_not_have_is_refused(other_package: Path, tmp_path: Path) -> None:
    """docs/backends.md: what may stand in [ports.NAME] its Options say."""
    done = checked(other_package, tmp_path, '[ports.loop0]\nbackend = "loopback"\nlimit = 0\n')
    assert "[ports.loop0] limit: is 0, must be a whole number from 1 to 1024" in done


def test_a_backend_compiled_with_another_header_is_refused(other_package: Path, tmp_path: Path) -> None:
    """docs/backends.md: NM_BACKEND_ABI is looked at before anything else of the struct."""
    done = checked(other_package, tmp_path, '[ports.loop0]\nbackend = "loopback"\nstale = true\n')
    assert "compiled with another version's backend.h" in done


def test_a_backend_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    """docs/backends.md: the log says which entry point failed, and how."""
    metadata = tmp_path / "broken-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[cuse_netmap.backends]\nbroken = no_such_module\n")
    done = checked(tmp_path, tmp_path, '[ports.loop0]\nbackend = "broken"\n')
    assert "backend broken (no_such_module)" in done


def checked(package: Path, folder: Path, config: str) -> str:
    """What a daemon that cannot start with that configuration says."""
    file = folder / "refused.toml"
    file.write_text(config)
    command = [sys.executable, "-m", "cuse_netmap", "serve", "--device=refused", f"--config={file}"]
    environment = {**os.environ, "PYTHONPATH": on_path(package)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=at_most(30))
    assert done.returncode == 1, done.stderr
    return done.stderr
