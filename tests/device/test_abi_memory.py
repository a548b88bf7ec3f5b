# SPDX-License-Identifier: BSD-2-Clause
"""What programs find in the mapping when they have registered (ABI.md sections 8 and 9)."""

import errno
import struct
from collections.abc import Iterator

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, PoolsInfo, PortInfo, Register, RequestType
from tests.support.ioctls import device, hold, request

pytestmark = pytest.mark.usefixtures("wires")

HEADER = struct.Struct("<qIIHHIIIIxxxxqqQQ")  # netmap_ring up to its semaphores
INTERFACE = struct.Struct("<16s10I")  # netmap_if up to its offsets


@pytest.fixture
def port() -> Iterator[Port]:
    with Port("quad", Register(mode=Mode.NIC_SW)) as opened:
        yield opened


def interface(port: Port) -> tuple[int, ...]:
    """The fields of netmap_if behind its name."""
    return INTERFACE.unpack_from(port.memory, port.if_offset)[1:]


def offsets(port: Port, count: int) -> list[int]:
    return list(struct.unpack_from(f"<{count}q", port.memory, port.if_offset + 56))


# ---- pools


def test_the_region_has_the_size_of_netmaps_own() -> None:
    """ABI.md 8, first row of the table."""
    with device() as fd:
        result, body = request(fd, RequestType.PORT_INFO_GET, "", PortInfo())
    assert (result, PortInfo.decode(body)) == (0, PortInfo(memsize=343019520, mem_id=1))


def test_the_pools_lie_one_after_the_other_with_netmaps_geometry() -> None:
    """ABI.md 8: if objects, rings, buffers; each pool a whole number of clusters."""
    with device() as fd:
        result, body = request(fd, RequestType.POOLS_INFO_GET, "quad", PoolsInfo())
    assert result == 0
    assert PoolsInfo.decode(body) == PoolsInfo(
        memsize=343019520,
        mem_id=1,
        if_offset=0,
        if_total=100,
        if_size=1024,
        ring_offset=102400,
        ring_total=200,
        ring_size=36864,
        buf_offset=7475200,
        buf_total=163840,
        buf_size=2048,
    )


def test_a_port_without_a_name_has_no_pools() -> None:
    """ABI.md 4.2, POOLS_INFO_GET."""
    with device() as fd:
        assert request(fd, RequestType.POOLS_INFO_GET, "", PoolsInfo())[0] == errno.ENXIO


def test_every_port_is_in_region_1_and_says_the_same_size() -> None:
    """ABI.md 8: ports with one mem_id share one mapping."""
    with Port("tap0") as tap, Port("quad") as quad, hold() as null:
        assert {(port.granted.mem_id, port.granted.memsize) for port in (tap, quad, null)} == {(1, 343019520)}


def test_what_one_port_maps_is_what_another_maps() -> None:
    """ABI.md 8: offsets in a map are offsets in the region, so one map serves all ports."""
    with Port("tap0") as tap, Port("quad") as quad:
        tap.tx[0].head = 5
        at = tap.tx[0].offset + 20
        assert quad.memory[at : at + 4] == b"\5\0\0\0"
        tap.tx[0].head = 0


# ---- netmap_if


def test_netmap_if_says_name_and_numbers_of_rings(port: Port) -> None:
    """ABI.md 9: ni_version is never written, no extra buffers, spare words 0."""
    assert port.name == "quad"
    assert interface(port) == (0, 0, 4, 4, 0, 1, 1, 0, 0, 0)


def test_the_name_in_netmap_if_is_cut_to_15_characters() -> None:
    """ABI.md 9: ni_name is terminated."""
    with hold("abcdefghijklmnopqrstuvwxyz") as port:
        assert port.name == "null:abcdefghij"


def test_netmap_if_counts_a_host_ring_where_the_answer_says_none() -> None:
    """ABI.md 9: ni_host_*_rings is at least 1."""
    with hold(tx_rings=1, rx_rings=2, tx_slots=8, rx_slots=8) as port:
        assert (port.granted.host_tx_rings, port.granted.host_rx_rings) == (0, 0)
        assert interface(port) == (0, 0, 1, 2, 0, 1, 1, 0, 0, 0)
        assert [bool(offset) for offset in offsets(port, 5)] == [True, False, True, True, False]


def test_netmap_if_lies_at_nr_offset_inside_its_pool(port: Port) -> None:
    """ABI.md 3.5."""
    assert port.granted.offset < 102400
    assert port.granted.offset % 1024 == 0


@pytest.mark.parametrize(
    ("fields", "bound"),
    [
        ({"mode": Mode.ALL_NIC}, "XXXX- XXXX-"),
        ({"mode": Mode.SW}, "----X ----X"),
        ({"mode": Mode.NIC_SW}, "XXXXX XXXXX"),
        ({"mode": Mode.ONE_NIC, "ringid": 2}, "--X-- --X--"),
        ({"mode": Mode.ONE_SW}, "----X ----X"),
        ({"mode": Mode.NIC_SW, "flags": Flag.RX_RINGS_ONLY}, "----- XXXXX"),
        ({"mode": Mode.NIC_SW, "flags": Flag.TX_RINGS_ONLY}, "XXXXX -----"),
        ({"mode": Mode.NIC_SW, "flags": Flag.TX_RINGS_ONLY | Flag.RX_RINGS_ONLY}, "----- -----"),
    ],
)
def test_only_bound_rings_have_an_offset(fields: dict[str, int], bound: str) -> None:
    """ABI.md 9: ring_ofs is tx, host tx, rx, host rx, and 0 for every ring that is not this file's."""
    with Port("quad", Register(**fields)) as port:
        shown = "".join("X" if offset else "-" for offset in offsets(port, 10))
        assert f"{shown[:5]} {shown[5:]}" == bound


# ---- rings and slots


@pytest.mark.parametrize("host", [False, True])
def test_a_fresh_tx_ring_offers_all_slots_but_one(port: Port, host: bool) -> None:
    """ABI.md 9: head = cur = 0, tail = num_slots - 1, dir 1 for TX."""
    number = 4 if host else 1
    at = port.tx[number].offset
    fields = HEADER.unpack_from(port.memory, at)
    assert fields == (7475200 - at, 1024, 2048, number, 1, 0, 0, 1023, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("host", [False, True])
def test_a_fresh_rx_ring_is_empty(port: Port, host: bool) -> None:
    """ABI.md 9: head = cur = tail = 0, dir 0 for RX."""
    number = 4 if host else 1
    at = port.rx[number].offset
    fields = HEADER.unpack_from(port.memory, at)
    assert fields == (7475200 - at, 1024, 2048, number, 0, 0, 0, 0, 0, 0, 0, 0, 0)


def test_the_room_for_semaphores_is_zero(port: Port) -> None:
    """ABI.md 3.5: sem at 128, slots at 256."""
    ring = port.tx[0]
    assert port.memory[ring.offset + 128 : ring.offset + 256] == bytes(128)


def test_every_slot_has_a_buffer_of_its_own_and_its_whole_size(port: Port) -> None:
    """ABI.md 9: distinct buffers, len = buffer size, flags and ptr 0; never buffers 0 and 1."""
    slots = [ring.slot(i) for ring in [*port.tx.values(), *port.rx.values()] for i in range(ring.num_slots)]
    indices = [slot[0] for slot in slots]
    assert {slot[1:] for slot in slots} == {(2048, 0, 0)}
    assert len(set(indices)) == len(indices) == 10 * 1024
    assert min(indices) >= 2
    assert max(indices) < 163840


def test_no_two_ports_are_given_the_same_buffer() -> None:
    """ABI.md 9."""
    with Port("tap0") as one, Port("quad") as other, hold(tx_rings=1, rx_rings=1, tx_slots=64, rx_slots=64) as third:
        rings = [ring for port in (one, other, third) for ring in [*port.tx.values(), *port.rx.values()]]
        indices = [ring.slot(i)[0] for ring in rings for i in range(ring.num_slots)]
        assert len(set(indices)) == len(indices)


def test_a_second_file_sees_the_same_ring_and_its_indices() -> None:
    """ABI.md 9: rings are kept until no file uses them."""
    with Port("quad", Register(mode=Mode.ONE_NIC, ringid=2)) as first:
        first.put(b"x" * 60, ring=2)
        first.txsync()
        with Port("quad") as second:
            assert second.tx[2].offset == first.tx[2].offset
            assert (second.tx[2].head, second.tx[2].tail) == (1, 0)
            assert second.if_offset != first.if_offset
        first.put(b"x" * 60, ring=2)
        first.txsync()
        assert (first.tx[2].head, first.tx[2].tail) == (2, 1)
