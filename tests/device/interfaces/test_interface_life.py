# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces of the kernel's that go, change, are not there or not free; whose a name is (ABI.md 6, 7, 12.1, 15)."""

import ctypes
import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, PortInfo, Register, RequestType
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, number_of
from tests.support.interfaces import Way
from tests.support.ioctls import settled
from tests.support.patience import at_most
from tests.support.steps import refused, wait_until
from tests.support.switches import all_ports, ask, attach
from tests.support.veth import Wire
from tests.support.ways import kernel_version

WAYS = (Way("raw"), Way("xdp"))  # in which mode makes no difference here


@pytest.fixture
def own(wires: Daemon) -> Iterator[Wire]:
    """Hosts of this test's own; the test is a program on the near one."""
    del wires
    with Wire() as made, network_namespace(made.near.namespace):
        yield made


def at_far(wire: Wire) -> Host:
    with network_namespace(wire.far.namespace):
        return Host("v1")


# ---- whose interface


def test_a_name_is_that_of_the_program_s_own_network_namespace(wires: Daemon, own: Wire) -> None:
    """DESIGN.md section 4: a program in a container sees its own eth0."""
    del wires
    with Wire() as elsewhere, Port("v0") as here:
        with network_namespace(elsewhere.near.namespace):
            there = Port("v0")
        with there, at_far(own) as one, at_far(elsewhere) as other:
            here.send(frame(1))
            there.send(frame(2))
            assert (one.receive(), other.receive()) == (frame(1), frame(2))
            one.send(frame(3))
            other.send(frame(4))
            assert (here.receive(), there.receive()) == (frame(3), frame(4))


def test_an_interface_of_another_network_namespace_is_not_there(near: Wire) -> None:
    """ABI.md 6: a network device of the caller's net namespace: ENXIO if missing."""
    assert refused("v1") == errno.ENXIO
    with network_namespace(near.far.namespace):
        assert refused("v0") == errno.ENXIO
        assert refused("v1") == 0


def test_two_namespaces_names_share_one_interface_only_if_it_is_one(own: Wire) -> None:
    """ABI.md 7: exclusive opens of two interfaces of one name do not meet."""
    exclusive = Register(flags=Flag.EXCLUSIVE)
    with Wire() as elsewhere, Port("v0", exclusive):
        assert refused("v0") == errno.EBUSY
        with network_namespace(elsewhere.near.namespace), Port("v0", exclusive):
            pass
    del own


def test_a_configured_wire_is_there_for_programs_of_other_namespaces(own: Wire) -> None:
    """docs/interfaces.md: [ports.NAME] names a wire for everybody; a program elsewhere has its own first."""
    with Port("tap1") as wire:
        assert wire.granted.rx_slots == 16
    own.near.run("ip link add tap1 type veth peer name tap1p")
    own.near.run("ip link set tap1 up")
    with Port("tap1") as theirs:
        assert theirs.granted.rx_slots != 16
    own.near.run("ip link del tap1")


def test_information_about_an_interface_leaves_it_alone(own: Wire) -> None:
    """ABI.md 4.2: PORT_INFO_GET of a port that is not open."""
    before = own.near.settings()
    result, body = ask(RequestType.PORT_INFO_GET, "v0", PortInfo())
    info = PortInfo.decode(body)
    assert (result, info.tx_rings, info.rx_rings, info.host_rx_rings) == (0, 1, 1, 1)
    assert own.near.settings() == before


# ---- refused


def test_an_interface_that_is_not_there_is_enxio(near: Wire) -> None:
    """ABI.md 6: also for names longer than 15 characters, and for none."""
    del near
    for name in ("v9", "x" * 16, "x" * 40, "..", "v0/x"):
        assert refused(name) == errno.ENXIO, name


def test_loopback_with_its_mtu_is_einval(near: Wire, wires: Daemon, way: Way) -> None:
    """ABI.md 7: lo's MTU of 65536 does not fit a buffer; with 1500 it opens, and for sending alone."""
    assert refused("lo") == errno.EINVAL
    wires.wait_for_log("the MTU of lo is 65536, ")
    if not way.xdp:
        with Port("lo", Register(flags=Flag.TX_RINGS_ONLY)):
            pass
    near.near.run("ip link set lo mtu 1500")
    try:
        assert refused("lo") == 0
    finally:
        near.near.run("ip link set lo mtu 65536")


def test_a_port_of_a_bridge_is_busy_and_the_log_says_whose(own: Wire, wires: Daemon) -> None:
    """Issue C, bad input: EBUSY and the log names what holds it."""
    try:
        own.near.run("ip link add br7 type bridge")
    except AssertionError:
        pytest.skip("this kernel has no bridges")
    own.near.run("ip link set v0 master br7")
    assert refused("v0") == errno.EBUSY
    wires.wait_for_log("v0 is a port of br7")


def bpf(command: int, attributes: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    block = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    result = int(libc.syscall(321 if os.uname().machine == "x86_64" else 280, command, block, 128))
    assert result >= 0, os.strerror(ctypes.get_errno())
    return result


def test_an_interface_with_an_xdp_program_is_busy_and_the_log_says_so(own: Wire, wires: Daemon) -> None:
    """Issue C, bad input: EBUSY and the log names what holds it."""
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
    text = ctypes.create_string_buffer(b"BSD")
    program = bpf(5, struct.pack("<IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(text)))
    link = bpf(28, struct.pack("<IIII", program, socket.if_nametoindex("v0"), 37, 0))
    try:
        assert refused("v0") == errno.EBUSY
        wires.wait_for_log("v0 has an XDP program")
    finally:
        os.close(link)
        os.close(program)
    assert refused("v0") == 0
    del own


@pytest.mark.parametrize("capability", ["net_raw", "net_admin"])
def test_a_capability_that_is_missing_is_named(near: Wire, way: Way, capability: str, tmp_path: Path) -> None:
    """Issue C, bad input: missing capability named."""
    del near
    if way.xdp and capability == "net_admin":
        pytest.skip("the kernel asks for CAP_SYS_ADMIN or CAP_NET_ADMIN where AF_XDP needs it")
    options = ("--device=netmap2", *way.options(tmp_path))
    with Daemon(tmp_path / "log", *options, under=["setpriv", "--bounding-set", f"-{capability}"]) as daemon:
        with pytest.raises(PermissionError):
            Port("v0", device="/dev/netmap2")
        daemon.wait_for_log(f"CAP_{capability.upper()}")


# ---- changes


def test_an_interface_that_goes_down_and_up_stays_open(own: Wire) -> None:
    """ABI.md 15: nothing is lost but the frames; slots return."""
    with Port("v0") as port, at_far(own) as far:
        own.near.run("ip link set v0 down")
        for number in range(50):
            assert port.put(frame(number))
        port.txsync()
        assert port.tx[0].space == port.tx[0].num_slots - 1
        assert port.poll(select.POLLIN, 0.05) == 0
        own.near.run("ip link set v0 up")
        own.near.wait_until_up()
        far.send(frame(51))
        assert port.receive() == frame(51)
        port.send(frame(52))
        wait_until(lambda: _next(far) == frame(52))


def _next(host: Host) -> bytes:
    try:  # the socket is told once that the interface went down
        return host.receive()
    except OSError:
        return b""


def test_an_interface_opens_while_it_is_down(own: Wire) -> None:
    """ABI.md 12.1: interface down at register time: allowed."""
    own.near.run("ip link set v0 down")
    with Port("v0") as port, at_far(own) as far:
        assert port.poll(select.POLLIN, 0) == 0
        own.near.run("ip link set v0 up")
        own.near.wait_until_up()
        far.send(frame(1))
        assert port.receive() == frame(1)


def test_without_carrier_frames_are_dropped_and_slots_return(own: Wire) -> None:
    """ABI.md 12.1: register works; TX frames are dropped, slots do return."""
    own.far.run("ip link set v1 down")
    with Port("v0") as port, at_far(own) as far:
        assert port.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
        for number in range(port.tx[0].num_slots - 1):
            assert port.put(frame(number))

        def free() -> int:
            port.txsync()
            return port.tx[0].space

        assert settled(free, port.tx[0].num_slots - 1) == port.tx[0].num_slots - 1
        own.far.run("ip link set v1 up")
        own.near.wait_until_up()
        port.send(frame(9999))
        wait_until(lambda: _next(far) == frame(9999))


def test_the_mtu_is_looked_at_on_the_first_open_only(own: Wire, way: Way) -> None:
    """ABI.md 7: first open only: MTU check. XDP knows no frames over several buffers: their headers must fit too."""
    most = 2030 if way.xdp else 2048
    own.near.run(f"ip link set v0 mtu {most + 1}")
    assert refused("v0") == errno.EINVAL
    own.near.run(f"ip link set v0 mtu {most}")
    with Port("v0"):
        own.near.run("ip link set v0 mtu 9000")
        assert refused("v0") == 0
    wait_until(lambda: refused("v0") == errno.EINVAL)


@pytest.mark.parametrize("mode", [Mode.ALL_NIC, Mode.SW])
def test_an_interface_that_is_deleted_ends_syncs_and_polls(own: Wire, mode: Mode) -> None:
    """ABI.md 15: interface unregistered while open: syncs EIO, poll POLLERR, close works."""
    with Port("v0", Register(mode=mode)) as port:
        timer = threading.Timer(0.1, own.near.run, args=("ip link del v0",))
        timer.start()
        assert port.poll(select.POLLIN, at_most(10)) & select.POLLERR
        timer.join()
        for sync in (port.txsync, port.rxsync):
            with pytest.raises(OSError, match=r".") as failed:
                sync()
            assert failed.value.errno == errno.EIO
        assert refused("v0") == errno.ENXIO


def test_a_new_interface_of_a_deleted_one_s_name_opens(own: Wire) -> None:
    """ABI.md 6: names are looked up anew."""
    with Port("v0") as old:
        own.near.run("ip link del v0")
        wait_until(lambda: old.poll(select.POLLIN, 0) & select.POLLERR)
        own.near.run(f"ip link add v0 type veth peer name v1 netns {own.far.sleeper.pid}")
        own.near.run("ip link set v0 up")
        own.far.run("ip link set v1 up")
        with Port("v0") as port, at_far(own) as far:
            far.send(frame(1))
            while number_of(got := port.receive()) < 0:
                pass
            assert got == frame(1)


def test_an_interface_that_is_deleted_leaves_its_switch(own: Wire) -> None:
    """ABI.md 12.5, 15: what is no more is on no switch."""
    assert attach("vale7:v0")[0] == 0
    own.near.run("ip link del v0")
    wait_until(lambda: not all_ports())


@pytest.mark.skipif(kernel_version() < (6, 2), reason="Linux before 6.2 renames no interface that is up")
def test_an_interface_that_is_renamed_is_the_same(own: Wire) -> None:
    """ABI.md 6: the name is what it is found by, not what it is."""
    with Port("v0", Register(flags=Flag.EXCLUSIVE)) as port, at_far(own) as far:
        own.near.run("ip link set v0 name w0")
        far.send(frame(1))
        assert port.receive() == frame(1)
        assert refused("v0") == errno.ENXIO
        assert refused("w0") == errno.EBUSY
    wait_until(lambda: refused("w0") == 0)
    own.near.run("ip link set w0 name v0")
    assert own.far.pings()


def test_an_interface_that_moves_to_another_namespace_is_gone(own: Wire) -> None:
    """ABI.md 15: to the one it has left it is unregistered."""
    with Port("v0") as port:
        own.near.run(f"ip link set v0 netns {own.far.sleeper.pid}")
        assert port.poll(select.POLLIN, at_most(10)) & select.POLLERR


# ---- quiet


def ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_an_idle_interface_costs_no_time(own: Wire, wires: Daemon) -> None:
    """Issue C: idle interface: no CPU used by the daemon."""
    with Port("v0") as wire, Port("v0", Register(mode=Mode.SW)) as host:
        for port in (wire, host):
            assert port.poll(select.POLLIN, 0.1) == 0
        before = ticks(wires.pid)
        poller = select.poll()
        for port in (wire, host):
            poller.register(port, select.POLLIN)
        assert not poller.poll(500)
        assert ticks(wires.pid) - before <= at_most(1)
    del own
