# SPDX-License-Identifier: BSD-2-Clause
"""Two hosts on a wire: network namespaces joined by a veth pair, and what their stacks do and are set to."""

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Self

from pyroute2.ethtool.ioctl import IoctlEthtool

from cuse_netmap import _core
from cuse_netmap.namespace import network_namespace
from tests.support.patience import at_most
from tests.support.state import STATE
from tests.support.steps import wait_until

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM, ETHTOOL_STSO = 0x17, 0x1F
TAG_OFFLOADS = ("tx-vlan-hw-insert", "tx-vlan-stag-hw-insert", "rx-vlan-hw-parse", "rx-vlan-stag-hw-parse")
SOON = at_most(5.0)  # for what comes
QUIET = 0.3  # for what must not come


class Peer:
    """A network namespace with one end of the wire; somebody sleeps in it, as in a container."""

    def __init__(self, interface: str, address: str, other: str) -> None:
        self.interface, self.address, self.other = interface, address, other
        self.sleeper = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"])
        self.path = f"/proc/{self.sleeper.pid}/ns/net"
        own = Path("/proc/self/ns/net").stat().st_ino
        while Path(self.path).stat().st_ino == own:
            time.sleep(0.005)
        self.namespace = os.open(self.path, os.O_RDONLY)

    def close(self) -> None:
        os.close(self.namespace)
        self.sleeper.kill()
        self.sleeper.wait()

    def run(self, command: str) -> str:
        """A command in the namespace; its output."""
        # A sanitizer build is for our own code, not for `ip`.
        others = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
        with network_namespace(self.namespace):
            done = subprocess.run(
                command.split(), env=others, capture_output=True, text=True, check=False, timeout=at_most(20)
            )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def open(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        with network_namespace(self.namespace):
            made = socket.socket(family, kind, protocol)
        made.settimeout(SOON)
        return made

    def set_up(self) -> None:
        with network_namespace(self.namespace):  # nothing on the wire that no test has sent
            Path(f"/proc/sys/net/ipv6/conf/{self.interface}/disable_ipv6").write_text("1")
        self.run(f"ip addr add {self.address}/24 dev {self.interface}")
        self.run("ip link set lo up")
        self.run(f"ip link set {self.interface} up")

    def wait_until_up(self) -> None:
        """The kernel tells of a carrier up to a second after frames pass; from then on `ip link` says the same."""
        deadline = time.monotonic() + SOON
        while " state UP " not in self.run(f"ip -o link show {self.interface}"):
            assert time.monotonic() < deadline
            time.sleep(0.005)

    def compute_checksums(self) -> None:
        """The stack leaves neither checksums nor segmentation to its interface."""
        with self.open(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for setting in (ETHTOOL_STXCSUM, ETHTOOL_STSO):
                value = ctypes.create_string_buffer(struct.pack("II", setting, 0), 8)
                name = self.interface.encode()
                fcntl.ioctl(control, SIOCETHTOOL, struct.pack("16sQ16x", name, ctypes.addressof(value)))

    @contextmanager
    def tags_in_line(self) -> Iterator[None]:
        """The interface neither takes VLAN tags out of frames that it receives, nor leaves them to be put in."""
        with network_namespace(self.namespace):
            made = IoctlEthtool(self.interface)
        with closing(made) as driver:
            features = driver.get_features()
            before = [name for name in TAG_OFFLOADS if features[name]]

            def offload(on: bool) -> None:
                for name in before:
                    features[name] = on
                driver.set_features(features)

            offload(False)
            try:
                yield
            finally:
                offload(True)

    def mac(self) -> bytes:
        _, _, rest = self.run(f"ip -o link show {self.interface}").partition("link/ether ")
        return bytes.fromhex(rest.split()[0].replace(":", ""))

    def pings(self, seconds: float = SOON) -> bool:
        """An echo of the other host's comes back."""
        with self.open(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
            icmp.connect((self.other, 0))
            deadline = time.monotonic() + seconds
            icmp.settimeout(0.1)
            while time.monotonic() < deadline:
                with suppress(TimeoutError, OSError):
                    icmp.send(bytes.fromhex("0800f7fe00010000"))
                    while icmp.recv(1024)[20] != 0:
                        pass
                    return True
        return False

    def capture(self) -> socket.socket:
        """A packet socket that hears all that comes in."""
        heard = self.open(socket.AF_PACKET, socket.SOCK_RAW)
        heard.bind((self.interface, 3))
        return heard

    def settings(self) -> str:
        """What `ip`, `tc`, `nft` and bpf(2) know of the namespace, without what counts or ages."""
        wire = self.interface
        with network_namespace(self.namespace):
            index = socket.if_nametoindex(wire)
            links = [_core.steer_count(index, ingress=ingress) for ingress in (True, False)]
        commands = [
            "ip -d link",
            "ip -o addr",
            "ip route show table all",
            "tc qdisc show",
            f"tc filter show dev {wire} ingress",
            f"tc filter show dev {wire} egress",
        ]
        if has_nft():
            commands.append("nft --stateless list ruleset")
        return "\n".join([*map(self.run, commands), f"tcx programs: {links}"])


class Wire:
    """The near host, whose interface v0 a test uses, and the far one with v1.

    queues: of each of the two, in either direction. offloads: the far stack leaves checksums and segmentation to v1,
    which leaves them to whoever receives.
    """

    def __init__(self, *, queues: int = 1, offloads: bool = False) -> None:
        with ExitStack() as undo:
            self.near = Peer("v0", "10.9.0.1", "10.9.0.2")
            undo.callback(self.near.close)
            self.far = Peer("v1", "10.9.0.2", "10.9.0.1")
            undo.callback(self.far.close)
            each = f"numrxqueues {queues} numtxqueues {queues}"
            peer = f"peer name v1 {each} netns {self.far.sleeper.pid}"
            self.near.run(f"ip link add v0 {each} type veth {peer}")
            self.near.set_up()
            self.far.set_up()
            if not offloads:
                self.far.compute_checksums()
            assert self.near.pings()
            self.near.wait_until_up()
            self.far.wait_until_up()
            self.near.run("ip neigh flush dev v0")  # or they ask each other again, seconds later
            self.far.run("ip neigh flush dev v1")
            self.untouched = self.near.settings()  # while no program has v0
            self.undo = undo.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo.close()


@contextmanager
def mtu(wire: Wire, size: int) -> Iterator[None]:
    """Of both ends; programs that have the port get frames of that length from then on."""
    for peer, interface in ((wire.near, "v0"), (wire.far, "v1")):
        peer.run(f"ip link set {interface} mtu {size}")
    wait_until(lambda: all(int(file.read_text()) == size for file in STATE.glob("ports/v0@*/mtu")))
    try:
        yield
    finally:
        for peer, interface in ((wire.near, "v0"), (wire.far, "v1")):
            peer.run(f"ip link set {interface} mtu 1500")


def received(heard: socket.socket, seconds: float, *, wanted: int = 1 << 30) -> list[bytes]:
    """What a packet socket hears within the time, or until it is the number wanted."""
    frames: list[bytes] = []
    deadline = time.monotonic() + seconds
    while len(frames) < wanted and (left := deadline - time.monotonic()) > 0:
        heard.settimeout(left)
        with suppress(TimeoutError):
            data, address = heard.recvfrom(70000)
            if address[2] != socket.PACKET_OUTGOING:
                frames.append(data)
    return frames


def has_nft() -> bool:
    return any(Path(folder, "nft").exists() for folder in ("/usr/sbin", "/sbin", "/usr/bin"))


def complete(frame: bytes) -> bool:
    """An IPv4 frame whose TCP or UDP checksum is right."""
    header = (frame[14] & 15) * 4
    length = int.from_bytes(frame[16:18])
    segment = frame[14 + header : 14 + length]
    pseudo = frame[26:34] + bytes([0, frame[23]]) + len(segment).to_bytes(2)
    data = pseudo + segment + bytes(len(segment) % 2)
    total = int(sum(struct.unpack(f">{len(data) // 2}H", data)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total == 0xFFFF


@contextmanager
def no_leaks() -> Iterator[None]:
    """As many descriptors afterwards as before."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before
