# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap run`: one program with a daemon and a /dev/netmap of its own, which nobody else sees."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from cuse_netmap.config import Config
from cuse_netmap.errors import SetupError
from cuse_netmap.namespace import mounted_at, unmount, unshare_mounts

READY_SECONDS = 30
STOP_SECONDS = 5
NOT_EXECUTABLE, NOT_FOUND, SIGNALLED = 126, 127, 128  # as a shell reports a command that could not run, or was killed


def run(config: Config, serve_options: Sequence[str], command: Sequence[str]) -> int:
    """The exit status of the command. SetupError if the daemon does not start."""
    unshare_mounts()
    node = Path("/dev", config.device.name)
    while mounted_at(node):
        unmount(node)  # everybody's device: here it gives way to ours
    with _daemon(serve_options):
        return _program(command)


@contextmanager
def _daemon(options: Sequence[str]) -> Iterator[None]:
    """A daemon in a session of its own (ctrl-C is the program's), which ends with us however we end."""
    ready_reader, ready_writer = os.pipe()
    life_reader, life_writer = os.pipe()
    command = [sys.executable, "-m", "cuse_netmap", "serve", *options]
    daemon = subprocess.Popen(
        [*command, "--ready-fd", str(ready_writer), "--lifeline-fd", str(life_reader)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(ready_writer, life_reader),
        start_new_session=True,
    )
    os.close(ready_writer)
    os.close(life_reader)
    try:
        if not os.read(ready_reader, 1):
            daemon.wait()
            raise SetupError("the daemon did not start: its reason stands above")
        yield
    finally:
        os.close(life_writer)
        try:
            daemon.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()


def _program(command: Sequence[str]) -> int:
    try:
        program = subprocess.Popen(command)
    except FileNotFoundError:
        sys.stderr.write(f"cuse-netmap: {command[0]}: there is no such program\n")
        return NOT_FOUND
    except OSError as error:
        sys.stderr.write(f"cuse-netmap: {command[0]}: {error.strerror}\n")
        return NOT_EXECUTABLE

    def forward(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            program.send_signal(number)

    # A terminal's ctrl-C reaches the program by itself; what is sent to us alone we pass on.
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    status = program.wait()
    return status if status >= 0 else SIGNALLED - status
