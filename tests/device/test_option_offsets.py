# SPDX-License-Identifier: BSD-2-Clause
"""The option OFFSETS: who gets it, what slots begin with, and where packets lie (ABI.md 13.4)."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from cuse_netmap.client import Port, Ring
from cuse_netmap.control.requests import (
    NIOCCTRL,
    Flag,
    Mode,
    OffsetsBody,
    Option,
    OptionType,
    Register,
    RequestType,
)
from tests.support.host import Host, frame
from tests.support.ioctls import Block, device, header, ioctl, option, register, status

pytestmark = pytest.mark.usefixtures("wires")

REGISTER = RequestType.REGISTER
BUFFER = 2048
ALL_ONES = (1 << 64) - 1


def offsets(maximum: int, initial: int = 0, bits: int = 0, following: Block | int = 0) -> Block:
    """The option, as a program writes it."""
    return option(OptionType.OFFSETS, following, body=OffsetsBody(maximum, initial, bits).encode())


def in_effect(block: Block) -> int:
    """The nro_max_offset that has come back."""
    return OffsetsBody.decode(block.data[Option.size() :]).max_offset


def mask(ring: Ring) -> int:
    """Its offset_mask."""
    return int.from_bytes(ring.memory[ring.offset + 56 : ring.offset + 64], "little")


def attempt(fd: int, name: str, wanted: Block, **fields: int) -> tuple[int, int]:
    """REGISTER with the option: (0 or the errno, the option's status)."""
    result = ioctl(fd, NIOCCTRL, header(REGISTER, name, Block(Register(**fields).encode()), wanted))
    return result, status(wanted)


@contextmanager
def opened(name: str, maximum: int, initial: int = 0, bits: int = 0, request: Register | None = None) -> Iterator[Port]:
    wanted = offsets(maximum, initial, bits)
    with Port(name, request, options=wanted.address) as port:
        yield port


@pytest.mark.parametrize("name", ["tap0", "quad"])
def test_every_slot_of_the_first_user_begins_with_the_initial_offset(name: str) -> None:
    """ABI.md 13.4: initial offset in ptr, offset_mask in each ring that was bound, nro_max_offset and status back."""
    wanted = offsets(256, 64, 16)
    with Port(name, options=wanted.address) as port:
        assert (status(wanted), in_effect(wanted)) == (0, 256)
        for ring in [*port.tx.values(), *port.rx.values()]:
            assert mask(ring) == 0xFFFF
            assert {ring.slot(i)[3] for i in range(ring.num_slots)} == {64}


def test_without_the_option_slots_and_mask_are_zero() -> None:
    """ABI.md 9: also behind a user who had offsets."""
    with opened("tap0", 512, 128):
        pass
    with Port("tap0") as port:
        for ring in (port.tx[0], port.rx[0]):
            assert mask(ring) == 0
            assert {ring.slot(i)[3] for i in range(ring.num_slots)} == {0}


@pytest.mark.parametrize(("bits", "expected"), [(0, ALL_ONES), (64, ALL_ONES), (63, ALL_ONES >> 1), (12, 0xFFF)])
def test_the_mask_has_as_many_ones_as_bits_were_asked_for(bits: int, expected: int) -> None:
    """ABI.md 13.4: 0 and 64 bits are all of them."""
    with opened("quad", 100, bits=bits) as port:
        assert mask(port.tx[0]) == expected


@pytest.mark.parametrize(
    ("maximum", "initial", "bits"),
    [
        (0, 0, 65),
        (0, 0, 0xFFFFFFFF),
        (BUFFER + 1, 0, 0),
        (ALL_ONES, 0, 0),
        (1 << 32, 0, 0),
        (256, 0, 8),
        (64, 65, 0),
        (64, ALL_ONES, 0),
    ],
)
def test_offsets_that_cannot_be_are_invalid(maximum: int, initial: int, bits: int) -> None:
    """ABI.md 13.4: too many bits, beyond the buffer, not in the bits, initial beyond the largest. Nothing is bound."""
    with device() as fd:
        assert attempt(fd, "tap0", offsets(maximum, initial, bits)) == (errno.EINVAL, errno.EINVAL)
        assert register(fd, "tap0", flags=Flag.EXCLUSIVE)[0] == 0


def test_an_offset_as_long_as_the_buffer_is_allowed() -> None:
    """ABI.md 13.4: max_offset > buffer size is what is refused; no room is left, nothing arrives, nothing breaks."""
    with opened("tap0", BUFFER, BUFFER) as port, Host("tap0") as host:
        host.send(frame(1))
        port.rxsync()
        assert port.rx[0].space == 0
        assert port.rx[0].slot(0)[3] == BUFFER


@pytest.mark.parametrize(("first", "second"), [((64, 8), (65, 8)), ((64, 8), (64, 9)), ((64, 8), (64, 0))])
def test_a_ring_in_use_keeps_its_offsets(first: tuple[int, int], second: tuple[int, int]) -> None:
    """ABI.md 13.4: EBUSY for more than those who use the ring have."""
    with opened("tap0", first[0], bits=first[1]), device() as fd:
        assert attempt(fd, "tap0", offsets(second[0], bits=second[1])) == (errno.EBUSY, errno.EBUSY)


def test_a_second_user_is_told_what_is_in_effect_and_changes_no_slot() -> None:
    """ABI.md 13.4: initial offset for the first user of the ring only; out: nro_max_offset in effect."""
    with opened("tap0", 256, 64, 16) as first:
        wanted = offsets(128, 32, 8)
        with Port("tap0", options=wanted.address) as port:
            assert (status(wanted), in_effect(wanted)) == (0, 256)
            assert mask(port.tx[0]) == 0xFFFF
            assert first.tx[0].slot(5)[3] == 64


def test_null_ports_have_offsets() -> None:
    """ABI.md 13.4."""
    request = Register(mode=Mode.NULL, mem_id=1, tx_rings=1, tx_slots=8, rx_rings=1, rx_slots=8)
    with opened("nothing", 100, 50, request=request) as port:
        assert port.rx[0].slot(7)[3] == 50


def test_a_failing_register_leaves_the_option_undecided() -> None:
    """ABI.md 4.1 point 6: the status is what nobody has set, if the port is missing."""
    with device() as fd:
        assert attempt(fd, "missing", offsets(64)) == (errno.ENXIO, errno.EOPNOTSUPP)


def test_another_unknown_option_fails_the_register_and_not_the_offsets() -> None:
    """ABI.md 4.1 point 10: undone, each option with its own status."""
    unknown = option(77)
    wanted = offsets(64, 64, 0, unknown)
    with device() as fd:
        assert attempt(fd, "tap0", wanted) == (errno.EOPNOTSUPP, 0)
        assert status(unknown) == errno.EOPNOTSUPP
        assert register(fd, "tap0", flags=Flag.EXCLUSIVE)[0] == 0


# ---- on a wire


def place(ring: Ring, data: bytes, offset: int, high: int = 0) -> None:
    """A frame at an offset of the next TX slot, `high` in the bits above those of the offset."""
    index = ring.slot(ring.head)[0]
    ring.buffer(index)[offset : offset + len(data)] = data
    ring.set_slot(ring.head, index, len(data), 0, high | offset)
    ring.advance()


@pytest.mark.parametrize("offset", [0, 1, 63, 64, 1000])
def test_a_frame_is_sent_from_its_offset(offset: int) -> None:
    """ABI.md 13.4: data begins at buffer + offset; bits outside the mask mean nothing."""
    with opened("tap0", 1000, bits=10) as port, Host("tap0") as host:
        place(port.tx[0], frame(7, 200), offset, high=0xABCD << 48)
        port.txsync()
        assert host.receive() == frame(7, 200)


def test_an_offset_beyond_the_largest_is_cropped_to_it() -> None:
    """ABI.md 13.4: ptr & mask, cropped to max."""
    with opened("tap0", 100, bits=16) as port, Host("tap0") as host:
        index = port.tx[0].slot(0)[0]
        port.tx[0].buffer(index)[100:300] = frame(8, 200)
        port.tx[0].set_slot(0, index, 200, 0, 60000)
        port.tx[0].advance()
        port.txsync()
        assert host.receive() == frame(8, 200)


def test_a_length_is_clamped_to_the_room_behind_the_offset() -> None:
    """ABI.md 10: len > buffer size is clamped, minus the offset."""
    with opened("tap0", 1000) as port, Host("tap0") as host:
        index = port.tx[0].slot(0)[0]
        port.tx[0].buffer(index)[1000:] = frame(9, BUFFER - 1000)
        port.tx[0].set_slot(0, index, BUFFER, 0, 1000)
        port.tx[0].advance()
        port.txsync()
        assert host.receive() == frame(9, BUFFER - 1000)


def test_a_frame_is_received_at_the_offset_of_its_slot() -> None:
    """ABI.md 13.4: in both directions; ptr stays as the program left it."""
    with opened("tap0", 512, 64, bits=32) as port, Host("tap0") as host:
        ring = port.rx[0]
        ring.set_slot(1, ring.slot(1)[0], 0, 0, 7 << 32 | 300)
        host.send(frame(1, 500), frame(2, 500))
        while ring.space < 2:
            port.rxsync()
        for i, offset in ((0, 64), (1, 300)):
            index, length, _, pointer = ring.slot(i)
            assert (length, pointer & 0xFFFFFFFF) == (500, offset)
            assert bytes(ring.buffer(index)[offset : offset + 500]) == frame(i + 1, 500)
        assert ring.slot(1)[3] >> 32 == 7


def test_a_frame_that_no_longer_fits_one_buffer_goes_on_in_the_next() -> None:
    """ABI.md 12.1 and 13.4: room shrinks by the offset, what is more follows with NS_MOREFRAG, at its own offset."""
    whole = frame(3, 1500)
    with opened("tap0", 1024, 1024) as port, Host("tap0") as host:
        host.send(whole)
        ring = port.rx[0]
        while ring.space < 2:
            port.rxsync()
        first, second = ring.slot(0), ring.slot(1)
        assert (first[1], second[1]) == (1024, 476)
        parts = [bytes(ring.buffer(i)[1024 : 1024 + length]) for i, length, _, _ in (first, second)]
        assert b"".join(parts) == whole


def test_frames_without_offsets_are_where_they_always_were() -> None:
    """ABI.md 9: a program that did not ask may leave anything in ptr."""
    with Port("tap0") as port, Host("tap0") as host:
        index = port.tx[0].slot(0)[0]
        port.tx[0].buffer(index)[:100] = frame(4, 100)
        port.tx[0].set_slot(0, index, 100, 0, ALL_ONES)
        port.tx[0].advance()
        port.txsync()
        assert host.receive() == frame(4, 100)


# ---- between programs


def send(port: Port, data: bytes, offset: int) -> None:
    place(port.tx[0], data, offset)
    port.txsync()


def received(port: Port) -> list[tuple[int, bytes]]:
    """(offset by its own mask, data) of all that has arrived; released."""
    port.rxsync()
    ring, found = port.rx[0], []
    while ring.head != ring.tail:
        index, length, _, pointer = ring.slot(ring.head)
        offset = pointer & mask(ring)
        found.append((offset, bytes(ring.buffer(index)[offset : offset + length])))
        ring.advance()
    return found


def test_a_switch_copies_from_offset_to_offset() -> None:
    """ABI.md 13.4: data starts at buffer + offset in both directions."""
    with opened("vale0:a", 512, 0) as sender, opened("vale0:b", 256, 200, 12) as receiver, Port("vale0:c") as plain:
        send(sender, frame(1, 300), 333)
        assert received(receiver) == [(200, frame(1, 300))]
        assert received(plain) == [(0, frame(1, 300))]


def test_a_packet_too_long_for_the_room_behind_the_offset_is_dropped_by_a_switch() -> None:
    """ABI.md 12.5 and 13.4: whole or not at all; what fits is not held up by the largest offset."""
    with Port("vale0:a") as sender, opened("vale0:b", 2000, 1000) as receiver:
        receiver.rx[0].set_slot(1, receiver.rx[0].slot(1)[0], 0, 0, 0)
        send(sender, frame(1, BUFFER - 1000), 0)
        send(sender, frame(2, 1500), 0)
        send(sender, frame(3, 1500), 0)
        first, second = received(receiver)
        assert first == (1000, frame(1, BUFFER - 1000))
        assert second == (0, frame(2, 1500))


def test_a_slot_with_more_than_the_room_behind_its_offset_is_not_sent_by_a_switch() -> None:
    """ABI.md 10: VALE drops the packet."""
    with opened("vale0:a", 1000) as sender, Port("vale0:b") as receiver:
        place(sender.tx[0], frame(1, 100), 1000)
        index, _, flags, pointer = sender.tx[0].slot(0)
        sender.tx[0].set_slot(0, index, BUFFER - 999, flags, pointer)
        sender.txsync()
        send(sender, frame(2, BUFFER - 1000), 1000)
        assert received(receiver) == [(0, frame(2, BUFFER - 1000))]


def test_a_pipe_hands_the_offset_on_with_the_buffer() -> None:
    """ABI.md 12.3 and 13.4: slots are passed whole."""
    with opened("p{1", 512) as sender, opened("p}1", 512) as receiver:
        index = sender.tx[0].slot(0)[0]
        send(sender, frame(1, 300), 77)
        assert receiver.rx[0].slot(0)[0] == index
        assert received(receiver) == [(77, frame(1, 300))]


def test_a_pipe_never_lowers_the_offset_of_an_rx_slot() -> None:
    """ABI.md 13.4: the receiver's minimum holds, and the data is there; larger ones pass."""
    with opened("p{1", 512) as sender, opened("p}1", 512, 128) as receiver:
        send(sender, frame(1, 300), 0)
        send(sender, frame(2, 300), 200)
        assert received(receiver) == [(128, frame(1, 300)), (200, frame(2, 300))]


def test_a_packet_that_has_no_room_behind_the_receivers_offset_stays_where_it_is() -> None:
    """ABI.md 12.3: a pipe loses nothing."""
    with opened("p{1", 512) as sender, opened("p}1", 512, 512) as receiver:
        send(sender, frame(1, BUFFER), 0)
        assert received(receiver) == [(0, frame(1, BUFFER))]


@pytest.mark.parametrize("late", [False, True])
def test_an_end_without_offsets_finds_its_packets_at_the_start(*, late: bool) -> None:
    """ABI.md 9 and 13.4: also those that were sent before it was opened."""
    with opened("p{1", 512, 64) as sender:
        if late:
            send(sender, frame(1, 300), 100)
        with Port("p}1") as receiver:
            if not late:
                send(sender, frame(1, 300), 100)
            assert received(receiver) == [(0, frame(1, 300))]
            send(receiver, frame(2, 300), 0)
            assert received(sender) == [(64, frame(2, 300))]


def test_what_waits_in_a_pipe_is_where_the_new_receiver_looks_for_it() -> None:
    """ABI.md 12.3 and 13.4: initial offset in all slots of the first user, without harm to what is there."""
    with Port("p{1") as sender:
        for i in range(5):
            send(sender, frame(i, 300), 0)
        with opened("p}1", 256, 256) as receiver:
            assert received(receiver) == [(256, frame(i, 300)) for i in range(5)]
            assert receiver.rx[0].slot(9)[3] == 256


def test_slots_that_come_back_keep_the_senders_offset() -> None:
    """ABI.md 13.4: a receiver that knows no offsets does not take the sender's away."""
    request = Register(tx_slots=8, rx_slots=8)
    with opened("p{1", 512, 64, request=request) as sender, Port("p}1") as receiver:
        for i in range(40):
            assert sender.tx[0].slot(sender.tx[0].head)[3] == 64
            send(sender, frame(i, 100), 64)
            assert received(receiver) == [(0, frame(i, 100))]
            receiver.rxsync()
            sender.txsync()


def test_a_receiver_with_smaller_offsets_finds_what_begins_behind_them() -> None:
    """ABI.md 13.4: an offset is cropped to the largest, and so is where the data is put."""
    with opened("p{1", 1000) as sender, opened("p}1", 100, 10, 8) as receiver:
        send(sender, frame(1, 500), 900)
        assert received(receiver) == [(100, frame(1, 500))]


# ---- monitors


def test_a_copy_monitor_sees_packets_at_its_own_offsets() -> None:
    """ABI.md 12.4 and 13.4: copied from where they begin to where the monitor wants them."""
    watching = Register(flags=Flag.MONITOR_TX | Flag.MONITOR_RX)
    with (
        opened("p{1", 512) as sender,
        opened("p{1", 256, 128, request=watching) as monitor,
        Port("p{1", watching) as plain,
        opened("p}1", 512) as receiver,
    ):
        send(sender, frame(1, 300), 400)
        assert received(receiver) == [(400, frame(1, 300))]
        assert received(monitor) == [(128, frame(1, 300))]
        assert received(plain) == [(0, frame(1, 300))]


def test_a_zero_copy_monitor_has_no_offsets() -> None:
    """ABI.md 13.4: it shares the buffers of its parent; EOPNOTSUPP."""
    with Port("p{1"), device() as fd:
        result = attempt(fd, "p{1", offsets(64), flags=Flag.MONITOR_TX | Flag.MONITOR_RX | Flag.ZCOPY_MON)
        assert result == (errno.EOPNOTSUPP, errno.EOPNOTSUPP)
