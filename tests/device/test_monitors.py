# SPDX-License-Identifier: BSD-2-Clause
"""Monitors of a TAP port: what they see, when, and that nobody waits for them (ABI.md 12.4)."""

import select
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import MONITOR, Flag, Mode, Register
from tests.support.clients import compile_client
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip, ours
from tests.support.patience import at_most

NS_TXMON = 0x40
BOTH = Flag.MONITOR_RX | Flag.MONITOR_TX
CONFIG = """
[ports.tap0]
backend = "tap"
[ports.small]
backend = "tap"
slots = 16
[ports.brief]
backend = "tap"
[ports.quad]
backend = "null"
queues = 4
"""


@pytest.fixture(scope="module", autouse=True)
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    folder = tmp_path_factory.mktemp("monitors")
    (folder / "config.toml").write_text(CONFIG)
    with Daemon(folder / "log", f"--config={folder / 'config.toml'}") as daemon:
        yield daemon


def monitor(name: str, flags: int, **fields: int) -> Port:
    """A monitor of the port of that name, in the ways of `flags`."""
    return Port(name, Register(flags=flags, **fields))


def seen(port: Port, ring: int = 0) -> list[bytes]:
    """Our frames that a monitor has now."""
    port.rxsync()
    return ours(port.take(ring))


def eventually(port: Port, count: int) -> list[bytes]:
    """That many of our frames, as a monitor comes to see them."""
    frames: list[bytes] = []
    while len(frames) < count:
        assert port.poll(select.POLLIN, at_most(5)) == select.POLLIN, f"{len(frames)} of {count}"
        frames += ours(port.take())
    return frames


def arrive(port: Port, host: Host, *frames: bytes) -> None:
    """The host sends, and the port's rings have it, still unreleased."""
    before = port.rx[0].space
    host.send(*frames)
    deadline = time.monotonic() + at_most(5)
    while port.rx[0].space < before + len(frames):
        assert time.monotonic() < deadline
        port.rxsync()


def release(port: Port) -> None:
    """The port's user gives back all that it has received."""
    port.rx[0].advance(port.rx[0].space)
    port.rxsync()


# ---- REGISTER


def test_a_port_that_nobody_has_open_cannot_be_monitored() -> None:
    """12.4: the port is in netmap mode, else EINVAL."""
    with pytest.raises(OSError, match="Invalid argument"):
        monitor("tap0", Flag.MONITOR_RX)


def test_a_port_that_does_not_exist_cannot_be_monitored() -> None:
    """6: the name is looked for as that of any port; ENXIO."""
    with pytest.raises(OSError, match="No such device or address"):
        monitor("none", Flag.MONITOR_RX)


@pytest.mark.parametrize(
    ("flags", "letters"),
    [(Flag.MONITOR_RX, "r"), (Flag.MONITOR_TX, "t"), (BOTH, "rt"), (Flag.ZCOPY_MON, "zrt")],
)
def test_the_name_of_a_monitor_says_what_it_sees_and_which_it_is(flags: int, letters: str) -> None:
    """9: ni_name "eth0/r#0", cut at 15 characters."""
    with Port("tap0"), monitor("tap0", flags) as first, monitor("tap0", flags) as second:
        name, number = first.name.split("#")
        assert name == f"tap0/{letters}"
        assert second.name == f"tap0/{letters}#{int(number) + 1}"


def test_a_monitor_has_one_tx_ring_and_the_most_rings_of_its_parent() -> None:
    """9: 1 tx ring, rx rings = max(parent tx, rx), parent's slots."""
    with Port("quad") as parent, monitor("quad", Flag.MONITOR_RX) as port:
        assert (port.granted.tx_rings, port.granted.rx_rings) == (1, 4)
        assert (port.granted.tx_slots, port.granted.rx_slots) == (parent.granted.tx_slots, parent.granted.rx_slots)
        assert port.granted.mem_id == parent.granted.mem_id
        assert set(port.rx) == {0, 1, 2, 3}


def test_a_monitor_may_have_slots_of_its_own() -> None:
    """7: monitors honour slots only."""
    with Port("tap0"), monitor("tap0", Flag.MONITOR_RX, rx_slots=64, rx_rings=3) as port:
        assert port.granted.rx_slots == port.rx[0].num_slots == 64
        assert port.granted.rx_rings == 1


def test_more_slots_than_there_can_be_are_cut_silently() -> None:
    """7: too big is clamped; a ring object has room for 2288 slots."""
    with Port("tap0"), monitor("tap0", Flag.MONITOR_RX, rx_slots=1 << 31) as port:
        assert port.granted.rx_slots == 2288


def test_a_zero_copy_monitor_is_told_that_it_sees_both_directions() -> None:
    """7, K: ZCOPY_MON sets MONITOR_TX|RX in the answer; other flags come back as they were."""
    with Port("tap0"):
        with monitor("tap0", Flag.ZCOPY_MON) as port:
            assert port.granted.flags == MONITOR
        with monitor("tap0", Flag.MONITOR_TX) as port:
            assert port.granted.flags == Flag.MONITOR_TX


def test_a_port_held_exclusively_may_be_monitored() -> None:
    """12.4: NR_EXCLUSIVE of the parent does not forbid monitors."""
    with Port("tap0", Register(flags=Flag.EXCLUSIVE)) as port, monitor("tap0", Flag.MONITOR_TX) as watcher:
        port.send(frame(1))
        assert seen(watcher) == [frame(1)]


def test_a_monitor_of_one_ring_binds_that_ring() -> None:
    """7: ONE_NIC of a monitor counts its own rings."""
    with Port("quad"), monitor("quad", Flag.MONITOR_TX, mode=Mode.ONE_NIC, ringid=2) as port:
        assert set(port.rx) == {2}


def test_ring_i_monitors_ring_i() -> None:
    """12.4."""
    with Port("quad") as parent, monitor("quad", Flag.MONITOR_TX) as port:
        for ring in range(4):
            assert parent.put(frame(ring), ring)
        parent.txsync()
        port.rxsync()
        assert [list(port.take(ring)) for ring in range(4)] == [[frame(ring)] for ring in range(4)]


def test_host_rings_are_monitored_by_host_rings() -> None:
    """12.4, 7: mode SW binds the monitor's own."""
    with Port("tap0", Register(mode=Mode.NIC_SW)) as parent, monitor("tap0", Flag.MONITOR_TX, mode=Mode.SW) as port:
        assert parent.put(frame(1), 0)
        assert parent.put(frame(2), 1)
        parent.txsync()
        assert set(port.rx) == {1}
        assert seen(port, 1) == [frame(2)]


# ---- what a copying monitor sees


def test_a_monitor_sees_what_is_sent_marked_as_such() -> None:
    """12.4: at the parent's txsync; NS_TXMON."""
    with Port("tap0") as parent, monitor("tap0", Flag.MONITOR_TX) as port:
        assert parent.put(frame(7))
        assert seen(port) == []
        parent.txsync()
        port.rxsync()
        assert port.rx[0].slot(0)[2] & NS_TXMON
        assert seen(port) == [frame(7)]


def test_a_monitor_sees_what_arrives() -> None:
    """12.4: without NS_TXMON, the parent's frame untouched."""
    with Port("tap0") as parent, Host("tap0") as host, monitor("tap0", Flag.MONITOR_RX) as port:
        arrive(parent, host, frame(3))
        port.rxsync()
        assert not port.rx[0].slot(0)[2] & NS_TXMON
        assert seen(port) == [frame(3)]
        assert ours(parent.take()) == [frame(3)]


def test_a_monitor_sees_what_arrives_while_the_port_is_asleep() -> None:
    """12.4: RX frames when they arrive in the parent's ring, also if the parent's user sleeps."""
    with Port("tap0") as parent, Host("tap0") as host, monitor("tap0", Flag.MONITOR_RX) as port:
        assert port.poll(select.POLLIN, 0) == 0
        host.send(frame(1), frame(2))
        assert eventually(port, 2) == [frame(1), frame(2)]
        assert parent.rx[0].space == 0  # tail moves at its own syncs only (10)
        parent.rxsync()
        assert ours(parent.take()) == [frame(1), frame(2)]


def test_a_sleeping_monitor_is_woken_by_what_arrives() -> None:
    """11: new packets wake the sleepers; it is the monitor's poll that lets them in."""
    with Port("tap0"), Host("tap0") as host, monitor("tap0", Flag.MONITOR_RX) as port:
        for number in range(20):
            sender = subprocess.Popen(["sleep", "0.05"])
            assert port.poll(select.POLLIN, 0) == 0
            sender.wait()
            host.send(frame(number))
            assert eventually(port, 1) == [frame(number)]


def test_a_port_that_sleeps_is_woken_by_what_its_monitor_lets_in() -> None:
    """11: new packets wake the sleepers, whoever took them off the wire."""
    with (
        Port("tap0") as parent,
        Host("tap0") as host,
        monitor("tap0", Flag.MONITOR_RX) as port,
        select.epoll() as epoll,
    ):
        epoll.register(parent, select.EPOLLIN)
        for number in range(500):
            assert epoll.poll(0) == []
            host.send(frame(number))
            assert seen(port) in ([], [frame(number)])
            assert epoll.poll(at_most(5)) == [(parent.fileno(), select.EPOLLIN)]
            assert ours(parent.take()) == [frame(number)]
            seen(port)


def test_a_sleeping_monitor_is_woken_by_what_is_sent() -> None:
    with Port("tap0") as parent, monitor("tap0", Flag.MONITOR_TX) as port, select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN | select.EPOLLET)
        assert epoll.poll(0) == []
        parent.send(frame(1))
        assert epoll.poll(at_most(5)) == [(port.fileno(), select.EPOLLIN)]
        assert seen(port) == [frame(1)]


def test_a_monitor_of_one_direction_does_not_see_the_other() -> None:
    with (
        Port("tap0") as parent,
        Host("tap0") as host,
        monitor("tap0", Flag.MONITOR_RX) as received,
        monitor("tap0", Flag.MONITOR_TX) as sent,
    ):
        parent.send(frame(1))
        arrive(parent, host, frame(2))
        assert seen(received) == [frame(2)]
        assert seen(sent) == [frame(1)]


def test_all_monitors_of_a_port_see_everything() -> None:
    """12.4: any number per port; copying and zero-copy ones together."""
    flags = [BOTH, BOTH, Flag.ZCOPY_MON, Flag.ZCOPY_MON, BOTH]
    with Port("tap0") as parent, Host("tap0") as host:
        ports = [monitor("tap0", one) for one in flags]
        parent.send(frame(1))
        arrive(parent, host, frame(2))
        release(parent)
        assert [seen(port) for port in ports] == [[frame(1), frame(2)]] * len(flags)
        for port in ports:
            port.close()


def test_a_monitor_begins_with_the_next_sync() -> None:
    with Port("tap0") as parent, Host("tap0") as host:
        parent.send(frame(1))
        arrive(parent, host, frame(2))
        with monitor("tap0", BOTH) as port:
            assert seen(port) == []
            arrive(parent, host, frame(3))
            parent.send(frame(4))
            assert seen(port) == [frame(3), frame(4)]


def test_a_packet_in_several_slots_is_seen_when_it_is_whole() -> None:
    """10: NS_MOREFRAG comes with the slots."""
    with Port("tap0") as parent, monitor("tap0", Flag.MONITOR_TX) as port:
        whole = frame(5, 5000)
        assert parent.put(whole)
        head = parent.tx[0].head
        parent.tx[0].cur = parent.tx[0].head = parent.tx[0].next(head, -1)
        parent.txsync()
        assert seen(port) == []
        parent.tx[0].cur = parent.tx[0].head = head
        parent.txsync()
        assert seen(port) == [whole]


# ---- zero copy


def test_a_zero_copy_monitor_sees_what_arrives_when_it_is_released() -> None:
    """12.4, T 015-017: nothing before the release."""
    with Port("tap0") as parent, Host("tap0") as host, monitor("tap0", Flag.ZCOPY_MON) as port:
        arrive(parent, host, frame(1))
        assert seen(port) == []
        release(parent)
        assert seen(port) == [frame(1)]


def test_a_zero_copy_monitor_gets_the_very_buffer() -> None:
    """12.4: buffers are swapped."""
    with Port("tap0") as parent, Host("tap0") as host, monitor("tap0", Flag.ZCOPY_MON) as port:
        arrive(parent, host, frame(1))
        theirs, ours_before = parent.rx[0].slot(0)[0], port.rx[0].slot(0)[0]
        release(parent)
        port.rxsync()
        assert port.rx[0].slot(0)[0] == theirs
        assert parent.rx[0].slot(0)[0] == ours_before


def test_a_zero_copy_monitor_sees_what_has_been_sent_and_says_that_buffers_changed() -> None:
    """12.4, 10: NS_BUF_CHANGED in the parent's slot, NS_TXMON in the monitor's."""
    with Port("tap0") as parent, Host("tap0") as host, monitor("tap0", Flag.ZCOPY_MON) as port:
        sent = parent.tx[0].slot(0)[0]
        parent.send(frame(1))
        assert host.receive() == frame(1)
        port.rxsync()
        assert port.rx[0].slot(0)[0] == sent
        assert port.rx[0].slot(0)[2] & NS_TXMON
        buf_idx, _, flags, _ = parent.tx[0].slot(0)
        assert buf_idx != sent
        assert flags & 1
        assert seen(port) == [frame(1)]


def test_no_buffer_is_lost_when_buffers_have_changed_hands() -> None:
    """8: after the last close all is free; a port of all buffers but the rings' can be had again and again."""
    for _ in range(3):
        with Port("tap0", Register(extra_bufs=1 << 20)) as everything:
            free = everything.granted.extra_bufs
        with Port("tap0") as parent, Host("tap0") as host, monitor("tap0", Flag.ZCOPY_MON) as port:
            for number in range(50):
                parent.send(frame(number))
                arrive(parent, host, frame(number))
                release(parent)
                port.rxsync()
        with Port("tap0", Register(extra_bufs=1 << 20)) as everything:
            assert everything.granted.extra_bufs == free


# ---- what a monitor cannot do


def test_a_monitor_cannot_send() -> None:
    """12.4: NIOCTXSYNC returns 0 and does nothing, poll(POLLOUT) is POLLERR."""
    with Port("tap0"), Host("tap0", 0.2) as host, monitor("tap0", Flag.MONITOR_TX) as port:
        assert port.put(frame(1))
        port.txsync()
        assert port.poll(select.POLLOUT, at_most(1)) & select.POLLERR
        with pytest.raises(TimeoutError):
            host.receive()


def test_a_full_monitor_holds_nothing_up_and_every_frame_is_seen_or_counted(tmp_path: Path) -> None:
    """12.4: monitor ring full: the oldest are skipped, nothing blocks; sent = seen + dropped."""
    device = "/dev/netmap2"
    with (
        Daemon(tmp_path / "log", "--no-ports", "--tap=counted", "--device=netmap2") as served,
        Port("counted", device=device) as parent,
        Host("counted") as host,
    ):
        port = Port("counted", Register(flags=BOTH, rx_slots=64), device=device)
        frames: list[bytes] = []
        for number in range(5000):
            while not parent.put(frame(number)):
                parent.poll(select.POLLOUT, at_most(5))
            if number % 1000 == 999:
                frames += seen(port)
        parent.txsync()
        assert host.take(5000) == [frame(number) for number in range(5000)]
        frames += seen(port)
        port.close()
        dropped = 5000 - len(frames)
        assert 4000 < dropped < 5000
        served.wait_for_log(f"counted: received {len(frames)} packets")
        served.wait_for_log(f"dropped {dropped} full")


def test_a_batch_too_large_for_a_monitor_loses_its_oldest_frames() -> None:
    """12.4."""
    with Port("tap0") as parent, monitor("tap0", Flag.MONITOR_TX, rx_slots=16) as port:
        for number in range(40):
            assert parent.put(frame(number))
        parent.txsync()
        assert seen(port) == [frame(number) for number in range(25, 40)]


def test_a_full_monitor_does_not_keep_the_port_from_receiving() -> None:
    with Port("small") as parent, Host("small") as host, monitor("small", Flag.MONITOR_RX, rx_slots=4) as port:
        received: list[bytes] = []
        for number in range(200):
            host.send(frame(number))
            while len(received) <= number:
                assert parent.poll(select.POLLIN, at_most(5))
                received += ours(parent.take())
        assert received == [frame(number) for number in range(200)]
        assert seen(port) == [frame(number) for number in range(3)]


def test_a_port_whose_ring_is_full_does_not_keep_its_monitor_busy(served: Daemon) -> None:
    """11: a sleeper costs nothing, also while the device has frames that no ring has room for."""
    with Port("small"), Host("small") as host, monitor("small", Flag.MONITOR_RX) as port:
        host.send(*map(frame, range(40)))
        assert eventually(port, 15) == [frame(number) for number in range(15)]
        used = cpu_seconds(served.pid)
        assert port.poll(select.POLLIN, 1) == 0
        assert cpu_seconds(served.pid) - used < 0.3


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


# ---- the end


def test_a_monitor_whose_port_is_closed_gets_pollerr() -> None:
    """12.4: NIOCRXSYNC returns 0, poll is POLLERR; what it had seen it keeps."""
    with Port("tap0") as parent, monitor("tap0", Flag.MONITOR_TX) as port:
        parent.send(frame(1))
        parent.close()
        deadline = time.monotonic() + at_most(5)
        while not port.poll(select.POLLIN, 0) & select.POLLERR:
            assert time.monotonic() < deadline
        port.rxsync()
        assert ours(port.take()) == [frame(1)]


def test_a_sleeping_monitor_is_woken_when_its_port_is_closed() -> None:
    """12.4, 11."""
    parent = Port("tap0")
    with monitor("tap0", Flag.MONITOR_RX) as port, select.epoll() as epoll:
        epoll.register(port, select.EPOLLIN)
        assert epoll.poll(0) == []
        parent.close()
        ((_, events),) = epoll.poll(at_most(5))
        assert events & select.EPOLLERR


def test_a_port_opened_again_is_not_seen_by_the_monitor_of_before() -> None:
    """12.4: the parent closes: that was all."""
    parent = Port("tap0")
    with monitor("tap0", Flag.MONITOR_TX) as old:
        parent.close()
        with Port("tap0") as again, monitor("tap0", Flag.MONITOR_TX) as new:
            again.send(frame(1))
            assert seen(new) == [frame(1)]
            assert seen(old) == []


def test_a_port_whose_second_user_stays_is_monitored_on() -> None:
    first = Port("tap0")
    with Port("tap0") as second, monitor("tap0", Flag.MONITOR_TX) as port:
        first.close()
        second.send(frame(1))
        assert seen(port) == [frame(1)]


def test_a_monitor_of_an_interface_that_disappears_gets_an_error() -> None:
    """12.1: interface gone: EIO and POLLERR, for monitors as for anybody."""
    with Port("brief"), monitor("brief", Flag.MONITOR_RX) as port:
        assert port.poll(select.POLLIN, 0) == 0
        ip("link", "del", "brief")
        assert port.poll(select.POLLIN, at_most(5)) & select.POLLERR
        with pytest.raises(OSError, match="Input/output error"):
            port.rxsync()


def test_a_killed_monitor_leaves_nothing_behind(tmp_path: Path) -> None:
    """15: SIGKILL while the port is busy; port and other monitors go on, all memory comes back."""
    with Port("tap0", Register(extra_bufs=1 << 20)) as everything:
        free = everything.granted.extra_bufs
    program = compile_client("monitor", tmp_path)
    with Port("tap0") as parent, monitor("tap0", Flag.MONITOR_TX) as other:
        for kind in ("rt", "z"):
            client = subprocess.Popen([program, f"netmap:tap0/{kind}"], stdout=subprocess.PIPE)
            assert client.stdout
            assert client.stdout.readline() == b"ready\n"
            for number in range(200):
                parent.send(frame(number))
                if number == 100:
                    client.send_signal(signal.SIGKILL)
            client.wait()
            client.stdout.close()
            assert seen(other) == [frame(number) for number in range(200)]
    with Port("tap0", Register(extra_bufs=1 << 20)) as everything:
        assert everything.granted.extra_bufs == free
