# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap doctor`: what this machine can do, found by trying, and the command that mends what it cannot."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuse_netmap import device
from cuse_netmap.backends import dpdk
from cuse_netmap.backends.advice import advice
from cuse_netmap.device import Behind
from cuse_netmap.errors import SetupError, remedy
from cuse_netmap.helper import FOLDER
from cuse_netmap.processes import SELF_TEST
from cuse_netmap.state import find_fusepy, key_of

TRY_SECONDS = 60
HANGS = f"no answer within {TRY_SECONDS} s"
UNHANG = "try again on a quieter machine; cuse-netmap serve --log-level=debug says where it stops"


@dataclass(frozen=True)
class Finding:
    """One line of the report: `essential` ones that fail make the exit status 1."""

    subject: str
    good: bool
    what: str
    remedy: str = ""
    essential: bool = False


def report(name: str) -> int:
    """Prints the findings; 0 if a device can be served here, else 1."""
    failed = False
    for check in CHECKS:
        for finding in check(Path("/dev") / name):
            print(f"{'ok  ' if finding.good else 'no  '} {finding.subject:<18} {finding.what}")
            if finding.remedy and not finding.good:
                print(f"{'':23} mend it: {finding.remedy}")
            failed |= finding.essential and not finding.good
    print("A device can be served here." if not failed else "No device can be served here yet.")
    return int(failed)


def _system(_path: Path) -> Iterator[Finding]:
    yield Finding("kernel", True, platform.release())
    root = os.geteuid() == 0
    yield Finding("user", root, "root" if root else "not root", "sudo cuse-netmap doctor", essential=True)


def _node(path: Path) -> Iterator[Finding]:
    if Path("/sys/class/misc", path.name).exists():
        yield Finding("device", False, f"the netmap kernel module owns {path}", "rmmod netmap", essential=True)
    elif Path("/sys/class/cuse", path.name).exists():
        yield Finding("device", True, f"{path} is served by a daemon")
    elif who := device.behind(path):
        advised = {
            Behind.SILENT: "end that daemon, then cuse-netmap cleanup",
            Behind.DEAD: "start it again (cuse-netmap serve), or cuse-netmap cleanup",
            Behind.OTHER: f"umount {path}, or use --device NAME",
        }.get(who, "")
        yield Finding("device", not advised, f"{path} is served by {who.value}", advised)
    else:
        yield _free(path)


def _free(path: Path) -> Finding:
    """Where no daemon serves."""
    try:
        device.must_be_ours(path, path.lstat())
        over = "somebody's `cuse-netmap run` has a device of its own" if device.in_use(path) else "nobody has a device"
    except FileNotFoundError:
        return Finding("device", True, f"{path} is free")
    except SetupError as error:
        return Finding("device", False, str(error), essential=True)
    except OSError as error:
        return Finding("device", False, f"{path}: {error.strerror}{remedy(error)}")
    return Finding("device", True, f"{path} is free: an empty file, over which {over}")


def _doors(_path: Path) -> Iterator[Finding]:
    """Tries each door, and each transport of the FUSE door; one door that works is essential."""
    if os.geteuid() != 0:
        return
    trials = {
        "fuse door, classic": (["--door=fuse", "--transport=classic"], "Linux 6.9 or later has FUSE passthrough"),
        "fuse door, uring": (["--door=fuse", "--transport=uring"], "Linux 6.14 or later, with the switch below on"),
        "cuse door": (["--door=cuse"], "modprobe cuse, or a kernel with CONFIG_CUSE"),
    }
    works = {}
    for subject, (options, wanted) in trials.items():
        failure = _try(options)
        works[subject] = not failure
        what = failure or "a null port was opened, mapped, synced and polled"
        yield Finding(subject, not failure, what, UNHANG if failure == HANGS else wanted)
    if works["fuse door, classic"]:
        yield Finding("mmap", True, "works for every program, by FUSE passthrough")
    elif works["cuse door"]:
        what = "works through the helper: cuse-netmap run PROGRAM; cuse-netmap preload --enable for the whole system"
        yield Finding("mmap", True, what)
    else:
        yield Finding("mmap", False, "no door works", "either of the above", essential=True)


def _try(options: list[str]) -> str:
    """Runs the self-test through a private daemon; "" or why it failed."""
    me = [sys.executable, "-m", "cuse_netmap", "run", "--device=netmap-doctor", "--log-level=error"]
    command = [*me, *options, "--", device.program(SELF_TEST), "/dev/netmap-doctor"]
    try:
        trial = subprocess.run(command, capture_output=True, text=True, timeout=TRY_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return HANGS
    if trial.returncode == 0:
        return ""
    lines = (trial.stderr + trial.stdout).strip().splitlines()
    return lines[0].removeprefix("cuse-netmap: ") if lines else f"status {trial.returncode}"


def _uring_switch(_path: Path) -> Iterator[Finding]:
    switch = device.URING_SWITCH
    if switch.exists():
        state = "on" if switch.read_text().strip() == "Y" else "off; serve turns it on while it starts, and off again"
        yield Finding("io_uring switch", True, f"{switch} is {state}")
    else:
        yield Finding("io_uring switch", False, "this kernel's FUSE knows no io_uring", "Linux 6.14 or later")


def _backends(_path: Path) -> Iterator[Finding]:
    there = Path("/dev/net/tun").exists()
    what = "netmap:NAME can be the wire of a TAP device that the daemon makes and owns" if there else "no /dev/net/tun"
    yield Finding("tap backend", there, what, "modprobe tun")
    missing = dpdk.unavailable()
    yield Finding("dpdk backend", not missing, missing or "it is there, to be configured: [ports.NAME] backend = dpdk")


def _interfaces(_path: Path) -> Iterator[Finding]:
    """Those that programs could take, with what netmap leaves to whoever runs them; not the wires that daemons made."""
    wires = {name for folder in FOLDER.glob("*") for name in _wires(folder)}
    for one in advice():
        if one.name in wires:
            continue
        remarks = "; ".join(one.remarks) or "nothing to remark"
        what = f"programs cannot take it: {one.taken}" if one.taken else f"netmap:{one.name}: {remarks}"
        yield Finding(f"interface {one.name}", not one.taken, what)


def _wires(state: Path) -> list[str]:
    """The TAP devices of the daemon with these state files."""
    if device.behind(state) is not Behind.ALIVE:
        return []
    with suppress(OSError):  # it ends just now, or shows us nothing
        return [key_of(port.name) for port in (state / "ports").iterdir() if (port / "backend").read_text() == "tap\n"]
    return []


def _state(_path: Path) -> Iterator[Finding]:
    try:
        find_fusepy()
    except SetupError as error:
        yield Finding("state files", False, str(error), "apt install python3-fusepy")
    else:
        yield Finding("state files", True, "libfuse and fusepy are there")


def _ptrace(_path: Path) -> Iterator[Finding]:
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    level = int(scope.read_text()) if scope.exists() else 0
    what = f"ptrace_scope is {level}: requests with pointers can{'not' if level == 3 else ''} be followed"
    yield Finding("program memory", level < 3, what, "reboot without kernel.yama.ptrace_scope=3", essential=True)


CHECKS: tuple[Callable[[Path], Iterator[Finding]], ...] = (
    _system,
    _node,
    _doors,
    _uring_switch,
    _backends,
    _interfaces,
    _state,
    _ptrace,
)
