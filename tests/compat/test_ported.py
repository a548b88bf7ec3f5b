# SPDX-License-Identifier: BSD-2-Clause
"""Programs for the library: those written for the one that DPDK had, and how they are compiled once it is installed."""

import os
import subprocess
from pathlib import Path

from tests.support.clients import HERE
from tests.support.inside import BUILD, EAL, ROOT, SANITIZED, SANITIZER, compile_with, devices
from tests.support.patience import at_most


def test_a_program_for_dpdks_library_compiles_unchanged_and_runs(library: Path, tmp_path: Path) -> None:
    """Issue: "The netmap half of a program written for it compiles unchanged", calls that have gone included."""
    del library
    program = compile_with(HERE / "compat" / "clients" / "ported.c", tmp_path / "ported")
    command = [str(program), "5000", *EAL, *devices("net_ring0")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=at_most(50), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "5000 frames\n"


def test_what_is_installed_compiles_programs_by_pkg_config(library: Path, tmp_path: Path) -> None:
    """Issue: "pkg-config file, man page": nothing of the tree is needed any more."""
    del library
    prefix = tmp_path / "usr"
    others = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    sanitized = ["COMPAT_EXTRA=" + " ".join(SANITIZER)] if SANITIZED else []
    install = ["make", "--silent", "install-compat", "install-headers", f"PREFIX={prefix}"]
    command = [*install, f"COMPAT_BUILD={BUILD.relative_to(ROOT)}", *sanitized]
    subprocess.run(command, cwd=ROOT, env=others, check=True, timeout=at_most(300))
    others["PKG_CONFIG_PATH"] = str(prefix / "lib" / "pkgconfig")
    asked = ["pkg-config", "--cflags", "--libs", "compat_netmap"]
    flags = subprocess.run(asked, env=others, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    program = tmp_path / "bridge"
    source = ROOT / "compat" / "examples" / "bridge.c"
    compiler = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", *SANITIZER, "-o", str(program), str(source), *flags]
    subprocess.run([*compiler, f"-Wl,-rpath,{prefix / 'lib'}"], env=others, check=True, timeout=at_most(120))
    assert subprocess.run([program, *EAL, "--", "-h"], check=False, timeout=at_most(30)).returncode == 0
    assert (prefix / "share" / "man" / "man3" / "compat_netmap.3").stat().st_size > 0
