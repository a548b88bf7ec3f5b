# SPDX-License-Identifier: BSD-2-Clause
"""Netmap's module parameters as files: their names, defaults and modes, what may be written and what it does."""

import errno
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.state import STATE, state, write

NR_TIMESTAMP = 0x0002

# Of ABI.md section 14; what is not in WRITABLE cannot be written.
DEFAULTS = {
    "verbose": 0,
    "no_timestamp": 0,
    "no_pendintr": 1,
    "txsync_retry": 2,
    "fwd": 0,
    "admode": 0,
    "generic_hwcsum": 0,
    "generic_mit": 100000,
    "generic_ringsize": 1024,
    "generic_rings": 1,
    "generic_txqdisc": 1,
    "ptnet_vnet_hdr": 1,
    "default_pipes": 0,
    "bridge_batch": 1024,
    "max_bridges": 8,
    "if_size": 1024,
    "if_num": 100,
    "ring_size": 36864,
    "ring_num": 200,
    "buf_size": 2048,
    "buf_num": 163840,
    **{f"{pool}_curr_{what}": 0 for pool in ("if", "ring", "buf") for what in ("size", "num")},
    "priv_if_size": 1024,
    "priv_if_num": 2,
    "priv_ring_size": 20480,
    "priv_ring_num": 4,
    "priv_buf_size": 2048,
    "priv_buf_num": 4098,
}
READ_ONLY = {"max_bridges", *(name for name in DEFAULTS if "_curr_" in name)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with one port that has no wire."""
    folder = tmp_path_factory.mktemp("state")
    config = folder / "ports.toml"
    config.write_text('[ports.nil]\nbackend = "null"\n')
    with Daemon(folder / "log", f"--config={config}") as daemon:
        yield daemon


def test_the_parameters_are_netmaps_with_its_defaults_and_modes(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md section 14, of a region that nobody has used yet."""
    start_daemon("--no-ports")
    found = {file.name: int(file.read_text()) for file in (STATE / "parameters").iterdir()}
    assert found == DEFAULTS
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (STATE / "parameters").iterdir()}
    assert modes == {name: 0o440 if name in READ_ONLY else 0o640 for name in DEFAULTS}


def test_the_configuration_says_what_parameters_are_at_start_and_after_a_reload(
    start_daemon: Callable[..., Daemon], tmp_path: Path
) -> None:
    config = tmp_path / "c.toml"
    text = "[memory]\nbuf_num = 5000\n[parameters]\nmax_bridges = 16\nno_timestamp = 1\n[ports.nil]\nbackend = 'null'\n"
    config.write_text(text)
    daemon = start_daemon(f"--config={config}")
    values = {name: state(f"parameters/{name}") for name in ("buf_num", "max_bridges", "no_timestamp")}
    assert values == {"buf_num": "5000", "max_bridges": "16", "no_timestamp": "1"}
    with Port("nil") as port:
        port.rxsync()
        assert port.rx[0].timestamp == 0
        config.write_text(text.replace("no_timestamp = 1", "no_timestamp = 0").replace("16", "8"))
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for_log("reload: [parameters] no_timestamp: done")
        daemon.wait_for_log("reload: [parameters] max_bridges: refused")
        assert (state("parameters/no_timestamp"), state("parameters/max_bridges")) == ("0", "16")
        port.rxsync()
        assert port.rx[0].timestamp > 0


# ---- one daemon for the rest


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("0x1", 1), ("00", 0), ("+1", 1)])
def test_a_number_written_as_the_kernel_reads_it_is_the_new_value(served: Daemon, text: str, value: int) -> None:
    """ABI.md section 14."""
    del served
    assert write("parameters/admode", text) == 0
    assert state("parameters/admode") == str(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("admode", "3"),
        ("admode", "-1"),
        ("admode", "yes"),
        ("admode", ""),
        ("admode", "1 1"),
        ("admode", "1\n"),
        ("admode", "1_0"),
        ("admode", "²"),
        ("verbose", str(1 << 31)),
        ("verbose", "9" * 5000),
        ("bridge_batch", "0"),
        ("buf_num", "1000001"),
        ("ring_size", "64"),
    ],
)
def test_a_bad_value_is_einval_and_changes_nothing(served: Daemon, name: str, text: str) -> None:
    """ABI.md section 14."""
    before = state(f"parameters/{name}")
    assert write(f"parameters/{name}", text) == errno.EINVAL
    assert state(f"parameters/{name}") == before
    served.wait_for_log(f"refused: parameter {name}: ")


@pytest.mark.parametrize("name", ["parameters/max_bridges", "parameters/buf_curr_num", "device/pid", "ports/nil/users"])
def test_what_cannot_be_written_refuses_even_root(served: Daemon, name: str) -> None:
    """ABI.md section 14: 0444."""
    del served
    assert write(name, 1) == errno.EACCES


@pytest.mark.parametrize("name", ["parameters/other", "nothing", "ports/none/users", "ports/nil/tx/7/hwcur"])
def test_a_file_that_is_not_there_is_not_made(served: Daemon, name: str) -> None:
    del served
    assert write(name, 1) in (errno.EPERM, errno.ENOENT)


def test_files_and_folders_cannot_be_removed_or_renamed(served: Daemon) -> None:
    del served
    parameter = STATE / "parameters/fwd"
    for change, *arguments in (
        (parameter.unlink,),
        ((STATE / "clients").rmdir,),
        (parameter.rename, STATE / "other"),
        (parameter.chmod, 0o666),
        ((STATE / "ports/new").mkdir,),
    ):
        with pytest.raises(PermissionError):
            change(*arguments)


def test_with_no_timestamp_only_a_ring_that_asks_gets_the_time(served: Daemon) -> None:
    """ABI.md section 14: no_timestamp; NR_TIMESTAMP asks for it all the same."""
    del served
    assert write("parameters/no_timestamp", 1) == 0
    with Port("nil") as port:
        port.rxsync()
        assert port.rx[0].timestamp == 0
        port.rx[0].flags = NR_TIMESTAMP
        port.rxsync()
        asked_for = port.rx[0].timestamp
        assert asked_for > 0
        port.rx[0].flags = 0
        port.rxsync()
        assert port.rx[0].timestamp == asked_for
        assert write("parameters/no_timestamp", 0) == 0
        port.rxsync()
        assert port.rx[0].timestamp > asked_for
