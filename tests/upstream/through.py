# SPDX-License-Identifier: BSD-2-Clause
"""Ping and a TCP transfer between two hosts, as a program between them lets them pass: what a suite's script runs.

`python -m tests.upstream.through PID-OF-ONE PID-OF-OTHER ADDRESS-OF-OTHER MEGABYTES`, the processes being in the hosts'
network namespaces. Prints "ping N of 3" and "tcp SENT RECEIVED", the SHA-256 of either.
"""

import hashlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cuse_netmap.namespace import network_namespace

PORT = 4713
PIECE = 1 << 20
SECONDS = 20.0


@contextmanager
def host(pid: str) -> Iterator[int]:
    with Path(f"/proc/{pid}/ns/net").open("rb") as file:
        yield file.fileno()


def open_socket(namespace: int, kind: int, protocol: int = 0) -> socket.socket:
    with network_namespace(namespace):
        made = socket.socket(socket.AF_INET, kind, protocol)
    made.settimeout(SECONDS)
    return made


def pings(namespace: int, address: str) -> int:
    """Echoes that come back, of three."""
    echo = bytes.fromhex("0800f7fe00010000")
    answered = 0
    with open_socket(namespace, socket.SOCK_RAW, socket.IPPROTO_ICMP) as icmp:
        icmp.settimeout(2)
        for _ in range(3):
            deadline = time.monotonic() + 2
            try:
                icmp.sendto(echo, (address, 0))
                while icmp.recv(1024)[20] != 0 and time.monotonic() < deadline:
                    pass
                answered += 1
            except OSError:
                continue
    return answered


def transfer(one: int, other: int, address: str, megabytes: int) -> tuple[str, str]:
    """Sends so much from one host to the other; the SHA-256 of what went out, and of what came in."""
    came_in = hashlib.sha256()

    def take(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.settimeout(SECONDS)
            while data := connection.recv(PIECE):
                came_in.update(data)

    went_out = hashlib.sha256()
    with open_socket(other, socket.SOCK_STREAM) as listener, open_socket(one, socket.SOCK_STREAM) as client:
        listener.bind((address, PORT))
        listener.listen()
        taker = threading.Thread(target=take, args=(listener,))
        taker.start()
        client.connect((address, PORT))
        for _ in range(megabytes):
            piece = os.urandom(PIECE)
            went_out.update(piece)
            client.sendall(piece)
        client.shutdown(socket.SHUT_WR)
        taker.join()
    return went_out.hexdigest(), came_in.hexdigest()


def main() -> None:
    one_pid, other_pid, address, megabytes = sys.argv[1:]
    with host(one_pid) as one, host(other_pid) as other:
        print(f"ping {pings(one, address)} of 3", flush=True)
        start = time.monotonic()
        sent, got = transfer(one, other, address, int(megabytes))
        print(f"tcp {sent} {got}", flush=True)
        print(f"{megabytes} MB in {time.monotonic() - start:.2f} s", flush=True)


if __name__ == "__main__":
    main()
