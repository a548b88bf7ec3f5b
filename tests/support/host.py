# SPDX-License-Identifier: BSD-2-Clause
"""The host's side of a TAP wire: frames that carry a number, sent and received by raw sockets, and `ip` and `tc`."""

import errno
import json
import socket
import subprocess
import time
from collections.abc import Iterable
from typing import Any, Self

from tests.support.patience import at_most

ETH_P_TEST = 0x88B5  # IEEE 802, local experiments: nothing else on the wire speaks it
SO_RCVBUFFORCE = 33
HEADER = 18  # Ethernet, and the number


def frame(number: int, size: int = 60) -> bytes:
    """A broadcast frame that says which one it is, all its bytes depending on that; 18 bytes or more."""
    header = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + ETH_P_TEST.to_bytes(2)
    stamp = number.to_bytes(4)
    return header + (stamp * (size // 4))[: size - len(header)]


def number_of(received: bytes) -> int:
    """Of one of our frames; -1 for anything else."""
    return int.from_bytes(received[14:18]) if received[12:14] == ETH_P_TEST.to_bytes(2) else -1


def ours(frames: Iterable[bytes]) -> list[bytes]:
    """Without what the host's own stack says on the wire."""
    return [received for received in frames if number_of(received) >= 0]


class Host:
    """A raw socket on an interface that sees our frames only; reading ends with TimeoutError after `seconds`."""

    def __init__(self, interface: str, seconds: float = at_most(5.0)) -> None:
        self.interface = interface
        self.seconds = seconds
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self.socket.settimeout(seconds)
        self.socket.bind((interface, ETH_P_TEST))
        # What is sent is of the protocol that its header says, by which the kernel tells flows apart.
        self.sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.sender.bind((interface, 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()
        self.sender.close()

    def send(self, *frames: bytes) -> None:
        """All of them, waiting while the other end of a veth pair has no room. OSError if that takes too long."""
        deadline = time.monotonic() + self.seconds
        for one in frames:
            while not self._sent(one):
                if time.monotonic() > deadline:
                    raise OSError(errno.ENOBUFS, f"{self.interface} takes no more frames")
                time.sleep(0.001)

    def _sent(self, one: bytes) -> bool:
        try:
            self.sender.send(one)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            return False
        return True

    def receive(self) -> bytes:
        """The next frame that came in."""
        while True:
            data, address = self.socket.recvfrom(65536)
            if address[2] != socket.PACKET_OUTGOING:
                return data

    def take(self, count: int) -> list[bytes]:
        return [self.receive() for _ in range(count)]

    def waiting(self) -> list[bytes]:
        """What is there now."""
        timeout = self.socket.gettimeout()
        self.socket.settimeout(0)
        frames = []
        try:
            while True:
                frames.append(self.receive())
        except BlockingIOError:
            return frames
        finally:
            self.socket.settimeout(timeout)


def link(interface: str) -> dict[str, Any]:
    """What `ip` knows of it; /sys/class/net would show another network namespace's."""
    found: list[dict[str, Any]] = json.loads(ip("-j", "-d", "-s", "link", "show", interface))
    return found[0]


def dropped(interface: str) -> int:
    """Frames of the host that found the device's queue full."""
    return int(link(interface)["stats64"]["tx"]["dropped"])


def ip(*arguments: str) -> str:
    return _run("ip", *arguments)


def tc(*arguments: str) -> str:
    return _run("tc", *arguments)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=at_most(20))
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout
