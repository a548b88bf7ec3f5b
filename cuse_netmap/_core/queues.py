# SPDX-License-Identifier: BSD-2-Clause
"""Queues of the backends in C (backends/*.h), and the programs that steer an interface's packets."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuse_netmap._core.border import Why
from cuse_netmap._core.memory import Region
from cuse_netmap._engine import ffi, lib

TAP_BACKEND = lib.nm_tap_backend()
NULL_BACKEND = lib.nm_null_backend()
RAW_BACKEND = lib.nm_raw_backend()
XDP_BACKEND = lib.nm_xdp_backend()


def tap_queues(fds: Sequence[int]) -> list[Any]:
    """Queues of the tap backend over TAP descriptors, which they take over."""
    return [lib.nm_tap_queue(fd) for fd in fds]


def null_queues(count: int) -> list[Any]:
    """Queues of the null backend."""
    return [lib.nm_null_queue() for _ in range(count)]


# What a tc program does with frames between an interface and its host stack (steer.h).
STEER_PROGRAMS = {
    "from_rings": lib.NM_STEER_FROM_RINGS,
    "from_all": lib.NM_STEER_FROM_ALL,
    "to_nowhere": lib.NM_STEER_TO_NOWHERE,
    "to_rings": lib.NM_STEER_TO_RINGS,
    "tap_to_host": lib.NM_STEER_TAP_TO_HOST,
    "tap_only_steered": lib.NM_STEER_TAP_ONLY_STEERED,
}


def steer_load(program: str, index: int) -> int:
    """A descriptor of the program. Refused with the kernel's errno."""
    why = Why()
    return why.check(lib.nm_steer_load(STEER_PROGRAMS[program], index, why.pointer))


def steer_count(index: int, *, ingress: bool) -> int | None:
    """How many tcx programs an interface of this thread's network namespace has; None: the kernel has no tcx."""
    count = int(lib.nm_steer_count(index, ingress))
    return None if count == -errno.EINVAL else Why().check(count)


def steer_attach(program: int, index: int, *, ingress: bool) -> int:
    """The link that puts a program before all others of an interface of this thread's network namespace."""
    why = Why()
    return why.check(lib.nm_steer_attach(program, index, ingress, why.pointer))


def steer_replace(link: int, program: int) -> None:
    """Puts another program in the place of a link's. Refused ENXIO: the interface has gone."""
    why = Why()
    why.check(lib.nm_steer_replace(link, program, why.pointer))


def steer_packet_socket(fd: int) -> None:
    """An AF_PACKET socket sees neither what host rings inject nor what is sent; to be called before bind()."""
    Why().check(lib.nm_steer_packet_socket(fd), "filtering a packet socket")


@dataclass(frozen=True)
class RawQueue:
    """What nm_raw_config asks for: an AF_PACKET queue of an interface of this thread's network namespace."""

    ifindex: int
    frame_size: int
    frames: int
    queue: int
    queues: int
    first: int

    def open(self) -> Any:
        """Refused as nm_raw_queue_open says."""
        out, why = ffi.new("void **"), Why()
        config = ffi.new("struct nm_raw_config *", vars(self))
        why.check(lib.nm_raw_queue_open(config, out, why.pointer))
        return out[0]


XDP_MODES = {
    "best": lib.NM_XDP_BEST,
    "zerocopy": lib.NM_XDP_ZEROCOPY,
    "native": lib.NM_XDP_NATIVE,
    "generic": lib.NM_XDP_GENERIC,
}


@dataclass(frozen=True)
class XdpQueues:
    """What nm_xdp_config asks for: AF_XDP sockets at all queues of an interface of this thread's network namespace."""

    name: str
    ifindex: int
    queues: int
    slots: int
    buffers: int
    frame_most: int

    def open(self, region: Region, mode: str) -> list[Any]:
        """mode: one of XDP_MODES. Refused as nm_xdp_open says."""
        name = ffi.new("char[]", os.fsencode(self.name))
        config = ffi.new("struct nm_xdp_config *", {**vars(self), "name": name, "mode": XDP_MODES[mode]})
        vector, why = ffi.new("void *[]", self.queues), Why()
        why.check(lib.nm_xdp_open(config, region.pointer, vector, why.pointer))
        return list(vector)


def xdp_zero_copy(queues: Sequence[Any]) -> bool:
    """Whether the driver reads and writes the buffers itself."""
    return bool(lib.nm_xdp_zero_copy(queues[0]))


def xdp_set_frame_most(queues: Sequence[Any], most: int) -> None:
    """Bytes of a frame that may be sent by the interface of these queues."""
    lib.nm_xdp_set_frame_most(queues[0], most)


def close_queues(backend: Any, queues: Sequence[Any]) -> None:
    """Those that no port has taken over."""
    for queue in queues:
        backend.close(queue)


def queue_vector(queues: Sequence[Any]) -> Any:
    return ffi.new("void *[]", [ffi.cast("void *", queue) for queue in queues])
