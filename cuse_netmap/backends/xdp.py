# SPDX-License-Identifier: BSD-2-Clause
"""The xdp backend's set-up: an Ethernet interface of the kernel's through AF_XDP sockets, whose memory is the pool.

The best of three ways that the driver and the kernel can; steer.py disconnects the host stack, as it does for raw.
"""

import dataclasses
import errno
import logging
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from cuse_netmap.backends import Interface, Place, ethtool, raw
from cuse_netmap.errors import Refused
from cuse_netmap.namespace import network_namespace
from cuse_netmap.options import DeviceOptions, choice, integer

if TYPE_CHECKING:
    from cuse_netmap._core import Port, XdpQueues

log = logging.getLogger(__name__)

# What a configuration may say: the first is the default. Of buffers the least and the most too.
MODES = ("auto", "zerocopy", "native", "generic")
BUFFERS = (32768, 4096, 1000000)

MOST_FRAME = 4096 - 256  # bytes: a page, less what XDP keeps before a frame

# What "auto" tries; the first is zerocopy or native, as the kernel finds.
IN_ORDER = ("best", "generic")
# What the next mode would meet with too.
FINAL = (errno.EBUSY, errno.EPERM, errno.ENXIO, errno.ENOBUFS, errno.ENOMEM)


@dataclasses.dataclass(frozen=True)
class Options(DeviceOptions):
    """[ports.NAME] of the xdp backend."""

    xdp_mode: str = choice(*MODES)
    xdp_buffers: int = integer(*BUFFERS)


class XdpInterface(raw.KernelInterface):
    """An interface of the kernel's behind AF_XDP sockets; `mode` is how its driver takes part."""

    def __init__(
        self, place: Place, link: raw.Link, port: "Port", description: str, mode: str, queues: list[Any]
    ) -> None:
        super().__init__(place, link, port, description)
        self.mode = mode
        self.queues = queues  # the port's; none any more once raw has taken over

    def follow(self) -> None:
        from cuse_netmap import _core

        super().follow()
        if self.queues and not self.port.gone:
            _core.xdp_set_frame_most(self.queues, self.port.mtu + raw.LINK_HEADERS)

    def want_host_rings(self, tx: int, rx: int) -> None:
        if self.queues and self.mode == "generic":
            self._fall_back()
        super().want_host_rings(tx, rx)

    def _fall_back(self) -> None:
        """In generic mode XDP would take what host rings inject for frames from the wire."""
        from cuse_netmap import _core

        with network_namespace(self.namespace):
            link = raw.look_up(socket.if_indextoname(self.link.index))
            queues = raw.open_queues(link, len(self.queues), self.port.slots("rx"))
        self.queues = []
        _core.set_wire(self.port, _core.RAW_BACKEND, queues)
        self.description = self.description.replace("xdp in generic mode", "raw")
        log.info("netmap:%s is raw from now on: XDP in generic mode takes what host rings inject", link.name)


def modes_of(index: int) -> list[str]:
    """Those that an interface of this thread's network namespace can; none if the kernel (before 6.3) does not say."""
    from pyroute2.netlink.exceptions import NetlinkError

    from cuse_netmap.backends.netdev import xdp_features

    try:
        features = xdp_features(index)
    except (NetlinkError, OSError):
        return []
    can = {"zerocopy": features.zero_copy, "native": features.redirect, "generic": True}
    return [mode for mode, possible in can.items() if possible]


def check(link: raw.Link, buffer: int) -> None:
    """Refused EINVAL: its frames do not fit a buffer (bytes); EOPNOTSUPP: too many queues; as raw.check_free."""
    raw.check_free(link)
    most = min(buffer, MOST_FRAME) - raw.LINK_HEADERS
    if link.mtu > most:
        raise Refused(errno.EINVAL, f"the MTU of {link.name} is {link.mtu}, XDP with buffers of {buffer} takes {most}")
    count = max(ethtool.channels(link.name))
    if count > raw.MOST_QUEUES:
        reason = (
            f"{link.name} has {count} queues, XDP takes each one: ethtool -L {link.name} combined {raw.MOST_QUEUES}"
        )
        raise Refused(errno.EOPNOTSUPP, reason)


def open_port(place: Place, name: str, options: Options, in_order: Sequence[str] = IN_ORDER) -> Interface:
    """in_order: what "auto" means."""
    from cuse_netmap import _core

    modes = in_order if options.xdp_mode == "auto" else (options.xdp_mode,)
    with ExitStack() as undo, network_namespace(place.namespace):
        link = raw.look_up(name)
        check(link, place.region.pool("buf").objsize)
        count, slots = max(ethtool.channels(name)), raw.slots_of(name)
        wanted = _core.XdpQueues(
            name, link.index, count, slots, options.xdp_buffers, frame_most=link.mtu + raw.LINK_HEADERS
        )
        mode, queues = _first_that_opens(place, wanted, modes)
        port = _core.nic_port(place.region, place.events, name, _core.XDP_BACKEND, queues, slots)
        undo.callback(port.close)
        port.set_mtu(link.mtu)
        description = f"xdp in {mode} mode, {count} ring pair(s) of {slots} slots"
        interface = XdpInterface(place, link, port, description, mode, queues)
        undo.pop_all()
        return interface


def _first_that_opens(place: Place, wanted: "XdpQueues", modes: Sequence[str]) -> tuple[str, list[Any]]:
    """What it turned out to be, and the queues."""
    from cuse_netmap import _core

    refused: list[str] = []
    for mode in modes:
        try:
            queues = wanted.open(place.region, mode)
        except Refused as refusal:
            number = refusal.errno or errno.EOPNOTSUPP
            refused.append(refusal.reason)
            if number in FINAL:
                break
        else:
            best = "zerocopy" if _core.xdp_zero_copy(queues) else "native"
            return best if mode == "best" else mode, queues
    raise Refused(number, f"XDP on {wanted.name}: {'; '.join(refused)}")
