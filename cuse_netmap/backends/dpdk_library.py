# SPDX-License-Identifier: BSD-2-Clause
"""The border to the C that needs libdpdk, as _core is to all other: its -errno become `Refused` here.

To be imported only where a port of this backend is configured: it loads libdpdk. ImportError: that is not there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cuse_netmap._dpdk import ffi, lib
from cuse_netmap.errors import Refused

BACKEND = int(ffi.cast("uintptr_t", lib.nm_dpdk_backend()))
UNKNOWN_SPEED = 0xFFFFFFFF


def version() -> str:
    """Of the libdpdk that has been loaded."""
    return _text(lib.rte_version())


def start(options: Sequence[str]) -> int:
    """Starts the EAL, once in a process; the descriptor that its log is read from (eal.h)."""
    encoded = [ffi.new("char[]", option.encode()) for option in options]
    _KEPT.extend(encoded)  # the EAL keeps pointers to them
    why = ffi.new("struct nm_refusal *")
    _check(lib.nm_eal_start(len(encoded), ffi.new("const char *[]", encoded), why), why)
    return int(lib.nm_eal_log())


_KEPT: list[Any] = []


def stop() -> None:
    """When no device is left."""
    lib.nm_eal_stop()


@dataclass(frozen=True)
class DeviceConfig:
    """What nm_dpdk_config asks for (port.h)."""

    queues: int
    descriptors: int
    mbuf_size: int
    mtu: int
    copy_below: int
    promiscuous: bool
    poll_us: int


class Device:
    """A device of DPDK's, started. Refused as nm_dpdk_open says."""

    def __init__(self, devargs: str, config: DeviceConfig) -> None:
        out, why = ffi.new("struct nm_dpdk_port **"), ffi.new("struct nm_refusal *")
        wanted = ffi.new("struct nm_dpdk_config *", vars(config))
        _check(lib.nm_dpdk_open(devargs.encode(), wanted, out, why), why)
        self.pointer = out[0]
        self.queues = [int(ffi.cast("uintptr_t", lib.nm_dpdk_queue(out[0], i))) for i in range(config.queues)]

    def set_memory(self, address: int, size: int) -> bool:
        """Frames lie here and may be pointed at; size 0: nowhere. Whether the device can do that."""
        return bool(lib.nm_dpdk_set_memory(self.pointer, ffi.cast("void *", address), size))

    def set_mtu(self, mtu: int) -> None:
        why = ffi.new("struct nm_refusal *")
        _check(lib.nm_dpdk_set_mtu(self.pointer, mtu, why), why)

    def set_promiscuous(self, on: bool) -> None:
        why = ffi.new("struct nm_refusal *")
        _check(lib.nm_dpdk_set_promiscuous(self.pointer, on, why), why)

    def facts(self) -> dict[str, object]:
        """The device as it is now, by name: words and numbers."""
        facts = ffi.new("struct nm_dpdk_facts *")
        lib.nm_dpdk_facts(self.pointer, facts)
        address = ffi.new("uint8_t[6]")
        lib.nm_dpdk_address(self.pointer, address)
        names = [name for name, _ in ffi.typeof(facts[0]).fields if name != "driver"]
        known: dict[str, object] = {name: int(getattr(facts, name)) for name in names}
        if known["speed"] == UNKNOWN_SPEED:
            known["speed"] = 0
        return {"driver": _text(facts.driver), "mac": bytes(address).hex(":"), **known}

    def close(self) -> None:
        """When its queues have been closed, by their port."""
        lib.nm_dpdk_close(self.pointer)


def _text(pointer: Any) -> str:  # noqa: ANN401 - cffi's pointers have no types
    return str(ffi.string(pointer).decode(errors="replace"))


def _check(result: int, why: Any) -> None:  # noqa: ANN401 - as above
    if result < 0:
        raise Refused(-result, _text(why.text))
