# SPDX-License-Identifier: BSD-2-Clause
"""What the state files say of ports, rings and clients, while they come, work and go; and who may read it."""

import grp
import os
import select
import signal
import stat
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cuse_netmap._core import DROPS
from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register, RequestType, ValeAttach, ValeDetach
from tests.support.command import NOBODY
from tests.support.daemon import Daemon
from tests.support.host import Host, frame
from tests.support.ioctls import hold, request, settled
from tests.support.state import STATE, number, state


def names(path: str) -> set[str]:
    return {entry.name for entry in (STATE / path).iterdir()}


def clients() -> dict[int, str]:
    """The folder of each client, by the pid in it."""
    return {number(f"clients/{name}/pid"): f"clients/{name}" for name in names("clients")}


# ---- one daemon for all of these (wires: tap0, tap1, jumbo, nil, quad)


def test_a_folder_says_what_its_port_is(wires: Daemon) -> None:
    del wires
    assert {"tap0", "tap1", "jumbo", "nil", "quad"} <= names("ports")
    assert [state(f"ports/{name}/backend") for name in ("tap0", "nil")] == ["tap", "null"]
    assert [state(f"ports/{name}/kind") for name in ("tap0", "nil")] == ["nic", "nic"]
    assert [number(f"ports/{name}/tx/rings") for name in ("tap0", "quad")] == [1, 4]
    assert [number(f"ports/{name}/rx/slots") for name in ("tap0", "tap1")] == [1024, 16]
    assert number("ports/tap0/mem_id") == 1
    assert number("ports/tap0/gone") == 0


def test_the_device_is_described(wires: Daemon) -> None:
    assert state("device/node") == "/dev/netmap"
    assert number("device/pid") == wires.pid
    assert state("device/mmap") == wires.mmap
    assert state("device/transport") in ("uring", "classic")
    assert ("fuse" in state("device/doors").split()) == (wires.mmap == "passthrough")


def test_indices_and_counters_of_a_ring_are_the_daemons(wires: Daemon) -> None:
    del wires
    with Port("tap0") as port, Host("tap0") as host:
        before = {name: number(f"ports/tap0/tx/{name}") for name in ("packets", "bytes", "syncs")}
        for one in range(3):
            port.put(frame(one, 100))
        assert number("ports/tap0/tx/0/hwcur") == 0, "a frame that is placed is not sent"
        port.txsync()
        assert host.receive() == frame(0, 100)
        assert {name: number(f"ports/tap0/tx/{name}") - count for name, count in before.items()} == {
            "packets": 3,
            "bytes": 300,
            "syncs": 1,
        }
        assert number("ports/tap0/tx/0/hwcur") == number("ports/tap0/tx/0/rhead") == port.tx[0].head == 3
        assert number("ports/tap0/tx/0/hwtail") == port.tx[0].tail
        host.send(frame(7))
        assert port.receive() == frame(7)
        assert number("ports/tap0/rx/0/hwtail") == port.rx[0].tail == 1
        assert number("ports/tap0/rx/0/hwcur") == 0
        port.rxsync()
        assert number("ports/tap0/rx/0/hwcur") == port.rx[0].head == 1
        port.tx[0].head = 5000
        port.poll(select.POLLOUT, 0)
        assert number("ports/tap0/tx/bad_rings") >= 1


def test_drops_are_counted_by_reason(wires: Daemon) -> None:
    del wires
    assert names("ports/tap0/tx/drops") == set(DROPS)
    before = number("ports/tap0/tx/drops/short")
    with Port("tap0") as port:
        port.send(b"no frame")
    assert number("ports/tap0/tx/drops/short") == before + 1
    assert number("ports/tap0/tx/0/drops/short") == before + 1


def test_a_host_ring_is_the_last_of_its_direction(wires: Daemon) -> None:
    del wires
    assert names("ports/quad/tx") >= {"0", "1", "2", "3", "4"}
    assert "5" not in names("ports/quad/tx")
    assert [number(f"ports/quad/tx/{ring}/host") for ring in range(5)] == [0, 0, 0, 0, 1]


def test_users_are_the_descriptors_of_a_port_and_of_its_rings(wires: Daemon) -> None:
    del wires
    assert settled(lambda: number("ports/quad/users"), 0) == 0
    with Port("quad"), Port("quad", Register(mode=Mode.ONE_NIC, ringid=2)):
        assert number("ports/quad/users") == 2
        assert [number(f"ports/quad/rx/{ring}/users") for ring in range(5)] == [1, 1, 2, 1, 0]
    assert settled(lambda: number("ports/quad/users"), 0) == 0


def test_a_client_has_a_folder_as_long_as_it_is_registered(wires: Daemon) -> None:
    del wires
    with Port("quad", Register(mode=Mode.ONE_NIC, ringid=2)):
        mine = clients()[os.getpid()]
        assert state(f"{mine}/command") == Path("/proc/self/comm").read_text().strip()
        assert state(f"{mine}/user") == "root"
        assert state(f"{mine}/port") == "quad"
        assert set(state(f"{mine}/rings").split()) == {"tx/2", "rx/2"}
        for ring in state(f"{mine}/rings").split():
            assert number(f"ports/quad/{ring}/users") == 1
    settled(lambda: len(names("clients")), 0)
    assert os.getpid() not in clients()
    with pytest.raises(FileNotFoundError):
        state(f"{mine}/pid")


@pytest.mark.parametrize("name", ["a/b", "%41", "..", " x", "ü\n", "n:1{2}*"])
def test_a_null_port_is_there_whatever_its_name_and_goes_with_its_client(wires: Daemon, name: str) -> None:
    del wires
    before = names("ports")
    with hold(name, tx_rings=2, tx_slots=64):
        (folder,) = names("ports") - before
        port = state(f"{clients()[os.getpid()]}/port")
        assert port.startswith(f"{name}#")
        assert state(f"ports/{folder}/kind") == "null"
        assert number(f"ports/{folder}/tx/1/slots") == 64
        with hold(name):
            assert len(names("ports") - before) == 2, "two of one name are two"
    assert settled(lambda: len(names("ports") - before), 0) == 0


def test_both_ends_of_a_pipe_are_ports_as_long_as_one_is_used(wires: Daemon) -> None:
    """ABI.md section 12.3."""
    del wires
    with Port("state{1") as master, Port("state}1") as slave:
        assert {"state{1", "state}1"} <= names("ports")
        assert state("ports/state{1/kind") == "pipe"
        assert [number(f"ports/state{end}1/users") for end in "{}"] == [1, 1]
        master.send(frame(1))
        assert slave.receive() == frame(1)
        assert number("ports/state{1/tx/packets") == 1
        assert state(f"{clients()[os.getpid()]}/port") in ("state{1", "state}1")
    assert settled(lambda: len({"state{1", "state}1"} & names("ports")), 0) == 0


def test_a_switch_says_who_is_on_it_and_what_it_has_learned(wires: Daemon) -> None:
    """ABI.md section 12.5."""
    del wires
    assert names("vale") == set()
    with Port("vale0:one") as one, Port("vale0:two") as two:
        assert names("vale") == {"vale0"}
        places = {state(f"vale/vale0/ports/{place}"): place for place in names("vale/vale0/ports")}
        assert places.keys() == {"one", "two"}
        assert names("vale/vale0/learned") == set()
        one.send(frame(1))
        assert two.receive() == frame(1)
        address = frame(1)[6:12].hex(":")
        assert names("vale/vale0/learned") == {address}
        assert state(f"vale/vale0/learned/{address}") == places["one"]
        assert state("ports/vale0:one/kind") == "vale"
        assert number("ports/vale0:one/tx/packets") == 1
    assert settled(lambda: len(names("vale")), 0) == 0
    assert not [name for name in names("ports") if name.startswith("vale")]


def test_an_attached_interface_is_on_the_switch_under_its_own_name(wires: Daemon) -> None:
    """ABI.md section 12.5."""
    del wires
    fd = os.open("/dev/netmap", os.O_RDWR)
    assert request(fd, RequestType.VALE_ATTACH, "vale1:nil", ValeAttach(Register().encode(), 0))[0] == 0
    assert [state(f"vale/vale1/ports/{place}") for place in names("vale/vale1/ports")] == ["nil"]
    assert number("memory/1/ring/used") == 2
    assert request(fd, RequestType.VALE_DETACH, "vale1:nil", ValeDetach())[0] == 0
    os.close(fd)
    assert names("vale") == set()
    assert number("memory/1/ring/used") == 0


def test_memory_in_use_is_counted(wires: Daemon) -> None:
    """ABI.md section 8."""
    del wires
    assert settled(lambda: number("memory/1/if/used"), 0) == 0
    assert [number(f"memory/1/{pool}/used") for pool in ("ring", "buf")] == [0, 0]
    with Port("tap1", Register(mode=Mode.ALL_NIC, extra_bufs=5)):
        assert [number(f"memory/1/{pool}/used") for pool in ("if", "ring", "buf")] == [1, 2, 2 * 16 + 5]


def test_a_descriptor_reads_anew_from_the_start_and_on_from_there(wires: Daemon) -> None:
    del wires
    fd = os.open(STATE / "ports/nil/users", os.O_RDONLY)
    with Port("nil"):
        assert os.pread(fd, 100, 0) == b"1\n"
        assert os.pread(fd, 100, 2) == b""
        assert os.pread(fd, 1, 1) == b"\n"
    assert settled(lambda: int(os.pread(fd, 100, 0)), 0) == 0
    os.close(fd)


def test_a_path_of_any_bytes_is_no_trouble(wires: Daemon) -> None:
    del wires
    for name in (b"\xff\xfe", b"%", b"%zz", b"%2", b"a" * 255, b"\n"):
        with pytest.raises(FileNotFoundError):
            (STATE / "ports" / os.fsdecode(name)).stat()


def test_counters_read_while_traffic_runs_only_grow_and_end_exact(wires: Daemon) -> None:
    """Readers that never rest take nothing from a sender and are not lied to."""
    del wires
    frames, seen, done = 300_000, [], threading.Event()
    assert settled(lambda: number("ports/nil/users"), 0) == 0
    before = number("ports/nil/tx/packets")

    def read() -> None:
        while not done.is_set():
            seen.append(number("ports/nil/tx/packets"))
            assert 0 <= number("ports/nil/tx/0/hwtail") < 1024

    reader = threading.Thread(target=read)
    reader.start()
    sent = 0
    with Port("nil") as port:
        ring = port.tx[0]
        while sent < frames:
            room = min(ring.space, frames - sent)
            ring.advance(room)
            port.txsync()
            sent += room
    done.set()
    reader.join()
    assert seen == sorted(seen)
    assert number("ports/nil/tx/packets") - before == frames


def test_a_user_outside_the_group_reads_nothing(wires: Daemon) -> None:
    del wires
    done = subprocess.run(
        ["cat", STATE / "device/pid"], user=NOBODY, group=NOBODY, extra_groups=[], capture_output=True, check=False
    )
    assert b"Permission denied" in done.stderr


# ---- daemons of their own, on another device


MINE = f"netmap-{os.getpid()}"
FOLDER = STATE.with_name(MINE)


def test_the_group_of_the_device_reads_and_cannot_write(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    group = grp.getgrnam("daemon")
    config = tmp_path / "c.toml"
    config.write_text(f'[device]\nname = "{MINE}"\ngroup = "{group.gr_name}"\n[ports]\n')
    start_daemon(f"--config={config}")

    def as_member(command: str) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            ["sh", "-c", command],
            cwd=FOLDER.parent,
            user=NOBODY,
            group=NOBODY,
            extra_groups=[group.gr_gid],
            capture_output=True,
            check=False,
        )

    for path in [FOLDER, *FOLDER.rglob("*")]:
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (0, group.gr_gid)
        assert not stat.S_IMODE(status.st_mode) & 0o027
    assert as_member(f"cat {FOLDER}/parameters/buf_num").stdout == b"163840\n"
    assert b"Permission denied" in as_member(f"echo 1 > {FOLDER}/parameters/fwd").stderr
    assert (FOLDER / "parameters/fwd").read_text() == "0\n"


def test_ports_come_and_go_with_a_reload(start_daemon: Callable[..., Daemon], tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    base = f'[device]\nname = "{MINE}"\n[ports.one]\nbackend = "null"\n'
    config.write_text(base + '[ports.two]\nbackend = "null"\n')
    daemon = start_daemon(f"--config={config}")
    with Port("two", device=f"/dev/{MINE}"):
        config.write_text(base)
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_for_log("reload: [ports.two]: done")
        (gone,) = {entry.name for entry in (FOLDER / "ports").iterdir()} - {"one"}
        assert gone.startswith("two#")
        assert (FOLDER / "ports" / gone / "gone").read_text() == "1\n"
    settled(lambda: len(list((FOLDER / "ports").iterdir())), 1)
    assert {entry.name for entry in (FOLDER / "ports").iterdir()} == {"one"}
