# SPDX-License-Identifier: BSD-2-Clause
"""Disconnects an interface from its host stack while programs have its NIC rings, and connects host rings instead.

Four small tc programs (steer.c) and one mark do it. Addresses, routes and other people's rules are left alone: ours run
first, in both directions, so that no rule of another's can let a frame pass.
"""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

from cuse_netmap import _core
from cuse_netmap.backends.claims import Claim, Left, remove_filters
from cuse_netmap.backends.hooks import Filters, Hooks, Links
from cuse_netmap.backends.host_tap import HostTap
from cuse_netmap.errors import Refused
from cuse_netmap.namespace import network_namespace

log = logging.getLogger(__name__)

CAPABILITIES = MappingProxyType({12: "CAP_NET_ADMIN", 21: "CAP_SYS_ADMIN", 39: "CAP_BPF"})  # linux/capability.h


class Steering:
    """One interface and its host stack, as they are now (ABI.md 12.2, 15).

    interface: its name in the network namespace behind the descriptor `namespace`, which stays the caller's.
    on_exit: "restore": when the daemon ends all is as before; "block": an interface that is disconnected then stays so
    until the next Steering of it has been switched off, or until `cuse-netmap cleanup --unblock`.
    links: use tcx links (Linux 6.6) if the kernel has them. Without, and to block, cls_bpf filters do the same; a
    SIGKILL leaves them behind, for claims.clean_up to remove.

    Refused: ENXIO no such interface; EBUSY another daemon steers it; EPERM the reason names the capability that is
    missing. Not for two threads at once.
    """

    def __init__(
        self, interface: str, namespace: int, *, on_exit: Literal["restore", "block"] = "restore", links: bool = True
    ) -> None:
        self.name = interface
        self.nic = self.host = False
        self.tap: HostTap | None = None
        self.block = on_exit == "block"
        with ExitStack() as undo:
            self.namespace = os.dup(namespace)
            undo.callback(os.close, self.namespace)
            with self._inside():
                self.index = _index(interface)
                self.claim = Claim(self.namespace, self.index)
                undo.callback(self.claim.release)
                use_links = links and not self.block and Links.possible(self.index)
                self.hooks: Hooks = Links(self.index) if use_links else self._filters()
                self._inherit()
            self.undo = undo.pop_all()

    def _filters(self) -> Filters:
        made_qdisc = self.claim.left is not None and self.claim.left.made_qdisc
        return Filters(self.index, made_qdisc=made_qdisc, remember=self._remember)

    def _remember(self, made_qdisc: bool) -> None:
        self.claim.leave(Left(self.name, made_qdisc, self.block))

    def _inherit(self) -> None:
        """Takes over what a daemon before us has left at the interface, or removes it."""
        if self.claim.left is None:
            return
        if self.claim.left.block and self.block:
            self._put(nic=True, host=False)
            self.nic = True
            log.info("%s is still disconnected from its host stack, as the daemon before left it", self.name)
        else:
            remove_filters(self._filters())
            self.claim.leave(None)

    def open_tap(self, queues: int, frames: int) -> list[int]:
        """Descriptors for `queues` host ring pairs: what is read the host has sent, what is written it receives.

        They are the caller's to close, after `set` or `close`; the device lives as long as they do. Frames come
        complete: checksums computed, nothing longer than the MTU and its headers, VLAN tags in line. frames: how many
        may wait in each queue, 1000 at least. A TAP from before is forgotten.

        Refused with the errno of what failed (ENOENT: no /dev/net/tun).
        """
        with self._inside():
            if self.tap:
                self.tap.forget()
            self.tap = HostTap(self.index, self._link().get_attr("IFLA_MTU"), queues, frames)
        return list(self.tap.fds)

    def set(self, *, nic: bool, host: bool) -> None:
        """Connects or disconnects; after a refusal all is as it was.

        nic: NIC rings are bound. The host receives nothing but what host rings inject, and cannot send.
        host: host rings are bound too, over the TAP that open_tap has made: what the host sends arrives there. Without
        `nic` they get nothing, but what is injected the host receives.

        Refused: ENXIO the interface has gone; EBUSY somebody else's tc filter would run before ours (without tcx);
        ERANGE there are too many programs; EPERM the reason names the capability that is missing.
        """
        if host and self.tap is None:
            raise ValueError("host rings need a TAP: open_tap")
        try:
            with self._inside():
                self._put(nic=nic, host=host)
                if self.tap is not None and not host:
                    self.tap.forget()
                    self.tap = None
        except Refused:
            with suppress(Refused), self._inside():
                self._put(nic=self.nic, host=self.host)
            raise
        self.nic, self.host = nic, host

    def _put(self, *, nic: bool, host: bool) -> None:
        to_rings = self.tap.index if self.tap and host else 0
        egress = ("to_rings" if to_rings else "to_nowhere") if nic else ""
        ingress = "from_rings" if nic else "from_all" if host else ""
        for program, is_ingress in ((egress, False), (ingress, True)):
            if not program:
                self.hooks.remove(ingress=is_ingress)
                continue
            fd = _core.steer_load(program, to_rings)
            try:
                self.hooks.put(fd, ingress=is_ingress)
            finally:
                os.close(fd)
        if not egress and not ingress:
            self.claim.leave(None)

    def follow(self) -> int:
        """To be called after a notice of the kernel's about links: the TAP takes over the interface's MTU, the result.

        Refused ENXIO: the interface has been deleted or moved to another network namespace; all that is left to do is
        `close`. ENODEV: somebody has deleted the TAP.
        """
        with self._inside():
            link = self._link()
            self.name = link.get_attr("IFLA_IFNAME")
            mtu = int(link.get_attr("IFLA_MTU"))
            if self.tap:
                self.tap.follow(mtu)
            return mtu

    def close(self) -> None:
        """The daemon ends, or has no use for the interface any more: all is as before, or blocked (on_exit)."""
        try:
            stays = self.block and self.nic
            self.set(nic=stays, host=False)
        except Refused as refusal:
            if refusal.errno != errno.ENXIO:
                log.error("%s", refusal.reason)
        self.undo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _link(self) -> Any:  # noqa: ANN401 - a message of pyroute2's
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        try:
            with IPRoute() as netlink:
                return netlink.get_links(self.index)[0]
        except NetlinkError as error:
            raise Refused(errno.ENXIO if error.code == errno.ENODEV else error.code, "asking for it") from error

    @contextmanager
    def _inside(self) -> Iterator[None]:
        """In the interface's network namespace; refusals name the interface, and what is missing."""
        try:
            with network_namespace(self.namespace):
                yield
        except Refused as refusal:
            number = refusal.errno or errno.EIO
            if number == errno.ENXIO:
                raise Refused(number, f"there is no interface {self.name} in that network namespace") from refusal
            missing = f": {missing_capabilities()}" if number == errno.EPERM else ""
            reason = f"disconnecting {self.name} from its host stack: {refusal.reason}{missing}"
            raise Refused(number, reason) from refusal


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as error:
        raise Refused(errno.ENXIO, "there is no such interface") from error


def missing_capabilities() -> str:
    """Of those that steering needs, in words."""
    status = Path("/proc/thread-self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    missing = [name for bit, name in CAPABILITIES.items() if not effective >> bit & 1]
    return f"the daemon lacks {', '.join(missing)}" if missing else "outside the container it lacks privileges"
