# SPDX-License-Identifier: BSD-2-Clause
"""The memory regions by their ids: our own, and those in memory that programs brought (ABI.md section 8)."""

import errno
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from cuse_netmap import _core
from cuse_netmap._core import Port, Region
from cuse_netmap.control.extmem import Piece
from cuse_netmap.control.requests import GLOBAL_MEM_ID
from cuse_netmap.errors import Refused

log = logging.getLogger(__name__)

LAST_ID = 0xFFFF


@dataclass
class Entry:
    """A region under its id. An adopted one ends when no port lives in it and nobody is about to make one."""

    mem_id: int
    region: Region
    identity: tuple[Piece, ...] | None = None  # of adopted memory: whoever brings the same gets this region
    owner: str = ""
    holds: int = 0
    broken: bool = False


class Regions:
    """All regions; `fileno` is readable when programs' memory has broken."""

    def __init__(self, region: Region) -> None:
        self.guard = _core.guard_extmem()
        self.entries = {GLOBAL_MEM_ID: Entry(GLOBAL_MEM_ID, region)}
        self.newest = GLOBAL_MEM_ID

    def fileno(self) -> int:
        return self.guard

    def find(self, mem_id: int) -> Region:
        """0 leaves it to us. Refused EINVAL: there is no such region."""
        entry = self.entries.get(mem_id or GLOBAL_MEM_ID)
        if entry is None:
            raise Refused(errno.EINVAL, f"there is no memory region {mem_id}")
        if entry.broken:
            raise Refused(errno.EINVAL, f"memory region {mem_id} is broken: its memory was taken away")
        return entry.region

    def by_name(self) -> dict[str, Region]:
        """All regions, by their ids in words."""
        return {str(entry.mem_id): entry.region for entry in self.entries.values()}

    def id_of(self, port: Port) -> int:
        return next(entry.mem_id for entry in self.entries.values() if entry.region.holds(port))

    def of(self, port: Port) -> Region:
        return self.entries[self.id_of(port)].region

    def adopt(self, identity: tuple[Piece, ...], make: Callable[[], Region], owner: str) -> Entry:
        """The region in that memory, made if there is none, and held until `let_go`. Refused as `make` refuses."""
        own = os.fstat(self.entries[GLOBAL_MEM_ID].region.memfd)
        for piece in identity:
            if (os.makedev(*piece.device), piece.inode) == (own.st_dev, own.st_ino):
                raise Refused(errno.EINVAL, "the memory is the daemon's own")
        entry = next((e for e in self.entries.values() if e.identity == identity and not e.broken), None)
        if entry is None:
            entry = Entry(self._new_id(), make(), identity, owner)
            self.entries[entry.mem_id] = entry
            log.info("memory region %d: %d bytes of %s", entry.mem_id, entry.region.size, owner)
        entry.holds += 1
        return entry

    def let_go(self, entry: Entry) -> None:
        entry.holds -= 1
        self.sweep()

    def sweep(self) -> None:
        """Ends the adopted regions in which nothing lives any more."""
        for entry in list(self.entries.values()):
            if entry.identity is not None and not entry.holds and not entry.region.used:
                del self.entries[entry.mem_id]
                entry.region.close()
                log.info("memory region %d is no more", entry.mem_id)

    def look_for_broken(self) -> None:
        """A program truncated the file it gave us: its ports have disappeared, ours and everybody's are untouched."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.guard)
        for entry in self.entries.values():
            if not entry.broken and entry.region.memory and entry.region.memory.broken:
                entry.broken = True
                entry.region.mark_gone()
                log.warning("memory region %d, of %s, was truncated: its ports are gone", entry.mem_id, entry.owner)

    def _new_id(self) -> int:
        for _ in range(LAST_ID):
            self.newest = self.newest % LAST_ID + 1
            if self.newest not in self.entries:
                return self.newest
        raise Refused(errno.ENOMEM, "there are no memory ids left")
