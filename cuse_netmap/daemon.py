# SPDX-License-Identifier: BSD-2-Clause
"""The daemon: brings everything up in order, waits for signals, and takes it down in the opposite order."""

import logging
import os
import select
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from cuse_netmap import __version__, config, device, notify, state_tree
from cuse_netmap import log as logs
from cuse_netmap._core import Events, Inbox, Region, set_bridge_batch, set_forward_all, set_no_timestamp
from cuse_netmap.backends import BACKENDS, Interface, Place, claims
from cuse_netmap.config import Change, Config, Source
from cuse_netmap.control.control import Control
from cuse_netmap.control.memory import MemoryRequest
from cuse_netmap.control.parameters import Parameters
from cuse_netmap.control.registry import Registry, Wire
from cuse_netmap.errors import Refused, SetupError, remedy
from cuse_netmap.links import LinkNotices
from cuse_netmap.options import kinds
from cuse_netmap.processes import privileged
from cuse_netmap.state import StateFiles, state_path

log = logging.getLogger(__name__)

STOP_SECONDS = 2.0  # for threads that may be caught in a program's memory


class Daemon:
    """One device and its ports. `run` returns when it is over."""

    def __init__(
        self,
        source: Source,
        *,
        announce: Callable[["Daemon"], None],
        lifeline: int | None = None,
        private: bool = False,
        state: Path | None = None,
    ) -> None:
        self.source = source
        self.announce = announce
        self.lifeline = lifeline
        self.config = source.load()
        self.path = Path("/dev") / self.config.device.name
        self.state_path = state or state_path(self.config.device.name)
        self.private = private  # the node is ours alone: we are in a mount namespace of our own
        self.interfaces: dict[str, Interface] = {}
        self.deleted: list[Interface] = []  # of these, those that are said to be
        self.on_terminal = sys.stdin is not None and sys.stdin.isatty()
        self.in_foreground = self.on_terminal and _in_foreground(sys.stdin.fileno())

    def run(self) -> int:
        """Serves until SIGTERM or SIGINT: 0; 1 if the device was taken away. SetupError: it cannot start."""
        memory = self.config.memory
        with ExitStack() as stack:
            stack.callback(logs.set_up(self.config.log.level))
            waker = stack.enter_context(_Signals())
            if not privileged():
                raise SetupError("serving a device takes the capabilities of root: run it as root (sudo)")
            claims.clean_up(blocks=False)
            if not self.private:
                device.check_path(self.path)
            try:
                self.region = Region(
                    {
                        "if": (memory.if_size, memory.if_num),
                        "ring": (memory.ring_size, memory.ring_num),
                        "buf": (memory.buf_size, memory.buf_num),
                    }
                )
            except Refused as refusal:
                raise SetupError(f"packet memory: {refusal.reason}") from refusal
            self.notices = LinkNotices()
            stack.callback(self.notices.close)
            self.events = Events()
            self.parameters = Parameters(vars(self.config.parameters) | vars(memory))
            self.parameters.on_change("no_timestamp", lambda value: set_no_timestamp(bool(value)))
            self.parameters.on_change("fwd", lambda value: set_forward_all(bool(value)))
            self.parameters.on_change("bridge_batch", set_bridge_batch)
            self.registry = Registry(self.region, self.parameters, self._open_interface)
            for port in self.config.ports.values():
                self._open_port(port)
            inbox = Inbox()
            doors = device.open_doors(stack, self.path, self.config.device, self.region, inbox, private=self.private)
            stack.callback(inbox.shut)
            self.doors = doors
            wanted = MemoryRequest(self.region, self.parameters, doors.opened, self.registry.interfaces.left)
            self.control = Control(inbox, self.registry, wanted, doors.helper, on_end=waker.end)
            self.control.start()
            device.prove(self.path, doors.mmap)
            wanted.used = False  # the proof is nobody's use
            self.state = self._open_state(stack)
            selector = stack.enter_context(selectors.DefaultSelector())
            self._listen(stack, selector, waker)
            self.announce(self)
            notify.notify(f"READY=1\nSTATUS=serving {self.path}, {self.doors.description}")
            log.info("%s is ready: %s", self.path, self.doors.description)
            ended = self._wait(selector, waker)
            with self.control.lock:
                self.registry.end()
            notify.notify("STOPPING=1")
        ended_all = self.state.stopped and all(door.stopped for door in doors.opened)
        if self.control.join(STOP_SECONDS) and ended_all:
            self.registry.close()
            inbox.destroy()
            for door in doors.opened:
                door.destroy()
            self.events.close()
            self.region.close()
        return ended

    def _open_state(self, stack: ExitStack) -> StateFiles:
        """The state files, mounted if that can be done: without them the device is as good."""
        facts = {
            "node": self.path,
            "doors": " ".join(self.doors.kinds),
            "mmap": self.doors.mmap,
            "transport": self.doors.transport,
            "version": __version__,
            "pid": os.getpid(),
        }
        root = state_tree.tree(facts, self.parameters, self.registry)
        group = device.group_id(self.config.device.group)
        files = StateFiles(self.state_path, root, self.control.lock, group)
        stack.callback(files.stop)
        try:
            files.start()
        except SetupError as error:
            log.warning("there are no state files: %s", error)
        return files

    def _open_port(self, port: config.Port) -> None:
        """Refused as SetupError. Not with control's lock held: it may take long."""
        try:
            with Path("/proc/self/ns/net").open("rb") as namespace:
                place = self._place(namespace.fileno())
                interface = BACKENDS[port.backend].open_port(place, port.name, port.options)
            with ExitStack() as undo:
                undo.callback(interface.close)
                with self.registry.news:
                    self.registry.add_wire(Wire(port.name, interface, port.backend))
                undo.pop_all()
        except Refused as refusal:
            raise SetupError(f"port {port.name}: {refusal.reason}{remedy(refusal)}") from refusal
        self.interfaces[port.name] = interface
        log.info("netmap:%s is %s", port.name, interface.description)

    def _place(self, namespace: int) -> Place:
        return Place(self.region, self.events, namespace, self.config.interfaces.on_exit, self.config.dpdk)

    def _open_interface(self, name: str, namespace: int) -> Interface:
        """One of the kernel's that a program names. Refused with the errno of what failed."""
        given = self.config.interfaces
        backend = BACKENDS[given.backend]
        options = {key: getattr(given, key) for key in kinds(backend.Options) if hasattr(given, key)}
        return backend.open_port(self._place(namespace), name, backend.Options(**options))

    def _close_port(self, name: str) -> None:
        with self.registry.news:
            self.registry.remove_wire(name)
        self.control.catch_up()
        interface = self.interfaces.pop(name)
        if interface in self.deleted:
            self.deleted.remove(interface)

    # ---- while it runs

    def _listen(self, stack: ExitStack, selector: selectors.BaseSelector, waker: "_Signals") -> None:
        for end, what in self._ends(stack.enter_context(select.epoll())):
            selector.register(end, selectors.EVENT_READ, what)
        for source in (waker.reader, self.notices, self.registry.interfaces, self.registry.regions):
            selector.register(source, selectors.EVENT_READ)

    def _wait(self, selector: selectors.BaseSelector, waker: "_Signals") -> int:
        period = notify.watchdog_seconds()
        while True:
            for key, _ in selector.select(period):
                if key.data:
                    log.info("ending: %s", key.data)
                    return 0
                if key.fileobj is self.notices:
                    self.notices.read()
                    self._look_for_deleted()
                    continue
                if key.fileobj is self.registry.interfaces:
                    self.control.follow()
                    continue
                if key.fileobj is self.registry.regions:
                    with self.control.lock:
                        self.registry.regions.look_for_broken()
                    continue
                for number in waker.read():
                    if number == _Signals.END:
                        log.error("%s was taken away: unmounted or aborted by somebody else", self.path)
                        return 1
                    if number != signal.SIGHUP or self._terminal_closed():
                        log.info("ending on %s", signal.Signals(number).name)
                        return 0
                    notify.reloading()
                    self.reload()
                    notify.notify("READY=1")
            if period and self._alive(period):
                notify.notify("WATCHDOG=1")

    def _ends(self, hangup: select.epoll) -> Iterator[tuple[int, str]]:
        """Descriptors that can be read once there is nobody to serve any more, and what that is."""
        if self.lifeline is not None:
            yield self.lifeline, "the program has ended"
        if self.in_foreground:
            # The kernel tells the terminal's first process alone, which may be a make that waits for us. Of no event
            # but the end, so that what is typed wakes nobody.
            hangup.register(sys.stdin, 0)
            yield hangup.fileno(), "the terminal was closed"

    def _alive(self, seconds: float) -> bool:
        """Whether control comes to a decision within this time."""
        if not self.control.lock.acquire(timeout=seconds):
            return False
        self.control.lock.release()
        return True

    def _look_for_deleted(self) -> None:
        """Nothing else tells a program that sleeps without waiting for frames or room."""
        with self.control.lock:
            for name, interface in self.interfaces.items():
                if interface not in self.deleted and interface.deleted():
                    interface.port.mark_gone()
                    self.deleted.append(interface)
                    log.warning("the interface behind %s has been deleted: a reload (SIGHUP) makes it anew", name)

    def _terminal_closed(self) -> bool:
        """A daemon in the foreground of a terminal ends with it; any other takes SIGHUP for a reload."""
        if not self.on_terminal:
            return False
        try:
            os.tcgetpgrp(sys.stdin.fileno())
        except OSError:
            return True
        return False

    def reload(self) -> None:
        """Reads the configuration again and does what can be done at once; the rest is refused, with the reason."""
        try:
            new = self.source.load()
        except config.ConfigError as error:
            log.error("reload: nothing changed: %s", error)
            return
        self._look_for_deleted()
        # A TAP device that somebody deleted comes back by a reload, as the file describes it now.
        lost = [name for name, interface in self.interfaces.items() if interface.port.gone and name in new.ports]
        for name in lost:
            self._reopen(new.ports[name])
        anew = {f"ports.{name}" for name in lost}
        changes = [change for change in config.diff(self.config, new) if change.table not in anew]
        if not changes and not lost:
            log.info("reload: nothing to change")
        for change in changes:
            name = f"[{change.table}] {change.key}".rstrip()
            try:
                if change.refused:
                    raise Refused(0, change.refused)
                self._apply(change, new)
                log.info("reload: %s: done", name)
            except (Refused, SetupError) as error:
                log.error("reload: %s: refused: %s", name, getattr(error, "reason", error))

    def _apply(self, change: Change, new: Config) -> None:
        """Makes one change, in the world and then in the configuration in force."""
        if change.table == "parameters":
            with self.control.lock:
                self.parameters.set(change.key, getattr(new.parameters, change.key))
            values = {change.key: getattr(new.parameters, change.key)}
            self.config = replace(self.config, parameters=replace(self.config.parameters, **values))
            return
        if change.table == "log":
            logs.set_level(new.log.level)
            self.config = replace(self.config, log=new.log)
            return
        name, ports = change.table.removeprefix("ports."), dict(self.config.ports)
        if change.key:
            self.interfaces[name].change(change.key, change.new)
            options: Any = ports[name].options
            options = replace(options, **{change.key: change.new})
            ports[name] = replace(ports[name], options=options)
        elif change.new is None:
            self._close_port(name)
            del ports[name]
        else:
            self._open_port(new.ports[name])
            ports[name] = new.ports[name]
        self.config = replace(self.config, ports=MappingProxyType(ports))

    def _reopen(self, port: config.Port) -> None:
        """Makes the port anew; one that fails is in the configuration no more, so that the next reload tries again."""
        ports = dict(self.config.ports)
        del ports[port.name]
        self._close_port(port.name)
        try:
            self._open_port(port)
            ports[port.name] = port
            log.info("reload: [ports.%s]: made anew", port.name)
        except SetupError as error:
            log.error("reload: [ports.%s]: %s", port.name, error)
        self.config = replace(self.config, ports=MappingProxyType(ports))


def _in_foreground(terminal: int) -> bool:
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # it is not the one that our signals come from
        return False


class _Signals:
    """Signals, and the end of control, as bytes to select on."""

    END = 0

    def __enter__(self) -> Self:
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)
        # SIGPIPE too, for libfuse: it sets what is ignored back to killing us once its mount has gone.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self.writer.fileno())
        return self

    def __exit__(self, *_: object) -> None:
        signal.set_wakeup_fd(-1)
        # Python, as it ends, lets what has a handler kill again, and an impatient ctrl-C would be our exit status.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

    def read(self) -> bytes:
        return bytes(number for number in self.reader.recv(64) if number != signal.SIGPIPE)

    def end(self) -> None:
        """Control has ended: called on its thread."""
        self.writer.send(bytes([self.END]))
