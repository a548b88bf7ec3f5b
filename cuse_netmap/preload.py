# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap preload`: the helper for every program of the system, by a line in /etc/ld.so.preload."""

import os
import stat
import tempfile
from pathlib import Path

from cuse_netmap.device import helper_library
from cuse_netmap.errors import SetupError

LIST = Path("/etc/ld.so.preload")


def enabled() -> bool:
    return helper_library() in _entries()


def switch(*, on: bool) -> None:
    """Adds our line or takes it out; other lines stay as they are. SetupError: not allowed to."""
    library = helper_library()
    if on and not Path(library).exists():
        # A line that names no library makes every program on the system complain.
        raise SetupError(f"{library} is missing: run `make build`")
    if on:
        _check_owner(Path(library).resolve())
    lines = [line for line in _entries() if line != library]
    if on:
        lines.append(library)
    try:
        if not lines:
            LIST.unlink(missing_ok=True)
            return
        # Whatever starts meanwhile reads the old list or the new one.
        with tempfile.NamedTemporaryFile("w", dir=LIST.parent, delete=False) as new:
            new.write("".join(f"{line}\n" for line in lines))
            os.fchmod(new.fileno(), 0o644)
        Path(new.name).replace(LIST)
    except OSError as error:
        raise SetupError(f"{LIST}: {error.strerror}: run it as root (sudo)") from error


def _check_owner(library: Path) -> None:
    """Every program of root's will load it: nobody else may be able to change it. SetupError."""
    for place in (library, *library.parents):
        status = place.stat()
        if status.st_uid or (status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX):
            raise SetupError(f"{place} can be changed by others than root: install the package first")


def _entries() -> list[str]:
    return LIST.read_text().splitlines() if LIST.exists() else []
