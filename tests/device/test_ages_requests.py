# SPDX-License-Identifier: BSD-2-Clause
"""NIOCREGIF, NIOCUNREGIF and NIOCGINFO of programs of 2011 to 2013 (ABI.md section 16, issue E)."""

import errno
import select
import struct
import threading
import time

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import API, Flag, Mode, Register
from tests.support.daemon import Daemon
from tests.support.host import Host, frame
from tests.support.ioctls import device, free_buffers, hold, ioctl, register, settled
from tests.support.old import AGES, API_3, API_5, HW_RING, MEMSIZE, OF_2011, PAGE, SW_RING, Age, OldPort
from tests.support.patience import at_most

pytestmark = pytest.mark.usefixtures("wires")

ages = pytest.mark.parametrize("age", AGES, ids=lambda age: age.name)
others = pytest.mark.parametrize(
    ("age", "other"), [(a, b) for a in AGES for b in AGES if a != b], ids=lambda age: age.name
)


# ---- what is told


@ages
def test_ginfo_tells_of_slots_rings_and_memory(age: Age) -> None:
    """Issue E: NIOCGINFO, also with an empty name; nr_offset is 0 as it was then."""
    sizes = {"slots": 1024, "rings": 4} if "slots" in age.fields else {}
    sizes = sizes or {"tx_slots": 1024, "rx_slots": 1024, "tx_rings": 4, "rx_rings": 4}
    with OldPort(age) as port:
        assert port.ginfo("quad", offset=7) == 0
        assert port.answer == port.answer | {"memsize": MEMSIZE, "offset": 0, **sizes}
        assert port.ginfo("", offset=7) == 0
        assert port.answer == port.answer | {"memsize": MEMSIZE, "offset": 0, **dict.fromkeys(sizes, 0)}


@ages
def test_regif_tells_the_same_and_where_the_netmap_if_is(age: Age) -> None:
    """Issue E: on return, it gives the same info as NIOCGINFO; the rest stays as sent."""
    with OldPort(age) as port:
        assert port.regif("quad", HW_RING | 2) == 0
        assert (port.answer["memsize"], port.answer["ringid"]) == (MEMSIZE, HW_RING | 2)
        assert port.answer.get("version", age.version) == age.version
        name = port.memory[port.offset : port.offset + 16]
        assert name == b"quad".ljust(16, b"\0")
        assert port.counted() == (4, 4)


def test_nobody_looks_at_the_version_of_2011() -> None:
    """docs/compatibility.md: the header of November 2011 says "unused"."""
    for version in (0, 3, 14, 0xFFFFFFFF):
        with OldPort(OF_2011) as port:
            assert port.regif("quad", version=version) == 0
            assert port.answer["version"] == version


def test_api_3_has_no_commands_and_api_5_has_those_of_its_time() -> None:
    """ABI.md 16: nr_cmd, nr_arg1 and nr_arg2 are spare words of API 3; API 5 attaches, detaches and lists."""
    with OldPort(API_3) as port:
        assert port.regif("quad", cmd=1, arg1=1, arg2=99) == 0
        assert port.answer == port.answer | {"cmd": 1, "arg1": 1, "arg2": 99}
    with OldPort(API_5) as port:
        assert port.regif("vale6:quad", cmd=1) == 0
        assert (port.ginfo("vale6:quad", cmd=4), port.answer["arg2"]) == (0, 0)
        assert port.regif("vale6:quad", cmd=2) == 0
        assert [port.regif("quad", cmd=number) for number in (3, 5, 6, 12, 99)] == [errno.EINVAL] * 5


# ---- which rings


@ages
@pytest.mark.parametrize(
    ("ringid", "expected"),
    [(0, "XXXX- XXXX-"), (SW_RING, "----X ----X"), (HW_RING, "X---- X----"), (HW_RING | 3, "---X- ---X-")],
    ids=["all hardware rings", "host rings", "the first ring", "the last ring"],
)
def test_ringid_says_which_rings(age: Age, ringid: int, expected: str) -> None:
    """Issue E: default, all hardware rings; host rings; one ring."""
    with OldPort(age, "quad", ringid) as port:
        assert port.bound() == expected


@ages
def test_host_rings_of_an_interface_work(age: Age, hosts: object, near: object, far: Host) -> None:
    """Issue E: what the host's own stack sends arrives in the host ring, and nothing of it on the wire."""
    del hosts, near
    with OldPort(age, "v0", SW_RING) as stack, OldPort(age, "v0", HW_RING), Host("v0") as host:
        host.send(frame(1))
        assert stack.poll(select.POLLIN, at_most(5)) == select.POLLIN
        ring = stack.rx(stack.counted()[1])
        assert frame(1) in ring.take()
        assert far.waiting() == []


@ages
def test_a_ring_that_is_not_there_is_refused_and_what_was_held_is_kept(age: Age) -> None:
    """ABI.md 16: EINVAL then as now."""
    with OldPort(age) as port:
        assert port.regif("quad", HW_RING | 4) == errno.EINVAL
        assert port.regif("quad", HW_RING | 1) == 0
        assert port.regif("quad", HW_RING | 4) == errno.EINVAL
        assert port.bound() == "-X--- -X---"


@ages
def test_regif_again_changes_the_rings_and_nothing_moves(age: Age) -> None:
    """Issue E: NIOCREGIF can be used multiple times to change the association, always within the same device."""
    before = free_buffers()
    with OldPort(age, "quad", HW_RING) as port:
        place = port.offset
        for ringid, expected in ((HW_RING | 2, "--X-- --X--"), (0, "XXXX- XXXX-"), (SW_RING, "----X ----X")):
            for name in ("quad", ""):
                assert port.regif(name, ringid) == 0
                assert (port.offset, port.bound()) == (place, expected)
        assert free_buffers() == before - 2 * 1024
    assert settled(free_buffers, before) == before


@ages
def test_rings_that_stay_keep_their_packets_when_others_change(host: Host, age: Age) -> None:
    """Issue E: a ring that the descriptor had and still has goes on where it was."""
    with OldPort(age, "tap1", HW_RING) as port:
        for number in range(5):
            port.tx().put(frame(number))
        port.txsync()
        host.send(frame(9))
        port.rxsync()
        assert port.regif("tap1", 0) == 0
        assert (port.tx().cur, port.rx().avail) == (5, 1)
        assert port.rx().take() == [frame(9)]
        port.tx().put(frame(5))
        port.txsync()
        assert host.take(6) == [frame(number) for number in range(6)]


@ages
@pytest.mark.parametrize("other", ["nil", "tap0", "vale3:x", "missing"])
def test_a_bound_descriptor_changes_to_no_other_device(age: Age, other: str) -> None:
    """Issue E, bad input: EBUSY; it keeps what it has."""
    with OldPort(age, "quad", HW_RING) as port:
        assert port.regif(other) == errno.EBUSY
        assert port.bound() == "X---- X----"
        port.txsync()


def test_a_bound_descriptor_changes_its_age_no_more() -> None:
    """Issue E: its rings are in one layout."""
    with OldPort(API_3, "quad", HW_RING) as port:
        port.age = API_5
        assert port.regif("quad", HW_RING) == errno.EBUSY
        assert register(port.fd, "quad")[0] == errno.EBUSY
        port.age = API_3
        assert port.regif("quad", HW_RING | 1) == 0
    with Port("quad") as today:
        port = OldPort(API_3)
        fd, port.fd = port.fd, today.fd
        assert port.regif("quad") == errno.EBUSY
        assert port.unregif() == errno.EOPNOTSUPP
        port.fd = fd
        port.close()


# ---- one view at a time


@others
def test_a_ring_is_seen_by_programs_of_one_age_at_a_time(age: Age, other: Age) -> None:
    """Issue E: a register of another generation on a bound ring is EBUSY; rings beside it are free."""
    with OldPort(age, "quad", HW_RING | 1), OldPort(other) as late:
        assert late.regif("quad", HW_RING | 1) == errno.EBUSY
        assert late.regif("quad", 0) == errno.EBUSY
        assert late.regif("quad", HW_RING | 2) == 0
        assert late.regif("quad", HW_RING | 1) == errno.EBUSY
        assert late.bound() == "--X-- --X--"


@ages
def test_a_ring_is_todays_or_old(age: Age) -> None:
    """Issue E: and so for programs of today, in both directions."""
    with OldPort(age, "quad", HW_RING | 1):
        with device() as fd:
            assert register(fd, "quad", mode=Mode.ONE_NIC, ringid=1)[0] == errno.EBUSY
            assert register(fd, "quad", mode=Mode.ONE_NIC, ringid=0)[0] == 0
        with Port("quad", Register(mode=Mode.ONE_NIC, ringid=2, flags=Flag.RX_RINGS_ONLY)), OldPort(age) as late:
            assert late.regif("quad", HW_RING | 2) == errno.EBUSY
            assert late.regif("quad", HW_RING | 1) == 0


@ages
def test_programs_of_one_age_share_a_ring(host: Host, age: Age) -> None:
    """ABI.md 7: non exclusive descriptors share head, cur and tail; pkt-gen's main descriptor and its threads do."""
    with OldPort(age, "tap1") as main, OldPort(age, "tap1", HW_RING) as thread:
        assert (main.tx().offset, main.rx().offset) == (thread.tx().offset, thread.rx().offset)
        main.tx().put(frame(1))
        thread.txsync()
        assert host.take(1) == [frame(1)]
        assert main.tx().cur == 1


@ages
def test_a_ring_that_was_left_is_seen_as_new_by_the_next_age(age: Age) -> None:
    """ABI.md 9: at last close and reopen everything is reset."""
    for _ in range(3):
        with OldPort(age, "nil") as port:
            assert port.tx().avail == 1023
        with Port("nil") as today:
            assert (today.tx[0].space, today.rx[0].space) == (1023, 0)


def test_a_pipe_goes_on_where_a_program_of_another_age_left_it() -> None:
    """ABI.md 12.3: an end that is closed and opened again finds the old indices, in whatever layout."""
    before = free_buffers()
    with Port("p}7") as receiver:
        number = 0
        for age in (*AGES, *reversed(AGES)):
            with OldPort(age, "p{7") as sender:
                for _ in range(3):
                    sender.tx().put(frame(number))
                    number += 1
                sender.txsync()
            with Port("p{7") as sender:
                sender.send(frame(number))
                number += 1
        receiver.rxsync()
        assert list(receiver.take()) == [frame(i) for i in range(number)]
    assert settled(free_buffers, before) == before


# ---- NIOCUNREGIF


@ages
def test_unregif_gives_everything_back(age: Age) -> None:
    """Issue E: brings an interface back to normal mode; the descriptor may take another device then."""
    before = free_buffers()
    with OldPort(age, "quad") as port:
        assert port.unregif() == 0
        assert free_buffers() == before
        assert port.unregif() == errno.ENXIO
        assert port.poll(select.POLLIN, 0) == select.POLLERR
        assert port.regif("nil") == 0
        assert port.bound() == "X- X-"
        port.txsync()


def test_unregif_is_of_old_programs_alone() -> None:
    """ABI.md 2: gone since API 10: EOPNOTSUPP; of an old program that has no port ENXIO."""
    with device() as fd:
        assert ioctl(fd, 0x6993) == errno.EOPNOTSUPP
    with OldPort(API_3) as port:
        assert port.ginfo("") == 0
        assert port.unregif() == errno.ENXIO


@ages
def test_packets_that_were_not_synced_are_lost_by_unregif_and_nobody_else_is_harmed(host: Host, age: Age) -> None:
    """Issue E, bad input: UNREGIF with packets pending; ABI.md 15: those not synced are lost, those synced are not."""
    before = free_buffers()
    with OldPort(age, "tap1") as port:
        port.tx().put(frame(1))
        port.txsync()
        port.tx().put(frame(2))
        host.send(frame(3))
        port.rxsync()
        assert port.unregif() == 0
        assert port.regif("tap1") == 0
        assert (port.tx().cur, port.tx().avail, port.rx().avail) == (0, 15, 0)
        port.txsync()
    assert host.take(1) == [frame(1)]
    assert host.waiting() == []
    assert settled(free_buffers, before) == before


@ages
@pytest.mark.parametrize("how", ["unregister", "change"])
def test_a_sleeper_hears_of_what_another_thread_does_to_its_rings(age: Age, how: str) -> None:
    """Issue E: POLLERR once there is no port; after a change it sleeps on for the new rings."""
    with OldPort(age, "quad", HW_RING) as port:
        found: list[int] = []
        sleeper = threading.Thread(target=lambda: found.append(port.poll(select.POLLIN, at_most(0.6))))
        sleeper.start()
        time.sleep(0.1)
        assert (port.unregif() if how == "unregister" else port.regif("quad", HW_RING | 1)) == 0
        sleeper.join(at_most(5))
        assert found == [select.POLLERR if how == "unregister" else 0]


def test_threads_that_sync_and_poll_meanwhile_race_with_nothing(wires: Daemon) -> None:
    """Issue E: NIOCREGIF and NIOCUNREGIF while other threads are inside; no call fails but with ENXIO."""
    wrong: list[int] = []
    stop = threading.Event()
    with OldPort(API_5, "quad") as port:

        def sync() -> None:
            while not stop.is_set():
                for call in (port.txsync, port.rxsync, lambda: port.poll(select.POLLIN | select.POLLOUT, 0)):
                    try:
                        call()
                    except OSError as error:
                        if error.errno != errno.ENXIO:
                            wrong.append(error.errno or -1)

        threads = [threading.Thread(target=sync) for _ in range(3)]
        for thread in threads:
            thread.start()
        for turn in range(300):
            if turn % 3 == 2:
                assert port.unregif() == 0
            assert port.regif("quad", HW_RING | turn % 4) == 0
        stop.set()
        for thread in threads:
            thread.join(at_most(10))
    assert wrong == []
    assert "control failed" not in wires.log


@ages
def test_each_ring_takes_two_objects_of_the_pool_and_gives_both_back(age: Age) -> None:
    """docs/compatibility.md: 8 rings of 200 take 16; without room for all of them, ENOMEM and nothing is taken."""
    before = free_buffers()
    for _ in range(20):
        with OldPort(age, "quad"):
            pass
    assert settled(free_buffers, before) == before
    with hold(tx_rings=100, tx_slots=2), hold(tx_rings=84, tx_slots=2):
        with OldPort(age, "quad") as port:
            assert port.bound() == "XXXX- XXXX-"
        with hold(tx_rings=1, tx_slots=2), OldPort(age) as port:
            assert port.regif("quad") == errno.ENOMEM
            assert port.regif("quad", HW_RING) == 0
            assert port.regif("quad") == errno.ENOMEM
            assert port.bound() == "X---- X----"


# ---- errors


@ages
@pytest.mark.parametrize(
    ("name", "result"),
    [("missing", errno.ENXIO), ("", errno.ENXIO), ("lo", errno.EINVAL), ("p{", errno.EINVAL), ("vale0", errno.ENOMEM)],
)
def test_what_cannot_be_registered_is_refused(age: Age, name: str, result: int) -> None:
    """Issue E: an interface that cannot do netmap is EINVAL on the page; one that is not there was ENXIO."""
    with OldPort(age) as port:
        assert port.regif(name) == result


@pytest.mark.parametrize("version", [0, 1, 2, 4, 6, 7, 8, 9])
def test_a_version_that_was_never_seen_is_told_ours(version: int) -> None:
    """ABI.md 16: EINVAL, and the server's own number in nr_version."""
    for ask in ("regif", "ginfo"):
        with OldPort(API_3) as port:
            assert getattr(port, ask)("quad", version=version) == errno.EINVAL
            assert port.answer["version"] == API


def test_the_memory_of_the_page_has_no_more_fields_than_it_prints() -> None:
    """Issue E: netmap_if with ni_num_queues, then the offsets; ring header of 24 bytes."""
    with OldPort(PAGE, "quad", HW_RING | 1) as port:
        head = struct.unpack_from("<16sI4x11q", port.memory, port.offset)
        assert head[:2] == (b"quad".ljust(16, b"\0"), 4)
        assert [bool(offset) for offset in head[2:]] == [i in (1, 6) for i in range(11)]
        ring = port.offset + head[3]
        assert struct.unpack_from("<qIIIHH", port.memory, ring)[1:] == (1024, 1023, 0, 2048, 0)
