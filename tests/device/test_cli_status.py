# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap status`: the state files as tables and as JSON, and what it says where there are none."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
from cuse_netmap.namespace import mounted_at
from tests.support.command import COMMAND, NOBODY, cuse_netmap, one_sentence
from tests.support.daemon import Daemon
from tests.support.ioctls import hold
from tests.support.state import STATE, state


def tables() -> list[str]:
    done = cuse_netmap("status")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def row(first: str) -> list[str]:
    """The words of the line that begins with a word."""
    (found,) = (line.split() for line in tables() if line.split()[:1] == [first])
    return found


def test_the_tables_say_what_is_served_to_whom_and_how_much_crossed(wires: Daemon) -> None:
    with Port("quad", Register(mode=Mode.ONE_NIC, ringid=1)) as port:
        before = int(row("quad")[7])
        for _ in range(5):
            port.put(b"\xff" * 60, ring=1)
        port.txsync()
        served, *advice, serving, memory = tables()[: 4 if wires.mmap == "helper" else 3]
        doors = " and ".join(state("device/doors").split())
        assert served == f"/dev/netmap: {doors} door, {state('device/transport')}, mmap by {wires.mmap}"
        assert all("cuse-netmap preload --enable" in line for line in advice)
        assert serving.endswith(f"pid {wires.pid}")
        assert "in use 1 of 100 if, 2 of 200 ring, 2048 of 163840 buf" in memory
        said = "quad nic null 1 {tx} {sent} 0 {rx} 0 0".format(tx="4 x 1024", sent=before + 5, rx="4 x 1024")
        assert row("quad") == said.split()
        assert row(str(os.getpid()))[2:] == ["root", "quad", "rx/1", "tx/1"]


def test_a_switch_is_shown_with_what_it_has_learned(wires: Daemon) -> None:
    del wires
    with Port("vale0:one") as one, Port("vale0:two"):
        one.send(b"\xff" * 6 + b"\x02" * 6 + bytes(48))
        rows = [line.split() for line in tables() if line.startswith("vale0 ")]
        assert sorted((port, learned) for _, _, port, learned in rows) == [("one", "02:02:02:02:02:02"), ("two", "-")]


def test_json_is_the_whole_tree(wires: Daemon) -> None:
    del wires
    with hold("a/b"):
        found = json.loads(cuse_netmap("status", "--json").stdout)
        assert set(found) == {folder.name for folder in STATE.iterdir()}
        assert found["parameters"]["buf_num"] == 163840
        assert found["ports"]["tap0"]["tx"]["0"]["hwtail"] == int(state("ports/tap0/tx/0/hwtail"))
        assert found["ports"]["tap0"]["backend"] == "tap"
        assert any(name.startswith("a/b#") for name in found["ports"]), "names are as they are, not escaped"
        (client,) = found["clients"].values()
        assert (client["pid"], client["user"]) == (os.getpid(), "root")


def test_no_name_steers_the_terminal(wires: Daemon) -> None:
    del wires
    with hold("\x1b[31m"):
        assert "\x1b" not in "".join(tables())


def test_where_nobody_serves_it_says_so_in_a_sentence() -> None:
    said = one_sentence(cuse_netmap("status", "--device=nothing"))
    assert said.startswith("no state files at /run/cuse-netmap/nothing: no daemon serves /dev/nothing")


def test_of_a_daemon_that_was_killed_it_says_so_and_how_to_start_it_again(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon("--no-ports", "--device=mortal")
    daemon.process.kill()
    daemon.process.wait()
    said = one_sentence(cuse_netmap("status", "--device=mortal"))
    assert said.startswith("the daemon of /dev/mortal has ended without tidying up")
    assert "cuse-netmap serve --device=mortal" in said
    looked = cuse_netmap("doctor", "--device=mortal").stdout.splitlines()
    if mounted_at(Path("/dev/mortal")):
        assert "no   device             /dev/mortal is served by a daemon that has ended without tidying up" in looked
    assert cuse_netmap("cleanup", "--device=mortal").returncode == 0
    looked = cuse_netmap("doctor", "--device=mortal").stdout.splitlines()
    assert "ok   device             /dev/mortal is free" in looked


def test_who_may_not_read_is_told_how_to(wires: Daemon) -> None:
    del wires
    said = one_sentence(cuse_netmap("status", user=NOBODY))
    assert said == f"{STATE}: Permission denied: run it as root (sudo)"


def test_under_run_it_is_the_programs_own_daemon(wires: Daemon) -> None:
    done = cuse_netmap("run", "--tap=wire9", "--", *COMMAND, "status")
    assert done.returncode == 0, done.stderr
    assert "wire9" in done.stdout
    assert f"pid {wires.pid}" not in done.stdout
