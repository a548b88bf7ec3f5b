# SPDX-License-Identifier: BSD-2-Clause
"""Which interfaces are steered by living daemons, and what dead ones have left at theirs: a small file for each.

The file is named after the interface (its network namespace's inode and its index in there) and locked for as long as
its daemon lives.
"""

import dataclasses
import errno
import fcntl
import json
import logging
import os
from pathlib import Path

from cuse_netmap.backends.hooks import Filters
from cuse_netmap.errors import Refused
from cuse_netmap.namespace import find_network_namespace, network_namespace

log = logging.getLogger(__name__)

FOLDER = Path("/run/cuse-netmap/interfaces")


@dataclasses.dataclass(frozen=True)
class Left:
    """Filters, which stay when the daemon dies."""

    interface: str  # its name, for people
    made_qdisc: bool  # the clsact qdisc is ours too
    block: bool  # they are to stay: on_exit = "block"


class Claim:
    """The right to steer an interface. Refused EBUSY: another daemon has it."""

    def __init__(self, namespace: int, index: int) -> None:
        self.path = FOLDER / f"{os.fstat(namespace).st_ino}-{index}"
        self.fd = _lock(self.path)
        self.left = _read(self.fd)  # of a daemon before us

    def leave(self, left: Left | None) -> None:
        """What there is to remove if we are killed now; to be said before it is there."""
        self.left = left
        text = json.dumps(dataclasses.asdict(left)).encode() if left else b""
        os.pwrite(self.fd, text, 0)
        os.ftruncate(self.fd, len(text))

    def release(self) -> None:
        """Whatever is left then, stays."""
        if self.left is None:
            self.path.unlink(missing_ok=True)
        os.close(self.fd)


def clean_up(*, blocks: bool) -> None:
    """Removes what dead daemons have left at interfaces. With `blocks` also what was meant to stay (on_exit)."""
    if not FOLDER.is_dir():
        return
    for path in sorted(FOLDER.iterdir()):
        try:
            fd = _lock(path)
        except Refused as refusal:
            if refusal.errno != errno.EBUSY:  # a living daemon's
                log.error("%s", refusal.reason)
            continue
        try:
            left = _read(fd)
            if left is None or blocks or not left.block:
                if left is not None:
                    _remove(path, left)
                path.unlink(missing_ok=True)
        except Refused as refusal:
            log.error("%s stays cut off from its host stack: %s", path.name, refusal.reason)
        finally:
            os.close(fd)


def _remove(path: Path, left: Left) -> None:
    inode, index = map(int, path.name.split("-"))
    namespace = find_network_namespace(inode)
    if namespace is None:
        return  # and its interfaces have gone with it
    try:
        with network_namespace(namespace):
            remove_filters(Filters(index, made_qdisc=left.made_qdisc))
        log.warning("%s is no longer cut off from its host stack, as a dead daemon had left it", left.interface)
    finally:
        os.close(namespace)


def remove_filters(filters: Filters) -> None:
    """Of both directions."""
    for ingress in (True, False):
        filters.remove(ingress=ingress)


def _lock(path: Path) -> int:
    """The file's descriptor, locked; made if need be. Refused EBUSY, or with the errno of what failed."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
            os.close(fd)  # whoever had it before us has just removed it
    except BlockingIOError as error:
        os.close(fd)
        raise Refused(errno.EBUSY, "another cuse-netmap daemon has it") from error
    except OSError as error:
        raise Refused(error.errno or errno.EIO, f"{path}: {error.strerror}") from error


def _read(fd: int) -> Left | None:
    text = os.pread(fd, 4096, 0)
    try:
        return Left(**json.loads(text)) if text else None
    except (ValueError, TypeError):  # cut off by a full disk: filters are known by their name anyway
        return Left("an interface", made_qdisc=False, block=False)
