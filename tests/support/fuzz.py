# SPDX-License-Identifier: BSD-2-Clause
"""The fuzzers of tests/fuzz: compiled with the sanitizers over the real sources; as a program, one long run."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.patience import at_most

HERE = Path(__file__).resolve().parent.parent
CORE = HERE.parent / "cuse_netmap"
PORTS = sorted(f"ports/{source.name}" for source in (CORE / "ports").glob("*.c"))
# Without the doors and what they alone need.
CORE_SOURCES = tuple(
    source.name for source in sorted(CORE.glob("*.c")) if source.name not in ("kloop.c", "client_files.c")
)
FLAGS = ["-std=gnu11", "-D_GNU_SOURCE", "-O1", "-g", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror"]
MEMORY = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
THREADS = ("-fsanitize=thread", "-Wno-tsan")  # it knows no fences, and nothing is published by one alone


@dataclass(frozen=True)
class Fuzzer:
    """What tests/fuzz/NAME.c is compiled with; one of its steps takes as long as `weight` of the others'."""

    sources: tuple[str, ...]
    sanitizers: tuple[str, ...] = MEMORY
    weight: int = 1


FUZZERS = {
    "engine": Fuzzer((*CORE_SOURCES, *PORTS)),
    "offload": Fuzzer(("ports/offload.c",)),
    "monitors": Fuzzer((*CORE_SOURCES, *PORTS), THREADS, 10000),
}


def compile_fuzzer(name: str, folder: Path) -> Path:
    """One of FUZZERS as a program in `folder`: NAME SEED STEPS."""
    program, fuzzer = folder / name, FUZZERS[name]
    sources = [HERE / "fuzz" / f"{name}.c", *(CORE / source for source in fuzzer.sources)]
    flags = [*FLAGS, *fuzzer.sanitizers, "-pthread", f"-I{CORE}", f"-I{CORE / 'include'}"]
    subprocess.run(["gcc", *flags, "-o", program, *sources], check=True, timeout=at_most(60))
    return program


def run(program: Path, seed: int, steps: int, seconds: float | None = None) -> None:
    """CalledProcessError if it found something; what it found stands on standard error."""
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    subprocess.run([program, str(seed), str(steps)], check=True, timeout=seconds, env=environment)


if __name__ == "__main__":
    first, count, steps = map(int, sys.argv[1:])
    build = HERE.parent / "build" / "fuzz"
    build.mkdir(parents=True, exist_ok=True)
    programs = {name: compile_fuzzer(name, build) for name in FUZZERS}
    for seed in range(first, first + count):
        for name, program in programs.items():
            run(program, seed, steps // FUZZERS[name].weight)
