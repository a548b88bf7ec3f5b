# SPDX-License-Identifier: BSD-2-Clause
"""The kernel's notices that some network interface has come, gone or changed; which one is not read here."""

import socket

RTMGRP_LINK = 1  # linux/rtnetlink.h


class LinkNotices:
    """A socket to select on; `read` makes it silent until the next notice."""

    def __init__(self) -> None:
        """Of the network namespace that this thread is in."""
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self.socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self.socket.bind((0, RTMGRP_LINK))

    def fileno(self) -> int:
        return self.socket.fileno()

    def read(self) -> None:
        while True:
            try:
                self.socket.recv(65536)
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: some were lost, which is as good as read
                continue

    def close(self) -> None:
        self.socket.close()
