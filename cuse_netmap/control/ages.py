# SPDX-License-Identifier: BSD-2-Clause
"""The requests of programs of API 5 and before, told apart by their ioctl numbers and versions (ABI.md section 16).

How their memory looks is the engine's (ages.h).
"""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from cuse_netmap._core import API_2011, API_PAGE
from cuse_netmap.control.requests import (
    API,
    LEGACY_VERSIONS,
    NIOCGINFO,
    NIOCREGIF,
    Legacy,
    Legacy2011,
    LegacyPage,
)
from cuse_netmap.errors import Refused

SIZE_SHIFT = 16  # of the argument's size in an ioctl's number
SIZE_MASK = 0x3FFF << SIZE_SHIFT
# Versions of the API, and what its kernels let programs do or did themselves.
CHANGING = range(1, 6)  # other rings for a descriptor, and a map before it registers
WHOLE = range(1, 11)  # any ring takes the whole interface from the host


@dataclass
class Request:
    """An nmreq as a program sent it, and as the youngest of its kind, which is what is worked on.

    Refused EINVAL: the age of its program is not known; ours stands in nr_version then.
    """

    sent: Legacy | Legacy2011 | LegacyPage
    legacy: Legacy

    def check_version(self) -> None:
        version = self.legacy.version
        if isinstance(self.sent, Legacy) and version not in LEGACY_VERSIONS and version < LEGACY_VERSIONS[-1]:
            self.legacy.version = API
            raise Refused(errno.EINVAL, f"API version {version}: 3, 5, 10 and later are served, this is {API}")

    @property
    def changing(self) -> bool:
        """Its program may take other rings, or none, and map before it has any."""
        return self.legacy.version in CHANGING

    def encode(self) -> bytes:
        """What goes back."""
        if isinstance(self.sent, Legacy):
            return self.legacy.encode()
        answer = self.legacy
        rings = min(answer.tx_rings, answer.rx_rings)  # they count pairs
        offset, memsize, slots = answer.offset, answer.memsize, answer.tx_slots
        return replace(self.sent, offset=offset, memsize=memsize, slots=slots, rings=rings).encode()


def _as_legacy(sent: Legacy2011 | LegacyPage, version: int) -> Legacy:
    sizes = (sent.slots, sent.slots, sent.rings, sent.rings)
    return Legacy(sent.raw_name, version, sent.offset, sent.memsize, *sizes, sent.ringid, 0, 0, 0, 0, 0, 0)


def _today(data: bytes) -> Request:
    return Request(Legacy.decode(data), Legacy.decode(data))


def _of_2011(data: bytes) -> Request:
    sent = Legacy2011.decode(data)
    return Request(sent, _as_legacy(sent, API_2011))


def _page(data: bytes) -> Request:
    sent = LegacyPage.decode(data)
    return Request(sent, _as_legacy(sent, API_PAGE))


_FORMS = {record.size(): form for record, form in ((Legacy, _today), (Legacy2011, _of_2011), (LegacyPage, _page))}


def _command(command: int, size: int) -> int:
    return command & ~SIZE_MASK | size << SIZE_SHIFT


# What each ioctl number that carries an nmreq asks: today's number for it.
COMMANDS: Mapping[int, int] = MappingProxyType(
    {_command(command, size): command for command in (NIOCGINFO, NIOCREGIF) for size in _FORMS}
)


def size(command: int) -> int:
    """Bytes of the nmreq that an ioctl of COMMANDS carries."""
    return (command & SIZE_MASK) >> SIZE_SHIFT


def decode(data: bytes) -> Request:
    return _FORMS[len(data)](data)
