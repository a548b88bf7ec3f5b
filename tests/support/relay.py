# SPDX-License-Identifier: BSD-2-Clause
"""Host rings and NIC rings in miniature: a thread that carries frames between a TAP and a packet socket."""

import os
import select
import socket
import threading
from collections.abc import Sequence
from typing import Self

from cuse_netmap import _core
from tests.support.veth import Peer

SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20


class Relay:
    """Runs while the `with` block does. `sent` has what the host has sent."""

    def __init__(self, peer: Peer, fds: Sequence[int]) -> None:
        self.fds = list(fds)
        self.wire = peer.open(socket.AF_PACKET, socket.SOCK_RAW)
        _core.steer_packet_socket(self.wire.fileno())
        self.wire.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        self.wire.bind((peer.interface, 3))
        self.sent: list[bytes] = []
        self.came = 0
        self.errors: list[OSError] = []
        self.ended = False
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        poller = select.poll()
        for fd in (*self.fds, self.wire.fileno()):
            poller.register(fd, select.POLLIN)
        while not self.ended:
            for fd, _ in poller.poll(50):
                try:
                    self._carry(fd)
                except OSError as error:
                    self.errors.append(error)

    def _carry(self, fd: int) -> None:
        if fd in self.fds:
            self.sent.append(os.read(fd, 70000))
            self.wire.send(self.sent[-1])
        else:
            self.came += 1
            os.write(self.fds[self.came % len(self.fds)], self.wire.recv(70000))

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True
        self.thread.join()
        self.wire.close()
