# SPDX-License-Identifier: BSD-2-Clause
"""The structs that ioctls carry, to and from bytes; what they ask for is decided elsewhere. Source: net/netmap.h."""

import dataclasses
import enum
import struct
from dataclasses import dataclass
from typing import ClassVar, Self

NIOCGINFO = 0xC03C6991
NIOCREGIF = 0xC03C6992
NIOCUNREGIF = 0x00006993  # of API 5 and before
NIOCTXSYNC = 0x00006994
NIOCRXSYNC = 0x00006995
NIOCCONFIG = 0xC1106996
NIOCCTRL = 0xC0586997

IOCTL_NAMES = {
    NIOCGINFO: "NIOCGINFO",
    NIOCREGIF: "NIOCREGIF",
    NIOCUNREGIF: "NIOCUNREGIF",
    NIOCTXSYNC: "NIOCTXSYNC",
    NIOCRXSYNC: "NIOCRXSYNC",
    NIOCCONFIG: "NIOCCONFIG",
    NIOCCTRL: "NIOCCTRL",
}

API = 14
CTRL_VERSIONS = range(12, 16)  # the kernel's: 14 and 15
LEGACY_VERSIONS = (3, 5, 10)  # the last one and all that follow
LEGACY_COMMANDS_VERSION = 5  # nr_cmd, nr_arg1 and nr_arg2 since then
LEGACY_TODAYS_RINGS = 10  # rings and slots are today's since then
LEGACY_FLAGS_VERSION = 11  # nr_arg3 and nr_flags, and a meaning of nr_arg2, since then

GLOBAL_MEM_ID = 1


class Mode(enum.IntEnum):
    """nr_mode of REGISTER: NR_REG_*."""

    DEFAULT = 0
    ALL_NIC = 1
    SW = 2
    NIC_SW = 3
    ONE_NIC = 4
    PIPE_MASTER = 5
    PIPE_SLAVE = 6
    NULL = 7
    ONE_SW = 8


RINGS: dict[int, str] = {
    Mode.SW: "all host rings",
    Mode.NIC_SW: "all NIC and host rings",
    Mode.ONE_NIC: "NIC ring {ringid}",
    Mode.ONE_SW: "host ring {ringid}",
}


class Flag(enum.IntFlag):
    """nr_flags of REGISTER."""

    MONITOR_TX = 0x100
    MONITOR_RX = 0x200
    ZCOPY_MON = 0x400
    EXCLUSIVE = 0x800
    RX_RINGS_ONLY = 0x2000
    TX_RINGS_ONLY = 0x4000
    ACCEPT_VNET_HDR = 0x8000
    DO_RX_POLL = 0x10000
    NO_TX_POLL = 0x20000


MONITOR = Flag.MONITOR_TX | Flag.MONITOR_RX | Flag.ZCOPY_MON


class RequestType(enum.IntEnum):
    """nr_reqtype of NIOCCTRL: NETMAP_REQ_*."""

    REGISTER = 1
    PORT_INFO_GET = 2
    VALE_ATTACH = 3
    VALE_DETACH = 4
    VALE_LIST = 5
    PORT_HDR_SET = 6
    PORT_HDR_GET = 7
    VALE_NEWIF = 8
    VALE_DELIF = 9
    VALE_POLLING_ENABLE = 10
    VALE_POLLING_DISABLE = 11
    POOLS_INFO_GET = 12
    SYNC_KLOOP_START = 13
    SYNC_KLOOP_STOP = 14
    CSB_ENABLE = 15


class OptionType(enum.IntEnum):
    """nro_reqtype of an option: NETMAP_REQ_OPT_*."""

    EXTMEM = 1
    SYNC_KLOOP_EVENTFDS = 2
    CSB = 3
    SYNC_KLOOP_MODE = 4
    OFFSETS = 5


# Bytes of each request's body; types that are not here have none.
BODY_SIZES: dict[int, int] = {
    RequestType.REGISTER: 56,
    RequestType.PORT_INFO_GET: 32,
    RequestType.VALE_ATTACH: 64,
    RequestType.VALE_DETACH: 8,
    RequestType.VALE_LIST: 8,
    RequestType.PORT_HDR_SET: 8,
    RequestType.PORT_HDR_GET: 8,
    RequestType.VALE_NEWIF: 16,
    RequestType.VALE_POLLING_ENABLE: 16,
    RequestType.VALE_POLLING_DISABLE: 16,
    RequestType.POOLS_INFO_GET: 64,
    RequestType.SYNC_KLOOP_START: 8,
}

# Bytes of each option with its header; the one of eventfds says its own size.
OPTION_SIZES: dict[int, int] = {
    OptionType.EXTMEM: 96,
    OptionType.CSB: 40,
    OptionType.SYNC_KLOOP_MODE: 32,
    OptionType.OFFSETS: 56,
}


def decode_name(raw: bytes) -> str:
    """A NUL-terminated name, or the whole field; any byte value survives the round trip."""
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def encode_name(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


@dataclass
class Record:
    """A struct of integer fields in the order of LAYOUT; subclasses with names say where they stand."""

    LAYOUT: ClassVar[struct.Struct]

    @classmethod
    def size(cls) -> int:
        return cls.LAYOUT.size

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return cls(*cls.LAYOUT.unpack(data))

    def encode(self) -> bytes:
        return self.LAYOUT.pack(*(getattr(self, field.name) for field in dataclasses.fields(self)))


@dataclass
class Header(Record):
    """nmreq_header, 88 bytes."""

    LAYOUT = struct.Struct("<HHI64sQQ")

    version: int
    reqtype: int
    reserved: int
    raw_name: bytes
    options: int
    body: int

    @property
    def name(self) -> str:
        return decode_name(self.raw_name[:63])

    def write_name(self, name: str) -> None:
        self.raw_name = encode_name(name)[:63].ljust(64, b"\0")


@dataclass
class Option(Record):
    """nmreq_option, 24 bytes: the header of each option."""

    LAYOUT = struct.Struct("<QIIQ")

    next: int
    reqtype: int
    status: int
    size_given: int


@dataclass
class Register(Record):
    """nmreq_register, 56 bytes."""

    LAYOUT = struct.Struct("<QQIIHHHHHHII4xQ")

    offset: int = 0
    memsize: int = 0
    tx_slots: int = 0
    rx_slots: int = 0
    tx_rings: int = 0
    rx_rings: int = 0
    host_tx_rings: int = 0
    host_rx_rings: int = 0
    mem_id: int = 0
    ringid: int = 0
    mode: int = Mode.ALL_NIC
    extra_bufs: int = 0
    flags: int = 0

    @property
    def rings(self) -> str:
        """Which it asks for, in words; of a port without host rings those are all NIC rings."""
        only = [word for word in ("RX", "TX") if self.flags & Flag[f"{word}_RINGS_ONLY"]]
        rings = RINGS.get(self.mode, "all NIC rings").format(ringid=self.ringid)
        return f"{rings}, {only[0]} only" if len(only) == 1 else rings


@dataclass
class PortInfo(Record):
    """nmreq_port_info_get, 32 bytes."""

    LAYOUT = struct.Struct("<QIIHHHHH6x")

    memsize: int = 0
    tx_slots: int = 0
    rx_slots: int = 0
    tx_rings: int = 0
    rx_rings: int = 0
    host_tx_rings: int = 0
    host_rx_rings: int = 0
    mem_id: int = 0


@dataclass
class PoolsInfo(Record):
    """nmreq_pools_info, 64 bytes."""

    LAYOUT = struct.Struct("<QH6xQIIQIIQII")

    memsize: int = 0
    mem_id: int = 0
    if_offset: int = 0
    if_total: int = 0
    if_size: int = 0
    ring_offset: int = 0
    ring_total: int = 0
    ring_size: int = 0
    buf_offset: int = 0
    buf_total: int = 0
    buf_size: int = 0


@dataclass
class PortHeader(Record):
    """nmreq_port_hdr, 8 bytes: the length of the virtio-net header."""

    LAYOUT = struct.Struct("<I4x")

    length: int = 0


@dataclass
class ValeAttach(Record):
    """nmreq_vale_attach, 64 bytes: a REGISTER's body, and the port's place on the switch."""

    LAYOUT = struct.Struct("<56sI4x")

    raw_register: bytes
    port_index: int

    @property
    def register(self) -> Register:
        return Register.decode(self.raw_register)


@dataclass
class ValeDetach(Record):
    """nmreq_vale_detach, 8 bytes."""

    LAYOUT = struct.Struct("<I4x")

    port_index: int = 0


@dataclass
class ValeList(Record):
    """nmreq_vale_list, 8 bytes: where a port is, or where to look for the next."""

    LAYOUT = struct.Struct("<H2xI")

    bridge_idx: int = 0
    port_idx: int = 0


@dataclass
class NewInterface(Record):
    """nmreq_vale_newif, 16 bytes."""

    LAYOUT = struct.Struct("<IIHHH2x")

    tx_slots: int = 0
    rx_slots: int = 0
    tx_rings: int = 0
    rx_rings: int = 0
    mem_id: int = 0


class PollingMode(enum.IntEnum):
    """nr_mode of VALE_POLLING_ENABLE: NETMAP_POLLING_MODE_*."""

    SINGLE_CPU = 1
    MULTI_CPU = 2


@dataclass
class ValePolling(Record):
    """nmreq_vale_polling, 16 bytes."""

    LAYOUT = struct.Struct("<III4x")

    mode: int = 0
    first_cpu: int = 0
    cpus: int = 0


@dataclass
class ExtmemBody(Record):
    """nmreq_opt_extmem, 96 bytes with its header: what the option EXTMEM says."""

    LAYOUT = struct.Struct("<Q64s")

    address: int
    raw_info: bytes

    @property
    def info(self) -> PoolsInfo:
        return PoolsInfo.decode(self.raw_info)


@dataclass
class OffsetsBody(Record):
    """nmreq_opt_offsets, 56 bytes with its header: what the option OFFSETS says."""

    LAYOUT = struct.Struct("<QQIIQ")

    max_offset: int = 0
    initial_offset: int = 0
    offset_bits: int = 0
    tx_align: int = 0
    min_gap: int = 0


@dataclass
class CsbBody(Record):
    """nmreq_opt_csb, 40 bytes with its header: addresses in the program's memory."""

    LAYOUT = struct.Struct("<QQ")

    atok: int = 0
    ktoa: int = 0


CSB_ALIGN = 64  # bytes, as is an entry of either array
EVENTFD_PAIR = struct.Struct("<ii")  # ioeventfd and irqfd, each -1 for none: the body of SYNC_KLOOP_EVENTFDS


@dataclass
class KloopMode(Record):
    """nmreq_opt_sync_kloop_mode, 32 bytes with its header: 1 direct TX, 2 direct RX."""

    LAYOUT = struct.Struct("<I4x")

    mode: int = 0


@dataclass
class KloopStart(Record):
    """nmreq_sync_kloop_start, 8 bytes."""

    LAYOUT = struct.Struct("<I4x")

    sleep_us: int = 0


@dataclass
class Legacy(Record):
    """nmreq, 60 bytes, of NIOCGINFO and NIOCREGIF."""

    LAYOUT = struct.Struct("<16sIIIIIHHHHHHIII")

    raw_name: bytes
    version: int
    offset: int
    memsize: int
    tx_slots: int
    rx_slots: int
    tx_rings: int
    rx_rings: int
    ringid: int
    cmd: int
    arg1: int
    arg2: int
    arg3: int
    flags: int
    spare2: int

    @property
    def name(self) -> str:
        return decode_name(self.raw_name[:15])


@dataclass
class Legacy2011(Record):
    """nmreq as the header of November 2011 had it, 36 bytes; nr_version was not looked at."""

    LAYOUT = struct.Struct("<16sIIIIHH")

    raw_name: bytes
    version: int
    offset: int
    memsize: int
    slots: int
    rings: int
    ringid: int


@dataclass
class LegacyPage(Record):
    """nmreq as the manual page of 2011 prints it, 32 bytes."""

    LAYOUT = struct.Struct("<16sIIIHH")

    raw_name: bytes
    offset: int
    memsize: int
    slots: int
    rings: int
    ringid: int


LEGACY_RING_MASK = 0x0FFF
LEGACY_NO_TX_POLL = 0x1000
LEGACY_SW_RING = 0x2000
LEGACY_HW_RING = 0x4000
LEGACY_DO_RX_POLL = 0x8000
LEGACY_MODE_MASK = 0xF


class LegacyCommand(enum.IntEnum):
    """nr_cmd of the legacy requests."""

    REGISTER = 0
    BDG_ATTACH = 1
    BDG_DETACH = 2
    BDG_REGOPS = 3
    BDG_LIST = 4
    BDG_VNET_HDR = 5
    BDG_NEWIF = 6
    BDG_DELIF = 7
    PT_HOST_CREATE = 8
    PT_HOST_DELETE = 9
    BDG_POLLING_ON = 10
    BDG_POLLING_OFF = 11
    VNET_HDR_GET = 12
