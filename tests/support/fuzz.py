# SPDX-License-Identifier: BSD-2-Clause
"""The fuzzers of tests/fuzz: compiled with the sanitizers over the real sources; as a program, one long run."""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent
CORE = HERE.parent / "cuse_netmap"
ENGINE = ("region.c", "ring_core.c", "bind.c", "offsets.c", "events.c", "ports/nic.c", "ports/null.c")
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-pthread"]


def compile_engine(folder: Path) -> Path:
    """The fuzzer of the engine, as a program in `folder`: engine SEED STEPS."""
    program = folder / "engine"
    sources = [HERE / "fuzz" / "engine.c", *(CORE / name for name in ENGINE)]
    includes = [f"-I{CORE}", f"-I{CORE / 'include'}"]
    subprocess.run(["gcc", *FLAGS, *SANITIZERS, *includes, "-o", program, *sources], check=True, timeout=60)
    return program


def run(program: Path, seed: int, steps: int, seconds: float | None = None) -> None:
    """CalledProcessError if it found something; what it found stands on standard error."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    subprocess.run([program, str(seed), str(steps)], check=True, timeout=seconds, env=environment)


if __name__ == "__main__":
    first, count, steps = map(int, sys.argv[1:])
    build = HERE.parent / "build" / "fuzz"
    build.mkdir(parents=True, exist_ok=True)
    engine = compile_engine(build)
    for seed in range(first, first + count):
        run(engine, seed, steps)
