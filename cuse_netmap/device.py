# SPDX-License-Identifier: BSD-2-Clause
"""The device node: what stands at /dev/NAME before us, the file our mount covers, and the proof that it works.

We never touch a path on which our own mount lies: whoever serves a file must not wait on it.
"""

import errno
import fcntl
import grp
import logging
import os
import re
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from enum import Enum
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TextIO

from cuse_netmap._core import Door, Inbox, Region, cuse_door, fuse_door
from cuse_netmap.config import Device
from cuse_netmap.errors import Refused, SetupError, remedy
from cuse_netmap.helper import HelperServer, clear_stale_sockets
from cuse_netmap.namespace import bind, mounted_at, unmount
from cuse_netmap.processes import SELF_TEST

log = logging.getLogger(__name__)

URING_SWITCH = Path("/sys/module/fuse/parameters/enable_uring")
LOCK_SECONDS = 5
LOOK_SECONDS = 3
TEST_SECONDS = 20


def program(name: str) -> str:
    """The path of one of the C programs that come with the package."""
    return str(files("cuse_netmap") / "bin" / name)


class Behind(Enum):
    """What is behind a mount."""

    ALIVE = "a daemon"
    SILENT = "a daemon that does not answer"
    DEAD = "a daemon that has ended without tidying up"
    OTHER = "something else than a daemon of ours"


def behind(path: Path) -> Behind | None:
    """Who serves there; None: nothing is mounted there."""
    kind = mounted_at(path)
    if kind != "fuse":
        return Behind.OTHER if kind else None
    # In a process of its own: if the other daemon hangs, so does this stat, and a kill may not end it. Of the file
    # system (-f): what the kernel remembers of a file may outlive the daemon by a second.
    probe = subprocess.Popen(
        ["stat", "-f", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={"LC_ALL": "C"}
    )
    try:
        _, said = probe.communicate(timeout=LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        probe.kill()
        return Behind.SILENT
    return Behind.DEAD if os.strerror(errno.ENOTCONN) in said else Behind.ALIVE


def clear_stale_mounts(path: Path) -> None:
    """Removes mounts of daemons that died. SetupError: a living one serves there."""
    while who := behind(path):
        if who is Behind.OTHER:
            raise SetupError(f"something else is mounted over {path}: umount {path}, or use --device NAME")
        if who is Behind.SILENT:
            raise SetupError(f"{path} is served by {who.value}: stop that one first")
        if who is Behind.ALIVE:
            raise _taken(path)
        log.warning("removing the stale mount of a dead daemon at %s", path)
        unmount(path)


def _taken(path: Path) -> SetupError:
    return SetupError(f"{path} is served by another daemon already: stop that one, or use --device NAME")


def clean_up(path: Path) -> None:
    """Removes what daemons that died left: at `path` mounts and the file under them, and the helper's sockets of all.

    SetupError: one is alive at `path`.
    """
    clear_stale_mounts(path)
    try:
        clear_stale_sockets()
    except OSError as error:
        raise SetupError(f"{error.filename}: {error.strerror}{remedy(error)}") from error
    with suppress(FileNotFoundError):
        if path.is_file() and path.stat().st_size == 0:
            with placeholder(path):
                pass


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
            raise SetupError(f"{path}: {error.strerror}{remedy(error)}") from error
        fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.lstat()):
                break
        os.close(fd)  # the last user removed it between our two looks
    try:
        must_be_ours(path, os.fstat(fd))
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
            _remove(path)
        os.close(fd)


def must_be_ours(path: Path, found: os.stat_result) -> None:
    """SetupError unless it is an empty file, as ours are; a mount over it was not there when `behind` looked."""
    if found.st_dev != path.parent.stat().st_dev:
        raise _taken(path)
    if not stat.S_ISREG(found.st_mode):
        raise SetupError(f"{path} exists and is no plain file: remove it, or use --device NAME")
    if found.st_size:
        raise SetupError(
            f"{path} is a file of {found.st_size} bytes that is not ours: move it away, or use --device NAME"
        )


def in_use(placeholder: Path) -> bool:
    """Whether a daemon has its mount over the file, here or in another mount namespace. OSError."""
    with placeholder.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        log.warning("something is mounted over %s: it stays, and ours under it, dead, until the next start", path)


def check_path(path: Path) -> None:
    """SetupError unless we may serve there, for everybody."""
    clean_up(path)
    found = None
    with suppress(FileNotFoundError):
        found = path.lstat()  # first: a device's node comes after its entry in /sys
    if Path("/sys/class/cuse", path.name).exists():
        raise _taken(path)
    if Path("/sys/class/misc", path.name).exists():
        raise SetupError(f"the netmap kernel module owns {path}: rmmod netmap, or use --device NAME")
    if found:
        must_be_ours(path, found)


@contextmanager
def mount_point(path: Path) -> Iterator[None]:
    """Something at `path` for a mount to cover: the device that stands there already, or a file that we make."""
    if path.exists() and not path.is_file():
        yield
    else:
        with placeholder(path):
            yield


@cache  # so that the log says it once
def group_id(name: str) -> int:
    """The group's number; root's if there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        log.info("there is no group %s: the device belongs to root alone (groupadd --system %s)", name, name)
        return 0


@contextmanager
def uring_enabled() -> Iterator[None]:
    """The kernel offers FUSE over io_uring to mounts made inside; afterwards the switch is as it was.

    A connection that has it keeps it. The lock is for daemons that start at the same time. Refused: it stays off.
    """
    if not URING_SWITCH.exists():
        raise Refused(errno.EOPNOTSUPP, "this kernel's FUSE knows no io_uring: Linux 6.14 or later does")
    with URING_SWITCH.open() as switch:
        _lock_switch(switch)
        before = switch.read().strip()
        try:
            if before != "Y":
                URING_SWITCH.write_text("Y")
        except OSError as error:
            raise Refused(error.errno or 0, f"{URING_SWITCH}: {error.strerror}") from error
        try:
            yield
        finally:
            if before != "Y":
                URING_SWITCH.write_text(before)


def _lock_switch(switch: TextIO) -> None:
    """Refused if somebody, and anybody may, holds the lock for longer than a start takes."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            fcntl.flock(switch, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                reason = f"somebody has held the lock of {URING_SWITCH} for {LOCK_SECONDS} s (fuser -v {URING_SWITCH})"
                raise Refused(errno.EAGAIN, reason) from error
            time.sleep(0.05)
        else:
            return


@dataclass(frozen=True)
class Doors:
    """What was opened, and how programs map the memory: "passthrough" or "helper", through whose socket."""

    opened: tuple[Door, ...]
    node: str  # of the CUSE device, or "": its name in /dev
    transport: str
    mmap: str
    helper: HelperServer | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which doors are open: "cuse", "fuse" or both."""
        return (*(["cuse"] if self.node else []), *(["fuse"] if self.mmap == "passthrough" else []))

    @property
    def description(self) -> str:
        carried = "FUSE over io_uring" if self.transport == "uring" else "read/write"
        mapped = "FUSE passthrough"
        if self.mmap == "helper":
            carried += " (CUSE has nothing else)"
            mapped = "the helper (cuse-netmap run PROGRAM; for all programs: cuse-netmap preload --enable)"
        return f"{' and '.join(self.kinds)} door, {carried}, mmap by {mapped}"


def open_doors(stack: ExitStack, path: Path, settings: Device, region: Region, inbox: Inbox, *, private: bool) -> Doors:
    """Serves the device at `path`; what `stack` gets takes it away again. SetupError says what this kernel lacks.

    Where the kernel has both doors the character device comes first, and the FUSE file is mounted over its node:
    udev and systemd see a device, whoever opens it can mmap. A private one (`run`) takes the FUSE door alone if it can.
    """
    gid = group_id(settings.group)
    if private and settings.door == "auto":
        try:
            return _fuse_alone(stack, path, settings, gid, region, inbox)
        except SetupError as error:
            log.info("%s", error)
    if settings.door == "fuse" or not _have_cuse(settings.door):
        return _fuse_alone(stack, path, settings, gid, region, inbox)
    if not private and path.is_file():
        # A `run` holds it as its mount point, and where a file is no node can be made.
        if settings.door == "cuse":
            raise SetupError(f"{path} is in use by `cuse-netmap run`: end that first, or use --device NAME")
        log.info("no CUSE door: %s is in use by `cuse-netmap run`", path)
        return _fuse_alone(stack, path, settings, gid, region, inbox)

    name = f"{path.name[:20]}-{os.getpid()}" if private else path.name
    try:
        cuse = cuse_door(region, inbox, name)
    except Refused as refusal:
        if refusal.errno == errno.EEXIST and Path("/sys/class/cuse", name).exists():
            raise _taken(path) from refusal  # by one that started when we did
        if settings.door == "cuse" or refusal.errno == errno.EEXIST:
            raise SetupError(f"the CUSE door: {refusal.reason}{remedy(refusal)}") from refusal
        log.info("no CUSE door: %s", refusal.reason)
        return _fuse_alone(stack, path, settings, gid, region, inbox)
    stack.callback(cuse.stop)
    _hand_over(Path("/dev", name), settings.mode, gid)
    helper = HelperServer(name, region, Path("/dev", name))
    stack.callback(helper.close)
    if private:
        stack.enter_context(mount_point(path))
        bind(Path("/dev", name), path)
        stack.callback(unmount, path)
        Path("/dev", name).unlink()  # what is laid over `path` stays; nobody else finds it
    if settings.door == "auto":
        try:
            fuse = _fuse(path, settings, gid, region, inbox)
        except SetupError as error:
            log.info("programs need the helper to map %s: %s", path, error)
        else:
            stack.callback(fuse.stop)
            return Doors((cuse, fuse), name, fuse.transport, "passthrough", helper)
    return Doors((cuse,), name, cuse.transport, "helper", helper)


def _have_cuse(door: str) -> bool:
    """Whether there is /dev/cuse, loading its module if need be. SetupError if that is the only door wanted."""
    node = Path("/dev/cuse")
    if not node.exists():
        with suppress(OSError):
            subprocess.run(["modprobe", "-q", "cuse"], check=False)
    if not node.exists() and door == "auto":
        log.info("no CUSE door: there is no /dev/cuse")
    if not node.exists() and door == "cuse":
        raise SetupError(
            "there is no /dev/cuse: modprobe cuse, or a kernel with CONFIG_CUSE (Debian's and Ubuntu's have it)"
        )
    return node.exists()


def _hand_over(node: Path, mode: int, gid: int) -> None:
    """Mode and group of a CUSE device's node, once udev has done what it does. SetupError."""
    try:
        if Path("/run/udev/control").exists():
            subprocess.run(["udevadm", "settle", "--timeout=5"], check=False)
        os.chown(node, 0, gid)
        node.chmod(mode)
    except OSError as error:
        raise SetupError(f"{node}: {error.strerror}{remedy(error)}") from error


def _fuse_alone(stack: ExitStack, path: Path, settings: Device, gid: int, region: Region, inbox: Inbox) -> Doors:
    stack.enter_context(mount_point(path))
    door = _fuse(path, settings, gid, region, inbox)
    stack.callback(door.stop)
    return Doors((door,), "", door.transport, "passthrough")


def _fuse(path: Path, settings: Device, gid: int, region: Region, inbox: Inbox) -> Door:
    def attempt(transport: str) -> Door:
        with uring_enabled() if transport == "uring" else nullcontext():
            return fuse_door(region, inbox, str(path), mode=settings.mode, gid=gid, transport=transport)

    no_uring = ""
    try:
        if settings.transport != "classic":
            try:
                return attempt("uring")
            except Refused as refusal:
                if settings.transport == "uring":
                    raise
                no_uring = refusal.reason
        door = attempt("classic")
    except Refused as refusal:
        raise SetupError(f"the FUSE door: {refusal.reason}{_remedy(refusal)}") from refusal
    if no_uring:
        log.info("read/write instead of io_uring: %s", no_uring)
    return door


def helper_library() -> str:
    """The path of the preloaded helper. SetupError: it is one that cannot be preloaded."""
    path = program("libnetmap-helper.so")
    if re.search(r"[\s:]", path):
        # Where lists of libraries to preload are split; there is no way to quote.
        raise SetupError(f"{path}: the loader takes no library with a space or colon in its path: move it elsewhere")
    return path


def helper_environment() -> dict[str, str]:
    """The environment of a program that maps through the helper. SetupError as `helper_library`."""
    others = os.environ.get("LD_PRELOAD", "")  # some have to be the first
    return {**os.environ, "LD_PRELOAD": f"{others} {helper_library()}".strip()}


def prove(path: Path, mmap: str) -> None:
    """Uses the device as a program does. SetupError says which step failed."""
    command = [program(SELF_TEST), str(path)]
    preload = helper_environment()["LD_PRELOAD"] if mmap == "helper" else ""
    if preload and "NOTIFY_SOCKET" in os.environ and Path("/run/systemd/system").exists():
        # A service's own processes may open only the devices that its unit names, and this one is new.
        command = [
            "systemd-run",
            "--quiet",
            "--wait",
            "--pipe",
            "--collect",
            f"--setenv=LD_PRELOAD={preload}",
            *command,
        ]
    try:
        test = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=TEST_SECONDS,
            check=False,
            env={**os.environ, "LD_PRELOAD": preload},
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"the self-test of {path} hangs") from error
    except OSError as error:
        raise SetupError(f"the self-test does not start: {error}: run `make build`") from error
    if test.returncode:
        said = (test.stdout or test.stderr).strip()
        raise SetupError(f"the self-test of {path} failed: {said or test.returncode}")


def _remedy(error: OSError) -> str:
    return ": modprobe fuse" if error.errno in (errno.ENOENT, errno.ENODEV) else remedy(error)
