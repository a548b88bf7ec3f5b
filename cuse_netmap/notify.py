# SPDX-License-Identifier: BSD-2-Clause
"""What a service tells systemd (sd_notify(3)); nothing is said where nobody listens."""

import os
import socket
import time
from contextlib import suppress


def notify(state: str) -> None:
    """One or more lines such as READY=1."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    # systemd may go, or be made anew: no reason for a daemon to end.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        sock.send(state.encode())


def reloading() -> None:
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear from us; None if it does not. Half the time it waits at most."""
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    if not microseconds or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return microseconds / 2e6
