# SPDX-License-Identifier: BSD-2-Clause
"""Makes the extension module `cuse_netmap._engine` from _engine.cdef; the C itself is setup.py's to compile."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "_engine.cdef").read_text())
ffibuilder.set_source(
    "cuse_netmap._engine",
    """
    #include "ages.h"
    #include "backends/null.h"
    #include "backends/raw.h"
    #include "backends/steer.h"
    #include "backends/tap.h"
    #include "backends/xdp.h"
    #include "doors/door.h"
    #include "doors/inbox.h"
    #include "kloop.h"
    #include "ports/ports.h"
    """,
    include_dirs=["cuse_netmap", "cuse_netmap/include"],
    libraries=["cuse_netmap_core", "uring", "xdp"],
    extra_compile_args=["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"],
)
