# SPDX-License-Identifier: BSD-2-Clause
"""Which of xdp and raw an interface of the kernel's gets: xdp where its driver takes part, else raw, and why."""

import errno

from cuse_netmap.backends import Interface, Place, ethtool, raw, xdp
from cuse_netmap.errors import Refused
from cuse_netmap.namespace import network_namespace

# Their frames may come from a stack on the same machine that left checksums to whoever receives, which only the
# kernel's own books about a frame tell. XDP sees the frame and not the books.
UNFINISHED = ("veth", "virtio_net", "tun", "xen_netfront", "vif")


Options = xdp.Options  # [ports.NAME] of the auto backend


def unfinished(driver: str) -> str:
    """Why XDP should not have the frames of a driver; "" if it may."""
    return f"whoever sends to a {driver} device may leave checksums open, unseen by XDP" if driver in UNFINISHED else ""


def without_tags(name: str) -> str:
    """Why XDP should not have this interface's frames, even if `unfinished` has no objection; "" if it may."""
    if not ethtool.takes_tags(name):
        return ""
    return f"{name} takes VLAN tags out of frames, unseen by XDP (ethtool -K {name} rxvlan off)"


def open_port(place: Place, name: str, options: Options) -> Interface:
    with network_namespace(place.namespace):
        why = unfinished(ethtool.driver(name)) or without_tags(name)
    if not why:
        try:
            return xdp.open_port(place, name, options, in_order=("best",))
        except Refused as refusal:
            if refusal.errno in (errno.EBUSY, errno.ENXIO):
                raise
            why = refusal.reason
    interface = raw.open_port(place, name, raw.Options())
    interface.description += f"; not xdp: {why}"
    return interface
