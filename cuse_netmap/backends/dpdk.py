# SPDX-License-Identifier: BSD-2-Clause
"""The dpdk backend's set-up: Ethernet devices of DPDK's drivers, and the one EAL that a process has.

Nothing of DPDK is loaded before a port asks for it. What it says becomes lines of our log.
"""

import atexit
import dataclasses
import errno
import logging
import os
import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cuse_netmap.backends import Interface, Place
from cuse_netmap.errors import Refused
from cuse_netmap.options import PortOptions, flag, integer, text

if TYPE_CHECKING:
    from cuse_netmap._core import Port
    from cuse_netmap.backends.dpdk_library import Device

log = logging.getLogger(__name__)

# rte_log.h: emergency, alert, critical and error; warning. What is less is for whoever looks for trouble.
ERRORS, WARNINGS = "1234", "5"
COPY_BELOW = 256  # bytes; docs/dpdk.md says what it does


@dataclasses.dataclass(frozen=True)
class Options(PortOptions):
    """[ports.NAME] of the dpdk backend: a device that DPDK knows how to drive."""

    devargs: str = text("", r"[ -~]{0,200}", 'a device as DPDK names it, such as "net_af_packet0,iface=v0"')
    descriptors: int = integer(1024, 8, 32768)
    mtu: int = integer(0, 0, 65517, live=True)
    promiscuous: bool = flag(True, live=True)
    mbuf_size: int = integer(2048, 128, 65407)
    copy_below: int = integer(COPY_BELOW, 0, 65535)


def unavailable() -> str:
    """Why there is no such backend here; "" if there is."""
    if not _built():
        return "the dpdk backend is not there: install cuse-netmap-dpdk, or libdpdk-dev and build again"
    try:
        from cuse_netmap.backends import dpdk_library
    except ImportError as error:
        return f"the dpdk backend cannot be loaded: {error}"
    del dpdk_library
    return ""


def _built() -> bool:
    try:
        return find_spec("cuse_netmap._dpdk") is not None
    except ValueError:  # of a module that somebody has declared absent
        return False


class DpdkInterface(Interface):
    """A device and its port."""

    def __init__(self, place: Place, device: "Device", port: "Port", description: str) -> None:
        super().__init__(port, description)
        self.place = place
        self.dpdk = device

    def mtu(self) -> int:
        return int(str(self.dpdk.facts()["mtu"]))

    def change(self, key: str, value: object) -> None:
        if key == "promiscuous":
            self.dpdk.set_promiscuous(bool(value))
        elif value:  # an MTU of 0 leaves it as it is
            self.dpdk.set_mtu(int(str(value)))
            self.port.set_mtu(self.mtu())

    def deleted(self) -> bool:
        return self.port.gone

    def facts(self) -> dict[str, object]:
        return self.dpdk.facts()

    def bound(self, *, nic: bool, host: bool) -> None:
        """The memory can be another whenever nobody has bound rings."""
        del host
        region = self.place.region
        self.holds_memory = True  # meanwhile
        self.dpdk.set_memory(region.address if nic else 0, region.size if nic else 0)
        self.holds_memory = bool(self.dpdk.facts()["pointed_at"])  # frames that do not land keep it

    def close(self) -> None:
        super().close()
        self.dpdk.close()
        _devices.discard(self.dpdk)


_devices: set["Device"] = set()
_started: tuple[str, ...] | None = None


def _start(options: tuple[str, ...]) -> None:
    """The EAL, for the first port; for others it is there already."""
    global _started  # noqa: PLW0603 - a process has one, as the library does
    from cuse_netmap.backends import dpdk_library

    if _started is None:
        reader = dpdk_library.start(options)
        _started = options
        threading.Thread(target=_relay, args=(reader,), name="dpdk-log", daemon=True).start()
        atexit.register(_stop)
        log.info("%s has been started", dpdk_library.version())
    elif _started != options:
        raise Refused(errno.EALREADY, "[dpdk] eal has changed since DPDK was started: restart the daemon")


def _stop() -> None:
    from cuse_netmap.backends import dpdk_library

    if not _devices:
        dpdk_library.stop()


def _relay(reader: int) -> None:
    """DPDK's words, line by line, each behind a digit that is its level."""
    with os.fdopen(reader, "rb") as lines:
        for line in lines:
            words = line.decode(errors="replace").strip()
            if words[:1] in ERRORS:
                log.warning("DPDK: %s", words[1:])
            else:
                log.log(logging.INFO if words[:1] == WARNINGS else logging.DEBUG, "DPDK: %s", words[1:])


def open_port(place: Place, name: str, options: Options) -> DpdkInterface:
    if missing := unavailable():
        raise Refused(errno.ENOSYS, missing)
    if not options.devargs:
        raise Refused(errno.EINVAL, 'devargs is missing, such as devargs = "net_af_packet0,iface=eth0"')
    from cuse_netmap import _core
    from cuse_netmap.backends import dpdk_library
    from cuse_netmap.config import Dpdk

    shared = place.dpdk or Dpdk()
    _start(shared.eal)
    config = dpdk_library.DeviceConfig(
        queues=options.queues,
        descriptors=options.descriptors,
        mbuf_size=options.mbuf_size,
        mtu=options.mtu,
        copy_below=options.copy_below,
        promiscuous=options.promiscuous,
        poll_us=shared.poll_us,
    )
    device = dpdk_library.Device(options.devargs, config)
    try:
        port = _core.nic_port(place.region, place.events, name, dpdk_library.BACKEND, device.queues, options.slots)
    except Refused:
        device.close()
        raise
    _devices.add(device)
    rings = f"{options.queues} ring pair(s) of {options.slots} slots"
    return DpdkInterface(place, device, port, f"{options.devargs} of DPDK ({device.facts()['driver']}), {rings}")
