# SPDX-License-Identifier: BSD-2-Clause
"""Which ways in this kernel has; as a program, what the tests must preload to go all of them (`make test` does)."""

import fcntl
import os
import platform
import re
from pathlib import Path

from cuse_netmap.device import URING_SWITCH, helper_library


def kernel_version() -> tuple[int, int]:
    major, minor = platform.release().split(".")[:2]
    return int(major), int(re.match(r"[0-9]+", minor)[0])  # type: ignore[index]


# Every way in that this kernel has, as the options of serve; what it has not is tested where it is (make guest-test).
WAYS = {
    "uring": ("--door=fuse", "--transport=uring"),
    "classic": ("--door=fuse", "--transport=classic"),
    "cuse": ("--door=cuse",),
    "both": ("--door=auto", "--transport=classic"),
}


def ways_here() -> dict[str, str]:
    """WAYS by name, with why not, or "" if the kernel has it."""
    passthrough = "" if kernel_version() >= (6, 9) else "FUSE passthrough needs Linux 6.9"
    uring = "" if URING_SWITCH.exists() else "FUSE knows no io_uring"
    cuse = "" if Path("/dev/cuse").exists() else "no /dev/cuse"
    ways = {"uring": passthrough or uring, "classic": passthrough, "cuse": cuse, "both": passthrough or cuse}
    wanted = os.environ.get("CUSE_NETMAP_TEST_WAYS", " ".join(ways)).split()
    return {name: reason or ("" if name in wanted else "not asked for") for name, reason in ways.items()}


def uring_switch() -> str:
    """What the switch of io_uring is while no daemon, whosever, is about to mount; "" without one."""
    if not URING_SWITCH.exists():
        return ""
    with URING_SWITCH.open() as switch:
        fcntl.flock(switch, fcntl.LOCK_EX)
        return switch.read()


if __name__ == "__main__":
    # The tests are netmap programs, and map a CUSE device as others do.
    print("" if ways_here()["cuse"] else helper_library())
