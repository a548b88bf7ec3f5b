# SPDX-License-Identifier: BSD-2-Clause
"""What a configuration value may be, declared on the dataclass field it fills; files and their lines are config.py's.

A table of the configuration is a frozen dataclass whose fields are made by `integer`, `choice`, `flag`, `text` or
`octal`. A backend declares its own table the same way and needs nothing else from the configuration.
"""

import dataclasses
import json
import re
import shlex
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

Table = TypeVar("Table")
Value = TypeVar("Value")


@dataclasses.dataclass(frozen=True)
class Kind:
    """`read` turns TOML's value into ours, or raises ValueError; `allowed` completes "must be ..."."""

    read: Callable[[object], object]
    allowed: str
    live: bool


def _declare(default: Value, kind: Kind) -> Value:
    return dataclasses.field(default=default, metadata={"kind": kind})


def _refuse() -> NoReturn:
    raise ValueError


def integer(default: int, low: int, high: int, *, live: bool = False) -> int:
    """A whole number from low to high, both included; live: a reload may change it."""

    def read(value: object) -> object:
        # type() and not isinstance(): true and false are no numbers here.
        return value if type(value) is int and low <= value <= high else _refuse()

    return _declare(default, Kind(read, f"a whole number from {low} to {high}", live))


def choice(default: str, *others: str, live: bool = False) -> str:
    """One of a few words."""
    words = (default, *others)

    def read(value: object) -> object:
        return value if value in words else _refuse()

    return _declare(default, Kind(read, "one of " + ", ".join(f'"{word}"' for word in words), live))


def flag(default: bool, *, live: bool = False) -> bool:
    """True or false."""

    def read(value: object) -> object:
        return value if isinstance(value, bool) else _refuse()

    return _declare(default, Kind(read, "true or false", live))


def text(default: str, pattern: str, allowed: str, *, live: bool = False) -> str:
    """A string that the pattern matches from end to end; allowed says the pattern in words."""

    def read(value: object) -> object:
        return value if isinstance(value, str) and re.fullmatch(pattern, value) else _refuse()

    return _declare(default, Kind(read, allowed, live))


def words(allowed: str) -> tuple[str, ...]:
    """Words, as a shell splits a string, or as an array has them; none by default."""

    def read(value: object) -> object:
        if isinstance(value, str):
            return tuple(shlex.split(value))  # a ValueError if a quote is not closed
        if isinstance(value, list) and all(isinstance(word, str) for word in value):
            return tuple(value)
        return _refuse()

    return _declare((), Kind(read, allowed, live=False))


def octal(default: int, pattern: str, allowed: str, *, live: bool = False) -> int:
    """A number written as a string of octal digits, as file modes are."""

    def read(value: object) -> object:
        return int(value, 8) if isinstance(value, str) and re.fullmatch(pattern, value) else _refuse()

    return _declare(default, Kind(read, allowed, live))


@dataclasses.dataclass(frozen=True)
class DeviceOptions:
    """[ports.NAME] of a backend whose device says how many rings there are; what else it may say the backend adds."""


@dataclasses.dataclass(frozen=True)
class PortOptions(DeviceOptions):
    """The same where it is for us to say. The configuration holds both to what the memory has room for."""

    queues: int = integer(1, 1, 16)
    # The most that the largest ring object has room for.
    slots: int = integer(1024, 2, (131072 - 256) // 16)


def kinds(table: type[object]) -> dict[str, Kind]:
    """The keys of a table, in the order of their declaration."""
    return {field.name: field.metadata["kind"] for field in dataclasses.fields(table)}  # type: ignore[arg-type]


def fill(table: type[Table], values: Mapping[str, object], fail: Callable[[str, str], NoReturn]) -> Table:
    """The table filled with the values given; the first that does not fit goes to fail(key, what is wrong)."""
    allowed = kinds(table)
    known: dict[str, Any] = {}
    for key, value in values.items():
        if key not in allowed:
            fail(key, f"is no key here; allowed: {', '.join(allowed) or 'none'}")
        try:
            known[key] = allowed[key].read(value)
        except ValueError:
            fail(key, f"is {shown(value)}, must be {allowed[key].allowed}")
    return table(**known)


def shown(value: object) -> str:
    """A value as the configuration file spells it, short enough for a log line."""
    match value:
        case bool():
            spelled = "true" if value else "false"
        case str():
            spelled = json.dumps(value, ensure_ascii=False)
        case Mapping():
            return "a table"
        case list():
            return "an array"
        case _:
            spelled = str(value)
    return spelled if len(spelled) <= 60 else spelled[:57] + "..."
