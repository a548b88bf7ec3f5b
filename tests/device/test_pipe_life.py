# SPDX-License-Identifier: BSD-2-Clause
"""Pipes as ports: their names, sizes, modes and lifetimes, on any parent or none (ABI.md sections 6, 7 and 12.3)."""

import errno
from contextlib import ExitStack
from dataclasses import replace

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import (
    NIOCREGIF,
    Flag,
    Legacy,
    Mode,
    PoolsInfo,
    PortHeader,
    PortInfo,
    Register,
    RequestType,
)
from tests.support.ioctls import Block, device, extra_list, free_buffers, ioctl, register, request, settled
from tests.support.switches import ask, attached, persistent, refusal

pytestmark = pytest.mark.usefixtures("wires")

FRAME = b"\x02" * 12 + b"\x88\xb5" + bytes(46)
PARENTS = ["nowhere", "tap0", "quad", "vale9:p", "vale9:p}outer"]


def delivered(sender: Port, receiver: Port) -> list[bytes]:
    """What one more frame makes the receiver see."""
    sender.send(FRAME)
    receiver.rxsync()
    return list(receiver.take())


# ---- parents and names


@pytest.mark.parametrize("parent", PARENTS)
def test_a_pipe_carries_frames_both_ways_whatever_its_parent_is(parent: str) -> None:
    """ABI.md 12.3: any kind of parent, open or not, existing or not."""
    with Port(f"{parent}{{1") as master, Port(f"{parent}}}1") as slave:
        assert delivered(master, slave) == [FRAME]
        assert delivered(slave, master) == [FRAME]


@pytest.mark.parametrize("parent", ["tap0", "vale9:p"])
def test_a_pipe_lives_beside_its_open_parent(parent: str) -> None:
    """ABI.md 12.3: the parent's own traffic and the pipe's are two things."""
    with Port(parent) as port, Port(f"{parent}{{1") as master, Port(f"{parent}}}1") as slave:
        assert delivered(master, slave) == [FRAME]
        port.rxsync()
        assert FRAME not in list(port.take())


def test_a_parent_may_go_while_its_pipe_is_open() -> None:
    """ABI.md 12.3: the parent need not be open."""
    with Port("vale9:p") as parent, Port("vale9:p{1") as master, Port("vale9:p}1") as slave:
        parent.close()
        assert delivered(master, slave) == [FRAME]


@pytest.mark.parametrize("first", "{}")
def test_either_end_may_be_opened_first(first: str) -> None:
    """ABI.md 12.3: both ends are created together."""
    second = "}" if first == "{" else "{"
    with Port(f"nowhere{first}1") as one, Port(f"nowhere{second}1") as other:
        assert delivered(one, other) == [FRAME]
        assert delivered(other, one) == [FRAME]


@pytest.mark.parametrize("name", ["nowhere{", "nowhere}", "{1", "}1", "{", "}"])
def test_half_a_pipe_name_is_invalid(name: str) -> None:
    """ABI.md 12.3: empty id or bracket first."""
    assert refusal(name) == errno.EINVAL


def test_a_pipe_identifier_is_any_string() -> None:
    """ABI.md 6: the kernel sees the bare name; only clients want letters and digits."""
    for identifier in (b"a b", b"\xff\xfe", b"/", b"\x01", b"x" * 55):
        with device() as one, device() as other:
            assert register(one, b"parent{" + identifier)[0] == 0
            assert register(other, b"parent}" + identifier)[0] == 0


def test_pipes_of_one_parent_do_not_meet() -> None:
    """ABI.md 12.3: NAME{ID and NAME}ID, nobody else."""
    with Port("nowhere{1") as master, Port("nowhere}1") as slave, Port("nowhere}2") as stranger:
        assert delivered(master, slave) == [FRAME]
        stranger.rxsync()
        assert list(stranger.take()) == []


def test_the_64th_pipe_of_a_parent_is_the_last() -> None:
    """ABI.md 3.6: pipes: 64 per parent; other parents have their own."""
    with ExitStack() as stack:
        for i in range(64):
            fd = stack.enter_context(device())
            assert register(fd, f"nowhere{{{i}", tx_slots=2, rx_slots=2, flags=Flag.TX_RINGS_ONLY)[0] == 0
        assert refusal("nowhere{64") == errno.ENOMEM
        assert refusal("nowhere}63", flags=Flag.TX_RINGS_ONLY) == 0
        assert refusal("elsewhere{64", tx_slots=2, rx_slots=2) == 0


def test_a_port_that_a_switch_holds_cannot_become_a_parent() -> None:
    """ABI.md 12.3: parent attached to a switch: EBUSY."""
    with attached("vale9:tap1"):
        assert refusal("tap1{1") == errno.EBUSY
    assert refusal("tap1{1") == 0


# ---- sizes


def sizes(answer: Register | PortInfo) -> tuple[int, int, int, int]:
    return answer.tx_rings, answer.rx_rings, answer.tx_slots, answer.rx_slots


@pytest.mark.parametrize(("parent", "slots"), [("nowhere", 1024), ("tap1", 16), ("quad", 1024)])
def test_a_pipe_has_one_ring_each_way_and_its_parents_slots(parent: str, slots: int) -> None:
    """ABI.md 9: pipe: 1 ring, parent's number of slots."""
    with Port(f"{parent}{{1") as port:
        assert sizes(port.granted) == (1, 1, slots, slots)
        assert (port.tx[0].num_slots, port.rx[0].num_slots) == (slots, slots)


def test_the_first_end_chooses_the_sizes_and_the_other_has_them_the_other_way_round() -> None:
    """ABI.md 12.3: sizes swapped between master and slave; creation parameters count only for the first end."""
    asked = Register(tx_rings=3, rx_rings=2, tx_slots=64, rx_slots=32)
    with Port("nowhere{1", asked) as master, Port("nowhere}1", asked) as slave:
        assert sizes(master.granted) == (3, 2, 64, 32)
        assert sizes(slave.granted) == (2, 3, 32, 64)


def test_a_slave_that_comes_first_chooses_too() -> None:
    """ABI.md 12.3: the sizes it asks for are its own."""
    with Port("nowhere}1", Register(tx_rings=3, rx_rings=2, tx_slots=64, rx_slots=32)) as slave:
        assert sizes(slave.granted) == (3, 2, 64, 32)
        with Port("nowhere{1") as master:
            assert sizes(master.granted) == (2, 3, 32, 64)


def test_sizes_beyond_the_limits_are_cut() -> None:
    """ABI.md 3.6 and 7: 256 rings, 4096 slots, and what a ring object holds; too big is clamped silently."""
    with device() as fd:
        result, body = request(fd, RequestType.PORT_INFO_GET, "nowhere{1", PortInfo(tx_slots=1 << 31, rx_slots=5000))
        assert (result, sizes(PortInfo.decode(body))) == (0, (1, 1, 2288, 2288))
        assert register(fd, "nowhere{1", tx_slots=1)[1].tx_slots == 2


def test_ring_i_of_one_end_feeds_ring_i_of_the_other() -> None:
    """ABI.md 12.3: multi-ring pipes."""
    asked = Register(tx_rings=4, rx_rings=4, tx_slots=16, rx_slots=16)
    with Port("nowhere{1", asked) as master, Port("nowhere}1") as slave:
        for ring in range(4):
            master.put(bytes([ring]) * 60, ring)
            slave.put(bytes([ring + 10]) * 60, ring)
        master.txsync()
        slave.txsync()
        slave.rxsync()
        master.rxsync()
        for ring in range(4):
            assert list(slave.take(ring)) == [bytes([ring]) * 60]
            assert list(master.take(ring)) == [bytes([ring + 10]) * 60]


def test_a_pipe_has_no_host_rings() -> None:
    """ABI.md 7 and 9: the answer says 0/0, the netmap_if one each way with index 0."""
    with Port("nowhere{1", Register(host_tx_rings=2, host_rx_rings=2)) as port:
        assert (port.granted.host_tx_rings, port.granted.host_rx_rings) == (0, 0)
        assert (list(port.tx), list(port.rx)) == ([0], [0])


@pytest.mark.parametrize("mode", [Mode.SW, Mode.NIC_SW, Mode.ONE_SW])
def test_modes_with_host_rings_are_invalid_on_a_pipe_and_the_descriptor_may_try_again(mode: int) -> None:
    """ABI.md 12.3 (ctrl-api-test pipe_master): NIC_SW must fail, then ALL_NIC on the same descriptor work."""
    with device() as fd:
        assert register(fd, "nowhere{1", mode=mode)[0] == errno.EINVAL
        assert register(fd, "nowhere{1")[0] == 0


def test_one_ring_of_a_pipe_may_be_bound_alone() -> None:
    """ABI.md 12.3: ONE_NIC."""
    asked = Register(tx_rings=2, rx_rings=2, mode=Mode.ONE_NIC, ringid=1)
    with Port("nowhere{1", asked) as master, Port("nowhere}1", replace(asked, ringid=1)) as slave:
        assert (list(master.tx), list(slave.rx)) == ([1], [1])
        master.put(FRAME, 1)
        master.txsync()
        slave.rxsync()
        assert list(slave.take(1)) == [FRAME]


@pytest.mark.parametrize("name", ["nowhere{1", "nowhere}1"])
def test_an_end_held_exclusively_is_busy_and_the_other_end_is_not(name: str) -> None:
    """ABI.md 7: per ring, and the rings of the other end are others."""
    other = name.translate({ord("{"): "}", ord("}"): "{"})
    with Port(name, Register(flags=Flag.EXCLUSIVE)):
        assert refusal(name) == errno.EBUSY
        assert refusal(name, flags=Flag.EXCLUSIVE) == errno.EBUSY
        with Port(other, Register(flags=Flag.EXCLUSIVE)):
            pass


def test_an_end_in_use_cannot_be_had_exclusively() -> None:
    """ABI.md 7: EXCLUSIVE is asked and a wanted ring has a user."""
    with Port("nowhere{1"):
        assert refusal("nowhere{1", flags=Flag.EXCLUSIVE) == errno.EBUSY


def test_both_ends_and_the_parent_are_in_one_region() -> None:
    """ABI.md 12.3: pipes share memory with the parent, so zero copy is possible."""
    with Port("tap0") as parent, Port("tap0{1") as master, Port("tap0}1") as slave:
        assert {port.granted.mem_id for port in (parent, master, slave)} == {1}


def test_the_name_of_an_end_is_in_its_netmap_if() -> None:
    """ABI.md 9: "eth0{1"."""
    with Port("nowhere{1") as master, Port("nowhere}1") as slave:
        assert (master.name, slave.name) == ("nowhere{1", "nowhere}1")


# ---- life


def test_close_and_reopen_of_one_end_finds_the_old_indices() -> None:
    """ABI.md 12.3: the rings of the end not open stay alive while the other is open."""
    with Port("nowhere{1") as master:
        with Port("nowhere}1") as slave:
            for _ in range(5):
                assert delivered(master, slave) == [FRAME]
            slave.rxsync()
        with Port("nowhere}1") as again:
            ring = again.rx[0]
            assert (ring.head, ring.cur, ring.tail) == (5, 5, 5)
            assert delivered(master, again) == [FRAME]


def test_the_other_end_does_not_notice_that_its_partner_was_away() -> None:
    """ABI.md 12.3: the indices are kept, of the sender too."""
    with Port("nowhere}1") as slave:
        with Port("nowhere{1") as master:
            master.send(FRAME)
        slave.rxsync()
        assert list(slave.take()) == [FRAME]
        with Port("nowhere{1") as again:
            assert (again.tx[0].head, again.tx[0].tail) == (1, 1023)
            assert delivered(again, slave) == [FRAME]


def test_close_and_reopen_of_both_ends_is_a_fresh_pipe() -> None:
    """ABI.md 9: at last close and reopen everything is reset, what was under way included."""
    with Port("nowhere{1", Register(tx_slots=8, rx_slots=8)) as master, Port("nowhere}1") as slave:
        delivered(master, slave)
        master.send(FRAME)
    with Port("nowhere}1") as slave, Port("nowhere{1") as master:
        assert (slave.rx[0].num_slots, slave.rx[0].head, slave.rx[0].tail) == (1024, 0, 0)
        assert (master.tx[0].head, master.tx[0].tail) == (0, 1023)
        slave.rxsync()
        assert list(slave.take()) == []


def test_a_directions_slots_name_the_same_buffers_at_both_ends() -> None:
    """ABI.md 12.3: one ring's buffers are those that the other will see."""
    with Port("nowhere{1") as master, Port("nowhere}1") as slave:
        assert [master.tx[0].slot(i) for i in range(1024)] == [slave.rx[0].slot(i) for i in range(1024)]
        assert len({master.tx[0].slot(i)[0] for i in range(1024)}) == 1024


def test_a_pipe_takes_its_buffers_once_and_gives_them_all_back() -> None:
    """ABI.md 12.3: both ends share them; no buffer is lost with either order of closing."""
    whole = settled(free_buffers, 163838)
    for first in (0, 1):
        with Port("nowhere{1") as master, Port("nowhere}1") as slave:
            assert free_buffers() == whole - 2048
            (master, slave)[first].close()
            assert settled(free_buffers, whole - 2048) == whole - 2048
        assert settled(free_buffers, whole) == whole


def test_a_pipe_with_one_direction_bound_takes_the_buffers_of_that_one() -> None:
    """ABI.md 9: rings are allocated only when some descriptor binds them."""
    whole = settled(free_buffers, 163838)
    with Port("nowhere{1", Register(flags=Flag.TX_RINGS_ONLY)) as master:
        assert free_buffers() == whole - 1024
        with Port("nowhere}1", Register(flags=Flag.RX_RINGS_ONLY)) as slave:
            assert free_buffers() == whole - 1024
            assert delivered(master, slave) == [FRAME]
    assert settled(free_buffers, whole) == whole


def test_extra_buffers_come_with_an_end() -> None:
    """ABI.md 7: granted, linked, given back."""
    whole = settled(free_buffers, 163838)
    with Port("nowhere{1", Register(extra_bufs=58)) as port:
        assert port.granted.extra_bufs == 58
        assert len(set(extra_list(port))) == 58
    assert settled(free_buffers, whole) == whole


# ---- information, other requests


@pytest.mark.parametrize("name", ["nowhere{1", "nowhere}1", "tap0{7"])
def test_info_about_a_pipe_that_was_never_opened_makes_none(name: str) -> None:
    """ABI.md 4.2: PORT_INFO_GET creates the port and drops it again; and pools likewise (ctrl-api-test 16, 17)."""
    result, body = ask(RequestType.PORT_INFO_GET, name, PortInfo(tx_slots=64, tx_rings=3))
    info = PortInfo.decode(body)
    assert (result, info.tx_slots, info.tx_rings, info.rx_slots, info.mem_id) == (0, 64, 3, 1024, 1)
    assert ask(RequestType.POOLS_INFO_GET, name, PoolsInfo())[0] == 0
    assert ask(RequestType.PORT_HDR_GET, name, PortHeader())[0] == errno.ENODEV


def test_info_about_an_open_pipe_says_what_it_has() -> None:
    """ABI.md 4.2: and leaves it as it is."""
    with Port("nowhere{1", Register(tx_slots=64, rx_slots=32)) as master:
        info = PortInfo.decode(ask(RequestType.PORT_INFO_GET, "nowhere}1", PortInfo(tx_slots=7))[1])
        assert sizes(info) == (1, 1, 32, 64)
        with Port("nowhere}1") as slave:
            assert delivered(master, slave) == [FRAME]


def test_a_pipe_has_no_virtio_header() -> None:
    """ABI.md 4.2: PORT_HDR_GET is 0; PORT_HDR_SET ENXIO: not VALE."""
    with Port("nowhere{1"):
        assert ask(RequestType.PORT_HDR_GET, "nowhere{1", PortHeader(9)) == (0, PortHeader(0).encode())
        assert ask(RequestType.PORT_HDR_SET, "nowhere{1", PortHeader(12))[0] == errno.ENXIO


@pytest.mark.parametrize(("mode", "name"), [(Mode.PIPE_MASTER, "nowhere{77"), (Mode.PIPE_SLAVE, "nowhere}77")])
def test_a_legacy_request_names_a_pipe_by_mode_and_number(mode: int, name: str) -> None:
    """ABI.md 5: the name gets "{N" or "}N" appended; nr_name, nr_ringid and nr_flags come back as sent."""
    asked = Legacy(b"nowhere".ljust(16, b"\0"), 14, 0, 0, 64, 32, 0, 0, 77, 0, 5, 0, 0, mode, 0)
    block = Block(asked.encode())
    with device() as fd:
        assert ioctl(fd, NIOCREGIF, block) == 0
        answer = Legacy.decode(block.data)
        assert (answer.tx_slots, answer.rx_slots, answer.tx_rings, answer.arg2) == (64, 32, 1, 1)
        assert replace(answer, offset=0, memsize=0, tx_rings=0, rx_rings=0, arg2=0) == asked
        info = PortInfo.decode(ask(RequestType.PORT_INFO_GET, name, PortInfo())[1])
        assert sizes(info) == (1, 1, 64, 32)


def test_a_persistent_port_may_be_a_parent() -> None:
    """ABI.md 12.3: any kind but monitor; the pipe has its slots."""
    with persistent("papa", tx_slots=64, rx_slots=32), Port("papa{1") as master, Port("papa}1") as slave:
        assert sizes(master.granted) == (1, 1, 64, 32)
        assert delivered(master, slave) == [FRAME]


def test_programs_that_open_and_close_either_end_all_the_time_find_a_working_pipe() -> None:
    """ABI.md 12.3: ends that come and go in any order lose no ring and no buffer."""
    whole = settled(free_buffers, 163838)
    for turn in range(40):
        with Port("nowhere{1") as master, Port("nowhere}1") as slave:
            assert delivered(master, slave) == [FRAME]
            (slave, master)[turn % 2].close()
            with Port("nowhere}1" if turn % 2 == 0 else "nowhere{1"):
                pass
    assert settled(free_buffers, whole) == whole
