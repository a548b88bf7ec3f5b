# SPDX-License-Identifier: BSD-2-Clause
"""cuse-netmap: /dev/netmap served by an ordinary program; here are its version and where its C headers are."""

from pathlib import Path

__version__ = "0.1.0"


def include_dir() -> str:
    """The folder, for a C compiler, of <cuse_netmap/backend.h> (docs/backends.md), <net/netmap.h> and its like."""
    return str(Path(__file__).parent / "include")
