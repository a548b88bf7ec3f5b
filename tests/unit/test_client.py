# SPDX-License-Identifier: BSD-2-Clause
"""The client's rings in shared memory, without a device."""

import mmap
import struct
import subprocess
import sys
from pathlib import Path

from cuse_netmap.client import Ring

VALUES = (0x01020304, 0x0A0B0C0D)
WRITER = f"""
import mmap, sys
from cuse_netmap.client import Ring
with open(sys.argv[1], "r+b") as file:
    ring = Ring(mmap.mmap(file.fileno(), 0), 0)
print("ready", flush=True)
while True:
    for value in {VALUES}:
        ring.head = value
"""


def test_whoever_shares_a_ring_never_sees_half_an_index(tmp_path: Path) -> None:
    """The daemon's thread of a kloop, or another program: a head or cur that is 0 for a moment costs them the ring."""
    file = tmp_path / "ring"
    file.write_bytes(struct.pack("<qIIHH", 4096, 1024, 2048, 0, 0).ljust(8192, b"\0"))
    with file.open("r+b") as opened:
        ring = Ring(mmap.mmap(opened.fileno(), 0), 0)
    ring.head = VALUES[0]
    with subprocess.Popen([sys.executable, "-c", WRITER, file], stdout=subprocess.PIPE) as writer:
        try:
            assert writer.stdout
            assert writer.stdout.readline() == b"ready\n"
            assert {ring.head for _ in range(300_000)} <= set(VALUES)
        finally:
            writer.kill()
