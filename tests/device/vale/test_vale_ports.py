# SPDX-License-Identifier: BSD-2-Clause
"""VALE ports as ports: names, sizes, lifetimes, limits, headers, polling (ABI.md 4.2, 6, 7, 8 and 12.5)."""

import errno
from contextlib import ExitStack

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import (
    Flag,
    Mode,
    PoolsInfo,
    PortInfo,
    RequestType,
    ValeList,
)
from tests.support.daemon import Daemon
from tests.support.host import ip
from tests.support.ioctls import device, extra_list, register, request, settled
from tests.support.switches import (
    BROADCAST,
    NO_PORT,
    TWO_CPUS,
    all_ports,
    arrived,
    ask,
    attach,
    attached,
    detach,
    frame,
    get_header,
    info,
    mac,
    next_port,
    opened,
    persistent,
    place_of,
    poll_off,
    poll_on,
    refusal,
    send,
    set_header,
    sizes,
)

pytestmark = pytest.mark.usefixtures("wires", "switches_go", "buffers_come_back")

A, B = mac(1), mac(2)
VNET = Flag.ACCEPT_VNET_HDR


def is_gone(bridge: str) -> bool:
    return settled(lambda: place_of(bridge)[0], errno.ENOENT) == errno.ENOENT


# ---- names


@pytest.mark.parametrize("name", ["vale:a", "vale0:a", "valeABC_9:a", "val:a", "valx:a", "vale0:", "vale0:" + "x" * 15])
def test_a_name_that_begins_with_val_and_has_a_colon_makes_a_port(name: str) -> None:
    """ABI.md 6: the kernel compares three letters; strlen(name) - pos(':') <= 16."""
    assert refusal(name) == 0


@pytest.mark.parametrize(
    "name", ["vale0", "val", "vale-0:a", "vale 0:a", "vale.:a", "vale0:" + "x" * 16, "vale0:" + "é" * 8]
)
def test_a_name_that_is_no_switch_and_port_is_enomem(name: str) -> None:
    """ABI.md 6: invalid bridge name: ENOMEM on create; the length is in bytes."""
    assert refusal(name) == errno.ENOMEM


def test_a_name_that_is_no_switch_and_port_is_enxio_where_nothing_is_made() -> None:
    """ABI.md 6: ENXIO otherwise."""
    assert get_header("vale-0:a")[0] == get_header("vale0")[0] == errno.ENXIO


def test_a_port_may_have_any_bytes_in_its_name() -> None:
    """ABI.md 6: only the switch's part is checked; what another part of the syntax claims means that."""
    refused = {}
    for value in range(1, 256):
        result = refusal(b"vale0:a" + bytes([value]) + b"b")
        if result:
            refused[chr(value)] = result
    assert refused == {}


def test_a_switch_has_letters_digits_and_underscores_in_its_name() -> None:
    """ABI.md 6: [A-Za-z0-9_]*."""
    allowed = {value for value in range(1, 256) if refusal(b"vale" + bytes([value]) + b":a") == 0}
    letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"
    # A colon begins the port; { and } make a pipe, of a parent that need not exist.
    assert allowed == {*letters, *b":{}"}


def test_two_ports_whose_names_differ_in_one_odd_byte_are_two() -> None:
    """ABI.md 6: bytes, whatever they would mean as text."""
    with device() as one, device() as other:
        assert register(one, b"vale0:\xff", flags=Flag.EXCLUSIVE)[0] == 0
        assert register(other, b"vale0:\xfe", flags=Flag.EXCLUSIVE)[0] == 0


@pytest.mark.parametrize("name", ["vale0:tap0", "vale0:quad"])
def test_an_interface_that_is_not_attached_is_no_port_of_a_switch(name: str) -> None:
    """ABI.md 12.5: the name of an existing interface that is not attached: EINVAL."""
    assert refusal(name) == errno.EINVAL


# ---- sizes and memory


def test_a_port_has_one_ring_each_way_of_1024_slots() -> None:
    """ABI.md 9: and no host rings: 0/0 in the answer."""
    with opened("vale0:a", host_tx_rings=3, host_rx_rings=3) as port:
        assert sizes(port.granted) == (1, 1, 1024, 1024)
        assert (port.granted.host_tx_rings, port.granted.host_rx_rings, port.granted.mem_id) == (0, 0, 1)
        assert port.name == "vale0:a"


def test_sizes_count_when_a_port_is_made_and_not_later() -> None:
    """ABI.md 7 and 12.5: honoured by VALE on creation; rings count as created."""
    with opened("vale0:a", tx_rings=3, rx_rings=2, tx_slots=64, rx_slots=128) as port:
        assert sizes(port.granted) == (3, 2, 64, 128)
        with opened("vale0:a", tx_rings=9, rx_rings=9, tx_slots=9, rx_slots=9) as again:
            assert sizes(again.granted) == (3, 2, 64, 128)
        assert sizes(info("vale0:a", tx_slots=9)) == (3, 2, 64, 128)


def test_sizes_beyond_the_limits_are_cut() -> None:
    """ABI.md 3.6: 16 rings, 4096 slots, and what a ring object holds."""
    asked = {"tx_rings": 99, "rx_rings": 65535, "tx_slots": 1, "rx_slots": 1 << 31}
    assert sizes(info("vale0:a", **asked)) == (16, 16, 2, 2288)


@pytest.mark.parametrize("mode", [Mode.SW, Mode.NIC_SW, Mode.ONE_SW, Mode.DEFAULT, 9])
def test_modes_that_need_host_rings_are_invalid_and_leave_no_port(mode: int) -> None:
    """ABI.md 7: SW, NIC_SW, ONE_SW on a port without host rings."""
    assert refusal("vale0:a", mode=mode) == errno.EINVAL
    assert place_of("vale0")[0] == errno.ENOENT


def test_extra_buffers_come_with_a_vale_port() -> None:
    """ABI.md 7: granted, linked, given back."""
    with opened("vale0:a", extra_bufs=20) as port:
        assert port.granted.extra_bufs == 20
        assert len(set(extra_list(port))) == 20


def test_64_ports_with_default_rings_fit_in_the_default_region() -> None:
    """Issue B: and frames cross them."""
    with ExitStack() as stack:
        ports = [stack.enter_context(opened(f"vale0:p{i}")) for i in range(64)]
        send(ports[0], frame(BROADCAST, A))
        assert [arrived(port) for port in ports[1:]] == [[frame(BROADCAST, A)]] * 63


def test_79_ports_with_default_rings_are_all_the_default_region_has_buffers_for() -> None:
    """ABI.md 7 and 8: ENOMEM, and nothing is left of the port that did not fit."""
    with ExitStack() as stack:
        for i in range(79):
            assert register(stack.enter_context(device()), f"vale0:p{i}")[0] == 0
        assert refusal("vale0:p79") == errno.ENOMEM
        assert place_of("vale0:p79")[2] == NO_PORT


# ---- life


def test_an_ephemeral_port_and_its_switch_go_with_the_last_close() -> None:
    """ABI.md 12.5: gone at last close; bridge gone with its last port."""
    with opened("vale0:a") as a, opened("vale0:b"):
        assert sorted(all_ports()) == ["vale0:a", "vale0:b"]
        a.close()
        assert settled(lambda: len(all_ports()), 1) == 1
        assert all_ports() == ["vale0:b"]
    assert is_gone("vale0")


def test_a_port_stays_while_any_program_has_it() -> None:
    """ABI.md 12.5: gone at the last close."""
    with opened("vale0:a") as one, opened("vale0:a"):
        one.close()
        assert refusal("vale0:a") == 0  # which waits for the release
        assert place_of("vale0:a")[0] == 0


def test_a_port_that_is_made_again_is_new() -> None:
    """ABI.md 9: at last close and reopen everything is reset; sizes are chosen again."""
    with opened("vale0:a", tx_slots=64) as port:
        send(port, frame(BROADCAST, A))
    with opened("vale0:a", tx_slots=32) as port:
        assert (port.tx[0].num_slots, port.tx[0].head, port.tx[0].tail) == (32, 0, 31)


def test_info_makes_a_port_and_drops_it() -> None:
    """ABI.md 4.2: PORT_INFO_GET; an ephemeral port not otherwise in use disappears again, its switch too."""
    assert sizes(info("vale0:a", tx_rings=2, tx_slots=64)) == (2, 1, 64, 1024)
    assert place_of("vale0")[0] == errno.ENOENT
    result, body = ask(RequestType.POOLS_INFO_GET, "vale0:a", PoolsInfo())
    assert (result, PoolsInfo.decode(body).buf_total, place_of("vale0")[0]) == (0, 163840, errno.ENOENT)


def test_info_about_a_bad_name_is_enomem() -> None:
    """ABI.md 4.2: ENOMEM bad vale name."""
    assert ask(RequestType.PORT_INFO_GET, "vale-:a", PortInfo())[0] == errno.ENOMEM


# ---- limits


def test_the_ninth_switch_is_refused_until_one_goes() -> None:
    """ABI.md 3.6 and 12.5: 8 bridges; ENOMEM."""
    with ExitStack() as stack:
        ports = [stack.enter_context(opened(f"vale{i}:a", tx_slots=2, rx_slots=2)) for i in range(8)]
        assert refusal("vale8:a") == errno.ENOMEM
        assert refusal("vale3:b") == 0
        ports[3].close()
        assert settled(lambda: refusal("vale8:a"), 0) == 0


def test_a_switch_has_254_ports() -> None:
    """ABI.md 3.6: 254 ports each; the 255th is ENOMEM, and a place that comes free is used again."""
    with ExitStack() as stack:
        for i in range(99):  # as many as netmap_ifs allow to be open, then persistent ones
            fd = stack.enter_context(device())
            assert register(fd, f"vale0:p{i}", tx_slots=2, rx_slots=2, flags=Flag.TX_RINGS_ONLY)[0] == 0
        for i in range(155):
            stack.enter_context(persistent(f"q{i}", tx_slots=2, rx_slots=2))
            stack.enter_context(attached(f"vale0:q{i}"))
        assert sorted(place_of(name)[2] for name in all_ports()) == list(range(254))
        assert refusal("vale0:more", tx_slots=2, rx_slots=2) == errno.ENOMEM
        with persistent("more"):
            assert attach("vale0:more")[0] == errno.ENOMEM
        place = place_of("vale0:q77")[2]
        assert detach("vale0:q77") == 0
        assert attach("vale0:q77")[1].port_index == place


# ---- the list


def test_a_walk_by_vale_list_finds_every_port_once() -> None:
    """ABI.md 4.2: the first port at or after the indices; its name and both indices are written; ENOENT at the end."""
    with opened("valeA:one"), opened("valeB:two"), opened("valeA:three"), persistent("pers"), attached("valeB:pers"):
        assert all_ports() == ["valeA:one", "valeA:three", "valeB:two", "valeB:pers"]


def test_vale_list_of_a_name_tells_both_indices() -> None:
    """ABI.md 4.2: port index 255 if only the bridge is named, or the port unknown."""
    with opened("valeA:one"), opened("valeB:two"), opened("valeB:three"):
        assert place_of("valeB:three") == (0, 1, 1)
        assert place_of("valeB:missing") == place_of("valeB") == (0, 1, NO_PORT)
        assert place_of("valeC:one")[0] == errno.ENOENT


@pytest.mark.parametrize("name", ["tap0", "val0:a", "x"])
def test_vale_list_of_no_switch_is_invalid(name: str) -> None:
    """ABI.md 4.2: EINVAL if not vale*."""
    with opened("vale0:a"):
        assert place_of(name)[0] == errno.EINVAL


@pytest.mark.parametrize(("bridge", "place"), [(0, 1), (1, 0), (8, 0), (65535, 0), (0, 0xFFFFFFFF)])
def test_vale_list_behind_the_last_port_is_enoent(bridge: int, place: int) -> None:
    """ABI.md 4.2."""
    with opened("vale0:a"):
        assert next_port(bridge, place) is None


# ---- virtio-net headers


@pytest.mark.parametrize("length", [0, 10, 12])
def test_a_header_length_comes_back_as_it_was_set(length: int) -> None:
    """ABI.md 4.2 (ctrl-api-test 10): len 0, 10 or 12."""
    with opened("vale0:a"):
        assert set_header("vale0:a", length) == 0
        assert get_header("vale0:a") == (0, length)


@pytest.mark.parametrize("length", [1, 9, 11, 13, 0xFFFFFFFF])
def test_no_other_header_length_can_be_set(length: int) -> None:
    """ABI.md 4.2: EINVAL."""
    with opened("vale0:a"):
        assert set_header("vale0:a", length) == errno.EINVAL
        assert get_header("vale0:a") == (0, 0)


def test_headers_are_of_vale_ports_that_exist() -> None:
    """ABI.md 4.2: SET: ENXIO not VALE, not existing; GET: 0 for NICs, ENXIO unknown."""
    assert [set_header(name, 12) for name in ("vale0:a", "tap0", "missing")] == [errno.ENXIO] * 3
    assert [get_header(name) for name in ("tap0", "vale0:a", "missing")] == [
        (0, 0),
        (errno.ENXIO, 0),
        (errno.ENXIO, 0),
    ]


def test_a_port_with_a_header_is_eio_for_a_program_that_does_not_accept_it() -> None:
    """ABI.md 7: port has a virtio header and ACCEPT_VNET_HDR missing: EIO."""
    with opened("vale0:a", flags=VNET):
        assert set_header("vale0:a", 12) == 0
        assert refusal("vale0:a") == errno.EIO
        assert refusal("vale0:a", flags=VNET) == 0
        assert set_header("vale0:a", 0) == 0
        assert refusal("vale0:a") == 0


def test_a_persistent_port_keeps_its_header() -> None:
    """ABI.md 4.2: set by either name, for whoever opens it next."""
    with persistent("pers"), attached("vale0:pers"):
        assert set_header("pers", 10) == 0
        assert get_header("vale0:pers") == get_header("pers") == (0, 10)
        assert refusal("vale0:pers") == errno.EIO
        assert set_header("vale0:pers", 0) == 0
        assert refusal("pers") == 0


def test_ports_with_the_same_header_exchange_it_as_it_is() -> None:
    """ABI.md 12.5: equal lengths: copied verbatim incl. header; addresses are looked for behind it."""
    with opened("vale0:a", flags=VNET) as a, opened("vale0:b", flags=VNET) as b, opened("vale0:c", flags=VNET) as c:
        for name in ("vale0:a", "vale0:b", "vale0:c"):
            assert set_header(name, 12) == 0
        send(b, bytes(range(12)) + frame(BROADCAST, B))
        assert arrived(a) == arrived(c) == [bytes(range(12)) + frame(BROADCAST, B)]
        send(a, bytes(12) + frame(B, A))
        assert (arrived(b), arrived(c)) == ([bytes(12) + frame(B, A)], [])


# ---- polling


def test_a_vale_port_is_not_polled() -> None:
    """ABI.md 4.2: EOPNOTSUPP for a plain VALE port; EINVAL not VALE; ENXIO."""
    with opened("vale0:a"):
        assert [poll_on(name) for name in ("vale0:a", "tap0", "vale0:missing")] == [
            errno.EOPNOTSUPP,
            errno.EINVAL,
            errno.ENXIO,
        ]


@pytest.mark.parametrize(
    ("mode", "first", "cpus"), [(1, 0, 0), (1, 0, 2), (1, 9999, 1), (0, 0, 1), (3, 0, 1), (2, 0, 9999), (2, 1, 1)]
)
def test_polling_by_cpus_that_are_not_there_is_invalid(mode: int, first: int, cpus: int) -> None:
    """ABI.md 4.2: bad cpu config: 0 cpus, >= all cpus, ring range, SINGLE needs 1 cpu."""
    with attached("vale0:tap0"):
        assert poll_on("vale0:tap0", mode, first, cpus) == errno.EINVAL


@TWO_CPUS
def test_polling_goes_on_and_off_once_each() -> None:
    """ABI.md 4.2: EFAULT already/not polling; 12.5: detach EBUSY while polled (ctrl-api-test 18)."""
    with attached("vale0:tap0"):
        assert poll_off("vale0:tap0") == errno.EFAULT
        assert poll_on("vale0:tap0") == 0
        assert poll_on("vale0:tap0") == errno.EFAULT
        assert detach("vale0:tap0") == errno.EBUSY
        assert poll_off("vale0:tap0") == 0


# ---- interfaces of the host


def test_a_persistent_port_is_no_interface_of_the_host() -> None:
    """ABI.md 19.7: NEWIF makes a real net device in the original; here it is a name of the daemon's."""
    with persistent("pers"):
        assert "pers" not in ip("-o", "link")


def test_vale_requests_leave_a_registered_descriptor_alone() -> None:
    """ABI.md 4.2: works on an unregistered fd and on a registered one."""
    with opened("vale0:a") as a, opened("vale0:b") as b:
        result, body = request(a.fd, RequestType.VALE_LIST, "vale0:b", ValeList())
        assert (result, ValeList.decode(body).port_idx) == (0, 1)
        send(a, frame(BROADCAST, A))
        assert arrived(b) == [frame(BROADCAST, A)]


def test_ports_of_one_region_say_so(wires: Daemon) -> None:
    """Issue B: two ids whose buffers may be swapped are the same id."""
    del wires
    with opened("vale0:a") as a, Port("tap0") as tap, opened("vale0:a{1") as pipe:
        assert {port.granted.mem_id for port in (a, tap, pipe)} == {1}
