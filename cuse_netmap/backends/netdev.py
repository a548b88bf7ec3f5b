# SPDX-License-Identifier: BSD-2-Clause
"""What a driver can do for XDP, as the kernel's generic netlink family "netdev" tells (linux/netdev.h, Linux 6.3)."""

from dataclasses import dataclass
from typing import Any

DEV_GET = 1
BASIC, REDIRECT, ZEROCOPY = 1, 2, 8  # NETDEV_XDP_ACT_*


@dataclass(frozen=True)
class Features:
    """Of one interface; redirect: it runs programs that hand frames to a socket."""

    redirect: bool
    zero_copy: bool


def xdp_features(index: int) -> Features:
    """In this thread's network namespace. OSError or NetlinkError: the kernel does not say, or there is none."""
    from pyroute2.netlink import NLM_F_REQUEST, genlmsg
    from pyroute2.netlink.generic import GenericNetlinkSocket

    class Message(genlmsg):  # type: ignore[misc]
        nla_map = (
            ("NETDEV_A_DEV_UNSPEC", "none"),
            ("NETDEV_A_DEV_IFINDEX", "uint32"),
            ("NETDEV_A_DEV_PAD", "none"),
            ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
        )

    with GenericNetlinkSocket() as netlink:
        netlink.bind("netdev", Message)
        request = Message()
        request["cmd"], request["version"] = DEV_GET, 1
        request["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
        answer: Any = netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST)[0]
    features = int(answer.get_attr("NETDEV_A_DEV_XDP_FEATURES"))
    both = BASIC | REDIRECT
    return Features(redirect=features & both == both, zero_copy=features & ZEROCOPY != 0)
