# SPDX-License-Identifier: BSD-2-Clause
"""How the state files come and go: stop, SIGKILL, cleanup, under run; without libfuse; and whose the signals are."""

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cuse_netmap import namespace
from cuse_netmap.client import Port
from tests.support.command import COMMAND, cuse_netmap
from tests.support.daemon import Daemon
from tests.support.patience import at_most

# A device of its own: what lies in /run, unlike what is mounted there, is the whole machine's.
MINE = f"netmap-s{os.getpid()}"
STATE = Path("/run/cuse-netmap", MINE)
OPTIONS = (f"--device={MINE}", "--no-ports")
SOON = at_most(10.0)


def mounted() -> bool:
    return bool(namespace.mounted_at(STATE))


def left() -> list[Path]:
    """Folders of daemons, those under run included."""
    return [folder for folder in STATE.parent.iterdir() if folder.name.startswith(MINE) and folder.is_dir()]


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + SOON
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- stop


def test_an_ordinary_stop_leaves_neither_mount_nor_folder(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(*OPTIONS)
    assert mounted()
    assert daemon.stop() == 0
    assert not mounted()
    assert not left()


def test_a_program_with_files_open_in_it_holds_up_no_stop(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(*OPTIONS)
    inside = subprocess.Popen(["sleep", "60"], cwd=STATE / "parameters")
    fd = os.open(STATE / "device/pid", os.O_RDONLY)
    started = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - started < at_most(1.5)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is looked at
        os.pread(fd, 10, 0)
    assert refused.value.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO)
    with suppress(OSError):  # which closes it all the same
        os.close(fd)
    inside.kill()
    inside.wait()
    assert not mounted()
    assert not left()


# ---- SIGKILL


def killed(start_daemon: Callable[..., Daemon]) -> None:
    """A daemon that has left its mount."""
    first = start_daemon(*OPTIONS)
    first.process.kill()
    first.process.wait()
    assert mounted()
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is looked at
        (STATE / "device").stat()
    assert refused.value.errno == errno.ENOTCONN, "nobody hangs on it"


def test_the_mount_of_a_killed_daemon_is_removed_by_the_next(start_daemon: Callable[..., Daemon]) -> None:
    killed(start_daemon)
    second = start_daemon(*OPTIONS)
    assert f"removing the stale mount of a dead daemon at {STATE}" in second.log
    assert int((STATE / "device/pid").read_text()) == second.pid
    assert second.stop() == 0
    assert not left()


def test_cleanup_removes_the_mount_of_a_killed_daemon(start_daemon: Callable[..., Daemon]) -> None:
    killed(start_daemon)
    assert cuse_netmap("cleanup", f"--device={MINE}").returncode == 0
    assert not mounted()
    assert not left()


def test_cleanup_leaves_a_living_daemon_alone(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(*OPTIONS)
    assert cuse_netmap("cleanup", f"--device={MINE}").returncode == 1
    assert int((STATE / "device/pid").read_text()) == daemon.pid


# ---- what is missing or taken away


def test_without_libfuse_the_daemon_serves_and_says_what_to_install(
    start_daemon: Callable[..., Daemon], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nonexistent/libfuse.so.2")
    daemon = start_daemon(f"--device={MINE}", "--tap=tap0")
    assert "there are no state files: " in daemon.log
    assert "install libfuse2 and fusepy" in daemon.log
    with Port("tap0", device=f"/dev/{MINE}") as port:
        port.txsync()
    assert not mounted()
    assert daemon.stop() == 0


def test_a_daemon_whose_state_files_are_unmounted_by_others_serves_on(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(f"--device={MINE}", "--tap=tap0")
    namespace.unmount(STATE)
    daemon.wait_for_log(f"{STATE} was unmounted by somebody else")
    with Port("tap0", device=f"/dev/{MINE}") as port:
        port.txsync()
    assert daemon.stop() == 0
    assert not left()


def test_something_else_in_the_folders_place_is_left_alone(start_daemon: Callable[..., Daemon]) -> None:
    STATE.parent.mkdir(exist_ok=True)
    STATE.write_text("mine")
    try:
        daemon = start_daemon(*OPTIONS)
        assert "there are no state files: " in daemon.log
        assert daemon.stop() == 0
        assert STATE.read_text() == "mine"
    finally:
        STATE.unlink()


def test_signals_are_the_daemons_own_while_libfuse_is_there_and_after(start_daemon: Callable[..., Daemon]) -> None:
    """Libfuse sets handlers where there are none, and at its end lets SIGPIPE kill."""
    daemon = start_daemon(*OPTIONS)

    def lives_and_reloads(times: int) -> None:
        daemon.process.send_signal(signal.SIGPIPE)
        daemon.process.send_signal(signal.SIGHUP)
        wait_until(lambda: daemon.log.count("reload: nothing to change") == times)

    lives_and_reloads(1)
    namespace.unmount(STATE)
    daemon.wait_for_log("was unmounted by somebody else")
    lives_and_reloads(2)
    assert daemon.stop(signal.SIGINT) == 0


def test_relative_paths_of_the_daemon_stay_what_they_were(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon(*OPTIONS)
    assert Path(f"/proc/{daemon.pid}/cwd").readlink() == Path.cwd()


# ---- under run


def test_a_program_under_run_finds_its_own_state_files_which_nobody_else_sees() -> None:
    script = "cd $CUSE_NETMAP_STATE && pwd && cat device/node && ls ports && cat parameters/fwd"
    done = cuse_netmap("run", "--tap=tap0", f"--device={MINE}", "--", "sh", "-c", script)
    folder, node, port, value = done.stdout.splitlines()
    assert (node, port, value) == (f"/dev/{MINE}", "tap0", "0")
    assert Path(folder).parent == STATE.parent
    assert not namespace.mounted_at(Path(folder))
    assert not left()


def test_two_programs_under_run_have_state_files_each() -> None:
    words = [*COMMAND, "run", "--no-ports", f"--device={MINE}", "--", "sh", "-c", "echo $CUSE_NETMAP_STATE; read x"]
    both = [subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    folders = {one.stdout.readline() for one in both if one.stdout}
    assert len(folders) == 2
    for one in both:
        one.communicate("\n", timeout=SOON)
    assert not left()


def test_a_program_under_run_is_not_told_of_files_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUSE_LIBRARY_PATH", "/nonexistent/libfuse.so.2")
    monkeypatch.setenv("CUSE_NETMAP_STATE", "/somebody/elses")
    done = cuse_netmap("run", "--no-ports", f"--device={MINE}", "--", "sh", "-c", "echo ${CUSE_NETMAP_STATE-none}")
    assert done.stdout == "none\n"
    assert not left()


def start_run(*program: str) -> "subprocess.Popen[str]":
    words = [*COMMAND, "run", "--no-ports", f"--device={MINE}", "--", *program]
    running = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout
    assert running.stdout.readline() == "started\n"
    return running


def test_run_killed_outright_leaves_no_folder() -> None:
    running = start_run("sh", "-c", "echo started; exec cat")
    assert left()
    running.kill()
    running.wait()
    wait_until(lambda: not left())
    running.communicate()


def test_a_daemon_killed_under_its_program_leaves_no_folder_either() -> None:
    script = f"""
import os, signal, sys, time
state = os.environ["CUSE_NETMAP_STATE"]
os.kill(int(open(state + "/device/pid").read()), signal.SIGKILL)
time.sleep(0.2)
try:
    open(state + "/device/pid")
except OSError as error:
    sys.exit(error.errno != {errno.ENOTCONN})
sys.exit(2)
"""
    done = cuse_netmap("run", "--no-ports", f"--device={MINE}", "--", sys.executable, "-c", script)
    assert done.returncode == 0, done.stderr
    assert not left()


def test_what_both_killed_leave_is_an_empty_folder_that_cleanup_removes() -> None:
    running = start_run("sh", "-c", "echo started; exec cat")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    for pid in (running.pid, *map(int, children)):
        os.kill(pid, signal.SIGSTOP)
    for pid in (running.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    running.communicate()
    (folder,) = left()
    assert not list(folder.iterdir())
    assert cuse_netmap("cleanup", f"--device={MINE}").returncode == 0
    assert not left()


def test_cleanup_leaves_the_folder_of_a_living_run_alone() -> None:
    """Removing it would take the mount away where it is seen."""
    words = [*COMMAND, "run", "--no-ports", f"--device={MINE}", "--", "sh", "-c"]
    script = "echo started; read x; cat $CUSE_NETMAP_STATE/device/node"
    running = subprocess.Popen([*words, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert running.stdout
    assert running.stdout.readline() == "started\n"
    cuse_netmap("cleanup", f"--device={MINE}")
    assert left()
    output, _ = running.communicate("\n", timeout=SOON)
    assert output == f"/dev/{MINE}\n"


def test_a_daemon_in_another_mount_namespace_keeps_its_folder(start_daemon: Callable[..., Daemon]) -> None:
    """The folder is one, the mounts are two; who leaves last removes it."""
    first = start_daemon(*OPTIONS)
    if first.mmap == "helper":
        pytest.skip("the CUSE door alone: its devices are the whole machine's, and a second of one name is refused")
    code = """
import os, sys
from pathlib import Path
from cuse_netmap.namespace import unmount, unshare_mounts
unshare_mounts()
unmount(Path(sys.argv[1]))
unmount(Path(sys.argv[2]))
os.execv(sys.argv[3], sys.argv[3:])
"""
    command = [sys.executable, "-c", code, str(STATE), f"/dev/{MINE}", *COMMAND, "serve", *OPTIONS]
    second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert second.stdout
    assert "is ready" in second.stdout.readline()
    second.send_signal(signal.SIGTERM)
    second.communicate(timeout=SOON)
    assert second.returncode == 0
    assert int((STATE / "device/pid").read_text()) == first.pid
    assert first.stop() == 0
    assert not left()
