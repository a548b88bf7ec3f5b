# SPDX-License-Identifier: BSD-2-Clause
"""How a device comes and goes: daemons that stop, die, start beside each other, or lose their mount."""

import errno
import os
import random
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.device import check_path
from cuse_netmap.errors import SetupError
from cuse_netmap.namespace import bind, mounted_at, unmount
from tests.support.daemon import Daemon
from tests.support.patience import at_most
from tests.support.program import Program, run
from tests.support.ways import uring_switch

Start = Callable[..., Daemon]
Client = Callable[..., Path]

# What a dead connection's calls fail with; the third is io_uring's word for a request it was about to hand over.
FREED = (errno.ECONNABORTED, errno.ENOTCONN, errno.ECANCELED)
NETMAP = Path("/dev/netmap")
SERVE = [sys.executable, "-m", "cuse_netmap", "serve"]


@pytest.fixture
def device() -> Iterator[Path]:
    """A device of a name that no other run uses; whatever is left of it is removed."""
    path = Path(f"/dev/netmap-test-{os.getpid()}")
    yield path
    while mounted_at(path):
        unmount(path)
    path.unlink(missing_ok=True)


def connection_of(path: Path) -> Path:
    """The control folder of the FUSE connection mounted at `path`."""
    fields = next(line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {path} " in line)
    folder = Path("/sys/fs/fuse/connections")
    if not any(folder.iterdir()):
        subprocess.run(["mount", "-t", "fusectl", "fusectl", folder], check=True)
    return folder / fields[2].split(":")[1]


def states_of_processes() -> dict[int, str]:
    states = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = stat.read_text().split(" ", 1)
        except OSError:
            continue
        states[int(pid)] = rest.rsplit(")", 1)[1].split()[0]
    return states


def serve_second(options: list[str]) -> subprocess.CompletedProcess[str]:
    command = [*SERVE, *options, "--tap=second0"]
    return subprocess.run(command, capture_output=True, text=True, timeout=at_most(20), check=False)


def none_stays_in(state: str, pids: set[int]) -> bool:
    deadline = time.monotonic() + at_most(3)
    while any(states_of_processes().get(pid) == state for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_killed_daemon_frees_every_client_and_the_next_one_serves(
    way: tuple[str, ...], start_daemon: Start, client_program: Client
) -> None:
    """DESIGN.md section 2: daemon killed; ABI.md section 19: maps stay valid; the next start removes a stale mount."""
    daemon = start_daemon(*way, "--tap=tap0", "--tap=tap1")
    hold, park = client_program("hold"), client_program("park")
    with (
        Program(hold, "poll", "tap0") as poller,
        Program(hold, "epoll", "tap0") as edge,
        Program(hold, "sync", "tap0") as syncer,
        Program(park, "-f", 4, "-p", "tap1") as parked,
    ):
        for holder in (poller, edge, syncer):
            holder.wait_for("ready")
        parked.wait_for("fault", 4)
        daemon.process.kill()
        daemon.process.wait(at_most(5))
        start = time.monotonic()
        assert poller.number("revents", at_most(2)) & select.POLLERR
        assert edge.number("revents", at_most(2)) & select.EPOLLERR
        assert syncer.number("errno", at_most(2)) in FREED
        parked.wait_for("errno", 4, at_most(2))
        assert {int(line.split()[1]) for line in parked.lines if line.startswith("errno")} <= set(FREED)
        assert time.monotonic() - start < at_most(1)
        for holder in (poller, edge, syncer):
            holder.wait_for("map OK")
        gone = errno.ENOTCONN if daemon.mmap == "passthrough" else errno.ENOENT  # a CUSE device goes with its daemon
        with pytest.raises(OSError, match=os.strerror(gone)):
            Port("tap0")
        # The old clients still hold their descriptors.
        again = start_daemon(*way, "--tap=tap0")
        assert (f"removing the stale mount of a dead daemon at {NETMAP}\n" in again.log) == (
            daemon.mmap == "passthrough"
        )
        run(client_program("sync"), "tap0", 10)
    again.stop()
    assert not mounted_at(NETMAP)


def test_a_stopped_daemon_frees_every_client(way: tuple[str, ...], start_daemon: Start, client_program: Client) -> None:
    """DESIGN.md section 2: the connection is aborted; issue A item 7: SIGTERM cleans up."""
    daemon = start_daemon(*way, "--tap=tap0", "--tap=tap1")
    hold, park = client_program("hold"), client_program("park")
    with (
        Program(hold, "poll", "tap0") as poller,
        Program(hold, "sync", "tap0") as syncer,
        Program(park, "-f", 4, "-p", "tap1") as parked,
    ):
        poller.wait_for("ready")
        syncer.wait_for("ready")
        parked.wait_for("fault", 4)
        start = time.monotonic()
        assert daemon.stop() == 0
        assert time.monotonic() - start < at_most(4)
        assert poller.number("revents", at_most(2)) & select.POLLERR
        assert syncer.number("errno", at_most(2)) in (*FREED, errno.ENODEV)
        parked.wait_for("errno", 4, at_most(2))
        syncer.wait_for("map OK")
        assert not mounted_at(NETMAP)


@pytest.mark.parametrize("lazy", [False, True])
def test_a_daemon_whose_mount_is_taken_away_ends_with_a_sentence(
    way: tuple[str, ...], start_daemon: Start, device: Path, lazy: bool
) -> None:
    """DESIGN.md section 2: one place that mounts; who serves nothing must not go on as if it did."""
    daemon = start_daemon(*way, f"--device={device.name}", "--tap=own0")
    if daemon.mmap == "helper":
        pytest.skip("the CUSE door alone has no mount")
    subprocess.run(["umount", *(["-l"] if lazy else []), device], check=True)
    assert daemon.process.wait(at_most(5)) == 1
    assert f"{device} was taken away" in daemon.log
    assert not device.exists()


def test_a_daemon_whose_connection_is_aborted_ends_with_a_sentence(
    way: tuple[str, ...], start_daemon: Start, device: Path
) -> None:
    """DESIGN.md section 2: /sys/fs/fuse/connections/N/abort, or that of a CUSE device."""
    daemon = start_daemon(*way, f"--device={device.name}", "--tap=own0")
    control = connection_of(device) if daemon.mmap == "passthrough" else Path("/sys/class/cuse", device.name)
    (control / "abort").write_text("1")
    assert daemon.process.wait(at_most(5)) == 1
    assert f"{device} was taken away" in daemon.log
    assert not mounted_at(device)
    assert not device.exists()


def test_a_clean_stop_leaves_no_trace(way: tuple[str, ...], start_daemon: Start, device: Path) -> None:
    """Issue A item 2: ctrl-C removes every trace."""
    before = uring_switch()
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon = start_daemon(*way, f"--device={device.name}", "--tap=trace0")
        assert bool(mounted_at(device)) == (daemon.mmap == "passthrough")
        assert daemon.stop(number) == 0
        assert not mounted_at(device)
        assert not device.exists()
        assert not Path("/sys/class/net/trace0").exists()
    assert uring_switch() == before


def test_a_daemon_killed_while_it_starts_does_not_hinder_the_next(
    way: tuple[str, ...], device: Path, tmp_path: Path
) -> None:
    """DESIGN.md section 2: the daemon never uses its own mount, so that no SIGKILL leaves a process hanging."""
    chance = random.Random(14)  # noqa: S311 - moments, not secrets
    options = [*way, f"--device={device.name}", "--tap=early0"]
    before = set(states_of_processes())
    for _ in range(10):
        process = subprocess.Popen([*SERVE, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.05, 0.45))
        process.kill()
        process.wait(at_most(5))
    with Daemon(tmp_path / "log", *options):
        pass
    left = set(states_of_processes()) - before
    assert none_stays_in("D", left)
    assert not device.exists()


def test_what_somebody_mounts_over_the_device_hinders_neither_the_end_nor_once_it_is_gone_the_next(
    way: tuple[str, ...], start_daemon: Start, device: Path, tmp_path: Path
) -> None:
    """Issue D: something mounted over our mount. It is not ours to take away."""
    options = [*way, f"--device={device.name}"]
    (tmp_path / "theirs").touch()
    daemon = start_daemon(*options)
    bind(tmp_path / "theirs", device)
    assert daemon.stop() == 0
    if "--door=fuse" in way:
        assert f"something is mounted over {device}" in daemon.log
        second = serve_second(options)
        assert second.returncode == 1
        assert second.stderr == (
            f"cuse-netmap: something else is mounted over {device}: umount {device}, or use --device NAME\n"
        )
        unmount(device)
    # else the kernel has taken the device's node away and whatever was mounted there
    assert start_daemon(*options).stop() == 0
    assert not mounted_at(device)
    assert not device.exists()


def test_two_daemons_on_one_device_are_one_too_many(way: tuple[str, ...], start_daemon: Start, device: Path) -> None:
    """Issue A, bad input: a sentence and exit status 1."""
    options = [*way, f"--device={device.name}"]
    first = start_daemon(*options)
    second = serve_second(options)
    assert second.returncode == 1
    assert second.stderr.count("\n") == 1
    assert f"{device} is served by another daemon already" in second.stderr
    assert first.stop() == 0
    assert not device.exists()


def test_of_daemons_that_start_at_once_one_serves(way: tuple[str, ...], device: Path) -> None:
    """Issue A, bad input: the others say so and end with 1."""
    command = [*SERVE, *way, f"--device={device.name}"]
    for _ in range(3):
        daemons = [
            subprocess.Popen([*command, f"--tap=at{i}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for i in range(3)
        ]
        ready = [bool(daemon.stdout and daemon.stdout.readline()) for daemon in daemons]
        for daemon in daemons:
            daemon.terminate()
        said = [daemon.communicate(timeout=at_most(10))[1].decode() for daemon in daemons]
        assert ready.count(True) == 1, said
        assert sorted(daemon.returncode for daemon in daemons) == [0, 1, 1], said
        assert sum("served by another daemon already" in text for text in said) == 2, said
        assert not device.exists()


def test_a_daemon_that_came_after_the_first_look_is_known(
    way: tuple[str, ...], start_daemon: Start, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As above, with the other one's mount or node made at the worst moment."""
    start_daemon(*way, f"--device={device.name}")
    monkeypatch.setattr("cuse_netmap.device.clean_up", lambda _path: None)
    with pytest.raises(SetupError, match="served by another daemon already"):
        check_path(device)


def test_a_daemon_that_does_not_answer_is_not_waited_for(
    way: tuple[str, ...], start_daemon: Start, device: Path
) -> None:
    """DESIGN.md section 2: whatever touches a mount may hang; the one that starts must not."""
    options = [*way, f"--device={device.name}"]
    first = start_daemon(*options)
    first.process.send_signal(signal.SIGSTOP)
    try:
        second = serve_second(options)
    finally:
        first.process.send_signal(signal.SIGCONT)
    assert second.returncode == 1
    assert "stop that one first" in second.stderr or "served by another daemon already" in second.stderr
    assert first.stop() == 0


def test_private_daemons_share_the_placeholder_and_the_last_removes_it(way: tuple[str, ...], device: Path) -> None:
    """Issue A item 7: run serves in a mount namespace of its own."""
    command = [sys.executable, "-m", "cuse_netmap", "run", f"--device={device.name}", *way]
    script = f"test -e {device} && echo in && read line"
    runs = [
        subprocess.Popen(
            [*command, f"--tap=run{i}", "--", "sh", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for i in range(2)
    ]
    for one in runs:
        assert one.stdout is not None
        assert one.stdout.readline() == b"in\n"
    assert device.exists()
    assert not mounted_at(device)
    runs[0].communicate(b"\n", timeout=at_most(10))
    assert device.exists()
    runs[1].communicate(b"\n", timeout=at_most(10))
    assert [one.returncode for one in runs] == [0, 0]
    assert not device.exists()
