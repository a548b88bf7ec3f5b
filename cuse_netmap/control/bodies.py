# SPDX-License-Identifier: BSD-2-Clause
"""Bodies of NIOCCTRL as API 12 and 13 had them, to and from those of today (ABI.md section 16)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cuse_netmap.control.requests import BODY_SIZES, RequestType


@dataclass(frozen=True)
class OldBody:
    """A struct of `size` bytes whose fields have moved: each (bytes from, bytes into today's struct, bytes)."""

    size: int
    moves: tuple[tuple[int, int, int], ...]

    def to_today(self, old: bytes, size: int) -> bytes:
        """What it did not have is 0: the default."""
        today = bytearray(size)
        for there, here, length in self.moves:
            today[here : here + length] = old[there : there + length]
        return bytes(today)

    def from_today(self, today: bytes) -> bytes:
        old = bytearray(self.size)
        for there, here, length in self.moves:
            old[there : there + length] = today[here : here + length]
        return bytes(old)


def _shorter(size: int) -> OldBody:
    """The same without what follows."""
    return OldBody(size, ((0, 0, size),))


# Up to the numbers of rings; then the region, ring and mode; extra buffers; flags.
_REGISTER_12 = ((0, 0, 28), (28, 32, 8), (48, 40, 4), (40, 48, 8))
_REGISTER_13 = ((0, 0, 28), (28, 32, 8), (36, 40, 4), (40, 48, 8))
_PORT_INFO = OldBody(24, ((0, 0, 20), (20, 24, 2)))

OLD_BODIES: Mapping[int, Mapping[int, OldBody]] = MappingProxyType(
    {
        12: {
            RequestType.REGISTER: OldBody(56, _REGISTER_12),
            RequestType.PORT_INFO_GET: _PORT_INFO,
            RequestType.VALE_ATTACH: OldBody(64, (*_REGISTER_12, (56, 56, 4))),
            RequestType.VALE_DETACH: _shorter(4),
            RequestType.PORT_HDR_SET: _shorter(4),
            RequestType.PORT_HDR_GET: _shorter(4),
            RequestType.VALE_POLLING_ENABLE: _shorter(12),
            RequestType.VALE_POLLING_DISABLE: _shorter(12),
            RequestType.SYNC_KLOOP_START: _shorter(4),
        },
        13: {
            RequestType.REGISTER: OldBody(48, _REGISTER_13),
            RequestType.PORT_INFO_GET: _PORT_INFO,
            RequestType.VALE_ATTACH: OldBody(56, (*_REGISTER_13, (48, 56, 4))),
        },
    }
)


def body_size(version: int, kind: int) -> int:
    """Bytes of a request's body in that version of the API; 0 if it has none."""
    old = OLD_BODIES.get(version, {}).get(kind)
    return old.size if old else BODY_SIZES.get(kind, 0)


def to_today(version: int, kind: int, body: bytes) -> bytes:
    old = OLD_BODIES.get(version, {}).get(kind)
    return old.to_today(body, BODY_SIZES[kind]) if old else body


def from_today(version: int, kind: int, body: bytes) -> bytes:
    old = OLD_BODIES.get(version, {}).get(kind)
    return old.from_today(body) if old else body
