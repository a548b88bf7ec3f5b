# SPDX-License-Identifier: BSD-2-Clause
"""What becomes of an interface, and of what stands between it and its host stack, when one of them goes or changes."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap import _core
from cuse_netmap.backends import claims
from cuse_netmap.backends.hooks import Links
from cuse_netmap.backends.steer import Steering
from cuse_netmap.cli import main
from cuse_netmap.errors import Refused
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.veth import QUIET, SOON, Wire, no_leaks

# Steers v0 in a namespace until it is killed, with a TAP or without.
HOLDER = """
import os, pathlib, sys
from cuse_netmap.backends import claims
from cuse_netmap.backends.steer import Steering
folder, namespace, links, on_exit, queues = sys.argv[1:]
claims.FOLDER = pathlib.Path(folder)
steering = Steering("v0", os.open(namespace, os.O_RDONLY), links=links == "tcx", on_exit=on_exit)
fds = steering.open_tap(int(queues), 1024) if int(queues) else []
steering.set(nic=True, host=bool(fds))
print("steering", flush=True)
sys.stdin.read()
steering.close()
"""


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Two hosts of this test's own."""
    monkeypatch.setattr(claims, "FOLDER", tmp_path / "interfaces")
    with Wire() as made:
        yield made


@pytest.fixture(params=["tcx", "cls_bpf"])
def hooks(request: pytest.FixtureRequest, wire: Wire) -> str:
    """Each way to stand at the interface that this kernel has."""
    with network_namespace(wire.near.namespace):
        if request.param == "tcx" and not Links.possible(socket.if_nametoindex("lo")):
            pytest.skip("tcx needs Linux 6.6")
    return str(request.param)


@pytest.fixture
def steer(wire: Wire, hooks: str) -> Callable[[], Steering]:
    return lambda: Steering("v0", wire.near.namespace, links=hooks == "tcx")


class Holder:
    """A process that disconnects v0, with `queues` host ring pairs; ended by SIGKILL, or as a daemon ends."""

    def __init__(self, wire: Wire, hooks: str, on_exit: str = "restore", queues: int = 0, wrap: str = "") -> None:
        self.wire = wire
        command = [*wrap.split(), sys.executable, "-c", HOLDER, str(claims.FOLDER), wire.near.path]
        self.process = subprocess.Popen(
            [*command, hooks, on_exit, str(queues)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.said = self.process.stdout.readline()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def stop(self) -> str:
        """What it has said on standard error."""
        return self.process.communicate(timeout=SOON)[1]


def settles(wire: Wire, before: str) -> None:
    """All is as before, soon: the kernel takes links and TAPs away behind the process."""
    deadline = time.monotonic() + SOON
    while (now := wire.near.settings()) != before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert now == before


def leftovers() -> list[str]:
    return [path.name for path in claims.FOLDER.iterdir()] if claims.FOLDER.is_dir() else []


# ---- off again


@pytest.mark.parametrize("queues", [0, 1, 3])
def test_all_is_as_before_after_the_last_close(wire: Wire, steer: Callable[[], Steering], queues: int) -> None:
    """ABI.md 15: last close of an interface: back to the host stack. Nothing is left, not even a qdisc of ours."""
    before = wire.near.settings()
    with steer() as steering:
        for _ in range(2):
            with no_leaks():
                unused = steering.open_tap(1, 64) if queues else []
                fds = unused + (steering.open_tap(queues, 64) if queues else [])
                steering.set(nic=True, host=bool(fds))
                assert wire.near.settings() != before
                steering.set(nic=True, host=False)
                steering.set(nic=False, host=False)
                for fd in fds:
                    os.close(fd)
            settles(wire, before)
    assert not leftovers()
    assert wire.near.pings()


def test_close_connects_again(wire: Wire, steer: Callable[[], Steering]) -> None:
    """ABI.md 15: whatever was set."""
    before = wire.near.settings()
    with no_leaks():
        with steer() as steering:
            fds = steering.open_tap(1, 64)
            steering.set(nic=True, host=True)
        for fd in fds:
            os.close(fd)
    settles(wire, before)
    assert not leftovers()


@pytest.mark.parametrize("queues", [0, 1])
def test_after_sigkill_all_is_as_before_at_once_by_tcx(wire: Wire, queues: int) -> None:
    """ABI.md 15: exit and kill release all; programs attached by links end with the process."""
    with network_namespace(wire.near.namespace):
        if not Links.possible(socket.if_nametoindex("lo")):
            pytest.skip("tcx needs Linux 6.6")
    before = wire.near.settings()
    holder = Holder(wire, "tcx", queues=queues)
    assert not wire.near.pings(QUIET)
    assert wire.near.settings() != before
    holder.kill()
    settles(wire, before)
    assert wire.near.pings()


@pytest.mark.parametrize("queues", [0, 1])
def test_after_sigkill_cls_bpf_filters_stay_until_cleaned_up(wire: Wire, queues: int) -> None:
    """Linux before 6.6: the next start, ExecStopPost or `cuse-netmap cleanup` removes them."""
    before = wire.near.settings()
    holder = Holder(wire, "cls_bpf", queues=queues)
    claims.clean_up(blocks=True)  # of the dead only
    assert not wire.near.pings(QUIET)
    holder.kill()
    assert not wire.near.pings(QUIET)
    claims.clean_up(blocks=False)
    settles(wire, before)
    assert not leftovers()
    assert wire.near.pings()


def test_the_next_start_removes_what_a_dead_daemon_left(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, start_daemon: Callable[..., Daemon]
) -> None:
    """In the folder of all daemons."""
    monkeypatch.undo()
    before = wire.near.settings()
    Holder(wire, "cls_bpf").kill()
    start_daemon("--no-ports").wait_for_log("v0 is no longer cut off")
    assert wire.near.settings() == before


def test_the_next_steering_of_an_interface_removes_what_a_dead_one_left(wire: Wire, hooks: str) -> None:
    """Also when it is another way to stand there that it uses itself."""
    before = wire.near.settings()
    Holder(wire, "cls_bpf").kill()
    with Steering("v0", wire.near.namespace, links=hooks == "tcx") as steering:
        assert wire.near.settings() == before
        steering.set(nic=True, host=False)
        assert not wire.near.pings(QUIET)
    assert wire.near.settings() == before


def test_cleaning_up_forgets_an_interface_whose_namespace_has_gone(wire: Wire) -> None:
    del wire
    claims.FOLDER.mkdir()
    (claims.FOLDER / "1-2").write_text('{"interface": "v0", "made_qdisc": true, "block": true}')
    (claims.FOLDER / "1-3").write_text('{"interf')
    claims.clean_up(blocks=False)
    assert leftovers() == ["1-2"]
    claims.clean_up(blocks=True)
    assert not leftovers()


# ---- on_exit = "block"


@pytest.mark.parametrize("end", [Holder.kill, Holder.stop], ids=["SIGKILL", "SIGTERM"])
def test_a_blocked_interface_stays_cut_off_when_the_daemon_ends(wire: Wire, end: Callable[[Holder], None]) -> None:
    """on_exit = "block" fails closed, until the next daemon's last close."""
    before = wire.near.settings()
    end(Holder(wire, "tcx", "block", queues=1))
    claims.clean_up(blocks=False)
    assert not wire.near.pings(QUIET)
    with Steering("v0", wire.near.namespace, on_exit="block") as steering:
        assert steering.nic
        assert not wire.near.pings(QUIET)
        assert not wire.far.pings(QUIET)
        fds = steering.open_tap(1, 64)
        steering.set(nic=True, host=True)
        steering.set(nic=False, host=False)
        for fd in fds:
            os.close(fd)
        assert wire.near.pings()
    settles(wire, before)
    assert not leftovers()


def test_cleanup_unblocks_when_it_is_told_to(wire: Wire) -> None:
    before = wire.near.settings()
    Holder(wire, "tcx", "block").kill()
    assert main(["cleanup", "--device=nobody-serves"]) == 0
    assert wire.near.settings() != before
    assert main(["cleanup", "--device=nobody-serves", "--unblock"]) == 0
    assert wire.near.settings() == before


def test_a_daemon_that_restores_removes_the_block_of_the_one_before(wire: Wire) -> None:
    before = wire.near.settings()
    Holder(wire, "tcx", "block").kill()
    with Steering("v0", wire.near.namespace) as steering:
        assert not steering.nic
        assert wire.near.settings() == before


# ---- refusals


def test_an_interface_that_another_daemon_steers_is_busy(wire: Wire, steer: Callable[[], Steering]) -> None:
    with steer(), no_leaks(), pytest.raises(Refused, match="another cuse-netmap daemon has it") as refusal:
        steer()
    assert refusal.value.errno == errno.EBUSY
    assert wire.near.pings()


def test_an_interface_that_is_not_there_is_refused_with_enxio(wire: Wire) -> None:
    with no_leaks(), pytest.raises(Refused, match="no interface eth7") as refusal:
        Steering("eth7", wire.near.namespace)
    assert refusal.value.errno == errno.ENXIO


def test_a_missing_capability_is_named(wire: Wire, hooks: str) -> None:
    """Issue: missing capability named."""
    holder = Holder(wire, hooks, wrap="setpriv --bounding-set=-sys_admin")
    assert "entering a network namespace: Operation not permitted: the daemon lacks CAP_SYS_ADMIN" in holder.stop()
    within = f"nsenter --net={wire.near.path} setpriv --bounding-set=-sys_admin,-bpf,-net_admin"
    holder = Holder(wire, hooks, wrap=within)
    assert "Operation not permitted: the daemon lacks CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_BPF" in holder.stop()
    assert wire.near.pings()


def test_filters_give_way_to_a_filter_of_others_that_would_run_first(wire: Wire) -> None:
    """Without tcx: EBUSY that names it, and nothing is changed."""
    wire.near.run("tc qdisc add dev v0 clsact")
    wire.near.run("tc filter add dev v0 ingress pref 1 protocol ip u32 match ip protocol 17 0xff classid 1:1")
    before = wire.near.settings()
    with Steering("v0", wire.near.namespace, links=False) as steering:
        with pytest.raises(Refused, match="held by somebody else's tc filter u32 of priority 1") as refusal:
            steering.set(nic=True, host=False)
        assert refusal.value.errno == errno.EBUSY
        assert not steering.nic
    assert wire.near.settings() == before
    assert wire.near.pings()


def test_filters_give_way_to_an_ingress_qdisc_of_others(wire: Wire) -> None:
    wire.near.run("tc qdisc add dev v0 ingress")
    before = wire.near.settings()
    refused = pytest.raises(Refused, match="qdisc ingress of somebody else's")
    with Steering("v0", wire.near.namespace, links=False) as steering, refused:
        steering.set(nic=True, host=False)
    assert wire.near.settings() == before


def test_a_tcx_program_of_others_stays_behind_ours_and_filters_give_way_to_it(wire: Wire) -> None:
    with network_namespace(wire.near.namespace):
        index = socket.if_nametoindex("v0")
        if not Links.possible(index):
            pytest.skip("tcx needs Linux 6.6")
        others = _core.steer_load("from_all", 0)
        link = _core.steer_attach(others, index, ingress=True)
    before = wire.near.settings()
    with Steering("v0", wire.near.namespace, links=False) as steering:
        with pytest.raises(Refused, match="tcx program"):
            steering.set(nic=True, host=False)
        assert wire.near.settings() == before
    with Steering("v0", wire.near.namespace) as steering:
        steering.set(nic=True, host=False)
        assert not wire.near.pings(QUIET)
    assert wire.near.settings() == before
    os.close(link)
    os.close(others)


# ---- the interface changes


def mtu(wire: Wire, name: str) -> int:
    return int(json.loads(wire.near.run(f"ip -j link show {name}"))[0]["mtu"])


def test_the_tap_follows_the_mtu_of_the_interface(wire: Wire, steer: Callable[[], Steering]) -> None:
    """ABI.md 12.2: what the host may send, host rings take."""
    wire.near.run("ip link set v0 mtu 1400")
    with steer() as steering:
        fds = steering.open_tap(1, 64)
        assert steering.tap
        assert mtu(wire, steering.tap.name) == 1400
        wire.near.run("ip link set v0 mtu 9000")
        steering.follow()
        assert mtu(wire, steering.tap.name) == 9000
    os.close(fds[0])


def test_an_interface_that_goes_down_or_gets_another_name_stays_disconnected(
    wire: Wire, steer: Callable[[], Steering]
) -> None:
    """ABI.md 15: interface set down while open."""
    before = wire.near.settings()
    with steer() as steering:
        fds = steering.open_tap(1, 64)
        steering.set(nic=True, host=True)
        wire.near.run("ip link set v0 down")
        os.write(fds[0], bytes(60))
        wire.near.run("ip link set v0 name other")
        steering.follow()
        assert steering.name == "other"
        wire.near.run("ip link set other up")
        assert not wire.near.pings(QUIET)
        wire.near.run("ip link set other down")  # before Linux 6.2 only then it gets another name
        wire.near.run("ip link set other name v0")
        wire.near.run("ip link set v0 up")
    os.close(fds[0])
    settles(wire, before)
    assert wire.near.pings()


@pytest.mark.parametrize("change", ["del v0", "set v0 netns"])
def test_an_interface_that_has_gone_is_enxio_and_leaves_nothing(
    wire: Wire, steer: Callable[[], Steering], change: str
) -> None:
    """ABI.md 15: interface unregistered while open, or moved to another namespace: close works."""
    with no_leaks():
        with steer() as steering:
            fds = steering.open_tap(1, 64)
            steering.set(nic=True, host=True)
            target = f" {wire.far.sleeper.pid}" if change.endswith("netns") else ""
            wire.near.run(f"ip link {change}{target}")
            with pytest.raises(Refused, match="no interface v0") as refusal:
                steering.follow()
            assert refusal.value.errno == errno.ENXIO
            os.write(fds[0], bytes(60))
        os.close(fds[0])
    assert not leftovers()
    if not target:
        wire.near.run("ip link add v0 type bridge")
    with network_namespace(wire.far.namespace if target else wire.near.namespace):
        index = socket.if_nametoindex("v0")
        assert [_core.steer_count(index, ingress=ingress) or 0 for ingress in (True, False)] == [0, 0]


def test_a_tap_that_somebody_deletes_does_no_harm(wire: Wire, steer: Callable[[], Steering]) -> None:
    """The host's frames go nowhere then; close works."""
    before = wire.near.settings()
    with steer() as steering:
        fds = steering.open_tap(1, 64)
        steering.set(nic=True, host=True)
        assert steering.tap
        wire.near.run(f"ip link del {steering.tap.name}")
        assert not wire.near.pings(QUIET)
        wire.near.run("ip link set v0 mtu 1400")
        with pytest.raises(Refused) as refusal:
            steering.follow()
        assert refusal.value.errno == errno.ENODEV
        wire.near.run("ip link set v0 mtu 1500")
    os.close(fds[0])
    assert wire.near.settings() == before
