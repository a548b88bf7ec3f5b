# SPDX-License-Identifier: BSD-2-Clause
"""NIOCGINFO, NIOCREGIF and NIOCCONFIG: what they mean in today's requests, and what they write back (ABI.md 5)."""

import errno
import mmap
import select
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from cuse_netmap.control.requests import NIOCCONFIG, NIOCGINFO, NIOCREGIF, Flag, Legacy, Mode
from tests.support.daemon import Daemon
from tests.support.ioctls import BAD_ADDRESS, Block, device, free_buffers, ioctl, settled

pytestmark = pytest.mark.usefixtures("wires")

SENT = Legacy(
    raw_name=b"quad".ljust(16, b"\0"),
    version=14,
    offset=0x11111111,
    memsize=0x22222222,
    tx_slots=33,
    rx_slots=44,
    tx_rings=55,
    rx_rings=66,
    ringid=0,
    cmd=0,
    arg1=0x7777,
    arg2=0,
    arg3=0,
    flags=Mode.ALL_NIC,
    spare2=0x88888888,
)
SIZES: dict[str, Any] = {
    "memsize": 343019520,
    "tx_slots": 1024,
    "rx_slots": 1024,
    "tx_rings": 4,
    "rx_rings": 4,
    "arg2": 1,
}


@pytest.fixture
def fd() -> Iterator[int]:
    with device() as opened:
        yield opened


def call(fd: int, command: int, asked: Legacy) -> tuple[int, Legacy]:
    block = Block(asked.encode())
    result = ioctl(fd, command, block)
    return result, Legacy.decode(block.data)


def named(name: bytes) -> bytes:
    return name.ljust(16, b"\0")[:16]


def bound(fd: int, answer: Legacy) -> str:
    """Which rings of quad (4 and a host ring) have an offset: TX, then RX."""
    with mmap.mmap(fd, 1 << 20) as memory:
        offsets = struct.unpack_from("<10q", memory, answer.offset + 56)
    shown = "".join("X" if offset else "-" for offset in offsets)
    return f"{shown[:5]} {shown[5:]}"


# ---- versions


@pytest.mark.parametrize("command", [NIOCGINFO, NIOCREGIF])
@pytest.mark.parametrize("version", [3, 5, 10, 11, 12, 13, 14, 15, 16, 99, 0xFFFFFFFF])
def test_versions_3_and_5_and_from_10_up_are_served(fd: int, command: int, version: int) -> None:
    """ABI.md 2: no upper bound; the version comes back as sent."""
    result, answer = call(fd, command, replace(SENT, version=version))
    assert (result, answer.version) == (0, version)


@pytest.mark.parametrize("command", [NIOCGINFO, NIOCREGIF])
@pytest.mark.parametrize("version", [0, 1, 2, 4, 6, 7, 8, 9])
def test_versions_that_nobody_knows_are_refused_and_told_ours(fd: int, command: int, version: int) -> None:
    """ABI.md 2 and 16: EINVAL, 14 written in nr_version, nothing else."""
    asked = replace(SENT, version=version)
    assert call(fd, command, asked) == (errno.EINVAL, replace(asked, version=14))


# ---- NIOCREGIF


def test_regif_writes_back_sizes_and_leaves_the_rest(fd: int) -> None:
    """ABI.md 5: offset, memsize, slots, rings, arg2 and arg3; nothing else."""
    asked = replace(SENT, ringid=0x9000, flags=0xF00F0001 & ~0xE, arg3=20)
    result, answer = call(fd, NIOCREGIF, asked)
    assert result == 0
    assert answer == replace(asked, offset=answer.offset, arg3=20, **SIZES)
    assert answer.offset < 102400


def test_a_refused_regif_comes_back_as_sent(fd: int) -> None:
    """ABI.md 5: fields are copied only on success."""
    asked = replace(SENT, raw_name=named(b"missing"))
    assert call(fd, NIOCREGIF, asked) == (errno.ENXIO, asked)


@pytest.mark.parametrize(
    ("ringid", "flags", "expected"),
    [
        (0x0000, 0, "XXXX- XXXX-"),
        (0x0FFF, 0, "XXXX- XXXX-"),
        (0x2000, 0, "----X ----X"),
        (0x2003, 0, "----X ----X"),
        (0x4000, 0, "X---- X----"),
        (0x4003, 0, "---X- ---X-"),
        (0x6001, 0, "----X ----X"),
        (0x4003, 1, "XXXX- XXXX-"),
        (0x0002, 4, "--X-- --X--"),
        (0x2002, 4, "--X-- --X--"),
        (0x0000, 2, "----X ----X"),
        (0x0000, 3, "XXXXX XXXXX"),
        (0x0000, 8, "----X ----X"),
        (0x3000, 0, "----X ----X"),
        (0x4002, 0x2000, "----- --X--"),
        (0x0000, 0x4001, "XXXX- -----"),
    ],
)
def test_ringid_and_flags_say_which_rings(fd: int, ringid: int, flags: int, expected: str) -> None:
    """ABI.md 5: the mode of nr_flags; if that is 0, SW_RING, HW_RING or all. Both come back as sent."""
    result, answer = call(fd, NIOCREGIF, replace(SENT, ringid=ringid, flags=flags))
    assert (result, answer.ringid, answer.flags) == (0, ringid, flags)
    assert bound(fd, answer) == expected


@pytest.mark.parametrize(("ringid", "flags"), [(0x4004, 0), (4, 4), (0x0FFF, 4), (1, 8), (0, 9), (0, 15)])
def test_rings_and_modes_that_do_not_exist_are_invalid(fd: int, ringid: int, flags: int) -> None:
    """ABI.md 5 and 7."""
    assert call(fd, NIOCREGIF, replace(SENT, ringid=ringid, flags=flags))[0] == errno.EINVAL


def test_no_tx_poll_may_stand_in_ringid() -> None:
    """ABI.md 5: flags = nr_flags plus NO_TX_POLL from nr_ringid."""
    poller = select.poll()
    for ringid, tail in ((0x1000, 1023), (0, 0)):
        with device() as opened:
            result, answer = call(opened, NIOCREGIF, replace(SENT, ringid=ringid))
            assert result == 0
            with mmap.mmap(opened, answer.memsize) as memory:
                ring = answer.offset + struct.unpack_from("<q", memory, answer.offset + 56)[0]
                struct.pack_into("<II", memory, ring + 20, 1, 1)
                poller.register(opened, select.POLLIN)
                poller.poll(0)
                poller.unregister(opened)
                assert struct.unpack_from("<I", memory, ring + 28)[0] == tail


@pytest.mark.parametrize("count", [1, 58, 1000])
def test_arg3_asks_for_extra_buffers(fd: int, count: int) -> None:
    """ABI.md 5, T: legacy_regif_extra_bufs."""
    before = settled(free_buffers, 163838)
    result, answer = call(fd, NIOCREGIF, replace(SENT, arg3=count))
    assert (result, answer.arg3) == (0, count)
    left = before - 8 * 1024 - count
    assert settled(free_buffers, left) == left


@pytest.mark.parametrize(("arg2", "result"), [(0, 0), (1, 0), (2, errno.EINVAL), (0xFFFF, errno.EINVAL)])
@pytest.mark.parametrize("command", [NIOCGINFO, NIOCREGIF])
def test_arg2_is_the_memory_region(fd: int, command: int, arg2: int, result: int) -> None:
    """ABI.md 5: mem_id = nr_arg2."""
    assert call(fd, command, replace(SENT, arg2=arg2))[0] == result


def test_a_null_port_can_be_had_the_old_way(fd: int) -> None:
    """ABI.md 5: the mode is the low four bits of nr_flags."""
    result, answer = call(fd, NIOCREGIF, replace(SENT, flags=Mode.NULL, arg2=1, tx_rings=2, rx_rings=1))
    assert (result, answer.tx_rings, answer.rx_rings, answer.tx_slots, answer.rx_slots) == (0, 2, 1, 33, 44)


@pytest.mark.parametrize(("mode", "name"), [(Mode.PIPE_MASTER, b"quad{4095"), (Mode.PIPE_SLAVE, b"quad}4095")])
def test_the_pipes_of_the_old_way_have_their_number_in_nr_ringid(fd: int, mode: int, name: bytes) -> None:
    """ABI.md 5: the name gets {N or }N appended; neither it nor nr_ringid and nr_flags come back changed."""
    asked = replace(SENT, tx_rings=1, rx_rings=1, ringid=0xFFF, flags=mode, arg1=7)
    result, answer = call(fd, NIOCREGIF, asked)
    assert result == 0
    assert (answer.raw_name, answer.ringid, answer.flags, answer.arg1) == (asked.raw_name, 0xFFF, mode, 7)
    assert (answer.tx_rings, answer.rx_rings) == (asked.tx_rings, asked.rx_rings)
    with device() as other:
        exclusive = replace(SENT, raw_name=named(name), flags=Mode.ALL_NIC | Flag.EXCLUSIVE)
        assert call(other, NIOCREGIF, exclusive)[0] == errno.EBUSY


def test_regif_on_a_bound_descriptor_is_busy(fd: int) -> None:
    """ABI.md 7; NIOCGINFO still works there."""
    assert call(fd, NIOCREGIF, SENT)[0] == 0
    assert call(fd, NIOCREGIF, SENT) == (errno.EBUSY, SENT)
    assert call(fd, NIOCGINFO, SENT)[0] == 0


@pytest.mark.parametrize(
    ("cmd", "result"),
    [
        (1, errno.EINVAL),  # BDG_ATTACH
        (2, errno.EINVAL),  # BDG_DETACH
        (3, errno.EINVAL),  # BDG_REGOPS
        (4, errno.EINVAL),  # BDG_LIST belongs to NIOCGINFO
        (5, errno.EINVAL),  # BDG_VNET_HDR, of a length that no header has
        (8, errno.ENOMEM),  # ptnetmap
        (9, errno.ENOMEM),
        (13, errno.EINVAL),
        (14, errno.EINVAL),
        (0x8000, errno.EINVAL),
        (0xFFFF, errno.EINVAL),
    ],
)
def test_commands_of_regif_that_cannot_be_done(fd: int, cmd: int, result: int) -> None:
    """ABI.md 5: by nr_cmd; nothing is written back, nothing is registered."""
    asked = replace(SENT, cmd=cmd)
    assert call(fd, NIOCREGIF, asked) == (result, asked)
    assert call(fd, NIOCREGIF, SENT)[0] == 0


@pytest.mark.parametrize("cmd", [6, 7, 10, 11])
@pytest.mark.parametrize("name", [b"quad", b"vale0:quad", b"val:", b""])
def test_commands_of_switches_fail_in_order(fd: int, cmd: int, name: bytes) -> None:
    """ABI.md 5: NEWIF, DELIF, POLLING_ON and OFF; an error of netmap's, nothing is registered."""
    asked = replace(SENT, raw_name=named(name), cmd=cmd)
    result, answer = call(fd, NIOCREGIF, asked)
    assert result in (errno.EINVAL, errno.ENXIO, errno.EEXIST, errno.EOPNOTSUPP)
    assert answer == asked
    assert call(fd, NIOCREGIF, SENT)[0] == 0


@pytest.mark.parametrize("bind", [False, True])
def test_vnet_hdr_get_is_answered_in_arg1(fd: int, bind: bool) -> None:
    """ABI.md 5: nr_cmd 12, also on a registered descriptor."""
    if bind:
        assert call(fd, NIOCREGIF, SENT)[0] == 0
    assert call(fd, NIOCREGIF, replace(SENT, cmd=12)) == (0, replace(SENT, cmd=12, arg1=0))
    missing = replace(SENT, raw_name=named(b"missing"), cmd=12)
    assert call(fd, NIOCREGIF, missing) == (errno.ENXIO, missing)


# ---- NIOCGINFO


@pytest.mark.parametrize("cmd", [0, 1, 12, 0xFFFF])
def test_ginfo_writes_back_sizes_and_leaves_the_rest(fd: int, cmd: int) -> None:
    """ABI.md 5: whatever nr_cmd says, but for BDG_LIST; nr_offset untouched."""
    asked = replace(SENT, ringid=0xFFFF, flags=0xFFFFFFFF, arg3=99, cmd=cmd)
    assert call(fd, NIOCGINFO, asked) == (0, replace(asked, **SIZES))


def test_ginfo_without_a_name_tells_the_memory(fd: int) -> None:
    """ABI.md 4.2: an empty name, the way version probes ask (ABI.md 17, tcpreplay)."""
    result, answer = call(fd, NIOCGINFO, replace(SENT, raw_name=bytes(16)))
    assert (result, answer.memsize, answer.arg2) == (0, 343019520, 1)


@pytest.mark.parametrize(
    ("name", "result"), [(b"missing", errno.EINVAL), (b"", errno.ENOENT), (b"vale0:1", errno.ENOENT)]
)
def test_a_list_without_switches_is_empty(fd: int, name: bytes, result: int) -> None:
    """ABI.md 4.2, VALE_LIST."""
    asked = replace(SENT, raw_name=named(name), cmd=4)
    assert call(fd, NIOCGINFO, asked) == (result, asked)


@pytest.mark.parametrize("name", [b"missing", b"quad ", b"Quad"])
def test_ginfo_of_what_does_not_exist_is_enxio(fd: int, name: bytes) -> None:
    """ABI.md 4.2."""
    asked = replace(SENT, raw_name=named(name))
    assert call(fd, NIOCGINFO, asked) == (errno.ENXIO, asked)


# ---- names, addresses, NIOCCONFIG


def test_only_15_bytes_of_a_name_count(fd: int) -> None:
    """ABI.md 5: the name need not be terminated; it comes back as sent."""
    asked = replace(SENT, raw_name=b"quad\0garbagexyz!")
    assert call(fd, NIOCREGIF, asked) == (0, replace(asked, offset=0, **SIZES))


@pytest.mark.parametrize("command", [NIOCGINFO, NIOCREGIF])
def test_names_of_any_bytes_come_back(fd: int, command: int) -> None:
    """ABI.md 5: nr_name is not touched."""
    for byte in range(1, 256):
        asked = replace(SENT, raw_name=bytes([byte]) * 16)
        result, answer = call(fd, command, asked)
        assert result in (errno.ENXIO, errno.EINVAL)
        assert answer == asked


@pytest.mark.parametrize("command", [NIOCGINFO, NIOCREGIF, NIOCCONFIG])
@pytest.mark.parametrize("address", [BAD_ADDRESS, 0xFFFF800000000000])
def test_a_bad_address_is_a_fault(wires: Daemon, fd: int, command: int, address: int) -> None:
    """ABI.md 1. On the CUSE door nobody reads what NIOCCONFIG points to: there is no bridge to configure."""
    unread = command == NIOCCONFIG and wires.mmap == "helper"
    assert ioctl(fd, command, address) == (errno.EINVAL if unread else errno.EFAULT)


def test_no_bridge_can_be_configured(fd: int) -> None:
    """ABI.md 5: NIOCCONFIG, EINVAL; the 272 bytes come back as sent."""
    block = Block(bytes(range(256)) + bytes(16))
    before = block.data
    assert ioctl(fd, NIOCCONFIG, block) == errno.EINVAL
    assert block.data == before
