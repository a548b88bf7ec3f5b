# SPDX-License-Identifier: BSD-2-Clause
"""`cuse-netmap status`: a daemon's state files as tables for people, or as JSON. It asks nobody but those files."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cuse_netmap.errors import SetupError, remedy
from cuse_netmap.namespace import mounted_at
from cuse_netmap.state import STATE_VARIABLE, key_of, state_path

TEXTS = {"backend", "command", "description", "kind", "port", "user", "version"}  # all else that is digits is a number

Tree = dict[str, Any]


def status(device: str | None, *, as_json: bool) -> int:
    """Prints it; without a device that of `run`'s daemon if we are its program, else /dev/netmap's. SetupError."""
    given = os.environ.get(STATE_VARIABLE)
    path = Path(given) if device is None and given else state_path(device or "netmap")
    name = device or "netmap"
    if not mounted_at(path):
        raise SetupError(f"no state files at {path}: no daemon serves /dev/{name}, or its log says why")
    try:
        found = read(path)
    except OSError as error:
        if error.errno == errno.ENOTCONN:
            which = "" if name == "netmap" else f" --device={name}"
            again = f"start it again (cuse-netmap serve{which}), or remove what it left (cuse-netmap cleanup{which})"
            raise SetupError(
                f"the daemon of /dev/{name} has ended without tidying up, killed perhaps: {again}"
            ) from error
        raise SetupError(f"{path}: {error.strerror}{remedy(error)}") from error
    print(json.dumps(found, indent=2) if as_json else "\n".join(in_tables(found)))
    return 0


def read(folder: Path) -> Tree:
    """All below a folder, by the names that file names stand for. OSError."""
    found: Tree = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                found[key_of(entry.name)] = read(Path(entry)) if entry.is_dir() else _value(Path(entry))
            except FileNotFoundError:
                continue  # a port or a client that went while we looked
    return found


def _value(file: Path) -> str | int:
    text = file.read_text().removesuffix("\n")
    return int(text) if text.isdecimal() and file.name not in TEXTS else text


def in_tables(found: Tree) -> Iterator[str]:
    """Line by line."""
    device = found["device"]
    doors = " and ".join(device["doors"].split())
    yield f"{device['node']}: {doors} door, {device['transport']}, mmap by {device['mmap']}"
    if device["mmap"] == "helper":
        yield "programs map it with the helper: cuse-netmap run PROGRAM; all programs: cuse-netmap preload --enable"
    yield f"cuse-netmap {device['version']}, pid {device['pid']}"
    for number, region in found["memory"].items():
        pools = ", ".join(f"{region[pool]['used']} of {region[pool]['total']} {pool}" for pool in ("if", "ring", "buf"))
        yield f"memory {number}: {region['size']} bytes; in use {pools}"
    yield from _table(
        ("PORT", "KIND", "BACKEND", "USERS", "TX RINGS", "SENT", "DROPPED", "RX RINGS", "RECEIVED", "DROPPED"),
        [_port(name, port) for name, port in found["ports"].items()],
    )
    yield from _table(
        ("SWITCH", "INDEX", "PORT", "LEARNED"),
        [row for name, switch in found["vale"].items() for row in _switch(name, switch)],
    )
    yield from _table(
        ("PID", "COMMAND", "USER", "PORT", "RINGS"),
        [[client[key] for key in ("pid", "command", "user", "port", "rings")] for client in found["clients"].values()],
    )


def _port(name: str, port: Tree) -> list[object]:
    row = [name, port["kind"], port["backend"] or "-", port["users"] if not port["gone"] else "gone"]
    for direction in ("tx", "rx"):
        side = port[direction]
        row += [f"{side['rings']} x {side['slots']}", side["packets"], sum(side["drops"].values())]
    return row


def _switch(name: str, switch: Tree) -> Iterator[list[object]]:
    for index, port in switch["ports"].items():
        learned = [address for address, where in switch["learned"].items() if str(where) == index]
        yield [name, index, port, " ".join(learned) or "-"]


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Columns as wide as what is in them, numbers to the right; nothing for no rows."""
    if not rows:
        return
    texts = [heads, *([_printable(str(value)) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in texts) for column in range(len(heads))]
    numeric = [all(isinstance(row[column], int) for row in rows) for column in range(len(heads))]
    yield ""
    for row in texts:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        yield "  ".join(cells).rstrip()


def _printable(text: str) -> str:
    """Programs choose their names: none may steer a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
