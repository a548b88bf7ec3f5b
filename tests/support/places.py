# SPDX-License-Identifier: BSD-2-Clause
"""A /dev and a /run/cuse-netmap of one's own, for tests that run beside other tests on the same machine."""

import os
import stat
import subprocess
import tempfile
from pathlib import Path

from cuse_netmap.namespace import bind


def mount_private_places() -> None:
    """In a private mount namespace: daemons started from here see only what daemons started from here leave.

    The devices are those that there are now; a CUSE device that is made later appears in the machine's /dev alone.
    """
    run = Path("/run/cuse-netmap")
    run.mkdir(mode=0o755, exist_ok=True)
    _tmpfs(run)
    made = Path(tempfile.mkdtemp())
    _tmpfs(made)
    _copy(Path("/dev"), made)
    for mount in ("pts", "shm"):
        bind(Path("/dev", mount), made / mount)
    subprocess.run(["mount", "--move", made, "/dev"], check=True)
    made.rmdir()


def _tmpfs(path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", path], check=True)


def _copy(source: Path, target: Path) -> None:
    """The device nodes, links and folders of one folder, with their owners and modes."""
    for entry in os.scandir(source):
        status = entry.stat(follow_symlinks=False)
        copy = target / entry.name
        if entry.is_symlink():
            copy.symlink_to(Path(entry).readlink())
        elif entry.is_dir():
            copy.mkdir()
            if not os.path.ismount(entry):
                _copy(Path(entry), copy)
        elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
            os.mknod(copy, status.st_mode, status.st_rdev)
            copy.chmod(stat.S_IMODE(status.st_mode))
            os.chown(copy, status.st_uid, status.st_gid)
