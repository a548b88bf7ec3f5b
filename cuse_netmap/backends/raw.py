# SPDX-License-Identifier: BSD-2-Clause
"""The raw backend's set-up: any Ethernet interface of the kernel's, through AF_PACKET sockets.

While programs have its NIC rings the interface is disconnected from its host stack (steer.py); its addresses, flags and
offloads are left to whoever set them.
"""

import dataclasses
import errno
import os
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Literal, cast

from cuse_netmap.backends import Interface, Place, ethtool
from cuse_netmap.errors import Refused
from cuse_netmap.namespace import network_namespace
from cuse_netmap.options import DeviceOptions

if TYPE_CHECKING:
    from cuse_netmap._core import Port

ARPHRD_ETHER = 1
ARPHRD_LOOPBACK = 772
LINK_HEADERS = 18  # bytes before the MTU counts: Ethernet and one VLAN tag
MOST_QUEUES = 16
LEAST_SLOTS = 3  # a driver that says fewer says nothing
DEFAULT_SLOTS = 1024


@dataclasses.dataclass(frozen=True)
class Options(DeviceOptions):
    """[ports.NAME] of the raw backend."""


@dataclasses.dataclass(frozen=True)
class Link:
    """An interface as the kernel describes it."""

    name: str
    index: int
    mtu: int
    ether: bool
    master: int
    xdp: bool


def look_up(name: str) -> Link:
    """In this thread's network namespace. Refused ENXIO."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    try:
        index = socket.if_nametoindex(name)
        with IPRoute() as netlink:
            link: Any = netlink.get_links(index)[0]
    except (OSError, NetlinkError, UnicodeError) as error:
        raise Refused(errno.ENXIO, f"there is no interface {name!r}") from error
    xdp = link.get_attr("IFLA_XDP")
    return Link(
        name=name,
        index=index,
        mtu=int(link.get_attr("IFLA_MTU")),
        ether=link["ifi_type"] in (ARPHRD_ETHER, ARPHRD_LOOPBACK),
        master=int(link.get_attr("IFLA_MASTER") or 0),
        xdp=bool(xdp and xdp.get_attr("IFLA_XDP_ATTACHED")),
    )


def check_free(link: Link) -> None:
    """Refused EINVAL: frames without an Ethernet header; EBUSY: somebody else takes what it receives."""
    if not link.ether:
        raise Refused(errno.EINVAL, f"{link.name} is no Ethernet device")
    if link.master:
        raise Refused(errno.EBUSY, f"{link.name} is a port of {socket.if_indextoname(link.master)}")
    if link.xdp:
        raise Refused(errno.EBUSY, f"{link.name} has an XDP program (ip link set dev {link.name} xdp off)")


class KernelInterface(Interface):
    """An interface of the kernel's, and its port."""

    def __init__(self, place: Place, link: Link, port: "Port", description: str) -> None:
        from cuse_netmap.backends.steer import Steering

        super().__init__(port, description)
        self.link = link
        self.host_rings = (0, 0)
        self.stays = False  # connected or not as it is
        with ExitStack() as undo:
            self.namespace = os.dup(place.namespace)
            undo.callback(os.close, self.namespace)
            on_exit = cast('Literal["restore", "block"]', place.on_exit)
            self.steering = Steering(link.name, place.namespace, on_exit=on_exit)
            undo.callback(self.steering.close)
            self.undo = undo.pop_all()

    def mtu(self) -> int:
        try:
            with network_namespace(self.namespace):
                return ethtool.mtu(self.link.index)
        except OSError as error:
            if error.errno not in (errno.ENXIO, errno.ENODEV):
                raise Refused(error.errno or errno.EIO, f"the interface {self.link.name}: {error.strerror}") from error
            self.port.mark_gone()
            raise Refused(errno.ENXIO, f"the interface {self.link.name} has disappeared") from error

    def device(self) -> tuple[int, int]:
        return os.dup(self.namespace), self.link.index

    def deleted(self) -> bool:
        with suppress(Refused):
            self.mtu()
        return self.port.gone

    def follow(self) -> None:
        if self.port.gone:
            return
        try:
            self.port.set_mtu(self.steering.follow())
        except Refused:
            self.port.mark_gone()

    def want_host_rings(self, tx: int, rx: int) -> None:
        from cuse_netmap import _core

        if self.port.in_use(host=True) or self.host_rings == (tx, rx):
            return
        # What the host sends is spread over all queues of the TAP: each needs a ring that receives.
        fds = self.steering.open_tap(rx, self.port.slots("rx"))
        fds += [os.dup(fds[ring % rx]) for ring in range(rx, tx)]
        _core.set_host_rings(self.port, _core.TAP_BACKEND, _core.tap_queues(fds))
        self.host_rings = (tx, rx)

    def end(self) -> None:
        self.stays = self.steering.block

    def bound(self, *, nic: bool, host: bool) -> None:
        from cuse_netmap import _core

        if self.stays:
            return
        try:
            self.steering.set(nic=nic, host=host)
        except Refused as refusal:
            if refusal.errno != errno.ENXIO or nic or host:
                raise  # of an interface that has gone, nothing is left to be connected
        if not host and any(self.host_rings):
            _core.set_host_rings(self.port, _core.TAP_BACKEND, ())
            self.host_rings = (0, 0)

    def close(self) -> None:
        super().close()
        self.undo.close()


def slots_of(name: str) -> int:
    """Of a ring of the interface, in this thread's network namespace."""
    ring = ethtool.ring_size(name)
    return ring if ring >= LEAST_SLOTS else DEFAULT_SLOTS


def open_queues(link: Link, count: int, slots: int) -> list[Any]:
    """Packet sockets, in this thread's network namespace. Refused with the errno of what failed."""
    from cuse_netmap import _core

    # Drivers count from 1 where they say which queue a packet came by; veth hands on its sender's count from 0.
    first = 0 if ethtool.driver(link.name) == "veth" else 1
    frames = max(slots, DEFAULT_SLOTS)
    queues: list[Any] = []
    with ExitStack() as undo:
        undo.callback(_core.close_queues, _core.RAW_BACKEND, queues)
        for queue in range(count):
            wanted = _core.RawQueue(link.index, link.mtu + LINK_HEADERS, frames, queue, count, first)
            queues.append(wanted.open())
        undo.pop_all()
    return queues


def open_port(place: Place, name: str, options: Options) -> Interface:
    from cuse_netmap import _core

    del options
    with ExitStack() as undo, network_namespace(place.namespace):
        link = look_up(name)
        check_free(link)
        count = min(max(ethtool.channels(name)), MOST_QUEUES)
        slots = slots_of(name)
        queues = open_queues(link, count, slots)
        port = _core.nic_port(place.region, place.events, name, _core.RAW_BACKEND, queues, slots)
        undo.callback(port.close)
        port.set_mtu(link.mtu)
        description = f"raw, {count} ring pair(s) of {slots} slots"
        interface = KernelInterface(place, link, port, description)
        undo.pop_all()
        return interface
