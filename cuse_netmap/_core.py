# SPDX-License-Identifier: BSD-2-Clause
"""The border to the C: the only module that touches ffi and lib. C's -errno become `Refused` here."""

import errno
import os
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from cuse_netmap._engine import ffi, lib
from cuse_netmap.errors import Refused

TRANSPORTS = {
    "auto": lib.NM_TRANSPORT_AUTO,
    "uring": lib.NM_TRANSPORT_URING,
    "classic": lib.NM_TRANSPORT_CLASSIC,
}
DIRECTIONS = {"rx": lib.NM_RX, "tx": lib.NM_TX}
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


# Held by whoever changes what exists in the engine (ring_core.h); control's lock.
exclusive = threading.RLock()

TAP_BACKEND = lib.nm_tap_backend()
NULL_BACKEND = lib.nm_null_backend()
RAW_BACKEND = lib.nm_raw_backend()
XDP_BACKEND = lib.nm_xdp_backend()


def _text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode(errors="replace"))


class _Why:
    """Room for C's reason, and the check that turns a negative result into a `Refused`."""

    def __init__(self) -> None:
        self.pointer = ffi.new("struct nm_refusal *")

    def check(self, result: int, doing: str = "") -> int:
        if result < 0:
            raise Refused(-result, _text(self.pointer.text) or doing or os.strerror(-result))
        return result


@dataclass(frozen=True)
class PoolGeometry:
    """One pool of a region: where it starts, its objects' size (bytes) and number, and how many are in use."""

    offset: int
    objsize: int
    objtotal: int
    used: int


def guard_extmem() -> int:
    """Once, at start: no program's memory can end the daemon. A descriptor, readable when some has broken."""
    return _Why().check(lib.nm_extmem_guard(), "guarding programs' memory")


class Extmem:
    """Memory that a program brought, mapped here (extmem.h): pieces of files, each (descriptor, offset, length)."""

    def __init__(self, pieces: Sequence[tuple[int, int, int]]) -> None:
        out, why = ffi.new("struct nm_extmem **"), _Why()
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
        out, why, request = ffi.new("struct nm_region **"), _Why(), self._request(pools)
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
        why = _Why()
        why.check(lib.nm_region_check_request(cls._request(pools), why.pointer))

    def resize(self, pools: Pools, doors: "Sequence[Door]") -> None:
        """Makes the region anew, behind all the doors that serve it; Refused EBUSY while anybody uses it (door.h)."""
        why = _Why()
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
        _Why().check(lib.nm_events_create(out), "starting the events thread")
        self.pointer = out[0]

    def close(self) -> None:
        lib.nm_events_destroy(self.pointer)


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
        return _text(self.pointer.ops.kind)

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
    why = _Why()
    return why.check(lib.nm_steer_load(STEER_PROGRAMS[program], index, why.pointer))


def steer_count(index: int, *, ingress: bool) -> int | None:
    """How many tcx programs an interface of this thread's network namespace has; None: the kernel has no tcx."""
    count = int(lib.nm_steer_count(index, ingress))
    return None if count == -errno.EINVAL else _Why().check(count)


def steer_attach(program: int, index: int, *, ingress: bool) -> int:
    """The link that puts a program before all others of an interface of this thread's network namespace."""
    why = _Why()
    return why.check(lib.nm_steer_attach(program, index, ingress, why.pointer))


def steer_replace(link: int, program: int) -> None:
    """Puts another program in the place of a link's. Refused ENXIO: the interface has gone."""
    why = _Why()
    why.check(lib.nm_steer_replace(link, program, why.pointer))


def steer_packet_socket(fd: int) -> None:
    """An AF_PACKET socket sees neither what host rings inject nor what is sent; to be called before bind()."""
    _Why().check(lib.nm_steer_packet_socket(fd), "filtering a packet socket")


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
        out, why = ffi.new("void **"), _Why()
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
        vector, why = ffi.new("void *[]", self.queues), _Why()
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


def _queue_vector(queues: Sequence[Any]) -> Any:
    return ffi.new("void *[]", [ffi.cast("void *", queue) for queue in queues])


def nic_port(region: Region, events: Events, name: str, backend: Any, queues: Sequence[Any], slots: int) -> Port:
    """An interface: a hardware ring pair of `slots` slots for each backend queue, which the port takes over.

    backend: the struct nm_backend_ops, one of the above or the address of another's; the queues likewise.
    """
    vector = _queue_vector(queues)
    if any(queue == ffi.NULL for queue in vector):
        raise Refused(errno.ENOMEM, f"making the queues of {name}")
    out, why = ffi.new("struct nm_port **"), _Why()
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
    why = _Why()
    with exclusive:
        why.check(lib.nm_nic_set_wire(port.pointer, backend, _queue_vector(queues), len(queues), why.pointer))


def set_host_rings(port: Port, backend: Any, queues: Sequence[Any]) -> None:
    """What stands behind an interface's host rings: queues, which the port takes over; while none is bound."""
    why = _Why()
    vector = _queue_vector(queues)
    with exclusive:
        why.check(lib.nm_nic_set_host(port.pointer, backend, vector, len(queues), why.pointer))


def null_port(region: Region, name: str, sizes: Sizes) -> Port:
    """A port with nothing behind it."""
    return _sized_port(lib.nm_null_create, region, name, sizes)


def vale_port(region: Region, name: str, sizes: Sizes) -> Port:
    """A VALE port on no switch yet."""
    return _sized_port(lib.nm_vale_create, region, name, sizes)


def _sized_port(create: Any, region: Region, name: str, sizes: Sizes) -> Port:
    out, why = ffi.new("struct nm_port **"), _Why()
    rings, slots = sizes.vectors()
    why.check(create(region.pointer, os.fsencode(name), rings, slots, out, why.pointer))
    return Port(out[0])


def monitor_port(region: Region, parent: Port, flags: int, tx_slots: int, rx_slots: int) -> Port:
    """A port that sees what crosses `parent`, in the ways the flags of a REGISTER say; slots 0: as many as that has."""
    out, why = ffi.new("struct nm_port **"), _Why()
    slots = Sizes(0, 0, tx_slots, rx_slots).vectors()[1]
    why.check(lib.nm_monitor_create(region.pointer, parent.pointer, flags, slots, out, why.pointer))
    return Port(out[0])


def pipe_ports(region: Region, names: tuple[str, str], sizes: Sizes) -> tuple[Port, Port]:
    """The two ends of a pipe, master first; the sizes are the master's. Neither is closed while the other is used."""
    ends, why = ffi.new("struct nm_port *[2]"), _Why()
    encoded = [ffi.new("char[]", os.fsencode(name)) for name in names]
    rings, slots = sizes.vectors()
    why.check(lib.nm_pipe_create(region.pointer, ffi.new("const char *[]", encoded), rings, slots, ends, why.pointer))
    return Port(ends[0]), Port(ends[1])


class Switch:
    """A VALE switch (ports.h)."""

    def __init__(self) -> None:
        out = ffi.new("struct nm_switch **")
        _Why().check(lib.nm_switch_create(out))
        self.pointer = out[0]

    def join(self, vale: Port) -> int:
        """Puts a VALE port on it; returns its place. Refused ENOMEM: it is full."""
        why = _Why()
        return why.check(lib.nm_vale_join(vale.pointer, self.pointer, why.pointer))

    def attach(self, below: Port, request: bytes) -> "Attachment":
        """Puts any other port on it, with the rings that a REGISTER asks for. Refused as nm_attachment_create."""
        body, out, why = ffi.new("struct nmreq_register *"), ffi.new("struct nm_attachment **"), _Why()
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
        why = _Why()
        why.check(lib.nm_attachment_poll(self.pointer, first_cpu, cpus, why.pointer))

    def destroy(self) -> None:
        lib.nm_attachment_destroy(self.pointer)


class Offsets:
    """What a REGISTER asks for by the option OFFSETS, in bytes and bits, and what became of it."""

    def __init__(self, maximum: int, initial: int, bits: int) -> None:
        initially = {"max_offset": maximum, "initial_offset": initial, "bits": bits, "status": errno.EOPNOTSUPP}
        self.pointer = ffi.new("struct nm_offsets *", initially)

    @property
    def maximum(self) -> int:
        """The largest that may be used on every ring that was bound."""
        return int(self.pointer.max_offset)

    @property
    def status(self) -> int:
        """0, or the errno with which it was refused; EOPNOTSUPP while nothing was decided."""
        return int(self.pointer.status)


class OpenFile:
    """One open file of the device."""

    offsets: Offsets | None = None  # to come with the next `register`

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.file = lib.nm_open_file(pointer)
        self.id = int(lib.nm_open_id(pointer))

    @property
    def perhaps_closing(self) -> bool:
        """close() was called on one of its descriptors, and nothing since."""
        return bool(lib.nm_open_perhaps_closing(self.pointer))

    @property
    def mappable(self) -> bool:
        """Whether the kernel maps the memory for it; otherwise the program needs the helper."""
        return bool(lib.nm_open_mappable(self.pointer))

    def bound(self, direction: str) -> range:
        """The rings of a direction that it holds once it is registered."""
        index = DIRECTIONS[direction]
        return range(self.file.first[index], self.file.last[index])

    @property
    def registered(self) -> bool:
        return bool(self.file.port != ffi.NULL)

    @property
    def rings(self) -> int:
        """How many rings it has bound, of both directions."""
        return sum(len(self.bound(direction)) for direction in DIRECTIONS)

    @property
    def exclusive(self) -> bool:
        """Nobody else may bind its rings."""
        return bool(self.file.exclusive)

    @property
    def has_csb(self) -> bool:
        """The program keeps the indices of its rings in its own memory."""
        return bool(self.file.csb.atok)

    @property
    def looping(self) -> bool:
        """A sync loop runs."""
        return bool(self.file.kloop != ffi.NULL)

    @property
    def api(self) -> int:
        """What `speaks` has said last; 0 if nothing."""
        return int(self.file.api)

    def speaks(self, version: int) -> None:
        """The API version of the program, before `register`: it tells the layouts that it knows (ages.h)."""
        self.file.api = min(version, lib.NETMAP_API)

    def register(self, port: Port, request: bytes) -> bytes:
        """Binds rings as an nmreq_register asks; returns it completed. Refused as nm_file_register says."""
        body, why = ffi.new("struct nmreq_register *"), _Why()
        ffi.buffer(body)[:] = request
        if self.offsets:
            lib.nm_file_want_offsets(self.file, self.offsets.pointer)
        why.check(lib.nm_file_register(self.file, port.pointer, body, why.pointer))
        return bytes(ffi.buffer(body))

    def rebind(self, request: bytes) -> bytes:
        """Other rings of the same port for a program of API 5 or before. Refused as nm_file_rebind says."""
        body, why = ffi.new("struct nmreq_register *"), _Why()
        ffi.buffer(body)[:] = request
        why.check(lib.nm_file_rebind(self.file, body, why.pointer))
        return bytes(ffi.buffer(body))

    def deactivate(self) -> None:
        """No sync or poll reaches its rings any more, of a program of API 5 or before."""
        lib.nm_file_deactivate(self.file)

    def activate(self) -> None:
        """From now on its syncs and polls reach the rings that `register` bound, if it did."""
        lib.nm_file_activate(self.file)

    def unregister(self) -> None:
        lib.nm_file_unregister(self.file)

    def destroy(self) -> None:
        """Only once it is released."""
        lib.nm_open_destroy(self.pointer)


POLL = lib.NM_REQUEST_POLL
API_PAGE, API_2011 = int(lib.NM_API_PAGE), int(lib.NM_API_2011)  # what stands for versions that are none (ages.h)


class Request:
    """An ioctl or a poll that waits for an answer, and the memory of its caller.

    Reading and writing are Refused with EFAULT for all that cannot be moved, EINTR once the caller has gone.
    """

    def __init__(self, inbox: Any, pointer: Any) -> None:
        self.inbox = inbox
        self.pointer = pointer
        self.open = OpenFile(pointer.open)
        self.argument = int(pointer.argument)
        self.command = int(pointer.command)
        self.pid = int(pointer.pid)
        self.uid = int(pointer.uid)

    def read(self, address: int, size: int) -> bytes:
        buffer = ffi.new("char[]", size)
        result = lib.nm_request_read(self.inbox, self.pointer, address, buffer, size)
        self._check(result, f"cannot read {size} bytes at {address:#x}")
        return bytes(ffi.buffer(buffer, size))

    def write(self, address: int, data: bytes) -> None:
        result = lib.nm_request_write(self.inbox, self.pointer, address, data, len(data))
        self._check(result, f"cannot write {len(data)} bytes at {address:#x}")

    @staticmethod
    def _check(result: int, reason: str) -> None:
        if result == -errno.EINTR:
            raise Refused(errno.EINTR, "interrupted")
        if result == -errno.EPERM:
            reason = "the kernel forbids reading the program's memory: see `cuse-netmap doctor`"
        elif result == -errno.ESRCH:
            reason = "the program is in a PID namespace that the daemon does not see"
        if result < 0:
            raise Refused(errno.EFAULT, reason)

    @property
    def abandoned(self) -> bool:
        """Whether the caller was interrupted and has got EINTR."""
        return bool(lib.nm_inbox_abandoned(self.inbox, self.pointer))

    def commit(self) -> bool:
        """The caller waits for the answer, which must follow at once; False if it is abandoned."""
        return bool(lib.nm_inbox_commit(self.inbox, self.pointer))

    def sync(self) -> int:
        """A sync or poll whose slots point into the program's memory, or which fails: the answer, poll's events or 0.

        Refused ENXIO when not registered, EBUSY in CSB mode, EIO when the port is gone.
        """
        result = int(lib.nm_request_sync(self.inbox, self.pointer))
        reasons = {
            -errno.ENXIO: "the descriptor is not registered on a port",
            -errno.EBUSY: "the indices of the rings are in the program's memory (CSB), for a sync loop alone",
        }
        return _Why().check(result, reasons.get(result, "the port has disappeared"))

    def enable_csb(self, atok: int, ktoa: int) -> None:
        """From now on the indices of the bound rings are at these addresses, which are filled. May wait for memory."""
        result = lib.nm_csb_enable(self.inbox, self.pointer, atok, ktoa)
        self._check(result, f"the CSB at {atok:#x} and {ktoa:#x} cannot be read and written")

    def start_loop(self, sleep_us: int, mode: int, eventfds: Sequence[int]) -> None:
        """Starts the file's sync loop (kloop.h), which will answer the request; nothing of it may be used any more.

        `eventfds` are the program's, two for each bound ring, or none. Refused as nm_kloop_start says.
        """
        config, why = ffi.new("struct nm_kloop_config *"), _Why()
        numbers = ffi.new("int32_t[]", list(eventfds))
        config.sleep_us, config.mode, config.eventfds = sleep_us, mode, numbers if eventfds else ffi.NULL
        why.check(lib.nm_kloop_start(self.inbox, self.pointer, config, why.pointer))

    def stop_loop(self) -> bool:
        """Ends the file's sync loop, or the next one as it begins: True if that will answer the request once over."""
        return bool(lib.nm_kloop_stop(self.inbox, self.pointer))

    def reply(self, result: int) -> None:
        """Answers with 0, poll's events or a negative errno, and ends the request."""
        lib.nm_inbox_reply(self.inbox, self.pointer, result)


@dataclass(frozen=True)
class TurnedAway:
    """An ioctl that was refused with EBUSY before control saw it: its thread and program, the ioctl and the reason."""

    pid: int
    program: str
    command: int
    reason: str


class Inbox:
    """Where control takes its work from, whatever door it came by (inbox.h)."""

    def __init__(self) -> None:
        out = ffi.new("struct nm_inbox **")
        _Why().check(lib.nm_inbox_create(out), "starting the inbox")
        self.pointer = out[0]

    def next(self) -> Request | TurnedAway | None:
        """The next request, or news of one that did not get in, waiting for it; None once the inbox is shut."""
        out, away = ffi.new("struct nm_request **"), ffi.new("struct nm_turned_away *")
        result = lib.nm_inbox_next(self.pointer, out, away)
        if result < 0:
            return None
        if result:
            return Request(self.pointer, out[0])
        return TurnedAway(away.pid, _text(away.program), away.command, _text(away.reason))

    def next_release(self) -> OpenFile | None:
        """The next released file, waiting for it; None once the inbox is shut."""
        out = ffi.new("struct nm_open **")
        return OpenFile(out[0]) if lib.nm_inbox_next_release(self.pointer, out) > 0 else None

    @property
    def releases_queued(self) -> int:
        return int(lib.nm_inbox_releases_queued(self.pointer))

    def shut(self) -> None:
        """`next` and `next_release` return."""
        lib.nm_inbox_shut(self.pointer)

    def destroy(self) -> None:
        """Only when no thread is inside any more."""
        lib.nm_inbox_destroy(self.pointer)


def loops_ended(seconds: float) -> bool:
    """Waits until no sync loop is left, for so long at most; False if there still is one."""
    return bool(lib.nm_kloops_ended(int(seconds * 1000)))


class Door:
    """A way in (door.h), made by one of the functions below."""

    def __init__(self, pointer: Any) -> None:
        self.pointer = pointer
        self.stopped = False  # all its threads have ended

    @property
    def transport(self) -> str:
        """The one in use: "uring" or "classic"."""
        return _text(lib.nm_door_transport(self.pointer))

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
    out, why = ffi.new("struct nm_door **"), _Why()
    why.check(lib.nm_fuse_door_open(config, region.pointer, inbox.pointer, out, why.pointer))
    return Door(out[0])


def cuse_door(region: Region, inbox: Inbox, name: str) -> Door:
    """The character device /dev/NAME. Refused ENOENT: there is no /dev/cuse; EEXIST: the name is taken."""
    out, why = ffi.new("struct nm_door **"), _Why()
    why.check(lib.nm_cuse_door_open(name.encode(), region.pointer, inbox.pointer, out, why.pointer))
    return Door(out[0])
