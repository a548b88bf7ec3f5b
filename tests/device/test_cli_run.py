# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap run`: a program with a device of its own; whose exit status, output and signals are whose."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.command import COMMAND, cuse_netmap, one_sentence
from tests.support.host import ip
from tests.support.patience import at_most
from tests.support.steps import wait_until

SOON = at_most(10.0)
# Nobody else's processes, mounts and interfaces are looked at, and /dev is shared by the whole machine.
MINE = f"netmap-run-{os.getpid()}"


def run(*command: str, tap: str = "tap0") -> "subprocess.CompletedProcess[str]":
    return cuse_netmap("run", f"--tap={tap}", f"--device={MINE}", "--", *command)


def commands() -> list[str]:
    found = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            found.append(process.read_text().replace("\0", " "))
    return [one for one in found if MINE in one]


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    wait_until(lambda: not commands())
    assert "tap0" not in ip("-o", "link")
    assert not Path("/dev", MINE).exists()


@pytest.fixture
def start() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """`run` in a process group of its own, as a shell starts it, once its program has printed a line."""
    started: list[subprocess.Popen[str]] = []

    def call(*command: str, tap: str = "tap0") -> "subprocess.Popen[str]":
        words, pipe = [*COMMAND, "run", f"--tap={tap}", f"--device={MINE}", "--", *command], subprocess.PIPE
        started.append(subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, process_group=0))
        assert started[-1].stdout
        assert started[-1].stdout.readline() == "started\n"
        return started[-1]

    yield call
    for one in started:
        one.kill()
        one.communicate()


# ---- exit status


@pytest.mark.parametrize("status", [0, 1, 7, 126, 255])
def test_the_exit_status_is_the_programs(status: int) -> None:
    assert run("sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGABRT])
def test_a_program_that_a_signal_ends_gives_128_and_its_number(number: int) -> None:
    assert run("sh", "-c", f"kill -{int(number)} $$").returncode == 128 + number


def test_a_program_that_is_not_there_is_127() -> None:
    done = run("no-such-program")
    assert done.returncode == 127
    assert done.stderr == "cuse-netmap: no-such-program: there is no such program\n"


def test_a_program_that_cannot_be_executed_is_126(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    done = run(str(tmp_path / "data"))
    assert done.returncode == 126
    assert done.stderr == f"cuse-netmap: {tmp_path / 'data'}: Permission denied\n"


def test_a_daemon_that_does_not_start_is_1_and_the_program_is_not_started(tmp_path: Path) -> None:
    ip("link", "add", "taken", "type", "bridge")
    try:
        done = run("touch", str(tmp_path / "started"), tap="taken")
    finally:
        ip("link", "del", "taken")
    assert done.returncode == 1
    assert "an interface taken exists already" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "started").exists()


def test_without_a_program_it_says_how_it_is_used() -> None:
    for nothing in ([], ["--"]):
        done = cuse_netmap("run", "--tap=tap0", *nothing)
        assert done.returncode == 2
        assert "cuse-netmap run [--tap NAME]... [serve's options] [--] PROGRAM" in done.stderr
        assert "required: PROGRAM\n" in done.stderr


@pytest.mark.parametrize("before", [[], ["--"]])
def test_whatever_follows_the_program_is_the_program_s(before: list[str]) -> None:
    options = ["--tap", "tap0", f"--device={MINE}", *before]
    given = ["--tap=mine", "-x", "--ring", "4", "--", "--config", "/none", ""]
    done = cuse_netmap("run", *options, sys.executable, "-c", "import sys; print(sys.argv[1:])", *given)
    assert done.stdout == f"{given}\n"
    assert done.returncode == 0


def test_an_option_that_it_does_not_know_is_not_taken_for_a_program() -> None:
    done = cuse_netmap("run", "--tpa=tap0", "true")
    assert done.returncode == 2
    assert "unrecognized arguments: --tpa=tap0\n" in done.stderr


def test_a_malformed_configuration_names_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_text('[log]\nlevel = "loud"\n')
    done = cuse_netmap("run", f"--config={file}", "--", "true")
    assert done.returncode == 1
    assert f'{file}:2: [log] level: is "loud", must be one of' in done.stderr


# ---- what the program sees, and what nobody else does


def test_the_programs_output_is_its_own() -> None:
    done = run("sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")


def test_the_program_has_the_device_and_the_tap_from_its_first_moment() -> None:
    code = f"from cuse_netmap.client import Port; p = Port('tap0', device='/dev/{MINE}'); print(p.name, len(p.tx))"
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout) == (0, "tap0 1\n")


def test_nobody_else_sees_the_device(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    running = start("sh", "-c", "echo started; exec sleep 30")
    assert MINE not in Path("/proc/self/mountinfo").read_text()
    assert Path("/dev", MINE).stat().st_size == 0, "a plain, empty file that the mount covers elsewhere"
    tried = cuse_netmap("gen", "netmap:tap0", f"--device={MINE}", "-n", "1")
    assert f"/dev/{MINE} is a file that no daemon serves here" in tried.stderr
    said = cuse_netmap("doctor", f"--device={MINE}").stdout
    assert f"/dev/{MINE} is free: an empty file, over which somebody's `cuse-netmap run` has a device" in said
    running.terminate()
    assert running.wait(SOON) == 128 + signal.SIGTERM


HOLDER = """
import sys
from cuse_netmap.client import Port
with Port(sys.argv[1], device=sys.argv[2]):
    print("started", flush=True)
    input()
"""


def test_two_runs_at_the_same_time_have_a_device_each() -> None:
    both = []
    for tap in ("tap0", "tap00"):
        words = [*COMMAND, "run", f"--tap={tap}", f"--device={MINE}", "--", sys.executable, "-c", HOLDER]
        pipe = subprocess.PIPE
        both.append(subprocess.Popen([*words, tap, f"/dev/{MINE}"], stdin=pipe, stdout=pipe, text=True))
    for one in both:
        assert one.stdout
        assert one.stdout.readline() == "started\n"
    for one in both:
        one.communicate("\n", timeout=SOON)
        assert one.returncode == 0


def test_standard_input_is_the_programs() -> None:
    words = [*COMMAND, "run", "--tap=tap0", f"--device={MINE}", "--", "cat"]
    done = subprocess.run(words, input="through\n", capture_output=True, text=True, check=True, timeout=at_most(30))
    assert done.stdout == "through\n"


# ---- signals


def test_ctrl_c_ends_the_program_and_then_the_daemon(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    running = start("sh", "-c", "trap 'echo caught; exit 3' INT; echo started; while :; do sleep 0.05; done")
    os.killpg(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=SOON)
    assert (output, running.returncode) == ("caught\n", 3)


def test_ctrl_c_twice_is_the_programs_affair_too(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    code = """
import signal, time
count = 0
def caught(*_):
    global count
    count += 1
signal.signal(signal.SIGINT, caught)
print("started", flush=True)
while count < 2:
    time.sleep(0.02)
print("twice")
"""
    running = start(sys.executable, "-c", code)
    os.killpg(running.pid, signal.SIGINT)
    time.sleep(0.2)
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGINT)
    output, _ = running.communicate(timeout=SOON)
    assert (output, running.returncode) == ("twice\n", 0)


def test_ctrl_c_before_the_program_started_ends_it_all() -> None:
    """While the daemon is still coming up: no program, no trace, no traceback."""
    for delay in (0, 0.05, 0.15):
        words = [*COMMAND, "run", "--tap=tap0", f"--device={MINE}", "--", "sleep", "30"]
        running = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, process_group=0)
        wait_until(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text)  # the daemon's process
        time.sleep(delay)
        os.killpg(running.pid, signal.SIGINT)
        _, said = running.communicate(timeout=SOON)
        assert running.returncode == 128 + signal.SIGINT, said
        assert "Traceback" not in said
        wait_until(lambda: not commands())


def test_a_daemon_that_is_ready_for_nobody_ends_without_a_traceback() -> None:
    """The run that started it has gone just before: nobody reads that it is ready."""
    (ready_reader, ready), (life, life_writer) = os.pipe(), os.pipe()
    os.close(ready_reader)
    os.close(life_writer)
    words = [*COMMAND, "serve", "--no-ports", f"--device={MINE}", f"--ready-fd={ready}", f"--lifeline-fd={life}"]
    done = subprocess.run(
        words, pass_fds=(ready, life), capture_output=True, text=True, timeout=at_most(30), check=False
    )
    os.close(ready)
    os.close(life)
    assert done.returncode == 0, done.stderr
    assert " is ready: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_sent_to_run_alone_reaches_the_program(
    start: Callable[..., "subprocess.Popen[str]"], number: int
) -> None:
    running = start("sh", "-c", "trap 'exit 5' TERM HUP; echo started; while :; do sleep 0.05; done")
    running.send_signal(number)
    assert running.wait(SOON) == 5


def test_run_killed_outright_leaves_no_daemon(start: Callable[..., "subprocess.Popen[str]"]) -> None:
    running = start("sh", "-c", "echo started; exec cat")
    assert commands()
    running.kill()
    running.wait()
    wait_until(lambda: not commands())  # the lifeline: the daemon ends by itself


def test_a_device_that_dies_under_the_program_does_not_hang_run(
    start: Callable[..., "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    running = start("sh", "-c", f"echo started; until test -e {killed}; do sleep 0.1; done; exit 4")
    daemons = [p.parent.name for p in Path("/proc").glob("[0-9]*/cmdline") if "--lifeline-fd" in _read(p)]
    mine = [int(pid) for pid in daemons if MINE in _read(Path("/proc", pid, "cmdline"))]
    assert len(mine) == 1
    os.kill(mine[0], signal.SIGKILL)
    killed.touch()
    assert running.wait(SOON) == 4
    # A daemon that is killed cannot tidy: the next one does.
    assert run("true").returncode == 0


def _read(path: Path) -> str:
    with suppress(OSError):
        return path.read_text()
    return ""


def test_not_root_is_a_sentence() -> None:
    said = one_sentence(cuse_netmap("run", "--tap=tap0", "--", "true", user=65534))
    assert "run it as root" in said
