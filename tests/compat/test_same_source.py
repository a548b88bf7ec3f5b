# SPDX-License-Identifier: BSD-2-Clause
"""One source, compiled twice: against /dev/netmap over the dpdk backend, and with netmap inside.

Both programs do the same on the same wire.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cuse_netmap.namespace import network_namespace
from tests.support import dpdk
from tests.support.host import Host, frame, ours
from tests.support.inside import inside
from tests.support.program import Program
from tests.support.stream import Stream
from tests.support.veth import Wire

pytestmark = dpdk.needs_dpdk

# Where a program finds netmap: on the device, or inside itself; there the wire is DPDK's port 0.
PLACES = ["device", "inside"]
TODAY, API_3 = 0, 3
AGES = {TODAY: "today", API_3: "api3"}
COUNT = 2000
BATCH = 20  # frames: what a veth's queue takes at once
Compile = Callable[..., Path]


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire() as joined:
        joined.near.run("ip link set v0 arp off")  # or hosts that know each other ask again, some seconds later
        joined.far.run("ip link set v1 arp off")
        yield joined


@pytest.fixture
def far(wire: Wire) -> Iterator[Host]:
    with network_namespace(wire.far.namespace):
        opened = Host("v1")
    with opened:
        yield opened


@contextmanager
def place(where: str, wire: Wire, folder: Path) -> Iterator[str]:
    """Programs that start meanwhile, in the near namespace, find v0 under this name."""
    if where == "device":
        with dpdk.served(
            folder, dpdk.configuration(dpdk.port("wan0", "net_af_packet0,iface=v0,framecnt=4096")), wire.near
        ):
            yield "wan0"
    else:
        with inside("net_af_packet0,iface=v0,framecnt=4096"), network_namespace(wire.near.namespace):
            yield "0"


@pytest.fixture
def compiled(client_program: Compile, client_inside: Compile) -> Compile:
    """Compiles a client for a place: `compiled(where, name, age=...)`."""

    def path(where: str, name: str, *, age: int = TODAY) -> Path:
        return (client_program if where == "device" else client_inside)(name, age=age)

    return path


def numbered(number: int, length: int) -> bytes:
    """A frame as tests/clients/numbered.h makes it."""
    header = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5\0\0" + number.to_bytes(8, "little")
    return header + bytes((number * 7 + at) & 255 for at in range(len(header), length))


@pytest.mark.parametrize("where", PLACES)
def test_a_program_with_nm_open_echoes_frames(
    where: str, compiled: Compile, wire: Wire, far: Host, tmp_path: Path
) -> None:
    """Issue: "the same netmap client source runs against /dev/netmap ... and against the library"."""
    program = compiled(where, "echo")
    sent = [frame(number, 600) for number in range(COUNT)]
    with place(where, wire, tmp_path) as port, Program(program, f"netmap:{port}", 600, COUNT) as echo:
        echo.wait_for("ready")
        for start in range(0, COUNT, BATCH):
            far.send(*sent[start : start + BATCH])
            assert far.take(BATCH) == [b"\x02" + one[1:] for one in sent[start : start + BATCH]]
        assert echo.wait() == 0


@pytest.mark.parametrize("length", [60, 1514])
@pytest.mark.parametrize("age", AGES, ids=AGES.get)
@pytest.mark.parametrize("where", PLACES)
def test_what_a_program_sends_arrives(
    where: str, age: int, length: int, compiled: Compile, wire: Wire, far: Host, tmp_path: Path
) -> None:
    """Issue: "compiles unchanged" and runs, in rings of API 3 and of today: every frame once, in order, unharmed."""
    program = compiled(where, "stream", age=age)
    options = ["-n", COUNT, "-l", length, *(["-x"] if age else []), "-p"]
    with place(where, wire, tmp_path) as port, Stream(program, "send", port, *options) as stream:
        heard = ours(far.take(COUNT))
        assert stream.report().frames == COUNT
    assert heard == [numbered(number, length) for number in range(COUNT)]


@pytest.mark.parametrize("way", ["-p", ""], ids=["poll", "ioctl"])
@pytest.mark.parametrize("where", PLACES)
def test_what_comes_a_program_of_api_3_receives(
    where: str, way: str, compiled: Compile, wire: Wire, far: Host, tmp_path: Path
) -> None:
    """Issue: the same, and slots that it keeps for a while (`reserved`)."""
    program = compiled(where, "stream", age=API_3)
    options = ["-l", 1000, "-k", 16, *([way] if way else [])]
    with place(where, wire, tmp_path) as port, Stream(program, "receive", port, *options) as stream:
        for start in range(0, COUNT, BATCH):
            far.send(*(numbered(number, 1000) for number in range(start, start + BATCH)))
        report = stream.end()
    assert report.frames == COUNT
    assert report.clean


@pytest.mark.parametrize("where", PLACES)
def test_single_rings_of_an_old_program(where: str, compiled: Compile, wire: Wire, far: Host, tmp_path: Path) -> None:
    """Issue: "single rings": NETMAP_HW_RING in nr_ringid."""
    program = compiled(where, "stream", age=API_3)
    with place(where, wire, tmp_path) as port, Stream(program, "send", port, "-n", 100, "-r", 0x4000) as stream:
        assert ours(far.take(100)) == [numbered(number, 60) for number in range(100)]
        assert stream.report().frames == 100
