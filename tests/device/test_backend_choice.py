# SPDX-License-Identifier: BSD-2-Clause
"""Which backend an interface of the kernel's gets, what the log says of it, and what AF_XDP refuses."""

import errno
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap import _core
from cuse_netmap.backends import Place, auto
from cuse_netmap.backends.advice import advice
from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Register
from cuse_netmap.namespace import network_namespace
from tests.support.command import cuse_netmap
from tests.support.daemon import Daemon
from tests.support.interfaces import Way
from tests.support.veth import Wire

DEVICE = "--device=netmap2"
POOLS = {"if": (1024, 100), "ring": (36864, 200), "buf": (2048, 16384)}


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    with Wire() as made:
        yield made


@pytest.fixture
def near(wire: Wire) -> Iterator[Wire]:
    """The test is a program on the near host."""
    with network_namespace(wire.near.namespace):
        yield wire


@pytest.fixture
def started(start_daemon: Callable[..., Daemon], tmp_path: Path) -> Callable[[Way, str], Daemon]:
    """Starts a daemon of one way, with more lines in the table of interfaces."""
    return lambda way, more: start_daemon(DEVICE, *way.options(tmp_path, more))


def opened(name: str, **fields: int) -> Port:
    return Port(name, Register(mode=1, **fields), device="/dev/netmap2")


# ---- auto


def test_by_default_a_veth_is_raw_and_the_log_says_why(
    near: Wire, started: Callable[[Way, str], Daemon], tmp_path: Path
) -> None:
    """Issue C: auto takes xdp where kernel and device can, else raw, and the log says which and why."""
    del near
    daemon = started(Way("auto"), "")
    with opened("v0"):
        said = daemon.wait_for_log("netmap:v0 is ")
        assert "raw, 1 ring pair(s) of 1024 slots; not xdp: whoever sends to a veth device may leave checksums" in said
    assert 'backend = "auto"' in (tmp_path / "interfaces.toml").read_text()


@pytest.fixture
def bridge(near: Wire) -> Iterator[str]:
    """An interface whose driver knows no XDP."""
    try:
        near.near.run("ip link add xdpbr7 type bridge")
    except AssertionError:
        pytest.skip("this kernel has no bridges")
    near.near.run("ip link set xdpbr7 up")
    yield "xdpbr7"
    near.near.run("ip link del xdpbr7")


def test_a_driver_without_xdp_is_raw_and_the_log_says_so(bridge: str, started: Callable[[Way, str], Daemon]) -> None:
    """Issue C: auto takes xdp where kernel and device can, else raw, and the log says which and why."""
    daemon = started(Way("auto"), "")
    with opened(bridge):
        daemon.wait_for_log(f"not xdp: XDP on {bridge}: its driver takes no XDP program: ")


def test_an_mtu_too_large_for_xdp_is_raw_and_the_log_says_so(
    near: Wire, bridge: str, started: Callable[[Way, str], Daemon]
) -> None:
    """Issue C: auto takes xdp where kernel and device can, else raw, and the log says which and why."""
    near.near.run(f"ip link set {bridge} mtu 2048")
    daemon = started(Way("auto"), "")
    with opened(bridge):
        daemon.wait_for_log(f"not xdp: the MTU of {bridge} is 2048, XDP with buffers of 2048 takes 2030")


def test_a_driver_with_xdp_whose_frames_come_finished_is_xdp(near: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue C: auto takes xdp where kernel and device can. The one driver here that can is taken for another."""
    monkeypatch.setattr(auto, "UNFINISHED", ())
    region, events = _core.Region(POOLS), _core.Events()
    before = near.near.settings()
    interface = auto.open_port(Place(region, events, near.near.namespace), "v0", auto.Options())
    assert (
        "not xdp: v0 takes VLAN tags out of frames, unseen by XDP (ethtool -K v0 rxvlan off)" in interface.description
    )
    interface.close()
    with near.near.tags_in_line():
        interface = auto.open_port(Place(region, events, near.near.namespace), "v0", auto.Options())
        assert interface.description == "xdp in native mode, 1 ring pair(s) of 1024 slots"
        assert "prog/xdp" in near.near.settings()
        interface.close()
    assert near.near.settings() == before
    assert region.pool("buf").used == 0
    events.close()
    region.close()


def test_generic_mode_is_for_those_who_ask(near: Wire, bridge: str, started: Callable[[Way, str], Daemon]) -> None:
    """docs/interfaces.md: any device can generic mode, so `xdp` takes it where the driver knows nothing better."""
    del near
    daemon = started(Way("xdp"), "")
    with opened(bridge):
        daemon.wait_for_log(f"netmap:{bridge} is xdp in generic mode, ")


@pytest.mark.parametrize("command", ["serve", "run"])
def test_the_command_line_names_a_backend(near: Wire, start_daemon: Callable[..., Daemon], command: str) -> None:
    """Issue C: `--backend NAME` on `serve` and `run`."""
    del near
    if command == "serve":
        daemon = start_daemon(DEVICE, "--no-ports", "--backend=xdp")
        with opened("v0"):
            daemon.wait_for_log("netmap:v0 is xdp in native mode")
    else:
        program = (sys.executable, "-m", "cuse_netmap", "gen", "netmap:v0", "-n", "10")
        done = cuse_netmap("run", "--backend=xdp", "--log-level=info", "--", *program)
        assert "netmap:v0 is xdp in native mode" in done.stderr


def test_doctor_says_what_xdp_can_do_for_each_interface_and_warns(near: Wire, bridge: str) -> None:
    """Issue C: `xdp` cannot see partial checksums, and `doctor` warns."""
    del near
    said = {one.name: " ".join(one.remarks) for one in advice()}
    if "xdp can" not in said["v0"]:
        pytest.skip("the kernel says since 6.3")
    assert "xdp can: native, generic" in said["v0"]
    assert "whoever sends to a veth device may leave checksums open, unseen by XDP, so auto takes raw" in said["v0"]
    assert "xdp can: generic" in said[bridge]
    assert "checksums" not in said[bridge]


# ---- refused


def test_a_mode_that_the_device_does_not_know_is_refused_with_the_reason(
    near: Wire, started: Callable[[Way, str], Daemon]
) -> None:
    """docs/interfaces.md: who asks for xdp gets it or the reason, and nothing in its stead."""
    before = near.near.settings()
    daemon = started(Way("xdp", "zerocopy"), "")
    with pytest.raises(OSError, match=r".") as refused:
        opened("v0")
    assert refused.value.errno == errno.EOPNOTSUPP
    daemon.wait_for_log("XDP on v0: an AF_XDP socket at queue 0: Operation not supported")
    assert near.near.settings() == before


def test_a_memlock_limit_that_is_too_small_is_named(near: Wire, tmp_path: Path) -> None:
    """DESIGN.md section 4: name the memlock limit when registering the memory fails."""
    del near
    limited = ["prlimit", "--memlock=1048576:1048576", "setpriv", "--bounding-set=-ipc_lock"]
    with Daemon(tmp_path / "log", DEVICE, *Way("xdp").options(tmp_path), under=limited) as daemon:
        with pytest.raises(OSError, match=r".") as refused:
            opened("v0")
        assert refused.value.errno == errno.ENOBUFS
        daemon.wait_for_log("67108864 bytes of packet memory cannot be locked: the memlock limit is 1048576")


def test_buffers_that_xdp_cannot_use_are_refused(near: Wire, start_daemon: Callable[..., Daemon]) -> None:
    """DESIGN.md section 4: chunks of 2048 to 4096 bytes; what is received would end in the next buffer."""
    del near
    near_size = 1728
    daemon = start_daemon(DEVICE, "--no-ports", "--backend=xdp", f"--buf-size={near_size}")
    with pytest.raises(OSError, match=r".") as refused:
        opened("v0", flags=Flag.TX_RINGS_ONLY)
    assert refused.value.errno == errno.EINVAL
    daemon.wait_for_log(f"buffers of {near_size} bytes are too small for AF_XDP, which needs 1792")


def test_too_few_buffers_for_xdp_are_named(near: Wire, started: Callable[[Way, str], Daemon]) -> None:
    """DESIGN.md section 3: when a limit is hit the log says which."""
    daemon = started(Way("xdp"), "xdp_buffers = 4096")
    with Port("hold", Register(mode=7, mem_id=1, extra_bufs=4000), device="/dev/netmap2"):
        before = near.near.settings()
        with pytest.raises(OSError, match=r".") as refused:
            opened("v0")
        assert refused.value.errno == errno.ENOMEM
        daemon.wait_for_log("the 4096 buffers that AF_XDP reaches are all in use: raise xdp_buffers")
        assert near.near.settings() == before


def test_another_program_s_socket_at_the_queue_is_busy(near: Wire, started: Callable[[Way, str], Daemon]) -> None:
    """Issue C, bad input: EBUSY and the log names what holds it."""
    del near
    region = _core.Region(POOLS)
    index = socket.if_nametoindex("v0")
    daemon = started(Way("xdp"), "")
    theirs = _core.XdpQueues("v0", index, 1, 1024, 4096, 1518).open(region, "generic")
    try:
        with pytest.raises(OSError, match=r".") as refused:
            opened("v0")
        assert refused.value.errno == errno.EBUSY
        daemon.wait_for_log("v0 has an XDP program")
    finally:
        _core.close_queues(_core.XDP_BACKEND, theirs)
        region.close()
    with opened("v0"):
        pass
