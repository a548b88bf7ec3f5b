# SPDX-License-Identifier: BSD-2-Clause
"""CSB and sync-kloop as a test uses them: the arrays, in pages that can go away, and a loop in a thread."""

import ctypes
import os
import struct
import threading
import time
from types import TracebackType
from typing import Self

from cuse_netmap.control.requests import NIOCCTRL, Option, OptionType, RequestType
from tests.support.ioctls import LIBC, Block, header, ioctl, option
from tests.support.patience import at_most

PAGE = 4096
ENTRY = 64
ATOK = ("head", "cur", "appl_need_kick", "sync_flags")
KTOA = ("hwcur", "hwtail", "kern_need_kick")
PROT_READ, PROT_WRITE = 1, 2
MAP_PRIVATE, MAP_ANONYMOUS = 0x2, 0x20
SECONDS = at_most(5.0)

LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class Pages:
    """Zeroed anonymous memory of whole pages, and one page behind it that is not there."""

    def __init__(self, pages: int = 1) -> None:
        self.size = pages * PAGE
        flags = MAP_PRIVATE | MAP_ANONYMOUS
        address = LIBC.mmap(None, self.size + PAGE, PROT_READ | PROT_WRITE, flags, -1, 0)
        assert address
        assert address != ctypes.c_void_p(-1).value
        self.address = int(address)
        LIBC.munmap(self.address + self.size, PAGE)

    @property
    def end(self) -> int:
        return self.address + self.size

    def protect(self, protection: int) -> None:
        assert LIBC.mprotect(self.address, self.size, protection) == 0

    def unmap(self) -> None:
        """The addresses lead nowhere from now on."""
        assert LIBC.munmap(self.address, self.size) == 0


class Entry:
    """The words of one array entry, read and written as a program does: each at once."""

    def __init__(self, address: int, *names: str) -> None:
        self.words = {name: ctypes.c_uint32.from_address(address + 4 * at) for at, name in enumerate(names)}

    def __getitem__(self, name: str) -> int:
        return self.words[name].value

    def __setitem__(self, name: str, value: int) -> None:
        self.words[name].value = value

    @property
    def all(self) -> dict[str, int]:
        return {name: word.value for name, word in self.words.items()}


class Csb:
    """Both arrays, a page each, for at most 64 rings; `atok[i]` and `ktoa[i]` are the entries of ring i."""

    def __init__(self, rings: int = 2) -> None:
        self.to_kernel, self.to_program = Pages(), Pages()
        self.atok = [Entry(self.to_kernel.address + ENTRY * ring, *ATOK) for ring in range(rings)]
        self.ktoa = [Entry(self.to_program.address + ENTRY * ring, *KTOA) for ring in range(rings)]

    def option(self, following: Block | int = 0) -> Block:
        return csb_option(self.to_kernel.address, self.to_program.address, following)

    def enable(self, fd: int) -> int:
        """CSB_ENABLE: 0 or the errno."""
        return ioctl(fd, NIOCCTRL, header(RequestType.CSB_ENABLE, options=self.option()))

    def move(self, ring: int, head: int) -> None:
        """Cur first, as netmap asks."""
        self.atok[ring]["cur"] = head
        self.atok[ring]["head"] = head


def csb_option(atok: int, ktoa: int, following: Block | int = 0) -> Block:
    return option(OptionType.CSB, following, body=struct.pack("<QQ", atok, ktoa))


def mode_option(mode: int, following: Block | int = 0) -> Block:
    return option(OptionType.SYNC_KLOOP_MODE, following, body=struct.pack("<I4x", mode))


def eventfds_option(pairs: "list[tuple[int, int]]", following: Block | int = 0, *, size: int | None = None) -> Block:
    body = b"".join(struct.pack("<ii", *pair) for pair in pairs)
    size = Option.size() + len(body) if size is None else size
    return option(OptionType.SYNC_KLOOP_EVENTFDS, following, size=size, body=body)


def start(fd: int, sleep_us: int = 100, options: Block | int = 0) -> int:
    """SYNC_KLOOP_START, which returns when the loop has ended: 0 or the errno."""
    return ioctl(fd, NIOCCTRL, header(RequestType.SYNC_KLOOP_START, "", Block(struct.pack("<I4x", sleep_us)), options))


def stop(fd: int) -> int:
    """SYNC_KLOOP_STOP: 0 or the errno."""
    return ioctl(fd, NIOCCTRL, header(RequestType.SYNC_KLOOP_STOP))


class Loop:
    """A loop over the port of a descriptor whose CSB is enabled, from when it runs until the end of the `with` block.

    `result` is what START has returned: 0 or an errno.
    """

    def __init__(self, fd: int, csb: Csb, sleep_us: int = 100, options: Block | int = 0) -> None:
        self.fd = fd
        self.csb = csb
        self.options = options
        self.result: int | None = None
        self.thread = threading.Thread(target=self._run, args=(sleep_us,))

    def _run(self, sleep_us: int) -> None:
        self.result = start(self.fd, sleep_us, self.options)

    def __enter__(self) -> Self:
        told = self.csb.ktoa[0]
        told["kern_need_kick"] = 2  # which no loop leaves
        self.thread.start()
        deadline = time.monotonic() + SECONDS
        while told["kern_need_kick"] == 2:
            assert self.thread.is_alive(), f"START: errno {self.result}"
            assert time.monotonic() < deadline
            time.sleep(0.001)
        return self

    def join(self) -> int:
        """What START returned, once it has."""
        self.thread.join(SECONDS)
        assert self.result is not None, "START does not return"
        return self.result

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if self.thread.is_alive():
            stop(self.fd)
        self.thread.join(SECONDS)


class Kicks:
    """An ioeventfd and an irqfd for each ring, all non-blocking at this end; closed at the end of the `with` block."""

    def __init__(self, rings: int = 2) -> None:
        self.pairs = [(os.eventfd(0, os.EFD_NONBLOCK), os.eventfd(0, os.EFD_NONBLOCK)) for _ in range(rings)]

    def option(self, following: Block | int = 0) -> Block:
        return eventfds_option(self.pairs, following)

    def kick(self, ring: int) -> None:
        os.eventfd_write(self.pairs[ring][0], 1)

    def interrupts(self, ring: int) -> int:
        """How often the ring's irqfd was signalled since this was last asked."""
        try:
            return os.eventfd_read(self.pairs[ring][1])
        except BlockingIOError:
            return 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        for fd in (fd for pair in self.pairs for fd in pair):
            os.close(fd)
        self.pairs = []
