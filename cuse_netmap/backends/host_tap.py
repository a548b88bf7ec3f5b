# SPDX-License-Identifier: BSD-2-Clause
"""The TAP device between host rings and the host stack: a frame written to it the interface's host receives.

What the host sends comes out of it complete: a TAP without virtio-net headers has no offloads, so the kernel computes
checksums, segments, and puts VLAN tags in line before it queues a frame.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from cuse_netmap import _core
from cuse_netmap.backends import tap
from cuse_netmap.backends.hooks import Filters, Hooks, Links

LEAST_MTU, MOST_MTU = 68, 65521  # of a TAP device
ADDRESS_GENERATION_NONE = 1  # linux/if_link.h, IN6_ADDR_GEN_MODE_NONE
SEND_BUFFER = 1 << 20


class HostTap:
    """A device of its own for one interface, in the network namespace that the thread is in.

    The descriptors are one a queue and the caller's to close; the device goes with the last. Which queue a frame of the
    host comes out of is the kernel's choice by its flow, by which it stays with the queue that the flow is written to.
    """

    def __init__(self, interface: int, mtu: int, queues: int, frames: int) -> None:
        # An index that no other namespace has: should the interface be moved to one, what is redirected leads nowhere.
        self.index = (1 << 30) + secrets.randbelow(1 << 30)
        self.fds: list[int] = []
        try:
            name = "nmh%d"
            for number in range(queues):
                first, several = number == 0, queues > 1
                index = self.index if first else 0
                self.fds.append(tap.open_queue(name, SEND_BUFFER, first=first, several=several, index=index))
                name = tap.device_name(self.fds[0])
            self.name = name
            self.hooks: Hooks = Links(self.index) if Links.possible(self.index) else Filters(self.index)
            self._put("tap_to_host", interface, ingress=True)
            self._put("tap_only_steered", 0, ingress=False)
            self._quiet()
            tap.configure(self.index, name, mtu=_clamped(mtu), queue=max(frames, tap.LEAST_QUEUE), up=True)
        except OSError:
            for fd in self.fds:
                os.close(fd)
            raise
        self.mtu = mtu

    def _put(self, program: str, target: int, *, ingress: bool) -> None:
        fd = _core.steer_load(program, target)
        try:
            self.hooks.put(fd, ingress=ingress)
        finally:
            os.close(fd)

    def _quiet(self) -> None:
        """No addresses and no chatter of its own, as far as this kernel can be told; what is left the program drops."""
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDRESS_GENERATION_NONE)]}
        with suppress(NetlinkError), IPRoute() as netlink:
            netlink.link("set", index=self.index, IFLA_AF_SPEC={"attrs": [("AF_INET6", mode)]})
        with suppress(OSError):
            Path(f"/proc/sys/net/ipv6/conf/{self.name}/disable_ipv6").write_text("1")

    def follow(self, mtu: int) -> None:
        """Takes over the MTU (bytes) of the interface. Refused when it has been deleted."""
        if mtu != self.mtu:
            tap.configure(self.index, self.name, mtu=_clamped(mtu))
            self.mtu = mtu

    def forget(self) -> None:
        """The device is the descriptors' alone now; nothing comes through it any more."""
        for ingress in (True, False):
            self.hooks.remove(ingress=ingress)


def _clamped(mtu: int) -> int:
    return min(max(mtu, LEAST_MTU), MOST_MTU)
