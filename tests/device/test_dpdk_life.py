# SPDX-License-Identifier: BSD-2-Clause
"""DPDK's devices come and go with the daemon, which stays what it was: programs killed, reloads, states, the end."""

import re
import select
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.namespace import network_namespace
from tests.support import dpdk
from tests.support.command import cuse_netmap
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip, number_of
from tests.support.ioctls import free_buffers, settled
from tests.support.patience import at_most
from tests.support.state import number, state, write
from tests.support.steps import refused, wait_until
from tests.support.stream import Stream, crossed
from tests.support.switches import attached
from tests.support.veth import QUIET, Wire

pytestmark = dpdk.needs_dpdk

POOL = 163838
WAN = dpdk.port("wan0", "net_af_packet0,iface=v0")
LOOP = dpdk.port("loop", "net_ring0")
TAP = '[ports.tap0]\nbackend = "tap"\n'


@pytest.fixture
def lone(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon with a ring, nothing, and a TAP device that is not DPDK's."""
    ports = LOOP + dpdk.port("nil", "net_null0") + TAP
    with dpdk.served(tmp_path, dpdk.configuration(ports)) as daemon:
        yield daemon


def rewrite(daemon: Daemon, config: str) -> str:
    """Another configuration, and a reload: what the daemon says about it."""
    (daemon.log_path.parent / "config.toml").write_text(config)
    before = len(daemon.log)
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "reload: " in daemon.log[before:])
    return daemon.log[before:]


# ---- what it says of a device


def test_state_files_tell_of_the_device(tmp_path: Path) -> None:
    """Issue F: link state, MTU, statistics, promiscuous."""
    with dpdk.wired(tmp_path, WAN) as (_, wire):
        here = "ports/wan0/device"
        assert [state(f"{here}/{name}") for name in ("driver", "mtu", "promiscuous")] == ["net_af_packet", "1500", "1"]
        assert state(f"{here}/mac") == wire.near.mac().hex(":")
        sent = number(f"{here}/tx_packets")
        with Port("wan0") as port:
            port.send(frame(1))
        assert number(f"{here}/tx_packets") == sent + 1


def test_the_link_is_seen_to_go_down_and_up(tmp_path: Path) -> None:
    """Issue F: link state, as far as the driver knows it: of DPDK 22.11's, net_tap does, net_af_packet does not."""
    with dpdk.served(tmp_path, dpdk.configuration(dpdk.port("tapp", "net_tap0,iface=dtap0"))):
        for up in ("up", "down", "up"):
            ip("link", "set", "dtap0", up)
            wanted = int(up == "up")
            assert settled(lambda: number("ports/tapp/device/up"), wanted) == wanted


# ---- programs


@pytest.mark.parametrize("way", ["send", "receive"])
@pytest.mark.parametrize("milliseconds", [0, 5, 50])
def test_a_killed_program_leaves_the_port_and_all_buffers(
    lone: Daemon, stream: Path, way: str, milliseconds: int
) -> None:
    """Issue F: kill -9 in the middle; what is in flight comes back when the ring has been emptied."""
    with (
        Stream(stream, "receive", "loop", "-p", "-l", "600") as other,
        Stream(stream, "send", "loop", "-p", "-l", "600") as sender,
    ):
        time.sleep(milliseconds / 1000)
        (sender if way == "send" else other).kill()
    with Port("loop") as port:
        port.send(frame(1))
        while number_of(port.receive()) != 1:
            pass
        port.rxsync()
    refused("loop")  # a last look at what is back
    assert settled(free_buffers, POOL) == POOL
    assert lone.process.poll() is None


def test_what_is_sent_into_a_ring_is_received_pending_or_counted(lone: Daemon, stream: Path) -> None:
    """ABI.md 12.1: the device and the daemon count the same, nothing is lost or doubled."""
    count = 50_000
    options = ["-p", "-n", count, "-l", 300]
    with Stream(stream, "receive", "loop", *options) as receiver, Stream(stream, "send", "loop", *options) as sender:
        sender.report()
        got = receiver.report()
        assert (sender.end().frames, receiver.end()) == (count, got)
    assert got.clean
    assert got.frames == count
    assert crossed(lone, "loop", times=2)["sent"] == count
    assert number("ports/loop/device/tx_packets") == number("ports/loop/device/rx_packets") == count


# ---- the daemon around it


def threads(daemon: Daemon) -> dict[str, str]:
    """What each thread may run on, by its name and number."""
    found = {}
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        status = (task / "status").read_text()
        found[f"{status.split()[1]} {task.name}"] = re.findall(r"Cpus_allowed_list:\s*(\S+)", status)[0]
    return found


def test_dpdk_leaves_the_daemons_threads_where_they_were(lone: Daemon) -> None:
    """Issue F: an EAL changes the affinity of whoever starts it, and starts a thread for each CPU."""
    everywhere = re.findall(r"Cpus_allowed_list:\s*(\S+)", Path("/proc/self/status").read_text())[0]
    found = threads(lone)
    own = [name for name in found if name.startswith(("eal-", "rte_", "rte-", "lcore", "dpdk"))]
    assert sorted(name.split()[0] for name in own) == ["dpdk-poller", "eal-intr-thread"]
    main = next(name for name in found if name.endswith(f" {lone.pid}"))
    assert {found[name] for name in (*own, main)} == {everywhere}


def test_other_ports_go_on_beside_dpdk(lone: Daemon) -> None:
    """Issue F: an EAL in the daemon must not disturb what is not its own."""
    del lone
    with Port("tap0") as port, Host("tap0") as host:
        for n in range(300):
            port.send(frame(n, 400))
            host.send(frame(n, 300))
        assert host.take(300) == [frame(n, 400) for n in range(300)]
        assert [port.receive() for _ in range(300)] == [frame(n, 300) for n in range(300)]


def test_a_switch_takes_a_device_of_dpdk(tmp_path: Path) -> None:
    """ABI.md 12.5: what arrives is forwarded, what is forwarded to it is sent; somebody of ours sleeps on it."""
    with dpdk.wired(tmp_path, WAN) as (_, wire):
        with network_namespace(wire.far.namespace):
            host = Host("v1")
        with host, attached("vale0:wan0"), Port("vale0:a") as port:
            host.send(frame(1))
            assert port.receive() == frame(1)
            port.send(frame(2))
            assert host.receive() == frame(2)


def test_the_end_leaves_nothing(tmp_path: Path) -> None:
    """Issue F: no interface, no setting of one, no file."""
    with Wire() as wire:
        untouched = wire.near.settings()
        ports = dpdk.port("wan0", "net_af_packet0,iface=v0", mtu=1400) + dpdk.port("tapp", "net_tap0,iface=dtap0")
        with dpdk.served(tmp_path, dpdk.configuration(ports), wire.near):
            assert "mtu 1400" in wire.near.run("ip -o link show v0")
        assert wire.near.settings() == untouched
        assert not Path("/run/dpdk/cuse-netmap").exists()


@pytest.mark.parametrize("_", range(3))
def test_devices_joined_to_each_other_are_closed(tmp_path: Path, _: int) -> None:
    """Issue F: their driver hears in a thread of DPDK's that a peer hangs up; a daemon crashed of it, not each time."""
    ports = ""
    for i in range(10):
        end = "net_memif{},role={},id=0," + f"socket={tmp_path}/{i},socket-abstract=no"
        ports += dpdk.port(f"server{i}", end.format(2 * i, "server"), descriptors=64)
        ports += dpdk.port(f"client{i}", end.format(2 * i + 1, "client"), descriptors=64)
    with dpdk.served(tmp_path, dpdk.configuration(ports)):
        wait_until(lambda: all(number(f"ports/client{i}/device/up") for i in range(10)))


def test_a_killed_daemon_is_followed_by_one_that_works(tmp_path: Path) -> None:
    """Issue F: nothing that DPDK leaves behind keeps the next from starting."""
    with Wire() as wire:
        with network_namespace(wire.far.namespace):
            host = Host("v1")
        path = tmp_path / "config.toml"
        path.write_text(dpdk.configuration(WAN))
        with host:
            for attempt in range(2):
                with network_namespace(wire.near.namespace):
                    daemon = Daemon(tmp_path / f"log{attempt}", f"--config={path}")
                try:
                    with Port("wan0") as port:
                        port.send(frame(1))
                        assert host.receive() == frame(1)
                finally:
                    daemon.stop(signal.SIGTERM if attempt else signal.SIGKILL)


def test_memory_can_be_resized_while_no_program_has_a_port(lone: Daemon) -> None:
    """ABI.md 8: frames are pointed at in the new memory then."""
    del lone
    assert write("parameters/buf_num", 40000) == 0
    with Port("loop") as port:
        assert port.granted.memsize < 200 << 20
        port.send(frame(3, 700))
        assert port.receive() == frame(3, 700)


def test_memory_stays_the_device_s_until_it_has_read_all_frames(lone: Daemon) -> None:
    """docs/dpdk.md: it is neither unmapped nor made anew under a frame in flight."""
    del lone
    with Port("loop") as port:
        for n in range(5):
            port.send(frame(n, 500))
    wait_until(lambda: number("ports/loop/users") == 0)
    assert write("parameters/buf_num", 40000) == 0
    time.sleep(QUIET)
    assert number("ports/loop/device/pointed_at") == 1
    assert number("memory/1/buf/total") == POOL + 2
    with Port("loop") as port:  # which drops what has come before
        port.send(frame(9, 500))
        assert port.receive() == frame(9, 500)
        port.rxsync()
    wait_until(lambda: number("memory/1/buf/total") == 40000)
    assert number("ports/loop/device/pointed_at") == 0


# ---- reload


def test_a_reload_brings_and_takes_devices(lone: Daemon) -> None:
    """Issue F: ports come and go while others stay open."""
    with Port("loop") as port:
        said = rewrite(lone, dpdk.configuration(LOOP + TAP + dpdk.port("more", "net_ring5", queues=2)))
        lone.wait_for_log("reload: [ports.more]: done")
        assert "refused" not in said
        wait_until(lambda: refused("nil") == 6)
        with Port("more") as other:
            other.send(frame(1, 500))
            assert other.receive() == frame(1, 500)
        port.send(frame(2, 500))
        assert port.receive() == frame(2, 500)


def test_a_device_taken_away_under_a_program_is_gone_for_it(lone: Daemon) -> None:
    """ABI.md 11: EIO and POLLERR; then it can be there again."""
    with Port("loop") as port:
        port.send(frame(1, 500))
        rewrite(lone, dpdk.configuration(TAP))
        lone.wait_for_log("reload: [ports.loop]: done")
        lone.wait_for_log("reload: [ports.nil]: done")
        wait_until(lambda: port.poll(select.POLLIN, 0) & select.POLLERR)
        assert "taken by another port" in rewrite(lone, dpdk.configuration(TAP + LOOP))
    wait_until(lambda: "reload: [ports.loop]: done" in rewrite(lone, dpdk.configuration(TAP + LOOP)))
    assert refused("loop") == 0
    with Port("loop") as port:
        port.send(frame(2, 500))
        assert port.receive() == frame(2, 500)
    assert settled(free_buffers, POOL) == POOL


def test_a_deleted_interface_is_gone_for_its_programs_and_a_reload_makes_it_anew(tmp_path: Path) -> None:
    """ABI.md 11: POLLERR for a sleeper; as with TAP ports."""
    config = dpdk.configuration(dpdk.port("tapp", "net_tap0,iface=dtap0"))
    with dpdk.served(tmp_path, config) as daemon:
        with Port("tapp") as port:
            timer = threading.Timer(0.1, ip, ["link", "delete", "dtap0"])
            timer.start()
            assert port.poll(select.POLLIN, at_most(5)) & select.POLLERR
            timer.join()
        daemon.wait_for_log("tapp released")
        wait_until(lambda: "made anew" in rewrite(daemon, config))
        ip("link", "set", "dtap0", "up")
        with Port("tapp") as port, Host("dtap0") as host:
            port.send(frame(1))
            assert host.receive() == frame(1)


def test_mtu_and_promiscuous_change_at_once(tmp_path: Path) -> None:
    """Issue F: what a device can be told while it runs."""
    with dpdk.wired(tmp_path, WAN) as (daemon, wire):
        assert "PROMISC" in wire.near.run("ip -o link show v0")
        changed = dpdk.port("wan0", "net_af_packet0,iface=v0", mtu=1300, promiscuous="false")
        rewrite(daemon, dpdk.configuration(changed))
        daemon.wait_for_log("[ports.wan0] promiscuous: done")
        assert (state("ports/wan0/device/mtu"), state("ports/wan0/device/promiscuous")) == ("1300", "0")
        settings = wire.near.run("ip -o link show v0")
        assert ("PROMISC" in settings, "mtu 1300" in settings) == (False, True)


def test_a_reload_does_not_change_the_options_of_the_eal(lone: Daemon) -> None:
    """Issue F: there is one for the daemon."""
    said = rewrite(lone, dpdk.configuration(LOOP + TAP + dpdk.port("nil", "net_null0"), eal="--no-huge -m 64 --no-pci"))
    assert "[dpdk] eal: refused: DPDK is started once: restart the daemon" in said


def test_what_cannot_be_changed_says_why(lone: Daemon) -> None:
    """Issue F: a message for everything DPDK returns."""
    said = rewrite(
        lone, dpdk.configuration(dpdk.port("loop", "net_ring0", mtu=9000) + TAP + dpdk.port("nil", "net_null0"))
    )
    assert "[ports.loop] mtu: refused: an MTU of 9000" in said
    assert lone.process.poll() is None


def test_dpdk_is_not_loaded_without_a_port_of_it(tmp_path: Path) -> None:
    """Issue F: loaded only when configured."""
    with dpdk.served(tmp_path, TAP) as daemon:
        assert "librte" not in Path(f"/proc/{daemon.pid}/maps").read_text()


def test_doctor_says_that_the_backend_is_there() -> None:
    """Issue F: absent or there."""
    assert re.search(r"^ok   dpdk backend", cuse_netmap("doctor").stdout, re.MULTILINE)
