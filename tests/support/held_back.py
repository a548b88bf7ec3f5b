# SPDX-License-Identifier: BSD-2-Clause
"""A page of memory that userfaultfd holds back: whoever reads it sleeps until the test supplies it."""

import ctypes
import fcntl
import mmap
import os
import select
import struct
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.support.ioctls import LIBC

SYS_USERFAULTFD = 323
UFFD_API, UFFDIO_API, UFFDIO_REGISTER, UFFDIO_COPY = 0xAA, 0xC018AA3F, 0xC020AA00, 0xC028AA03
MISSING = 1
PAGE = mmap.PAGESIZE


class HeldBack:
    """One page; at the end of the `with` block whoever still waits finds zeroes."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.fd = LIBC.syscall(SYS_USERFAULTFD, os.O_CLOEXEC | os.O_NONBLOCK)
        assert self.fd >= 0, os.strerror(ctypes.get_errno())
        fcntl.ioctl(self.fd, UFFDIO_API, bytearray(struct.pack("<QQQ", UFFD_API, 0, 0)))
        fcntl.ioctl(self.fd, UFFDIO_REGISTER, bytearray(struct.pack("<QQQQ", self.address, PAGE, MISSING, 0)))

    def wait_for_reader(self) -> None:
        assert select.select([self.fd], [], [], 5)[0], "nobody reads the page"
        os.read(self.fd, 32)

    def supply(self, data: bytes) -> None:
        page = ctypes.create_string_buffer(data, PAGE)
        copy = struct.pack("<QQQQq", self.address, ctypes.addressof(page), PAGE, 0, 0)
        with suppress(FileExistsError):  # it is supplied already
            fcntl.ioctl(self.fd, UFFDIO_COPY, bytearray(copy))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        os.close(self.fd)
