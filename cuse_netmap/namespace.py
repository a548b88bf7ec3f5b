# SPDX-License-Identifier: BSD-2-Clause
"""Mounts and namespaces: what Python 3.11 has no calls for."""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cuse_netmap.errors import Refused, SetupError, remedy

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
MS_BIND = 0x1000
MS_REC = 0x4000
MS_SLAVE = 0x80000
MNT_FORCE = 1
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)


def _failed(doing: str) -> SetupError:
    error = OSError(ctypes.get_errno(), "")
    return SetupError(f"{doing}: {os.strerror(error.errno or 0)}{remedy(error)}")


def unshare_mounts() -> None:
    """From now on this process and its children see mounts made outside, but keep theirs to themselves."""
    if _libc.unshare(CLONE_NEWNS) or _libc.mount(None, b"/", None, MS_REC | MS_SLAVE, None):
        number = ctypes.get_errno()
        remedy = "run it as root" if number == errno.EPERM else "does this kernel have mount namespaces?"
        raise SetupError(f"a private mount namespace: {os.strerror(number)}: {remedy}")


def mounted_at(path: Path) -> str:
    """The type of the mount that is seen right there, "" for none. Asks the kernel's table, not the mount."""
    mount = _mount_of(path, os.O_NOFOLLOW)
    if mount not in ("", _mount_of(path.parent)):
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if line.split()[0] == mount:
                return line.split(" - ")[1].split()[0]
    return ""


def _mount_of(path: Path, flags: int = 0) -> str:
    """The number of the mount that it is in; "" if there is nothing that we can see."""
    try:
        fd = os.open(path, os.O_PATH | flags)  # no filesystem is asked to open it
    except OSError:
        return ""
    try:
        fields = dict(line.split(":\t", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
        return fields["mnt_id"]
    finally:
        os.close(fd)


def bind(source: Path, target: Path) -> None:
    """Lays one file over another. SetupError."""
    if _libc.mount(os.fsencode(source), os.fsencode(target), None, MS_BIND, None):
        raise _failed(f"laying {source} over {target}")


def unmount(path: Path, *, abort: bool = False) -> None:
    """Takes a mount off a path without asking whoever serves it; abort ends what programs do in it. SetupError.

    Somebody else may be faster.
    """
    if _libc.umount2(os.fsencode(path), MNT_DETACH | UMOUNT_NOFOLLOW | (MNT_FORCE if abort else 0)):
        failure = _failed(f"unmounting {path}")
        if mounted_at(path):
            raise failure


@contextmanager
def network_namespace(fd: int) -> Iterator[None]:
    """Inside, the sockets and devices that this thread makes are of the network namespace behind the descriptor.

    Refused with the errno of setns(2); EPERM: CAP_SYS_ADMIN is missing, here or in the namespace's owner.
    """
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if os.path.samestat(os.fstat(own), os.fstat(fd)):
            yield
            return
        if _libc.setns(fd, CLONE_NEWNET):
            number = ctypes.get_errno()
            raise Refused(number, f"entering a network namespace: {os.strerror(number)}")
        try:
            yield
        finally:
            if _libc.setns(own, CLONE_NEWNET):  # nothing that this thread does next would be where it belongs
                raise OSError(ctypes.get_errno(), "leaving a network namespace")
    finally:
        os.close(own)


def find_network_namespace(inode: int) -> int | None:
    """A descriptor of the namespace that has this inode; None if no process is in it and no mount holds it."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    mounts = [Path(line[4]) for line in lines if line[3] == f"net:[{inode}]"]
    for path in (*Path("/proc").glob("[0-9]*/ns/net"), *mounts):
        with suppress(OSError):  # the process has ended, or the mount point lies under another
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if os.fstat(fd).st_ino == inode:
                return fd
            os.close(fd)
    return None
