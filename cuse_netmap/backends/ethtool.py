# SPDX-License-Identifier: BSD-2-Clause
"""What a driver says of its queues (SIOCETHTOOL, linux/ethtool.h), in this thread's network namespace."""

import ctypes
import fcntl
import os
import socket
import struct

SIOCETHTOOL = 0x8946
ETHTOOL_GRINGPARAM = 0x10
ETHTOOL_GCHANNELS = 0x3C


def _ask(name: str, command: int, fields: int) -> tuple[int, ...] | None:
    """The fields behind the command; None if the driver does not say."""
    data = ctypes.create_string_buffer(struct.pack("I", command), 4 + 4 * fields)
    request = struct.pack("16sP16x", os.fsencode(name), ctypes.addressof(data))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            fcntl.ioctl(asking, SIOCETHTOOL, request)
        except OSError:
            return None
    return struct.unpack_from(f"{fields}I", data.raw, 4)


def channels(name: str) -> tuple[int, int]:
    """Receive and transmit queues in use; 1 of each if the driver does not say."""
    answer = _ask(name, ETHTOOL_GCHANNELS, 8)
    if answer is None:
        return 1, 1
    _, _, _, _, rx, tx, _, combined = answer
    return max(rx + combined, 1), max(tx + combined, 1)


def ring_size(name: str) -> int:
    """Descriptors in a receive ring; 0 if the driver does not say."""
    answer = _ask(name, ETHTOOL_GRINGPARAM, 8)
    return answer[4] if answer else 0
