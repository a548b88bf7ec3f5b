# SPDX-License-Identifier: BSD-2-Clause
"""On which line of a TOML text a key stands, and what a broken one was about; what keys mean is not known here.

tomllib keeps no positions, but it knows which beginnings of a text are whole: where one of them ends a statement
starts, and that statement ends with the next. Quadratic in the lines, and asked only when there is an error to word.
"""

import tomllib
from collections.abc import Iterator
from typing import Any

# Where a value stands: the tables around it from the outside in, and its key.
Keys = tuple[str, ...]


def locate(text: str, path: Keys) -> int:
    """The line on which the statement starts that gives path, or else the nearest table around it."""
    lines = _first_lines(text)
    return next((lines[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in lines), 1)


def diagnose(text: str, error: tomllib.TOMLDecodeError) -> tuple[int, Keys, str, str]:
    """What tomllib refused: the line, the table, the key (or "") and what is wrong with it."""
    lines = text.split("\n")
    start = max((end for _, end, _ in _statements(text)), default=0) + 1
    table = next((header for header in map(_header, reversed(lines[: start - 1])) if header), ())
    statement = lines[start - 1]
    path = _header(statement) or (*table, *_only_path(statement.partition("=")[0] + "=0"))
    first = _first_lines(text).get(path)
    what = f"is given twice, first on line {first}" if path != table and first else f"is not TOML: {_reason(error)}"
    return (start, path, "", what) if _header(statement) or path == table else (start, path[:-1], path[-1], what)


def _statements(text: str) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """First line, last line and the text parsed so far, of each statement up to the first broken one."""
    lines = text.split("\n")
    start = 1
    for end in range(1, len(lines) + 1):
        try:
            parsed = tomllib.loads("\n".join(lines[:end]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        yield start, end, parsed
        start = end + 1


def _first_lines(text: str) -> dict[Keys, int]:
    lines: dict[Keys, int] = {}
    for start, _, parsed in _statements(text):
        for path in _paths(parsed):
            lines.setdefault(path, start)
    return lines


def _paths(table: dict[str, Any], around: Keys = ()) -> Iterator[Keys]:
    for key, value in table.items():
        yield (*around, key)
        if isinstance(value, dict):
            yield from _paths(value, (*around, key))


def _header(line: str) -> Keys:
    return _only_path(line) if line.lstrip().startswith("[") else ()


def _only_path(statement: str) -> Keys:
    """The path that a statement gives by itself, () if it cannot be read."""
    try:
        return max(_paths(tomllib.loads(statement + "\n")), key=len, default=())
    except tomllib.TOMLDecodeError:
        return ()


def _reason(error: tomllib.TOMLDecodeError) -> str:
    # Its own position is where reading stopped, perhaps many lines after what has to be mended.
    return str(error).partition(" (at ")[0]
