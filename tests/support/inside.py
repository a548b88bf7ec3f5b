# SPDX-License-Identifier: BSD-2-Clause
"""libcompat_netmap as tests use it: built, linked to clients, and started with devices that need no hardware."""

import fcntl
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from cuse_netmap.namespace import network_namespace
from tests.support.clients import FLAGS, HERE, INCLUDE
from tests.support.patience import at_most
from tests.support.program import Program
from tests.support.veth import Peer

ROOT = HERE.parent
SANITIZED = "build/sanitize" in os.environ.get("PYTHONPATH", "")
BUILD = ROOT / "build" / ("compat-sanitize" if SANITIZED else "compat")
SANITIZER = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZED else []
# Nothing of it is shared with another process, so that many may run at once.
EAL = ["--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--no-telemetry", "--log-level=lib.eal:error"]


def missing() -> str:
    """Why there is no library here; "" if there can be one."""
    try:
        found = subprocess.run(["pkg-config", "--atleast-version=22.11", "libdpdk"], check=False).returncode == 0
    except FileNotFoundError:
        found = False
    return "" if found else "libdpdk-dev (22.11 or later) is not installed: make compat"


def build() -> None:
    target = "compat-sanitize-files" if SANITIZED else "compat-files"
    # The sanitizers are for our own code, not for make.
    others = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    # Several workers may want it.
    with (ROOT / "compat" / "compat.mk").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        subprocess.run(["make", "--silent", "-j4", target], cwd=ROOT, env=others, check=True, timeout=at_most(600))


def _pkg_config(what: str) -> list[str]:
    out = subprocess.run(["pkg-config", what, "libdpdk"], stdout=subprocess.PIPE, text=True, check=True).stdout
    return [word.replace("-I", "-isystem", 1) if word.startswith("-I") else word for word in out.split()]


def compile_with(source: Path, program: Path, *options: str) -> Path:
    """A client that is linked with the library."""
    if not program.exists():
        command = ["gcc", *FLAGS, *SANITIZER, *options, *_pkg_config("--cflags")]
        command += [f"-I{ROOT / 'compat' / 'include'}", f"-I{INCLUDE}", "-o", str(program), str(source)]
        command += [f"-L{BUILD}", "-lcompat_netmap", f"-Wl,-rpath,{BUILD}", "-lrte_ethdev", "-lrte_mempool"]
        subprocess.run([*command, "-lrte_mbuf", "-lrte_eal"], check=True, timeout=at_most(120))
    return program


def client_inside(name: str, folder: Path, *, age: int = 0) -> Path:
    """tests/clients/NAME.c, or with `age` old/NAME.c, not a line of it changed, with netmap inside."""
    source = HERE / "clients" / ("old" if age else ".") / f"{name}.c"
    options = ["-include", str(HERE / "compat" / "clients" / "inside.h"), *([f"-DNETMAP_OLD_API={age}"] if age else [])]
    return compile_with(source, folder / f"{name}-inside-{age}", *options)


def devices(*devargs: str) -> list[str]:
    return [f"--vdev={one}" for one in devargs]


@contextmanager
def inside(*devargs: str, rings: int = 1, log: str = "") -> Iterator[None]:
    """Clients that start meanwhile have netmap inside, on these devices."""
    before = dict(os.environ)
    os.environ["INSIDE_EAL"] = " ".join([*EAL, *devices(*devargs), *([log] if log else [])])
    os.environ["INSIDE_RINGS"] = str(rings)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Between:
    """Two hosts on two wires that end in a third, where nobody has joined them: b0 to the left, b1 to the right."""

    def __init__(self) -> None:
        with ExitStack() as undo:
            self.left = Peer("c0", "10.9.8.1", "10.9.8.2")
            undo.callback(self.left.close)
            self.right = Peer("c1", "10.9.8.2", "10.9.8.1")
            undo.callback(self.right.close)
            self.middle = Peer("b0", "10.9.8.3", "10.9.8.1")
            undo.callback(self.middle.close)
            for number, host in enumerate((self.left, self.right)):
                peer = f"peer name c{number} netns {host.sleeper.pid}"
                self.middle.run(f"ip link add b{number} type veth {peer}")
                with network_namespace(self.middle.namespace):
                    Path(f"/proc/sys/net/ipv6/conf/b{number}/disable_ipv6").write_text("1")
                self.middle.run(f"ip link set b{number} up")
                host.set_up()
                host.compute_checksums()
            self.undo = undo.pop_all()

    def start(self, program: Path, *arguments: object) -> Program:
        with network_namespace(self.middle.namespace):
            return Program(program, *arguments)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.undo.close()
