# SPDX-License-Identifier: BSD-2-Clause
"""What is left of the package once it is purged: nothing. Runs last in the guest."""

import subprocess
from pathlib import Path

from tests.support.patience import at_most


def test_purge_leaves_nothing() -> None:
    subprocess.run(["systemctl", "start", "cuse-netmap"], check=True, timeout=at_most(30))
    subprocess.run(["cuse-netmap", "preload", "--enable"], check=True, timeout=at_most(30))
    done = subprocess.run(
        ["dpkg", "--purge", "cuse-netmap"], capture_output=True, text=True, timeout=at_most(40), check=False
    )
    assert done.returncode == 0, done.stderr
    for path in (
        "/dev/netmap",
        "/etc/cuse-netmap/netmap.toml",
        "/usr/bin/cuse-netmap",
        "/sys/class/net/tap0",
        "/etc/ld.so.preload",
    ):
        assert not Path(path).exists(), path
