# SPDX-License-Identifier: BSD-2-Clause
"""An interface and its host stack while programs have its rings: what each of them gets (ABI.md 12.2, 15)."""

import errno
import hashlib
import os
import re
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from cuse_netmap import _core
from cuse_netmap.backends import claims
from cuse_netmap.backends.hooks import Links
from cuse_netmap.backends.steer import Steering
from cuse_netmap.namespace import network_namespace
from tests.support.patience import at_most
from tests.support.relay import SOL_PACKET, Relay
from tests.support.veth import QUIET, SOON, Peer, Wire, complete, has_nft, received

PACKET_AUXDATA = 8
SO_RCVMARK, SO_MARK = 75, 36
BROADCAST = b"\xff" * 6
ETH_P_TEST = b"\x88\xb5"
UDP_PORT = 4711


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    """Two hosts of this test's own."""
    monkeypatch.setattr(claims, "FOLDER", tmp_path / "interfaces")
    with Wire() as made:
        yield made


@pytest.fixture(params=["tcx", "cls_bpf"])
def steering(request: pytest.FixtureRequest, wire: Wire) -> Iterator[Steering]:
    """Of the near host's v0."""
    links = request.param == "tcx"
    if links:
        with network_namespace(wire.near.namespace):
            if not Links.possible(socket.if_nametoindex("lo")):
                pytest.skip("tcx needs Linux 6.6")
    with Steering("v0", wire.near.namespace, links=links) as made:
        yield made


@pytest.fixture
def taps(steering: Steering) -> Iterator[Callable[[int], list[int]]]:
    """Opens the TAP of host rings; its descriptors are closed behind the test."""
    with ExitStack() as opened:

        def make(queues: int = 1) -> list[int]:
            fds = steering.open_tap(queues, 1024)
            for fd in fds:
                opened.callback(os.close, fd)
            return fds

        yield make


def readable(fd: int, seconds: float) -> bool:
    return bool(select.select([fd], [], [], seconds)[0])


# ---- NIC rings are bound


def test_the_host_neither_receives_nor_sends_while_nic_rings_are_bound(wire: Wire, steering: Steering) -> None:
    """ABI.md 12.1, 12.2: the data path is disconnected from the host stack."""
    steering.set(nic=True, host=False)
    assert not wire.far.pings(QUIET)
    assert not wire.near.pings(QUIET)
    steering.set(nic=False, host=False)
    assert wire.far.pings()
    assert wire.near.pings()


def test_a_disconnected_host_answers_no_arp(wire: Wire, steering: Steering) -> None:
    """ABI.md 12.1: every frame is stolen from the stack."""
    request = BROADCAST + wire.far.mac() + bytes.fromhex("08060001080006040001")
    request += wire.far.mac() + socket.inet_aton("10.9.0.2") + bytes(6) + socket.inet_aton("10.9.0.1")
    with wire.far.capture() as heard:
        steering.set(nic=True, host=False)
        heard.send(request)
        assert not received(heard, QUIET)
        steering.set(nic=False, host=False)
        heard.send(request)
        assert received(heard, SOON, wanted=1)


def test_a_disconnected_host_resets_no_tcp_connection(wire: Wire, steering: Steering) -> None:
    """ABI.md 12.1: the stack does not know of a connection that a netmap program answers for."""
    with wire.far.open(socket.AF_INET, socket.SOCK_STREAM) as client:
        assert client.connect_ex(("10.9.0.1", 9)) == errno.ECONNREFUSED
    steering.set(nic=True, host=False)
    with wire.far.open(socket.AF_INET, socket.SOCK_STREAM) as client:
        client.settimeout(QUIET)
        with pytest.raises(TimeoutError):
            client.connect(("10.9.0.1", 9))


def test_what_a_disconnected_host_sends_does_not_reach_the_wire(wire: Wire, steering: Steering) -> None:
    """ABI.md 12.2: neither through the stack nor by a packet socket that goes through the queueing discipline."""
    with (
        wire.far.capture() as heard,
        wire.near.open(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        wire.near.capture() as raw,
    ):
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        steering.set(nic=True, host=False)
        with suppress(OSError):
            udp.sendto(b"x", ("10.9.0.255", UDP_PORT))
        with suppress(OSError):
            raw.send(bytes(60))
        assert not received(heard, QUIET)


# ---- host rings are bound too


def test_ping_and_tcp_pass_through_host_rings_and_a_relay(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """ABI.md 12.2: the host keeps working through them; what its offloads left undone is done, nothing is a giant."""
    fds = taps(1)
    steering.set(nic=True, host=True)
    assert not wire.near.pings(QUIET)
    data = os.urandom(3 << 20)
    with Relay(wire.near, fds) as relay:
        assert wire.near.pings()
        assert wire.far.pings()
        for client, server in ((wire.near, wire.far), (wire.far, wire.near)):
            assert transferred(client, server, data) == hashlib.sha256(data).digest()
    assert not relay.errors
    tcp = [frame for frame in relay.sent if frame[12:14] == b"\x08\0" and frame[23] == socket.IPPROTO_TCP]
    assert all(map(complete, tcp))
    assert max(map(len, tcp)) == 1514


def transferred(client: Peer, server: Peer, data: bytes) -> bytes:
    """The digest of what the server receives when the client sends the data."""
    digest = hashlib.sha256()

    def receive() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(SOON)
            while part := connection.recv(1 << 16):
                digest.update(part)

    with server.open(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((server.address, 0))
        listener.listen()
        thread = threading.Thread(target=receive)
        thread.start()
        with client.open(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(at_most(20))
            connection.connect(listener.getsockname())
            connection.sendall(data)
        thread.join()
    return digest.digest()


def test_host_rings_alone_steal_nothing(wire: Wire, steering: Steering, taps: Callable[[int], list[int]]) -> None:
    """ABI.md 7: a NIC open for host rings only steals neither NIC traffic nor host traffic."""
    (fd,) = taps(1)
    steering.set(nic=False, host=True)
    assert wire.near.pings()
    assert wire.far.pings()
    assert not readable(fd, QUIET)


def test_what_host_rings_inject_the_host_receives_as_if_from_the_wire(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """ABI.md 12.2: as netif_rx does; the mark is gone, and a packet socket of somebody else's sees the frame."""
    frame = udp_frame(wire, b"from a ring")
    (fd,) = taps(1)
    for nic in (False, True):
        steering.set(nic=nic, host=True)
        with wire.near.open(socket.AF_INET, socket.SOCK_DGRAM) as udp, wire.near.capture() as tcpdump:
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVMARK, 1)
            udp.bind(("10.9.0.1", UDP_PORT))
            os.write(fd, frame)
            data, control, _, sender = udp.recvmsg(100, 100)
            assert (data, sender[0]) == (b"from a ring", "10.9.0.2")
            assert [int.from_bytes(value, "little") for _, kind, value in control if kind == SO_MARK] in ([0], [])
            assert frame in received(tcpdump, SOON, wanted=1)


def udp_frame(wire: Wire, data: bytes) -> bytes:
    """From the far host to the near one's UDP_PORT, its checksum left out."""
    udp = struct.pack(">4H", UDP_PORT, UDP_PORT, 8 + len(data), 0) + data
    addresses = socket.inet_aton("10.9.0.2") + socket.inet_aton("10.9.0.1")
    header = struct.pack(">BBHHHBB", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP)
    total = int(sum(struct.unpack(">9H", header[:10] + addresses)))
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = header + checksum.to_bytes(2) + addresses
    return wire.near.mac() + wire.far.mac() + b"\x08\0" + ip + udp


def test_vlan_tags_are_in_line_in_host_rings_and_known_to_the_host(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """ABI.md 12.1: VLAN tags in line."""
    tagged = BROADCAST + bytes(6) + b"\x81\0\0\x05" + ETH_P_TEST + bytes(range(42))
    (fd,) = taps(1)
    steering.set(nic=True, host=True)
    with wire.near.capture() as heard:
        heard.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        os.write(fd, tagged)
        data, control, _, _ = heard.recvmsg(2000, 100)
        assert data == tagged[:12] + tagged[16:]
        assert struct.unpack_from("H", control[0][2], 16) == (5,)  # tp_vlan_tci
        heard.send(tagged)
    assert readable(fd, SOON)
    assert os.read(fd, 2000) == tagged


def test_packet_sockets_of_nic_rings_do_not_see_what_host_rings_inject(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """DESIGN: without the filter a frame forwarded between the two would go round for ever."""
    (fd,) = taps(1)
    steering.set(nic=True, host=True)
    with wire.near.open(socket.AF_PACKET, socket.SOCK_RAW) as ring, wire.far.capture() as far:
        _core.steer_packet_socket(ring.fileno())
        ring.bind(("v0", 3))
        os.write(fd, BROADCAST + bytes(6) + ETH_P_TEST + b"host".ljust(46))
        assert not received(ring, QUIET)
        frame = BROADCAST + bytes(6) + ETH_P_TEST + b"wire".ljust(46)
        far.send(frame)
        assert received(ring, SOON, wanted=1) == [frame]


def test_what_the_host_sends_on_the_tap_itself_goes_nowhere(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """DESIGN: the TAP drops unmarked frames of its own stack, and has no addresses to be spoken to."""
    (fd,) = taps(1)
    steering.set(nic=True, host=True)
    assert steering.tap
    name = steering.tap.name
    assert "addrgenmode none" in wire.near.run(f"ip -d link show {name}")
    assert "inet" not in wire.near.run(f"ip addr show {name}")
    with wire.near.open(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((name, 3))
        with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
            raw.send(bytes(60))
    assert not readable(fd, QUIET)


def test_flows_of_the_host_spread_over_several_host_rings(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """ABI.md 12.2: host ring k has its share of the stack's queues; nothing is lost, no flow is in two rings."""
    fds = taps(4)
    steering.set(nic=True, host=True)
    wire.near.run(f"ip neigh replace 10.9.0.2 lladdr {wire.far.mac().hex(':')} dev v0")
    flows, each = 32, 4
    for _ in range(flows):
        with wire.near.open(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            for _ in range(each):
                udp.sendto(b"x", ("10.9.0.2", UDP_PORT))
    rings: dict[bytes, set[int]] = {}
    count = 0
    deadline = time.monotonic() + SOON
    while count < flows * each and time.monotonic() < deadline:
        for fd in select.select(fds, [], [], 0.1)[0]:
            frame = os.read(fd, 2000)
            if frame[12:14] == b"\x08\0" and frame[36:38] == UDP_PORT.to_bytes(2):
                rings.setdefault(frame[34:36], set()).add(fd)
                count += 1
    assert count == flows * each
    assert all(len(used) == 1 for used in rings.values())
    assert len(set.union(*rings.values())) > 1


# ---- other people's rules


def test_an_operators_tc_filters_stay_and_see_what_the_host_receives(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """The operator's own rules are not touched; they run after ours."""
    wire.near.run("tc qdisc add dev v0 clsact")
    for hook in ("ingress", "egress"):
        command = f"tc filter add dev v0 {hook} pref 10 protocol ip u32 match ip protocol 17 0xff"
        wire.near.run(f"{command} action mirred egress mirror dev lo")
    before = wire.near.settings()
    (fd,) = taps(1)
    for nic in (False, True):
        steering.set(nic=nic, host=True)
        hits = counted(wire.near.run("tc -s filter show dev v0 ingress"))
        os.write(fd, udp_frame(wire, b"x"))
        deadline = time.monotonic() + SOON
        while counted(wire.near.run("tc -s filter show dev v0 ingress")) == hits:
            assert time.monotonic() < deadline
    steering.set(nic=False, host=False)
    assert without_tap(wire.near.settings()) == before


def counted(shown: str) -> int:
    """Packets that the filters' actions have had."""
    return sum(map(int, re.findall(r"bytes (\d+) pkt", shown)))


def without_tap(settings: str) -> str:
    """The TAP is its descriptors'."""
    lines = settings.splitlines()
    kept, in_tap = [], False
    for line in lines:
        in_tap = "nmh" in line or (in_tap and line.startswith(" "))
        if not in_tap:
            kept.append(line)
    return "\n".join(kept)


@pytest.mark.skipif(not has_nft(), reason="needs nft: nftables")
def test_an_operators_nft_rules_count_what_the_host_sends_and_receives(
    wire: Wire, steering: Steering, taps: Callable[[int], list[int]]
) -> None:
    """The operator's own rules are not touched."""
    hooks = {"input": "inet", "output": "inet", "ingress": "netdev", "egress": "netdev"}
    for hook, family in hooks.items():
        device = "device v0" if family == "netdev" else ""
        wire.near.run(f"nft add table {family} own")
        wire.near.run(f"nft add chain {family} own {hook} {{ type filter hook {hook} {device} priority 0 ; }}")
        wire.near.run(f"nft add rule {family} own {hook} meta l4proto icmp counter")
    (fd,) = taps(1)
    steering.set(nic=True, host=True)
    with Relay(wire.near, [fd]):
        assert wire.near.pings()
    rules = wire.near.run("nft list ruleset")
    assert rules.count("counter packets") == len(hooks)
    assert "counter packets 0" not in rules
