# SPDX-License-Identifier: BSD-2-Clause
"""The ioctls of network devices (netdevice(7), linux/ethtool.h) on a netmap descriptor, for the interface it has.

Whatever interface the request names, it is that one. What changes something needs what it needs on any socket:
CAP_NET_ADMIN of the calling thread, in the user namespace that owns the interface's network namespace.
"""

import ctypes
import errno
import fcntl
import os
import socket
import struct
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType

from cuse_netmap._core import Request
from cuse_netmap.backends.ethtool import SIOCETHTOOL
from cuse_netmap.errors import Refused
from cuse_netmap.namespace import network_namespace

GETS = MappingProxyType(
    {
        0x8913: "SIOCGIFFLAGS",
        0x8921: "SIOCGIFMTU",
        0x8927: "SIOCGIFHWADDR",
        0x8933: "SIOCGIFINDEX",
        0x8942: "SIOCGIFTXQLEN",
    }
)
SETS = MappingProxyType(
    {
        0x8914: "SIOCSIFFLAGS",
        0x8922: "SIOCSIFMTU",
        0x8924: "SIOCSIFHWADDR",
        0x8943: "SIOCSIFTXQLEN",
    }
)
NAMES = MappingProxyType({**GETS, **SETS, SIOCETHTOOL: "SIOCETHTOOL"})

NAME, REQUEST = 16, 40  # bytes of ifr_name, of struct ifreq
# SIOCETHTOOL's commands whose data have one size, in bytes: those that ask, and those that change something.
ETHTOOL_GETS = MappingProxyType(
    {
        **dict.fromkeys((0x07, 0x0A, 0x14, 0x16, 0x18, 0x1E, 0x21, 0x23, 0x25, 0x27, 0x2B), 8),  # struct ethtool_value
        0x01: 44,  # GSET
        0x03: 196,  # GDRVINFO
        0x0E: 92,  # GCOALESCE
        0x10: 36,  # GRINGPARAM
        0x12: 16,  # GPAUSEPARAM
        0x3C: 36,  # GCHANNELS
        0x41: 44,  # GET_TS_INFO
    }
)
ETHTOOL_SETS = MappingProxyType(
    {
        **dict.fromkeys((0x08, 0x15, 0x17, 0x19, 0x1F, 0x22, 0x24, 0x26, 0x28, 0x2C), 8),
        0x02: 44,  # SSET
        0x0F: 92,  # SCOALESCE
        0x13: 16,  # SPAUSEPARAM
    }
)
ETHTOOL_RINGS = frozenset({0x11, 0x3D})  # SRINGPARAM, SCHANNELS

CAP_NET_ADMIN = 12
NS_GET_USERNS, NS_GET_PARENT = 0xB701, 0xB702  # linux/nsfs.h


def carry_out(request: Request, namespace: int, index: int) -> None:
    """Answers one of NAMES for an interface of that network namespace. Refused as the kernel does, or EOPNOTSUPP."""
    given = request.read(request.argument, REQUEST)
    if request.command == SIOCETHTOOL:
        _ethtool(request, namespace, index, int.from_bytes(given[NAME : NAME + 8], "little"))
        return
    if request.command in SETS:
        _check_rights(request.pid, namespace, NAMES[request.command])
    answer = _ask(namespace, index, request.command, given[NAME:])
    if request.command in GETS:
        request.write(request.argument + NAME, answer)


def _ethtool(request: Request, namespace: int, index: int, address: int) -> None:
    command = int.from_bytes(request.read(address, 4), "little")
    what = f"ethtool command {command:#x}"
    if command in ETHTOOL_RINGS:
        raise Refused(errno.EBUSY, f"{what} would change rings that are in use")
    size = ETHTOOL_GETS.get(command) or ETHTOOL_SETS.get(command)
    if size is None:
        raise Refused(errno.EOPNOTSUPP, f"{what} is not supported on a netmap descriptor")
    if command in ETHTOOL_SETS:
        _check_rights(request.pid, namespace, what)
    data = ctypes.create_string_buffer(request.read(address, size), size)
    _ask(namespace, index, SIOCETHTOOL, struct.pack("P16x", ctypes.addressof(data)))
    request.write(address, data.raw)


def _ask(namespace: int, index: int, command: int, fields: bytes) -> bytes:
    """The ioctl on a socket of our own; what comes back behind the name."""
    with ExitStack() as stack:
        stack.enter_context(network_namespace(namespace))
        asking = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        try:
            name = os.fsencode(socket.if_indextoname(index))
            return fcntl.ioctl(asking, command, name.ljust(NAME, b"\0") + fields)[NAME:]
        except OSError as error:
            number = error.errno or errno.EIO
            raise Refused(number, f"{NAMES[command]}: {os.strerror(number)}") from error


# ---- rights


def _check_rights(pid: int, namespace: int, what: str) -> None:
    """Refused EPERM: the thread, which waits for its answer, may not change interfaces of that network namespace."""
    if not _may_configure(pid, namespace):
        raise Refused(errno.EPERM, f"{what} needs CAP_NET_ADMIN where the interface is")


def _may_configure(pid: int, namespace: int) -> bool:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        theirs = Path(f"/proc/{pid}/ns/user").stat()
    except OSError:  # of a PID namespace that we do not see
        return False
    capabilities = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    if not capabilities >> CAP_NET_ADMIN & 1:
        return False
    # What a thread may do in its own user namespace it may do in all below it (user_namespaces(7)).
    try:
        owner = fcntl.ioctl(namespace, NS_GET_USERNS)
    except OSError:
        return False
    while True:
        try:
            if os.path.samestat(os.fstat(owner), theirs):
                return True
            parent = fcntl.ioctl(owner, NS_GET_PARENT)
        except OSError:  # EPERM: there is none, or it is above our own
            return False
        finally:
            os.close(owner)
        owner = parent
