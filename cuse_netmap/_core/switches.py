# SPDX-License-Identifier: BSD-2-Clause
"""VALE switches and what is plugged into them (ports/switch.h)."""

from typing import Any

from cuse_netmap._core.border import Why
from cuse_netmap._core.ports import Port
from cuse_netmap._engine import ffi, lib


class Switch:
    """A VALE switch (ports.h)."""

    def __init__(self) -> None:
        out = ffi.new("struct nm_switch **")
        Why().check(lib.nm_switch_create(out))
        self.pointer = out[0]

    def join(self, vale: Port) -> int:
        """Puts a VALE port on it; returns its place. Refused ENOMEM: it is full."""
        why = Why()
        return why.check(lib.nm_vale_join(vale.pointer, self.pointer, why.pointer))

    def attach(self, below: Port, request: bytes) -> "Attachment":
        """Puts any other port on it, with the rings that a REGISTER asks for. Refused as nm_attachment_create."""
        body, out, why = ffi.new("struct nmreq_register *"), ffi.new("struct nm_attachment **"), Why()
        ffi.buffer(body)[:] = request
        why.check(lib.nm_attachment_create(below.pointer, self.pointer, body, out, why.pointer))
        return Attachment(out[0])

    def learned(self) -> dict[str, int]:
        """The place that each address was last seen at."""
        table = ffi.new("struct nm_learned[]", lib.NM_LEARNED)
        count = lib.nm_switch_learned(self.pointer, table)
        return {bytes(entry.address).hex(":"): entry.port for entry in table[0:count]}

    def destroy(self) -> None:
        """Nothing may be on it any more."""
        lib.nm_switch_destroy(self.pointer)


def leave_switch(vale: Port) -> None:
    lib.nm_vale_leave(vale.pointer)


def vale_header(vale: Port) -> int:
    """Bytes of the virtio-net header before each packet."""
    return int(lib.nm_vale_header(vale.pointer))


def set_vale_header(vale: Port, length: int) -> None:
    lib.nm_vale_set_header(vale.pointer, length)


class Attachment:
    """A port that a switch holds (ports.h)."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer

    @property
    def places(self) -> list[int]:
        """Of the hardware rings, then of the host rings if they are on the switch too."""
        places = (int(lib.nm_attachment_place(self.pointer, host)) for host in (False, True))
        return [place for place in places if place >= 0]

    def poll(self, first_cpu: int, cpus: int) -> None:
        """Threads on so many CPUs look for packets all the time; 0: they sleep between packets."""
        why = Why()
        why.check(lib.nm_attachment_poll(self.pointer, first_cpu, cpus, why.pointer))

    def destroy(self) -> None:
        lib.nm_attachment_destroy(self.pointer)
