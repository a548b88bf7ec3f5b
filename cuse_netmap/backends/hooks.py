# SPDX-License-Identifier: BSD-2-Clause
"""How a tc program is put at an interface and taken away again. What the programs do is steer.c's, when, steer.py's.

`Links` (tcx, Linux 6.6) end with their last descriptor, so with the daemon at the latest. `Filters` (cls_bpf on a
clsact qdisc, any kernel) stay until somebody removes them. All is done in the network namespace that the thread is in.
"""

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cuse_netmap import _core
from cuse_netmap.errors import Refused

if TYPE_CHECKING:
    from pyroute2 import IPRoute

# linux/pkt_sched.h
CLSACT_HANDLE = 0xFFFF0000
PARENTS = {True: 0xFFFFFFF2, False: 0xFFFFFFF3}  # by `ingress`

# By these our filters are known. No filter of an interface runs before the priority 1.
NAME = "cuse-netmap"
HANDLE = 0x6E6D
PRIORITY = 1
ETH_P_ALL = 3

DIRECTION = {True: "ingress", False: "egress"}


class Hooks(Protocol):
    """The two places at an interface."""

    def put(self, program: int, *, ingress: bool) -> None:
        """Here from now on, before all others, instead of the one before. The descriptor stays the caller's.

        Refused with the kernel's errno; ENXIO: the interface has gone; EBUSY: somebody else's would run first.
        """

    def remove(self, *, ingress: bool) -> None:
        """None of ours is here any more, as if there had never been one."""


class Links:
    """tcx."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.links: dict[bool, int] = {}

    @staticmethod
    def possible(index: int) -> bool:
        """Whether the kernel has them."""
        return _core.steer_count(index, ingress=True) is not None

    def put(self, program: int, *, ingress: bool) -> None:
        if ingress in self.links:
            _core.steer_replace(self.links[ingress], program)
        else:
            self.links[ingress] = _core.steer_attach(program, self.index, ingress=ingress)

    def remove(self, *, ingress: bool) -> None:
        link = self.links.pop(ingress, None)
        if link is not None:
            os.close(link)


class Filters:
    """cls_bpf. made_qdisc: the clsact qdisc is ours, to remove with the last filter.

    `remember` is called with it before anything is there that would outlive us.
    """

    def __init__(
        self, index: int, *, made_qdisc: bool = False, remember: Callable[[bool], None] = lambda _made: None
    ) -> None:
        self.index = index
        self.made_qdisc = made_qdisc
        self.remember = remember

    def put(self, program: int, *, ingress: bool) -> None:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        self._refuse_others(ingress)
        where = f"a tc filter on {DIRECTION[ingress]}"
        try:
            with IPRoute() as netlink:
                kind = self._qdisc(netlink)
                if kind not in ("", "clsact"):
                    raise Refused(errno.EBUSY, f"{where}: there is a qdisc {kind} of somebody else's: tc qdisc show")
                self.made_qdisc |= not kind
                self.remember(self.made_qdisc)
                if not kind:
                    netlink.tc("add", "clsact", self.index)
                netlink.tc(
                    "replace-filter",
                    "bpf",
                    self.index,
                    HANDLE,
                    fd=program,
                    name=NAME,
                    direct_action=True,
                    parent=PARENTS[ingress],
                    protocol=ETH_P_ALL,
                    prio=PRIORITY,
                )
        except NetlinkError as error:
            module = ": modprobe sch_clsact cls_bpf (sch_ingress)" if error.code == errno.ENOENT else ""
            number = errno.ENXIO if error.code == errno.ENODEV else error.code
            raise Refused(number, f"{where}: {os.strerror(error.code)}{module}") from error

    def remove(self, *, ingress: bool) -> None:
        from pyroute2 import IPRoute
        from pyroute2.netlink.exceptions import NetlinkError

        # Whatever cannot be removed has gone: the interface, its qdisc or the filter.
        with suppress(NetlinkError), IPRoute() as netlink:
            if any(ours for _, _, ours in self._filters(netlink, ingress)):
                info = PRIORITY << 16 | socket.htons(ETH_P_ALL)
                netlink.tc("del-filter", None, self.index, HANDLE, parent=PARENTS[ingress], info=info)
            left = [*self._filters(netlink, True), *self._filters(netlink, False)]
            if self.made_qdisc and not left and self._qdisc(netlink) == "clsact":
                netlink.tc("del", "clsact", self.index)
                self.made_qdisc = False

    def _refuse_others(self, ingress: bool) -> None:
        """EBUSY: a program of somebody else's would run before ours, and could let frames pass."""
        from pyroute2 import IPRoute

        where = f"{DIRECTION[ingress]} is held by somebody else's"
        if _core.steer_count(self.index, ingress=ingress):
            raise Refused(errno.EBUSY, f"{where} tcx program: bpftool net show")
        with IPRoute() as netlink:
            for kind, priority, ours in self._filters(netlink, ingress):
                if priority == PRIORITY and not ours:
                    raise Refused(
                        errno.EBUSY, f"{where} tc filter {kind} of priority {priority}: give it a greater one"
                    )

    def _qdisc(self, netlink: "IPRoute") -> str:
        """The kind of the qdisc where filters of both directions are, "" if there is none."""
        for qdisc in netlink.get_qdiscs(index=self.index):
            if qdisc["index"] == self.index and qdisc["handle"] == CLSACT_HANDLE:
                return str(qdisc.get_attr("TCA_KIND"))
        return ""

    def _filters(self, netlink: "IPRoute", ingress: bool) -> list[tuple[str, int, bool]]:
        """Kind, priority and "ours" of each."""
        found = []
        for one in netlink.get_filters(self.index, 0, PARENTS[ingress]):
            kind, options = one.get_attr("TCA_KIND"), one.get_attr("TCA_OPTIONS")
            if kind == "bpf" and options is None:
                continue  # the head of a list
            ours = kind == "bpf" and options.get_attr("TCA_BPF_NAME") == NAME
            found.append((kind, one["info"] >> 16, ours))
        return found
