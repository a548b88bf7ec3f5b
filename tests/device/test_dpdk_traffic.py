# SPDX-License-Identifier: BSD-2-Clause
"""Frames through DPDK's devices, byte for byte: on a veth pair, a TAP, a ring, and nowhere (issue F)."""

import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.sendrecv import AsyncSniffer, sendp

from cuse_netmap.client import NS_MOREFRAG, Port
from cuse_netmap.control.requests import OffsetsBody, OptionType
from cuse_netmap.namespace import network_namespace
from tests.support import dpdk
from tests.support.host import Host, frame, number_of
from tests.support.ioctls import option, settled
from tests.support.patience import at_most
from tests.support.state import STATE, number, state
from tests.support.steps import wait_until
from tests.support.veth import Wire

pytestmark = [dpdk.needs_dpdk, pytest.mark.usefixtures("served")]

PORTS = (
    dpdk.port("wan0", "net_af_packet0,iface=v0")
    + dpdk.port("tapp", "net_tap0,iface=dtap0")
    + dpdk.port("loop", "net_ring0", copy_below=0)
    + dpdk.port("twin", "net_ring1", queues=2)
    + dpdk.port("nil", "net_null0")
    + dpdk.port("server", "net_memif0,role=server,id=0,socket=FOLDER/memif,socket-abstract=no")
    + dpdk.port("client", "net_memif1,role=client,id=0,socket=FOLDER/memif,socket-abstract=no")
    + dpdk.port("host", "net_vhost0,iface=FOLDER/vhost,queues=1")
    + dpdk.port("guest", "net_virtio_user0,path=FOLDER/vhost,queues=1")
)
FAR = {"wan0": "v1", "tapp": "dtap0"}
SIZES = [60, 61, 255, 256, 1024, 1514]
RING = 1024  # frames that a net_ring holds, less one
PROGRAM_MAC, FAR_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


@pytest.fixture(scope="module")
def served(hosts: Wire, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The daemon, in the near network namespace."""
    with network_namespace(hosts.near.namespace):  # nothing on the TAP that no test has sent
        Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
    folder = tmp_path_factory.mktemp("dpdk")
    with dpdk.served(folder, dpdk.configuration(PORTS.replace("FOLDER", str(folder))), hosts.near):
        hosts.near.run("ip link set dtap0 up")
        yield


@pytest.fixture
def far(request: pytest.FixtureRequest, hosts: Wire) -> Iterator[Host]:
    """The other end of the port that the test is about: the peer, or the host's stack."""
    name = request.getfixturevalue("name")
    with network_namespace((hosts.far if name == "wan0" else hosts.near).namespace):
        opened = Host(FAR[name])
    with opened:
        yield opened


wires = pytest.mark.parametrize("name", ["wan0", "tapp"])


def take(port: Port, count: int, ring: int = 0) -> list[bytes]:
    """The next frames of ours."""
    frames: list[bytes] = []
    while len(frames) < count:
        one = port.receive(ring=ring)
        if number_of(one) >= 0:
            frames.append(one)
    return frames


def split(port: Port, whole: bytes, *sizes: int) -> None:
    """Queues a frame in slots of these sizes; what is left, in the last."""
    ring = port.tx[0]
    at = 0
    for size in (*sizes, 0):
        piece = whole[at : at + size] if size else whole[at:]
        at += len(piece)
        index = ring.slot(ring.head)[0]
        ring.buffer(index)[: len(piece)] = piece
        ring.set_slot(ring.head, index, len(piece), NS_MOREFRAG if size else 0)
        ring.advance()


# ---- byte for byte


@wires
@pytest.mark.parametrize("size", SIZES)
def test_what_a_program_sends_the_other_end_receives(far: Host, name: str, size: int) -> None:
    """ABI.md 12.1: one frame a slot, no padding; whether it is copied or pointed at."""
    with Port(name) as port:
        port.send(frame(7, size))
        assert far.receive() == frame(7, size)


@wires
@pytest.mark.parametrize("size", SIZES)
def test_what_the_other_end_sends_a_program_receives(far: Host, name: str, size: int) -> None:
    """ABI.md 12.1: with the Ethernet header, without FCS."""
    with Port(name) as port:
        far.send(frame(7, size))
        assert take(port, 1) == [frame(7, size)]


def conversation(source: str, destination: str) -> list[Packet]:
    ether = Ether(src=source, dst=destination)
    udp = IP(src="198.51.100.1", dst="198.51.100.2") / UDP(sport=4000, dport=5000)
    packets = [ether / udp / Raw(bytes(i % 251 for i in range(size))) for size in (18, 19, 500, 1472)]
    return [*packets, ether / Dot1Q(vlan=5, prio=3) / udp / Raw(bytes(100))]


def test_scapy_receives_byte_for_byte_what_a_program_sends(hosts: Wire) -> None:
    """Issue F: scapy on the far side compares contents."""
    sent = [bytes(packet) for packet in conversation(PROGRAM_MAC, FAR_MAC)]
    source = bytes.fromhex(PROGRAM_MAC.replace(":", ""))
    with Port("wan0") as port, network_namespace(hosts.far.namespace):
        conf.ifaces.reload()

        def send() -> None:
            for one in sent:
                port.send(one)

        sniffer = AsyncSniffer(
            iface="v1", count=len(sent), started_callback=send, lfilter=lambda p: bytes(p)[6:12] == source
        )
        sniffer.start()
        sniffer.join(timeout=at_most(5))
        assert [bytes(packet) for packet in sniffer.results or ()] == sent


def test_a_program_receives_byte_for_byte_what_scapy_sends(hosts: Wire) -> None:
    """Issue F: scapy on the far side compares contents."""
    sent = conversation(FAR_MAC, PROGRAM_MAC)
    source = bytes.fromhex(FAR_MAC.replace(":", ""))
    with Port("wan0") as port, network_namespace(hosts.far.namespace):
        conf.ifaces.reload()
        sendp(sent, iface="v1", verbose=False)
        wanted = (received for received in iter(port.receive, b"") if received[6:12] == source)
        assert [next(wanted) for _ in sent] == [bytes(packet) for packet in sent]


@wires
def test_hundreds_of_frames_keep_their_order_both_ways(far: Host, name: str) -> None:
    """ABI.md 12.1: nothing is lost while there is room."""
    frames = [frame(n, 60 + n % 1400) for n in range(400)]
    with Port(name) as port:
        for one in frames:
            port.send(one)
        assert far.take(400) == frames
        far.send(*frames)
        assert take(port, 400) == frames


@wires
def test_frames_of_before_the_open_are_not_delivered(far: Host, name: str) -> None:
    """ABI.md 12.1: what came before was nobody's."""
    far.send(frame(1))
    with Port(name) as port:
        far.send(frame(2))
        assert take(port, 1) == [frame(2)]


@pytest.mark.parametrize("name", ["wan0", "tapp", "nil"])
def test_after_a_burst_all_slots_have_come_back(name: str) -> None:
    """ABI.md 12.1: when idle the tail is one before the head; pkt-gen waits for it."""
    with Port(name) as port:
        ring = port.tx[0]
        for n in range(ring.num_slots - 1):
            assert port.put(frame(n, 300))
        port.txsync()

        def free() -> int:
            port.txsync()
            return ring.space

        assert settled(free, ring.num_slots - 1) == ring.num_slots - 1


@wires
@pytest.mark.parametrize("sizes", [(100,), (1, 13), (500, 0, 500), (64,) * 20])
def test_slots_with_morefrag_are_one_frame(far: Host, name: str, sizes: tuple[int, ...]) -> None:
    """ABI.md 12.1: as chained mbufs where the device takes them."""
    whole = frame(5, 1400)
    with Port(name) as port:
        split(port, whole, *(size for size in sizes if size))
        port.txsync()
        assert far.receive() == whole


@wires
def test_a_frame_longer_than_the_mtu_is_dropped_and_counted(far: Host, name: str) -> None:
    """ABI.md 12.1: what the wire cannot carry; the next one goes."""
    before = number(f"ports/{name}/tx/drops/long")
    with Port(name) as port:
        port.send(frame(1, 1600))
        port.send(frame(2, 60))
        assert far.receive() == frame(2, 60)
    assert number(f"ports/{name}/tx/drops/long") == before + 1


@wires
def test_a_frame_without_an_ethernet_header_is_dropped_and_counted(far: Host, name: str) -> None:
    before = number(f"ports/{name}/tx/drops/short")
    with Port(name) as port:
        port.send(b"short")
        port.send(frame(2, 60))
        assert far.receive() == frame(2, 60)
    assert number(f"ports/{name}/tx/drops/short") == before + 1


@wires
def test_a_received_frame_takes_as_many_slots_as_it_needs(far: Host, name: str) -> None:
    """ABI.md 12.1 and 13.4: NS_MOREFRAG on all but the last."""
    wanted = option(OptionType.OFFSETS, 0, body=OffsetsBody(1500, 1500, 0).encode())
    whole = frame(3, 1500)
    with Port(name, options=wanted.address) as port:
        far.send(whole)
        ring = port.rx[0]

        def there() -> bool:
            port.rxsync()
            return ring.space >= 3

        wait_until(there)
        slots = [ring.slot(i) for i in range(3)]
        assert [(length, flags & NS_MOREFRAG) for _, length, flags, _ in slots] == [
            (548, NS_MOREFRAG),
            (548, NS_MOREFRAG),
            (404, 0),
        ]
        assert b"".join(bytes(ring.buffer(index)[1500 : 1500 + n]) for index, n, _, _ in slots) == whole


def test_an_interface_that_is_down_holds_up_nobody(hosts: Wire) -> None:
    """Issue F: what the driver does with frames then is its own; the daemon and other ports go on."""
    hosts.near.run("ip link set v0 down")
    try:
        with Port("wan0") as port, Port("nil") as other:
            for n in range(3000):
                port.put(frame(n, 300))
                port.txsync()
                assert other.put(frame(n))
                other.txsync()
    finally:
        hosts.near.run("ip link set v0 up")
    hosts.near.wait_until_up()
    hosts.far.wait_until_up()
    with network_namespace(hosts.far.namespace):
        host = Host("v1")

    def crosses() -> bool:
        port.put(frame(7, 300))
        port.txsync()
        return any(number_of(one) == 7 for one in host.waiting())

    with host, Port("wan0") as port:
        wait_until(crosses)


# ---- sleeping


@pytest.mark.parametrize(("name", "interrupts"), [("wan0", "0"), ("tapp", "1")])
def test_a_sleeper_is_woken_by_a_frame(far: Host, name: str, interrupts: str) -> None:
    """Issue F: by an interrupt where the device has them, else by somebody who looks."""
    assert state(f"ports/{name}/device/interrupts") == interrupts
    with Port(name) as port:
        assert port.poll(select.POLLIN, 0.1) == 0
        for n in range(3):
            timer = threading.Timer(0.05, far.send, [frame(n)])
            timer.start()
            assert take(port, 1) == [frame(n)]
            timer.join()


def test_a_sender_that_the_device_holds_up_sleeps_until_there_is_room() -> None:
    """ABI.md 11: POLLOUT when the ring has room again."""
    with Port("loop") as port, Port("loop") as other:
        ring = port.tx[0]
        while port.put(frame(ring.head, 300)):
            port.txsync()
        assert port.poll(select.POLLOUT, 0.1) == 0
        timer = threading.Timer(0.1, lambda: list(_take_all(other)))
        timer.start()
        assert port.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
        timer.join()


def _take_all(port: Port) -> Iterator[bytes]:
    port.rxsync()
    yield from port.take()
    port.rxsync()


@pytest.mark.parametrize(("one", "other"), [("server", "client"), ("host", "guest")])
def test_two_ports_of_one_daemon_are_a_wire_for_sleepers(one: str, other: str) -> None:
    """Issue F: shared memory of DPDK's, memif and virtio, with and without interrupts."""
    with Port(one) as a, Port(other) as b:
        for sender, receiver in ((a, b), (b, a)):
            for n in range(3):
                timer = threading.Timer(0.02, sender.send, [frame(n, 600)])
                timer.start()
                assert take(receiver, 1) == [frame(n, 600)]
                timer.join()


# ---- frames that the device has where they are


def test_a_frame_keeps_its_slot_until_the_device_is_done_with_it() -> None:
    """DESIGN.md 3: in flight until DPDK's callback, and not the program's meanwhile; the issue's external buffers."""
    with Port("loop") as port:
        ring = port.tx[0]
        assert state("ports/loop/device/pointed_at") == "1"
        free, tail = ring.space, ring.tail
        for n in range(3):
            assert port.put(frame(n, 500))
        port.txsync()
        assert (ring.space, ring.tail) == (free - 3, tail)
        assert take(port, 3) == [frame(n, 500) for n in range(3)]
        port.rxsync()
        port.txsync()
        assert ring.space == free


def test_a_program_that_names_a_buffer_in_flight_does_not_get_it() -> None:
    """ABI.md 10: a buffer that is not the program's counts as a bad index; the frame under way is unharmed."""
    bad = number("ports/loop/tx/bad_slots")
    with Port("loop") as port:
        ring = port.tx[0]
        index = ring.slot(0)[0]
        assert port.put(frame(1, 500))
        port.txsync()
        ring.set_slot(ring.head, index, 60)
        ring.advance()
        port.txsync()
        assert number("ports/loop/tx/bad_slots") == bad + 1
        assert take(port, 1) == [frame(1, 500)]


def buffers_of_nobody_open() -> int:
    """How many are used when the programs of earlier tests have left."""
    wait_until(lambda: not list((STATE / "clients").iterdir()))
    return number("memory/1/buf/used")


def test_buffers_in_flight_outlive_their_ring_and_come_back() -> None:
    """DESIGN.md 3: to the pool only when the device can no longer read them."""
    used = buffers_of_nobody_open()
    with Port("loop") as port:
        for n in range(5):
            assert port.put(frame(n, 500))
        port.txsync()
    wait_until(lambda: number("memory/1/buf/used") == used + 5)
    with Port("loop") as port:  # which takes what waits for what came before it
        port.send(frame(9, 500))
        assert take(port, 1) == [frame(9, 500)]
        port.rxsync()
    wait_until(lambda: number("memory/1/buf/used") == used)


def test_one_buffer_in_two_slots_comes_back_once() -> None:
    """DESIGN.md 3: whatever a program writes, a buffer has one owner."""
    used = buffers_of_nobody_open()
    with Port("loop") as port:
        ring = port.tx[0]
        index = ring.slot(0)[0]
        ring.buffer(index)[:500] = frame(1, 500)
        for _ in range(2):
            ring.set_slot(ring.head, index, 500)
            ring.advance()
        port.txsync()
    with Port("loop") as port:
        port.send(frame(9, 500))
        assert take(port, 1) == [frame(9, 500)]
        port.rxsync()
    with Port("loop") as port:
        port.rxsync()
    wait_until(lambda: number("memory/1/buf/used") == used)


def test_a_device_that_is_full_takes_the_rest_later() -> None:
    """ABI.md 12.1: slots stay with the ring meanwhile, and nothing is lost or doubled."""
    frames = [frame(n, 400) for n in range(RING + 500)]
    with Port("loop") as port:
        got: list[bytes] = []
        for one in frames:
            while not port.put(one):
                port.txsync()
                port.rxsync()
                got += port.take()

        def all_have_come() -> bool:
            port.txsync()
            port.rxsync()
            got.extend(port.take())
            return len(got) == len(frames)

        wait_until(all_have_come)
        assert got == frames


# ---- queues


def test_each_queue_of_the_device_is_a_ring() -> None:
    """Issue F: a port with one ring per queue."""
    with Port("twin") as port:
        assert (port.granted.tx_rings, port.granted.rx_rings) == (2, 2)
        for ring in (1, 0):
            assert port.put(frame(ring, 300), ring=ring)
        port.txsync()
        for ring in (0, 1):
            assert take(port, 1, ring) == [frame(ring, 300)]


def test_what_is_sent_into_a_null_device_is_counted_by_it() -> None:
    """Issue F: statistics."""
    before = number("ports/nil/device/tx_packets")
    with Port("nil") as port:
        for n in range(100):
            assert port.put(frame(n))
        port.txsync()
    assert number("ports/nil/device/tx_packets") == before + 100
