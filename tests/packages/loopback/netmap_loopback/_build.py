# SPDX-License-Identifier: BSD-2-Clause
"""Makes the extension module of loopback.c."""

from cffi import FFI

import cuse_netmap

ffibuilder = FFI()
ffibuilder.cdef("const void *loopback_backend(int stale); void *loopback_queue(unsigned limit);")
ffibuilder.set_source(
    "netmap_loopback._loopback",
    "const void *loopback_backend(int stale); void *loopback_queue(unsigned limit);",
    sources=["netmap_loopback/loopback.c"],
    include_dirs=[cuse_netmap.include_dir()],
)
