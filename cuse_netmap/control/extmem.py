# SPDX-License-Identifier: BSD-2-Clause
"""Where the memory is that a program brings by the option EXTMEM, and how it gets here (ABI.md 13.1).

Memory that others can share belongs to some file, if only to one without a name; it is found in the program's maps,
opened through /proc/PID/map_files and mapped here. Memory that is the program's alone belongs to none: EOPNOTSUPP.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from cuse_netmap._core import Extmem, Pools
from cuse_netmap.control.requests import PoolsInfo
from cuse_netmap.errors import Refused

PAGE = os.sysconf("SC_PAGESIZE")
MOST_PIECES = 64  # each is a map of ours, of which there may be so many
# What a field of nro_info means that is 0.
DEFAULTS = {"if_total": 2, "if_size": 1024, "ring_total": 4, "ring_size": 20480, "buf_total": 4098, "buf_size": 2048}
# Files in which we may wait for nobody but the kernel: a page of FUSE or NFS comes when somebody else wants it to.
FILE_SYSTEMS = {"tmpfs", "devtmpfs", "ramfs", "hugetlbfs", "ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs"}


@dataclass(frozen=True)
class Mapping:
    """A line of /proc/PID/maps."""

    start: int
    end: int
    permissions: str
    offset: int
    device: tuple[int, int]
    inode: int


@dataclass(frozen=True)
class Piece:
    """A part of a file, as it is mapped: which file, from where, how much; bytes."""

    device: tuple[int, int]
    inode: int
    offset: int
    length: int


def mappings(pid: int | str) -> Iterator[Mapping]:
    """In the order of their addresses. Refused EFAULT: there is no such process."""
    try:
        with Path(f"/proc/{pid}/maps").open(errors="surrogateescape") as lines:
            for line in lines:
                span, permissions, offset, device, inode, *_ = line.split(maxsplit=5)
                start, end = (int(part, 16) for part in span.split("-"))
                major, minor = (int(part, 16) for part in device.split(":"))
                yield Mapping(start, end, permissions, int(offset, 16), (major, minor), int(inode))
    except OSError as error:
        raise Refused(errno.EFAULT, f"the program's maps: {error.strerror}") from error


def covering(maps: Iterator[Mapping], start: int, end: int) -> list[Mapping]:
    """Those that hold [start, end). Refused EFAULT: part of it is not mapped, or only to be read."""
    found: list[Mapping] = []
    at = start
    for mapping in maps:
        if mapping.end <= at:
            continue
        if at >= end or mapping.start > at:
            break
        found.append(mapping)
        at = mapping.end
    if at < end:
        raise Refused(errno.EFAULT, f"the program's memory ends at {at:#x}, {end - at} bytes short")
    if any("rw" not in mapping.permissions for mapping in found):
        raise Refused(errno.EFAULT, "the program's memory is not readable and writable")
    return found


def cut(maps: Sequence[Mapping], start: int, end: int) -> list[Piece]:
    """The parts of files that lie in [start, end), side by side."""
    return [
        Piece(m.device, m.inode, m.offset + max(m.start, start) - m.start, min(m.end, end) - max(m.start, start))
        for m in maps
    ]


@cache
def nameless() -> frozenset[tuple[int, int]]:
    """The devices of the kernel's own file systems, for memory without a file name."""
    found = set()
    for flags in (0, os.MFD_HUGETLB, os.MFD_HUGETLB | os.MFD_HUGE_2MB, os.MFD_HUGETLB | os.MFD_HUGE_1GB):
        with suppress(OSError):
            fd = os.memfd_create("netmap", flags | os.MFD_CLOEXEC)
            device = os.fstat(fd).st_dev
            os.close(fd)
            found.add((os.major(device), os.minor(device)))
    return frozenset(found)


def file_systems(pid: int) -> dict[tuple[int, int], str]:
    """The kind of each device's file system, of those that the program can see."""
    found = {}
    with Path(f"/proc/{pid}/mountinfo").open(errors="surrogateescape") as lines:
        for line in lines:
            before, _, after = line.partition(" - ")
            major, minor = before.split()[2].split(":")
            found[int(major), int(minor)] = after.split()[0]
    return found


def check_files(pid: int, maps: Sequence[Mapping]) -> None:
    """Refused EOPNOTSUPP: memory that nobody can share, or that we might have to wait for."""
    if any("s" not in mapping.permissions for mapping in maps):
        reason = "the memory is private to the program; the daemon can share only what is mapped with MAP_SHARED"
        raise Refused(errno.EOPNOTSUPP, reason)
    if len(maps) > MOST_PIECES:
        raise Refused(errno.EOPNOTSUPP, f"the memory is in {len(maps)} pieces, {MOST_PIECES} are the most")
    others = {mapping.device for mapping in maps} - nameless()
    try:
        known = file_systems(pid) if others else {}
    except OSError as error:
        raise Refused(errno.EFAULT, f"the program's mounts: {error.strerror}") from error
    for device in others:
        kind = known.get(device, "unknown")
        if kind not in FILE_SYSTEMS:
            raise Refused(errno.EOPNOTSUPP, f"the memory is a file on a file system of the kind {kind!r}")


def open_file(pid: int, mapping: Mapping) -> int:
    """The file behind a map. Refused EFAULT: it has changed; EOPNOTSUPP: we cannot."""
    try:
        path = f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise Refused(errno.EFAULT, "the program's memory changes") from error
    except OSError as error:
        hint = " (it takes CAP_CHECKPOINT_RESTORE)" if error.errno in (errno.EPERM, errno.EACCES) else ""
        reason = f"opening the file behind the memory: {error.strerror}{hint}"
        raise Refused(errno.EOPNOTSUPP, reason) from error


def find(pid: int, address: int, size: int) -> tuple[list[Mapping], list[Piece]]:
    """What the program has there, up to the end of the last page. Refused EINVAL, EFAULT, EOPNOTSUPP."""
    if address % PAGE:
        raise Refused(errno.EINVAL, f"the memory's address {address:#x} is not that of a page")
    end = address + size
    end += -end % PAGE
    maps = covering(mappings(pid), address, end)
    check_files(pid, maps)
    return maps, cut(maps, address, end)


def map_here(pid: int, maps: Sequence[Mapping], pieces: Sequence[Piece]) -> Extmem:
    """The pieces side by side in our own memory. Refused EFAULT: they are not what the program has there (any more)."""
    with ExitStack() as stack:
        fds = []
        for mapping in maps:
            fds.append(open_file(pid, mapping))
            stack.callback(os.close, fds[-1])
        memory = Extmem([(fd, piece.offset, piece.length) for fd, piece in zip(fds, pieces, strict=True)])
    # What a program mapped for writing it may write; what we have opened need not be the same: it could have mapped
    # another file there meanwhile. Now that we have both maps, they are compared.
    try:
        at = memory.address
        for piece in pieces:
            ours = cut(covering(mappings("self"), at, at + piece.length), at, at + piece.length)
            if ours != [piece]:
                raise Refused(errno.EFAULT, "the program's memory changes")
            at += piece.length
    except Refused:
        memory.close()
        raise
    return memory


def fill_in(info: PoolsInfo) -> None:
    """What is left to us."""
    for field, default in DEFAULTS.items():
        setattr(info, field, getattr(info, field) or default)


def pools_of(info: PoolsInfo) -> Pools:
    """As Region takes them."""
    return {
        "if": (info.if_size, info.if_total),
        "ring": (info.ring_size, info.ring_total),
        "buf": (info.buf_size, info.buf_total),
    }
