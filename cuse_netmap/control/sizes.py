# SPDX-License-Identifier: BSD-2-Clause
"""How many rings and slots a port gets that is made for the program that asks (ABI.md sections 3.6 and 7)."""

from dataclasses import dataclass
from typing import Protocol

from cuse_netmap._core import Region, Sizes

RING_HEADER, SLOT = 256, 16
LEAST_SLOTS = 2  # one is always empty
DEFAULT_SLOTS = 1024


class Asked(Protocol):
    """REGISTER, PORT_INFO_GET and VALE_NEWIF all ask for these; 0 leaves it to us."""

    tx_rings: int
    rx_rings: int
    tx_slots: int
    rx_slots: int


@dataclass(frozen=True)
class Limits:
    """Of a kind of port; what is asked beyond them is cut, silently, as in netmap."""

    rings: int
    slots: int = 4096


PIPE = Limits(rings=256)
VALE = Limits(rings=16)


def bounded(asked: Asked, limits: Limits, region: Region, default_slots: Sizes | None = None) -> Sizes:
    """What is asked, within the limits and within what a ring object of the region has room for."""
    most = min(limits.slots, (region.pool("ring").objsize - RING_HEADER) // SLOT)

    def slots(wanted: int, default: int) -> int:
        return min(max(wanted or default, LEAST_SLOTS), most)

    return Sizes(
        tx_rings=min(asked.tx_rings or 1, limits.rings),
        rx_rings=min(asked.rx_rings or 1, limits.rings),
        tx_slots=slots(asked.tx_slots, default_slots.tx_slots if default_slots else DEFAULT_SLOTS),
        rx_slots=slots(asked.rx_slots, default_slots.rx_slots if default_slots else DEFAULT_SLOTS),
    )
