# SPDX-License-Identifier: BSD-2-Clause
"""The device node: what stands at /dev/NAME before us, the file our mount covers, and the proof that it works.

We never touch a path on which our own mount lies: whoever serves a file must not wait on it.
"""

import errno
import fcntl
import grp
import logging
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path

from cuse_netmap._core import Door, Inbox, Region
from cuse_netmap.config import Device
from cuse_netmap.errors import Refused, SetupError, remedy
from cuse_netmap.namespace import mounted_at, unmount

log = logging.getLogger(__name__)

URING_SWITCH = Path("/sys/module/fuse/parameters/enable_uring")
PROBE_SECONDS = 3


def program(name: str) -> str:
    """The path of one of the C programs that come with the package."""
    return str(files("cuse_netmap") / "bin" / name)


def clear_stale_mounts(path: Path) -> None:
    """Removes mounts of daemons that died. SetupError: a living one serves there."""
    while mounted_at(path):
        # In a process of its own: if the other daemon hangs, so does this stat, and a kill may not end it.
        probe = subprocess.Popen(
            ["stat", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={"LC_ALL": "C"}
        )
        try:
            _, said = probe.communicate(timeout=PROBE_SECONDS)
        except subprocess.TimeoutExpired as error:
            probe.kill()
            raise SetupError(f"{path} is served by a daemon that does not answer: stop that one first") from error
        if os.strerror(errno.ENOTCONN) not in said:
            raise _taken(path)
        log.warning("removing the stale mount of a dead daemon at %s", path)
        unmount(path)


def _taken(path: Path) -> SetupError:
    return SetupError(f"{path} is served by another daemon already: stop that one, or use --device NAME")


@contextmanager
def placeholder(path: Path) -> Iterator[None]:
    """A regular file at `path` for mounts to cover. Whoever leaves last, in any mount namespace, removes it.

    Removing it while others have it mounted would take their mounts away; the lock on the file counts its users. The
    lock on one byte of it, numbered as the mount namespace, is for the one daemon that may serve there. SetupError.
    """
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror}{_remedy(error)}") from error
        fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.lstat()):
                break
        os.close(fd)  # the last user removed it between our two looks
    try:
        if os.fstat(fd).st_dev != path.parent.stat().st_dev:
            raise _taken(path)  # what we opened is its mount, which was not there when we looked
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, Path("/proc/self/ns/mnt").stat().st_ino)
    except OSError as error:
        os.close(fd)
        raise _taken(path) from error
    except SetupError:
        os.close(fd)
        raise
    try:
        yield
    finally:
        with suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink(missing_ok=True)
        os.close(fd)


def check_path(path: Path) -> None:
    """SetupError unless we may serve there."""
    clear_stale_mounts(path)
    if Path("/sys/class/misc", path.name).exists():
        raise SetupError(f"the netmap kernel module owns {path}: rmmod netmap, or use --device NAME")
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise SetupError(f"{path} exists and is no plain file: remove it, or use --device NAME")


def group_id(name: str) -> int:
    """The group's number; root's if there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        log.info("there is no group %s: the device belongs to root alone (groupadd --system %s)", name, name)
        return 0


@contextmanager
def uring_enabled(transport: str) -> Iterator[None]:
    """The kernel offers FUSE over io_uring to mounts made inside; afterwards the switch is as it was.

    A connection that has it keeps it. The lock is for daemons that start at the same time.
    """
    if transport == "classic" or not URING_SWITCH.exists():
        yield
        return
    with URING_SWITCH.open() as switch:
        fcntl.flock(switch, fcntl.LOCK_EX)
        before = switch.read().strip()
        if before == "Y":
            yield
            return
        try:
            URING_SWITCH.write_text("Y")
        except OSError as error:
            log.warning("FUSE over io_uring stays off: %s: %s", URING_SWITCH, error.strerror)
            yield
            return
        try:
            yield
        finally:
            URING_SWITCH.write_text(before)


def open_door(path: Path, settings: Device, region: Region, inbox: Inbox) -> Door:
    """Serves the device at `path`, which placeholder() has made. SetupError says what this kernel lacks."""
    if settings.door == "cuse":
        raise SetupError("the CUSE door is not there yet: use --door fuse")
    try:
        with uring_enabled(settings.transport):
            gid = group_id(settings.group)
            return Door(region, inbox, str(path), mode=settings.mode, gid=gid, transport=settings.transport)
    except Refused as refusal:
        raise SetupError(f"the FUSE door: {refusal.reason}{_remedy(refusal)}") from refusal


def prove(path: Path) -> None:
    """Uses the device as a program does. SetupError says which step failed."""
    try:
        test = subprocess.run(
            [program("netmap-selftest"), path], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"the self-test of {path} hangs") from error
    except OSError as error:
        raise SetupError(f"the self-test does not start: {error}: run `make build`") from error
    if test.returncode:
        raise SetupError(f"the self-test of {path} failed: {test.stdout.strip() or test.returncode}")


def _remedy(error: OSError) -> str:
    return ": modprobe fuse" if error.errno in (errno.ENOENT, errno.ENODEV) else remedy(error)
