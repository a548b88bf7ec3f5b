# SPDX-License-Identifier: BSD-2-Clause
"""Decides what every ioctl but sync gets: one decision at a time, the program's memory read and written outside it.

A program can keep us waiting in its own memory (a page that is never faulted in), so requests are carried by several
threads; the inbox sees to it that no user holds them all. Releases have a thread of their own.
"""

import errno
import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from cuse_netmap import _core
from cuse_netmap._core import POLL, Inbox, Request, TurnedAway
from cuse_netmap.control import ages, device_ioctls, kloop, legacy, transaction
from cuse_netmap.control.admin import REQUESTS
from cuse_netmap.control.interfaces import Behind, Slow
from cuse_netmap.control.memory import MemoryRequest
from cuse_netmap.control.options import RegisterOptions
from cuse_netmap.control.registry import Registry
from cuse_netmap.control.requests import (
    IOCTL_NAMES,
    NIOCCONFIG,
    NIOCCTRL,
    NIOCREGIF,
    NIOCRXSYNC,
    NIOCTXSYNC,
    NIOCUNREGIF,
    Legacy,
    LegacyCommand,
    Register,
    RequestType,
)
from cuse_netmap.control.transaction import Transaction
from cuse_netmap.errors import Refused
from cuse_netmap.helper import NIOCHELPERTOKEN, HelperServer
from cuse_netmap.processes import command_of, news_level

log = logging.getLogger(__name__)

TAKERS = 16
EXPLAINED_MOST = 100  # programs choose their names
# Seconds that a REGISTER waits for a close() that may be under way. Its RELEASE comes within a few milliseconds, but
# was seen more than 100 late on a machine with more to do than it has CPUs.
CLOSING_GRACE = 0.2
CLOSING_LOOK = 0.02  # a close() that was not the last one is one no more after a while, without notice


@dataclass
class Work:
    """A request on its way: `decide` is run with the lock held, `finish` (which may wait for the program) without."""

    request: Request
    what: str
    decide: "Callable[[Work], None]"
    finish: Callable[[bool], None]
    awaits: str | None = None  # the port whose release, if it is under way, is to be waited for
    options: RegisterOptions = field(default_factory=lambda: RegisterOptions([]))  # of a REGISTER
    hand_over: Callable[[], bool] | None = None  # the last step: True if the answer is somebody else's from then on
    bound: bool = False  # the descriptor holds a port through this request
    undo: Callable[[], object] | None = None  # with the lock held: what was decided, should an interface refuse it
    touched: list[Behind] = field(default_factory=list)  # interfaces that are to catch up with what was decided


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
        self.lock = _core.exclusive
        self.explained: set[str] = set()
        self.news = registry.news
        self.later: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self.threads = [threading.Thread(target=self._serve, name=f"control-{i}", daemon=True) for i in range(TAKERS)]
        self.threads.append(threading.Thread(target=self._serve_releases, name="releases", daemon=True))
        self.follower = threading.Thread(target=self._serve_later, name="interfaces", daemon=True)

    def start(self) -> None:
        for thread in (*self.threads, self.follower):
            thread.start()

    def join(self, timeout: float) -> bool:
        """After the door was stopped: True if all threads and loops ended (one may be caught in a program's memory)."""
        deadline = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.later.put(None)
        self.follower.join(max(0.0, deadline - time.monotonic()))
        loops_ended = _core.loops_ended(max(0.0, deadline - time.monotonic()))
        return loops_ended and not any(thread.is_alive() for thread in (*self.threads, self.follower))

    # ---- threads

    def _serve(self) -> None:
        while (request := self.inbox.next()) is not None:
            if isinstance(request, TurnedAway):
                refusal = Refused(errno.EBUSY, request.reason)
                _log_refusal(request.pid, request.program, _ioctl_name(request.command), refusal)
                continue
            try:
                if request.command in (NIOCTXSYNC, NIOCRXSYNC, POLL):
                    request.reply(request.sync())
                    continue
                work = self._understand(request)
            except Refused as refusal:
                self._answer(request, _ioctl_name(request.command), refusal)
            except Exception:
                log.exception("control failed")
                request.reply(-errno.EIO)
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
                self.news.notify_all()
                self.later.put(partial(self._catch_up, self.registry.interfaces.take_touched()))
            if holder and holder.in_vain:
                self._explain_helper(holder.command)
            if holder:
                log.log(
                    news_level(holder.command), "%s released by pid %d (%s)", holder.name, holder.pid, holder.command
                )
        self.on_end()

    def follow(self) -> None:
        """The kernel has said that an open interface may have changed."""
        with self.lock:
            for behind in self.registry.interfaces.changed():
                self.later.put(partial(self._follow, behind))

    def _follow(self, behind: Behind) -> None:
        self.registry.interfaces.follow(behind)
        with self.lock:
            if behind.port and behind.gone:
                self.registry.disappeared(behind.port)
            touched = self.registry.interfaces.take_touched()
        self._catch_up(touched)

    def _serve_later(self) -> None:
        """What no program waits for: interfaces that changed, and those that were left."""
        while (work := self.later.get()) is not None:
            try:
                work()
            except Exception:
                log.exception("control failed")

    def _catch_up(self, touched: list[Behind]) -> Refused | None:
        """Lets interfaces catch up with what was decided; the first refusal, others are logged."""
        refusal: Refused | None = None
        for behind in touched:
            try:
                self.registry.interfaces.catch_up(behind)
            except Refused as refused:
                if refusal:
                    log.error("%s", refused.reason)
                refusal = refusal or refused
        with self.lock:
            self.memory.settle()
        return refusal

    def catch_up(self) -> None:
        """After a change of one's own, made with the lock held, which is not any more."""
        with self.lock:
            touched = self.registry.interfaces.take_touched()
        if refusal := self._catch_up(touched):
            log.error("%s", refusal.reason)

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
        refusal = self._follow_up(work, refusal)
        work.options.decided()
        if refusal is None:
            try:
                work.options.write(work.request)
            except Refused as failed:
                refusal = failed
                self._unbind(work)
        try:
            work.finish(refusal is None)
        except Refused as unwritable:
            refusal = refusal or unwritable
        if refusal is None and work.hand_over:
            try:
                if work.hand_over():
                    return
            except Refused as failed:
                refusal = failed
        if work.request.commit():
            if work.bound:
                work.request.open.activate()
        else:
            refusal = refusal or Refused(errno.EINTR, "interrupted")
            self._unbind(work)
        if work.options.known:
            with self.lock:
                work.options.end(self.registry, succeeded=work.bound)
        self._answer(work.request, work.what, refusal)

    def _follow_up(self, work: Work, refusal: Refused | None) -> Refused | None:
        """Lets interfaces catch up with the decision, which is undone if one of them refuses."""
        failed = self._catch_up(work.touched)
        if failed and refusal is None and work.undo:
            with self.lock:
                work.undo()
            self.catch_up()
            return failed
        if failed:
            log.error("%s", failed.reason)
        return refusal

    def _unbind(self, work: Work) -> None:
        if work.bound:
            with self.lock:
                self._release(work)
            self.catch_up()

    def _release(self, work: Work) -> None:
        work.bound = False
        self.registry.release(work.request.open)
        self.news.notify_all()

    def _decide(self, work: Work) -> Refused | None:
        """Decides a request, a REGISTER only once whoever is just closing its port has closed it.

        close() does not wait for its RELEASE, but the program that opens the port next must find it free, with rings
        as new. So does a pool that is empty until a release under way gives back what it holds. What takes long is done
        without the lock, and then it is decided anew.
        """
        try:
            while True:
                with self.lock:
                    slow = self._decide_now(work)
                    work.touched += self.registry.interfaces.take_touched()
                if slow is None:
                    return None
                work.touched.append(slow.behind)
                self.registry.interfaces.carry_out(slow, lambda: work.request.abandoned)
        except Refused as refusal:
            return refusal
        except Exception:
            log.exception("control failed")
            return Refused(errno.EIO, "internal error")

    def _decide_now(self, work: Work) -> Slow | None:
        """None: it is decided."""
        until = time.monotonic() + CLOSING_GRACE
        while True:
            if work.request.abandoned:
                raise Refused(errno.EINTR, "interrupted")
            if work.awaits is not None and self._wait_for_release(work.awaits, until):
                continue
            try:
                with self.registry.interfaces.seen_by(work.request.pid):
                    work.decide(work)
            except Slow as slow:
                return slow
            except Refused as refusal:
                short = refusal.errno == errno.ENOMEM and work.awaits is not None
                if not (short and self._wait_for_release(None, until)):
                    raise
            else:
                return None

    def _wait_for_release(self, port: str | None, until: float) -> bool:
        """Waits for a release that may be under way, of that port or of any; False if there is none, or no time."""
        patience = until - time.monotonic()
        if patience <= 0 or not (self.inbox.releases_queued or self.registry.perhaps_closing(port)):
            return False
        self.news.wait(min(patience, CLOSING_LOOK))
        return True

    def _answer(self, request: Request, what: str, refusal: Refused | None) -> None:
        if refusal is not None and refusal.errno != errno.EINTR and not refusal.expected:
            _log_refusal(request.pid, command_of(request.pid), what, refusal)
        request.reply(-(refusal.errno or errno.EIO) if refusal else 0)

    # ---- what is asked

    def _understand(self, request: Request) -> Work:
        """Reads what the ioctl carries. Refused for what can be told without deciding."""
        name = _ioctl_name(request.command)
        match request.command:
            case code if code == NIOCCTRL:
                return self._ctrl(request)
            case code if code in ages.COMMANDS:
                return self._legacy(request)
            case code if code == NIOCUNREGIF and request.open.api in ages.CHANGING:
                return Work(request, name, self._unregister, lambda _succeeded: None)
            case code if code == NIOCHELPERTOKEN and self.helper is not None:
                return self._token(request, self.helper)
            case code if code in device_ioctls.NAMES:
                return self._device(request, name)
            case code if code == NIOCCONFIG:
                raise Refused(errno.EINVAL, "no bridge has a configuration")
            case _:
                raise Refused(errno.EOPNOTSUPP, "netmap has no such ioctl")

    def _device(self, request: Request, name: str) -> Work:
        """What any socket answers, of the interface that the descriptor is bound to."""
        device: tuple[int, int] | None = None

        def decide(_work: Work) -> None:
            nonlocal device
            device = self.registry.device(request.open)

        def finish(_succeeded: bool) -> None:
            if device:
                try:
                    device_ioctls.carry_out(request, *device)
                finally:
                    os.close(device[0])

        return Work(request, name, decide, finish)

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
        kind = given.header.reqtype
        decide = {RequestType.REGISTER: self._register, **kloop.HANDLERS}.get(kind, self._administer)
        changes = kind == RequestType.REGISTER or (kind in REQUESTS and REQUESTS[kind].changes)
        awaits = given.header.name if changes else None
        work = Work(request, f"NIOCCTRL {what}", partial(decide, given), given.write_back, awaits)
        if kind == RequestType.REGISTER:
            work.options = RegisterOptions(given.options)
            work.options.read(request)
        return work

    def _administer(self, given: Transaction, work: Work) -> None:
        kind = REQUESTS.get(given.header.reqtype)
        if kind is None:
            raise Refused(errno.EINVAL, f"netmap has no request {given.header.reqtype}")
        asked = kind.body.decode(given.body) if kind.body else None
        name, answer = kind.decide(self.registry, given.header.name, asked)
        if kind.undo:
            work.undo = partial(kind.undo, self.registry, given.header.name)
        if name != given.header.name:
            given.header.write_name(name)
        given.answer = answer.encode() if answer else None

    def _register(self, given: Transaction, work: Work) -> None:
        asked = Register.decode(given.body)
        work.options.place(self.registry, work.request.open, asked)
        answer = self._bind(work, given.header.name, asked, given.header.version)
        try:
            work.options.bound(self.registry, work.request.open, answer)
            if unknown := work.options.unknown():
                # What nobody has handled fails the request, after the fact, as in netmap.
                kinds = ", ".join(map(str, unknown))
                raise Refused(errno.EOPNOTSUPP, f"option type {kinds} is not supported")
        except Refused:
            self.registry.release(work.request.open)
            work.bound = False
            raise
        given.answer = answer.encode()

    def _bind(self, work: Work, name: str, asked: Register, version: int) -> Register:
        request, command = work.request, command_of(work.request.pid)
        _speaks(request, version)
        answer = self.registry.register(request.open, name, asked, request.pid, command)
        work.bound = True
        work.undo = partial(self._release, work)
        self.registry.holders[request.open.id].uid = request.uid
        self.memory.used = True
        log.log(news_level(command), "%s registered by pid %d (%s): %s", name, request.pid, command, asked.rings)
        if answer.extra_bufs < asked.extra_bufs:
            what = f"{asked.extra_bufs} extra buffers asked for, {answer.extra_bufs} granted: the pool has no more"
            log.warning("%s: pid %d (%s): %s", name, request.pid, command, what)
        return answer

    # ---- the legacy requests

    def _legacy(self, request: Request) -> Work:
        command = ages.COMMANDS[request.command]
        if not request.argument:
            raise Refused(errno.EINVAL, "the argument is NULL")
        given = ages.decode(request.read(request.argument, ages.size(request.command)))
        what = f"{IOCTL_NAMES[command]} {given.legacy.name!r}"
        decide = self._legacy_register if command == NIOCREGIF else self._legacy_info

        def finish(_succeeded: bool) -> None:
            request.write(request.argument, given.encode())

        return Work(request, what, partial(decide, given), finish, given.legacy.name)

    def _legacy_info(self, given: ages.Request, work: Work) -> None:
        given.check_version()
        if given.changing:
            _speaks(work.request, given.legacy.version)
        lists = legacy.number(given.legacy) == LegacyCommand.BDG_LIST
        self._legacy_command(work, given.legacy, legacy.LIST if lists else legacy.INFO)

    def _legacy_register(self, given: ages.Request, work: Work) -> None:
        given.check_version()
        asked = given.legacy
        if legacy.number(asked) != LegacyCommand.REGISTER:
            self._legacy_command(work, asked, legacy.command(asked))
            return
        name, register = legacy.to_register(asked)
        if given.changing and work.request.open.registered:
            answer = self.registry.rebind(work.request.open, name, register, asked.version)
        else:
            answer = self._bind(work, name, register, asked.version)
        legacy.from_register(asked, answer)

    def _unregister(self, work: Work) -> None:
        """NIOCUNREGIF: what close() does, but for the descriptor itself."""
        holder = self.registry.unregister(work.request.open)
        self.memory.settle()
        self.news.notify_all()
        log.info("%s unregistered by pid %d (%s)", holder.name, holder.pid, holder.command)

    def _legacy_command(self, work: Work, given: Legacy, command: legacy.Command) -> None:
        kind = REQUESTS[command.type]
        name, answer = kind.decide(self.registry, given.name, command.body(given))
        if kind.undo:
            work.undo = partial(kind.undo, self.registry, given.name)
        if name != given.name:
            legacy.write_name(given, name)
        command.answer(given, answer)


def _speaks(request: Request, version: int) -> None:
    """The layouts that the program knows; those of a descriptor that has rings are settled."""
    if not request.open.registered:
        request.open.speaks(version)


def _log_refusal(pid: int, program: str, what: str, refusal: Refused) -> None:
    log.warning("refused: pid %d (%s): %s: %s (%s)", pid, program, what, refusal.reason, refusal.code)


def _ioctl_name(command: int) -> str:
    known = IOCTL_NAMES.get(ages.COMMANDS.get(command, command)) or device_ioctls.NAMES.get(command)
    return known or f"ioctl {command:#x}"


def _type_name(number: int) -> str:
    return RequestType(number).name if number in RequestType.__members__.values() else str(number)
