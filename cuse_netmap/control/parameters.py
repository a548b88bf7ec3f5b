# SPDX-License-Identifier: BSD-2-Clause
"""Netmap's module parameters (ABI.md section 14): one table of what they are, and the values they have now.

What a value does is done where it has its effect: by `value`, or by a hook that is called with each new one. Nothing
here knows of files or of the configuration.
"""

import dataclasses
import errno
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from cuse_netmap.errors import Refused
from cuse_netmap.options import integer

INT_MAX = (1 << 31) - 1


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter: what it means to netmap, and what its value does here.

    Without an effect a value is just kept. `live` ones can be written while the daemon runs.
    """

    name: str
    default: int
    meaning: str
    effect: str = ""
    low: int = 0
    high: int = INT_MAX
    live: bool = True


def _table(*parameters: Parameter) -> Mapping[str, Parameter]:
    return MappingProxyType({parameter.name: parameter for parameter in parameters})


IDLE = "region 1 is made so once nobody uses it"

# The requests for region 1, which the [memory] of a configuration sets first.
MEMORY = _table(
    Parameter("if_size", 1024, "bytes of a netmap_if object", IDLE, 88, 4096),
    Parameter("if_num", 100, "netmap_if objects", IDLE, 10, 10000),
    Parameter("ring_size", 36864, "bytes of a ring object", IDLE, 288, 131072),
    Parameter("ring_num", 200, "ring objects", IDLE, 2, 1024),
    Parameter("buf_size", 2048, "bytes of a buffer", IDLE, 64, 65536),
    Parameter("buf_num", 163840, "buffers", IDLE, 4, 1000000),
)

# What the [parameters] of a configuration can set.
SETTINGS = _table(
    Parameter("verbose", 0, "how much netmap says"),
    Parameter("no_timestamp", 0, "no time in `ring->ts`", "RX syncs set it only where the ring says NR_TIMESTAMP"),
    Parameter("no_pendintr", 1, "transmit interrupts are not waited for"),
    Parameter("txsync_retry", 2, "attempts of a bridge at a full ring"),
    Parameter("fwd", 0, "what a program releases goes on to host or NIC, marked or not", "as in netmap"),
    Parameter("admode", 0, "0 the best kind of port there is, 1 native ones only, 2 generic ones only", high=2),
    Parameter("generic_hwcsum", 0, "generic ports use the hardware's checksums"),
    Parameter("generic_mit", 100000, "nanoseconds between two wake-ups of a generic port's receiver"),
    Parameter("generic_ringsize", 1024, "slots of a generic port's rings; here `slots` of a port says it"),
    Parameter("generic_rings", 1, "rings of a generic port; here `queues` of a port says it"),
    Parameter("generic_txqdisc", 1, "generic ports send through a queueing discipline"),
    Parameter("ptnet_vnet_hdr", 1, "passed-through ports have virtio-net headers"),
    Parameter("default_pipes", 0, "pipes that a port has room for"),
    Parameter("bridge_batch", 1024, "packets that a VALE port forwards at a time", "as in netmap", 1, 1024),
    Parameter("max_bridges", 8, "VALE switches that there can be", "as in netmap", 1, 256, live=False),
    Parameter("priv_if_size", 1024, "bytes of a netmap_if object of a private region"),
    Parameter("priv_if_num", 2, "netmap_if objects of a private region"),
    Parameter("priv_ring_size", 20480, "bytes of a ring object of a private region"),
    Parameter("priv_ring_num", 4, "ring objects of a private region"),
    Parameter("priv_buf_size", 2048, "bytes of a buffer of a private region"),
    Parameter("priv_buf_num", 4098, "buffers of a private region"),
)

# What region 1 has.
USED = "0 until a program has used region 1"
CURRENT = _table(
    Parameter("if_curr_size", 0, "bytes of a netmap_if object that there is", USED, live=False),
    Parameter("if_curr_num", 0, "netmap_if objects that there are", USED, live=False),
    Parameter("ring_curr_size", 0, "bytes of a ring object that there is", USED, live=False),
    Parameter("ring_curr_num", 0, "ring objects that there are", USED, live=False),
    Parameter("buf_curr_size", 0, "bytes of a buffer that there is", USED, live=False),
    Parameter("buf_curr_num", 0, "buffers that there are", USED, live=False),
)

TABLE = MappingProxyType({**SETTINGS, **MEMORY, **CURRENT})

# The table [parameters] of a configuration, made of SETTINGS.
Settings: type[Any] = dataclasses.make_dataclass(
    "Settings",
    [(one.name, int, integer(one.default, one.low, one.high, live=one.live)) for one in SETTINGS.values()],
    frozen=True,
    namespace={"__module__": __name__},
)


class Parameters:
    """The values that the parameters have now. Called with control's lock held."""

    def __init__(self, initial: Mapping[str, int]) -> None:
        self._values = {name: initial.get(name, parameter.default) for name, parameter in TABLE.items()}
        self._hooks: dict[str, Callable[[int], None]] = {}
        self._sources: dict[str, Callable[[], int]] = {}

    def value(self, name: str) -> int:
        return self._sources[name]() if name in self._sources else self._values[name]

    def on_change(self, name: str, hook: Callable[[int], None]) -> None:
        """Calls it with the value now, and before each new one is kept; a hook may refuse that."""
        hook(self._values[name])
        self._hooks[name] = hook

    def follow(self, name: str, source: Callable[[], int]) -> None:
        """The value is what `source` says."""
        self._sources[name] = source

    def write(self, name: str, text: str) -> None:
        """As a write to netmap's file in sysfs. Refused EACCES: it cannot be written; EINVAL: not that value."""
        if not TABLE[name].live:
            raise Refused(errno.EACCES, f"{name} cannot be written")
        try:
            value = _number(text)
        except ValueError:
            raise Refused(errno.EINVAL, f"{name} is a whole number, not {text[:40]!r}") from None
        self.set(name, value)

    def set(self, name: str, value: int) -> None:
        """Refused EINVAL."""
        one = TABLE[name]
        if not one.low <= value <= one.high:
            raise Refused(errno.EINVAL, f"{name} is a whole number from {one.low} to {one.high}, not {value}")
        if name in self._hooks:
            self._hooks[name](value)
        self._values[name] = value


def _number(text: str) -> int:
    """As the kernel reads one: decimal, hexadecimal with 0x, octal with 0, one newline at its end. ValueError."""
    text = text.removesuffix("\n")
    digits = text.removeprefix("-").removeprefix("+")
    if not digits.isascii() or not digits.isalnum():
        raise ValueError
    octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
    return int(text, 8) if octal else int(text, 16 if digits[:2].lower() == "0x" else 10)
