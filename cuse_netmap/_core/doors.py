# SPDX-License-Identifier: BSD-2-Clause
"""The doors (doors/door.h): ways by which programs' calls come in."""

import os
from typing import Any

from cuse_netmap._core.border import Why, text
from cuse_netmap._core.files import Inbox
from cuse_netmap._core.memory import Region
from cuse_netmap._engine import ffi, lib

TRANSPORTS = {
    "auto": lib.NM_TRANSPORT_AUTO,
    "uring": lib.NM_TRANSPORT_URING,
    "classic": lib.NM_TRANSPORT_CLASSIC,
}


class Door:
    """A way in (door.h), made by one of the functions below."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.stopped = False  # all its threads have ended

    @property
    def transport(self) -> str:
        """The one in use: "uring" or "classic"."""
        return text(lib.nm_door_transport(self.pointer))

    def stop(self) -> None:
        """Takes the device away and ends every system call on it."""
        self.stopped = bool(lib.nm_door_stop(self.pointer))

    def destroy(self) -> None:
        """Only when it is stopped and the inbox is destroyed."""
        lib.nm_door_destroy(self.pointer)


def fuse_door(region: Region, inbox: Inbox, path: str, *, mode: int, gid: int, transport: str) -> Door:
    """The FUSE door over an existing file. Refused EOPNOTSUPP: this kernel has no passthrough, or not the transport."""
    config = ffi.new("struct nm_door_config *")
    encoded = ffi.new("char[]", os.fsencode(path))
    config.path, config.mode, config.uid, config.gid = encoded, mode, 0, gid
    config.transport = TRANSPORTS[transport]
    out, why = ffi.new("struct nm_door **"), Why()
    why.check(lib.nm_fuse_door_open(config, region.pointer, inbox.pointer, out, why.pointer))
    return Door(out[0])


def cuse_door(region: Region, inbox: Inbox, name: str) -> Door:
    """The character device /dev/NAME. Refused ENOENT: there is no /dev/cuse; EEXIST: the name is taken."""
    out, why = ffi.new("struct nm_door **"), Why()
    why.check(lib.nm_cuse_door_open(name.encode(), region.pointer, inbox.pointer, out, why.pointer))
    return Door(out[0])
