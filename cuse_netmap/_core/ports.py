# SPDX-License-Identifier: BSD-2-Clause
"""Ports of the engine (ring_core.h, ports/ports.h): what they are, and how they are made."""

import errno
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from cuse_netmap._core.border import DIRECTIONS, Why, exclusive, text
from cuse_netmap._core.memory import Events, Region
from cuse_netmap._core.queues import queue_vector
from cuse_netmap._engine import ffi, lib
from cuse_netmap.errors import Refused

DROPS = {
    "down": lib.NM_DROP_DOWN,
    "short": lib.NM_DROP_SHORT,
    "long": lib.NM_DROP_LONG,
    "stale": lib.NM_DROP_STALE,
    "sink": lib.NM_DROP_SINK,
    "error": lib.NM_DROP_ERROR,
    "full": lib.NM_DROP_FULL,
    "nowhere": lib.NM_DROP_NOWHERE,
    "bad": lib.NM_DROP_BAD,
}


@dataclass(frozen=True)
class RingStats:
    """Counters of one ring since its port exists; `drops` by reason."""

    packets: int
    bytes: int
    drops: dict[str, int]
    syncs: int
    wakeups: int
    bad_rings: int
    bad_slots: int

    @classmethod
    def total(cls, rings: "Iterable[RingStats]") -> "RingStats":
        """What they have counted together."""
        sums: Counter[str] = Counter()
        drops: Counter[str] = Counter()
        for ring in rings:
            drops.update(ring.drops)
            sums.update({name: count for name, count in vars(ring).items() if name != "drops"})
        names = (field.name for field in fields(cls) if field.name != "drops")
        return cls(drops=drops, **{name: sums[name] for name in names})


@dataclass(frozen=True)
class RingState:
    """One ring as the engine knows it: its indices mean something while it has users."""

    slots: int
    host: bool
    users: int
    hwcur: int
    hwtail: int
    rhead: int
    stats: RingStats


def set_forward_all(on: bool) -> None:
    """Netmap's parameter fwd."""
    lib.nm_set_forward_all(on)


def set_no_timestamp(on: bool) -> None:
    """Netmap's parameter no_timestamp."""
    lib.nm_set_no_timestamp(on)


def set_bridge_batch(slots: int) -> None:
    """Netmap's parameter bridge_batch."""
    lib.nm_switch_set_batch(slots)


@dataclass(frozen=True)
class Sizes:
    """Rings and slots of a port, in each direction."""

    tx_rings: int
    rx_rings: int
    tx_slots: int
    rx_slots: int

    def vectors(self) -> tuple[Any, Any]:
        """Rings and slots as C wants them: by direction."""
        rings, slots = ffi.new("uint32_t[2]"), ffi.new("uint32_t[2]")
        rings[lib.NM_TX], rings[lib.NM_RX] = self.tx_rings, self.rx_rings
        slots[lib.NM_TX], slots[lib.NM_RX] = self.tx_slots, self.rx_slots
        return rings, slots

    def turned(self) -> "Sizes":
        """As seen from the other end."""
        return Sizes(self.rx_rings, self.tx_rings, self.rx_slots, self.tx_slots)


class Port:
    """A port of the engine (ring_core.h), made by one of the functions below."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.counted: Counter[tuple[str, str]] = Counter()

    @property
    def files(self) -> int:
        """How many descriptors are registered on it."""
        return int(self.pointer.files)

    @property
    def attached(self) -> bool:
        """A switch holds it."""
        return bool(self.pointer.attached)

    @property
    def gone(self) -> bool:
        """What was behind it has disappeared."""
        return bool(self.pointer.gone)

    def rings(self, direction: str) -> int:
        """Hardware rings of a direction, "rx" or "tx"."""
        return int(self.pointer.num_rings[DIRECTIONS[direction]])

    def host_rings(self, direction: str) -> int:
        return int(self.pointer.num_host[DIRECTIONS[direction]])

    def slots(self, direction: str) -> int:
        return int(self.pointer.num_slots[DIRECTIONS[direction]])

    @property
    def kind(self) -> str:
        """The word for it: nic, null, pipe, vale."""
        return text(self.pointer.ops.kind)

    @property
    def sizes(self) -> Sizes:
        """Hardware rings, and slots."""
        return Sizes(self.rings("tx"), self.rings("rx"), self.slots("tx"), self.slots("rx"))

    def in_use(self, *, host: bool) -> bool:
        """Somebody has bound one of its hardware rings, or of its host rings."""
        for direction, index in DIRECTIONS.items():
            first, last = (self.rings(direction), self.all_rings(direction)) if host else (0, self.rings(direction))
            if any(self.pointer.krings[index][ring].users for ring in range(first, last)):
                return True
        return False

    @property
    def mtu(self) -> int:
        """Bytes, of the interface behind it as the daemon last heard; 0 if there is none."""
        return int(self.pointer.mtu)

    def set_mtu(self, mtu: int) -> None:
        """Bytes; looked at when the first program registers."""
        lib.nm_port_set_mtu(self.pointer, mtu)

    def mark_gone(self) -> None:
        """From now on syncs fail with EIO and poll says POLLERR; sleepers are woken."""
        lib.nm_port_gone(self.pointer)

    def all_rings(self, direction: str) -> int:
        """How many rings of a direction there are, host rings, which come last, included."""
        return self.rings(direction) + self.host_rings(direction)

    def ring(self, direction: str, ring: int) -> RingState:
        """One of `all_rings`."""
        k = self.pointer.krings[DIRECTIONS[direction]][ring]
        s = k.stats
        drops = {name: s.drops[number] for name, number in DROPS.items() if s.drops[number]}
        stats = RingStats(s.packets, s.bytes, drops, s.syncs, s.wakeups, s.bad_rings, s.bad_slots)
        return RingState(k.num_slots, k.host, k.users, k.hwcur, k.hwtail, k.rhead, stats)

    def stats(self) -> Iterator[tuple[str, int, RingStats]]:
        """(direction, ring, counters) of each ring, host rings last."""
        for direction in DIRECTIONS:
            for ring in range(self.all_rings(direction)):
                yield direction, ring, self.ring(direction, ring).stats

    def new_counts(self) -> Counter[tuple[str, str]]:
        """What all rings together have counted since the call before this, by direction and counter."""
        now: Counter[tuple[str, str]] = Counter()
        for direction, _, ring in self.stats():
            counts = {"packets": ring.packets, "bytes": ring.bytes, "bad rings": ring.bad_rings}
            for name, count in {**counts, "bad slots": ring.bad_slots, **ring.drops}.items():
                now[direction, name] += count
        before, self.counted = self.counted, now
        return now - before

    def close(self) -> None:
        """No program may be registered on it any more."""
        with exclusive:
            lib.nm_port_destroy(self.pointer)


def nic_port(region: Region, events: Events, name: str, backend: Any, queues: Sequence[Any], slots: int) -> Port:
    """An interface: a hardware ring pair of `slots` slots for each backend queue, which the port takes over.

    backend: the struct nm_backend_ops, one of the above or the address of another's; the queues likewise.
    """
    vector = queue_vector(queues)
    if any(queue == ffi.NULL for queue in vector):
        raise Refused(errno.ENOMEM, f"making the queues of {name}")
    out, why = ffi.new("struct nm_port **"), Why()
    operations = ffi.cast("const struct nm_backend_ops *", backend)
    encoded = os.fsencode(name)
    with exclusive:
        result = lib.nm_nic_create(
            region.pointer, events.pointer, encoded, operations, vector, len(queues), slots, out, why.pointer
        )
    why.check(result)
    return Port(out[0])


def set_wire(port: Port, backend: Any, queues: Sequence[Any]) -> None:
    """Another backend behind an interface's hardware rings, bound or not; when it is refused the port is gone."""
    why = Why()
    with exclusive:
        why.check(lib.nm_nic_set_wire(port.pointer, backend, queue_vector(queues), len(queues), why.pointer))


def set_host_rings(port: Port, backend: Any, queues: Sequence[Any]) -> None:
    """What stands behind an interface's host rings: queues, which the port takes over; while none is bound."""
    why = Why()
    vector = queue_vector(queues)
    with exclusive:
        why.check(lib.nm_nic_set_host(port.pointer, backend, vector, len(queues), why.pointer))


def null_port(region: Region, name: str, sizes: Sizes) -> Port:
    """A port with nothing behind it."""
    return _sized_port(lib.nm_null_create, region, name, sizes)


def vale_port(region: Region, name: str, sizes: Sizes) -> Port:
    """A VALE port on no switch yet."""
    return _sized_port(lib.nm_vale_create, region, name, sizes)


def _sized_port(create: Any, region: Region, name: str, sizes: Sizes) -> Port:
    out, why = ffi.new("struct nm_port **"), Why()
    rings, slots = sizes.vectors()
    why.check(create(region.pointer, os.fsencode(name), rings, slots, out, why.pointer))
    return Port(out[0])


def monitor_port(region: Region, parent: Port, flags: int, tx_slots: int, rx_slots: int) -> Port:
    """A port that sees what crosses `parent`, in the ways the flags of a REGISTER say; slots 0: as many as that has."""
    out, why = ffi.new("struct nm_port **"), Why()
    slots = Sizes(0, 0, tx_slots, rx_slots).vectors()[1]
    why.check(lib.nm_monitor_create(region.pointer, parent.pointer, flags, slots, out, why.pointer))
    return Port(out[0])


def pipe_ports(region: Region, names: tuple[str, str], sizes: Sizes) -> tuple[Port, Port]:
    """The two ends of a pipe, master first; the sizes are the master's. Neither is closed while the other is used."""
    ends, why = ffi.new("struct nm_port *[2]"), Why()
    encoded = [ffi.new("char[]", os.fsencode(name)) for name in names]
    rings, slots = sizes.vectors()
    why.check(lib.nm_pipe_create(region.pointer, ffi.new("const char *[]", encoded), rings, slots, ends, why.pointer))
    return Port(ends[0]), Port(ends[1])
