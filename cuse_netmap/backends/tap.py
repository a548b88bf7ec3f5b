# SPDX-License-Identifier: BSD-2-Clause
"""The TAP backend's set-up: makes the device, which lives and dies with the daemon, and configures its host side.

The port's wire is the host's network stack: what the host sends on the device arrives in RX rings, what a program
sends the host receives.
"""

import dataclasses
import errno
import fcntl
import os
import select
import socket
import struct
from typing import TYPE_CHECKING

from cuse_netmap.backends import Interface, Place, ethtool
from cuse_netmap.errors import Refused
from cuse_netmap.options import PortOptions, flag, integer, text

if TYPE_CHECKING:
    from cuse_netmap._core import Port

# linux/if_tun.h
TUNSETIFF = 0x400454CA
TUNSETSNDBUF = 0x400454D4
TUNGETIFF = 0x800454D2
TUNSETIFINDEX = 0x400454DA
IFF_TAP = 0x0002
IFF_MULTI_QUEUE = 0x0100
IFF_NO_PI = 0x1000
IFF_TUN_EXCL = 0x8000

LEAST_QUEUE = 1000  # the kernel's own; netmap queues as many frames as the ring has slots


@dataclasses.dataclass(frozen=True)
class Options(PortOptions):
    """[ports.NAME] of the tap backend: a TAP device that we make and own."""

    up: bool = flag(True, live=True)
    mtu: int = integer(1500, 68, 65521, live=True)
    mac: str = text(
        "",
        r"(?!00(:00){5})([0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5})?",
        'a unicast address such as "02:00:00:00:00:01", or "" for one the kernel makes up',
    )
    sndbuf: int = integer(1 << 20, 4096, (1 << 31) - 1)


class TapInterface(Interface):
    """A TAP device and its port."""

    def __init__(self, name: str, index: int, fd: int, port: "Port", description: str) -> None:
        super().__init__(port, description)
        self.name = name
        self.index = index
        self.fd = fd  # one of the port's queues, which close it

    def mtu(self) -> int:
        try:
            return ethtool.mtu(self.index)
        except OSError as error:
            self.port.mark_gone()
            raise Refused(errno.ENXIO, f"the TAP device {self.name} has been deleted") from error

    def device(self) -> tuple[int, int]:
        return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC), self.index

    def deleted(self) -> bool:
        poller = select.poll()
        poller.register(self.fd, 0)
        return bool(poller.poll(0))  # POLLERR: the descriptor has no device any more

    def change(self, key: str, value: object) -> None:
        configure(self.index, self.name, **{key: value})


def configure(index: int, name: str, **settings: object) -> None:
    """Sets up (bool), mtu (bytes), mac and queue (frames kept for the reader). Refused with the kernel's errno."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    keys = {"up": "state", "mtu": "mtu", "mac": "address", "queue": "txqlen"}
    changes = {keys[key]: value for key, value in settings.items() if value != ""}
    if "state" in changes:
        changes["state"] = "up" if changes["state"] else "down"
    try:
        with IPRoute() as netlink:
            netlink.link("set", index=index, **changes)
    except NetlinkError as error:
        raise Refused(error.code, f"configuring {name} ({settings}): {os.strerror(error.code)}") from error


def device_name(fd: int) -> str:
    """The device of a queue's descriptor."""
    answer = fcntl.ioctl(fd, TUNGETIFF, bytes(40))
    return answer[:16].partition(b"\0")[0].decode()


def open_queue(name: str, sndbuf: int, *, first: bool, several: bool, index: int = 0) -> int:
    """One descriptor of the device, which the first of them makes. Refused EBUSY: the name or index is taken.

    The name may have a %d for the kernel to fill in; an index of 0 is the kernel's choice.
    """
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        module = " (modprobe tun)" if error.errno in (errno.ENOENT, errno.ENODEV) else ""
        reason = f"/dev/net/tun: {error.strerror}{module}"
        raise Refused(error.errno or errno.ENODEV, reason) from error
    flags = IFF_TAP | IFF_NO_PI | (IFF_MULTI_QUEUE if several else 0) | (IFF_TUN_EXCL if first else 0)
    try:
        if index:
            fcntl.ioctl(fd, TUNSETIFINDEX, struct.pack("i", index))
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
        fcntl.ioctl(fd, TUNSETSNDBUF, struct.pack("i", sndbuf))
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EBUSY and first:
            reason = f"an interface {name} exists already; a TAP port makes its own: choose another name or delete it"
        else:
            reason = f"making the TAP device {name}: {error.strerror}"
        raise Refused(error.errno or errno.EIO, reason) from error
    return fd


def open_port(place: Place, name: str, options: Options) -> TapInterface:
    from cuse_netmap import _core

    fds: list[int] = []
    try:
        for number in range(options.queues):
            fds.append(open_queue(name, options.sndbuf, first=number == 0, several=options.queues > 1))
        index = socket.if_nametoindex(name)
        queue = max(options.slots, LEAST_QUEUE)
        configure(index, name, mtu=options.mtu, mac=options.mac, queue=queue, up=options.up)
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    port = _core.nic_port(place.region, place.events, name, _core.TAP_BACKEND, _core.tap_queues(fds), options.slots)
    description = f"the wire of a TAP device of ours, {options.queues} ring pair(s) of {options.slots} slots"
    return TapInterface(name, index, fds[0], port, description)
