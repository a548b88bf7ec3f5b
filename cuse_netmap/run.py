# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap run`: one program with a daemon and a /dev/netmap of its own, which nobody else sees."""

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cuse_netmap.config import Config
from cuse_netmap.device import helper_environment
from cuse_netmap.errors import SetupError
from cuse_netmap.namespace import mounted_at, unmount, unshare_mounts
from cuse_netmap.state import STATE_VARIABLE, clean_up, private_path

READY_SECONDS = 30
SERVICE_VARIABLES = {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}
STOP_SECONDS = 5
# A terminal sends these to the program too; the others we pass on.
TERMINAL_SIGNALS = (signal.SIGINT, signal.SIGQUIT)
OTHER_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
NOT_EXECUTABLE, NOT_FOUND, SIGNALLED = 126, 127, 128  # as a shell reports a command that could not run, or was killed


class _StoppedError(Exception):
    """A signal came before there was a program to get it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(config: Config, serve_options: Sequence[str], command: Sequence[str]) -> int:
    """The exit status of the command. SetupError if the daemon does not start."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise _StoppedError(number)

    node = Path("/dev", config.device.name)
    try:
        _handle_signals(stop)
        unshare_mounts()
        while mounted_at(node):
            unmount(node)  # everybody's device: here it gives way to ours
        state = private_path(config.device.name)
        try:
            with _daemon([*serve_options, f"--state={state}"]) as mmap:
                return _program(command, _environment(mmap, state))
        finally:
            with suppress(SetupError):
                clean_up(state)  # which our daemon has done, unless it was killed
    except _StoppedError as stopped:
        return SIGNALLED + stopped.number


def _handle_signals(handler: Callable[[int, FrameType | None], None]) -> None:
    """A handler, unlike SIG_IGN, is not inherited by the program. What whoever started us ignores stays ignored."""
    for number in (*TERMINAL_SIGNALS, *OTHER_SIGNALS):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def _daemon(options: Sequence[str]) -> Iterator[str]:
    """A daemon in a session of its own (ctrl-C is the program's), which ends with us however we end.

    Gives how programs map its memory: "passthrough" or "helper".
    """
    ready_reader, ready_writer = os.pipe()
    life_reader, life_writer = os.pipe()
    command = [sys.executable, "-m", "cuse_netmap", "serve", "--private", *options]
    daemon = subprocess.Popen(
        [*command, "--ready-fd", str(ready_writer), "--lifeline-fd", str(life_reader)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(ready_writer, life_reader),
        # What a service manager gave us is for us alone.
        env={key: value for key, value in os.environ.items() if key not in SERVICE_VARIABLES},
        start_new_session=True,
    )
    os.close(ready_writer)
    os.close(life_reader)
    try:
        ready, _, _ = select.select([ready_reader], [], [], READY_SECONDS)
        mmap = os.read(ready_reader, 64).decode() if ready else ""
        os.close(ready_reader)
        if not mmap:
            raise SetupError(f"the daemon did not start: {'its reason stands above' if ready else 'it hangs'}")
        yield mmap
    finally:
        os.close(life_writer)
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _environment(mmap: str, state: Path) -> dict[str, str]:
    """The program's: how it maps the memory, and where its daemon's state files are, if there are any."""
    environment = {**(helper_environment() if mmap == "helper" else os.environ)}
    environment.pop(STATE_VARIABLE, None)
    if mounted_at(state):
        environment[STATE_VARIABLE] = str(state)
    return environment


def _program(command: Sequence[str], environment: dict[str, str]) -> int:
    program: subprocess.Popen[bytes] | None = None
    early: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if program is None:
            early.append(number)
        elif number in OTHER_SIGNALS:
            with suppress(ProcessLookupError):
                program.send_signal(number)

    _handle_signals(handle)
    try:
        program = subprocess.Popen(command, env=environment)
    except FileNotFoundError:
        sys.stderr.write(f"cuse-netmap: {command[0]}: there is no such program\n")
        return NOT_FOUND
    except OSError as error:
        sys.stderr.write(f"cuse-netmap: {command[0]}: {error.strerror}\n")
        return NOT_EXECUTABLE
    for number in early:
        program.send_signal(number)
    status = program.wait()
    return status if status >= 0 else SIGNALLED - status
