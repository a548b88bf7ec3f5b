# SPDX-License-Identifier: BSD-2-Clause
"""What kind of port a bare name means (ABI.md section 6, the kernel's side). Whether it exists, the registry knows."""

import enum
from dataclasses import dataclass

from cuse_netmap.control.requests import MONITOR, Mode


class Kind(enum.Enum):
    """The kinds of port, in the order in which a name is tried for them."""

    NULL = "null port"
    MONITOR = "monitor"
    PIPE = "pipe"
    VALE = "VALE port"
    INTERFACE = "interface"


@dataclass(frozen=True)
class PortName:
    """A bare name and what it means."""

    kind: Kind
    name: str


def parse(name: str, mode: int, flags: int) -> PortName:
    """Never fails: a name that means nothing else means an interface, which then does not exist."""
    if mode == Mode.NULL:
        return PortName(Kind.NULL, name)
    if flags & MONITOR:
        return PortName(Kind.MONITOR, name)
    if "{" in name or "}" in name:
        return PortName(Kind.PIPE, name)
    if name.startswith("val"):  # netmap compares three characters, not four
        return PortName(Kind.VALE, name)
    return PortName(Kind.INTERFACE, name)
