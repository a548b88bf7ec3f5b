# SPDX-License-Identifier: BSD-2-Clause
"""Our own netmap programs in C, compiled against the public headers alone, as anybody's are."""

import subprocess
from pathlib import Path

from tests.support.patience import at_most

HERE = Path(__file__).resolve().parent.parent
INCLUDE = HERE.parent / "cuse_netmap" / "include"
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]


def compile_client(name: str, folder: Path, *, static: bool = False, age: int = 0) -> Path:
    """tests/clients/NAME.c as a program in `folder`; with `age` old/NAME.c, of that time (NETMAP_OLD_API)."""
    source = HERE / "clients" / ("old" if age else ".") / f"{name}.c"
    program = folder / (f"old-{name}-{age}" if age else f"{name}-static" if static else name)
    if not program.exists():
        extra = (["-static"] if static else []) + ([f"-DNETMAP_OLD_API={age}"] if age else [])
        subprocess.run(["gcc", *FLAGS, *extra, f"-I{INCLUDE}", "-o", program, source], check=True, timeout=at_most(60))
    return program
