# SPDX-License-Identifier: BSD-2-Clause
"""Packages of others, as they are installed beside cuse-netmap: built from tests/packages into a folder of a test's."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import at_most

SOURCES = Path(__file__).parents[1] / "packages"


def install(name: str, folder: Path) -> Path:
    """Builds and installs tests/packages/NAME; the folder that is to be on PYTHONPATH."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    source, target = folder / "source", folder / "target"
    shutil.copytree(SOURCES / name, source)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command += ["--no-build-isolation", "--no-index", "--no-deps", "--target", str(target), str(source)]
    # A sanitizer build is for our own code.
    environment = {key: value for key, value in os.environ.items() if key != "LD_PRELOAD"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=at_most(120))
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
    return target


def on_path(folder: Path) -> str:
    """A PYTHONPATH with that folder first."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
