# SPDX-License-Identifier: BSD-2-Clause
"""Packet memory (region.h, extmem.h) and the thread that waits for descriptors (events.h)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from cuse_netmap._core.border import Why
from cuse_netmap._engine import ffi, lib

if TYPE_CHECKING:
    from cuse_netmap._core.doors import Door
    from cuse_netmap._core.ports import Port


@dataclass(frozen=True)
class PoolGeometry:
    """One pool of a region: where it starts, its objects' size (bytes) and number, and how many are in use."""

    offset: int
    objsize: int
    objtotal: int
    used: int


def guard_extmem() -> int:
    """Once, at start: no program's memory can end the daemon. A descriptor, readable when some has broken."""
    return Why().check(lib.nm_extmem_guard(), "guarding programs' memory")


class Extmem:
    """Memory that a program brought, mapped here (extmem.h): pieces of files, each (descriptor, offset, length)."""

    def __init__(self, pieces: Sequence[tuple[int, int, int]]) -> None:
        out, why = ffi.new("struct nm_extmem **"), Why()
        why.check(lib.nm_extmem_map(ffi.new("struct nm_extmem_piece[]", pieces), len(pieces), out, why.pointer))
        self.pointer = out[0]

    @property
    def address(self) -> int:
        return int(ffi.cast("uintptr_t", lib.nm_extmem_base(self.pointer)))

    @property
    def broken(self) -> bool:
        """It was truncated under us, and is ours alone since."""
        return bool(lib.nm_extmem_broken(self.pointer))

    def close(self) -> None:
        """Only where no region has taken it over."""
        lib.nm_extmem_unmap(self.pointer)


Pools = dict[str, tuple[int, int]]


class Region:
    """Packet memory (region.h): `pools` maps "if", "ring" and "buf" to (object size in bytes, count).

    With `memory` it lies in the first `size` bytes of that, which it takes over. Refused ENOMEM: that is too small;
    EINVAL: sizes outside netmap's limits; or the errno of the system call that failed.
    """

    POOLS: ClassVar = {"if": lib.NM_POOL_IF, "ring": lib.NM_POOL_RING, "buf": lib.NM_POOL_BUF}

    def __init__(self, pools: Pools, memory: Extmem | None = None, size: int = 0) -> None:
        out, why, request = ffi.new("struct nm_region **"), Why(), self._request(pools)
        if memory:
            why.check(lib.nm_region_adopt(request, memory.pointer, size, out, why.pointer))
        else:
            why.check(lib.nm_region_create(request, out, why.pointer))
        self.pointer = out[0]
        self.memory = memory

    @classmethod
    def _request(cls, pools: Pools) -> Any:
        request = ffi.new("struct nm_pool_request[3]")
        for name, index in cls.POOLS.items():
            request[index].objsize, request[index].objtotal = pools[name]
        return request

    @classmethod
    def check(cls, pools: Pools) -> None:
        """Refused EINVAL if no region can have such pools."""
        why = Why()
        why.check(lib.nm_region_check_request(cls._request(pools), why.pointer))

    def resize(self, pools: Pools, doors: "Sequence[Door]") -> None:
        """Makes the region anew, behind all the doors that serve it; Refused EBUSY while anybody uses it (door.h)."""
        why = Why()
        pointers = ffi.new("struct nm_door *[]", [door.pointer for door in doors])
        why.check(lib.nm_doors_resize(pointers, len(doors), self.pointer, self._request(pools), why.pointer))

    @property
    def size(self) -> int:
        """Bytes: a program's nr_memsize."""
        return int(lib.nm_region_size(self.pointer))

    @property
    def address(self) -> int:
        """Where it lies in this process, until it is resized."""
        return int(ffi.cast("uintptr_t", lib.nm_region_object(self.pointer, lib.NM_POOL_IF, 0)))

    @property
    def memfd(self) -> int:
        """The descriptor of the memory, ours to pass on but not to close; -1 of a program's."""
        return int(lib.nm_region_memfd(self.pointer))

    @property
    def used(self) -> bool:
        """Some port lives in it."""
        return bool(lib.nm_region_ports(self.pointer)[0] != ffi.NULL)

    def holds(self, port: "Port") -> bool:
        return bool(port.pointer.region == self.pointer)

    def mark_gone(self) -> None:
        """All its ports have disappeared."""
        port = lib.nm_region_ports(self.pointer)[0]
        while port != ffi.NULL:
            lib.nm_port_gone(port)
            port = port.next_port

    def pool(self, name: str) -> PoolGeometry:
        g = lib.nm_region_pool(self.pointer, self.POOLS[name])
        return PoolGeometry(g.offset, g.objsize, g.objtotal, g.used)

    def close(self) -> None:
        lib.nm_region_destroy(self.pointer)


class Events:
    """The thread that waits for descriptors on behalf of sleeping clients (events.h)."""

    def __init__(self) -> None:
        out = ffi.new("struct nm_events **")
        Why().check(lib.nm_events_create(out), "starting the events thread")
        self.pointer = out[0]

    def close(self) -> None:
        lib.nm_events_destroy(self.pointer)
