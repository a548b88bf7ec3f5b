# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap serve` as an operator meets it: what it says, how it ends, what it refuses, what a reload changes."""

import errno
import fcntl
import os
import pty
import select
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.helper import FOLDER
from cuse_netmap.namespace import bind, mounted_at, unmount
from tests.support.command import COMMAND, NOBODY, cuse_netmap, one_sentence
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip, link
from tests.support.patience import at_most
from tests.support.steps import refused, wait_until
from tests.support.ways import uring_switch

URING_SWITCH = Path("/sys/module/fuse/parameters/enable_uring")


def mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def links() -> set[str]:
    return {line.split(":")[1].strip() for line in ip("-o", "link").splitlines()}


# ---- start and end


# Names of their own: /dev, unlike mounts and networks, is the whole machine's.
MINE = f"netmap-{os.getpid()}"


def traces() -> dict[str, object]:
    """Whatever a daemon could leave behind."""
    return {
        "mounts": [line for line in mounts().splitlines() if MINE in line],
        "node": Path("/dev", MINE).exists(),
        "links": links(),
        "processes": [one for one in commands() if MINE in one],
    }


def commands() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(process.read_text().replace("\0", " "))
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_with_status_0_and_leaves_no_trace(start_daemon: Callable[..., Daemon], number: int) -> None:
    before = traces()
    daemon = start_daemon("--tap=tap0", "--tap=tap1", f"--device={MINE}")
    during = traces()
    assert during["node"]
    assert during["mounts"]
    assert (f" /dev/{MINE} " in mounts()) == (daemon.mmap == "passthrough")
    assert {"tap0", "tap1"} <= links()
    assert daemon.stop(number) == 0
    assert traces() == before


def test_the_switch_of_io_uring_is_set_back_as_soon_as_the_mount_is_made(start_daemon: Callable[..., Daemon]) -> None:
    if not URING_SWITCH.exists():
        pytest.skip("this kernel's FUSE knows no io_uring (Linux 6.14)")
    before = uring_switch()
    start_daemon("--tap=tap0", "--transport=uring")
    assert uring_switch() == before


@pytest.fixture
def locked_switch(tmp_path: Path) -> Iterator[Path]:
    """Somebody has locked the switch, which anybody may who can read it: a file of our own in its place."""
    if not URING_SWITCH.exists():
        pytest.skip("this kernel's FUSE knows no io_uring (Linux 6.14)")
    switch = tmp_path / "switch"
    switch.write_text("N")
    bind(switch, URING_SWITCH)
    with switch.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield switch
    unmount(URING_SWITCH)


def test_a_lock_on_the_switch_of_io_uring_costs_the_transport_and_not_the_start(
    start_daemon: Callable[..., Daemon], locked_switch: Path
) -> None:
    daemon = start_daemon("--no-ports", f"--device={MINE}")
    assert "read/write instead of io_uring: somebody has held the lock of " in daemon.log
    assert daemon.wait_for_log("is ready: fuse door, read/write, mmap by FUSE passthrough")
    assert locked_switch.read_text() == "N"


@pytest.mark.door
def test_the_log_says_at_start_how_requests_travel_and_why_not_over_io_uring(
    start_daemon: Callable[..., Daemon],
) -> None:
    log = start_daemon("--no-ports", f"--device={MINE}").wait_for_log(" is ready: ")
    (ready,) = [line for line in log.splitlines() if " is ready: " in line]
    if "mmap by the helper" in ready:
        assert " read/write (CUSE has nothing else), " in ready
    elif URING_SWITCH.exists():
        assert " FUSE over io_uring, " in ready
    else:
        assert " read/write, " in ready
        assert "read/write instead of io_uring: this kernel's FUSE knows no io_uring: Linux 6.14 or later does" in log


def test_serve_with_a_program_inside_ends_all_the_same(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon("--tap=tap0", f"--device={MINE}")
    with Port("tap0", device=f"/dev/{MINE}") as port:
        assert daemon.stop() == 0
        assert port.poll(select.POLLIN, at_most(1)) & select.POLLERR
    assert not Path("/dev", MINE).exists()


def test_ctrl_c_again_and_again_is_status_0_too(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon("--tap=tap0", f"--device={MINE}")
    deadline = time.monotonic() + at_most(10)
    while daemon.process.poll() is None:
        assert time.monotonic() < deadline
        daemon.process.send_signal(signal.SIGINT)
        time.sleep(0.002)
    assert daemon.process.returncode == 0


def test_a_closed_terminal_ends_the_daemon_in_its_foreground_whoever_began_it(tmp_path: Path) -> None:
    """docs/configuration.md, Signals: the kernel tells the terminal's first process alone, here one that waits on."""
    log, served = tmp_path / "log", [*COMMAND, "serve", "--no-ports", f"--device={MINE}"]
    terminal, inside = pty.openpty()
    first = subprocess.Popen(
        ["setsid", "--ctty", "bash", "-c", f"trap : HUP; set -m; {shlex.join(served)} 2>{log}; exit"],
        stdin=inside,
        stdout=inside,
        stderr=inside,
    )
    os.close(inside)
    try:
        wait_until(lambda: " is ready: " in log.read_text() if log.exists() else False)
    finally:
        os.close(terminal)
    try:
        first.wait(at_most(10))
        assert "ending: the terminal was closed" in log.read_text()
    finally:
        for pid in [one.name for one in Path("/proc").glob("[0-9]*") if serves_mine(one)]:
            os.kill(int(pid), signal.SIGTERM)
    assert not Path("/dev", MINE).exists()


def serves_mine(process: Path) -> bool:
    with suppress(OSError):
        return f"--device={MINE}" in (process / "cmdline").read_text()
    return False


@pytest.mark.parametrize("device", ["netmap", pytest.param(MINE, id="another")])
def test_serve_says_what_it_serves_and_something_to_try_that_works(device: str) -> None:
    command = [*COMMAND, "serve", "--tap=wire7", "--tap=wire8", f"--device={device}"]
    served = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    try:
        assert served.stdout
        said = [served.stdout.readline() for _ in range(5)]
        assert said[0].startswith(f"cuse-netmap: /dev/{device} is ready (")
        if "FUSE passthrough" not in said[0]:
            assert "mmap by the helper (cuse-netmap run PROGRAM; for all programs: cuse-netmap preload" in said[0]
        assert said[1] == "  netmap:wire7  the wire of a TAP device of ours, 1 ring pair(s) of 1024 slots\n"
        assert said[2].split()[0] == "netmap:wire8"
        assert said[4] == "ctrl-C ends it.\n"
        offered, _, suggestion = said[3].partition(":  ")
        assert offered == "Try in a second terminal, as root"
        words = suggestion.split()
        assert words[1:3] == ["gen", "netmap:wire7"]
        assert words[-2:] == ["-n", "1000000"]
        with Host("wire7"):
            tried = cuse_netmap(*words[1:-1], "1000")
        assert tried.returncode == 0
        assert tried.stdout.startswith("sent 1000 packets, 60000 bytes")
    finally:
        served.send_signal(signal.SIGINT)
        status = served.wait(at_most(10))
        served.communicate()
    assert status == 0


def test_a_second_daemon_on_the_same_device_is_told_whose_it_is(start_daemon: Callable[..., Daemon]) -> None:
    daemon = start_daemon("--tap=tap0")
    second = cuse_netmap("serve", "--tap=tap1")
    assert second.returncode == 1
    assert "/dev/netmap is served by another daemon already" in second.stderr
    assert refused("tap0") == 0
    assert daemon.stop() == 0


def test_two_daemons_serve_two_devices(start_daemon: Callable[..., Daemon]) -> None:
    start_daemon("--tap=tap0")
    start_daemon("--tap=tap1", "--device=netmap2")
    with Port("tap0"), Port("tap1", device="/dev/netmap2") as port, Host("tap1") as host:
        port.send(frame(1))
        assert host.receive() == frame(1)


# ---- what it refuses


def test_without_root_it_says_how_to_become_it() -> None:
    """A user who may not even write in /dev. That is what is wrong, and not the first thing that then fails."""
    said = one_sentence(cuse_netmap("serve", "--tap=tap0", user=NOBODY))
    assert said == "serving a device takes the capabilities of root: run it as root (sudo)"
    said = one_sentence(cuse_netmap("run", "--tap=tap0", "--", "true", user=NOBODY))
    assert "root" in said


def test_a_name_that_is_taken_is_named() -> None:
    ip("link", "add", "taken", "type", "bridge")
    try:
        said = one_sentence(cuse_netmap("serve", "--tap=taken", f"--device={MINE}"))
        assert said.startswith("port taken: an interface taken exists already")
        assert "choose another name or delete it" in said
        link("taken")
    finally:
        ip("link", "del", "taken")
    assert not Path("/dev", MINE).exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            '[ports.tap0]\nbackend = "tap"\nmtu = 10\n',
            ":3: [ports.tap0] mtu: is 10, must be a whole number from 68 to 65521",
        ),
        ('[device]\nname = "x"\ndor = "fuse"\n', ":3: [device] dor: is no key here"),
        ("[memory\n", ":1: "),
        ('[ports.a]\nbackend = "xyz"\n', ':2: [ports.a] backend: is "xyz", must be one of'),
    ],
)
def test_a_malformed_configuration_names_file_line_and_key(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(content)
    assert one_sentence(cuse_netmap("serve", "--config", str(file))).startswith(f"{file}{said}")


def test_a_configuration_that_is_not_there_is_named(tmp_path: Path) -> None:
    said = one_sentence(cuse_netmap("serve", "--config", str(tmp_path / "none.toml")))
    assert said == f"{tmp_path / 'none.toml'}: cannot be read: No such file or directory"


@pytest.mark.parametrize("command", [("serve",), ("run", "--", "true")])
def test_a_wrong_command_line_is_a_sentence_and_status_2(command: tuple[str, ...]) -> None:
    """docs/configuration.md, exit status: whether the name of an option or its value is wrong."""

    def said_of(option: str) -> str:
        done = cuse_netmap(command[0], option, *command[1:])
        assert (done.returncode, done.stdout) == (2, "")
        return done.stderr

    said = said_of("--transport=pigeon")
    assert said.startswith('cuse-netmap: command line: [device] transport: is "pigeon", must be one of')
    assert "[ports.val1]: is no port's name" in said_of("--tap=val1")
    assert "[memory] buf_num: is 1, must be" in said_of("--buf-num=1")
    assert said_of("--no-such").startswith(f"usage: cuse-netmap {command[0]} ")


@pytest.mark.skipif(Path("/dev/cuse").exists(), reason="this kernel has CUSE")
def test_no_cuse_is_a_sentence_that_says_what_is_missing() -> None:
    said = one_sentence(cuse_netmap("serve", "--no-ports", "--door=cuse"))
    assert "there is no /dev/cuse: modprobe cuse" in said
    assert "CONFIG_CUSE" in said


def test_a_device_path_that_is_something_else_is_left_alone() -> None:
    said = one_sentence(cuse_netmap("serve", "--device=null", "--tap=tap0"))
    assert "/dev/null exists and is no plain file" in said
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("command", [("serve",), ("run", "--", "true")])
def test_a_file_with_something_in_it_is_left_alone(command: tuple[str, ...]) -> None:
    precious = Path("/dev", MINE)
    precious.write_text("precious\n")
    try:
        done = cuse_netmap(command[0], "--no-ports", f"--device={MINE}", *command[1:])
        assert f"{precious} is a file of 9 bytes that is not ours: move it away, or use --device NAME" in done.stderr
        assert done.returncode == 1
        assert precious.read_text() == "precious\n"
    finally:
        precious.unlink()


# ---- a predecessor that died


def test_the_mount_of_a_killed_daemon_is_removed_by_the_next(start_daemon: Callable[..., Daemon]) -> None:
    first = start_daemon("--tap=tap0")
    with Port("tap0") as port:
        first.process.kill()
        first.process.wait()
        assert port.poll(select.POLLIN, at_most(2)) & select.POLLERR
    second = start_daemon("--tap=tap0")
    said = "removing the stale mount of a dead daemon at /dev/netmap" in second.log
    assert said == (first.mmap == "passthrough"), "a CUSE device goes with its daemon"
    assert refused("tap0") == 0
    assert second.stop() == 0
    assert not mounted_at(Path("/dev/netmap"))


OTHER_DEV = """
import sys
from pathlib import Path
from cuse_netmap.namespace import mounted_at, unshare_mounts
sys.path.append(sys.argv[1])
from tests.support.places import mount_private_places
unshare_mounts()
mount_private_places()
print(mounted_at(Path("/dev/netmap")) or "nothing")
"""


def test_a_daemon_whose_dev_is_not_seen_is_in_nobodys_way(start_daemon: Callable[..., Daemon]) -> None:
    """Containers and these tests lay a /dev of their own over the machine's."""
    daemon = start_daemon()
    assert mounted_at(Path("/dev/netmap")) == ("fuse" if daemon.mmap == "passthrough" else "")
    tests = Path(__file__).resolve().parents[2]
    inside = subprocess.run([sys.executable, "-c", OTHER_DEV, tests], stdout=subprocess.PIPE, text=True, check=True)
    assert inside.stdout == "nothing\n"


@pytest.fixture
def stale_socket() -> Iterator[Path]:
    """What a `run` that was killed outright leaves on a kernel that has the CUSE door alone."""
    path = FOLDER / f"{MINE}-1234567.sock"
    FOLDER.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    yield path
    path.unlink(missing_ok=True)


def test_the_helpers_socket_of_a_killed_daemon_is_removed_by_the_next(
    start_daemon: Callable[..., Daemon], stale_socket: Path
) -> None:
    start_daemon("--no-ports", f"--device={MINE}")
    assert not stale_socket.exists()


def test_cleanup_removes_the_helpers_socket_of_a_killed_daemon(stale_socket: Path) -> None:
    assert cuse_netmap("cleanup", f"--device={MINE}").returncode == 0
    assert not stale_socket.exists()


def test_cleanup_without_root_names_what_it_may_not_remove(stale_socket: Path) -> None:
    said = one_sentence(cuse_netmap("cleanup", f"--device={MINE}", user=NOBODY))
    assert said == f"{stale_socket}: Permission denied: run it as root (sudo)"


# ---- reload


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


BASE = '[log]\nlevel = "info"\n[ports.tap0]\nbackend = "tap"\nup = true\nmtu = 1500\n'


def reloaded(daemon: Daemon, file: Path, content: str, until: str) -> str:
    """What the daemon logged of a reload of `content`, once it has said `until`."""
    before = len(daemon.log)
    new = file.with_suffix(".new")
    new.write_text(content)
    new.rename(file)  # a reload under way finds one or the other
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + at_most(5)
    while until not in daemon.log[before:]:
        assert time.monotonic() < deadline, daemon.log[before:]
        time.sleep(0.01)
    return daemon.log[before:]


def test_a_reload_changes_log_level_mtu_and_up_at_once(start_daemon: Callable[..., Daemon], file: Path) -> None:
    file.write_text(BASE)
    daemon = start_daemon(f"--config={file}")
    with Port("tap0") as port:
        changed = BASE.replace("1500", "1400").replace("true", "false")
        reloaded(daemon, file, changed, "[ports.tap0] mtu: done")
        assert link("tap0")["mtu"] == 1400
        assert "UP" not in link("tap0")["flags"]
        reloaded(daemon, file, BASE, "[ports.tap0] mtu: done")
        assert "UP" in link("tap0")["flags"]
        with Host("tap0") as host:
            port.send(frame(1))
            assert host.receive() == frame(1)

    def quiet() -> bool:
        before = len(daemon.log)
        Port("tap0").close()
        return "registered" not in daemon.log[before:]

    assert not quiet()
    reloaded(daemon, file, BASE.replace("info", "warning"), "")
    wait_until(quiet)
    assert refused("nothing") == errno.ENXIO
    daemon.wait_for_log("WARNING: refused: ")


def test_a_reload_adds_and_removes_ports(start_daemon: Callable[..., Daemon], file: Path) -> None:
    file.write_text(BASE)
    daemon = start_daemon(f"--config={file}")
    assert refused("extra") == errno.ENXIO
    reloaded(daemon, file, BASE + '[ports.extra]\nbackend = "tap"\n', "[ports.extra]: done")
    with Port("extra") as port, Host("extra") as host:
        host.send(frame(1))
        assert port.receive() == frame(1)
        reloaded(daemon, file, BASE, "[ports.extra]: done")
        assert port.poll(select.POLLIN, at_most(2)) == select.POLLERR
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            port.txsync()
        assert refused("extra") == errno.ENXIO
        # The same name again, while a program still holds the old one's rings.
        daemon_says = reloaded(daemon, file, BASE + '[ports.extra]\nbackend = "null"\n', "[ports.extra]: ")
        assert "done" in daemon_says
        assert refused("extra") == 0
    assert refused("tap0") == 0


def test_a_port_removed_while_a_program_sleeps_on_it_wakes_the_program(
    start_daemon: Callable[..., Daemon], file: Path
) -> None:
    file.write_text(BASE + '[ports.extra]\nbackend = "tap"\n')
    daemon = start_daemon(f"--config={file}")
    with Port("extra") as port:
        file.write_text(BASE)
        sleeper = subprocess.Popen(["sh", "-c", f"sleep 0.2; kill -HUP {daemon.pid}"])
        assert port.poll(select.POLLIN, at_most(5)) == select.POLLERR
        sleeper.wait()
    deadline = time.monotonic() + at_most(5)
    while "extra" in ip("-o", "link"):
        assert time.monotonic() < deadline, "the device goes with its last program"
        time.sleep(0.01)


def test_a_reload_refuses_what_it_cannot_change_and_does_the_rest(
    start_daemon: Callable[..., Daemon], file: Path
) -> None:
    file.write_text(BASE)
    daemon = start_daemon(f"--config={file}")
    changed = BASE.replace("1500", "1300") + 'queues = 2\n[device]\nname = "other"\n[memory]\nbuf_num = 1000\n'
    said = reloaded(daemon, file, changed, "[ports.tap0] queues: refused")
    assert "[device] name: refused: the node is made once, at start: restart the daemon" in said
    assert "[memory] buf_num: refused: write the parameter of that name in the state files" in said
    assert "[ports.tap0] queues: refused: the port's rings may be in use" in said
    daemon.wait_for_log("[ports.tap0] mtu: done")
    assert link("tap0")["mtu"] == 1300
    with Port("tap0") as port:
        assert list(port.tx) == [0]
    assert not Path("/dev/other").exists()


def test_a_reload_of_a_broken_file_changes_nothing(start_daemon: Callable[..., Daemon], file: Path) -> None:
    file.write_text(BASE)
    daemon = start_daemon(f"--config={file}")
    with Port("tap0") as port, Host("tap0") as host:
        said = reloaded(daemon, file, BASE.replace("1500", "1400") + "[ports.tap1]\nbackend = 7\n", "nothing changed")
        assert f"reload: nothing changed: {file}:8: [ports.tap1] backend: is 7" in said
        assert link("tap0")["mtu"] == 1500
        host.send(frame(1))
        assert port.receive() == frame(1)
        assert "nothing to change" in reloaded(daemon, file, BASE, "reload:")


def test_a_live_change_the_kernel_refuses_is_refused_and_tried_again_by_the_next_reload(
    start_daemon: Callable[..., Daemon], file: Path
) -> None:
    file.write_text(BASE)
    daemon = start_daemon(f"--config={file}")
    ip("link", "add", "tap9", "type", "bridge")
    added = BASE + '[ports.tap9]\nbackend = "tap"\n'
    try:
        assert "an interface tap9 exists already" in reloaded(daemon, file, added, "[ports.tap9]: refused")
    finally:
        ip("link", "del", "tap9")
    reloaded(daemon, file, added, "[ports.tap9]: done")
    assert refused("tap9") == 0
