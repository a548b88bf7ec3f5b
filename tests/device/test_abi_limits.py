# SPDX-License-Identifier: BSD-2-Clause
"""Memory of other sizes, and what a program is told when there is no more of it (ABI.md sections 7 to 9)."""

import errno
from collections.abc import Callable

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, PoolsInfo, Register, RequestType
from tests.support.daemon import Daemon
from tests.support.ioctls import device, hold, register, request


def test_sizes_are_rounded_up_to_64_and_counts_to_whole_clusters(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md 8: a cluster is the smallest number of objects whose bytes are a multiple of 4096."""
    options = ("--if-size=1000", "--if-num=10", "--ring-size=16700", "--ring-num=5", "--buf-size=1500", "--buf-num=100")
    start_daemon("--no-ports", "--tap=tap0", *options)
    with device() as fd:
        _, body = request(fd, RequestType.POOLS_INFO_GET, "tap0", PoolsInfo())
    pools = PoolsInfo.decode(body)
    assert (pools.if_size, pools.if_total) == (1024, 12)
    assert (pools.ring_size, pools.ring_total) == (16704, 64)  # 64 x 16704 = 261 pages
    assert (pools.buf_size, pools.buf_total) == (1536, 104)  # 8 x 1536 = 3 pages
    assert pools.ring_offset == 12 * 1024
    assert pools.buf_offset == pools.ring_offset + 64 * 16704
    assert pools.memsize == pools.buf_offset + 104 * 1536


def test_the_first_port_gets_the_lowest_buffers_rx_before_tx(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md 9: lowest free first; RX, RX host, TX, TX host."""
    start_daemon("--no-ports", "--tap=tap0", "--log-level=debug").wait_for_log("selftest released")
    with Port("tap0", Register(mode=Mode.NIC_SW)) as port:
        rings = [port.rx[0], port.rx[1], port.tx[0], port.tx[1]]
        indices = [ring.slot(i)[0] for ring in rings for i in range(ring.num_slots)]
    assert indices == list(range(2, 2 + 4 * 1024))


def test_rings_are_as_new_after_the_last_close(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md 9: at last close and reopen everything is reset."""
    start_daemon("--no-ports", "--tap=tap0", "--log-level=debug").wait_for_log("selftest released")
    for _ in range(3):
        with Port("tap0") as port:
            assert port.granted.offset == 0
            ring = port.tx[0]
            assert (ring.head, ring.cur, ring.tail, ring.flags) == (0, 0, 1023, 0)
            assert [ring.slot(i) for i in range(1024)] == [(1026 + i, 2048, 0, 0) for i in range(1024)]
            ring.set_slot(3, ring.slot(4)[0], 7, 0xFFFF, 99)
            ring.flags = 6
            port.put(b"x" * 60)
            port.txsync()


def test_a_ring_that_does_not_fit_ring_size_is_refused_and_the_log_says_both(
    start_daemon: Callable[..., Daemon],
) -> None:
    """ABI.md 8: 2288 slots are the most of a default ring object."""
    daemon = start_daemon("--no-ports", "--tap=tap0")
    with device() as fd:
        assert register(fd, "x", mode=Mode.NULL, mem_id=1, tx_rings=1, tx_slots=2289)[0] == errno.ENOMEM
        daemon.wait_for_log("a ring of 2289 slots takes 36880 bytes, ring_size is 36864")
        assert register(fd, "x", mode=Mode.NULL, mem_id=1, tx_rings=1, tx_slots=2288)[0] == 0


def test_too_many_rings_for_if_size_are_refused_and_the_log_says_both(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md 7: netmap_if allocation, ENOMEM."""
    daemon = start_daemon("--no-ports", "--tap=tap0")
    with device() as fd:
        assert register(fd, "x", mode=Mode.NULL, mem_id=1, tx_rings=100, tx_slots=4, rx_rings=20)[0] != 0
        assert register(fd, "x", mode=Mode.NULL, mem_id=1, tx_rings=120, tx_slots=4)[0] == errno.ENOMEM
        daemon.wait_for_log("a netmap_if of 122 rings takes 1032 bytes, if_size is 1024")
        assert register(fd, "x", mode=Mode.NULL, mem_id=1, tx_rings=119, tx_slots=4)[0] == 0


def test_an_exhausted_buffer_pool_is_named_with_what_was_asked_and_what_there_is(
    start_daemon: Callable[..., Daemon],
) -> None:
    """ABI.md 7: ring allocation, ENOMEM; nothing of a refused REGISTER stays taken."""
    daemon = start_daemon("--no-ports", "--tap=tap0", "--tap=tap1", "--buf-num=4000")
    with Port("tap0"):
        with device() as fd:
            assert register(fd, "tap1")[0] == errno.ENOMEM
        daemon.wait_for_log("'tap1': the buffer pool is short: 2048 of 2048 bytes asked for, 1950 of 3998 are free")
        with hold(extra_bufs=5000) as rest:
            assert rest.granted.extra_bufs == 1950
            daemon.wait_for_log("5000 extra buffers asked for, 1950 granted")
    with Port("tap1"):
        pass


def test_an_exhausted_ring_pool_is_named_with_what_was_asked_and_what_there_is(
    start_daemon: Callable[..., Daemon],
) -> None:
    """ABI.md 7: ring allocation, ENOMEM."""
    daemon = start_daemon("--no-ports", "--tap=tap0", "--tap=tap1", "--ring-num=3")
    with Port("tap0"), device() as fd:
        assert register(fd, "tap1")[0] == errno.ENOMEM
        daemon.wait_for_log("'tap1': the ring pool is short: 2 of 36864 bytes asked for, 1 of 3 are free")
        assert register(fd, "tap1", flags=Flag.RX_RINGS_ONLY)[0] == 0


def test_an_exhausted_netmap_if_pool_is_named(start_daemon: Callable[..., Daemon]) -> None:
    """ABI.md 7: netmap_if allocation, ENOMEM."""
    daemon = start_daemon("--no-ports", "--tap=tap0", "--if-num=10")
    held = [hold() for _ in range(12)]  # ten, in clusters of four
    with device() as fd:
        assert register(fd, "tap0")[0] == errno.ENOMEM
        daemon.wait_for_log("'tap0': the netmap_if pool is short: 1 of 1024 bytes asked for, 0 of 12 are free")
        held.pop().close()
        assert register(fd, "tap0")[0] == 0
    for port in held:
        port.close()
