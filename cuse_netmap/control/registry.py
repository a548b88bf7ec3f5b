# SPDX-License-Identifier: BSD-2-Clause
"""Which ports there are, which open file holds which, and when either goes. Called with control's lock held."""

import errno
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cuse_netmap import _core
from cuse_netmap._core import OpenFile, Port, Region, Sizes, null_port
from cuse_netmap.backends import Interface
from cuse_netmap.control import monitors, names
from cuse_netmap.control.ages import CHANGING, WHOLE
from cuse_netmap.control.interfaces import Interfaces
from cuse_netmap.control.names import Kind, PortName
from cuse_netmap.control.parameters import Parameters
from cuse_netmap.control.pipes import Pipes
from cuse_netmap.control.regions import Regions
from cuse_netmap.control.requests import GLOBAL_MEM_ID, Flag, Mode, PortInfo, Register
from cuse_netmap.control.sizes import Asked
from cuse_netmap.control.vale import Vale
from cuse_netmap.errors import Refused

log = logging.getLogger(__name__)

HOST_MODES = (Mode.SW, Mode.NIC_SW, Mode.ONE_SW)
MOST_HOST_RINGS = 16


class Wanted(Asked, Protocol):
    """What REGISTER and PORT_INFO_GET say of a port that may have to be made."""

    mem_id: int


@dataclass
class Wire:
    """A configured port: stays from start or reload until it is removed from the configuration."""

    name: str
    interface: Interface
    backend: str = ""

    @property
    def port(self) -> Port:
        return self.interface.port

    @property
    def description(self) -> str:
        return self.interface.description


@dataclass
class Holder:
    """A registered file: who registered it, and on what."""

    open: OpenFile
    port: Port
    parsed: PortName
    pid: int
    command: str
    in_vain: bool = False  # its program needs the helper to map the memory, and has not used it
    uid: int = 0

    @property
    def name(self) -> str:
        return self.parsed.name


@dataclass(frozen=True)
class PortView:
    """A port to look at: `backend` is what moves its frames, "" if there is no such thing."""

    port: Port
    backend: str = ""
    description: str = ""
    facts: Callable[[], dict[str, object]] = dict


@dataclass(frozen=True)
class SwitchView:
    """A VALE switch to look at: the place of each port, and the place that each address was last seen at."""

    places: dict[str, int]
    learned: Callable[[], dict[str, int]]


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
    """All ports, whatever made them and whatever region they live in."""

    def __init__(self, region: Region, parameters: Parameters, open_interface: Callable[[str, int], Interface]) -> None:
        self.regions = Regions(region)
        self.parameters = parameters
        self.wires: dict[str, Wire] = {}
        self.news = threading.Condition(_core.exclusive)  # of releases, and of interfaces
        self.interfaces = Interfaces(open_interface, self.news, self._taken_whole)
        self.pipes = Pipes()
        self.vale = Vale(self, lambda: parameters.value("max_bridges"))
        self.holders: dict[int, Holder] = {}

    # ---- wires

    def add_wire(self, wire: Wire) -> None:
        self.interfaces.adopt(wire.name, wire.interface)
        self.wires[wire.name] = wire

    def remove_wire(self, name: str) -> None:
        """Programs that hold it get EIO and POLLERR; the port itself ends with the last of them."""
        wire = self.wires.pop(name)
        if wire.port.attached:
            self.vale.drop(wire.port)
        if wire.port.files:
            wire.port.mark_gone()
        self.interfaces.forsake(wire.port)

    def _wire(self, name: str) -> Wire:
        wire = self.wires.get(name)
        if wire is None:
            known = ", ".join(sorted(self.wires)) or "none"
            raise Refused(errno.ENXIO, f"there is no port {name!r} (configured: {known})")
        if wire.port.gone:
            raise Refused(errno.ENXIO, f"the interface behind {name} has disappeared")
        return wire

    # ---- ports

    def find(self, name: str) -> Port:
        """The existing port of that name; of an interface that nobody has open there is none yet.

        Refused ENXIO, or ENODEV of a pipe.
        """
        parsed = names.parse(name)
        match parsed.kind:
            case Kind.PIPE:
                return self.pipes.find(parsed)
            case Kind.VALE:
                return self.vale.find(parsed)
        if persistent := self.vale.persistent.get(name):
            return persistent.port
        port = self.interfaces.find(name)
        return port if port and (self.interfaces.abroad or name not in self.wires) else self._wire(name).port

    def header(self, name: str) -> int:
        """Bytes of a port's virtio-net header; interfaces have none. Refused as `find`."""
        if names.parse(name).kind is Kind.INTERFACE and name not in self.vale.persistent and self.exists(name):
            return 0
        return self.vale.header(self.find(name))

    def _open(self, name: PortName, asked: Wanted) -> Port:
        """The port of that name, made for the program that asks if it is of a kind that is; then it must be settled.

        It is made in the region that is asked for, a pipe in that of its parent. Refused EINVAL: no such region.
        """
        region = self.regions.find(asked.mem_id)
        match name.kind:
            case Kind.PIPE:
                parent = self._parent(name.parent)
                return self.pipes.open(name, self.regions.of(parent) if parent else region, parent, asked)
            case Kind.VALE:
                return self.vale.open(name, region, asked)
            case Kind.NULL:
                sizes = Sizes(asked.tx_rings, asked.rx_rings, asked.tx_slots, asked.rx_slots)
                return null_port(region, f"null:{name.name}", sizes)
            case _:
                return self._interface(name.name)

    def _monitor(self, name: str, request: Register) -> Port:
        """Refused EINVAL: no such region, although a monitor lives where it must."""
        self.regions.find(request.mem_id)
        return monitors.open_port(name, request, self.regions.find(GLOBAL_MEM_ID), self.find)

    def _parent(self, name: str) -> Port | None:
        """Of a pipe: it need not be open, nor exist."""
        try:
            return self.find(name)
        except Refused:
            return None

    def _settle(self, name: PortName, port: Port) -> None:
        """What was made for programs goes with the last of them."""
        match name.kind:
            case Kind.PIPE:
                self.pipes.settle(name)
            case Kind.VALE:
                self.vale.settle(name)
            case Kind.INTERFACE:
                self.let_go(port)
            case _ if not port.files:
                port.close()

    # ---- interfaces

    def exists(self, name: str) -> bool:
        """There is an interface of that name, VALE's own not counted."""
        return name in self.wires or self.interfaces.exists(name)

    def _interface(self, name: str) -> Port:
        """The port of an interface, opened if need be. A program elsewhere has its own interfaces first."""
        persistent = self.vale.persistent.get(name)
        if persistent:
            return persistent.port
        if self.interfaces.abroad or not self.interfaces.is_configured(name):
            port = self.interfaces.open(name)
            if port:
                return port
        wire = self._wire(name)
        self.interfaces.wait_for(wire.port)
        if not wire.port.files:
            wire.port.set_mtu(wire.interface.mtu())
        return wire.port

    def take(self, name: str, *, host: bool) -> Port:
        """The port of an interface for a switch, with its host rings or not. Refused as `open` says."""
        port = self._interface(name)
        if host:
            self._want_host_rings(port, 1, 1)
        return port

    def disappeared(self, port: Port) -> None:
        """An interface that is no more leaves its switch."""
        if port.attached:
            self.vale.drop(port)
            self.let_go(port)

    def _want_host_rings(self, port: Port, tx: int, rx: int) -> None:
        """So many are asked for, which only the first who opens the port has a say in."""
        if port.files:
            tx, rx = port.host_rings("tx"), port.host_rings("rx")
        self.interfaces.want_host_rings(port, *(min(max(count, 1), MOST_HOST_RINGS) for count in (tx, rx)))

    def bound(self, port: Port) -> None:
        """Rings of an interface have been bound: its host stack is to be told."""
        self.interfaces.touch(port)

    def _taken_whole(self, port: Port) -> bool:
        """A program of a time has it when any ring took the whole interface from the host."""
        return any(holder.port is port and holder.open.api in WHOLE for holder in self.holders.values())

    def let_go(self, port: Port) -> None:
        """Somebody has left the port: its interface is to get back what nobody uses any more."""
        self.interfaces.touch(port)

    # ---- files

    def register(self, open_file: OpenFile, name: str, request: Register, pid: int, command: str) -> Register:
        """REGISTER. Refused as ABI.md section 7 says; the answer is the request, completed."""
        if open_file.id in self.holders:
            raise Refused(errno.EBUSY, "this descriptor is bound to a port already")
        parsed = names.parse(name, request.mode, request.flags)
        if parsed.kind is Kind.NULL and request.mem_id == 0:
            raise Refused(errno.EINVAL, "a null port needs the id of a memory region")
        port = self._monitor(name, request) if parsed.kind is Kind.MONITOR else self._open(parsed, request)
        try:
            if request.mode in HOST_MODES:
                self._want_host_rings(port, request.host_tx_rings, request.host_rx_rings)
            if self.vale.header(port) and not request.flags & Flag.ACCEPT_VNET_HDR:
                raise Refused(errno.EIO, f"{name} has a virtio-net header, which the program does not accept")
            answer = Register.decode(open_file.register(port, request.encode()))
            self.bound(port)
        except Refused:
            open_file.unregister()
            self._settle(parsed, port)
            raise
        answer.mem_id = self.regions.id_of(port)
        in_vain = answer.mem_id == GLOBAL_MEM_ID and not open_file.mappable
        in_vain &= not any(h.command == command and not h.in_vain for h in self.holders.values())
        self.holders[open_file.id] = Holder(open_file, port, parsed, pid, command, in_vain)
        return answer

    def rebind(self, open_file: OpenFile, name: str, request: Register, version: int) -> Register:
        """NIOCREGIF once more, of API 5 and before: other rings of the same port. Refused EBUSY: of another."""
        holder = self.holders[open_file.id]
        if version != open_file.api or name not in ("", holder.name):
            raise Refused(errno.EBUSY, f"this descriptor is bound to {holder.name} already")
        self.interfaces.wait_for(holder.port)
        if request.mode in HOST_MODES:
            self._want_host_rings(holder.port, request.host_tx_rings, request.host_rx_rings)
        answer = Register.decode(open_file.rebind(request.encode()))
        self.let_go(holder.port)
        answer.mem_id = self.regions.id_of(holder.port)
        return answer

    def unregister(self, open_file: OpenFile) -> Holder:
        """NIOCUNREGIF, of API 5 and before. Refused ENXIO: it is not registered."""
        if open_file.registered:
            open_file.deactivate()
        holder = self.release(open_file)
        if holder is None:
            raise Refused(errno.ENXIO, "the descriptor is not registered on a port")
        return holder

    def device(self, open_file: OpenFile) -> tuple[int, int]:
        """The network interface that the file is bound to, as Interface.device says. Refused EOPNOTSUPP: none."""
        holder = self.holders.get(open_file.id)
        behind = holder and self.interfaces.of(holder.port)
        device = behind and behind.interface and behind.interface.device()
        if not device:
            raise Refused(errno.EOPNOTSUPP, "the descriptor is bound to no network interface")
        return device

    def map(self, open_file: OpenFile) -> None:
        """Its program maps the memory through the helper. Refused EINVAL: it is not registered, unless it is so old."""
        holder = self.holders.get(open_file.id)
        if holder is None and open_file.api in CHANGING:
            return
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
        last = holder.port.files == 1
        holder.open.unregister()
        if last and (what := crossed(holder.port)):  # now that nothing more can
            log.info("%s: %s", holder.name, what)
        self._settle(holder.parsed, holder.port)
        self.regions.sweep()
        return holder

    def perhaps_closing(self, name: str | None) -> bool:
        """Whether somebody who holds what that name concerns, or with None anybody, is perhaps just closing it."""
        wanted = None if name is None else names.concerns(name)
        holders = (holder for holder in self.holders.values() if wanted in (None, names.concerns(holder.name)))
        return any(holder.open.perhaps_closing for holder in holders)

    # ---- information

    def ports(self) -> dict[str, PortView]:
        """All ports by name.

        One that only a descriptor has, such as a null port, or whose name is another's by now, has that descriptor's
        number in its name.
        """
        found = {
            name: PortView(wire.port, wire.backend, wire.description, wire.interface.facts)
            for name, wire in self.wires.items()
        }
        found |= {name: PortView(port) for name, port in (*self.vale.ports(), *self.pipes.ports())}
        for name, port, interface in self.interfaces.ports():
            found.setdefault(name, PortView(port, description=interface.description, facts=interface.facts))
        known = {id(view.port) for view in found.values()}
        for number, holder in self.holders.items():
            if id(holder.port) not in known:
                found[f"{holder.name}#{number}"] = PortView(holder.port)
        return found

    def port_of(self, holder: Holder) -> str:
        """The name of a holder's port among `ports`."""
        return next((name for name, view in self.ports().items() if view.port is holder.port), holder.name)

    def switches(self) -> dict[str, SwitchView]:
        """All VALE switches by name."""
        return {
            bridge.name: SwitchView(dict(bridge.places()), bridge.switch.learned)
            for bridge in self.vale.bridges
            if bridge
        }

    def port_info(self, name: str, asked: PortInfo) -> PortInfo:
        """PORT_INFO_GET: an empty name asks for the memory only."""
        info = PortInfo(memsize=self.regions.find(asked.mem_id).size, mem_id=asked.mem_id or GLOBAL_MEM_ID)
        if not name:
            return info
        parsed = names.parse(name)
        port = self._open(parsed, asked)
        info.mem_id = self.regions.id_of(port)
        info.memsize = self.regions.of(port).size
        had = port.sizes
        info.tx_slots, info.rx_slots, info.tx_rings, info.rx_rings = (
            had.tx_slots,
            had.rx_slots,
            had.tx_rings,
            had.rx_rings,
        )
        info.host_tx_rings, info.host_rx_rings = port.host_rings("tx"), port.host_rings("rx")
        self._settle(parsed, port)
        return info

    def end(self) -> None:
        """The daemon is about to end."""
        self.interfaces.end()

    def close(self) -> None:
        """When no file can be used any more."""
        for holder in list(self.holders.values()):
            self.release(holder.open)
        self.vale.close()
        self.interfaces.close()
        self.regions.sweep()
