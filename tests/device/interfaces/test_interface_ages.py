# SPDX-License-Identifier: BSD-2-Clause
"""Host rings alone, of programs whose kernels took the whole interface with any ring (docs/compatibility.md)."""

import select
import socket
from dataclasses import replace

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import NIOCREGIF, Legacy, Mode, Register
from tests.support.host import Host, frame
from tests.support.ioctls import Block, device, ioctl
from tests.support.old import AGES, API_3, HW_RING, SW_RING, Age, OldPort, OldRing
from tests.support.patience import at_most
from tests.support.steps import wait_until
from tests.support.veth import QUIET, SOON, Wire

ages = pytest.mark.parametrize("age", AGES, ids=lambda age: age.name)


def host_rx(port: OldPort) -> OldRing:
    return port.rx(port.counted()[1])


@ages
def test_host_rings_alone_of_an_old_program_get_all_that_the_host_sends(age: Age, near: Wire, far: Host) -> None:
    """docs/compatibility.md: and nothing of it reaches the wire, until the descriptor is closed."""
    with OldPort(age, "v0", SW_RING) as stack, Host("v0") as host:
        host.send(frame(1))
        assert stack.poll(select.POLLIN, at_most(5)) == select.POLLIN
        found = host_rx(stack).take()

        def arrived() -> bool:
            stack.rxsync()
            found.extend(host_rx(stack).take())
            return frame(1) in found

        wait_until(arrived)
        assert far.waiting() == []
        assert not near.near.pings(QUIET)
    assert near.near.pings()


@ages
def test_host_rings_alone_of_an_old_program_leave_the_wire_dark(age: Age, near: Wire) -> None:
    """docs/compatibility.md: the host hears what is put into the host's ring, and nothing of the wire."""
    with OldPort(age, "v0", SW_RING) as stack, near.near.open(socket.AF_PACKET, socket.SOCK_RAW) as listener:
        listener.bind(("v0", 0x88B5))
        assert not near.far.pings(QUIET)
        stack.tx(stack.counted()[0]).put(frame(7))
        stack.txsync()
        assert listener.recv(2000) == frame(7)
    assert near.far.pings()


@ages
def test_the_interface_is_the_hosts_again_after_unregif_alone(age: Age, near: Wire) -> None:
    """Issue E: NIOCREGIF again changes rings, the interface stays taken; NIOCUNREGIF gives it back."""
    with OldPort(age, "v0", HW_RING) as port:
        assert port.regif("v0", SW_RING) == 0
        assert not near.far.pings(QUIET)
        assert port.unregif() == 0
        assert near.far.pings()


def test_a_program_of_today_with_host_rings_gets_the_nic_back_for_the_host(near: Wire) -> None:
    """ABI.md 7: host rings alone steal nothing, once the old program has gone."""
    with Port("v0", Register(mode=Mode.SW)), OldPort(API_3) as old:
        assert near.far.pings()
        assert old.regif("v0", HW_RING) == 0
        assert not near.far.pings(QUIET)
        assert old.unregif() == 0
        assert near.far.pings()


@pytest.mark.parametrize(("version", "whole"), [(10, True), (11, False), (12, False), (13, False), (14, False)])
def test_kernels_of_api_11_and_later_left_the_host_its_nic(near: Wire, version: int, whole: bool) -> None:
    """docs/compatibility.md: API 10 took the whole interface, as all before; ABI.md 7 for those after it."""
    asked = replace(Legacy(b"v0".ljust(16, b"\0"), version, *[0] * 13), ringid=SW_RING)
    with device() as fd:
        assert ioctl(fd, NIOCREGIF, Block(asked.encode())) == 0
        assert near.far.pings(QUIET if whole else SOON) is not whole
    assert near.far.pings()
