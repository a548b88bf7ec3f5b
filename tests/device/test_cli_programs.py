# SPDX-License-Identifier: BSD-2-Clause
"""The other commands: gen, sink and reflect on real wires, doctor, and the headers as a developer installs them."""

import ctypes
import fcntl
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from cuse_netmap.backends.advice import advice
from cuse_netmap.backends.ethtool import SIOCETHTOOL
from cuse_netmap.client import Port
from cuse_netmap.preload import LIST
from tests.support.command import COMMAND, NOBODY, cuse_netmap, one_sentence
from tests.support.daemon import Daemon
from tests.support.host import Host, frame, ip, tc
from tests.support.patience import at_most
from tests.support.ways import kernel_version

ROOT = Path(__file__).parents[2]
PACKAGE = Path(str(files("cuse_netmap")))
ETHTOOL_SGRO = 0x2C
Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(autouse=True)
def served(daemon: Daemon) -> Daemon:
    return daemon


@pytest.fixture
def started(served: Daemon) -> Iterator[Start]:
    """Starts a netmap program; it holds its port."""
    programs: list[subprocess.Popen[str]] = []

    def start(*command: str | Path) -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        programs.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True))
        served.wait_for_log(f"registered by pid {programs[-1].pid} ", at_most(10))
        return programs[-1]

    yield start
    for one in programs:
        one.kill()
        one.communicate()


def test_gen_sends_what_it_says_and_ends_when_the_last_frame_has_left() -> None:
    with Host("tap0") as host:
        host.socket.bind(("tap0", 0x0800))
        done = cuse_netmap("gen", "netmap:tap0", "-q", "-n", "2000", "-l", "100")
        assert re.fullmatch(r"sent 2000 packets, 200000 bytes, [\d.]+ seconds, \d+ pps\n", done.stdout)
        assert (done.returncode, done.stderr) == (0, "")
        received = host.take(2000)
    assert {len(one) for one in received} == {100}
    packet = Ether(received[7])
    assert (packet[IP].src, packet[IP].dst, packet[UDP].dport) == ("198.18.0.1", "198.18.0.2", 9)
    sequence = [int.from_bytes(one[50:58]) for one in received]
    assert sequence == list(range(2000))


def test_sink_counts_what_gen_on_another_wire_sends_through_the_host(started: Start) -> None:
    """From gen -> tap1 -> the host redirects -> tap0 -> sink -n, which ends by itself."""
    tc("qdisc", "add", "dev", "tap1", "ingress")
    everything = ("u32", "match", "u32", "0", "0")
    tc(
        "filter",
        "add",
        "dev",
        "tap1",
        "parent",
        "ffff:",
        *everything,
        "action",
        "mirred",
        "egress",
        "redirect",
        "dev",
        "tap0",
    )
    try:
        sink = started(*COMMAND, "sink", "netmap:tap0", "-q", "-n", "5000", "-t", "10")
        assert cuse_netmap("gen", "netmap:tap1", "-q", "-n", "5000", "-r", "20000").returncode == 0
        said, _ = sink.communicate(timeout=at_most(20))
    finally:
        tc("qdisc", "del", "dev", "tap1", "ingress")
    assert re.match(r"received 5000 packets, 300000 bytes, .*, 0 lost, 0 reordered\n", said)
    assert sink.returncode == 0


def test_sink_takes_no_more_than_it_was_asked_for_and_says_when_too_few_came(started: Start) -> None:
    with Host("tap0") as host:
        sink = started(*COMMAND, "sink", "netmap:tap0", "-q", "-n", "100", "-t", "0.5")
        host.send(*map(frame, range(60)))
        said, complaint = sink.communicate(timeout=at_most(10))
    assert said.startswith("received 60 packets, 3600 bytes")
    assert (sink.returncode, complaint.count("\n")) == (1, 1)
    assert "60 of 100 frames came before the time was over" in complaint


def test_reflect_sends_every_frame_back_with_its_addresses_swapped(started: Start) -> None:
    with Host("tap0") as host:
        reflect = started(*COMMAND, "reflect", "netmap:tap0", "-q", "-n", "500")
        host.send(*map(frame, range(500)))
        back = host.take(500)
        said, _ = reflect.communicate(timeout=at_most(10))
    assert back == [(sent := frame(number))[6:12] + sent[:6] + sent[12:] for number in range(500)]
    assert said.startswith("reflected 500 packets, 30000 bytes")
    assert reflect.returncode == 0


@pytest.mark.parametrize("program", ["gen", "sink", "reflect"])
def test_ctrl_c_ends_them_with_their_totals(started: Start, program: str) -> None:
    running = started(*COMMAND, program, "netmap:tap0", "-q")
    time.sleep(0.3)  # between its open and its signal handler
    running.send_signal(signal.SIGINT)
    said, _ = running.communicate(timeout=at_most(10))
    assert running.returncode == 0
    assert re.match(r"(sent|received|reflected) \d+ packets", said)


def test_a_port_that_is_not_there_is_a_sentence() -> None:
    done = cuse_netmap("gen", "netmap:nowhere", "-n", "1")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "no such port" in done.stderr


@pytest.mark.parametrize("name", ["vale", "vale0", "netmap:vale0", "val1"])
def test_a_switch_without_a_port_is_no_name_to_open(name: str) -> None:
    """To netmap, which answers ENOMEM, it is one of a VALE port that cannot be made."""
    done = cuse_netmap("gen", name, "-n", "1")
    assert (done.returncode, done.stdout) == (2, "")
    assert "is written valeSWITCH:PORT" in done.stderr


def test_what_refused_a_program_stands_in_the_daemons_log(served: Daemon) -> None:
    """The errno tells of several reasons: the program points at the one who knows."""
    for name, reason in {"netmap:tap0/x": "EBUSY", "netmap:tap0-7": "EINVAL"}.items():
        with Port("tap0"):
            done = cuse_netmap("sink", name, "-n", "1")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.endswith("; the daemon's log says which\n")
        served.wait_for_log(f"({reason})")


def test_a_file_that_no_daemon_serves_is_not_netmaps_device() -> None:
    """Such as `cuse-netmap run` leaves in everybody's /dev while it runs."""
    file = Path("/dev", f"netmap-file-{os.getpid()}")
    file.touch(mode=0o600)
    try:
        done = cuse_netmap("gen", "netmap:tap0", f"--device={file.name}", "-n", "1")
    finally:
        file.unlink()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"netmap:tap0: {file} is a file that no daemon serves here; start one (cuse-netmap serve)\n"


# ---- a checkout in a folder with a space, from which the loader preloads nothing


@pytest.fixture(scope="module", params=["with space", "with:colon"])
def elsewhere(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package in such a folder."""
    folder = tmp_path_factory.mktemp("elsewhere") / str(request.param)
    shutil.copytree(PACKAGE, folder / "cuse_netmap")
    return folder


def command_of(elsewhere: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Imported from the folder it is started in: PYTHONPATH is split at colons itself."""
    code = "import sys; sys.path.insert(0, '.'); from cuse_netmap.cli import main; sys.exit(main())"
    words = [sys.executable, "-c", code, *arguments]
    return subprocess.run(words, cwd=elsewhere, capture_output=True, text=True, check=False, timeout=at_most(30))


def test_gen_does_without_the_helper_where_it_cannot_be_preloaded(elsewhere: Path) -> None:
    done = command_of(elsewhere, "gen", "netmap:tap0", "-n", "10")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("sent 10 packets")


def test_preload_refuses_a_helper_that_the_loader_would_not_find(elsewhere: Path) -> None:
    said = one_sentence(command_of(elsewhere, "preload", "--enable"))
    assert "the loader takes no library with a space or colon in its path" in said
    assert str(elsewhere) not in (LIST.read_text() if LIST.exists() else "")


# ---- doctor


def test_doctor_finds_this_machine_able_and_tells_what_it_found() -> None:
    done = cuse_netmap("doctor")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[-1] == "A device can be served here."
    # What the kernel can do at best, not what the daemon here was asked for.
    if kernel_version() >= (6, 9):
        door, mmap = "fuse door, classic", "for every program"
    else:
        door, mmap = "cuse door", "through the helper: cuse-netmap run PROGRAM; cuse-netmap preload --enable"
    for wanted in (
        rf"ok +{door} +a null port was opened, mapped, synced and polled",
        r"ok +device +/dev/netmap is served by a daemon",
        rf"ok +mmap +works {mmap}",
    ):
        assert any(re.match(wanted, line) for line in lines), wanted
    for subject in ("kernel", "user", "fuse door, uring", "cuse door", "mmap", "tap backend", "program memory"):
        assert any(line[5:].startswith(subject) for line in lines), subject
    assert done.stderr == ""


def test_doctor_names_the_remedy_for_whoever_is_not_root() -> None:
    done = cuse_netmap("doctor", user=NOBODY)
    assert done.returncode == 1
    assert "mend it: sudo cuse-netmap doctor" in done.stdout
    assert done.stdout.splitlines()[-1] == "No device can be served here yet."
    assert done.stderr == ""


def test_doctor_points_out_what_netmap_leaves_to_the_caller() -> None:
    """Issue C: promiscuous mode and offloads of interfaces; one that somebody else has is named."""
    ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
    try:
        ip("link", "set", "d1", "promisc", "on")
        ip("link", "add", "dbr", "type", "bridge")
        ip("link", "set", "d1", "master", "dbr")
        lines = {line[5:23].strip(): line for line in cuse_netmap("doctor").stdout.splitlines()}
        assert "ip link set d0 promisc on" in lines["interface d0"]
        assert lines["interface d1"].startswith("no ")
        assert "a port of dbr" in lines["interface d1"]
    finally:
        ip("link", "del", "d0")
        ip("link", "del", "dbr")


def test_doctor_does_not_advise_on_the_wires_that_a_daemon_has_made() -> None:
    ip("tuntap", "add", "other", "mode", "tap")
    try:
        said = cuse_netmap("doctor").stdout
    finally:
        ip("tuntap", "del", "other", "mode", "tap")
    assert "interface other" in said
    assert "interface tap0" not in said


def test_doctor_says_where_frames_are_merged() -> None:
    """Issue C: GRO puts frames together; on veth it is off unless somebody has asked for it."""
    ip("link", "add", "d0", "type", "veth", "peer", "name", "d1")
    try:
        assert not [one for one in remarks("d0") if "merge" in one]
        set_gro("d0", on=True)
        assert [one for one in remarks("d0") if "ethtool -K d0 gro off" in one]
    finally:
        ip("link", "del", "d0")


def remarks(interface: str) -> list[str]:
    return next(one.remarks for one in advice() if one.name == interface)


def set_gro(interface: str, *, on: bool) -> None:
    value = ctypes.create_string_buffer(struct.pack("II", ETHTOOL_SGRO, on), 8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, SIOCETHTOOL, struct.pack("16sQ16x", interface.encode(), ctypes.addressof(value)))


def test_doctor_leaves_nothing_behind() -> None:
    before = (Path("/proc/self/mountinfo").read_text(), ip("-o", "link"))
    cuse_netmap("doctor")
    assert (Path("/proc/self/mountinfo").read_text(), ip("-o", "link")) == before


# ---- headers


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the headers, as `make install-headers` installs them."""
    folder = tmp_path_factory.mktemp("headers")
    install = ["make", "-s", "-C", str(ROOT), "install-headers", f"DESTDIR={folder}", "PREFIX=/usr"]
    subprocess.run(install, check=True, timeout=at_most(30))
    return folder / "usr/include"


@pytest.mark.parametrize(
    ("example", "api", "port"),
    [("count.c", api, "netmap:tap0") for api in (0, 11, 12, 13)]
    + [("count_old.c", api, "tap0") for api in (1, 2, 3, 5)],
)
def test_the_examples_of_the_documentation_compile_against_installed_headers_and_count(
    started: Start, installed: Path, tmp_path: Path, example: str, api: int, port: str
) -> None:
    """docs/old-programs.md: for each API."""
    count = tmp_path / "count"
    flags = ["-Wall", "-Wextra", "-Werror", f"-I{installed}"] + ([f"-DNETMAP_OLD_API={api}"] if api else [])
    subprocess.run(["gcc", *flags, "-o", count, ROOT / "docs/examples" / example], check=True, timeout=at_most(60))
    with Host("tap0") as host:
        counting = started(count, port)
        time.sleep(0.3)  # between its open and its signal handler
        host.send(*map(frame, range(250)))
        time.sleep(0.5)  # it polls
        counting.send_signal(signal.SIGINT)
        said, _ = counting.communicate(timeout=at_most(10))
    assert said == "250 frames, 15000 bytes\n"
    assert counting.returncode == 0


@pytest.mark.parametrize("header", ["netmap.h", "netmap_user.h"])
@pytest.mark.parametrize("standard", ["gnu99", "gnu11", "gnu17"])
def test_the_headers_compile_by_themselves(tmp_path: Path, header: str, standard: str) -> None:
    source = tmp_path / "alone.c"
    source.write_text(f"#define NETMAP_WITH_LIBS\n#include <net/{header}>\nint main(void) {{ return 0; }}\n")
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", f"-I{ROOT / 'cuse_netmap/include'}"]
    subprocess.run(["gcc", *flags, source], check=True, timeout=at_most(60))


OLD_LAYOUTS = {
    # nmreq, slot; avail, cur, nr_buf_size, flags, slot[] of a ring; ring_ofs of a netmap_if; NIOCREGIF
    1: (32, 8, 12, 16, 20, 22, 24, 24, 0xC0206992),
    2: (36, 8, 12, 16, 20, 22, 40, 32, 0xC0246992),
    3: (60, 8, 12, 16, 24, 26, 48, 32, 0xC03C6992),
    5: (60, 16, 12, 16, 24, 26, 48, 32, 0xC03C6992),
}


@pytest.mark.parametrize("api", OLD_LAYOUTS)
@pytest.mark.parametrize("standard", ["gnu99", "gnu17"])
def test_the_headers_of_old_have_the_layouts_of_their_time(tmp_path: Path, api: int, standard: str) -> None:
    """ABI.md 16, issue E: and the page's has the page's other spellings."""
    fields = [f"offsetof(struct netmap_ring, {field})" for field in ("avail", "cur", "nr_buf_size", "flags", "slot")]
    fields = ["sizeof(struct nmreq)", "sizeof(struct netmap_slot)", *fields]
    fields += ["offsetof(struct netmap_if, ring_ofs)", "(size_t)NIOCREGIF"]
    page = """
        struct netmap_request r = {.nr_numslots = 1, .nr_numrings = 2, .nr_ringid = NETMAP_NO_TX_SYNC};
        if (r.nr_numdescs != 1 || r.nr_numqueues != 2 || NETMAP_TXSYNC != NIOCTXSYNC) return 1;"""
    source = tmp_path / "layout.c"
    source.write_text(f"""
#define NETMAP_OLD_API {api}
#include <net/netmap.h>
#include <net/netmap_user.h>
#include <stddef.h>
#include <stdio.h>
int main(void) {{
        const size_t all[] = {{{", ".join(fields)}}};
        for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++) printf("%zu ", all[i]);
{page if api == 1 else ""}
        return 0;
}}
""")
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'cuse_netmap/include'}"]
    subprocess.run(["gcc", *flags, "-o", tmp_path / "layout", source], check=True, timeout=at_most(60))
    said = subprocess.run([tmp_path / "layout"], capture_output=True, text=True, check=True, timeout=at_most(10)).stdout
    assert tuple(map(int, said.split())) == OLD_LAYOUTS[api]


# nmreq, netmap_if; then the bodies of NIOCCTRL where they were other ones than today's
LAYOUTS_FROM_10_ON = {
    10: {"nmreq": 60, "netmap_if": 40},
    11: {"nmreq": 60, "netmap_if": 56},
    12: {
        "nmreq": 60,
        "netmap_if": 56,
        "nmreq_register": 56,
        "nmreq_port_info_get": 24,
        "nmreq_vale_attach": 64,
        "nmreq_vale_detach": 4,
        "nmreq_port_hdr": 4,
        "nmreq_vale_polling": 12,
        "nmreq_sync_kloop_start": 4,
    },
    13: {
        "nmreq": 60,
        "netmap_if": 56,
        "nmreq_register": 48,
        "nmreq_port_info_get": 24,
        "nmreq_vale_attach": 56,
        "nmreq_vale_detach": 8,
        "nmreq_port_hdr": 8,
        "nmreq_vale_polling": 16,
        "nmreq_sync_kloop_start": 8,
    },
}
ALIKE = {"nmreq_header": 88, "nmreq_vale_newif": 16, "nmreq_vale_list": 8, "netmap_slot": 16, "netmap_ring": 256}
PLACES_FROM_10_ON = {
    10: {"netmap_if.ni_tx_rings": 24, "nmreq.nr_arg2": 46, "nmreq.spare2": 48},
    11: {"netmap_if.ni_bufs_head": 32, "nmreq.nr_arg3": 48, "nmreq.nr_flags": 52},
    12: {"nmreq_register.nr_mem_id": 28, "nmreq_register.nr_ringid": 30, "nmreq_register.nr_mode": 32}
    | {"nmreq_register.nr_flags": 40, "nmreq_register.nr_extra_bufs": 48, "nmreq_vale_attach.port_index": 56},
    13: {"nmreq_register.nr_mode": 32, "nmreq_register.nr_extra_bufs": 36, "nmreq_register.nr_flags": 40}
    | {"nmreq_port_info_get.nr_mem_id": 20, "nmreq_vale_attach.port_index": 48},
}


@pytest.mark.parametrize("api", LAYOUTS_FROM_10_ON)
@pytest.mark.parametrize("standard", ["gnu99", "gnu17"])
def test_the_headers_of_api_10_to_13_have_the_layouts_of_their_time(tmp_path: Path, api: int, standard: str) -> None:
    """ABI.md 16: and 2: NIOCCTRL came with API 12."""
    sizes = {f"sizeof(struct {name})": size for name, size in (LAYOUTS_FROM_10_ON[api] | ALIKE).items()}
    places = {f"offsetof(struct {at.replace('.', ', ')})": offset for at, offset in PLACES_FROM_10_ON[api].items()}
    known = {"NETMAP_API": api, "NIOCREGIF": 0xC03C6992} | ({"NIOCCTRL": 0xC0586997} if api >= 12 else {})
    source = tmp_path / "layout.c"
    facts = "".join(
        f'_Static_assert({what} == {value}, "{what}");\n' for what, value in (sizes | places | known).items()
    )
    source.write_text(f"""
#define NETMAP_OLD_API {api}
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
#include <stddef.h>
{facts}
#if defined(NIOCCTRL) != {int(api >= 12)}
#error "NIOCCTRL"
#endif
struct netmap_ring *rx(struct netmap_if *nifp) {{ return NETMAP_RXRING(nifp, 0); }}
""")
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'cuse_netmap/include'}"]
    subprocess.run(["gcc", *flags, "-fsyntax-only", source], check=True, timeout=at_most(60))


@pytest.mark.parametrize("api", [0, 4, 6, 9, 14])
def test_the_headers_refuse_an_api_that_never_was(tmp_path: Path, api: int) -> None:
    """docs/compatibility.md: there are 1, 2, 3, 5 and 10 to 13; today's is there without NETMAP_OLD_API."""
    source = tmp_path / "never.c"
    source.write_text("#include <net/netmap.h>\n")
    flags = [f"-DNETMAP_OLD_API={api}", f"-I{ROOT / 'cuse_netmap/include'}", "-fsyntax-only"]
    said = subprocess.run(["gcc", *flags, source], capture_output=True, text=True, check=False, timeout=at_most(60))
    assert "NETMAP_OLD_API is 1, 2, 3, 5, or 10 to 13" in said.stderr


def test_the_version_is_told() -> None:
    from cuse_netmap import __version__

    assert cuse_netmap("--version").stdout == f"cuse-netmap {__version__}\n"
