# SPDX-License-Identifier: BSD-2-Clause
"""Packets between VALE ports whose virtio-net headers differ, against scapy: what it builds is what has to arrive."""

import errno
import random
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
from scapy.layers.inet import IP, TCP, UDP, IPOption_Router_Alert, fragment, in4_pseudoheader
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6, in6_pseudoheader
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum

from cuse_netmap.client import NS_MOREFRAG, Port, control
from cuse_netmap.control.requests import OffsetsBody, OptionType, PortHeader, Register, RequestType
from tests.support.ioctls import device, option, request

pytestmark = pytest.mark.usefixtures("wires")

NEEDS_CSUM, DATA_VALID = 1, 2
TCPV4, UDP_FRAGMENTS, TCPV6, ECN = 1, 3, 4, 0x80
FRAME_MOST = 1514
BUFFER = 2048
UNEQUAL = [(sent, received) for sent in (0, 10, 12) for received in (0, 10, 12) if sent != received]

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
V4, V6 = IP(src="198.51.100.1", dst="198.51.100.2", id=0xFFFE), IPv6(src="2001:db8::1", dst="2001:db8::2", fl=77)
# What stands between Ethernet and TCP or UDP.
BELOW = {
    "IPv4": ETHER / V4,
    "IPv4 with options": ETHER / IP(src="198.51.100.1", dst="203.0.113.9", options=[IPOption_Router_Alert()]),
    "IPv4 in a VLAN": ETHER / Dot1Q(vlan=5) / V4,
    "IPv6": ETHER / V6,
    "IPv6 in two VLANs": ETHER / Dot1AD(vlan=7) / Dot1Q(vlan=8) / V6,
}


@dataclass
class Virtio:
    """struct virtio_net_hdr; one of 12 bytes has num_buffers too."""

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    num_buffers: int = 0

    def encode(self, length: int) -> bytes:
        return struct.pack("<BBHHHHH", *vars(self).values())[:length]


class Switch:
    """One sender and one receiver on vale0, each with a header of its own length; more may join."""

    def __init__(self, ports: ExitStack, sent: int, received: int, slots: int = 1024, offset: int = 0) -> None:
        self.ports = ports
        self.header = sent
        self.sender = self.join("vale0:sender", sent)
        self.receiver = self.join("vale0:receiver", received, slots, offset)

    def join(self, name: str, header: int, slots: int = 1024, offset: int = 0) -> Port:
        """Its packets begin `offset` bytes into their buffers, and might anywhere."""
        offsets = option(OptionType.OFFSETS, body=OffsetsBody(BUFFER, offset, 16).encode())
        port = self.ports.enter_context(Port(name, Register(rx_slots=slots), options=offsets.address if offset else 0))
        control(port.fd, RequestType.PORT_HDR_SET, name, PortHeader(header))
        return port

    def place(self, fragments: list[bytes]) -> None:
        tx = self.sender.tx[0]
        for left, piece in zip(range(len(fragments) - 1, -1, -1), fragments, strict=True):
            buf_idx = tx.slot(tx.head)[0]
            tx.buffer(buf_idx)[: len(piece)] = piece
            tx.set_slot(tx.head, buf_idx, len(piece), NS_MOREFRAG if left else 0)
            tx.advance()

    def arrived(self, port: Port | None = None) -> list[bytes]:
        """Whole packets. Their slots are as full as they can be, and their flags are right."""
        port = port or self.receiver
        port.rxsync()
        rx, packets = port.rx[0], []
        while rx.space:
            count = rx.slot(rx.head)[2] >> 8
            parts = []
            for left in range(count - 1, -1, -1):
                buf_idx, length, flags, offset = rx.slot(rx.head)
                assert flags == count << 8 | (NS_MOREFRAG if left else 0)
                assert length == BUFFER - offset if left else length
                parts.append(bytes(rx.buffer(buf_idx)[offset : offset + length]))
                rx.advance()
            packets.append(b"".join(parts))
        return packets

    def send(self, packet: bytes, virtio: Virtio | None = None, cuts: list[int] | None = None) -> list[bytes]:
        """What arrives of a packet; `cuts`: where a new slot begins, the header counted."""
        whole = (virtio or Virtio()).encode(self.header) + packet
        cuts = [0, *(range(BUFFER, len(whole), BUFFER) if cuts is None else cuts), len(whole)]
        self.place([whole[a:b] for a, b in pairwise(cuts)])
        self.sender.txsync()
        return self.arrived()


@contextmanager
def switch(sent: int, received: int, slots: int = 1024, offset: int = 0) -> Iterator[Switch]:
    with ExitStack() as ports:
        yield Switch(ports, sent, received, slots, offset)


def dice(seed: str | int) -> random.Random:
    return random.Random(seed)  # noqa: S311


def payload(length: int) -> Raw:
    return Raw(dice(length).randbytes(length))


def partial(packet: Packet) -> tuple[bytes, Virtio]:
    """A frame as a stack hands it to hardware that does checksums, and the header that says so."""
    frame = bytearray(bytes(packet))
    transport = packet[TCP] if TCP in packet else packet[UDP]
    length, protocol = len(bytes(transport)), 6 if TCP in packet else 17
    start, offset = len(frame) - length, 16 if TCP in packet else 6
    if IP in packet:
        pseudo = in4_pseudoheader(protocol, packet[IP], length)
    else:
        pseudo = bytes(in6_pseudoheader(protocol, packet[IPv6], length))
    struct.pack_into(">H", frame, start + offset, ~checksum(pseudo) & 0xFFFF)
    return bytes(frame), Virtio(flags=NEEDS_CSUM, csum_start=start, csum_offset=offset)


def random_cuts(chance: random.Random, header: int, length: int) -> list[int]:
    """Where a sender may begin its fragments, 64 at most: not within the Ethernet header, but right before it."""
    first = header + 14 + chance.randrange(60)
    cuts = [header, first] if chance.randrange(2) else [first]
    while cuts[-1] < length:
        scarce = length - cuts[-1] > BUFFER * (60 - len(cuts))
        cuts.append(cuts[-1] + (BUFFER if scarce else chance.choice([1, 2, 3, 41, 999, BUFFER])))
    return [cut for cut in cuts if 0 < cut < length]


# ---- headers alone


@pytest.mark.parametrize(("sent", "received"), UNEQUAL)
@pytest.mark.parametrize("size", [14, 60, 1514, 2036, 2037, 2038, 2048, 2049, 9000, 65000])
def test_a_packet_arrives_whole_behind_a_header_of_its_receivers_length(sent: int, received: int, size: int) -> None:
    """ABI.md 12.5: stripped, or as much as both have kept and the rest zero."""
    virtio = Virtio(flags=DATA_VALID, hdr_len=0x1234, gso_size=0x5678, csum_start=0x9ABC, num_buffers=0xDEF0)
    frame = bytes(ETHER / payload(size - 14))
    kept = virtio.encode(10) if sent and received else b""
    with switch(sent, received) as vale:
        assert vale.send(frame, virtio) == [kept.ljust(received, b"\0") + frame]


@pytest.mark.parametrize(("sent", "received"), UNEQUAL)
def test_it_does_not_matter_where_the_sender_cuts_its_packet(sent: int, received: int) -> None:
    """ABI.md 12.5: fragments of any length, with the header in one of its own or not."""
    chance = dice(sent * 100 + received)
    with switch(sent, received) as vale:
        for _ in range(100):
            frame = bytes(ETHER / payload(chance.randrange(20000)))
            cuts = random_cuts(chance, sent, sent + len(frame))
            assert vale.send(frame, cuts=cuts) == [bytes(received) + frame]


@pytest.mark.parametrize(("sent", "received"), UNEQUAL)
@pytest.mark.parametrize("offset", [1, 64, 1900, 2047])
def test_packets_lie_at_the_offsets_of_the_receivers_slots(sent: int, received: int, offset: int) -> None:
    """ABI.md 13.4: over as many slots as it then takes, though the largest offset would leave no room at all."""
    with switch(sent, received, offset=offset) as vale:
        for size in (14, 40, 52, 53, 1000, 5000):
            frame = bytes(ETHER / payload(size - 14))
            fits = received + size <= 64 * (BUFFER - offset)
            assert vale.send(frame) == ([bytes(received) + frame] if fits else [])


def test_segments_lie_at_the_offsets_of_the_receivers_slots() -> None:
    """ABI.md 13.4."""
    packet = BELOW["IPv6"] / TCP() / payload(20000)
    frame, virtio = tcp_request(packet, 1440)
    for offset in (2, 64, 534, 535, 1600):
        with switch(12, 0, offset=offset) as vale:
            assert vale.send(frame, virtio) == tcp_segments(packet, 1440)


def test_a_chain_that_becomes_longer_than_64_slots_is_dropped() -> None:
    """ABI.md 12.5: a header in front of 64 full slots."""
    with switch(0, 12) as vale:
        assert vale.send(bytes(ETHER / payload(64 * BUFFER - 14))) == []
        assert [len(packet) for packet in vale.send(bytes(ETHER / payload(64 * BUFFER - 26)))] == [64 * BUFFER]


def test_each_receiver_of_a_broadcast_gets_the_header_it_takes() -> None:
    """ABI.md 12.5."""
    frame, virtio = partial(BELOW["IPv4"] / TCP() / payload(5000))
    virtio = replace(virtio, gso_type=TCPV4, gso_size=1460, num_buffers=9)
    with switch(12, 0) as vale:
        ten, twelve = vale.join("vale0:ten", 10), vale.join("vale0:twelve", 12)
        assert len(vale.send(frame, virtio)) == 4
        assert vale.arrived(ten) == [virtio.encode(10) + frame]
        assert vale.arrived(twelve) == [virtio.encode(12) + frame]


# ---- checksums


@pytest.mark.parametrize("below", BELOW)
@pytest.mark.parametrize("above", [TCP(options=[("Timestamp", (1, 2))]), UDP(sport=4000, dport=5000)])
def test_a_receiver_without_headers_gets_the_checksum_that_was_asked_for(below: str, above: Packet) -> None:
    """ABI.md 12.5, RFC 9293 and 768."""
    chance = dice(below)
    with switch(10, 0) as vale:
        for length in (0, 1, 2, 57, 1400, 9001):
            packet = BELOW[below] / above / payload(length)
            frame, virtio = partial(packet)
            cuts = random_cuts(chance, 10, 10 + len(frame))
            assert vale.send(frame, virtio, cuts) == [bytes(packet)]


def test_a_udp_checksum_of_zero_is_sent_as_all_ones() -> None:
    """RFC 768."""
    upper = BELOW["IPv4"] / UDP(sport=4000, dport=5000)
    complement = Ether(bytes(upper / Raw(b"\0\0")))[UDP].chksum
    packet = upper / Raw(complement.to_bytes(2))
    frame, virtio = partial(packet)
    with switch(12, 0) as vale:
        (arrived,) = vale.send(frame, virtio)
    assert arrived[40:42] == b"\xff\xff"
    assert arrived == bytes(packet)


@pytest.mark.parametrize(("sent", "received"), [(10, 12), (12, 10)])
def test_a_receiver_with_a_header_completes_the_checksum_itself(sent: int, received: int) -> None:
    """ABI.md 12.5: the header asks for it still."""
    frame, virtio = partial(BELOW["IPv6"] / UDP() / payload(100))
    with switch(sent, received) as vale:
        assert vale.send(frame, virtio) == [virtio.encode(10).ljust(received, b"\0") + frame]


# ---- segments


def tcp_segments(packet: Packet, size: int) -> list[bytes]:
    """What TCP would have sent itself: each built from nothing by scapy."""
    data, segments = bytes(packet[TCP].payload), []
    for index, start in enumerate(range(0, max(len(data), 1), size)):
        segment = packet.copy()
        segment[TCP].remove_payload()
        segment[TCP].seq = (packet[TCP].seq + start) & 0xFFFFFFFF
        flags = str(packet[TCP].flags)
        if start:
            flags = flags.replace("C", "")
        if start + size < len(data):
            flags = flags.replace("F", "").replace("P", "")
        segment[TCP].flags = flags
        if IP in segment:
            segment[IP].id = (packet[IP].id + index) & 0xFFFF
        segments.append(bytes(segment / Raw(data[start : start + size])))
    return segments


def tcp_request(packet: Packet, gso_size: int) -> tuple[bytes, Virtio]:
    frame, virtio = partial(packet)
    kind = TCPV4 if IP in packet else TCPV6
    if "C" in str(packet[TCP].flags):
        kind |= ECN
    return frame, replace(virtio, gso_type=kind, gso_size=gso_size, hdr_len=len(frame) - len(packet[TCP].payload))


@pytest.mark.parametrize("header", [10, 12])
@pytest.mark.parametrize("below", BELOW)
def test_a_tcp_packet_becomes_the_segments_that_tcp_would_have_sent(below: str, header: int) -> None:
    """ABI.md 12.5: frames of 1514 bytes; IP ids, sequence numbers, FIN, PSH and CWR, checksums."""
    chance = dice(below)
    with switch(header, 0) as vale:
        for length in (0, 1, 1440, 1448, 1460, 1461, 2920, 2921, 4096, 30001, 65000):
            options = chance.choice([[], [("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)]])
            flags = chance.choice(["A", "FPA", "FPACE", "CA", "PAU"])
            packet = BELOW[below] / TCP(seq=0xFFFFF000, flags=flags, options=options) / payload(length)
            most = FRAME_MOST - (len(packet) - length)
            frame, virtio = tcp_request(packet, chance.choice([0, most, most + 100, 0xFFFF]))
            expected = tcp_segments(packet, most)
            cuts = random_cuts(chance, header, header + len(frame))
            assert vale.send(frame, virtio, cuts) == expected
            assert max(map(len, expected)) <= FRAME_MOST


@pytest.mark.parametrize("size", [1, 7, 536, 1459])
def test_segments_are_no_longer_than_the_peer_accepts(size: int) -> None:
    """virtio, gso_size: TCP's maximum segment size, which may be less than a frame holds."""
    packet = BELOW["IPv4"] / TCP(flags="PA") / payload(900 * size if size < 8 else 20000)
    frame, virtio = tcp_request(packet, size)
    with switch(10, 0) as vale:
        assert vale.send(frame, virtio) == tcp_segments(packet, size)


def test_a_packet_of_which_not_all_segments_fit_is_dropped_whole() -> None:
    """ABI.md 12.5: whole or not at all; the next that fits arrives."""
    with switch(12, 0, slots=16) as vale:
        for segments in (16, 15, 40, 1):
            packet = BELOW["IPv4"] / TCP() / payload(1460 * segments)
            frame, virtio = tcp_request(packet, 1460)
            assert vale.send(frame, virtio) == (tcp_segments(packet, 1460) if segments <= 15 else [])


@pytest.mark.parametrize("length", [1, 1472, 1473, 1480, 2952, 2953, 30000, 65507])
def test_a_udp_packet_over_ipv4_becomes_fragments_of_one_datagram(length: int) -> None:
    """virtio, GSO_UDP; RFC 791: as scapy cuts it."""
    packet = BELOW["IPv4"] / UDP(sport=4000, dport=5000) / payload(length)
    frame, virtio = partial(packet)
    pieces = fragment(Ether(bytes(packet)), fragsize=1480)  # type: ignore[no-untyped-call]
    expected = [bytes(piece) for piece in pieces]
    with switch(12, 0) as vale:
        assert vale.send(frame, replace(virtio, gso_type=UDP_FRAGMENTS, gso_size=1480)) == expected


@pytest.mark.parametrize("length", [1, 1448, 1500, 3000, 30000, 65519])
def test_a_udp_packet_over_ipv6_becomes_fragments_of_one_datagram(length: int) -> None:
    """virtio, GSO_UDP; RFC 8200, 4.5: as scapy cuts it, with an identification of its own."""
    packet = BELOW["IPv6"] / UDP(sport=4000, dport=5000) / payload(length)
    frame, virtio = partial(packet)
    with switch(12, 0) as vale:
        arrived = vale.send(frame, replace(virtio, gso_type=UDP_FRAGMENTS, gso_size=1448))
    if length + 8 <= 1448:
        assert arrived == [bytes(packet)]
        return
    identification = int.from_bytes(arrived[0][58:62])
    upper = Raw(bytes(packet[UDP]))
    whole = V6 / IPv6ExtHdrFragment(id=identification, nh=17) / upper
    pieces = fragment6(whole, 1500)  # type: ignore[no-untyped-call]
    assert arrived == [bytes(ETHER / piece) for piece in pieces]


# ---- what is not as it says


def bad_requests() -> Iterator[tuple[str, Packet, Virtio]]:
    tcp4, tcp6, udp4 = BELOW["IPv4"] / TCP(), BELOW["IPv6"] / TCP(), BELOW["IPv4"] / UDP()
    asks = Virtio(flags=NEEDS_CSUM)
    yield "unknown flag", tcp4, Virtio(flags=4)
    yield "unknown gso_type", tcp4, Virtio(gso_type=2)
    yield "ECN of nothing", tcp4, Virtio(gso_type=ECN)
    yield "ECN of UDP", udp4, Virtio(gso_type=UDP_FRAGMENTS | ECN)
    yield "checksum behind the end", tcp4, replace(asks, csum_start=34, csum_offset=19)
    yield "checksum started behind the end", tcp4, replace(asks, csum_start=0xFFFF, csum_offset=0xFFFF)
    yield "TCPv4 that is TCPv6", tcp6, Virtio(gso_type=TCPV4)
    yield "TCPv6 that is TCPv4", tcp4, Virtio(gso_type=TCPV6)
    yield "TCPv4 that is UDP", udp4, Virtio(gso_type=TCPV4)
    yield "UDP that is TCP", tcp4, Virtio(gso_type=UDP_FRAGMENTS)
    yield "neither IPv4 nor IPv6", ETHER / Raw(bytes(100)), Virtio(gso_type=TCPV4)
    yield "IPv4 of version 5", ETHER / IP(version=5) / TCP(), Virtio(gso_type=TCPV4)
    yield "IPv4 header too short", ETHER / IP(ihl=4) / TCP(), Virtio(gso_type=TCPV4)
    yield "IPv4 header behind the end", ETHER / IP(ihl=15, proto=6), Virtio(gso_type=TCPV4)
    yield "a fragment", ETHER / IP(frag=1) / TCP(), Virtio(gso_type=TCPV4)
    yield "TCP header too short", ETHER / V4 / TCP(dataofs=4), Virtio(gso_type=TCPV4)
    yield "TCP header behind the end", ETHER / V4 / TCP(dataofs=6), Virtio(gso_type=TCPV4)
    yield "VLAN tags without end", Ether(type=0x8100) / Raw(b"\0\1\x81\0" * 20), Virtio(gso_type=TCPV4)
    too_long = ETHER / IP(len=20) / UDP(len=8) / Raw(bytes(65508))
    yield "UDP longer than IP can be", too_long, Virtio(gso_type=UDP_FRAGMENTS)
    yield "UDP fragments of nothing", udp4 / Raw(bytes(99)), Virtio(gso_type=UDP_FRAGMENTS, gso_size=7)


BAD = list(bad_requests())


@pytest.mark.parametrize(("packet", "virtio"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_packet_that_is_not_what_its_header_says_is_dropped_alone(packet: Packet, virtio: Virtio) -> None:
    """ABI.md 12.5: what was sent before and behind it arrives."""
    good = bytes(ETHER / payload(50))
    with switch(12, 0) as vale:
        vale.place([Virtio().encode(12) + good])
        whole = virtio.encode(12) + bytes(packet)
        vale.place([whole[at : at + BUFFER] for at in range(0, len(whole), BUFFER)])
        assert vale.send(good) == [good, good]


# ---- the length of the header


@pytest.mark.parametrize("length", [0, 10, 12])
def test_a_switch_port_says_which_header_it_was_given(length: int) -> None:
    """ABI.md 4.2, PORT_HDR_SET and PORT_HDR_GET."""
    with Port("vale0:a"), device() as fd:
        assert request(fd, RequestType.PORT_HDR_GET, "vale0:a", PortHeader(77)) == (0, PortHeader(0).encode())
        assert request(fd, RequestType.PORT_HDR_SET, "vale0:a", PortHeader(length))[0] == 0
        assert request(fd, RequestType.PORT_HDR_GET, "vale0:a", PortHeader(77)) == (0, PortHeader(length).encode())


@pytest.mark.parametrize("length", [1, 8, 9, 11, 13, 20, 0x80000000, 0xFFFFFFFF])
def test_a_header_of_any_other_length_is_invalid_and_changes_nothing(length: int) -> None:
    """ABI.md 4.2, PORT_HDR_SET."""
    with Port("vale0:a"), device() as fd:
        assert request(fd, RequestType.PORT_HDR_SET, "vale0:a", PortHeader(10))[0] == 0
        assert request(fd, RequestType.PORT_HDR_SET, "vale0:a", PortHeader(length))[0] == errno.EINVAL
        assert request(fd, RequestType.PORT_HDR_GET, "vale0:a", PortHeader()) == (0, PortHeader(10).encode())


@pytest.mark.parametrize("name", ["vale0:missing", "vale9:a", "quad", "missing", "vale0:quad"])
def test_only_switch_ports_that_exist_take_a_header(name: str) -> None:
    """ABI.md 4.2, PORT_HDR_SET."""
    with Port("vale0:a"), device() as fd:
        assert request(fd, RequestType.PORT_HDR_SET, name, PortHeader(12))[0] == errno.ENXIO
