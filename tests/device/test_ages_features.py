# SPDX-License-Identifier: BSD-2-Clause
"""What programs of 2011 to 2013 share with features that came later (docs/compatibility.md, issue E's table)."""

import ctypes
import errno
import select
from collections.abc import Iterator

import pytest

from cuse_netmap.client import NR_FORWARD, NS_FORWARD, NS_INDIRECT, NS_MOREFRAG, Port
from cuse_netmap.control.requests import Flag, OffsetsBody, OptionType, PortHeader, Register, RequestType
from tests.device.interfaces.test_interface_forward import listener
from tests.support.host import Host, frame, number_of
from tests.support.ioctls import Block, device, free_buffers, option, register, request, settled
from tests.support.old import AGES, API_3, API_5, OF_2011, PAGE, SW_RING, Age, OldPort
from tests.support.patience import at_most
from tests.support.steps import wait_until
from tests.support.veth import QUIET, Wire, received

pytestmark = pytest.mark.usefixtures("wires")

ages = pytest.mark.parametrize("age", AGES, ids=lambda age: age.name)
SLOTS = 16


@pytest.fixture(autouse=True)
def everything_comes_back() -> Iterator[None]:
    """No buffer is lost, whatever a feature does to slots."""
    before = free_buffers()
    yield
    assert settled(free_buffers, before) == before


@ages
@pytest.mark.parametrize("zero_copy", [False, True], ids=["copying", "zero-copy"])
def test_a_monitor_of_today_sees_what_an_old_program_sends_and_receives(age: Age, zero_copy: bool) -> None:
    """docs/compatibility.md: monitored, with or without copying; the old program's own packets are unharmed."""
    how = Flag.MONITOR_TX | Flag.MONITOR_RX | (Flag.ZCOPY_MON if zero_copy else 0)
    with OldPort(age, "p{1") as old, Port("p}1") as other, Port("p{1", Register(flags=how)) as monitor:
        seen: list[bytes] = []
        for number in range(0, 3000, 2):
            old.tx().put(frame(number))
            old.txsync()
            assert other.receive() == frame(number)
            other.send(frame(number + 1))
            old.rxsync()
            assert old.rx().take() == [frame(number + 1)]
            old.rxsync()
            other.rxsync()
            old.txsync()
            monitor.rxsync()
            seen += monitor.take()
        assert sorted(seen) == sorted(frame(number) for number in range(3000))


@ages
def test_an_old_program_cannot_ask_to_be_a_monitor(age: Age) -> None:
    """docs/compatibility.md: what stands where nr_flags stands today means nothing."""
    flags = {"flags": int(Flag.MONITOR_RX)} if "flags" in age.fields else {}
    with OldPort(age, "nil"), OldPort(age) as port:
        assert port.regif("nil", **flags) == 0
        assert port.bound() == "X- X-"


@ages
def test_extra_buffers_and_exclusive_use_are_not_for_old_programs(age: Age) -> None:
    """docs/compatibility.md: nr_arg3 and nr_flags are spare words."""
    fields = {"arg3": 50, "flags": int(Flag.EXCLUSIVE)} if "flags" in age.fields else {}
    before = free_buffers()
    with OldPort(age) as port, OldPort(age) as second:
        assert port.regif("nil", **fields) == 0
        assert port.answer == port.answer | fields
        assert free_buffers() == before - 2 * 1024
        assert second.regif("nil") == 0


def test_exclusive_use_of_today_keeps_old_programs_out() -> None:
    """ABI.md 7: EBUSY."""
    with Port("nil", Register(flags=Flag.EXCLUSIVE)), OldPort(API_3) as port:
        assert port.regif("nil") == errno.EBUSY
    with OldPort(API_3, "nil"), device() as fd:
        assert register(fd, "nil", flags=Flag.EXCLUSIVE)[0] == errno.EBUSY


@ages
def test_the_other_end_of_a_pipe_may_have_offsets(age: Age) -> None:
    """docs/compatibility.md: each end finds packets where it expects them."""
    asked = option(OptionType.OFFSETS, body=OffsetsBody(128, 64, 16).encode())
    with Port("p}1", options=asked.address) as other, OldPort(age, "p{1") as old:
        old.tx().put(frame(1))
        old.txsync()
        other.rxsync()
        buf_idx, length, _, pointer = other.rx[0].slot(0)
        assert bytes(other.rx[0].buffer(buf_idx)[pointer & 0xFFFF :][:length]) == frame(1)
        other.rx[0].advance()
        other.rxsync()
        out = other.tx[0]
        buf_idx, _, _, pointer = out.slot(0)
        out.buffer(buf_idx)[64 : 64 + 60] = frame(2)
        out.set_slot(0, buf_idx, 60, 0, 64)
        out.advance()
        other.txsync()
        old.rxsync()
        assert old.rx().take() == [frame(2)]


@pytest.mark.parametrize("age", [API_5, API_3, OF_2011, PAGE], ids=lambda age: age.name)
def test_indirect_data_is_for_those_who_have_a_pointer(age: Age) -> None:
    """ABI.md 12.5: API 5 sends what ptr points to; to older programs the bit means nothing."""
    away = ctypes.create_string_buffer(frame(9), 60)
    with Port("vale2:r") as receiver, OldPort(age, "vale2:s") as old:
        ring = old.tx()
        ring.put(frame(1))
        buf_idx = ring.slot(0)[0]
        ring.set_slot(0, buf_idx, 60, NS_INDIRECT)
        if age is API_5:
            at = ring.offset + age.header + 8
            ring.memory[at : at + 8] = ctypes.addressof(away).to_bytes(8, "little")
        old.txsync()
        assert receiver.receive() == frame(9 if age is API_5 else 1)


@ages
def test_packets_of_several_slots(age: Age) -> None:
    """docs/compatibility.md: API 5 sends them; every age receives them slot by slot."""
    with Port("p}1") as other, OldPort(age, "p{1") as old:
        ring = old.tx()
        for number in range(2):
            ring.put(frame(number))
        ring.set_slot(0, ring.slot(0)[0], 60, NS_MOREFRAG)
        old.txsync()
        other.rxsync()
        pieces = [frame(0), frame(1)]
        assert list(other.take()) == ([b"".join(pieces)] if age is API_5 else pieces)
        other.send(bytes(3000))
        old.rxsync()
        assert [len(piece) for piece in old.rx().take()] == [2048, 952]


@ages
def test_a_port_with_a_virtio_header_is_not_for_old_programs(age: Age) -> None:
    """docs/compatibility.md: EIO: they cannot say that they accept one."""
    with device() as fd, OldPort(age) as port:
        assert register(fd, "vale2:h", flags=Flag.ACCEPT_VNET_HDR)[0] == 0
        assert request(fd, RequestType.PORT_HDR_SET, "vale2:h", PortHeader(12))[0] == 0
        assert port.regif("vale2:h") == errno.EIO


@ages
@pytest.mark.parametrize("name", ["p{1", "vale2:x"])
def test_pipes_and_switch_ports_have_no_host_rings(age: Age, name: str) -> None:
    """docs/compatibility.md: EINVAL, where kernels of that time gave rings without use."""
    with OldPort(age) as port:
        assert port.regif(name, SW_RING) == errno.EINVAL


@ages
def test_a_port_that_an_old_program_has_goes_to_no_switch(age: Age) -> None:
    """ABI.md 4.2: VALE_ATTACH is EBUSY while a netmap descriptor has it; and the other way round."""
    body = Block(Register().encode() + bytes(8))
    with device() as fd:
        with OldPort(age, "nil"):
            assert request(fd, RequestType.VALE_ATTACH, "vale2:nil", body.data)[0] == errno.EBUSY
        attach = lambda: request(fd, RequestType.VALE_ATTACH, "vale2:nil", body.data)[0]  # noqa: E731
        assert settled(attach, 0) == 0
        with OldPort(age) as port:
            assert port.regif("nil") == errno.EBUSY
        assert request(fd, RequestType.VALE_DETACH, "vale2:nil", bytes(8))[0] == 0


@ages
def test_a_switch_delivers_to_all_ages_at_once(age: Age) -> None:
    """Issue E: on the same ports and buffers."""
    with Port("vale2:s") as sender, OldPort(age, "vale2:a") as old, OldPort(API_5, "vale2:b") as five:
        for number in range(50):
            sender.send(frame(number))
        for port in (old, five):
            assert port.poll(select.POLLIN, at_most(5)) == select.POLLIN
            assert port.rx().take() == [frame(number) for number in range(50)]


@ages
def test_marked_frames_of_the_wire_go_on_to_the_host_where_programs_could_mark_them(
    age: Age, near: Wire, far: Host
) -> None:
    """ABI.md 10.2: NS_FORWARD and NR_FORWARD are of API 3; before, these bits mean nothing."""
    with OldPort(age, "v0") as port, listener(near.near) as heard:
        ring = port.rx()
        at = ring.offset + age.ring_flags
        port.memory[at : at + 2] = NR_FORWARD.to_bytes(2, "little")
        far.send(*(frame(number) for number in range(10)))

        def filled() -> bool:
            port.rxsync()
            return ring.avail >= 10

        wait_until(filled)
        for k in range(ring.avail):
            buf_idx, length, _ = ring.slot(k)
            ring.set_slot(k, buf_idx, length, NS_FORWARD if number_of(ring.read(buf_idx, 18)) % 2 == 0 else 0)
        ring.take()
        port.rxsync()
        wanted = [frame(number) for number in range(0, 10, 2)] if age in (API_3, API_5) else []
        assert received(heard, QUIET, wanted=len(wanted) + 1) == wanted
