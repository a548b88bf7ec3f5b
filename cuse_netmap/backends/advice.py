# SPDX-License-Identifier: BSD-2-Clause
"""What to know of this namespace's interfaces before a program takes one: netmap changes none of their settings.

Raw cuts up again what GRO and LRO have put together, though not always where it was.
"""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from cuse_netmap.backends import auto, ethtool, xdp

ARPHRD_ETHER = 1
MOST = 32  # interfaces that are looked at: a host of containers has hundreds


@dataclass
class Advice:
    """Of one interface: what keeps programs from taking it, "" if nothing does, and what they should know of it."""

    name: str
    taken: str = ""
    remarks: list[str] = field(default_factory=list)


def advice() -> Iterator[Advice]:
    """Of each Ethernet interface, in the kernel's order."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        links: list[Any] = [link for link in netlink.get_links() if link["ifi_type"] == ARPHRD_ETHER]
    for link in links[:MOST]:
        name = str(link.get_attr("IFLA_IFNAME"))
        yield Advice(name, _taken(link), list(_remarks(name, link)))


def _taken(link: Any) -> str:  # noqa: ANN401 - a message of pyroute2's
    if master := link.get_attr("IFLA_MASTER"):
        with suppress(OSError):
            return f"it is a port of {socket.if_indextoname(int(master))}"
    xdp = link.get_attr("IFLA_XDP")
    return "it has an XDP program" if xdp and xdp.get_attr("IFLA_XDP_ATTACHED") else ""


def _remarks(name: str, link: Any) -> Iterator[str]:  # noqa: ANN401
    if modes := xdp.modes_of(int(link["index"])):
        yield f"xdp can: {', '.join(modes)}"
    if blind := auto.unfinished(ethtool.driver(name)):
        yield f"{blind}, so auto takes raw (ethtool -K PEER tx off at the other end, then backend = xdp)"
    elif tagless := auto.without_tags(name):
        yield f"{tagless}: auto takes raw until then"
    if not link.get_attr("IFLA_PROMISCUITY"):
        yield f"not promiscuous, as bridges and sniffers need it (ip link set {name} promisc on)"
    merging = [word for word, on in (("gro", ethtool.gro(name)), ("lro", ethtool.lro(name))) if on]
    if merging:
        off = " ".join(f"{word} off" for word in merging)
        yield f"{' and '.join(merging).upper()} may merge frames (ethtool -K {name} {off})"
