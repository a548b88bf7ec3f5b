# SPDX-License-Identifier: BSD-2-Clause
"""The ioctls of network devices on a netmap descriptor, as old programs issue them (ABI.md 17)."""

import errno
import fcntl
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cuse_netmap.client import Port
from cuse_netmap.control import device_ioctls
from cuse_netmap.namespace import network_namespace
from tests.support.daemon import Daemon
from tests.support.host import ip, link
from tests.support.ioctls import BAD_ADDRESS, Block, device, hold, ioctl
from tests.support.patience import at_most
from tests.support.veth import SIOCETHTOOL, Wire

COMMANDS = {name: code for code, name in device_ioctls.NAMES.items()}
IFF_UP, IFF_PROMISC = 0x1, 0x100
GET_TSO, SET_TSO, GET_DRIVER, GET_LINK, GET_STRINGS, SET_CHANNELS = 0x1E, 0x1F, 0x03, 0x0A, 0x1B, 0x3D

# Run as another user or in another user namespace, with a netmap descriptor: says what came of a set.
SETTER = """
import fcntl, sys
try:
    fcntl.ioctl(int(sys.argv[1]), 0x8922, b"v0".ljust(16, b"\\0") + (1300).to_bytes(4, "little") + bytes(20))
    print(0)
except OSError as error:
    print(error.errno)
"""


# The same as root of a user namespace with an interface v0 of its own: of that, and then of the descriptor given.
CONTAINER = f"""
import subprocess, sys
from cuse_netmap.client import Port
subprocess.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"], check=True)
port = Port("v0")
for fd in (str(port.fd), sys.argv[1]):
    subprocess.run([sys.executable, "-c", {SETTER!r}, fd], pass_fds=(int(fd),), check=True)
"""


def asked(port: Port, name: str, fields: bytes = b"", interface: bytes = b"v0") -> bytes:
    """What comes back behind the name. OSError."""
    given = interface.ljust(16, b"\0") + fields.ljust(24, b"\0")
    answer = fcntl.ioctl(port, COMMANDS[name], given)
    assert answer[:16] == given[:16]
    return answer[16:]


def ethtool(port: Port, command: int, value: int = 0, size: int = 8) -> bytes:
    data = Block(struct.pack("II", command, value).ljust(size, b"\0"))
    asked(port, "SIOCETHTOOL", struct.pack("P", data.address))
    return data.data


@pytest.fixture
def port(near: Wire) -> Iterator[Port]:
    """On v0 of the near host."""
    del near
    with Port("v0") as opened:
        yield opened


def test_what_is_asked_is_answered_for_the_bound_interface(port: Port, near: Wire) -> None:
    """Issue C: SIOCGIFFLAGS, SIOCGIFMTU, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCETHTOOL get."""
    assert int.from_bytes(asked(port, "SIOCGIFFLAGS")[:2], "little") & IFF_UP
    assert int.from_bytes(asked(port, "SIOCGIFMTU")[:4], "little") == 1500
    assert asked(port, "SIOCGIFHWADDR")[2:8] == near.near.mac()
    assert int.from_bytes(asked(port, "SIOCGIFINDEX")[:4], "little") == socket.if_nametoindex("v0")
    assert int.from_bytes(asked(port, "SIOCGIFTXQLEN")[:4], "little") == link("v0")["txqlen"]
    assert ethtool(port, GET_LINK)[4:] == b"\1\0\0\0"
    assert ethtool(port, GET_DRIVER, size=196)[4:36].startswith(b"veth\0")


def test_the_name_in_the_request_does_not_matter(port: Port) -> None:
    """Issue C: answered for the bound interface."""
    for name in (b"", b"lo", b"netmap:v0", b"x" * 16):
        assert int.from_bytes(asked(port, "SIOCGIFINDEX", interface=name)[:4], "little") == socket.if_nametoindex("v0")


def test_what_is_set_is_set_with_the_rights_of_root(port: Port) -> None:
    """ABI.md 17: old programs set interface flags and ethtool features themselves."""
    flags = int.from_bytes(asked(port, "SIOCGIFFLAGS")[:2], "little")
    asked(port, "SIOCSIFFLAGS", struct.pack("H", flags | IFF_PROMISC))
    assert "PROMISC" in link("v0")["flags"]
    asked(port, "SIOCSIFFLAGS", struct.pack("H", flags))
    assert "PROMISC" not in link("v0")["flags"]
    asked(port, "SIOCSIFMTU", struct.pack("i", 1400))
    assert link("v0")["mtu"] == 1400
    asked(port, "SIOCSIFMTU", struct.pack("i", 1500))
    before = ethtool(port, GET_TSO)[4]
    ethtool(port, SET_TSO, 1 - before)
    assert ethtool(port, GET_TSO)[4] == 1 - before
    ethtool(port, SET_TSO, before)


def test_what_the_kernel_refuses_is_refused(port: Port) -> None:
    """Issue C: the kernel's errno is the program's."""
    with pytest.raises(OSError, match=r".") as refused:
        asked(port, "SIOCSIFMTU", struct.pack("i", 1 << 30))
    assert refused.value.errno == errno.EINVAL
    assert ioctl(port.fd, COMMANDS["SIOCGIFMTU"], BAD_ADDRESS) == errno.EFAULT
    assert ioctl(port.fd, SIOCETHTOOL, Block(b"v0".ljust(16, b"\0") + struct.pack("P16x", BAD_ADDRESS))) == errno.EFAULT


def test_ethtool_commands_without_a_fixed_size_are_not_supported(port: Port) -> None:
    """Issue C, docs/interfaces.md: what has no one size is for a socket."""
    with pytest.raises(OSError, match=r".") as refused:
        ethtool(port, GET_STRINGS)
    assert refused.value.errno == errno.EOPNOTSUPP


def test_rings_in_use_cannot_be_changed(port: Port) -> None:
    """ABI.md 15: set_ringparam, set_channels on an interface in netmap mode: EBUSY."""
    with pytest.raises(OSError, match=r".") as refused:
        ethtool(port, SET_CHANNELS, size=36)
    assert refused.value.errno == errno.EBUSY


def set_under(port: Port, *under: str) -> str:
    """What SETTER says when it is started by a command."""
    done = subprocess.run(
        [*under, sys.executable, "-c", SETTER, str(port.fd)],
        pass_fds=(port.fd,),
        capture_output=True,
        text=True,
        check=True,
        timeout=at_most(20),
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "under",
    [
        ("setpriv", "--reuid=65534", "--clear-groups"),
        ("setpriv", "--bounding-set=-net_admin"),
        ("unshare", "--user", "--map-root-user"),
    ],
)
def test_who_may_not_configure_the_interface_gets_eperm(port: Port, under: tuple[str, ...]) -> None:
    """Issue C: the caller's rights: CAP_NET_ADMIN in the user namespace that owns the network namespace."""
    assert set_under(port, *under) == str(errno.EPERM)
    assert link("v0")["mtu"] == 1500


def test_root_of_a_container_may_configure_its_own_interface_and_no_other(wires: Daemon) -> None:
    """Issue C: with CAP_NET_ADMIN where the interface is, and only there."""
    del wires
    with Port("tap0") as others:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-c", CONTAINER, str(others.fd)],
            pass_fds=(others.fd,),
            capture_output=True,
            text=True,
            check=False,
            timeout=at_most(30),
        )
    assert done.stdout.split() == ["0", str(errno.EPERM)], done.stderr
    assert link("tap0")["mtu"] == 1500


def test_a_user_without_rights_may_ask(port: Port) -> None:
    """Issue C: asking needs no rights, as on any socket."""
    code = f"import fcntl; print(fcntl.ioctl({port.fd}, {COMMANDS['SIOCGIFMTU']}, bytes(40))[16:18].hex())"
    command = ["setpriv", "--reuid=65534", "--clear-groups", sys.executable, "-c", code]
    done = subprocess.run(
        command, pass_fds=(port.fd,), capture_output=True, text=True, check=False, timeout=at_most(20)
    )
    assert done.stdout.strip() == "dc05", done.stderr


def test_a_tap_wire_is_an_interface_too(wires: Daemon) -> None:
    """Issue C: answered for the bound interface."""
    del wires
    with Port("tap1") as port:
        assert int.from_bytes(asked(port, "SIOCGIFMTU")[:4], "little") == link("tap1")["mtu"]


@pytest.mark.parametrize("name", ["nil", "vale0:a", "tap0{1", None])
def test_what_is_no_interface_does_not_support_them(wires: Daemon, name: str | None) -> None:
    """ABI.md section 1: any other command EOPNOTSUPP, not ENOTTY."""
    del wires
    block = Block(bytes(40))
    if name is None:
        with device() as fd:
            assert ioctl(fd, COMMANDS["SIOCGIFMTU"], block) == errno.EOPNOTSUPP
        with hold() as port:
            assert ioctl(port.fd, COMMANDS["SIOCGIFMTU"], block) == errno.EOPNOTSUPP
    else:
        with Port(name) as port:
            assert ioctl(port.fd, COMMANDS["SIOCGIFMTU"], block) == errno.EOPNOTSUPP


def test_an_interface_that_has_gone_is_no_device(wires: Daemon) -> None:
    """ABI.md 15: interface unregistered while open."""
    del wires
    with Wire() as wire, network_namespace(wire.near.namespace), Port("v0") as port:
        ip("link", "del", "v0")
        assert ioctl(port.fd, COMMANDS["SIOCGIFMTU"], Block(bytes(40))) in (errno.ENXIO, errno.ENODEV)
