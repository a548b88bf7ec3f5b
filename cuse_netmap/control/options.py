# SPDX-License-Identifier: BSD-2-Clause
"""The options of a REGISTER: a table of those that we know, and the moments at which each does its part.

What an option means stands in a class of its own, here or beside (ABI.md 13); who calls the steps is control.
"""

import errno
from collections.abc import Callable
from typing import TYPE_CHECKING

from cuse_netmap import _core
from cuse_netmap.control import extmem
from cuse_netmap.control.requests import CSB_ALIGN, CsbBody, ExtmemBody, OffsetsBody, OptionType, Register
from cuse_netmap.control.transaction import GivenOption
from cuse_netmap.errors import Refused
from cuse_netmap.processes import command_of

if TYPE_CHECKING:
    from cuse_netmap._core import OpenFile, Request
    from cuse_netmap.control.regions import Entry
    from cuse_netmap.control.registry import Registry


class RegisterOption:
    """An option of one REGISTER. Its steps come in the order in which they stand here.

    Whichever step has done what the option asks for sets the status of `given` to 0 (and its body to what goes back).
    A step that refuses fails the REGISTER, and its errno becomes the status; what was done by then is undone.
    """

    def __init__(self, given: GivenOption) -> None:
        self.given = given

    def read(self, request: "Request") -> None:
        """Without control's lock: whatever may wait for the program, or takes long."""

    def place(self, registry: "Registry", open_file: "OpenFile", asked: Register) -> None:
        """Before the port is looked for; again if the REGISTER is tried again."""

    def bound(self, registry: "Registry", open_file: "OpenFile", answer: Register) -> None:
        """The port holds its rings for the file, whose syncs do not reach them yet."""

    def decided(self) -> None:
        """The lock is released, the REGISTER refused or not: the status that only the decision could tell."""

    def write(self, request: "Request") -> None:
        """Without the lock as well: whatever else goes into the program's memory. A refusal unbinds the rings."""

    def end(self, registry: "Registry", *, succeeded: bool) -> None:
        """Last, whatever happened; if the REGISTER failed, the rings are given back already."""


class Extmem(RegisterOption):
    """Packet memory that the program brings (ABI.md 13.1): mapped here, and a region made in it."""

    def __init__(self, given: GivenOption) -> None:
        super().__init__(given)
        self.body = ExtmemBody.decode(given.body)
        self.info = self.body.info
        extmem.fill_in(self.info)
        self.pieces: tuple[extmem.Piece, ...] = ()
        self.memory: _core.Extmem | None = None  # until a region has taken it over
        self.owner = ""
        self.entry: Entry | None = None

    def read(self, request: "Request") -> None:
        self.owner = f"pid {request.pid} ({command_of(request.pid)})"
        maps, pieces = extmem.find(request.pid, self.body.address, self.info.memsize)
        self.pieces = tuple(pieces)
        if pieces:
            self.memory = extmem.map_here(request.pid, maps, pieces)
        if request.abandoned:  # the number of its thread may have become another's
            raise Refused(errno.EINTR, "interrupted")

    def place(self, registry: "Registry", open_file: "OpenFile", asked: Register) -> None:
        del open_file
        if self.entry is None:
            self.entry = registry.regions.adopt(self.pieces, self._carve, self.owner)
        asked.mem_id = self.entry.mem_id
        self.given.status = 0
        self.given.body = ExtmemBody(self.body.address, self.info.encode()).encode()

    def _carve(self) -> _core.Region:
        if self.memory is None:
            raise Refused(errno.ENOMEM, "the program brings no memory")
        region = _core.Region(extmem.pools_of(self.info), self.memory, self.info.memsize)
        self.memory = None
        return region

    def bound(self, registry: "Registry", open_file: "OpenFile", answer: Register) -> None:
        del registry, open_file
        if self.entry and answer.mem_id != self.entry.mem_id:
            raise Refused(errno.EOPNOTSUPP, f"the port lives in memory region {answer.mem_id} and stays there")

    def end(self, registry: "Registry", *, succeeded: bool) -> None:
        del succeeded
        if self.memory:
            self.memory.close()
        if self.entry:
            registry.regions.let_go(self.entry)


class Offsets(RegisterOption):
    """Packets that begin inside their buffers (ABI.md 13.4). The engine decides, as it binds the rings."""

    def __init__(self, given: GivenOption) -> None:
        super().__init__(given)
        self.body = OffsetsBody.decode(given.body)
        self.wanted = _core.Offsets(self.body.max_offset, self.body.initial_offset, self.body.offset_bits)

    def place(self, registry: "Registry", open_file: "OpenFile", asked: Register) -> None:
        del registry, asked
        open_file.offsets = self.wanted

    def bound(self, registry: "Registry", open_file: "OpenFile", answer: Register) -> None:
        del registry, open_file, answer
        self.body.max_offset = self.wanted.maximum
        self.given.body = self.body.encode()

    def decided(self) -> None:
        self.given.status = self.wanted.status


class Csb(RegisterOption):
    """Indices of rings in the program's memory, for a sync loop (ABI.md 13.2)."""

    def write(self, request: "Request") -> None:
        open_file, body = request.open, CsbBody.decode(self.given.body)
        if open_file.looping:
            raise Refused(errno.EBUSY, "a sync loop runs on this descriptor")
        if open_file.rings:  # a descriptor without any may ask, and has none
            if not open_file.exclusive:
                raise Refused(errno.EINVAL, "a CSB is for descriptors that are registered with NR_EXCLUSIVE")
            if (body.atok | body.ktoa) % CSB_ALIGN:
                raise Refused(errno.EINVAL, f"the CSB is not aligned to {CSB_ALIGN} bytes")
            request.enable_csb(body.atok, body.ktoa)
        self.given.status = 0


HANDLERS: dict[int, type[RegisterOption]] = {
    OptionType.EXTMEM: Extmem,
    OptionType.OFFSETS: Offsets,
    OptionType.CSB: Csb,
}


class RegisterOptions:
    """All options of one REGISTER."""

    def __init__(self, given: list[GivenOption]) -> None:
        self.given = given
        self.known = [HANDLERS[option.type](option) for option in given if option.type in HANDLERS]
        self.early: tuple[RegisterOption, Refused] | None = None

    def read(self, request: "Request") -> None:
        """Never refuses: what was refused is said by `place`, in its turn among the errors of a REGISTER."""
        for option in self.known:
            try:
                option.read(request)
            except Refused as refusal:
                self.early = option, refusal
                return

    def place(self, registry: "Registry", open_file: "OpenFile", asked: Register) -> None:
        if self.early:
            option, refusal = self.early
            option.given.status = refusal.errno or 0
            raise refusal
        self._each(lambda option: option.place(registry, open_file, asked))

    def bound(self, registry: "Registry", open_file: "OpenFile", answer: Register) -> None:
        self._each(lambda option: option.bound(registry, open_file, answer))

    def decided(self) -> None:
        for option in self.known:
            option.decided()

    def write(self, request: "Request") -> None:
        self._each(lambda option: option.write(request))

    def end(self, registry: "Registry", *, succeeded: bool) -> None:
        for option in self.known:
            option.end(registry, succeeded=succeeded)

    def unknown(self) -> list[int]:
        """The types of those that nobody will have handled."""
        return [option.type for option in self.given if option.type not in HANDLERS]

    def _each(self, step: Callable[[RegisterOption], None]) -> None:
        for option in self.known:
            try:
                step(option)
            except Refused as refusal:
                option.given.status = refusal.errno or 0
                raise
