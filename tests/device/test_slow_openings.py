# SPDX-License-Identifier: BSD-2-Clause
"""An interface that takes its time to open holds up nobody but those who want it: no clock decides, the test does."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest

from cuse_netmap.backends import claims
from cuse_netmap.client import Port
from cuse_netmap.control.requests import Mode, Register
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.packages import on_path
from tests.support.patience import at_most
from tests.support.program import Program
from tests.support.state import STATE, number, write
from tests.support.steps import refused, wait_until
from tests.support.veth import Wire

CONFIG = """
[interfaces]
backend = "gated"
[ports.nil]
backend = "null"
"""
BUILD = at_most(150)  # seconds for pip on a machine with other work

pytestmark = pytest.mark.timeout(BUILD)


class Gate:
    """What the gated backend waits at before it opens the interface of that name."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        os.mkfifo(self.path)
        self.fd: int | None = None

    def wait_for_opening(self) -> None:
        """Until somebody waits at it."""
        wait_until(self._somebody_waits)

    def _somebody_waits(self) -> bool:
        try:
            self.fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return False
        return True

    def open(self) -> None:
        """For all, from now on."""
        if self.fd is not None:
            self.path.unlink()
            os.close(self.fd)
            self.fd = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.open()


@pytest.fixture
def gates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "gates"
    folder.mkdir()
    monkeypatch.setenv("NETMAP_GATES", str(folder))
    return folder


@pytest.fixture
def served(gates: Path, other_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    """A daemon whose interfaces are opened by the gated backend."""
    del gates
    monkeypatch.setenv("PYTHONPATH", on_path(other_package))
    config = tmp_path / "gated.toml"
    config.write_text(CONFIG)
    with Daemon(tmp_path / "log", f"--config={config}") as daemon:
        yield daemon


@pytest.fixture
def own(served: Daemon) -> Iterator[Wire]:
    """Two hosts of a test's own, which is a program on the near one."""
    del served
    with Wire() as made, network_namespace(made.near.namespace):
        yield made


@pytest.fixture
def hold(own: Wire, client_program: Callable[..., Path]) -> Callable[[], Program]:
    """Starts a program that opens v0, and says "ready" once it has it."""
    del own
    program = client_program("hold")
    return lambda: Program(program, "poll", "v0")


def in_an_ioctl(program: Program) -> bool:
    number = Path(f"/proc/{program.pid}/syscall").read_text().split()[0]
    return number in ("16", "29")  # of x86-64; of arm64 and riscv64


def test_memory_is_made_anew_once_an_interface_knows_that_it_was_left(gates: Path, own: Wire, served: Daemon) -> None:
    """ABI.md 14, when the region is not in use: until it is told, a device may read what is about to be unmapped."""
    del own
    buffers = number("memory/1/buf/total")
    with Port("v0") as port:
        assert write("parameters/buf_num", 40000) == 0
        gate = Gate(gates, "v0.bound")
        assert port.granted.memsize == number("memory/1/size")
    with gate:
        gate.wait_for_opening()
        served.wait_for_log("v0 released")
        assert number("memory/1/buf/total") == buffers
        assert write("parameters/buf_num", 50000) == 0
        assert number("memory/1/buf/total") == buffers
    wait_until(lambda: number("memory/1/buf/total") == 50000)
    with Port("v0") as port:
        assert port.granted.memsize == number("memory/1/size")


def claims_in(wire: Wire) -> list[Path]:
    """What the daemon still has of the near host's interfaces."""
    return list(claims.FOLDER.glob(f"{os.fstat(wire.near.namespace).st_ino}-*"))


def test_other_ports_open_while_an_opening_is_held(gates: Path, hold: Callable[[], Program]) -> None:
    """Issue C, DESIGN.md section 3: slow work runs in workers, so that one REGISTER does not delay all."""
    with Gate(gates, "v0") as gate, hold() as program:
        gate.wait_for_opening()
        with Port("nil") as port, Port("vale0:a"):
            port.txsync()
        assert refused("nobody") == errno.ENXIO
        assert not program.said("ready")
        gate.open()
        program.wait_for("ready")


def test_another_interface_opens_and_closes_while_an_opening_is_held(
    own: Wire, gates: Path, hold: Callable[[], Program]
) -> None:
    """Issue C: neither opening nor steering nor closing of one waits for another's."""
    own.near.run("ip link add w0 type veth peer name w1")
    with Gate(gates, "v0") as gate, hold():
        gate.wait_for_opening()
        for _ in range(2):
            with Port("w0") as port:
                port.txsync()


def test_two_who_open_the_same_interface_at_once_share_it(
    served: Daemon, gates: Path, hold: Callable[[], Program]
) -> None:
    """ABI.md 7: files may share a port's rings; the second waits for what the first has begun."""
    with Gate(gates, "v0") as gate, hold() as one, hold() as other:
        gate.wait_for_opening()
        gate.open()
        one.wait_for("ready")
        other.wait_for("ready")
        assert served.log.count("netmap:v0 is raw") == 1


def test_a_program_killed_while_its_interface_opens_is_gone_at_once_and_leaves_nothing(
    own: Wire, served: Daemon, gates: Path, hold: Callable[[], Program]
) -> None:
    """DESIGN.md section 2: no unkillable clients; ABI.md 15: after the last close all is as before."""
    before = own.near.settings()
    with Gate(gates, "v0") as gate, hold() as program:
        gate.wait_for_opening()
        program.kill()
        gate.open()
    served.wait_for_log("netmap:v0 is raw")
    wait_until(lambda: not claims_in(own))
    assert own.near.settings() == before
    assert own.near.pings()
    with Port("v0") as port:
        port.txsync()


def test_one_who_waits_for_another_s_opening_can_be_killed(gates: Path, hold: Callable[[], Program]) -> None:
    """DESIGN.md section 2: and the other gets the interface all the same."""
    with Gate(gates, "v0") as gate, hold() as first:
        gate.wait_for_opening()
        with hold() as second:
            wait_until(lambda: in_an_ioctl(second))
            second.kill()
        gate.open()
        first.wait_for("ready")


def test_the_one_who_waits_gets_the_interface_though_the_one_who_opens_is_killed(
    gates: Path, hold: Callable[[], Program]
) -> None:
    """DESIGN.md section 3: a result is everybody's."""
    with Gate(gates, "v0") as gate, hold() as first:
        gate.wait_for_opening()
        with hold() as second:
            wait_until(lambda: in_an_ioctl(second))
            first.kill()
            gate.open()
            second.wait_for("ready")


def test_who_leaves_while_the_host_is_told_of_another_leaving_is_not_forgotten(own: Wire, gates: Path) -> None:
    """ABI.md 15: after the last close all is as before, whatever is being done when it comes."""
    with Port("v0", Register(mode=Mode.SW)) as last:
        first = Port("v0")
        with Gate(gates, "v0.bound") as gate:
            first.close()
            gate.wait_for_opening()
            last.close()
            wait_until(lambda: not list(STATE.glob("clients/*")))
            gate.open()
    wait_until(lambda: not claims_in(own))
    with Port("v0") as port:
        port.txsync()


def test_other_programs_go_on_while_a_host_is_told(own: Wire, gates: Path) -> None:
    """DESIGN.md section 3: steering is slow work too."""
    own.near.run("ip link add w0 type veth peer name w1")
    port = Port("v0")
    with Gate(gates, "v0.bound") as gate:
        port.close()
        gate.wait_for_opening()
        for name in ("w0", "nil"):
            with Port(name) as other:
                other.txsync()


def test_an_interface_deleted_while_it_opens_is_enxio(
    own: Wire, served: Daemon, gates: Path, hold: Callable[[], Program]
) -> None:
    """ABI.md 7: there is no such interface; and a new one of that name opens."""
    with Gate(gates, "v0") as gate, hold() as program:
        gate.wait_for_opening()
        own.near.run("ip link del v0")
        gate.open()
        assert program.wait() == 2
    served.wait_for_log("(ENXIO)")
    own.near.run("ip link add v0 type veth peer name v2")
    with Port("v0") as port:
        port.txsync()


def test_the_daemon_ends_while_an_opening_is_held(served: Daemon, gates: Path, hold: Callable[[], Program]) -> None:
    """Issue A: a stop in the middle of anything: programs get an error, and nothing hangs."""
    with Gate(gates, "v0") as gate, hold() as program:
        gate.wait_for_opening()
        assert served.stop() == 0
        assert program.wait() == 2
