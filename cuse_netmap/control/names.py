# SPDX-License-Identifier: BSD-2-Clause
"""What kind of port a bare name means (ABI.md section 6, the kernel's side). Whether it exists, the registry knows."""

import enum
import re
from dataclasses import dataclass

from cuse_netmap.control.requests import MONITOR, Mode, encode_name

VALE_NAME = re.compile(rb"[A-Za-z0-9_]*:.{0,15}", re.DOTALL)


class Kind(enum.Enum):
    """The kinds of port, in the order in which a name is tried for them."""

    NULL = "null port"
    MONITOR = "monitor"
    PIPE = "pipe"
    VALE = "VALE port"
    INTERFACE = "interface"


@dataclass(frozen=True)
class PortName:
    """A bare name and what it means: a pipe's end, a port on a switch, or just itself."""

    kind: Kind
    name: str
    parent: str = ""  # of a pipe
    pipe: str = ""  # its identifier
    end: int = 0  # 0 the master, 1 the slave
    switch: str = ""  # of a VALE port, with "vale"
    port: str = ""  # on that switch
    valid: bool = True  # it could exist

    @property
    def slave(self) -> bool:
        return self.end == 1


def parse(name: str, mode: int = Mode.ALL_NIC, flags: int = 0) -> PortName:
    """Never fails: a name that means nothing else means an interface, which then does not exist."""
    if mode == Mode.NULL:
        return PortName(Kind.NULL, name)
    if flags & MONITOR:
        return PortName(Kind.MONITOR, name)
    for end, bracket in enumerate("{}"):
        parent, found, pipe = name.rpartition(bracket)
        if found:
            return PortName(Kind.PIPE, name, parent=parent, pipe=pipe, end=end, valid=bool(parent and pipe))
    if name.startswith("val"):  # netmap compares three characters, not four
        switch, _, port = name.partition(":")
        return PortName(Kind.VALE, name, switch=switch, port=port, valid=bool(VALE_NAME.fullmatch(encode_name(name))))
    return PortName(Kind.INTERFACE, name)


def concerns(name: str) -> str:
    """What a descriptor on that name holds, the same for all names of the same thing.

    Both ends of a pipe, or an interface by its own name and by the one it has on a switch.
    """
    parsed = parse(name)
    if parsed.kind is Kind.PIPE:
        return f"{parsed.parent}{{{parsed.pipe}"
    return parsed.port or name
