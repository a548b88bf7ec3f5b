# SPDX-License-Identifier: BSD-2-Clause
"""Switches by the requests of API 11 and before: NIOCREGIF and NIOCGINFO with nr_cmd (ABI.md 5)."""

import errno

import pytest

from cuse_netmap.control.requests import (
    NIOCGINFO,
    NIOCREGIF,
    Flag,
    Legacy,
    LegacyCommand,
    Mode,
)
from tests.support.ioctls import Block, device, ioctl
from tests.support.switches import (
    NO_PORT,
    TWO_CPUS,
    all_ports,
    attached,
    get_header,
    opened,
    place_of,
)

pytestmark = pytest.mark.usefixtures("wires", "switches_go", "buffers_come_back")

VNET = Flag.ACCEPT_VNET_HDR


def legacy(command: int, name: str, cmd: int, **fields: int) -> tuple[int, Legacy]:
    start = Legacy(name.encode().ljust(16, b"\0"), 14, 0, 0, 0, 0, 0, 0, 0, cmd, 0, 0, 0, 0, 0)
    for field, value in fields.items():
        setattr(start, field, value)
    block = Block(start.encode())
    with device() as fd:
        result = ioctl(fd, command, block)
    return result, Legacy.decode(block.data)


def regif(name: str, cmd: int, **fields: int) -> int:
    return legacy(NIOCREGIF, name, cmd, **fields)[0]


def test_legacy_commands_make_attach_list_detach_and_delete_a_persistent_port() -> None:
    """ABI.md 5: nr_cmd 6, 1, 4, 2, 7."""
    result, made = legacy(NIOCREGIF, "pers", LegacyCommand.BDG_NEWIF, tx_slots=64, rx_slots=32, tx_rings=2)
    assert (result, made.tx_slots, made.rx_slots, made.tx_rings, made.rx_rings) == (0, 64, 32, 2, 1)
    assert regif("vale0:pers", LegacyCommand.BDG_ATTACH) == 0
    result, listed = legacy(NIOCGINFO, "", LegacyCommand.BDG_LIST)
    assert (result, listed.name, listed.arg1, listed.arg2) == (0, "vale0:pers", 0, 0)
    assert legacy(NIOCGINFO, "", LegacyCommand.BDG_LIST, arg2=1)[0] == errno.ENOENT
    result, listed = legacy(NIOCGINFO, "vale0", LegacyCommand.BDG_LIST)
    assert (result, listed.arg2) == (0, NO_PORT)
    assert regif("pers", LegacyCommand.BDG_DELIF) == errno.EBUSY
    assert regif("vale0:pers", LegacyCommand.BDG_DETACH) == 0
    assert regif("pers", LegacyCommand.BDG_DELIF) == 0


def test_legacy_attach_with_nr_arg1_takes_the_host_rings_too() -> None:
    """ABI.md 5: nr_arg1 & 1: host too."""
    assert regif("vale0:tap0", LegacyCommand.BDG_ATTACH, arg1=1) == 0
    assert all_ports() == ["vale0:tap0", "vale0:tap0^"]
    assert regif("vale0:tap0", LegacyCommand.BDG_DETACH) == 0


def test_legacy_commands_set_and_get_a_header() -> None:
    """ABI.md 5: BDG_VNET_HDR with nr_arg1; VNET_HDR_GET gives it there."""
    with opened("vale0:a"):
        assert regif("vale0:a", LegacyCommand.BDG_VNET_HDR, arg1=12) == 0
        result, answer = legacy(NIOCREGIF, "vale0:a", LegacyCommand.VNET_HDR_GET)
        assert (result, answer.arg1) == (0, 12)
        assert regif("vale0:a", LegacyCommand.BDG_VNET_HDR, arg1=11) == errno.EINVAL


def test_a_header_may_be_set_through_the_descriptor_that_has_the_port() -> None:
    """ABI.md 17: QEMU does so on the same, already registered descriptor: it must not be EBUSY."""
    asked = Legacy(b"vale0:a".ljust(16, b"\0"), 14, 0, 0, 0, 0, 0, 0, 0, LegacyCommand.BDG_VNET_HDR, 12, 0, 0, 0, 0)
    with opened("vale0:a", flags=VNET) as port:
        assert ioctl(port.fd, NIOCREGIF, Block(asked.encode())) == 0
        assert get_header("vale0:a") == (0, 12)


@TWO_CPUS
@pytest.mark.parametrize(("flags", "wanted"), [(Mode.ALL_NIC, 0), (Mode.ONE_NIC, 0), (0, errno.EINVAL)])
def test_legacy_commands_poll(flags: int, wanted: int) -> None:
    """ABI.md 5: mode from nr_flags: ONE_NIC = MULTI, ALL_NIC = SINGLE; first cpu = nr_ringid; count = nr_arg1."""
    with attached("vale0:tap0"):
        assert regif("vale0:tap0", LegacyCommand.BDG_POLLING_ON, flags=flags, arg1=1) == wanted
        off = regif("vale0:tap0", LegacyCommand.BDG_POLLING_OFF, flags=flags, arg1=1)
        assert off == (errno.EFAULT if wanted else 0)


def test_legacy_info_about_a_vale_port_makes_none_that_stays() -> None:
    """ABI.md 5: NIOCGINFO is PORT_INFO_GET."""
    result, answer = legacy(NIOCGINFO, "vale0:a", 0)
    assert (result, answer.tx_slots, answer.rx_rings, place_of("vale0")[0]) == (0, 1024, 1, errno.ENOENT)


def test_a_legacy_name_of_15_letters_is_written_whole() -> None:
    """ABI.md 5: name written back by the list."""
    with opened("vale01234:ports"):
        assert legacy(NIOCGINFO, "", LegacyCommand.BDG_LIST)[1].name == "vale01234:ports"
