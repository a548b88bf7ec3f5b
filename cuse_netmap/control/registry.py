# SPDX-License-Identifier: BSD-2-Clause
"""Which ports there are, which open file holds which, and when either goes. Called with control's lock held."""

import errno
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cuse_netmap._core import OpenFile, Port, Region, null_port
from cuse_netmap.control import monitors, names
from cuse_netmap.control.names import Kind
from cuse_netmap.control.requests import GLOBAL_MEM_ID, Mode, PortInfo, Register
from cuse_netmap.errors import Refused

log = logging.getLogger(__name__)


@dataclass
class Wire:
    """A configured port: stays from start or reload until it is removed from the configuration."""

    name: str
    port: Port
    mtu: Callable[[], int]  # of the interface now, in bytes; 0 if there is none
    description: str


@dataclass
class Holder:
    """A registered file: who registered it, and on what."""

    open: OpenFile
    port: Port
    name: str
    pid: int
    command: str
    private: bool = False  # the port ends with this file
    in_vain: bool = False  # its program needs the helper to map the memory, and has not used it


def crossed(port: Port) -> str:
    """What has crossed the port since this was last asked and what was dropped or wrong, in words; "" for nothing."""
    counts = port.new_counts()
    if not counts:
        return ""
    sides = []
    for direction, verb in (("rx", "received"), ("tx", "sent")):
        side = {name: counts.pop((direction, name), 0) for name in ("packets", "bytes")}
        lost = [f"{count} {name}" for (way, name), count in sorted(counts.items()) if way == direction]
        dropped = f", dropped {', '.join(lost)}" if lost else ""
        sides.append(f"{verb} {side['packets']} packets, {side['bytes']} bytes{dropped}")
    return "; ".join(sides)


class Registry:
    """The ports of one region."""

    def __init__(self, region: Region) -> None:
        self.region = region
        self.wires: dict[str, Wire] = {}
        self.holders: dict[int, Holder] = {}

    # ---- ports

    def add_wire(self, wire: Wire) -> None:
        self.wires[wire.name] = wire

    def remove_wire(self, name: str) -> None:
        """Programs that hold it get EIO and POLLERR; the port itself ends with the last of them."""
        wire = self.wires.pop(name)
        if wire.port.files:
            wire.port.mark_gone()
            for holder in self.holding(wire.port):
                holder.private = True
        else:
            wire.port.close()

    def holding(self, port: Port) -> Iterator[Holder]:
        return (holder for holder in self.holders.values() if holder.port is port)

    def check_mem_id(self, mem_id: int) -> None:
        if mem_id not in (0, GLOBAL_MEM_ID):
            raise Refused(errno.EINVAL, f"there is no memory region {mem_id}")

    def find(self, name: str, mode: int, flags: int) -> Wire:
        """The existing port of that name; Refused ENXIO."""
        parsed = names.parse(name, mode, flags)
        wire = self.wires.get(name)
        if parsed.kind is not Kind.INTERFACE:
            raise Refused(errno.ENXIO, f"there is no {parsed.kind.value} {name!r}")
        if wire is None:
            known = ", ".join(sorted(self.wires)) or "none"
            raise Refused(errno.ENXIO, f"there is no port {name!r} (configured: {known})")
        if wire.port.gone:
            raise Refused(errno.ENXIO, f"the interface behind {name} has disappeared")
        return wire

    # ---- files

    def register(self, open_file: OpenFile, name: str, request: Register, pid: int, command: str) -> Register:
        """REGISTER. Refused as ABI.md section 7 says; the answer is the request, completed."""
        if open_file.id in self.holders:
            raise Refused(errno.EBUSY, "this descriptor is bound to a port already")
        self.check_mem_id(request.mem_id)
        kind = names.parse(name, request.mode, request.flags).kind
        private = kind in (Kind.NULL, Kind.MONITOR)
        port = self._open(kind, name, request)
        try:
            answer = Register.decode(open_file.register(port, request.encode()))
        except Refused:
            if private:
                port.close()
            raise
        answer.mem_id = GLOBAL_MEM_ID
        in_vain = not open_file.mappable and not any(
            h.command == command and not h.in_vain for h in self.holders.values()
        )
        self.holders[open_file.id] = Holder(open_file, port, name, pid, command, private, in_vain)
        return answer

    def _open(self, kind: Kind, name: str, request: Register) -> Port:
        match kind:
            case Kind.NULL:
                return self._new_null_port(name, request)
            case Kind.MONITOR:
                return monitors.open_port(name, request, lambda parent: self.find(parent, Mode.ALL_NIC, 0).port)
            case _:
                return self._interface(name, request)

    def _interface(self, name: str, request: Register) -> Port:
        wire = self.find(name, request.mode, request.flags)
        if not wire.port.files:
            wire.port.set_mtu(wire.mtu())
        return wire.port

    def _new_null_port(self, name: str, request: Register) -> Port:
        if request.mem_id == 0:
            raise Refused(errno.EINVAL, "a null port needs the id of a memory region")
        rings = {"tx": request.tx_rings, "rx": request.rx_rings}
        slots = {"tx": request.tx_slots, "rx": request.rx_slots}
        return null_port(self.region, f"null:{name}", rings, slots)

    def map(self, open_file: OpenFile) -> None:
        """Its program maps the memory through the helper. Refused EINVAL: it is not registered."""
        holder = self.holders.get(open_file.id)
        if holder is None:
            raise Refused(errno.EINVAL, "the descriptor is not registered on a port")
        # One map serves all descriptors of a program.
        for other in self.holders.values():
            other.in_vain &= other.command != holder.command

    def release(self, open_file: OpenFile) -> Holder | None:
        """Gives back all that the file held; returns what that was."""
        holder = self.holders.pop(open_file.id, None)
        if holder is None:
            return None
        if holder.port.files == 1 and (what := crossed(holder.port)):
            log.info("%s: %s", holder.name, what)
        holder.open.unregister()
        if holder.private and not holder.port.files:
            holder.port.close()
        return holder

    def perhaps_closing(self, name: str | None) -> bool:
        """Whether somebody who holds the port of that name, or with None any, is perhaps just closing it."""
        holders = (holder for holder in self.holders.values() if name in (None, holder.name))
        return any(holder.open.perhaps_closing for holder in holders)

    # ---- information

    def port_info(self, name: str, mem_id: int) -> PortInfo:
        """PORT_INFO_GET: an empty name asks for the memory only."""
        self.check_mem_id(mem_id)
        info = PortInfo(memsize=self.region.size, mem_id=GLOBAL_MEM_ID)
        if not name:
            return info
        port = self.find(name, Mode.ALL_NIC, 0).port
        info.tx_slots, info.rx_slots = port.slots("tx"), port.slots("rx")
        info.tx_rings, info.rx_rings = port.rings("tx"), port.rings("rx")
        info.host_tx_rings, info.host_rx_rings = port.host_rings("tx"), port.host_rings("rx")
        return info

    def close(self) -> None:
        """When no file can be used any more."""
        for holder in list(self.holders.values()):
            self.release(holder.open)
        for name in list(self.wires):
            self.remove_wire(name)
