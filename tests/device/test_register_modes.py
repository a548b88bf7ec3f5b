# SPDX-License-Identifier: BSD-2-Clause
"""REGISTER: which rings each mode binds, who may bind them together, and what is answered (ABI.md section 7)."""

import ctypes
import errno
import os
import subprocess
from collections.abc import Callable

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, PortHeader, PortInfo, Register, RequestType
from tests.support.daemon import Daemon
from tests.support.ioctls import device, extra_list, free_buffers, hold, ioctl, register, request, settled

pytestmark = pytest.mark.usefixtures("wires")


def info(name: str) -> PortInfo:
    with device() as fd:
        result, body = request(fd, RequestType.PORT_INFO_GET, name, PortInfo())
    assert result == 0
    return PortInfo.decode(body)


# ---- modes


@pytest.mark.parametrize("mode", [Mode.DEFAULT, Mode.PIPE_MASTER, Mode.PIPE_SLAVE, 9, 15, 0xFFFFFFFF])
def test_a_mode_that_does_not_exist_is_invalid(mode: int) -> None:
    """ABI.md 7: mode 0 or unknown, and 6: the modes of pipes, deprecated."""
    with device() as fd:
        assert register(fd, "quad", mode=mode)[0] == errno.EINVAL


@pytest.mark.parametrize(
    ("mode", "ringid"), [(Mode.ONE_NIC, 4), (Mode.ONE_NIC, 0xFFFF), (Mode.ONE_SW, 1), (Mode.ONE_SW, 0xFFFF)]
)
def test_a_ring_that_does_not_exist_is_invalid(mode: int, ringid: int) -> None:
    """ABI.md 7: ringid must be below the larger of the numbers of rings."""
    with device() as fd:
        assert register(fd, "quad", mode=mode, ringid=ringid)[0] == errno.EINVAL


def test_the_answer_says_what_the_port_has_and_leaves_mode_ring_and_flags() -> None:
    """ABI.md 7: counts asked for are ignored for interfaces; unknown bits of nr_flags come back."""
    flags = 0xF0F0000000000000 | Flag.NO_TX_POLL | Flag.DO_RX_POLL | Flag.ACCEPT_VNET_HDR
    asked = {"tx_rings": 9, "rx_rings": 9, "tx_slots": 77, "rx_slots": 77, "offset": 5, "memsize": 6}
    with device() as fd:
        result, answer = register(fd, "quad", mode=Mode.ONE_NIC, ringid=3, flags=flags, **asked)
    assert result == 0
    assert (answer.tx_rings, answer.rx_rings, answer.tx_slots, answer.rx_slots) == (4, 4, 1024, 1024)
    assert (answer.host_tx_rings, answer.host_rx_rings, answer.mem_id, answer.extra_bufs) == (1, 1, 1, 0)
    assert (answer.mode, answer.ringid, answer.flags) == (Mode.ONE_NIC, 3, flags)
    assert (answer.memsize, answer.offset % 1024) == (343019520, 0)


def test_the_body_is_left_alone_when_the_request_fails() -> None:
    """ABI.md 4.1 step 9: bodies are copied out only on success."""
    asked = Register(mode=9, offset=5, memsize=6, tx_slots=7, extra_bufs=8)
    with device() as fd:
        assert request(fd, RequestType.REGISTER, "quad", asked) == (errno.EINVAL, asked.encode())


def test_one_descriptor_holds_one_port() -> None:
    """ABI.md 1 and 7: a second REGISTER is EBUSY, whatever it asks, and harms nothing."""
    with Port("quad") as port:
        for name, mode in (("quad", Mode.ALL_NIC), ("tap0", 99), ("missing", Mode.NULL)):
            assert register(port.fd, name, mode=mode, mem_id=7)[0] == errno.EBUSY
        port.send(b"x" * 60)
        assert port.tx[0].tail == 0


def test_a_descriptor_may_try_again_after_a_refusal() -> None:
    """ABI.md 7: nothing stays of a failed REGISTER (ctrl-api-test pipe_master does so)."""
    with device() as fd:
        assert register(fd, "missing")[0] == errno.ENXIO
        assert register(fd, "quad", mode=Mode.ONE_NIC, ringid=9)[0] == errno.EINVAL
        assert register(fd, "quad")[0] == 0


@pytest.mark.parametrize("name", ["missing", "", "sixteen-letters-", "n" * 63, "tap0 ", "TAP0"])
def test_a_name_that_is_no_port_is_enxio(name: str) -> None:
    """ABI.md 6 rule 5."""
    with device() as fd:
        assert register(fd, name)[0] == errno.ENXIO


@pytest.mark.parametrize("mem_id", [2, 0xFFFF])
def test_a_memory_region_that_does_not_exist_is_invalid(mem_id: int) -> None:
    """ABI.md 7: mem_id lookup comes before the port's."""
    with device() as fd:
        assert register(fd, "missing", mem_id=mem_id)[0] == errno.EINVAL
        assert register(fd, "quad", mem_id=1)[0] == 0


# ---- host rings


def test_the_first_file_chooses_how_many_host_rings_there_are() -> None:
    """ABI.md 7: 2/2 with ONE_SW 1; a later file gets what there is."""
    asked = Register(mode=Mode.ONE_SW, ringid=1, host_tx_rings=2, host_rx_rings=2)
    with Port("quad", asked) as port:
        assert (port.granted.host_tx_rings, port.granted.host_rx_rings) == (2, 2)
        assert (list(port.tx), list(port.rx)) == ([5], [5])
        assert port.tx[5].ringid == 5
        with Port("quad", Register(mode=Mode.SW, host_tx_rings=7, host_rx_rings=7)) as later:
            assert (list(later.tx), list(later.rx)) == ([4, 5], [4, 5])
            assert info("quad").host_tx_rings == 2


def test_directions_may_have_different_numbers_of_host_rings() -> None:
    """ABI.md 7: 5/4 with SW; ONE_SW 4 takes ring 0 where there is no ring 4."""
    counts = {"host_tx_rings": 5, "host_rx_rings": 4}
    with Port("quad", Register(mode=Mode.SW, **counts)) as port:
        assert (list(port.tx), list(port.rx)) == ([4, 5, 6, 7, 8], [4, 5, 6, 7])
        with Port("quad", Register(mode=Mode.ONE_SW, ringid=4)) as one:
            assert (list(one.tx), list(one.rx)) == ([8], [4])
        with device() as fd:
            assert register(fd, "quad", mode=Mode.ONE_SW, ringid=5)[0] == errno.EINVAL


def test_the_number_of_host_rings_is_forgotten_at_the_last_close() -> None:
    """ABI.md 7: reset to 1/1; also when the first REGISTER is refused."""
    with Port("quad", Register(mode=Mode.SW, host_tx_rings=5, host_rx_rings=4)):
        assert info("quad").host_tx_rings == 5
    assert settled(lambda: info("quad").host_tx_rings, 1) == 1
    with device() as fd:
        assert register(fd, "quad", mode=Mode.ONE_NIC, ringid=9, host_tx_rings=5)[0] == errno.EINVAL
    assert info("quad").host_tx_rings == 1


def test_what_is_sent_on_a_host_ring_of_a_wireless_port_is_taken_at_once() -> None:
    """ABI.md 12.2: slots return at once."""
    with Port("quad", Register(mode=Mode.SW)) as port:
        for _ in range(1023):
            assert port.put(b"x" * 60, ring=4)
        port.txsync()
        assert (port.tx[4].head, port.tx[4].tail) == (1023, 1022)


# ---- exclusive


@pytest.mark.parametrize(
    ("first", "second", "result"),
    [
        # (mode, ringid, flags) of the file that is there, of the one that comes, and what it gets
        ((1, 0, 0), (1, 0, 0), 0),
        ((1, 0, 0x800), (1, 0, 0), errno.EBUSY),
        ((1, 0, 0), (1, 0, 0x800), errno.EBUSY),
        ((4, 0, 0x800), (4, 1, 0x800), 0),
        ((4, 0, 0x800), (4, 0, 0), errno.EBUSY),
        ((4, 0, 0x800), (1, 0, 0), errno.EBUSY),
        ((4, 3, 0), (1, 0, 0x800), errno.EBUSY),
        ((1, 0, 0x800), (2, 0, 0x800), 0),
        ((2, 0, 0x800), (3, 0, 0), errno.EBUSY),
        ((4, 0, 0x800 | 0x2000), (4, 0, 0x800 | 0x4000), 0),
        ((4, 0, 0x800 | 0x2000), (4, 0, 0x2000), errno.EBUSY),
        ((1, 0, 0x800), (1, 0, 0x6000), 0),
    ],
)
def test_exclusive_is_a_matter_of_each_ring(
    first: tuple[int, int, int], second: tuple[int, int, int], result: int
) -> None:
    """ABI.md 7: EBUSY if a wanted ring is held exclusively, or asked for exclusively and has a user."""

    def fields(spec: tuple[int, int, int]) -> dict[str, int]:
        return dict(zip(("mode", "ringid", "flags"), spec, strict=True))

    with device() as one, device() as other:
        assert register(one, "quad", **fields(first))[0] == 0
        assert register(other, "quad", **fields(second))[0] == result


def test_an_exclusive_ring_is_free_again_after_close() -> None:
    """ABI.md 7, and 15: close releases."""
    for _ in range(20):
        with device() as fd:
            assert register(fd, "quad", flags=Flag.EXCLUSIVE)[0] == 0


# ---- null ports


def test_a_null_port_needs_a_memory_region() -> None:
    """ABI.md 12.6."""
    with device() as fd:
        assert register(fd, "x", mode=Mode.NULL, mem_id=0)[0] == errno.EINVAL
        assert register(fd, "x", mode=Mode.NULL, mem_id=2)[0] == errno.EINVAL
        assert register(fd, "x", mode=Mode.NULL, mem_id=1)[0] == 0


@pytest.mark.parametrize(
    ("tx", "rx"), [((0, 0), (0, 0)), ((3, 512), (2, 256)), ((0, 0), (1, 2)), ((100, 2), (1, 2288))]
)
def test_a_null_port_has_exactly_the_rings_asked_for(tx: tuple[int, int], rx: tuple[int, int]) -> None:
    """ABI.md 12.6: rings and slots as asked, none included; no host rings."""
    with hold(tx_rings=tx[0], tx_slots=tx[1], rx_rings=rx[0], rx_slots=rx[1]) as port:
        granted = port.granted
        assert (granted.tx_rings, granted.tx_slots, granted.rx_rings, granted.rx_slots) == (*tx, *rx)
        assert (granted.host_tx_rings, granted.host_rx_rings) == (0, 0)
        assert [ring.num_slots for ring in port.tx.values()] == [tx[1]] * tx[0]
        assert [ring.num_slots for ring in port.rx.values()] == [rx[1]] * rx[0]


def test_the_syncs_of_a_null_port_change_nothing() -> None:
    """ABI.md 12.6: head is never consumed, tail stays."""
    with hold(tx_rings=1, tx_slots=16, rx_rings=1, rx_slots=16) as port:
        port.tx[0].head = port.tx[0].cur = 5
        port.txsync()
        port.rxsync()
        assert (port.tx[0].head, port.tx[0].cur, port.tx[0].tail) == (5, 5, 15)
        assert (port.rx[0].head, port.rx[0].cur, port.rx[0].tail) == (0, 0, 0)


def test_any_name_will_do_for_a_null_port_any_number_of_times() -> None:
    """ABI.md 12.6."""
    names = [b"", b"tap0", b"vale0:1", b"a{1", b"x" * 64, bytes(range(1, 65)), bytes(range(192, 256)), b"line\nbreak"]
    fds = [os.open("/dev/netmap", os.O_RDWR) for _ in names * 2]
    assert [register(fd, name, mode=Mode.NULL, mem_id=1)[0] for fd, name in zip(fds, names * 2, strict=True)] == [
        0
    ] * 16
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    "fields",
    [
        {"tx_rings": 65535, "rx_rings": 65535, "tx_slots": 2, "rx_slots": 2},
        {"tx_rings": 1, "tx_slots": 0xFFFFFFFF},
        {"rx_rings": 1, "rx_slots": 0x10000000},
    ],
)
def test_a_null_port_larger_than_memory_is_refused(fields: dict[str, int]) -> None:
    """ABI.md 7: ENOMEM; sizes do not wrap around."""
    with device() as fd:
        assert register(fd, "x", mode=Mode.NULL, mem_id=1, **fields)[0] == errno.ENOMEM


# ---- extra buffers


def test_extra_buffers_are_a_list_whose_head_was_allocated_last(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md 7: through the first word of each buffer, the last one 0."""
    options = ("--device=netmap2", "--no-ports", "--tap=tapx", "--log-level=debug")
    start_daemon(*options).wait_for_log("selftest released")
    with Port("tapx", Register(extra_bufs=20), device="/dev/netmap2") as port:
        assert port.granted.extra_bufs == 20
        assert extra_list(port) == list(range(2 + 2048 + 19, 2 + 2048 - 1, -1))


def test_without_extra_buffers_the_list_is_empty() -> None:
    """ABI.md 7: ni_bufs_head = 0."""
    with Port("quad") as port:
        assert (port.granted.extra_bufs, port.bufs_head, extra_list(port)) == (0, 0, [])


def test_extra_buffers_are_nobody_elses() -> None:
    """ABI.md 7."""
    with Port("quad", Register(extra_bufs=100)) as port, Port("tap0", Register(extra_bufs=100)) as other:
        extra = extra_list(port) + extra_list(other)
        rings = [*port.tx.values(), *port.rx.values(), *other.tx.values(), *other.rx.values()]
        slots = [ring.slot(i)[0] for ring in rings for i in range(ring.num_slots)]
        assert len(set(extra + slots)) == 200 + 10 * 1024


def test_more_extra_buffers_than_there_are_is_granted_in_part() -> None:
    """ABI.md 7: nr_extra_bufs may be less; the request succeeds."""
    whole = settled(free_buffers, 163838)
    assert whole == 163838
    with Port("quad", Register(extra_bufs=0xFFFFFFFF)) as port:
        assert port.granted.extra_bufs == whole - 8 * 1024
        with hold(extra_bufs=1) as other:
            assert (other.granted.extra_bufs, other.bufs_head) == (0, 0)
    assert settled(free_buffers, whole) == whole


def test_extra_buffers_swapped_into_slots_come_back_at_close() -> None:
    """ABI.md 7: what is on the list at that time is freed, and what is in the slots."""
    whole = settled(free_buffers, 163838)
    with Port("quad", Register(extra_bufs=8)) as port:
        extra, ring = extra_list(port), port.tx[0]
        for i, index in enumerate(extra):
            mine = ring.slot(i)[0]
            ring.set_slot(i, index, 60, 1)
            following = extra[i + 1] if i + 1 < len(extra) else None
            ring.buffer(mine)[:4] = (0 if following is None else ring.slot(i + 1)[0]).to_bytes(4, "little")
            if i == 0:
                at = port.if_offset + 32
                port.memory[at : at + 4] = mine.to_bytes(4, "little")
            port.send(b"x" * 60)
    assert settled(free_buffers, whole) == whole


# ---- MTU


def test_an_mtu_larger_than_a_buffer_is_refused_to_receivers_only() -> None:
    """ABI.md 7: the first open of an interface, if an RX ring is bound."""
    with device() as fd, device() as second:
        assert register(fd, "jumbo")[0] == errno.EINVAL
        assert register(fd, "jumbo", flags=Flag.TX_RINGS_ONLY)[0] == 0
        assert register(second, "jumbo")[0] == 0


@pytest.mark.parametrize(("mtu", "result"), [(2048, 0), (2049, errno.EINVAL)])
def test_the_mtu_is_that_of_the_moment(mtu: int, result: int) -> None:
    """ABI.md 7: mtu > buffer size."""
    subprocess.run(["ip", "link", "set", "tap1", "mtu", str(mtu)], check=True)
    with device() as fd:
        assert register(fd, "tap1")[0] == result


def test_larger_buffers_take_a_larger_mtu(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md 7: jumbo MTU needs buf_size raised."""
    start_daemon("--device=netmap2", "--no-ports", "--tap=tapx", "--buf-size=9216", "--buf-num=8192")
    subprocess.run(["ip", "link", "set", "tapx", "mtu", "9000"], check=True)
    with Port("tapx", device="/dev/netmap2") as port:
        assert port.tx[0].buf_size == 9216
        assert port.tx[0].slot(0)[1] == 9216


# ---- information


@pytest.mark.parametrize("bound", [False, True])
def test_port_info_tells_sizes_on_any_descriptor(bound: bool) -> None:
    """ABI.md 4.2: works on an unregistered fd and on a registered one."""
    with device() as fd:
        if bound:
            assert register(fd, "tap0")[0] == 0
        result, body = request(fd, RequestType.PORT_INFO_GET, "quad", PortInfo(tx_slots=5, rx_rings=9))
    assert result == 0
    assert PortInfo.decode(body) == PortInfo(343019520, 1024, 1024, 4, 4, 1, 1, 1)


@pytest.mark.parametrize(
    ("name", "mem_id", "result"),
    [("missing", 0, errno.ENXIO), ("quad", 2, errno.EINVAL), ("", 2, errno.EINVAL), ("", 1, 0), ("quad", 1, 0)],
)
def test_port_info_says_what_is_missing(name: str, mem_id: int, result: int) -> None:
    """ABI.md 4.2."""
    with device() as fd:
        assert request(fd, RequestType.PORT_INFO_GET, name, PortInfo(mem_id=mem_id))[0] == result


@pytest.mark.parametrize(("name", "result"), [("quad", 0), ("missing", errno.ENXIO), ("vale0:1", errno.ENXIO)])
def test_interfaces_have_no_virtio_header(name: str, result: int) -> None:
    """ABI.md 4.2, PORT_HDR_GET."""
    with device() as fd:
        body = PortHeader(77)
        assert request(fd, RequestType.PORT_HDR_GET, name, body) == (
            result,
            (body if result else PortHeader()).encode(),
        )


ABOUT_PORTS = [
    (RequestType.VALE_ATTACH, 64),
    (RequestType.VALE_DETACH, 8),
    (RequestType.VALE_LIST, 8),
    (RequestType.PORT_HDR_SET, 8),
    (RequestType.VALE_NEWIF, 16),
    (RequestType.VALE_DELIF, 0),
    (RequestType.VALE_POLLING_ENABLE, 16),
    (RequestType.VALE_POLLING_DISABLE, 16),
    (RequestType.SYNC_KLOOP_START, 8),
    (RequestType.CSB_ENABLE, 0),
]


@pytest.mark.parametrize("name", ["", "quad", "vale0:1", "vale0:quad", "val", "a{1", "x" * 64, "\x01{}:"])
@pytest.mark.parametrize(("kind", "size"), ABOUT_PORTS)
def test_requests_for_what_does_not_exist_fail_in_order(kind: int, size: int, name: str) -> None:
    """ABI.md 4.2: an error of netmap's, never a crash; the body stays as it was."""
    with device() as fd:
        result, body = request(fd, kind, name, b"\xff" * size)
        assert result in (errno.EINVAL, errno.ENXIO, errno.ENOENT, errno.ENOMEM, errno.EOPNOTSUPP)
        assert body == b"\xff" * size
        assert register(fd, "quad")[0] == 0


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("valexyz", errno.ENOMEM),
        ("vale-0:1", errno.ENOMEM),
        ("vale0:sixteen-letters-", errno.ENOMEM),
        ("vale0:quad", errno.EINVAL),
        ("{", errno.EINVAL),
        ("quad{", errno.EINVAL),
        ("}1", errno.EINVAL),
    ],
)
def test_a_name_that_no_port_can_have_is_refused(name: str, result: int) -> None:
    """ABI.md 6 and 12: ENOMEM of a VALE port, EINVAL of half a pipe, or of an interface that is not attached."""
    with device() as fd:
        assert register(fd, name)[0] == result
        assert register(fd, "quad")[0] == 0


@pytest.mark.parametrize("command", [0x5401, 0x8915, 0x6993, 0xC0586998, 0x40046990, 0x0000699F])
@pytest.mark.parametrize("bound", [False, True])
def test_any_other_ioctl_is_not_supported(command: int, bound: bool) -> None:
    """ABI.md 1: EOPNOTSUPP, not ENOTTY; TCGETS, SIOCGIFADDR, NIOCUNREGIF and made up ones."""
    with device() as fd:
        if bound:
            assert register(fd, "quad")[0] == 0
        memory = bytearray(4096)
        assert ioctl(fd, command, ctypes.addressof(ctypes.c_char.from_buffer(memory))) == errno.EOPNOTSUPP
