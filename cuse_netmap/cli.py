# SPDX-License-Identifier: BSD-2-Clause
"""The command `cuse-netmap`: its subcommands, one table, and their options. What they do is elsewhere."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cuse_netmap import __version__
from cuse_netmap.errors import SetupError

if TYPE_CHECKING:
    from cuse_netmap.config import Source
    from cuse_netmap.daemon import Daemon

USAGE, FAILURE, INTERRUPTED = 2, 1, 128 + signal.SIGINT

# Where each option of serve stands in a configuration.
OVERRIDES = {
    "device": ("device", "name"),
    "door": ("device", "door"),
    "transport": ("device", "transport"),
    "log_level": ("log", "level"),
    "backend": ("interfaces", "backend"),
    "if_size": ("memory", "if_size"),
    "if_num": ("memory", "if_num"),
    "ring_size": ("memory", "ring_size"),
    "ring_num": ("memory", "ring_num"),
    "buf_size": ("memory", "buf_size"),
    "buf_num": ("memory", "buf_num"),
}


@dataclass(frozen=True)
class Command:
    """A subcommand: what it says of itself, its options, and what it does with them."""

    summary: str
    options: Callable[[argparse.ArgumentParser], None]
    call: Callable[[argparse.Namespace], int]


def serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="the configuration, in TOML")
    parser.add_argument("--tap", action="append", default=[], metavar="NAME", help="serve a TAP device of this name")
    parser.add_argument("--no-ports", action="store_true", help="only what --tap names, whatever the configuration has")
    parser.add_argument("--device", metavar="NAME", help="serve /dev/NAME (netmap)")
    parser.add_argument("--door", help="auto, fuse or cuse")
    parser.add_argument("--transport", help="auto, uring or classic")
    parser.add_argument(
        "--backend", metavar="NAME", help="for the kernel's interfaces: auto, xdp, raw, or one of another package"
    )
    parser.add_argument("--log-level", help="debug, info, warning or error")
    for key in ("if-size", "if-num", "ring-size", "ring-num", "buf-size", "buf-num"):
        parser.add_argument(f"--{key}", type=int, metavar="N", help=f"[memory] {key.replace('-', '_')}")
    parser.add_argument("--private", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--state", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--lifeline-fd", type=int, help=argparse.SUPPRESS)


def source(given: argparse.Namespace) -> "Source":
    """The configuration that the options ask for."""
    from cuse_netmap.config import Source

    overrides: dict[tuple[str, ...], object] = {
        place: value for option, place in OVERRIDES.items() if (value := getattr(given, option)) is not None
    }
    if given.no_ports:
        overrides["ports",] = {}
    for name in given.tap:
        overrides["ports", name, "backend"] = "tap"
    return Source(given.config, overrides)


def serve(given: argparse.Namespace) -> int:
    from cuse_netmap.daemon import Daemon

    def announce(daemon: Daemon) -> None:
        if given.ready_fd is not None:
            with suppress(BrokenPipeError):  # whoever started us has gone already; the lifeline will say so
                os.write(given.ready_fd, daemon.doors.mmap.encode())
            os.close(given.ready_fd)
        else:
            say_ready(daemon)

    return Daemon(
        source(given), announce=announce, lifeline=given.lifeline_fd, private=given.private, state=given.state
    ).run()


def say_ready(daemon: "Daemon") -> None:
    """On standard output: what is served, and something to try."""
    print(f"cuse-netmap: {daemon.path} is ready ({daemon.doors.description})")
    for name, interface in daemon.interfaces.items():
        print(f"  netmap:{name}  {interface.description}")
    if daemon.interfaces:
        me = shlex.quote(str(Path(sys.argv[0]).resolve()))
        where = "" if daemon.path.name == "netmap" else f" --device={daemon.path.name}"
        command = f"{me} gen netmap:{next(iter(daemon.interfaces))}{where} -n 1000000"
        print(f"Try in a second terminal, as root:  {command}")
    print("ctrl-C ends it.", flush=True)


def run_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "cuse-netmap run [--tap NAME]... [serve's options] [--] PROGRAM [ARGUMENT]..."
    serve_options(parser)
    # From the program's name on nothing is ours, options neither, nor what would abbreviate two of ours.
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="PROGRAM", help=argparse.SUPPRESS)


def run(given: argparse.Namespace) -> int:
    from cuse_netmap.run import run as run_program

    if given.program[:1] == ["--"]:
        del given.program[0]
    if not given.program:
        given.parser.error("the following arguments are required: PROGRAM")
    if given.config is None:
        given.no_ports = True  # two programs side by side must not both want the default's tap0
    if given.log_level is None and given.config is None:
        given.log_level = "warning"  # the terminal is the program's
    return run_program(source(given).load(), _spelled(given), given.program)


def _spelled(given: argparse.Namespace) -> list[str]:
    """The same options again, for serve."""
    words = ["--no-ports"] if given.no_ports else []
    words += [f"--tap={name}" for name in given.tap]
    for option in ("config", *OVERRIDES):
        value = getattr(given, option)
        if value is not None:
            words.append(f"--{option.replace('_', '-')}={value}")
    return words


def doctor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="netmap", metavar="NAME", help="look at /dev/NAME (netmap)")


def doctor(given: argparse.Namespace) -> int:
    from cuse_netmap.doctor import report

    return report(given.device)


def status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", metavar="NAME", help="of /dev/NAME (netmap, or the device of `run` around us)")
    parser.add_argument("--json", action="store_true", help="everything there is, for programs")


def status(given: argparse.Namespace) -> int:
    from cuse_netmap.status import status as show

    return show(given.device, as_json=given.json)


def cleanup_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="netmap", metavar="NAME", help="of /dev/NAME (netmap)")
    parser.add_argument("--unblock", action="store_true", help="also interfaces that on_exit = block keeps cut off")


def cleanup(given: argparse.Namespace) -> int:
    from cuse_netmap import device, state
    from cuse_netmap.backends import claims

    claims.clean_up(blocks=given.unblock)
    device.clean_up(Path("/dev", given.device))
    state.clean_up(state.state_path(given.device))
    return 0


def preload_options(parser: argparse.ArgumentParser) -> None:
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--enable", action="store_true", help="every program started from now on can map it")
    choice.add_argument("--disable", action="store_true", help="only those that cuse-netmap starts")
    choice.add_argument("--status", action="store_true", help="say which")


def preload(given: argparse.Namespace) -> int:
    from cuse_netmap import preload as helper

    if not given.status:
        helper.switch(on=given.enable)
    print(f"the helper is {'on' if helper.enabled() else 'off'} for the whole system")
    return 0


COMMANDS = {
    "serve": Command("serve /dev/netmap in the foreground", serve_options, serve),
    "run": Command("run one program with a /dev/netmap of its own", run_options, run),
    "status": Command("say what a daemon serves, to whom, and how much crosses", status_options, status),
    "doctor": Command("say what this machine can do, and what would mend the rest", doctor_options, doctor),
    "preload": Command("let every program of the system map a CUSE device", preload_options, preload),
    "cleanup": Command("remove what a daemon that was killed has left behind", cleanup_options, cleanup),
}

# Ordinary netmap programs, in C, which read their own options.
PROGRAMS = {
    "gen": "send frames on a port",
    "sink": "count the frames that arrive on a port",
    "reflect": "send every frame back on the port it came from",
}


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="cuse-netmap",
        description="/dev/netmap served by an ordinary program: netmap applications run without the kernel module.",
        epilog="Programs to try it with (-h tells their options): "
        + "; ".join(f"{name}: {what}" for name, what in PROGRAMS.items())
        + ".",
    )
    top.add_argument("--version", action="version", version=f"cuse-netmap {__version__}")
    subcommands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        one = subcommands.add_parser(name, help=command.summary, description=command.summary, allow_abbrev=False)
        command.options(one)
        one.set_defaults(parser=one)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0, 1 with a sentence on standard error, 2 for a wrong command line."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if arguments and arguments[0] in PROGRAMS:
        return exec_program(arguments)
    given, unknown = parser().parse_known_args(arguments)
    if unknown:
        given.parser.error(f"unrecognized arguments: {' '.join(unknown)}")  # with the command's usage, not ours
    from cuse_netmap.config import ConfigError, OptionError

    try:
        return COMMANDS[given.command].call(given)
    except OptionError as error:
        sys.stderr.write(f"cuse-netmap: {error}\n")
        return USAGE
    except (SetupError, ConfigError) as error:
        sys.stderr.write(f"cuse-netmap: {error}\n")
        return FAILURE
    except KeyboardInterrupt:  # before anybody has said what else a ctrl-C means
        return INTERRUPTED


def exec_program(arguments: Sequence[str]) -> int:
    from cuse_netmap.device import helper_environment, program

    path = program("netmap-traffic")
    environment = dict(os.environ)
    with suppress(SetupError):  # most kernels map without the helper; where not, the program says what to do
        environment = helper_environment()
    try:
        os.execve(path, ["cuse-netmap", *arguments], environment)  # noqa: S606 - it becomes the program
    except OSError as error:
        sys.stderr.write(f"cuse-netmap: {path}: {error.strerror}: run `make build`\n")
        return FAILURE
