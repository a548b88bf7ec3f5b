# SPDX-License-Identifier: BSD-2-Clause
"""VALE: which switches there are, what is on them, and the requests that change that (ABI.md sections 4.2 and 12.5)."""

import errno
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from cuse_netmap import _core
from cuse_netmap._core import Attachment, Port, Region, Switch, vale_port
from cuse_netmap.control import names, sizes
from cuse_netmap.control.names import Kind, PortName
from cuse_netmap.control.requests import Mode, NewInterface, PollingMode, Register, ValeList, ValePolling, encode_name
from cuse_netmap.control.sizes import Asked
from cuse_netmap.errors import Refused

log = logging.getLogger(__name__)

NO_PORT = 255  # the port index of a bridge, and of a port that is not there
HEADER_LENGTHS = (0, 10, 12)
# What Linux takes for the name of an interface, but for those that a switch would take for its own.
INTERFACE_NAME = re.compile(rb"(?!vale|\.{1,2}$)[^/:\s\0]{1,15}")


@dataclass
class Member:
    """A port on a switch, by the name it has there. Of an attached interface's, a switch may hold two places."""

    port: Port
    places: list[int]
    attachment: Attachment | None = None  # None: a VALE port that is on it by itself
    ephemeral: bool = False  # made by a program's REGISTER, and gone with its last
    polled: bool = False


@dataclass
class Bridge:
    """A switch under its name, which ends with its last port."""

    name: str
    switch: Switch
    members: dict[str, Member] = field(default_factory=dict)  # by port name, without the switch's

    def places(self) -> Iterator[tuple[str, int]]:
        """Each port's name and place; host rings have the interface's name with a ^."""
        for name, member in self.members.items():
            for place, suffix in zip(member.places, ("", "^"), strict=False):
                yield name + suffix, place


@dataclass
class Persistent:
    """A port made by VALE_NEWIF, and where it is attached: the newest last."""

    port: Port
    seats: list[Bridge] = field(default_factory=list)


class Others(Protocol):
    """The ports that are not VALE's own: interfaces."""

    def exists(self, name: str) -> bool: ...

    def take(self, name: str, *, host: bool) -> Port:
        """Opens one. Refused when that cannot be."""

    def bound(self, port: Port) -> None:
        """Its rings are in use now."""

    def let_go(self, port: Port) -> None:
        """They are not any more."""


class Vale:
    """All switches and persistent ports."""

    def __init__(self, others: Others, max_bridges: Callable[[], int]) -> None:
        self.others = others
        self.bridges: list[Bridge | None] = [None] * max_bridges()
        self.persistent: dict[str, Persistent] = {}

    def bridge(self, name: str) -> Bridge | None:
        return next((bridge for bridge in self.bridges if bridge and bridge.name == name), None)

    def member(self, name: PortName) -> Member | None:
        bridge = self.bridge(name.switch)
        return bridge.members.get(name.port) if bridge else None

    def ports(self) -> Iterator[tuple[str, Port]]:
        """All that are VALE's own, by name: what is attached has its name elsewhere."""
        for bridge in filter(None, self.bridges):
            yield from ((f"{bridge.name}:{name}", one.port) for name, one in bridge.members.items() if one.ephemeral)
        yield from ((name, persistent.port) for name, persistent in self.persistent.items())

    # ---- ports for programs

    def find(self, name: PortName) -> Port:
        """A port that there is. Refused ENXIO."""
        member = self.member(name)
        if member is None:
            raise Refused(errno.ENXIO, f"there is no VALE port {name.name!r}")
        return member.port

    def open(self, name: PortName, region: Region, asked: Asked) -> Port:
        """The port of that name, made if there is none.

        Refused ENOMEM: no name of a VALE port, no switch or place left; EINVAL: an interface that is not attached.
        """
        if member := self.member(name):
            return member.port
        if not name.valid:
            raise Refused(errno.ENOMEM, f"{name.name!r} is no valeX:PORT with a PORT of up to 15 bytes")
        if name.port in self.persistent or self.others.exists(name.port):
            raise Refused(errno.EINVAL, f"{name.port} is an interface that is not attached to {name.switch}")
        port = vale_port(region, name.name, sizes.bounded(asked, sizes.VALE, region))
        try:
            bridge = self._bridge_for(name.switch)
            bridge.members[name.port] = Member(port, [bridge.switch.join(port)], ephemeral=True)
        except Refused:
            port.close()
            raise
        return port

    def settle(self, name: PortName) -> None:
        """An ephemeral port that nobody has open goes, and its switch if it was the last."""
        member = self.member(name)
        if member and member.ephemeral and not member.port.files:
            bridge = self._existing(name)
            del bridge.members[name.port]
            member.port.close()
            self._end_if_empty(bridge)

    def _existing(self, name: PortName) -> Bridge:
        bridge = self.bridge(name.switch)
        if bridge is None:
            raise Refused(errno.ENXIO, f"there is no switch {name.switch!r}")
        return bridge

    def _bridge_for(self, name: str) -> Bridge:
        if bridge := self.bridge(name):
            return bridge
        if None not in self.bridges:
            reason = f"there are {len(self.bridges)} switches already, which is the limit (max_bridges)"
            raise Refused(errno.ENOMEM, reason)
        bridge = Bridge(name, Switch())
        self.bridges[self.bridges.index(None)] = bridge
        return bridge

    def _end_if_empty(self, bridge: Bridge) -> None:
        if not bridge.members:
            self.bridges[self.bridges.index(bridge)] = None
            bridge.switch.destroy()

    # ---- persistent ports

    def create(self, name: str, region: Region, asked: NewInterface) -> NewInterface:
        """VALE_NEWIF. Refused EINVAL: no name for an interface; EEXIST: there is one of that name."""
        if not INTERFACE_NAME.fullmatch(encode_name(name)):
            raise Refused(errno.EINVAL, f"{name!r} cannot be the name of a persistent port")
        if name in self.persistent or self.others.exists(name) or _host_has(name):
            raise Refused(errno.EEXIST, f"there is an interface {name} already")
        port = vale_port(region, name, sizes.bounded(asked, sizes.VALE, region))
        self.persistent[name] = Persistent(port)
        log.info("persistent port %s made", name)
        had = port.sizes
        return NewInterface(had.tx_slots, had.rx_slots, had.tx_rings, had.rx_rings, asked.mem_id)

    def delete(self, name: str) -> None:
        """VALE_DELIF. Refused ENXIO: no such interface; EINVAL: not made by VALE_NEWIF; EBUSY: attached or open."""
        persistent = self.persistent.get(name)
        if persistent is None:
            if self.others.exists(name) or _host_has(name):
                raise Refused(errno.EINVAL, f"{name} was not made by VALE_NEWIF")
            raise Refused(errno.ENXIO, f"there is no interface {name!r}")
        if persistent.seats:
            raise Refused(errno.EBUSY, f"{name} is attached to {persistent.seats[-1].name}")
        if persistent.port.files:
            raise Refused(errno.EBUSY, f"{persistent.port.files} program(s) have {name} open")
        del self.persistent[name]
        persistent.port.close()
        log.info("persistent port %s deleted", name)

    # ---- attach and detach

    def attach(self, name: PortName, asked: Register) -> int:
        """VALE_ATTACH: the place on the switch.

        Refused EINVAL: not valeX:INTERFACE, no such interface, or not all its rings; EBUSY: attached already, or open;
        ENOMEM: no name of a switch, no switch or place left.
        """
        if name.kind is not Kind.VALE:
            raise Refused(errno.EINVAL, f"{name.name!r} names no port of a VALE switch")
        if not name.valid:
            raise Refused(errno.ENOMEM, f"{name.name!r} is no name of a VALE port")
        if asked.mode not in (Mode.ALL_NIC, Mode.NIC_SW) or asked.ringid:
            raise Refused(errno.EINVAL, "a switch takes all rings of an interface, with or without those of the host")
        if self.member(name):
            raise Refused(errno.EBUSY, f"{name.name} is attached already")
        persistent = self.persistent.get(name.port)
        port = persistent.port if persistent else self._attachable(name.port, host=asked.mode == Mode.NIC_SW)
        try:
            member = self._plug(name, port, persistent, asked)
        except Refused:
            self.others.let_go(port)
            raise
        log.info("%s attached", name.name)
        return member.places[0]

    def _plug(self, name: PortName, port: Port, persistent: Persistent | None, asked: Register) -> Member:
        if port.files:
            raise Refused(errno.EBUSY, f"{name.port} is open or attached elsewhere")
        bridge = self._bridge_for(name.switch)
        try:
            if persistent and not persistent.seats:
                member = Member(port, [bridge.switch.join(port)])
            else:
                mode = Mode.ALL_NIC if persistent else asked.mode
                attachment = bridge.switch.attach(port, Register(mode=mode).encode())
                member = Member(port, attachment.places, attachment)
                self.others.bound(port)
        except Refused:
            self._end_if_empty(bridge)
            raise
        bridge.members[name.port] = member
        if persistent:
            persistent.seats.append(bridge)
        return member

    def _attachable(self, name: str, *, host: bool) -> Port:
        if not self.others.exists(name):
            raise Refused(errno.EINVAL, f"there is no interface {name!r}")
        try:
            return self.others.take(name, host=host)
        except Refused as refusal:
            raise Refused(errno.EINVAL, refusal.reason) from refusal

    def detach(self, name: PortName) -> int:
        """VALE_DETACH: the place it had.

        Refused EINVAL: not valeX:INTERFACE, or a program's own port; ENXIO: not attached; EBUSY: polled, or attached
        to another switch since.
        """
        if name.kind is not Kind.VALE:
            raise Refused(errno.EINVAL, f"{name.name!r} names no port of a VALE switch")
        member, persistent = self.member(name), self.persistent.get(name.port)
        if member is None:
            raise Refused(errno.ENXIO, f"{name.name} is not attached")
        bridge = self._existing(name)
        if member.ephemeral:
            raise Refused(errno.EINVAL, f"{name.name} belongs to the program that has it open")
        if member.polled:
            raise Refused(errno.EBUSY, f"{name.name} is polled")
        if persistent and persistent.seats[-1] is not bridge:
            newest = persistent.seats[-1].name
            raise Refused(errno.EBUSY, f"{name.port} was attached to {newest} since: detach it there first")
        del bridge.members[name.port]
        if member.attachment:
            member.attachment.destroy()
        else:
            _core.leave_switch(member.port)
        if persistent:
            persistent.seats.pop()
        self.others.let_go(member.port)
        self._end_if_empty(bridge)
        log.info("%s detached", name.name)
        return member.places[0]

    def drop(self, port: Port) -> None:
        """An attached interface is no more: off its switch."""
        for bridge in [bridge for bridge in self.bridges if bridge]:
            for name, member in list(bridge.members.items()):
                if member.port is port and member.attachment:
                    member.attachment.destroy()
                    del bridge.members[name]
                    log.info("%s:%s detached: the interface is no more", bridge.name, name)
            self._end_if_empty(bridge)

    # ---- the other requests

    def list(self, name: str, asked: ValeList) -> tuple[str, ValeList]:
        """VALE_LIST: of a name, where it is; else the first port at or after the indices, with its name.

        Refused ENOENT: no such switch, no further port; EINVAL: not a VALE name.
        """
        if name:
            parsed = names.parse(name)
            bridge = self.bridge(parsed.switch or name)
            if not name.startswith("vale"):
                raise Refused(errno.EINVAL, f"{name!r} is no name of a VALE switch")
            if bridge is None:
                raise Refused(errno.ENOENT, f"there is no switch {parsed.switch!r}")
            places = dict(bridge.places())
            return name, ValeList(self.bridges.index(bridge), places.get(parsed.port, NO_PORT))
        for index in range(asked.bridge_idx, len(self.bridges)):
            first = asked.port_idx if index == asked.bridge_idx else 0
            if found := self._first_port(index, first):
                return found
        raise Refused(errno.ENOENT, "there is no further VALE port", expected=True)

    def _first_port(self, index: int, first: int) -> tuple[str, ValeList] | None:
        bridge = self.bridges[index]
        if bridge is None:
            return None
        found = min(((place, name) for name, place in bridge.places() if place >= first), default=None)
        return (f"{bridge.name}:{found[1]}", ValeList(index, found[0])) if found else None

    def set_header(self, name: str, length: int) -> None:
        """PORT_HDR_SET. Refused EINVAL: no length of a virtio-net header; ENXIO: no VALE port."""
        if length not in HEADER_LENGTHS:
            raise Refused(errno.EINVAL, f"a virtio-net header has 0, 10 or 12 bytes, not {length}")
        parsed, persistent = names.parse(name), self.persistent.get(name)
        port = persistent.port if persistent else self.find(parsed)
        if not _is_vale(port):
            raise Refused(errno.ENXIO, f"{name} is no VALE port, and only those have a virtio-net header")
        _core.set_vale_header(port, length)

    def header(self, port: Port) -> int:
        """Bytes of the virtio-net header of any kind of port."""
        return _core.vale_header(port) if _is_vale(port) else 0

    def poll(self, name: PortName, asked: ValePolling | None) -> None:
        """VALE_POLLING_ENABLE, or with None VALE_POLLING_DISABLE.

        Refused EINVAL: not a VALE name, or CPUs that are not there; ENXIO: not attached; EOPNOTSUPP: a VALE port;
        EFAULT: polled already, or not polled.
        """
        if name.kind is not Kind.VALE:
            raise Refused(errno.EINVAL, f"{name.name!r} names no port of a VALE switch")
        member = self.member(name)
        if member is None:
            raise Refused(errno.ENXIO, f"{name.name} is not attached")
        if member.attachment is None:
            raise Refused(errno.EOPNOTSUPP, f"{name.name} is a VALE port: nothing there needs polling")
        if member.polled == (asked is not None):
            raise Refused(errno.EFAULT, f"{name.name} is {'' if member.polled else 'not '}polled")
        if asked:
            _check_cpus(asked, member.port.rings("rx"))
            member.attachment.poll(asked.first_cpu, asked.cpus)
        else:
            member.attachment.poll(0, 0)
        member.polled = asked is not None

    def close(self) -> None:
        """When no program can use anything any more."""
        for bridge in [bridge for bridge in self.bridges if bridge]:
            for member in bridge.members.values():
                if member.attachment:
                    member.attachment.destroy()
                elif member.ephemeral:
                    member.port.close()
                else:
                    _core.leave_switch(member.port)
            bridge.switch.destroy()
        for persistent in self.persistent.values():
            persistent.port.close()


def _is_vale(port: Port) -> bool:
    return port.kind == "vale"


def _host_has(name: str) -> bool:
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _check_cpus(asked: ValePolling, rings: int) -> None:
    cpus = os.cpu_count() or 1
    if not 0 < asked.cpus < cpus:
        raise Refused(errno.EINVAL, f"polling by {asked.cpus} of {cpus} CPUs; at least one, and not all")
    if asked.first_cpu + asked.cpus > cpus:
        raise Refused(errno.EINVAL, f"there is no CPU {asked.first_cpu + asked.cpus - 1}")
    match asked.mode:
        case PollingMode.SINGLE_CPU if asked.cpus == 1:
            return
        case PollingMode.MULTI_CPU if asked.first_cpu + asked.cpus <= rings:
            return
    raise Refused(errno.EINVAL, f"polling mode {asked.mode} with {asked.cpus} CPUs does not suit {rings} rings")
