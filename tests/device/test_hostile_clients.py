# SPDX-License-Identifier: BSD-2-Clause
"""Programs that write nonsense, die or lie: nobody else notices and everything comes back (issue A, bad input)."""

import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Register
from tests.support.daemon import Daemon
from tests.support.ioctls import extra_list, free_buffers, hold, settled
from tests.support.patience import at_most

ETH_P_TEST = 0x88B5  # IEEE 802, local experiments
POOL = 163838
RINGS = 20  # so that a ring that is lost is missed soon

PORTS = f"""
[memory]
ring_num = {RINGS}
if_num = 12
[ports.tap0]
backend = "tap"
[ports.tap1]
backend = "tap"
"""


@pytest.fixture(scope="module", autouse=True)
def wires(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon whose pools of rings and netmap_ifs are small."""
    folder = tmp_path_factory.mktemp("hostile")
    config = folder / "ports.toml"
    config.write_text(PORTS)
    with Daemon(folder / "log", f"--config={config}") as served:
        yield served


@pytest.fixture(autouse=True)
def everything_comes_back() -> Iterator[None]:
    """Behind each test all three pools are whole again: proved by taking all there is."""
    assert settled(free_buffers, POOL) == POOL
    yield
    assert settled(free_buffers, POOL) == POOL
    with hold(tx_rings=RINGS, tx_slots=2), ExitStack() as ifs:
        for _ in range(11):
            ifs.enter_context(hold())


def wire(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_TEST))
    sock.bind((name, ETH_P_TEST))
    sock.settimeout(at_most(5))
    return sock


def frame(number: int, size: int = 100) -> bytes:
    head = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + ETH_P_TEST.to_bytes(2) + number.to_bytes(4)
    return head.ljust(size, bytes([number % 251]))


@pytest.mark.parametrize("seed", range(1, 7))
def test_a_program_that_writes_nonsense_harms_nobody_else(client_program: Callable[..., Path], seed: int) -> None:
    """ABI.md 10 and 11: another program on another wire sees right frames and its own indices only."""
    with (
        wire("tap0") as noise,
        wire("tap1") as host,
        Port("tap1") as victim,
        subprocess.Popen([client_program("scribbler"), "tap0", str(seed), "1000"]) as scribbler,
    ):
        noise.setblocking(False)
        number = 0
        arrived: list[bytes] = []
        while scribbler.poll() is None:
            for _ in range(8):
                number += 1
                noise.send(frame(number, 200))
                host.send(frame(number))
            while not arrived or arrived[-1] != frame(number):
                arrived += [got for got in [victim.receive()] if got[12:14] == ETH_P_TEST.to_bytes(2)]
            assert victim.put(frame(number, 300))
            assert victim.poll(select.POLLOUT, at_most(1)) == select.POLLOUT
            ring = victim.tx[0]
            assert (ring.cur, ring.tail) == (ring.head, (ring.head - 1) % 1024)
            assert host.recv(2048) == frame(number, 300)
            while select.select([noise], [], [], 0)[0]:
                noise.recv(65536)
        assert scribbler.returncode == 0
        assert arrived == [frame(each) for each in range(1, number + 1)]
        assert number > 100


@pytest.mark.parametrize("seed", [1, 2])
def test_a_program_that_is_killed_while_it_swaps_leaves_nothing_behind(
    client_program: Callable[..., Path], seed: int
) -> None:
    """ABI.md 15: exit and kill release all, whatever stands in slots and lists at that moment."""
    with wire("tap0") as noise:
        killer = subprocess.Popen([client_program("killed"), "tap0", "tap1", str(seed), "300"])
        while killer.poll() is None:
            noise.send(frame(1))
            time.sleep(0.001)
    assert killer.returncode == 0


def test_a_program_that_is_killed_leaves_the_ports_of_others_alone(client_program: Callable[..., Path]) -> None:
    """ABI.md 15: what another program holds meanwhile stays its own."""
    with hold(tx_rings=1, rx_rings=1, tx_slots=500, rx_slots=500, extra_bufs=100) as other:
        before = held(other)
        subprocess.run([client_program("killed"), "tap0", "tap1", "3", "50"], check=True, timeout=at_most(30))
        assert held(other) == before
        left = POOL - 1100
        assert settled(free_buffers, left) == left


def test_a_register_that_is_undone_takes_no_ring_from_under_a_sync(
    client_program: Callable[..., Path], wires: Daemon
) -> None:
    """ABI.md 4.1 step 10: a leftover option undoes the registration, while other threads use the descriptor."""
    subprocess.run([client_program("undone"), "tap0", "1000"], check=True, timeout=at_most(50))
    assert wires.process.poll() is None


def held(port: Port) -> list[int]:
    rings = [*port.tx.values(), *port.rx.values()]
    return [ring.slot(i)[0] for ring in rings for i in range(ring.num_slots)] + extra_list(port)


def set_head(port: Port, index: int) -> None:
    struct.pack_into("<I", port.memory, port.if_offset + 32, index)


def test_buffers_of_others_in_a_ring_are_not_given_away_at_close() -> None:
    """Issue A item 9: naming what somebody else holds, in slots or lists, does not free it."""
    with Port("tap0", Register(extra_bufs=50)) as victim:
        theirs = held(victim)
        liar = hold(tx_rings=2, tx_slots=1000, extra_bufs=50)
        for ring in liar.tx.values():
            for slot in range(1000):
                ring.set_slot(slot, theirs[(slot * 7 + ring.ringid) % len(theirs)], 0)
        set_head(liar, theirs[-50])
        liar.close()
        left = POOL - len(theirs)
        assert settled(free_buffers, left) == left
        with hold(extra_bufs=POOL) as rest:
            assert rest.granted.extra_bufs == left
            set_head(victim, theirs[-50])  # its list was only read
            assert held(victim) == theirs


def test_lists_that_never_end_or_lead_nowhere_are_no_trouble() -> None:
    """ABI.md 7: freeing stops at an index below 2 or out of range, and after as many as were granted."""
    for head, following in (
        (0, 0),
        (1, 1),
        (POOL + 2, 0),
        (0xFFFFFFFF, 0),
        (None, None),
        (None, 0xFFFFFFFF),
        (None, 1),
    ):
        with Port("tap0", Register(extra_bufs=20)) as port:
            first = extra_list(port)[0]
            if head is not None:
                set_head(port, head)
            else:  # to itself, or away
                port.tx[0].buffer(first)[:4] = (first if following is None else following).to_bytes(4, "little")
        assert settled(free_buffers, POOL) == POOL


def test_the_same_buffer_in_every_slot_is_freed_once() -> None:
    """Issue A item 9: what is missing then is found again."""
    with Port("tap0") as port, Port("tap1"):
        for ring in (port.tx[0], port.rx[0]):
            for slot in range(1024):
                ring.set_slot(slot, port.tx[0].slot(9)[0], 0)
        port.rxsync()


def test_a_ring_without_buffers_costs_nobody_elses() -> None:
    """Index 0 in a live ring is no buffer that somebody sees: no lost one is mistaken for the one in hand."""
    with hold(tx_rings=1, tx_slots=8, extra_bufs=3) as other:
        one = Port("tap0")
        one.tx[0].set_slot(5, one.tx[0].slot(6)[0], 0)  # what was there is lost
        kept = other.tx[0].slot(3)[0]
        other.tx[0].set_slot(3, 0, 0)  # taken out of its slot, to be put back
        one.close()
        left = POOL - 8 - 3 - 1
        assert settled(free_buffers, left) == left
        with hold(extra_bufs=POOL) as rest:
            assert rest.granted.extra_bufs == left
            index = rest.bufs_head
            while index:
                assert index != kept
                index = int.from_bytes(other.tx[0].buffer(index)[:4], "little")
        other.tx[0].set_slot(3, kept, 2048)
