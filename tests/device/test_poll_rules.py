# SPDX-License-Identifier: BSD-2-Clause
"""When poll is ready, what it syncs and what it says of wrong rings (ABI.md section 11)."""

import select
import threading
import time
from collections.abc import Iterator

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Flag, Mode, Register
from tests.support.host import Host, frame
from tests.support.ioctls import hold
from tests.support.patience import at_most

pytestmark = pytest.mark.usefixtures("wires")

POLLIN, POLLOUT, POLLERR = select.POLLIN, select.POLLOUT, select.POLLERR
FRAME = frame(1)


@pytest.fixture
def port() -> Iterator[Port]:
    with Port("nil") as opened:
        yield opened


def seconds(port: Port, events: int, timeout: float) -> tuple[int, float]:
    start = time.monotonic()
    return port.poll(events, timeout), time.monotonic() - start


def test_an_idle_port_can_be_sent_to_at_once(port: Port) -> None:
    """ABI.md 11 rule 1."""
    revents, taken = seconds(port, POLLOUT, at_most(5))
    assert revents == POLLOUT
    assert taken < at_most(0.5)


def test_an_idle_port_has_nothing_to_read(port: Port) -> None:
    """ABI.md 11 rule 2: poll(POLLIN) right after register blocks."""
    revents, taken = seconds(port, POLLIN, 0.1)
    assert revents == 0
    assert taken >= 0.09


def test_the_other_names_of_the_events_mean_the_same(port: Port) -> None:
    """ABI.md 11: POLLWRNORM, POLLRDNORM."""
    assert port.poll(select.POLLWRNORM, 0) == select.POLLWRNORM
    assert port.poll(select.POLLRDNORM, 0) == 0
    assert port.poll(select.POLLRDNORM | select.POLLWRNORM | POLLIN | POLLOUT, 0) == POLLOUT | select.POLLWRNORM


def test_events_that_were_not_asked_for_are_not_told(wire: Port, host: Host) -> None:
    """ABI.md 11: and RX rings are not touched unless POLLIN is asked."""
    host.send(FRAME)
    tail = wire.rx[0].tail
    assert wire.poll(POLLOUT, 0) == POLLOUT
    assert wire.rx[0].tail == tail
    assert wire.poll(select.POLLPRI | select.POLLRDHUP, 0) == 0
    assert wire.poll(POLLIN | POLLOUT, at_most(1)) == POLLIN | POLLOUT


@pytest.mark.parametrize("events", [0, POLLIN, select.POLLPRI, POLLIN | POLLOUT])
def test_any_poll_pushes_what_waits_to_be_sent(wire: Port, host: Host, events: int) -> None:
    """ABI.md 11 rule 1: also with events 0."""
    wire.put(FRAME)
    wire.poll(events, 0)
    assert host.receive() == FRAME
    assert (wire.tx[0].head, wire.tx[0].tail) == (1, 0)


def test_with_no_tx_poll_only_pollout_pushes(host: Host) -> None:
    """ABI.md 11 rule 1: NR_NO_TX_POLL."""
    with Port("tap1", Register(flags=Flag.NO_TX_POLL)) as wire:
        wire.put(FRAME)
        wire.poll(POLLIN, 0.01)
        wire.poll(0, 0)
        assert wire.tx[0].tail == 15
        assert wire.poll(POLLOUT, at_most(1)) == POLLOUT
        assert host.receive() == FRAME


def test_with_pollout_satisfied_other_rings_are_still_pushed() -> None:
    """ABI.md 11 rule 1: remaining rings are synced if they have something pending."""
    with Port("quad") as port:
        for ring in range(4):
            port.put(FRAME, ring)
        assert port.poll(POLLOUT, at_most(1)) == POLLOUT
        assert [ring.tail for ring in port.tx.values()] == [0, 0, 0, 0]


def test_a_receiver_only_is_never_ready_to_send() -> None:
    """ABI.md 11: no error either."""
    with Port("nil", Register(flags=Flag.RX_RINGS_ONLY)) as port:
        revents, taken = seconds(port, POLLOUT, 0.1)
        assert revents == 0
        assert taken >= 0.09


def test_a_sender_only_is_never_ready_to_receive() -> None:
    """ABI.md 11."""
    with Port("nil", Register(flags=Flag.TX_RINGS_ONLY)) as port:
        assert port.poll(POLLIN, 0.05) == 0
        assert port.poll(POLLOUT, at_most(1)) == POLLOUT


def test_a_port_without_rings_is_never_ready() -> None:
    """ABI.md 11 and 12.6."""
    with hold() as port:
        assert port.poll(POLLIN | POLLOUT, 0.05) == 0


def test_a_full_ring_is_not_ready() -> None:
    """ABI.md 11: ready iff cur != tail; a null port never takes anything."""
    with hold(tx_rings=1, tx_slots=16, rx_rings=1, rx_slots=16) as port:
        assert port.poll(POLLOUT, at_most(1)) == POLLOUT
        port.tx[0].head = port.tx[0].cur = 15
        revents, taken = seconds(port, POLLOUT, 0.1)
        assert revents == 0
        assert taken >= 0.09


def test_cur_at_tail_asks_for_more_room_than_there_is(port: Port) -> None:
    """ABI.md 11: ready again only when tail moves, which a sent frame makes it do."""
    ring = port.tx[0]
    ring.cur = ring.tail
    revents, taken = seconds(port, POLLOUT, 0.1)
    assert revents == 0
    assert taken >= 0.09
    ring.head = 1
    assert port.poll(POLLOUT, at_most(1)) == POLLOUT
    assert (ring.head, ring.cur, ring.tail) == (1, 1023, 0)


def test_cur_at_tail_asks_for_frames_that_are_new(wire: Port, host: Host) -> None:
    """ABI.md 11: with head behind, a received frame that was seen does not count."""
    ring = wire.rx[0]
    host.send(FRAME)
    assert wire.poll(POLLIN, at_most(5)) == POLLIN
    start = ring.head
    ring.cur = ring.tail
    assert wire.poll(POLLIN, 0.05) == 0
    host.send(FRAME)
    assert wire.poll(POLLIN, at_most(5)) == POLLIN
    assert (ring.head, ring.space) == (start, 2)


def test_a_frame_that_stays_is_ready_again(wire: Port, host: Host) -> None:
    """ABI.md 11: level triggered."""
    host.send(FRAME)
    for _ in range(5):
        assert wire.poll(POLLIN, at_most(5)) == POLLIN


@pytest.mark.parametrize("head", [1024, 0xFFFFFFFF])
@pytest.mark.parametrize("direction", ["tx", "rx"])
def test_wrong_indices_are_an_error_once_if_they_were_reset(port: Port, direction: str, head: int) -> None:
    """ABI.md 11 rule 3: POLLERR."""
    ring = (port.tx if direction == "tx" else port.rx)[0]
    events = POLLOUT if direction == "tx" else POLLIN
    ring.head = head
    assert port.poll(events, at_most(1)) & POLLERR
    assert not port.poll(events, 0) & POLLERR


def test_wrong_indices_of_a_tx_ring_are_an_error_of_any_poll(port: Port) -> None:
    """ABI.md 11: what is pending is synced, and found wrong."""
    port.tx[0].head, port.tx[0].cur = 5, 3
    assert port.poll(POLLIN, at_most(1)) == POLLERR
    port.tx[0].cur = 5
    assert port.poll(POLLIN, 0) == 0


def test_a_wrong_ring_does_not_hide_a_right_one() -> None:
    """ABI.md 11 rule 3: POLLERR is or'ed in."""
    with Port("quad") as port:
        port.tx[0].head = 9999
        assert port.poll(POLLOUT, at_most(1)) == POLLERR | POLLOUT


def test_a_mended_ring_wakes_and_receives(wire: Port, host: Host) -> None:
    """ABI.md 10 and 11."""
    wire.rx[0].head = 5000
    assert wire.poll(POLLIN, at_most(1)) & POLLERR
    threading.Timer(0.05, host.send, (FRAME,)).start()
    assert wire.poll(POLLIN, at_most(5)) == POLLIN
    assert list(wire.take()) == [FRAME]


def test_host_rings_without_a_host_never_wake() -> None:
    """ABI.md 12.2: there is nothing behind those of a port that has no stack."""
    with Port("nil", Register(mode=Mode.SW)) as port:
        assert port.poll(POLLIN, 0.05) == 0
        assert port.poll(POLLOUT, at_most(1)) == POLLOUT


def test_a_sleeper_is_not_woken_by_stores(wire: Port, host: Host) -> None:
    """ABI.md 11: no doorbell; its own poll syncs again when it wakes for another reason."""
    wire.tx[0].cur = wire.tx[0].tail
    woken: list[int] = []
    sleeper = threading.Thread(target=lambda: woken.append(wire.poll(POLLOUT | POLLIN, at_most(5))))
    sleeper.start()
    time.sleep(0.1)
    wire.tx[0].cur = wire.tx[0].head
    time.sleep(0.1)
    assert woken == []
    host.send(FRAME)
    sleeper.join(at_most(5))
    assert woken == [POLLIN | POLLOUT]
