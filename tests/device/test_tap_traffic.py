# SPDX-License-Identifier: BSD-2-Clause
"""What crosses a TAP wire, byte for byte, in both directions: with scapy at the host's end, and by the thousand."""

import select
from collections.abc import Iterator

import pytest
from scapy.config import conf
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.sendrecv import AsyncSniffer, sendp

from cuse_netmap.client import Port
from tests.support.daemon import Daemon
from tests.support.host import Host, dropped, frame, ip, link, number_of, ours
from tests.support.patience import at_most

PROGRAM_MAC, HOST_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SIZES = (42, 43, 59, 60, 61, 64, 127, 128, 512, 1024, 1499, 1500, 1513, 1514)
CONFIG = """
[ports.tap0]
backend = "tap"
[ports.small]
backend = "tap"
slots = 64
[ports.large]
backend = "tap"
slots = 2048
[ports.jumbo]
backend = "tap"
mtu = 2048
"""


@pytest.fixture(scope="module", autouse=True)
def served(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("traffic")
    (folder / "config.toml").write_text(CONFIG)
    with Daemon(folder / "log", f"--config={folder / 'config.toml'}", *way) as daemon:
        conf.ifaces.reload()
        yield daemon


def filled(packet: Packet, size: int) -> Packet:
    """The packet with a payload that brings the whole frame to `size` bytes."""
    return packet / Raw(bytes(i % 251 for i in range(size - len(packet)))) if size > len(packet) else packet


def conversation(source: str, destination: str) -> list[Packet]:
    ether = Ether(src=source, dst=destination)
    udp = IP(src="198.51.100.1", dst="198.51.100.2") / UDP(sport=4000, dport=5000)
    packets = [filled(ether / udp, size) for size in SIZES]
    packets += [Ether(src=source, dst=destination, type=0x88B5)]  # 14 bytes: a header and nothing else
    packets += [filled(ether / Dot1Q(vlan=5, prio=3) / udp, size) for size in (60, 1518)]
    packets += [filled(ether / Dot1AD(vlan=7) / Dot1Q(vlan=8) / udp, 100)]
    return packets


@pytest.mark.door
def test_scapy_receives_byte_for_byte_what_a_program_sends() -> None:
    sent = [bytes(packet) for packet in conversation(PROGRAM_MAC, HOST_MAC)]
    with Port("tap0") as port:

        def send() -> None:
            for one in sent:
                port.send(one)

        sniffer = AsyncSniffer(
            iface="tap0", count=len(sent), lfilter=lambda packet: packet.src == PROGRAM_MAC, started_callback=send
        )
        sniffer.start()
        sniffer.join(at_most(5))
    assert [bytes(packet) for packet in sniffer.results or []] == sent


@pytest.mark.door
def test_a_program_receives_byte_for_byte_what_scapy_sends() -> None:
    sent = conversation(HOST_MAC, PROGRAM_MAC)
    source = bytes.fromhex(HOST_MAC.replace(":", ""))
    with Port("tap0") as port:
        sendp(sent, iface="tap0", verbose=False)
        wanted = (received for received in iter(port.receive, b"") if received[6:12] == source)
        assert [next(wanted) for _ in sent] == [bytes(packet) for packet in sent]


def test_what_arrives_is_what_scapy_dissects_with_checksums_right() -> None:
    """Nobody computes, offloads or pads on the way."""
    with Port("tap0") as port:
        sendp(Ether(src=HOST_MAC) / IP(dst="198.51.100.9") / UDP(dport=7) / b"odd", iface="tap0", verbose=False)
        frames = (Ether(received) for received in iter(port.receive, b""))
        packet = next(packet for packet in frames if packet.src == HOST_MAC)
    assert packet[UDP].load == b"odd"
    checksum = packet[UDP].chksum
    del packet[UDP].chksum
    assert Ether(bytes(packet))[UDP].chksum == checksum


def test_ten_thousand_frames_of_a_program_arrive_in_order() -> None:
    with Host("tap0") as host, Port("tap0") as port:
        for number in range(10000):
            while not port.put(frame(number, 60 + number % 1400)):
                port.poll(select.POLLOUT, at_most(5))
        port.txsync()
        assert host.take(10000) == [frame(number, 60 + number % 1400) for number in range(10000)]


def test_ten_thousand_frames_of_the_host_arrive_in_order() -> None:
    with Host("tap0") as host, Port("tap0") as port:
        received: list[bytes] = []
        for first in range(0, 10000, 500):  # fewer than the device queues
            host.send(*(frame(number, 60 + number % 1400) for number in range(first, first + 500)))
            while len(received) < first + 500:
                assert port.poll(select.POLLIN, at_most(5))
                received += ours(port.take())
    assert received == [frame(number, 60 + number % 1400) for number in range(10000)]


def test_a_burst_larger_than_the_rx_ring_waits_behind_it() -> None:
    """64 slots, 900 frames at once: the program sees them 63 at a time, none lost, none out of order."""
    with Port("small") as port, Host("small") as host:
        host.send(*map(frame, range(900)))
        received: list[bytes] = []
        while len(received) < 900:
            assert port.poll(select.POLLIN, at_most(5))
            assert port.rx[0].space <= 63
            received += ours(port.take())
    assert received == [frame(number) for number in range(900)]
    assert dropped("small") == 0


def test_a_burst_larger_than_the_tx_ring_goes_out_as_room_comes() -> None:
    with Port("small") as port, Host("small") as host:
        for number in range(900):
            while not port.put(frame(number)):
                assert port.tx[0].space == 0
                assert port.poll(select.POLLOUT, at_most(5)) == select.POLLOUT
        port.txsync()
        assert host.take(900) == [frame(number) for number in range(900)]
        assert port.tx[0].space == 63


def test_what_a_full_ring_and_a_full_queue_cannot_hold_the_host_counts() -> None:
    """What does arrive are the oldest, in order."""
    with Port("small") as port, Host("small") as host:
        before = dropped("small")
        host.send(*map(frame, range(3000)))
        lost = dropped("small") - before
        received: list[bytes] = []
        while port.poll(select.POLLIN, 0.2):
            received += ours(port.take())
    assert received == [frame(number) for number in range(len(received))]
    assert len(received) + lost >= 3000  # the host's stack may have said something too
    assert 900 < len(received) < 3000


def test_txsync_leaves_an_idle_tx_ring_with_tail_just_before_head() -> None:
    """Programs wait for this to know that everything has left (ABI.md 12.1)."""
    with Port("tap0") as port:
        for number in range(700):
            port.put(frame(number))
        port.txsync()
        ring = port.tx[0]
        assert ring.tail == (ring.head - 1) % ring.num_slots


def test_a_frame_longer_than_a_buffer_takes_two_slots_both_ways() -> None:
    """An MTU of 2048 makes frames of 2062 bytes, a buffer has 2048 (ABI.md 10, NS_MOREFRAG)."""
    with Port("jumbo") as port, Host("jumbo") as host:
        for size in (2047, 2048, 2049, 2062):
            host.send(frame(size, size))
            while number_of(received := port.receive()) < 0:
                pass
            assert received == frame(size, size)
            port.send(frame(size, size))
            assert host.receive() == frame(size, size)


def test_the_slots_of_a_long_frame_say_that_there_is_more() -> None:
    with Port("jumbo") as port, Host("jumbo") as host:
        host.send(frame(1, 2062))
        ring = port.rx[0]
        while port.poll(select.POLLIN, at_most(5)) and number_of(bytes(ring.buffer(ring.slot(ring.head)[0]))) < 0:
            ring.advance()
        assert [ring.slot(ring.next(ring.head, i))[1:3] for i in range(2)] == [(2048, 0x20), (14, 0)]


def test_half_a_packet_waits_in_the_tx_ring_for_the_rest() -> None:
    with Port("jumbo") as port, Host("jumbo") as host:
        ring = port.tx[0]
        whole = frame(3, 2062)
        first, second = (ring.slot(ring.next(ring.head, i))[0] for i in range(2))
        ring.buffer(first)[:2048] = whole[:2048]
        ring.set_slot(ring.head, first, 2048, 0x20)
        ring.advance()
        port.txsync()
        assert host.waiting() == []
        ring.buffer(second)[:14] = whole[2048:]
        ring.set_slot(ring.head, second, 14)
        ring.advance()
        port.txsync()
        assert host.receive() == whole


def test_a_frame_without_an_ethernet_header_is_dropped_and_its_slot_returns() -> None:
    with Port("tap0") as port, Host("tap0") as host:
        port.put(b"thirteen byte")
        port.put(b"")
        port.put(frame(1))
        port.txsync()
        assert host.receive() == frame(1)
        assert port.tx[0].space == port.tx[0].num_slots - 1


def test_frames_that_come_while_the_mtu_grew_are_cut_for_nobody() -> None:
    """The MTU of the first open holds: a frame longer than its slots is dropped whole, the next one is fine."""
    with Port("tap0") as port, Host("tap0") as host:
        ip("link", "set", "tap0", "mtu", "3000")
        try:
            host.send(frame(1, 2048), frame(2, 2049), frame(3, 3000), frame(4))
            received: list[bytes] = []
            while len(received) < 2:
                received += ours([port.receive()])
            assert received == [frame(1, 2048), frame(4)]
        finally:
            ip("link", "set", "tap0", "mtu", "1500")


def test_the_device_queues_at_least_as_many_frames_as_a_ring_has_slots() -> None:
    assert link("small")["txqlen"] == 1000
    assert link("large")["txqlen"] == 2048
