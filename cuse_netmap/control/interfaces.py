# SPDX-License-Identifier: BSD-2-Clause
"""Interfaces of the kernel's that programs have opened: found by name in the program's network namespace."""

import logging
import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cuse_netmap._core import Port
from cuse_netmap.backends import Interface
from cuse_netmap.errors import Refused
from cuse_netmap.links import LinkNotices
from cuse_netmap.namespace import network_namespace

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Opened:
    """An interface that somebody has open."""

    name: str
    namespace: int  # its inode
    index: int
    interface: Interface
    notices: LinkNotices

    def close(self) -> None:
        self.notices.close()
        self.interface.close()


class Interfaces:
    """Those that are open; `open_interface(name, namespace)` opens one: Refused ENXIO if there is none.

    To select on: the kernel says that one of them may have changed, which `follow` looks at.
    """

    def __init__(self, open_interface: Callable[[str, int], Interface]) -> None:
        self.open_interface = open_interface
        self.opened: list[Opened] = []
        self.own = Path("/proc/self/ns/net").stat()
        self.caller: int | None = None  # a descriptor of the network namespace of whom we decide for
        self.noticed = select.epoll()

    def fileno(self) -> int:
        return self.noticed.fileno()

    @contextmanager
    def seen_by(self, pid: int) -> Iterator[None]:
        """Names mean what they mean to that thread, which waits for its answer."""
        try:
            self.caller = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # of a PID namespace that we do not see
            self.caller = None
        try:
            yield
        finally:
            if self.caller is not None:
                os.close(self.caller)
            self.caller = None

    @property
    def abroad(self) -> bool:
        """The program is in another network namespace than the daemon."""
        return self.caller is not None and not os.path.samestat(os.fstat(self.caller), self.own)

    def exists(self, name: str) -> bool:
        return self.caller is not None and _index(name, self.caller) > 0

    def find(self, name: str) -> Port | None:
        """The port of that name if it is open already."""
        if self.caller is None:
            return None
        index = _index(name, self.caller)
        inode = os.fstat(self.caller).st_ino
        for one in self.opened:
            if (one.namespace, one.index) == (inode, index) and not one.interface.port.gone:
                return one.interface.port
        return None

    def open(self, name: str) -> Port | None:
        """Its port, opened if need be; None if there is no such interface. Refused when it cannot be opened."""
        port = self.find(name)
        if port or self.caller is None or not (index := _index(name, self.caller)):
            return port
        with network_namespace(self.caller):
            notices = LinkNotices()
        try:
            interface = self.open_interface(name, self.caller)
        except OSError:
            notices.close()
            raise
        self.noticed.register(notices, select.EPOLLIN)
        self.opened.append(Opened(name, os.fstat(self.caller).st_ino, index, interface, notices))
        log.info("netmap:%s is %s", name, interface.description)
        return interface.port

    def of(self, port: Port) -> Interface | None:
        return next((one.interface for one in self.opened if one.interface.port is port), None)

    def settle(self, port: Port) -> None:
        """One that nobody has open any more goes back to the kernel."""
        for one in self.opened:
            if one.interface.port is port and not port.files:
                self.opened.remove(one)
                one.close()
                return

    def follow(self) -> list[Port]:
        """Looks at those whose network namespace had news; the ports of those that have gone."""
        ready = {fd for fd, _ in self.noticed.poll(0)}
        gone = []
        for one in self.opened:
            if one.notices.fileno() in ready:
                one.notices.read()
                one.interface.follow()
                if one.interface.port.gone:
                    gone.append(one.interface.port)
        return gone

    def close(self) -> None:
        """When nobody can use any of them."""
        for one in self.opened:
            one.close()
        self.opened.clear()
        self.noticed.close()


def _index(name: str, namespace: int) -> int:
    """0 if there is none of that name."""
    try:
        with network_namespace(namespace):
            return socket.if_nametoindex(name)
    except (OSError, Refused, UnicodeError, ValueError):
        return 0
