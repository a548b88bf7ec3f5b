# SPDX-License-Identifier: BSD-2-Clause
"""Programs of 2011 to today, compiled from our headers, meet on the same ports (ABI.md section 16, issue E)."""

import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from scapy.config import conf
from scapy.layers.l2 import Ether
from scapy.packet import Raw
from scapy.sendrecv import AsyncSniffer, sendp

from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ours
from tests.support.ioctls import free_buffers, settled
from tests.support.patience import at_most
from tests.support.program import Program
from tests.support.stream import Stream

TODAY, PAGE = 0, 1
WITH_AVAIL = {PAGE: "page", 2: "2011", 3: "api3", 5: "api5"}
OLD = {**WITH_AVAIL, 10: "api10", 11: "api11", 12: "api12", 13: "api13"}
AGES = [*OLD, TODAY]
NAMES = {**OLD, TODAY: "today"}
CONFIG = """
[ports.tap0]
backend = "tap"
[ports.two]
backend = "tap"
queues = 2
"""

ages = pytest.mark.parametrize("age", OLD, ids=OLD.get)
loops = pytest.mark.parametrize("age", WITH_AVAIL, ids=OLD.get)
pairs = pytest.mark.parametrize(
    ("sends", "receives"), [pytest.param(a, b, id=f"{NAMES[a]}-{NAMES[b]}") for a in AGES for b in AGES if a or b]
)
Compile = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def served(way: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("ages")
    (folder / "config.toml").write_text(CONFIG)
    with Daemon(folder / "log", f"--config={folder / 'config.toml'}", *way) as daemon:
        conf.ifaces.reload()
        yield daemon


@pytest.fixture
def start(client_program: Compile) -> Callable[..., Stream]:
    """A stream of some age: `start(age, way, port, *options)`."""

    def starter(age: int, way: str, port: str, *options: object) -> Stream:
        program = client_program("stream", age=age) if age else client_program("stream")
        return Stream(program, way, port, *options)

    return starter


Start = Callable[..., Stream]

# ---- between programs


@pairs
def test_a_pipe_joins_programs_of_all_ages(start: Start, sends: int, receives: int) -> None:
    """Issue E: a 2013 sender and a 2026 receiver meet on one pipe; nothing is lost, doubled or harmed."""
    count = 5000
    with start(receives, "receive", "p}1", "-n", count, "-p") as receiver, start(sends, "send", "p{1", "-n", count):
        report = receiver.report()
    assert (report.frames, report.last, report.clean) == (count, count - 1, True)


@pairs
def test_a_switch_joins_programs_of_all_ages(start: Start, sends: int, receives: int) -> None:
    """Issue E: ... on one VALE switch; what a full receiver loses is lost, the rest arrives in order, unharmed."""
    with (
        start(receives, "receive", "vale1:b", "-p", "-n", 500) as receiver,
        start(sends, "send", "vale1:a", "-b", 20, "-n", 4000),
    ):
        report = receiver.report()
    assert report.frames >= 500
    assert (report.repeats, report.bad) == (0, 0)


@loops
def test_the_loop_over_avail_minus_minus_loses_no_packet(start: Start, age: int) -> None:
    """Issue E: the page's own generator leaves avail at 2^32 - 1 after each round."""
    with start(TODAY, "receive", "p}1", "-n", 20000) as receiver, start(age, "send", "p{1", "-b", 0, "-n", 20000):
        assert receiver.report().clean


@ages
@pytest.mark.parametrize("waits", ["-p", "-e"], ids=["poll", "select"])
def test_sender_and_receiver_wait_for_each_other(start: Start, age: int, waits: str) -> None:
    """Issue E: select and poll wake as the page says; a full ring blocks the sender, an empty one the receiver."""
    with start(age, "receive", "p}1", waits, "-n", 20000) as receiver, start(age, "send", "p{1", waits, "-n", 20000):
        assert receiver.report().clean


@ages
def test_buffers_that_are_exchanged_carry_their_packets(start: Start, age: int) -> None:
    """ABI.md 10: NS_BUF_CHANGED; no buffer is lost by it."""
    before = free_buffers()
    with start(age, "receive", "p}1", "-n", 5000) as receiver, start(age, "send", "p{1", "-x", "-n", 5000):
        assert receiver.report().clean
    assert settled(free_buffers, before) == before


@pytest.mark.parametrize("age", [3, 5])
@pytest.mark.parametrize("keep", [1, 100, 1000])
def test_reserved_slots_keep_their_packets_until_they_are_given_back(start: Start, age: int, keep: int) -> None:
    """ABI.md 16: slots before cur that are not returned yet; their packets are looked at at the end of their stay."""
    with start(age, "receive", "p}1", "-k", keep) as receiver, start(TODAY, "send", "p{1", "-n", 20000) as sender:
        sender.report()
        receiver.hear(0.2)
        report = receiver.end()
    assert (report.frames, report.clean) == (20000, True)


@ages
def test_a_bridge_of_its_time_joins_todays_programs_without_copies(
    client_program: Compile, start: Start, age: int
) -> None:
    """Issue E: one mmap shared by later descriptors; buffers change between rings of two ports."""
    before = free_buffers()
    with Program(client_program("bridge", age=age), "p}1", "q{1") as bridge:
        bridge.wait_for("ready")
        with start(TODAY, "receive", "q}1", "-n", 20000) as receiver, start(TODAY, "send", "p{1", "-n", 20000):
            assert receiver.report().clean
        bridge.process.stdin.close()  # type: ignore[union-attr]
        assert bridge.number("moved") == 20000
        assert bridge.wait() == 0
    assert settled(free_buffers, before) == before


def test_a_killed_program_of_old_leaves_nothing_behind(client_program: Compile, start: Start) -> None:
    """Issue E, ABI.md 15: in the middle of exchanging buffers."""
    before = free_buffers()
    for _ in range(5):
        with (
            Program(client_program("bridge", age=3), "p}1", "q{1") as bridge,
            start(5, "receive", "q}1") as receiver,
            start(3, "send", "p{1", "-x") as sender,
        ):
            receiver.hear(0.05)
            for program in (bridge, sender, receiver):
                program.kill()
    assert settled(free_buffers, before) == before


# ---- with the host


def test_the_generator_of_the_manual_page_sends_what_scapy_sees(client_program: Compile) -> None:
    """Issue E: written out as a C program against our header for that generation, through a TAP."""
    program = client_program("page", age=PAGE)
    running: list[Program] = []

    def go() -> None:
        running.append(Program(program, "send", 100, "tap0"))

    sniffer = AsyncSniffer(
        iface="tap0", count=100, lfilter=lambda packet: packet.src == "02:00:00:00:00:01", started_callback=go
    )
    sniffer.start()
    sniffer.join(at_most(5))
    with running[0] as generator:
        generator.wait_for("sent 100")
    sent = [bytes(packet) for packet in sniffer.results or []]
    assert [int.from_bytes(packet[14:18], "little") for packet in sent] == list(range(100))
    head = b"\xff" * 6 + bytes.fromhex("02000000000188b5")
    assert all(packet == head + packet[14:18] + bytes(42) for packet in sent)


def test_the_generator_of_the_manual_page_loses_none_of_many_packets(client_program: Compile) -> None:
    """Issue E: more than a ring has slots, whose avail is at 2^32 - 1 after each round."""
    with Host("tap0") as host, Program(client_program("page", age=PAGE), "send", 5000, "tap0") as generator:
        assert [int.from_bytes(one[14:18], "little") for one in host.take(5000)] == list(range(5000))
        generator.wait_for("sent 5000")


def test_a_receiver_of_the_manual_page_gets_what_scapy_sends(client_program: Compile) -> None:
    """Issue E: a receiver likewise."""
    source = "02:00:00:00:00:02"
    with Program(client_program("page", age=PAGE), "receive", 400, "tap0") as receiver:
        receiver.wait_for("ready")
        packets = [Ether(src=source, dst="02:00:00:00:00:01", type=0x88B5) / Raw(bytes([i])) for i in range(200)]
        sendp(packets, iface="tap0", verbose=False)
        mark = source.replace(":", "") + "88b5"
        receiver.wait_for("15 02000000000102", 200)
        said = [line.split()[1] for line in receiver.lines if mark in line]
    assert [bytes.fromhex(text) for text in said] == [bytes(packet) for packet in packets]


@ages
def test_frames_of_every_age_cross_a_tap_both_ways(start: Start, age: int) -> None:
    """Issue E: ... on one TAP."""
    with Host("tap0") as host, start(age, "send", "tap0", "-n", 3000, "-p"):
        numbers: list[int] = []
        while len(numbers) < 3000:
            numbers += [int.from_bytes(one[16:24], "little") for one in host.take(1)]
    assert numbers == list(range(3000))
    with Host("tap0") as host, start(age, "receive", "tap0", "-n", 400, "-p") as receiver:
        for number in range(400):
            body = bytes((number * 7 + at) & 0xFF for at in range(24, 60))
            host.send(b"\xff" * 6 + bytes.fromhex("02000000000188b50000") + number.to_bytes(8, "little") + body)
        report = receiver.report()
    assert (report.frames, report.repeats, report.gaps) == (400, 0, 0)


@ages
def test_a_program_of_old_and_one_of_today_share_a_tap_by_its_queues(start: Start, age: int) -> None:
    """Issue E: a ring has one view at a time; ports have several rings. NETMAP_HW_RING is one pair."""
    with (
        Host("two") as host,
        Port("two", Register(mode=Mode.ONE_NIC, ringid=1)) as today,
        start(age, "send", "two", "-r", 0x4000, "-n", 100),
    ):
        numbers = [int.from_bytes(one[16:24], "little") for one in host.take(100)]
        assert numbers == list(range(100))
        assert today.put(frame(1), ring=1)
        today.txsync()
        assert host.take(1) == [frame(1)]
        with start(age, "receive", "two", "-r", 0x4000) as old:
            host.send(*map(frame, range(50)))
            mine = ours(today.take(1)) if today.poll(select.POLLIN, 0.5) else []
            assert len(mine) + old.end().bad >= 50  # what is no frame of a stream's is "bad" there
