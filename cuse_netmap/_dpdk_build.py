# SPDX-License-Identifier: BSD-2-Clause
"""Makes the extension module `cuse_netmap._dpdk`, which needs libdpdk; setup.py leaves it out where that is not.

It has its own C, and needs nothing of the engine's but headers.
"""

import subprocess
from glob import glob
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent


def pkg_config(*questions: str) -> list[str]:
    """What pkg-config says of libdpdk."""
    asked = ["pkg-config", *questions, "libdpdk"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.split()


ffibuilder = FFI()
ffibuilder.cdef((HERE / "_dpdk.cdef").read_text())
ffibuilder.set_source(
    "cuse_netmap._dpdk",
    """
    #include <rte_version.h>
    #include "dpdk/eal.h"
    #include "dpdk/port.h"
    #include "dpdk/queue.h"
    """,
    sources=sorted(glob("cuse_netmap/dpdk/*.c")),  # noqa: PTH207 - setuptools wants relative names
    include_dirs=["cuse_netmap", "cuse_netmap/include"],
    libraries=["rte_ethdev", "rte_mempool", "rte_mbuf", "rte_ring", "rte_eal"],
    extra_compile_args=[
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-Wall",
        "-Wextra",
        "-Wno-unused-parameter",
        "-Werror",
        # Their headers' warnings are not ours.
        *(flag.replace("-I", "-isystem", 1) for flag in pkg_config("--cflags")),
    ],
    extra_link_args=pkg_config("--libs-only-L"),
)
