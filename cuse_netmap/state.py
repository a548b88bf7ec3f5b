# SPDX-License-Identifier: BSD-2-Clause
"""A filesystem of values, one a file, mounted with fusepy and served by one thread; what is in it is state_tree.py's.

Everything is looked up and read under control's lock, which is held for one file at a time.
"""

import errno
import fcntl
import importlib
import itertools
import logging
import os
import stat
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, Protocol, TypeVar

from cuse_netmap.device import clear_stale_mounts
from cuse_netmap.errors import SetupError
from cuse_netmap.helper import FOLDER
from cuse_netmap.namespace import mounted_at, unmount

log = logging.getLogger(__name__)

STATE_VARIABLE = "CUSE_NETMAP_STATE"  # tells a program under `run` where its daemon's state is
MOUNT_SECONDS = 5.0
STOP_SECONDS = 2.0
FILE_SIZE = 4096  # of each file, for whoever asks; as in sysfs, what can be read says how long it is

Value = TypeVar("Value")


def state_path(device: str) -> Path:
    """Where the state of the daemon that serves /dev/DEVICE is."""
    return FOLDER / device


def private_path(device: str) -> Path:
    """Where this process, `cuse-netmap run`, has its daemon's state, which its mount namespace alone sees."""
    return FOLDER / f"{device}-{os.getpid()}"


@dataclass(frozen=True)
class File:
    """`read` gives the value, with the lock held; `show` its text, without. `write` may raise an OSError."""

    read: Callable[[], Any]
    write: Callable[[str], None] | None = None
    show: Callable[[Any], str] = str


class Folder(Protocol):
    """Names and what they stand for, asked for anew each time."""

    def names(self) -> Iterable[str]: ...

    def child(self, name: str) -> "File | Folder | None":
        """None: there is nothing of that name."""


class Fixed:
    """A folder whose names are always the same."""

    def __init__(self, children: Mapping[str, File | Folder]) -> None:
        self.children = children

    def names(self) -> Iterable[str]:
        return self.children

    def child(self, name: str) -> File | Folder | None:
        return self.children.get(name)


class Each(Generic[Value]):
    """A folder with an entry for each item of a mapping, whatever characters its keys have."""

    def __init__(self, items: Callable[[], Mapping[str, Value]], entry: Callable[[str, Value], File | Folder]) -> None:
        self.items = items
        self.entry = entry

    def names(self) -> Iterable[str]:
        return map(file_name, self.items())

    def child(self, name: str) -> File | Folder | None:
        key, items = key_of(name), self.items()
        return self.entry(key, items[key]) if key in items and file_name(key) == name else None


def file_name(key: str) -> str:
    """Any string as the name of a file: what a name cannot hold, what is not ASCII, '%' and spaces are %XX."""
    quoted = urllib.parse.quote(os.fsencode(key), safe="!\"#$&'()*+,:;<=>?@[\\]^`{|}")
    return quoted.replace(".", "%2E") if quoted in (".", "..") else quoted or "%"


def key_of(name: str) -> str:
    """What `file_name` has made the name of."""
    return "" if name == "%" else os.fsdecode(urllib.parse.unquote_to_bytes(os.fsencode(name)))


@dataclass
class _Handle:
    """An open file; `text` is what a read from its start has seen, for the reads that go on from there."""

    text: bytes = b""


class _Operations:
    """What fusepy calls, by name: no attribute may be called as an operation that is none (`lock`).

    Every OSError is the caller's answer.
    """

    use_ns = True

    def __init__(self, root: Folder, control_lock: threading.RLock, gid: int, ready: threading.Event) -> None:
        self.root = root
        self.control_lock = control_lock
        self.gid = gid
        self.ready = ready
        self.made = time.time_ns()
        self.handles: dict[int, _Handle] = {}
        self.numbers = itertools.count(1)

    def __call__(self, operation: str, *arguments: object) -> object:
        return getattr(self, operation)(*arguments)

    def init(self, _path: str) -> None:
        self.ready.set()

    def destroy(self, _path: str) -> None:
        pass

    def _find(self, path: str) -> File | Folder:
        """With the lock held."""
        node: File | Folder | None = self.root
        for name in filter(None, path.split("/")):
            node = None if isinstance(node, File | None) else node.child(name)
        if node is None:
            raise OSError(errno.ENOENT, path)
        return node

    def _file(self, path: str) -> File:
        node = self._find(path)
        if not isinstance(node, File):
            raise OSError(errno.EISDIR, path)
        return node

    def getattr(self, path: str, _handle: int | None = None) -> dict[str, int]:
        with self.control_lock:
            node = self._find(path)
        if isinstance(node, File):
            mode, size = stat.S_IFREG | (0o640 if node.write else 0o440), FILE_SIZE
        else:
            mode, size = stat.S_IFDIR | 0o750, 0
        times = {f"st_{which}time": self.made for which in "amc"}
        return {"st_mode": mode, "st_nlink": 1, "st_size": size, "st_uid": 0, "st_gid": self.gid, **times}

    def readdir(self, path: str, _handle: int) -> list[str]:
        with self.control_lock:
            node = self._find(path)
            if isinstance(node, File):
                raise OSError(errno.ENOTDIR, path)
            return [".", "..", *node.names()]

    def open(self, path: str, flags: int) -> int:
        with self.control_lock:
            file = self._file(path)
        # root may do what modes forbid, but there is nothing that would take it.
        if file.write is None and flags & os.O_ACCMODE != os.O_RDONLY:
            raise OSError(errno.EACCES, path)
        number = next(self.numbers)
        self.handles[number] = _Handle()
        return number

    def release(self, _path: str, handle: int) -> None:
        self.handles.pop(handle, None)

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        opened = self.handles[handle]
        if offset == 0:
            with self.control_lock:
                file = self._file(path)
                value = file.read()
            opened.text = f"{file.show(value)}\n".encode(errors="backslashreplace")
        return opened.text[offset : offset + size]

    def write(self, path: str, data: bytes, _offset: int, _handle: int) -> int:
        text = data.decode(errors="replace")
        with self.control_lock:
            file = self._file(path)
            if file.write is None:
                raise OSError(errno.EACCES, path)
            file.write(text)
        return len(data)

    def truncate(self, path: str, _length: int, _handle: int | None = None) -> None:
        """What a shell does before it writes: it means nothing here."""
        with self.control_lock:
            if self._file(path).write is None:
                raise OSError(errno.EACCES, path)

    def _not_permitted(self, path: str, *_arguments: object) -> None:
        raise OSError(errno.EPERM, path)

    chmod = chown = create = link = mkdir = mknod = rename = rmdir = symlink = unlink = utimens = _not_permitted


def find_fusepy() -> ModuleType:
    """The module fusepy, which Debian calls so and PyPI `fuse`. SetupError: it or the library under it is missing."""
    try:
        try:
            module = importlib.import_module("fusepy")
        except ImportError:
            module = importlib.import_module("fuse")
    except (ImportError, OSError) as error:  # fusepy has no error of its own for a missing library
        raise SetupError(f"{error}: install libfuse2 and fusepy (Debian: python3-fusepy)") from error
    if not hasattr(module, "FUSE"):
        raise SetupError("the module fuse is not fusepy: install that (Debian: python3-fusepy)")
    return module


class StateFiles:
    """The mounted filesystem, from `start` to `stop`."""

    def __init__(self, path: Path, root: Folder, lock: threading.RLock, gid: int) -> None:
        self.path = path
        self.mounted = threading.Event()
        self.ended = threading.Event()
        self.stopping = False
        self.failure = ""
        self.operations = _Operations(root, lock, gid, self.mounted)
        self.thread = threading.Thread(target=self._serve, name="state", daemon=True)
        self.stack = ExitStack()

    def start(self) -> None:
        """SetupError. Signals must have handlers by now: libfuse sets its own where there are none."""
        self.fusepy = find_fusepy()
        clear_stale_mounts(self.path)
        self.stack.enter_context(_covered(self.path))
        self.thread.start()
        self.mounted.wait(MOUNT_SECONDS)
        if not self.mounted.is_set() or self.ended.is_set():
            raise SetupError(f"mounting {self.path} failed: {self.failure or 'the kernel does not answer'}")

    def _serve(self) -> None:
        try:
            self.fusepy.FUSE(
                self.operations,
                str(self.path),
                encoding="latin-1",  # of whatever bytes a caller has in a path
                foreground=True,
                nothreads=True,
                allow_other=True,
                default_permissions=True,
                direct_io=True,
                # Seconds that the kernel remembers names and modes, which a walk through all asks for again and again;
                # open and read ask us.
                entry_timeout=1,
                attr_timeout=1,
                fsname="cuse-netmap-state",
            )
        except RuntimeError as error:
            self.failure = f"libfuse says {error}"
        finally:
            self.ended.set()
            self.mounted.set()
        if not self.stopping and not self.failure:
            log.warning("%s was unmounted by somebody else: there are no state files until a restart", self.path)

    def stop(self) -> None:
        """Also after a start that failed."""
        self.stopping = True
        if self.thread.is_alive():
            with suppress(SetupError):
                unmount(self.path, abort=True)
            self.thread.join(STOP_SECONDS)
        self.stack.close()

    @property
    def stopped(self) -> bool:
        """Nothing is read any more."""
        return not self.thread.is_alive()


def _open_folder(path: Path) -> int:
    """The folder, made if need be and locked by us and others like us. SetupError."""
    while True:
        try:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            path.mkdir(mode=0o750, exist_ok=True)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise SetupError(f"{path}: {error.strerror}") from error
        fcntl.flock(fd, fcntl.LOCK_SH)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), path.lstat()):
                return fd
        os.close(fd)  # the last user removed it between our two looks


@contextmanager
def _covered(path: Path) -> Iterator[None]:
    """A folder for a mount to cover. Whoever leaves last, in any mount namespace, removes it (device.placeholder)."""
    fd = _open_folder(path)
    try:
        yield
    finally:
        with suppress(OSError):  # others have it mounted, or something else is in there
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.rmdir()
        os.close(fd)


def clean_up(path: Path) -> None:
    """Removes what a daemon that died left at `path`. SetupError: one is alive."""
    clear_stale_mounts(path)
    # A folder of a `run` is left only if both it and its daemon were killed; one that is in use stays.
    for folder in (path, *path.parent.glob(f"{path.name}-*[0-9]")):
        if not mounted_at(folder) and folder.is_dir():
            with _covered(folder):
                pass
