# SPDX-License-Identifier: BSD-2-Clause
"""An interface and its host stack while programs have its rings: cut off, connected by host rings, given back."""

import errno
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cuse_netmap.client import NS_BUF_CHANGED, Port
from cuse_netmap.control.requests import Flag, Mode, Register
from cuse_netmap.namespace import network_namespace
from tests.support.command import cuse_netmap
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, number_of
from tests.support.ioctls import settled
from tests.support.program import Program
from tests.support.steps import wait_until, wait_until_equal
from tests.support.switches import attached
from tests.support.veth import QUIET, SOON, Wire, received

HOST = 1  # the ring behind the only NIC ring


def host_port(**fields: int) -> Port:
    return Port("v0", Register(mode=fields.pop("mode", Mode.SW), **fields))


@contextmanager
def carried(pairs: Sequence[tuple[tuple[Port, int], tuple[Port, int]]]) -> Iterator[None]:
    """A program that swaps buffers between the two rings of each pair, which are in one region."""
    done = threading.Event()

    def carry(source: Port, ring: int, to: Port, to_ring: int) -> None:
        rx, tx = source.rx[ring], to.tx[to_ring]
        while rx.space and tx.space:
            theirs, length, flags, _ = rx.slot(rx.head)
            rx.set_slot(rx.head, tx.slot(tx.head)[0], 0, NS_BUF_CHANGED)
            tx.set_slot(tx.head, theirs, length, flags & ~1 | NS_BUF_CHANGED)
            rx.advance()
            tx.advance()

    def run() -> None:
        ports = {port for pair in pairs for port, _ in pair}
        while not done.is_set():
            for port in ports:
                port.poll(1, 0.001)
            for one, other in pairs:
                carry(*one, *other)
                carry(*other, *one)
            for port in ports:
                port.txsync()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


# ---- cut off


def test_a_program_with_nic_rings_cuts_the_host_off(near: Wire) -> None:
    """ABI.md 12.1, 12.2: the data path is disconnected from the host stack, both ways; then it is back."""
    with Port("v0"):
        assert not near.far.pings(QUIET)
        assert not near.near.pings(QUIET)
    assert near.far.pings()
    assert near.near.pings()


def test_a_host_that_is_cut_off_answers_no_arp(near: Wire) -> None:
    """ABI.md 12.1: every frame is stolen from the stack."""
    request = b"\xff" * 6 + near.far.mac() + bytes.fromhex("08060001080006040001")
    request += near.far.mac() + socket.inet_aton("10.9.0.2") + bytes(6) + socket.inet_aton("10.9.0.1")
    with Port("v0") as port, near.far.capture() as heard:
        heard.send(request)
        while port.receive() != request:
            pass
        assert not received(heard, QUIET)


def test_a_host_that_is_cut_off_resets_no_connection(near: Wire) -> None:
    """ABI.md 12.1: the stack does not know of a connection that a program answers for."""
    with Port("v0"), near.far.open(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(QUIET)
        with pytest.raises(TimeoutError):
            client.connect(("10.9.0.1", 9))


@pytest.mark.parametrize("flag", [Flag.RX_RINGS_ONLY, Flag.TX_RINGS_ONLY])
def test_one_direction_alone_cuts_the_host_off(near: Wire, flag: Flag) -> None:
    """DESIGN.md section 4: while NIC rings are bound, the host neither receives nor sends."""
    with Port("v0", Register(flags=flag)):
        assert not near.far.pings(QUIET)
    assert near.far.pings()


# ---- host rings


def test_host_rings_alone_steal_nothing(near: Wire) -> None:
    """ABI.md 7: a NIC open for host rings only does not steal NIC traffic, nor host traffic."""
    with host_port() as port:
        assert near.far.pings()
        assert near.near.pings()
        port.rxsync()
        assert not list(port.take(HOST))


def test_what_is_put_into_a_host_ring_the_stack_receives(near: Wire) -> None:
    """ABI.md 12.2: injected as if received by the interface, NIC rings bound or not."""
    for nic in (False, True):
        with ExitStack() as stack:
            if nic:
                stack.enter_context(Port("v0"))
            port = stack.enter_context(host_port())
            listener = stack.enter_context(near.near.open(socket.AF_PACKET, socket.SOCK_RAW))
            listener.bind(("v0", 0x88B5))
            assert port.put(frame(7), HOST)
            port.txsync()
            assert listener.recv(2000) == frame(7)
            assert port.tx[HOST].space == port.tx[HOST].num_slots - 1


def test_what_the_stack_sends_arrives_in_a_host_ring(near: Wire) -> None:
    """ABI.md 12.2: copied at rxsync while the NIC rings are bound; the wire does not see it."""
    with Port("v0"), host_port() as port, near.far.capture() as heard, Host("v0") as host:
        host.send(frame(7, 1514))
        while number_of(got := port.receive(ring=HOST)) < 0:
            pass  # the stack's own: it looks after its neighbours
        assert got == frame(7, 1514)
        assert not [one for one in received(heard, QUIET) if number_of(one) >= 0]


def test_the_host_works_through_a_program_between_wire_and_host(near: Wire) -> None:
    """Issue C: `bridge netmap:v0 netmap:v0^`: ping and TCP both ways."""
    data = os.urandom(1 << 18)
    with Port("v0") as wire, host_port() as host, carried([((wire, 0), (host, HOST))]):
        assert near.far.pings()
        assert near.near.pings()
        with near.near.open(socket.AF_INET, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("10.9.0.1", 4713))
            listener.listen()
            with near.far.open(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.connect(("10.9.0.1", 4713))
                server, _ = listener.accept()
                with server:
                    for source, to in ((client, server), (server, client)):
                        feeder = threading.Thread(target=source.sendall, args=(data,))
                        feeder.start()
                        to.settimeout(SOON)
                        got = b""
                        while len(got) < len(data):
                            got += to.recv(1 << 18)
                        feeder.join()
                        assert got == data


def test_one_descriptor_can_have_wire_and_host(near: Wire) -> None:
    """ABI.md 7: NIC_SW binds all of them ("*")."""
    with host_port(mode=Mode.NIC_SW) as port, carried([((port, 0), (port, HOST))]):
        assert near.far.pings()


def test_several_host_rings_share_what_the_host_sends(near: Wire) -> None:
    """ABI.md 7: host ring counts are honoured on first open; 12.2: flows are spread over them."""
    with host_port(host_tx_rings=4, host_rx_rings=4) as port, Port("v0"):
        assert (port.granted.host_tx_rings, port.granted.host_rx_rings) == (4, 4)
        near.near.run(f"ip neigh replace 10.9.0.2 lladdr {near.far.mac().hex(':')} dev v0")
        with near.near.open(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(64):
                sender.sendto(number.to_bytes(4), ("10.9.0.2", 5000 + number))
        found: dict[int, list[int]] = {}

        def arrived() -> int:
            port.rxsync()
            for ring in range(1, 5):
                frames = [one for one in port.take(ring) if one[12:14] == b"\x08\x00"]
                found.setdefault(ring, []).extend(int.from_bytes(one[42:46]) for one in frames)
            return sum(map(len, found.values()))

        assert settled(arrived, 64) == 64, found
        assert sorted(number for numbers in found.values() for number in numbers) == list(range(64))
        assert sum(map(bool, found.values())) > 1
    near.near.run("ip neigh flush dev v0")
    with host_port() as port:
        assert port.granted.host_rx_rings == 1


@pytest.mark.parametrize(("tx", "rx"), [(1, 3), (3, 1)])
def test_host_rings_may_be_more_in_one_direction(near: Wire, tx: int, rx: int) -> None:
    """ABI.md 7 (T: 5 and 4): every ring sends, and nothing that the host sends is without a ring."""
    near.near.run(f"ip neigh replace 10.9.0.2 lladdr {near.far.mac().hex(':')} dev v0")
    with host_port(host_tx_rings=tx, host_rx_rings=rx) as port, Port("v0"), Host("v0") as host:
        for ring in range(1, tx + 1):
            assert port.put(frame(ring), ring)
            port.txsync()
            assert host.receive() == frame(ring)
        with near.near.open(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(32):
                sender.sendto(b"", ("10.9.0.2", 5000 + number))
        found: list[bytes] = []

        def arrived() -> int:
            port.rxsync()
            found.extend(one for ring in port.rx for one in port.take(ring) if one[12:14] == b"\x08\x00")
            return len(found)

        wait_until(lambda: arrived() == 32)
    near.near.run("ip neigh flush dev v0")


def test_who_opens_first_says_how_many_host_rings_there_are(near: Wire) -> None:
    """ABI.md 7: host ring counts are honoured on first open; what the host sends is in those there are."""
    with Port("v0"), host_port(host_tx_rings=4, host_rx_rings=4) as port, Host("v0") as host:
        assert (port.granted.host_tx_rings, port.granted.host_rx_rings) == (1, 1)
        for number in range(32):
            host.send(frame(number))
        assert [port.receive(ring=HOST) for _ in range(32)] == [frame(number) for number in range(32)]
    del near


def test_a_host_ring_of_several_can_be_opened_alone(near: Wire) -> None:
    """ABI.md 7: ONE_SW binds host ring N; names like eth0^1 (Suricata)."""
    del near
    with (
        host_port(mode=Mode.ONE_SW, ringid=0, host_tx_rings=2, host_rx_rings=2),
        host_port(mode=Mode.ONE_SW, ringid=1) as port,
        Host("v0") as host,
    ):
        assert list(port.tx) == [2]
        assert port.put(frame(3), 2)
        port.txsync()
        assert host.receive() == frame(3)


def test_the_host_tap_follows_the_mtu_in_the_interface_s_own_namespace(near: Wire) -> None:
    """DESIGN.md section 4: the TAP follows the interface's MTU, wherever that is."""

    def tap_mtu() -> str:
        return near.near.run("ip -o link show").partition(" nmh")[2].partition(" mtu ")[2].split()[0]

    with host_port():
        assert tap_mtu() == "1500"
        near.near.run("ip link set v0 mtu 1400")
        wait_until(lambda: tap_mtu() == "1400")
        near.near.run("ip link set v0 mtu 1500")
        wait_until(lambda: tap_mtu() == "1500")


# ---- two interfaces


def test_buffers_are_swapped_between_two_interfaces(wires: Daemon) -> None:
    """Issue C: bridge-like programs between two interfaces, in one region: nothing is copied."""
    del wires
    with Wire() as one, Wire() as other:
        with network_namespace(one.near.namespace):
            left = Port("v0")
        with network_namespace(other.near.namespace):
            right = Port("v0")
        with left, right, network_namespace(one.far.namespace):
            assert left.granted.mem_id == right.granted.mem_id
            sender = Host("v1")
            with network_namespace(other.far.namespace):
                receiver = Host("v1")
            with sender, receiver, carried([((left, 0), (right, 0))]):
                frames = [frame(number, 60 + number) for number in range(500)]
                sender.send(*frames)
                assert receiver.take(500) == frames
                receiver.send(*frames)
                assert sender.take(500) == frames


# ---- switches and monitors


@pytest.mark.parametrize("host", [False, True])
def test_an_interface_on_a_switch_with_and_without_its_host(near: Wire, far: Host, host: bool) -> None:
    """ABI.md 12.5: VALE attach of a NIC; with its host rings the host stays reachable through the switch."""
    with attached("vale0:v0", mode=Mode.NIC_SW if host else Mode.ALL_NIC), Port("vale0:a") as port:
        port.send(frame(1))
        assert far.receive() == frame(1)
        far.send(frame(2))
        while (got := port.receive()) != frame(2):
            assert number_of(got) < 0
        assert near.far.pings(SOON if host else QUIET) == host
    assert near.far.pings()


def test_a_monitor_sees_what_crosses_an_interface(near: Wire, far: Host) -> None:
    """ABI.md 12.4: copies of both directions."""
    del near
    with Port("v0") as port, Port("v0", Register(flags=Flag.MONITOR_TX | Flag.MONITOR_RX)) as monitor:
        port.send(frame(1))
        assert far.receive() == frame(1)
        far.send(frame(2))
        assert port.receive() == frame(2)
        seen: list[bytes] = []

        def both() -> bool:
            monitor.rxsync()
            for ring in monitor.rx:
                seen.extend(monitor.take(ring))
            port.rxsync()
            return {frame(1), frame(2)} <= set(seen)

        wait_until(both)


# ---- given back


@pytest.mark.parametrize("mode", [Mode.ALL_NIC, Mode.SW, Mode.NIC_SW])
def test_on_the_last_close_all_is_as_before(near: Wire, mode: Mode) -> None:
    """Issue C: `ip -d link`, tc, nft and bpf listings are compared."""
    wait_until_equal(near.near.settings, near.untouched)
    with host_port(mode=mode), host_port(mode=mode):
        assert near.near.settings() != near.untouched
    wait_until_equal(near.near.settings, near.untouched)


def test_after_sigkill_of_the_program_all_is_as_before(near: Wire, client_program: Callable[..., Path]) -> None:
    """ABI.md 15: exit and kill release all."""
    wait_until_equal(near.near.settings, near.untouched)
    with Program(client_program("hold"), "poll", "v0") as program:
        program.wait_for("ready")
        wait_until(lambda: near.near.settings() != near.untouched)
        program.kill()
    wait_until_equal(near.near.settings, near.untouched)
    assert near.far.pings()


def test_after_sigkill_of_the_daemon_all_is_as_before(start_such_daemon: Callable[..., Daemon]) -> None:
    """Issue C: at once where BPF links exist, else by the next start."""
    with Wire() as wire, network_namespace(wire.near.namespace):
        daemon = start_such_daemon()
        port = Port("v0", Register(mode=Mode.NIC_SW), device="/dev/netmap2")
        assert not wire.far.pings(QUIET)
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait()
        if wire.near.settings() != wire.untouched:
            assert cuse_netmap("cleanup", "--device=netmap2").returncode == 0
        wait_until_equal(wire.near.settings, wire.untouched)
        assert wire.far.pings()
        port.close()


@pytest.mark.parametrize("on_exit", ["restore", "block"])
def test_what_on_exit_says_becomes_of_the_host(start_such_daemon: Callable[..., Daemon], on_exit: str) -> None:
    """Issue C: `on_exit = "restore" | "block"` for those who want to fail closed."""
    setting = f'on_exit = "{on_exit}"'
    with Wire() as wire, network_namespace(wire.near.namespace):
        daemon = start_such_daemon(setting)
        port = Port("v0", device="/dev/netmap2")
        daemon.stop()
        port.close()
        assert wire.far.pings(SOON if on_exit == "restore" else QUIET) == (on_exit == "restore")
        start_such_daemon(setting)
        assert wire.far.pings(SOON if on_exit == "restore" else QUIET) == (on_exit == "restore")
        with Port("v0", device="/dev/netmap2"):
            assert not wire.far.pings(QUIET)
        assert wire.far.pings()


def test_a_refused_open_leaves_the_host_alone(near: Wire) -> None:
    """ABI.md 7: what REGISTER refuses has changed nothing."""
    wait_until_equal(near.near.settings, near.untouched)
    for request in (Register(mode=Mode.ONE_NIC, ringid=9), Register(mode=99), Register(mem_id=77)):
        with pytest.raises(OSError, match=r".") as refused:
            Port("v0", request)
        assert refused.value.errno == errno.EINVAL
    assert near.near.settings() == near.untouched
