# SPDX-License-Identifier: BSD-2-Clause
"""Decides what every ioctl but sync gets: one decision at a time, the program's memory read and written outside it.

A program can keep us waiting in its own memory (a page that is never faulted in), so requests are carried by several
threads; the inbox sees to it that no user holds them all. Releases have a thread of their own.
"""

import errno
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cuse_netmap._core import Inbox, Request, TurnedAway
from cuse_netmap.control import legacy, transaction
from cuse_netmap.control.memory import MemoryRequest
from cuse_netmap.control.registry import Registry
from cuse_netmap.control.requests import (
    IOCTL_NAMES,
    NIOCCONFIG,
    NIOCCTRL,
    NIOCGINFO,
    NIOCREGIF,
    NIOCRXSYNC,
    NIOCTXSYNC,
    Legacy,
    LegacyCommand,
    PoolsInfo,
    PortInfo,
    Register,
    RequestType,
)
from cuse_netmap.control.transaction import Transaction
from cuse_netmap.errors import Refused
from cuse_netmap.helper import NIOCHELPERTOKEN, HelperServer
from cuse_netmap.processes import command_of

log = logging.getLogger(__name__)

TAKERS = 16
EXPLAINED_MOST = 100  # programs choose their names
# Seconds that a REGISTER waits for a close() that may be under way. Its RELEASE comes within a few milliseconds, but
# was seen more than 100 late on a machine with more to do than it has CPUs.
CLOSING_GRACE = 0.2
CLOSING_LOOK = 0.02  # a close() that was not the last one is one no more after a while, without notice

NOT_YET = {
    # Requests for kinds of ports that do not exist here get what netmap says of a missing one.
    RequestType.VALE_ATTACH: (errno.EINVAL, "there are no VALE switches"),
    RequestType.VALE_DETACH: (errno.ENXIO, "there are no VALE switches"),
    RequestType.VALE_LIST: (errno.ENOENT, "there are no VALE switches"),
    RequestType.PORT_HDR_SET: (errno.ENXIO, "there are no VALE ports"),
    RequestType.VALE_NEWIF: (errno.ENXIO, "there are no persistent VALE ports"),
    RequestType.VALE_DELIF: (errno.ENXIO, "there are no persistent VALE ports"),
    RequestType.VALE_POLLING_ENABLE: (errno.ENXIO, "there are no VALE switches"),
    RequestType.VALE_POLLING_DISABLE: (errno.ENXIO, "there are no VALE switches"),
    RequestType.SYNC_KLOOP_START: (errno.ENXIO, "the descriptor has no CSB"),
    RequestType.SYNC_KLOOP_STOP: (errno.ENXIO, "the descriptor has no CSB"),
    RequestType.CSB_ENABLE: (errno.EINVAL, "CSB is not supported"),
}


@dataclass
class Work:
    """A request on its way: `decide` is run with the lock held, `finish` (which may wait for the program) without."""

    request: Request
    what: str
    decide: "Callable[[Work], None]"
    finish: Callable[[bool], None]
    port: str | None = None  # of a REGISTER: whose release may turn a refusal into a success
    bound: bool = False  # the descriptor holds a port through this request


class Control:
    """The threads between an inbox and a registry."""

    def __init__(
        self,
        inbox: Inbox,
        registry: Registry,
        memory: MemoryRequest,
        helper: HelperServer | None,
        on_end: Callable[[], None],
    ) -> None:
        self.inbox = inbox
        self.registry = registry
        self.memory = memory
        self.helper = helper
        self.on_end = on_end  # called once the inbox is shut, by whomever
        self.lock = threading.Lock()
        self.explained: set[str] = set()
        self.released = threading.Condition(self.lock)
        self.threads = [threading.Thread(target=self._serve, name=f"control-{i}", daemon=True) for i in range(TAKERS)]
        self.threads.append(threading.Thread(target=self._serve_releases, name="releases", daemon=True))

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def join(self, timeout: float) -> bool:
        """After the door was stopped: True if all threads ended (one may be caught in a program's memory)."""
        deadline = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self.threads)

    # ---- threads

    def _serve(self) -> None:
        while (request := self.inbox.next()) is not None:
            if isinstance(request, TurnedAway):
                refusal = Refused(errno.EBUSY, request.reason)
                _log_refusal(request.pid, request.program, _ioctl_name(request.command), refusal)
                continue
            try:
                work = self._understand(request)
            except Refused as refusal:
                self._answer(request, _ioctl_name(request.command), refusal)
            except Exception:
                log.exception("control failed")
                request.reply(errno.EIO)
            else:
                self._attempt(work)

    def _serve_releases(self) -> None:
        # Nothing here may wait for a program: this thread is everybody's.
        while (released := self.inbox.next_release()) is not None:
            with self.lock:
                holder = self.registry.release(released)
                if self.helper:
                    self.helper.forget(released.id)
                released.destroy()
                self.memory.settle()
                self.released.notify_all()
            if holder and holder.in_vain:
                self._explain_helper(holder.command)
            if holder:
                log.info("%s released by pid %d (%s)", holder.name, holder.pid, holder.command)
        self.on_end()

    def _explain_helper(self, command: str) -> None:
        """Once for each program that used a device that it could not map."""
        if command not in self.explained and len(self.explained) < EXPLAINED_MOST:
            self.explained.add(command)
            log.warning(
                "%s did not map the device, which this kernel lets it only with the helper: "
                "cuse-netmap run %s, or cuse-netmap preload --enable",
                command,
                command,
            )

    def _attempt(self, work: Work) -> None:
        """Decides, lets the program know, and makes it so unless the program has gone meanwhile."""
        refusal = self._decide(work)
        try:
            work.finish(refusal is None)
        except Refused as unwritable:
            refusal = refusal or unwritable
        if work.request.commit():
            if work.bound:
                work.request.open.activate()
        else:
            refusal = refusal or Refused(errno.EINTR, "interrupted")
            if work.bound:
                with self.lock:
                    self.registry.release(work.request.open)
                    self.released.notify_all()
        self._answer(work.request, work.what, refusal)

    def _decide(self, work: Work) -> Refused | None:
        """Decides a request, a REGISTER only once whoever is just closing its port has closed it.

        close() does not wait for its RELEASE, but the program that opens the port next must find it free, with rings
        as new. So does a pool that is empty until a release under way gives back what it holds.
        """
        until = time.monotonic() + CLOSING_GRACE
        with self.lock:
            while True:
                if work.request.abandoned:
                    return Refused(errno.EINTR, "interrupted")
                if work.port is not None and self._wait_for_release(work.port, until):
                    continue
                try:
                    work.decide(work)
                except Refused as refusal:
                    short = refusal.errno == errno.ENOMEM and work.port is not None
                    if not (short and self._wait_for_release(None, until)):
                        return refusal
                except Exception:
                    log.exception("control failed")
                    return Refused(errno.EIO, "internal error")
                else:
                    return None

    def _wait_for_release(self, port: str | None, until: float) -> bool:
        """Waits for a release that may be under way, of that port or of any; False if there is none, or no time."""
        patience = until - time.monotonic()
        if patience <= 0 or not (self.inbox.releases_queued or self.registry.perhaps_closing(port)):
            return False
        self.released.wait(min(patience, CLOSING_LOOK))
        return True

    def _answer(self, request: Request, what: str, refusal: Refused | None) -> None:
        if refusal is not None and refusal.errno != errno.EINTR:
            _log_refusal(request.pid, command_of(request.pid), what, refusal)
        request.reply((refusal.errno or errno.EIO) if refusal else 0)

    # ---- what is asked

    def _understand(self, request: Request) -> Work:
        """Reads what the ioctl carries. Refused for what can be told without deciding."""
        name = _ioctl_name(request.command)
        match request.command:
            case code if code in (NIOCTXSYNC, NIOCRXSYNC):
                direction = "tx" if code == NIOCTXSYNC else "rx"
                return Work(request, name, lambda _: request.open.sync(direction), lambda _: None)
            case code if code == NIOCCTRL:
                return self._ctrl(request)
            case code if code in (NIOCGINFO, NIOCREGIF):
                return self._legacy(request, name)
            case code if code == NIOCHELPERTOKEN and self.helper is not None:
                return self._token(request, self.helper)
            case code if code == NIOCCONFIG:
                raise Refused(errno.EINVAL, "no bridge has a configuration")
            case _:
                raise Refused(errno.EOPNOTSUPP, "netmap has no such ioctl")

    def _token(self, request: Request, helper: HelperServer) -> Work:
        """What the preloaded helper asks on behalf of an mmap."""
        answer = b""

        def decide(_work: Work) -> None:
            nonlocal answer
            self.registry.map(request.open)
            answer = helper.token(request.open.id)

        def finish(succeeded: bool) -> None:
            if succeeded:
                request.write(request.argument, answer)

        return Work(request, "mmap", decide, finish)

    def _ctrl(self, request: Request) -> Work:
        if not request.argument:
            raise Refused(errno.EINVAL, "the argument is NULL")
        given = transaction.begin(request, request.argument)
        type_name = _type_name(given.header.reqtype)
        what = f"{type_name} {given.header.name!r}"
        try:
            transaction.read_rest(given)
        except Refused as refusal:
            given.header.reserved = 0
            given.write_back(succeeded=False)
            raise Refused(refusal.errno or errno.EINVAL, f"{what}: {refusal.reason}") from refusal
        handler = self._handlers().get(given.header.reqtype, self._unknown)
        port = given.header.name if given.header.reqtype == RequestType.REGISTER else None
        return Work(request, f"NIOCCTRL {what}", partial(handler, given), given.write_back, port)

    def _handlers(self) -> dict[int, Callable[[Transaction, Work], None]]:
        return {
            RequestType.REGISTER: self._register,
            RequestType.PORT_INFO_GET: self._port_info,
            RequestType.POOLS_INFO_GET: self._pools_info,
            RequestType.PORT_HDR_GET: self._port_header,
            **{kind: partial(_not_yet, kind) for kind in NOT_YET},
        }

    def _unknown(self, given: Transaction, _work: Work) -> None:
        raise Refused(errno.EINVAL, f"netmap has no request {given.header.reqtype}")

    def _register(self, given: Transaction, work: Work) -> None:
        answer = self._bind(work, given.header.name, Register.decode(given.body))
        if given.options:
            # What nobody has handled fails the request, after the fact, as in netmap.
            self.registry.release(work.request.open)
            work.bound = False
            kinds = ", ".join(str(option.type) for option in given.options)
            raise Refused(errno.EOPNOTSUPP, f"option type {kinds} is not supported")
        given.answer = answer.encode()

    def _bind(self, work: Work, name: str, asked: Register) -> Register:
        request, command = work.request, command_of(work.request.pid)
        answer = self.registry.register(request.open, name, asked, request.pid, command)
        work.bound = True
        self.registry.holders[request.open.id].uid = request.uid
        self.memory.used = True
        log.info("%s registered by pid %d (%s), mode %d", name, request.pid, command, asked.mode)
        if answer.extra_bufs < asked.extra_bufs:
            what = f"{asked.extra_bufs} extra buffers asked for, {answer.extra_bufs} granted: the pool has no more"
            log.warning("%s: pid %d (%s): %s", name, request.pid, command, what)
        return answer

    def _port_info(self, given: Transaction, _work: Work) -> None:
        asked = PortInfo.decode(given.body)
        given.answer = self.registry.port_info(given.header.name, asked.mem_id).encode()

    def _pools_info(self, given: Transaction, _work: Work) -> None:
        asked = PoolsInfo.decode(given.body)
        name = given.header.name
        if not name:
            raise Refused(errno.ENXIO, "no port is named")
        info = self.registry.port_info(name, asked.mem_id)
        answer = PoolsInfo(memsize=info.memsize, mem_id=info.mem_id)
        for pool in ("if", "ring", "buf"):
            geometry = self.registry.region.pool(pool)
            setattr(answer, f"{pool}_offset", geometry.offset)
            setattr(answer, f"{pool}_total", geometry.objtotal)
            setattr(answer, f"{pool}_size", geometry.objsize)
        given.answer = answer.encode()

    def _port_header(self, given: Transaction, _work: Work) -> None:
        self.registry.find(given.header.name, 0, 0)
        given.answer = bytes(len(given.body))  # interfaces have no virtio-net header

    # ---- the legacy requests

    def _legacy(self, request: Request, name: str) -> Work:
        if not request.argument:
            raise Refused(errno.EINVAL, "the argument is NULL")
        given = Legacy.decode(request.read(request.argument, Legacy.size()))
        what = f"{name} {given.name!r}"
        decide = self._legacy_register if request.command == NIOCREGIF else self._legacy_info

        def finish(_succeeded: bool) -> None:
            request.write(request.argument, given.encode())

        port = given.name if request.command == NIOCREGIF else ""
        return Work(request, what, partial(decide, given), finish, port)

    def _legacy_info(self, given: Legacy, _work: Work) -> None:
        legacy.check_version(given)
        if given.cmd == LegacyCommand.BDG_LIST:
            raise Refused(errno.ENOENT, "there are no VALE switches")
        legacy.from_port_info(given, self.registry.port_info(given.name, given.arg2))

    def _legacy_register(self, given: Legacy, work: Work) -> None:
        legacy.check_version(given)
        if given.cmd != LegacyCommand.REGISTER:
            self._legacy_command(given)
            return
        name, asked = legacy.to_register(given)
        legacy.from_register(given, self._bind(work, name, asked))

    def _legacy_command(self, given: Legacy) -> None:
        kind = (
            {
                LegacyCommand.BDG_ATTACH: RequestType.VALE_ATTACH,
                LegacyCommand.BDG_DETACH: RequestType.VALE_DETACH,
                LegacyCommand.BDG_VNET_HDR: RequestType.PORT_HDR_SET,
                LegacyCommand.BDG_NEWIF: RequestType.VALE_NEWIF,
                LegacyCommand.BDG_DELIF: RequestType.VALE_DELIF,
                LegacyCommand.BDG_POLLING_ON: RequestType.VALE_POLLING_ENABLE,
                LegacyCommand.BDG_POLLING_OFF: RequestType.VALE_POLLING_DISABLE,
            }.get(LegacyCommand(given.cmd))
            if given.cmd in LegacyCommand.__members__.values()
            else None
        )
        if given.cmd == LegacyCommand.VNET_HDR_GET:
            self.registry.find(given.name, 0, 0)
            given.arg1 = 0
        elif given.cmd in (LegacyCommand.PT_HOST_CREATE, LegacyCommand.PT_HOST_DELETE):
            raise Refused(errno.ENOMEM, "ptnetmap is gone")
        elif kind is None:
            raise Refused(errno.EINVAL, f"there is no nr_cmd {given.cmd}")
        else:
            number, reason = NOT_YET[kind]
            raise Refused(number, reason)


def _not_yet(kind: RequestType, _given: Transaction, _work: Work) -> None:
    number, reason = NOT_YET[kind]
    raise Refused(number, reason)


def _log_refusal(pid: int, program: str, what: str, refusal: Refused) -> None:
    log.warning("refused: pid %d (%s): %s: %s (%s)", pid, program, what, refusal.reason, refusal.code)


def _ioctl_name(command: int) -> str:
    return IOCTL_NAMES.get(command, f"ioctl {command:#x}")


def _type_name(number: int) -> str:
    return RequestType(number).name if number in RequestType.__members__.values() else str(number)
