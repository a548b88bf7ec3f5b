# SPDX-License-Identifier: BSD-2-Clause
"""The option CSB and CSB_ENABLE: indices of rings in the program's own memory (ABI.md section 13.2)."""

import errno
import select

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import (
    NIOCCTRL,
    NIOCRXSYNC,
    NIOCTXSYNC,
    Flag,
    Mode,
    OptionType,
    Register,
    RequestType,
)
from tests.support.csb import ENTRY, PROT_READ, Csb, Pages, csb_option
from tests.support.ioctls import BAD_ADDRESS, Block, device, header, ioctl, option, register, status
from tests.support.patience import at_most

pytestmark = pytest.mark.usefixtures("wires")

EXCLUSIVE = Register(flags=Flag.EXCLUSIVE)
BOTH_ONLY = Flag.EXCLUSIVE | Flag.RX_RINGS_ONLY | Flag.TX_RINGS_ONLY


def register_with(fd: int, options: Block, name: str = "nil", **fields: int) -> int:
    """REGISTER with options, exclusive unless said otherwise: 0 or the errno."""
    body = Block(Register(**{"flags": Flag.EXCLUSIVE, **fields}).encode())
    return ioctl(fd, NIOCCTRL, header(RequestType.REGISTER, name, body, options))


def test_register_with_csb_fills_both_arrays() -> None:
    """ABI.md 13.2: atok head and cur of the ring, both flags 1; ktoa zero but for hwcur, hwtail, kern_need_kick 1."""
    csb = Csb()
    with device() as fd:
        given = csb.option()
        assert register_with(fd, given, "tap1") == 0
        assert status(given) == 0
    for entry in csb.atok:
        assert entry.all == {"head": 0, "cur": 0, "appl_need_kick": 1, "sync_flags": 1}
    assert csb.ktoa[0].all == {"hwcur": 0, "hwtail": 15, "kern_need_kick": 1}  # TX
    assert csb.ktoa[1].all == {"hwcur": 0, "hwtail": 0, "kern_need_kick": 1}  # RX


@pytest.mark.parametrize(
    ("fields", "hwtails"),
    [
        ({}, [1023] * 4 + [0] * 4),
        ({"mode": Mode.ONE_NIC, "ringid": 2}, [1023, 0]),
        ({"flags": Flag.EXCLUSIVE | Flag.TX_RINGS_ONLY}, [1023] * 4),
        ({"flags": Flag.EXCLUSIVE | Flag.RX_RINGS_ONLY}, [0] * 4),
        ({"mode": Mode.NIC_SW}, [1023] * 5 + [0] * 5),
    ],
)
def test_the_arrays_have_bound_tx_rings_first_and_then_bound_rx_rings(
    fields: dict[str, int], hwtails: list[int]
) -> None:
    """ABI.md 13.2: indexed tx rings first, then rx, counting only bound rings."""
    csb = Csb(16)
    with device() as fd:
        assert register_with(fd, csb.option(), "quad", **fields) == 0
    assert [entry["hwtail"] for entry in csb.ktoa if entry["kern_need_kick"]] == hwtails
    assert sum(entry["appl_need_kick"] for entry in csb.atok) == len(hwtails)


def test_csb_enable_takes_over_what_the_rings_have_by_then() -> None:
    """ABI.md 13.2: head, hwcur and hwtail are the ring's."""
    csb = Csb()
    with Port("nil", EXCLUSIVE) as port:
        port.tx[0].advance(5)
        port.txsync()
        assert csb.enable(port.fd) == 0
    assert csb.atok[0].all == {"head": 5, "cur": 5, "appl_need_kick": 1, "sync_flags": 1}
    assert csb.ktoa[0].all == {"hwcur": 5, "hwtail": 4, "kern_need_kick": 1}


def test_csb_enable_may_be_asked_again_with_other_arrays() -> None:
    """ABI.md 13.2: only a running loop is in the way."""
    first, second = Csb(), Csb()
    with Port("nil", EXCLUSIVE) as port:
        assert first.enable(port.fd) == 0
        assert second.enable(port.fd) == 0
    assert second.ktoa[0].all == first.ktoa[0].all


def test_csb_needs_an_exclusive_registration() -> None:
    """ABI.md 13.2: needs NR_EXCLUSIVE (EINVAL), at REGISTER, which is undone, and later."""
    csb = Csb()
    with device() as fd:
        given = csb.option()
        assert register_with(fd, given, flags=0) == errno.EINVAL
        assert status(given) == errno.EINVAL
        assert register(fd, "nil")[0] == 0
        assert csb.enable(fd) == errno.EINVAL


@pytest.mark.parametrize("shift", [1, 4, 32, 63])
def test_csb_arrays_are_aligned_to_64(shift: int) -> None:
    """ABI.md 13.2: both arrays aligned to 64 (EINVAL)."""
    csb = Csb()
    atok, ktoa = csb.to_kernel.address, csb.to_program.address
    for addresses in ((atok + shift, ktoa), (atok, ktoa + shift)):
        with device() as fd:
            given = csb_option(*addresses)
            assert register_with(fd, given) == errno.EINVAL
            assert status(given) == errno.EINVAL
            assert register(fd, "nil")[0] == 0


def test_csb_arrays_must_be_there() -> None:
    """ABI.md 13.2: readable and writable (EFAULT); the REGISTER is undone."""
    csb = Csb()
    good, bad = csb.to_kernel.address, BAD_ADDRESS
    top = 2**64 - ENTRY
    for addresses in ((bad, good), (good, bad), (0, good), (good, 0), (top, good), (good, top), (1 << 63, good)):
        with device() as fd:
            given = csb_option(*addresses)
            assert register_with(fd, given) == errno.EFAULT
            assert status(given) == errno.EFAULT
            assert register(fd, "nil", flags=Flag.EXCLUSIVE)[0] == 0
            assert ioctl(fd, NIOCTXSYNC) == 0  # no CSB


def test_csb_arrays_that_cannot_be_written_are_refused() -> None:
    """ABI.md 13.2: readable/writable (EFAULT)."""
    csb = Csb()
    for pages in (csb.to_kernel, csb.to_program):
        pages.protect(PROT_READ)
        with Port("nil", EXCLUSIVE) as port:
            assert csb.enable(port.fd) == errno.EFAULT
            port.txsync()
        pages.protect(3)


def test_csb_arrays_must_have_an_entry_for_each_bound_ring() -> None:
    """ABI.md 13.2: for N = bound tx and rx rings."""
    csb, page = Csb(), Pages()
    for rings, result in ((8, 0), (7, errno.EFAULT)):
        at = page.end - rings * ENTRY
        for addresses in ((at, csb.to_program.address), (csb.to_program.address, at)):
            with device() as fd:
                assert register_with(fd, csb_option(*addresses), "quad") == result


def test_a_descriptor_without_rings_gets_no_csb() -> None:
    """ABI.md 13.2: N is 0, and nothing changes."""
    with device() as fd:
        given = csb_option(BAD_ADDRESS + 1, BAD_ADDRESS)
        assert register_with(fd, given, flags=BOTH_ONLY) == 0
        assert status(given) == 0
        assert ioctl(fd, NIOCTXSYNC) == 0


def test_csb_enable_needs_the_option_and_a_registered_descriptor() -> None:
    """ABI.md 4.2: CSB_ENABLE needs option CSB (else EINVAL), on a registered fd."""
    with device() as fd:
        assert ioctl(fd, NIOCCTRL, header(RequestType.CSB_ENABLE)) == errno.EINVAL
        assert Csb().enable(fd) == errno.ENXIO
        assert register(fd, "nil", flags=Flag.EXCLUSIVE)[0] == 0
        other = option(OptionType.SYNC_KLOOP_MODE, body=bytes(8))
        assert ioctl(fd, NIOCCTRL, header(RequestType.CSB_ENABLE, options=other)) == errno.EINVAL
        assert status(other) == errno.EOPNOTSUPP


def test_an_option_that_nobody_knows_fails_a_register_with_csb_too() -> None:
    """ABI.md 4.1 step 10: a leftover option fails REGISTER with EOPNOTSUPP, after undoing it."""
    csb = Csb()
    with device() as fd:
        stranger = option(77)
        assert register_with(fd, csb.option(stranger)) == errno.EOPNOTSUPP
        assert status(stranger) == errno.EOPNOTSUPP
        assert register(fd, "nil", flags=Flag.EXCLUSIVE)[0] == 0
        assert ioctl(fd, NIOCTXSYNC) == 0


def test_syncs_in_csb_mode_are_refused_and_poll_says_pollerr() -> None:
    """ABI.md 13.2: from then on NIOC*SYNC: EBUSY, poll: POLLERR."""
    with Port("nil", EXCLUSIVE) as port:
        assert Csb().enable(port.fd) == 0
        assert ioctl(port.fd, NIOCTXSYNC) == errno.EBUSY
        assert ioctl(port.fd, NIOCRXSYNC) == errno.EBUSY
        assert port.poll(select.POLLIN | select.POLLOUT, at_most(5)) == select.POLLERR


def test_csb_mode_ends_with_the_descriptor() -> None:
    """ABI.md section 15: state is the open file's."""
    with Port("nil", EXCLUSIVE) as port:
        assert Csb().enable(port.fd) == 0
    with Port("nil", EXCLUSIVE) as port:
        port.txsync()
