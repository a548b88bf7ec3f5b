# SPDX-License-Identifier: BSD-2-Clause
"""Open files of the device and what their programs ask of control (ring_core.h, doors/inbox.h)."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuse_netmap._core.border import DIRECTIONS, Why, text
from cuse_netmap._core.ports import Port
from cuse_netmap._engine import ffi, lib
from cuse_netmap.errors import Refused


class Offsets:
    """What a REGISTER asks for by the option OFFSETS, in bytes and bits, and what became of it."""

    def __init__(self, maximum: int, initial: int, bits: int) -> None:
        initially = {"max_offset": maximum, "initial_offset": initial, "bits": bits, "status": errno.EOPNOTSUPP}
        self.pointer = ffi.new("struct nm_offsets *", initially)

    @property
    def maximum(self) -> int:
        """The largest that may be used on every ring that was bound."""
        return int(self.pointer.max_offset)

    @property
    def status(self) -> int:
        """0, or the errno with which it was refused; EOPNOTSUPP while nothing was decided."""
        return int(self.pointer.status)


class OpenFile:
    """One open file of the device."""

    offsets: Offsets | None = None  # to come with the next `register`

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.file = lib.nm_open_file(pointer)
        self.id = int(lib.nm_open_id(pointer))

    @property
    def perhaps_closing(self) -> bool:
        """close() was called on one of its descriptors, and nothing since."""
        return bool(lib.nm_open_perhaps_closing(self.pointer))

    @property
    def mappable(self) -> bool:
        """Whether the kernel maps the memory for it; otherwise the program needs the helper."""
        return bool(lib.nm_open_mappable(self.pointer))

    def bound(self, direction: str) -> range:
        """The rings of a direction that it holds once it is registered."""
        index = DIRECTIONS[direction]
        return range(self.file.first[index], self.file.last[index])

    @property
    def registered(self) -> bool:
        return bool(self.file.port != ffi.NULL)

    @property
    def rings(self) -> int:
        """How many rings it has bound, of both directions."""
        return sum(len(self.bound(direction)) for direction in DIRECTIONS)

    @property
    def exclusive(self) -> bool:
        """Nobody else may bind its rings."""
        return bool(self.file.exclusive)

    @property
    def has_csb(self) -> bool:
        """The program keeps the indices of its rings in its own memory."""
        return bool(self.file.csb.atok)

    @property
    def looping(self) -> bool:
        """A sync loop runs."""
        return bool(self.file.kloop != ffi.NULL)

    @property
    def api(self) -> int:
        """What `speaks` has said last; 0 if nothing."""
        return int(self.file.api)

    def speaks(self, version: int) -> None:
        """The API version of the program, before `register`: it tells the layouts that it knows (ages.h)."""
        self.file.api = min(version, lib.NETMAP_API)

    def register(self, port: Port, request: bytes) -> bytes:
        """Binds rings as an nmreq_register asks; returns it completed. Refused as nm_file_register says."""
        body, why = ffi.new("struct nmreq_register *"), Why()
        ffi.buffer(body)[:] = request
        if self.offsets:
            lib.nm_file_want_offsets(self.file, self.offsets.pointer)
        why.check(lib.nm_file_register(self.file, port.pointer, body, why.pointer))
        return bytes(ffi.buffer(body))

    def rebind(self, request: bytes) -> bytes:
        """Other rings of the same port for a program of API 5 or before. Refused as nm_file_rebind says."""
        body, why = ffi.new("struct nmreq_register *"), Why()
        ffi.buffer(body)[:] = request
        why.check(lib.nm_file_rebind(self.file, body, why.pointer))
        return bytes(ffi.buffer(body))

    def deactivate(self) -> None:
        """No sync or poll reaches its rings any more, of a program of API 5 or before."""
        lib.nm_file_deactivate(self.file)

    def activate(self) -> None:
        """From now on its syncs and polls reach the rings that `register` bound, if it did."""
        lib.nm_file_activate(self.file)

    def unregister(self) -> None:
        lib.nm_file_unregister(self.file)

    def destroy(self) -> None:
        """Only once it is released."""
        lib.nm_open_destroy(self.pointer)


POLL = lib.NM_REQUEST_POLL
API_PAGE, API_2011 = int(lib.NM_API_PAGE), int(lib.NM_API_2011)  # what stands for versions that are none (ages.h)


class Request:
    """An ioctl or a poll that waits for an answer, and the memory of its caller.

    Reading and writing are Refused with EFAULT for all that cannot be moved, EINTR once the caller has gone.
    """

    def __init__(self, inbox: Any, pointer: Any) -> None:
        self.inbox = inbox
        self.pointer = pointer
        self.open = OpenFile(pointer.open)
        self.argument = int(pointer.argument)
        self.command = int(pointer.command)
        self.pid = int(pointer.pid)
        self.uid = int(pointer.uid)

    def read(self, address: int, size: int) -> bytes:
        buffer = ffi.new("char[]", size)
        result = lib.nm_request_read(self.inbox, self.pointer, address, buffer, size)
        self._check(result, f"cannot read {size} bytes at {address:#x}")
        return bytes(ffi.buffer(buffer, size))

    def write(self, address: int, data: bytes) -> None:
        result = lib.nm_request_write(self.inbox, self.pointer, address, data, len(data))
        self._check(result, f"cannot write {len(data)} bytes at {address:#x}")

    @staticmethod
    def _check(result: int, reason: str) -> None:
        if result == -errno.EINTR:
            raise Refused(errno.EINTR, "interrupted")
        if result == -errno.EPERM:
            reason = "the kernel forbids reading the program's memory: see `cuse-netmap doctor`"
        elif result == -errno.ESRCH:
            reason = "the program is in a PID namespace that the daemon does not see"
        if result < 0:
            raise Refused(errno.EFAULT, reason)

    @property
    def abandoned(self) -> bool:
        """Whether the caller was interrupted and has got EINTR."""
        return bool(lib.nm_inbox_abandoned(self.inbox, self.pointer))

    def commit(self) -> bool:
        """The caller waits for the answer, which must follow at once; False if it is abandoned."""
        return bool(lib.nm_inbox_commit(self.inbox, self.pointer))

    def sync(self) -> int:
        """A sync or poll whose slots point into the program's memory, or which fails: the answer, poll's events or 0.

        Refused ENXIO when not registered, EBUSY in CSB mode, EIO when the port is gone.
        """
        result = int(lib.nm_request_sync(self.inbox, self.pointer))
        reasons = {
            -errno.ENXIO: "the descriptor is not registered on a port",
            -errno.EBUSY: "the indices of the rings are in the program's memory (CSB), for a sync loop alone",
        }
        return Why().check(result, reasons.get(result, "the port has disappeared"))

    def enable_csb(self, atok: int, ktoa: int) -> None:
        """From now on the indices of the bound rings are at these addresses, which are filled. May wait for memory."""
        result = lib.nm_csb_enable(self.inbox, self.pointer, atok, ktoa)
        self._check(result, f"the CSB at {atok:#x} and {ktoa:#x} cannot be read and written")

    def start_loop(self, sleep_us: int, mode: int, eventfds: Sequence[int]) -> None:
        """Starts the file's sync loop (kloop.h), which will answer the request; nothing of it may be used any more.

        `eventfds` are the program's, two for each bound ring, or none. Refused as nm_kloop_start says.
        """
        config, why = ffi.new("struct nm_kloop_config *"), Why()
        numbers = ffi.new("int32_t[]", list(eventfds))
        config.sleep_us, config.mode, config.eventfds = sleep_us, mode, numbers if eventfds else ffi.NULL
        why.check(lib.nm_kloop_start(self.inbox, self.pointer, config, why.pointer))

    def stop_loop(self) -> bool:
        """Ends the file's sync loop, or the next one as it begins: True if that will answer the request once over."""
        return bool(lib.nm_kloop_stop(self.inbox, self.pointer))

    def reply(self, result: int) -> None:
        """Answers with 0, poll's events or a negative errno, and ends the request."""
        lib.nm_inbox_reply(self.inbox, self.pointer, result)


@dataclass(frozen=True)
class TurnedAway:
    """An ioctl that was refused with EBUSY before control saw it: its thread and program, the ioctl and the reason."""

    pid: int
    program: str
    command: int
    reason: str


class Inbox:
    """Where control takes its work from, whatever door it came by (inbox.h)."""

    def __init__(self) -> None:
        out = ffi.new("struct nm_inbox **")
        Why().check(lib.nm_inbox_create(out), "starting the inbox")
        self.pointer = out[0]

    def next(self) -> Request | TurnedAway | None:
        """The next request, or news of one that did not get in, waiting for it; None once the inbox is shut."""
        out, away = ffi.new("struct nm_request **"), ffi.new("struct nm_turned_away *")
        result = lib.nm_inbox_next(self.pointer, out, away)
        if result < 0:
            return None
        if result:
            return Request(self.pointer, out[0])
        return TurnedAway(away.pid, text(away.program), away.command, text(away.reason))

    def next_release(self) -> OpenFile | None:
        """The next released file, waiting for it; None once the inbox is shut."""
        out = ffi.new("struct nm_open **")
        return OpenFile(out[0]) if lib.nm_inbox_next_release(self.pointer, out) > 0 else None

    @property
    def releases_queued(self) -> int:
        return int(lib.nm_inbox_releases_queued(self.pointer))

    def shut(self) -> None:
        """`next` and `next_release` return."""
        lib.nm_inbox_shut(self.pointer)

    def destroy(self) -> None:
        """Only when no thread is inside any more."""
        lib.nm_inbox_destroy(self.pointer)


def loops_ended(seconds: float) -> bool:
    """Waits until no sync loop is left, for so long at most; False if there still is one."""
    return bool(lib.nm_kloops_ended(int(seconds * 1000)))
