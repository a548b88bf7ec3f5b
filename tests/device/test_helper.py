# SPDX-License-Identifier: BSD-2-Clause
"""The helper of the CUSE door: what its token buys, and what a bad one does not. Runs where there is CUSE."""

import ctypes
import errno
import fcntl
import mmap
import os
import secrets
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control.requests import GLOBAL_MEM_ID, Mode, Register
from cuse_netmap.helper import FOLDER, MEMORY, NIOCHELPERTOKEN, TOKEN
from tests.support.command import COMMAND, cuse_netmap
from tests.support.daemon import Daemon
from tests.support.patience import at_most

pytestmark = [
    pytest.mark.door,
    pytest.mark.skipif(not Path("/dev/cuse").exists(), reason="no /dev/cuse: make guest-test runs this"),
]

SIZE = 343019520
MAP_FIXED = 0x10
FAILED = ctypes.c_void_p(-1).value
mapped = ctypes.CDLL(None, use_errno=True).mmap
mapped.restype = ctypes.c_void_p
mapped.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]

NULL_PORT = Register(mode=Mode.NULL, mem_id=GLOBAL_MEM_ID)


@pytest.fixture
def port(daemon: Daemon) -> Iterator[Port]:
    """A program that is registered on the device."""
    del daemon
    with Port("helper", NULL_PORT) as opened:
        yield opened


def token(fd: int) -> tuple[bytes, str]:
    """(token, path of the socket) as the daemon gives it to the holder of a descriptor."""
    answer = bytearray(TOKEN.size)
    fcntl.ioctl(fd, NIOCHELPERTOKEN, answer)
    value, path = TOKEN.unpack(answer)
    return value, path.split(b"\0")[0].decode()


def fetch(value: bytes, path: str) -> tuple[int, int] | None:
    """(size, descriptor) that a token buys; None for nothing."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(at_most(20))
        connection.connect(path)
        connection.sendall(value)
        data, fds, _, _ = socket.recv_fds(connection, MEMORY.size, 1)
        return (MEMORY.unpack(data)[0], fds[0]) if fds else None


def test_a_token_buys_the_memory_once(port: Port) -> None:
    value, path = token(port.fd)
    bought = fetch(value, path)
    assert bought is not None
    size, fd = bought
    with mmap.mmap(fd, size) as memory:
        assert memory[port.if_offset : port.if_offset + 11] == b"null:helper"
    os.close(fd)
    assert size == SIZE
    assert fetch(value, path) is None


def test_a_forged_token_buys_nothing(port: Port) -> None:
    _, path = token(port.fd)
    assert fetch(secrets.token_bytes(16), path) is None


def test_a_token_dies_with_its_file(daemon: Daemon) -> None:
    with Port("mortal", NULL_PORT) as opened:  # a name that no other test's line in the log has
        value, path = token(opened.fd)
    daemon.wait_for_log("mortal released", at_most(20))
    assert fetch(value, path) is None


def test_who_may_open_the_device_may_map_it(daemon: Daemon, port: Port) -> None:
    """An administrator's chmod and chown of the node are enough."""
    if daemon.mmap != "helper":
        pytest.skip("the FUSE door is over the device: that node is not the one whose rights count")
    node = Path("/dev/netmap")
    before = node.stat()
    try:
        os.chown(node, 1, 2)
        node.chmod(0o606)
        _, path = token(port.fd)
        now = Path(path).stat()
        assert (now.st_uid, now.st_gid, now.st_mode & 0o777) == (1, 2, 0o606)
    finally:
        os.chown(node, before.st_uid, before.st_gid)
        node.chmod(before.st_mode & 0o777)


def test_a_descriptor_that_is_not_registered_gets_no_token(daemon: Daemon) -> None:
    del daemon
    fd = os.open("/dev/netmap", os.O_RDWR)
    with pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is looked at
        token(fd)
    os.close(fd)
    assert refused.value.errno == errno.EINVAL


def test_length_and_offset_are_the_regions(daemon: Daemon, port: Port) -> None:
    """ABI.md 8: offset and length within the region, else EINVAL. The FUSE door cannot refuse."""
    if daemon.mmap != "helper":
        pytest.skip("the FUSE door is over the device: the kernel asks nobody")
    read_write = mmap.PROT_READ | mmap.PROT_WRITE
    assert mapped(None, SIZE, read_write, mmap.MAP_SHARED, port.fd, 0) != FAILED
    assert mapped(None, 4096, read_write, mmap.MAP_SHARED, port.fd, SIZE - 4096) != FAILED
    for length, offset in ((SIZE + 4096, 0), (4096, SIZE), (SIZE, 4096)):
        assert mapped(None, length, read_write, mmap.MAP_SHARED, port.fd, offset) == FAILED
        assert ctypes.get_errno() == errno.EINVAL


@pytest.mark.parametrize(
    ("protection", "flags", "seen"),
    [
        (mmap.PROT_READ, mmap.MAP_SHARED, "r--s"),
        (mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, "rw-s"),
        (mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, "rw-p"),
    ],
)
def test_address_offset_protection_and_flags_are_the_programs(
    port: Port, protection: int, flags: int, seen: str
) -> None:
    """Issue D: offset, length, protection and flags honoured; whichever door maps."""
    place = mapped(None, 2 * 4096, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    page, within = divmod(port.if_offset, 4096)
    assert mapped(place, 4096, protection, flags | MAP_FIXED, port.fd, page * 4096) == place
    lines = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    (ours,) = [line for line in lines if line[0] == f"{place:x}-{place + 4096:x}"]
    assert (ours[1], int(ours[2], 16)) == (seen, page * 4096)
    assert ctypes.string_at(place + within, 11) == b"null:helper"


def test_a_descriptor_for_reading_is_not_mapped_for_writing(daemon: Daemon) -> None:
    """The kernel's own EACCES, to which the helper adds nothing."""
    del daemon
    fd = os.open("/dev/netmap", os.O_RDONLY)
    read_write = mmap.PROT_READ | mmap.PROT_WRITE
    assert mapped(None, 4096, read_write, mmap.MAP_SHARED, fd, 0) == FAILED
    assert ctypes.get_errno() == errno.EACCES
    os.close(fd)


def test_other_mappings_are_untouched(port: Port) -> None:
    del port
    with Path("/etc/hostname").open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:
        assert memory[:] == Path("/etc/hostname").read_bytes()
    with Path("/dev/null").open("rb") as null, pytest.raises(OSError) as refused:  # noqa: PT011 - the errno is looked at
        mmap.mmap(null.fileno(), 4096, prot=mmap.PROT_READ)
    assert refused.value.errno == errno.ENODEV


def test_the_socket_of_a_run_that_was_killed_is_removed_and_a_living_daemons_is_not(daemon: Daemon) -> None:
    command = [*COMMAND, "run", "--door=cuse", "--device=second", "--", "sh", "-c", "echo started; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stdout.readline() == "started\n"
        (serving,) = [int(path.stem.removeprefix("second-")) for path in FOLDER.glob("second-*.sock")]
        os.kill(serving, signal.SIGKILL)
        running.communicate()
    assert (FOLDER / f"second-{serving}.sock").exists()
    assert cuse_netmap("cleanup", "--device=second").returncode == 0
    assert not list(FOLDER.glob("second-*.sock"))
    assert (FOLDER / "netmap.sock").exists()
    assert daemon.process.poll() is None
