# SPDX-License-Identifier: BSD-2-Clause
"""What an interface of this thread's network namespace and its driver say by ioctl (SIOCETHTOOL, linux/ethtool.h)."""

import ctypes
import fcntl
import os
import socket
import struct
import sys

SIOCGIFMTU = 0x8921
SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 0x03
ETHTOOL_GRINGPARAM = 0x10
ETHTOOL_GFLAGS = 0x25
ETHTOOL_GGRO = 0x2B
ETHTOOL_GCHANNELS = 0x3C
FLAG_RXVLAN = 1 << 8
FLAG_LRO = 1 << 15


def _ask(name: str, command: int, size: int) -> bytes | None:
    """The answer's `size` bytes behind the command; None if the driver does not say."""
    data = ctypes.create_string_buffer(struct.pack("I", command), 4 + size)
    request = struct.pack("16sP16x", os.fsencode(name), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            fcntl.ioctl(asking, SIOCETHTOOL, request)
        except OSError:
            return None
    return data.raw[4:]


def driver(name: str) -> str:
    """The driver's name; "" if it does not say."""
    answer = _ask(name, ETHTOOL_GDRVINFO, 192)
    return answer[:32].split(b"\0")[0].decode(errors="replace") if answer else ""


def channels(name: str) -> tuple[int, int]:
    """Receive and transmit queues in use; 1 of each if the driver does not say."""
    answer = _ask(name, ETHTOOL_GCHANNELS, 32)
    if answer is None:
        return 1, 1
    _, _, _, _, rx, tx, _, combined = struct.unpack("8I", answer)
    return max(rx + combined, 1), max(tx + combined, 1)


def ring_size(name: str) -> int:
    """Descriptors in a receive ring; 0 if the driver does not say."""
    answer = _ask(name, ETHTOOL_GRINGPARAM, 32)
    return int(struct.unpack("8I", answer)[4]) if answer else 0


def gro(name: str) -> bool:
    """The kernel merges received frames."""
    return _value(name, ETHTOOL_GGRO) != 0


def lro(name: str) -> bool:
    """The device does."""
    return bool(_value(name, ETHTOOL_GFLAGS) & FLAG_LRO)


def takes_tags(name: str) -> bool:
    """The device takes VLAN tags out of received frames."""
    return bool(_value(name, ETHTOOL_GFLAGS) & FLAG_RXVLAN)


def _value(name: str, command: int) -> int:
    answer = _ask(name, command, 4)
    return int.from_bytes(answer[:4], sys.byteorder) if answer else 0


def mtu(index: int) -> int:
    """Bytes. OSError: there is no such interface."""
    request = struct.pack("16s24x", os.fsencode(socket.if_indextoname(index)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        return int(struct.unpack_from("i", fcntl.ioctl(asking, SIOCGIFMTU, request), 16)[0])
