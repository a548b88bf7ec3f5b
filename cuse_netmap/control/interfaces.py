# SPDX-License-Identifier: BSD-2-Clause
"""What stands behind ports, configured or found by name in a program's network namespace, and the slow work on it.

Opening, closing, and telling the host's stack take from milliseconds to a second of netlink and BPF, so none of it is
done with control's lock held. A decision that needs some of it first ends with `Slow`, and is taken again behind it;
what can be done afterwards is touched, for whoever decides to `catch_up` without the lock. No two threads work on one
interface at once; whoever wants it meanwhile waits for it alone.
"""

import errno
import logging
import os
import select
import socket
import threading
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

LOOK = 0.05  # seconds after which somebody who waits looks whether he is still waited for


@dataclass(eq=False)
class Behind:
    """What stands behind one port, and what is being done to it. Fields change with control's lock held."""

    name: str
    label: str  # what it is called among all ports, as long as it is open
    inode: int = 0  # of the network namespace where a program has found it; 0: it is of the configuration
    index: int = 0  # of the interface, there
    interface: Interface | None = None  # None: it is not open yet
    namespace: int | None = None  # a descriptor, until it is open
    notices: LinkNotices | None = None
    stays: bool = False  # although nobody has it open
    busy: bool = False  # somebody works on it, without the lock
    closing: bool = False
    connected: tuple[bool, bool] = (False, False)  # of what it was told: NIC rings are taken, host rings have users
    host_rings: tuple[int, int] = (0, 0)  # of what it was told: so many tx, rx

    @property
    def key(self) -> tuple[int, int]:
        return self.inode, self.index

    @property
    def port(self) -> Port | None:
        """Its port while it can be used."""
        return self.interface.port if self.interface and not self.closing else None

    @property
    def gone(self) -> bool:
        return self.interface is not None and self.interface.port.gone

    def close(self) -> None:
        if self.namespace is not None:
            os.close(self.namespace)
        if self.notices:
            self.notices.close()
        if self.interface:
            self.interface.close()


class Slow(Exception):
    """A decision needs `work` on an interface first; None: the end of what is being done to it."""

    def __init__(self, behind: Behind, work: Callable[[], None] | None = None) -> None:
        super().__init__(behind, work)
        self.behind = behind
        self.work = work


class Interfaces:
    """All there are; `open_interface(name, namespace)` opens one: Refused ENXIO if there is none.

    `news` is the condition, of control's lock, on which everybody waits. To select on: the kernel says that one of them
    may have changed; `changed` says which. `taken_whole(port)`: a program of old takes it, with whichever ring.
    """

    def __init__(
        self,
        open_interface: Callable[[str, int], Interface],
        news: threading.Condition,
        taken_whole: Callable[[Port], bool],
    ) -> None:
        self.open_interface = open_interface
        self.news = news
        self.taken_whole = taken_whole
        self.all: list[Behind] = []
        self.touched: list[Behind] = []
        self.own = Path("/proc/self/ns/net").stat()
        self.caller: int | None = None  # a descriptor of the network namespace of whom we decide for
        self.noticed = select.epoll()

    def fileno(self) -> int:
        return self.noticed.fileno()

    # ---- deciding, with the lock held

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

    def _of_name(self, name: str) -> Behind | None:
        """One that is open or being opened; None also if there is no interface of that name."""
        if self.caller is None or not (index := _index(name, self.caller)):
            return None
        key = os.fstat(self.caller).st_ino, index
        return next((one for one in self.all if one.key == key and not one.gone), None)

    def find(self, name: str) -> Port | None:
        """The port of that name if it is open already."""
        behind = self._of_name(name)
        return behind.port if behind else None

    def open(self, name: str) -> Port | None:
        """Its port; None if there is no such interface. Slow: it is not open yet, or busy."""
        behind = self._of_name(name)
        if behind is None:
            if self.caller is None or not (index := _index(name, self.caller)):
                return None
            inode = os.fstat(self.caller).st_ino
            behind = Behind(name, self._label(name, inode, index), inode, index, namespace=os.dup(self.caller))
            self.all.append(behind)
        if behind.interface is None:
            opening = behind
            raise Slow(behind, lambda: self._open(opening))
        return self.ready(behind)

    def _label(self, name: str, inode: int, index: int) -> str:
        """The name, with what tells it from that of another namespace, and from one that is gone and still open."""
        label = f"{name}@{inode}" if self.abroad else name
        taken = any(one.label == label and not one.closing for one in self.all)
        return f"{label}:{index}" if taken else label

    def ready(self, behind: Behind) -> Port:
        """Its port. Slow: somebody works on it."""
        if behind.busy or behind.port is None:
            raise Slow(behind)
        return behind.port

    def of(self, port: Port) -> Behind | None:
        return next((one for one in self.all if one.interface and one.interface.port is port), None)

    def adopt(self, name: str, interface: Interface) -> None:
        """What the configuration has opened, in the network namespace of this thread. Refused: no more descriptors."""
        behind = Behind(name, name, interface=interface, stays=True)
        if type(interface).follow is not Interface.follow:
            try:
                behind.notices = LinkNotices()
                self.noticed.register(behind.notices, select.EPOLLIN)
            except OSError as error:
                if behind.notices:
                    behind.notices.close()
                raise Refused(error.errno or errno.EIO, f"news of {name}: {error.strerror}") from error
        self.all.append(behind)

    def ports(self) -> Iterator[tuple[str, Port, Interface]]:
        """Of those that programs have found: what each is called."""
        for one in self.all:
            if one.inode and one.interface and one.port:
                yield one.label, one.port, one.interface

    def is_configured(self, name: str) -> bool:
        """There is one of the configuration, or was, and somebody has it open."""
        return any(one.name == name and not one.inode for one in self.all)

    def forsake(self, port: Port) -> None:
        """The configuration has it no more."""
        if behind := self.of(port):
            behind.stays = False
            self.touch(port)

    def wait_for(self, port: Port) -> None:
        """Slow: somebody works on what stands behind the port."""
        if behind := self.of(port):
            self.ready(behind)

    def want_host_rings(self, port: Port, tx: int, rx: int) -> None:
        """Somebody is about to bind host rings, of which there are so many. Slow if that takes something."""
        behind = self.of(port)
        if behind is None or behind.interface is None:
            return
        self.ready(behind)
        if behind.host_rings != (tx, rx) and not port.in_use(host=True):
            interface = behind.interface

            def make() -> None:
                interface.want_host_rings(tx, rx)
                behind.host_rings = tx, rx

            raise Slow(behind, make)

    def left(self) -> bool:
        """No device has packet memory, of which it is told without the lock."""
        return not any(one.interface.holds_memory for one in self.all if one.interface)

    def touch(self, port: Port) -> None:
        """Who has its rings is another matter now."""
        if behind := self.of(port):
            behind.closing = not behind.stays and not port.files  # nobody gets it any more as it is
            self.touched.append(behind)

    def take_touched(self) -> list[Behind]:
        """Those touched since, each of which is to `catch_up`."""
        touched, self.touched = self.touched, []
        return touched

    def changed(self) -> list[Behind]:
        """Those whose network namespace had news, each of which is to `follow`."""
        ready = {fd for fd, _ in self.noticed.poll(0)}
        changed = [one for one in self.all if one.notices and one.notices.fileno() in ready]
        for one in changed:
            if one.notices:
                one.notices.read()
        return changed

    def end(self) -> None:
        """The daemon is about to end."""
        for one in self.all:
            if one.interface:
                one.interface.end()

    def close(self) -> None:
        """When nobody can use any of them, nor works on one."""
        for one in self.all:
            one.close()
        self.all.clear()
        self.noticed.close()

    # ---- working, without the lock

    @contextmanager
    def _working(self, behind: Behind) -> Iterator[None]:
        """Begun with the lock held, which is not while it lasts."""
        behind.busy = True
        self.news.release()
        try:
            yield
        finally:
            self.news.acquire()
            behind.busy = False
            self.news.notify_all()

    def carry_out(self, slow: Slow, given_up: Callable[[], bool]) -> None:
        """What a decision needs first, unless nobody waits for that any more. Refused when it cannot be.

        The decision, taken again, finds what others have done meanwhile.
        """
        behind = slow.behind
        if behind.closing:
            self.catch_up(behind)
            return
        with self.news:
            while behind.busy and not given_up():
                self.news.wait(LOOK)
            if slow.work and behind in self.all and not behind.busy:
                with self._working(behind):
                    slow.work()

    def _open(self, behind: Behind) -> None:
        """Of several who want to open it the first does, and the others find it open."""
        if behind.interface or behind.namespace is None:
            return
        try:
            with network_namespace(behind.namespace):
                behind.notices = LinkNotices()
            interface = self.open_interface(behind.name, behind.namespace)
        except BaseException:
            with self.news:
                self.all.remove(behind)
            behind.close()
            raise
        device = interface.device()
        if device:
            os.close(device[0])
        with self.news:
            os.close(behind.namespace)
            behind.namespace = None
            behind.interface = interface
            behind.index = device[1] if device else behind.index  # it may have been made anew meanwhile
            self.noticed.register(behind.notices, select.EPOLLIN)
        log.info("netmap:%s is %s", behind.name, interface.description)

    def catch_up(self, behind: Behind) -> None:
        """Tells an interface which of its rings have users; one that nobody has open goes back to the kernel.

        Refused when it cannot be used so.
        """
        with self.news:
            while behind.busy and behind.interface:
                self.news.wait()
            if behind not in self.all or behind.busy:
                return  # whoever is opening it will be here too
            if behind.interface is None:
                self.all.remove(behind)
                behind.close()
                return
            port = behind.interface.port
            # Of now: who leaves while we work is whoever catches up next's business.
            closing = behind.closing = not behind.stays and not port.files
            nic = port.in_use(host=False) or self.taken_whole(port)
            connected = nic, port.in_use(host=True)
            left_over = any(behind.host_rings) and not connected[1]
            if connected == behind.connected and not left_over and not closing:
                return
            if closing and behind.notices:
                behind.notices.close()  # with the lock held: `changed` reads them
                behind.notices = None
            try:
                with self._working(behind):
                    if closing:
                        self._give_back(behind, behind.interface)
                    else:
                        self._tell(behind, behind.interface, connected)
            finally:
                if closing:
                    self.all.remove(behind)

    @staticmethod
    def _give_back(behind: Behind, interface: Interface) -> None:
        try:
            interface.bound(nic=False, host=False)
        except Refused as refusal:
            log.error("%s", refusal.reason)
        finally:
            behind.close()

    @staticmethod
    def _tell(behind: Behind, interface: Interface, connected: tuple[bool, bool]) -> None:
        nic, host = connected
        interface.bound(nic=nic, host=host)
        behind.connected = connected
        if not host:
            behind.host_rings = (0, 0)

    def follow(self, behind: Behind) -> None:
        """Lets an interface look at how it is now."""
        with self.news:
            while behind.busy:
                self.news.wait()
            if behind in self.all and behind.interface:
                with self._working(behind):
                    behind.interface.follow()


def _index(name: str, namespace: int) -> int:
    """0 if there is none of that name."""
    try:
        with network_namespace(namespace):
            return socket.if_nametoindex(name)
    except (OSError, Refused, UnicodeError, ValueError):
        return 0
