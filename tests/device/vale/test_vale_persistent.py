# SPDX-License-Identifier: BSD-2-Clause
"""Persistent VALE ports: made, attached, detached and deleted by requests (ABI.md 4.2 and 12.5)."""

import errno

import pytest

from cuse_netmap.control.requests import (
    Mode,
    NewInterface,
    RequestType,
)
from tests.support.switches import (
    BROADCAST,
    all_ports,
    arrived,
    ask,
    attach,
    attached,
    detach,
    frame,
    info,
    mac,
    opened,
    persistent,
    place_of,
    refusal,
    send,
    sizes,
)

pytestmark = pytest.mark.usefixtures("wires", "switches_go", "buffers_come_back")

A, B = mac(1), mac(2)


def test_newif_says_what_it_has_made() -> None:
    """ABI.md 4.2: returns slots/rings/mem_id in effect; limits as for ephemeral ports."""
    with persistent("pers", tx_slots=64, rx_slots=99999, tx_rings=99, rx_rings=0) as made:
        assert sizes(made) == (16, 1, 64, 2288)
        assert sizes(info("pers")) == (16, 1, 64, 2288)


@pytest.mark.parametrize("name", ["vale0:a", "valeX", "x" * 16, "é" * 8, "", "a/b", "a b", ".", ".."])
def test_newif_of_a_name_that_no_interface_can_have_is_invalid(name: str) -> None:
    """ABI.md 4.2: EINVAL: name starts with "vale" or >= 16 bytes."""
    assert ask(RequestType.VALE_NEWIF, name, NewInterface())[0] == errno.EINVAL


@pytest.mark.parametrize("name", ["lo", "tap0", "quad", "pers"])
def test_newif_of_an_interface_that_there_is_already_is_eexist(name: str) -> None:
    """ABI.md 4.2 (randomized test 011): any interface of that name, the host's included."""
    with persistent("pers"):
        assert ask(RequestType.VALE_NEWIF, name, NewInterface())[0] == errno.EEXIST


def test_newif_in_a_region_that_does_not_exist_is_invalid() -> None:
    """ABI.md 4.2."""
    assert ask(RequestType.VALE_NEWIF, "pers", NewInterface(mem_id=7))[0] == errno.EINVAL
    with persistent("pers", mem_id=1):
        pass


def test_an_unattached_persistent_port_opens_and_sends_into_nothing() -> None:
    """ABI.md 12.5: TX goes nowhere: slots consumed and dropped."""
    with persistent("pers"), opened("pers") as port:
        send(port, *[frame(BROADCAST, A, i) for i in range(100)])
        assert (port.tx[0].head, port.tx[0].tail) == (100, 99)
        assert arrived(port) == []
        port.close()


def test_an_attached_persistent_port_is_reached_by_both_names() -> None:
    """ABI.md 12.5: its adapter name becomes "valeX:NAME", and both names then reach it."""
    with persistent("pers"), attached("vale0:pers"), opened("vale0:a") as a:
        for name in ("pers", "vale0:pers"):
            with opened(name) as port:
                send(a, frame(BROADCAST, A))
                assert arrived(port) == [frame(BROADCAST, A)]
                send(port, frame(BROADCAST, B))
                assert arrived(a) == [frame(BROADCAST, B)]


def test_a_persistent_port_stays_when_its_last_program_leaves() -> None:
    """ABI.md 12.5: until DELIF; its rings are new for the next program."""
    with persistent("pers", tx_slots=64), attached("vale0:pers"):
        for _ in range(3):
            with opened("vale0:pers") as port:
                assert (port.tx[0].num_slots, port.tx[0].head) == (64, 0)
                send(port, frame(BROADCAST, A))
        assert all_ports() == ["vale0:pers"]


def test_a_program_that_has_the_port_open_does_not_notice_attach_and_detach() -> None:
    """ABI.md 12.5: the port is the same; frames come while it is attached."""
    with persistent("pers"), opened("vale0:a") as a, opened("pers") as port:
        for turn in range(3):
            send(a, frame(BROADCAST, A, turn))
            assert arrived(port) == []
            # A program has it open: netmap refuses that (ABI.md 4.2).
            assert attach("vale0:pers")[0] == errno.EBUSY
        port.close()


def test_delif_is_busy_while_the_port_is_attached_or_open() -> None:
    """ABI.md 4.2 (randomized test 009)."""
    with persistent("pers"):
        with attached("vale0:pers"):
            assert ask(RequestType.VALE_DELIF, "pers")[0] == errno.EBUSY
        with opened("pers"):
            assert ask(RequestType.VALE_DELIF, "pers")[0] == errno.EBUSY


@pytest.mark.parametrize(("name", "wanted"), [("lo", errno.EINVAL), ("tap0", errno.EINVAL), ("missing", errno.ENXIO)])
def test_delif_of_what_newif_has_not_made_is_refused(name: str, wanted: int) -> None:
    """ABI.md 4.2: ENXIO no such interface; EINVAL not a persistent port made by NEWIF."""
    assert ask(RequestType.VALE_DELIF, name)[0] == wanted


def test_attaching_twice_to_one_switch_is_busy() -> None:
    """ABI.md 12.5: same bridge twice EBUSY (randomized test 010)."""
    with persistent("pers"), attached("vale0:pers"):
        assert attach("vale0:pers")[0] == errno.EBUSY


def test_a_second_switch_may_have_the_port_too_and_the_newest_goes_first() -> None:
    """ABI.md 12.5: attaching to a second bridge works; -d detaches, newest first else EBUSY (randomized test 009)."""
    with persistent("pers"), attached("vale0:pers"):
        with attached("vale1:pers"):
            assert detach("vale0:pers") == errno.EBUSY
            assert refusal("pers") == refusal("vale0:pers") == refusal("vale1:pers") == errno.EBUSY
        with opened("pers"):
            pass


def test_detaching_what_is_not_attached_is_refused() -> None:
    """ABI.md 4.2: ENXIO not attached; EINVAL no vale prefix."""
    with persistent("pers"), opened("vale0:a"):
        assert [detach(name) for name in ("vale0:pers", "vale9:pers", "pers", "tap0")] == [
            errno.ENXIO,
            errno.ENXIO,
            errno.EINVAL,
            errno.EINVAL,
        ]


def test_an_ephemeral_port_cannot_be_detached() -> None:
    """ABI.md 4.2: EINVAL; its program goes on."""
    with opened("vale0:a") as a, opened("vale0:b") as b:
        assert detach("vale0:a") == errno.EINVAL
        send(a, frame(BROADCAST, A))
        assert arrived(b) == [frame(BROADCAST, A)]


@pytest.mark.parametrize(
    ("name", "fields", "wanted"),
    [
        ("pers", {}, errno.EINVAL),
        ("vale0:missing", {}, errno.EINVAL),
        ("vale0:pers", {"mode": Mode.SW}, errno.EINVAL),
        ("vale0:pers", {"mode": Mode.ONE_NIC}, errno.EINVAL),
        ("vale0:pers", {"ringid": 1}, errno.EINVAL),
        ("vale0:pers", {"mem_id": 7}, errno.EINVAL),
        ("vale-0:pers", {}, errno.ENOMEM),
    ],
)
def test_what_cannot_be_attached_is_refused_and_leaves_no_switch(
    name: str, fields: dict[str, int], wanted: int
) -> None:
    """ABI.md 4.2, VALE_ATTACH."""
    with persistent("pers"):
        assert attach(name, **fields)[0] == wanted
        assert place_of("vale0")[0] == errno.ENOENT


def test_attach_writes_only_the_place() -> None:
    """ABI.md 4.2, K: not mem_id, rings or memsize: writing 1 as mem_id fails ctrl-api-test."""
    with persistent("pers"), opened("vale0:a"):
        result, answer = attach("vale0:pers", tx_slots=5, mem_id=0)
        assert (result, answer.port_index) == (0, 1)
        assert (answer.register.tx_slots, answer.register.mem_id, answer.register.memsize) == (5, 0, 0)
        assert detach("vale0:pers") == 0
