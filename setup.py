# SPDX-License-Identifier: BSD-2-Clause
"""How the C is compiled: one archive, the Python extension over it, the programs; the rest of packaging is setup.cfg.

CUSE_NETMAP_SANITIZE=1 compiles all of it with AddressSanitizer and UndefinedBehaviorSanitizer, in a folder of its own.
"""

import os
import subprocess
from glob import glob
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# The engine's folders and flags, which make reads too.
ENGINE = {
    name: value.split()
    for name, _, value in (line.partition(" := ") for line in Path("cuse_netmap/engine.mk").read_text().splitlines())
}
PROGRAMS = {
    "netmap-traffic": "cuse_netmap/programs",
    "netmap-selftest": "cuse_netmap/selftest",
    "libnetmap-helper.so": "cuse_netmap/preload",
}

SANITIZE = os.environ.get("CUSE_NETMAP_SANITIZE") == "1"
SANITIZER_FLAGS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZE else []
CFLAGS = [*ENGINE["ENGINE_CFLAGS"], *SANITIZER_FLAGS]
if SANITIZE:
    # Python's own flags define NDEBUG; here assertions hold.
    CFLAGS += ["-O1", "-fno-omit-frame-pointer", "-UNDEBUG"]
else:
    # As Debian builds it; it brings warnings of its own.
    CFLAGS += ["-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2"]

# The dpdk backend is there where libdpdk is; `-Werror` and the version are its own C's to check.
try:
    HAS_DPDK = subprocess.run(["pkg-config", "--atleast-version=22.11", "libdpdk"], check=False).returncode == 0
except FileNotFoundError:
    HAS_DPDK = False

# Named here, not left to setuptools: an editable install would compile in a temporary folder, from nothing each time.
BUILD = "build/sanitize" if SANITIZE else "build/plain"
ARCHIVE = f"{BUILD}/libcuse_netmap_core.a"
HEADERS = glob("cuse_netmap/**/*.h", recursive=True)


def sources(*folders: str) -> list[str]:
    return sorted(source for folder in folders for source in glob(f"{folder}/*.c"))


class BuildExtension(build_ext):
    """The extension, linked again whenever the archive changed; the programs and the helper in cuse_netmap/bin."""

    def run(self) -> None:
        self.run_command("build_clib")
        for extension in self.extensions:
            extension.depends += [ARCHIVE, *HEADERS]
            extension.extra_compile_args += SANITIZER_FLAGS
            extension.extra_link_args += SANITIZER_FLAGS
        super().run()
        # The programs know nothing of the engine: a reference to it must not link.
        self.compiler.set_libraries([])
        for program in self.programs():
            self.build_program(program)

    def programs(self) -> list[Path]:
        root = Path("." if self.inplace else self.build_lib)
        return [root / "cuse_netmap/bin" / name for name, folder in PROGRAMS.items() if sources(folder)]

    def build_program(self, program: Path) -> None:
        inputs = sources(PROGRAMS[program.name])
        newest = max(os.path.getmtime(path) for path in inputs + HEADERS)
        if program.exists() and program.stat().st_mtime >= newest:
            return
        library = program.suffix == ".so"
        # A library that is preloaded into programs of others brings no sanitizer with it.
        sanitizers = [] if library else SANITIZER_FLAGS
        flags = [flag for flag in CFLAGS if flag not in SANITIZER_FLAGS] + sanitizers
        objects = self.compiler.compile(
            inputs, output_dir=self.build_temp, include_dirs=["cuse_netmap/include"], extra_postargs=flags
        )
        link = self.compiler.link_shared_object if library else self.compiler.link_executable
        link(objects, program.name, output_dir=str(program.parent), extra_postargs=sanitizers)

    def get_outputs(self) -> list[str]:
        return [*super().get_outputs(), *map(str, self.programs())]


setup(
    cmdclass={"build_ext": BuildExtension},
    options={
        "build_clib": {"build_clib": BUILD, "build_temp": BUILD},
        "build_ext": {"build_temp": BUILD},
    },
    libraries=[
        (
            "cuse_netmap_core",
            {
                "sources": sources(*ENGINE["ENGINE_FOLDERS"]),
                "obj_deps": {"": HEADERS},
                "include_dirs": ["cuse_netmap", "cuse_netmap/include"],
                "cflags": CFLAGS,
            },
        )
    ],
    cffi_modules=[
        "cuse_netmap/_engine_build.py:ffibuilder",
        *(["cuse_netmap/_dpdk_build.py:ffibuilder"] if HAS_DPDK else []),
    ],
)
