# SPDX-License-Identifier: BSD-2-Clause
"""One TOML file as frozen dataclasses, and what a reload may change; what each value may be is declared in options.py.

Everything wrong with a file is a ConfigError that reads `FILE:LINE: [table] key: what is wrong and what is allowed`.
"""

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from cuse_netmap.backends import BACKENDS, MAKERS, xdp
from cuse_netmap.control.parameters import Settings
from cuse_netmap.options import DeviceOptions, choice, fill, integer, kinds, octal, shown, text, words
from cuse_netmap.toml_lines import Keys, diagnose, locate

REGION_LIMIT = 1 << 32
PAGE = 4096
# Of ABI.md section 3.5: a ring's slots follow its header, a netmap_if's ring offsets theirs.
RING_HEADER, SLOT = 256, 16
IF_HEADER, RING_OFFSET = 56, 8


class ConfigError(ValueError):
    """The configuration cannot be used; the text says where and why, and what would do."""


class OptionError(ConfigError):
    """It cannot because of what the command line has."""


@dataclasses.dataclass(frozen=True)
class Device:
    """[device]: the node /dev/NAME and how system calls reach us through it."""

    name: str = text("netmap", r"(?!\.{1,2}$)[A-Za-z0-9_.-]{1,31}", "1 to 31 of A-Z a-z 0-9 _ . -")
    door: str = choice("auto", "fuse", "cuse")
    transport: str = choice("auto", "uring", "classic")
    mode: int = octal(0o660, r"0[0246]{3}", 'a string such as "0660": read and write bits in octal')
    group: str = text("netmap", r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", "the name of a group")


@dataclasses.dataclass(frozen=True)
class Log:
    """[log]: how much is said."""

    level: str = choice("info", "debug", "warning", "error", live=True)


@dataclasses.dataclass(frozen=True)
class Interfaces:
    """[interfaces]: the kernel's own, which programs name without a [ports.NAME]."""

    backend: str = text("auto", r"[A-Za-z0-9_.-]+", "the name of a backend")
    on_exit: str = choice("restore", "block")
    xdp_mode: str = choice(*xdp.MODES)
    xdp_buffers: int = integer(*xdp.BUFFERS)


@dataclasses.dataclass(frozen=True)
class Dpdk:
    """[dpdk]: the EAL that all ports of that backend share, and how those who sleep on its rings are woken."""

    eal: tuple[str, ...] = words('EAL options such as "--no-huge -m 512", or an array of them')
    poll_us: int = integer(1000, 20, 1000000)


@dataclasses.dataclass(frozen=True)
class Memory:
    """[memory]: the three pools of the one region; sizes in bytes (ABI.md section 8)."""

    # The lower bounds of both sizes leave room for a port of one queue and for a ring of two slots.
    if_size: int = integer(1024, 88, 4096)
    if_num: int = integer(100, 10, 10000)
    ring_size: int = integer(36864, 288, 131072)
    ring_num: int = integer(200, 2, 1024)
    buf_size: int = integer(2048, 64, 65536)
    buf_num: int = integer(163840, 4, 1000000)

    @property
    def pools(self) -> dict[str, int]:
        """Bytes of each pool: objects rounded up to 64, in clusters that fill whole pages."""
        return {
            "if": _pool(self.if_size, self.if_num),
            "ring": _pool(self.ring_size, self.ring_num),
            "buf": _pool(self.buf_size, self.buf_num),
        }

    @property
    def region(self) -> int:
        """Bytes of the whole region, the nr_memsize that programs map."""
        return sum(self.pools.values())

    @property
    def most_slots(self) -> int:
        """Slots of the longest ring that fits one ring object."""
        return (_object(self.ring_size) - RING_HEADER) // SLOT

    @property
    def most_queues(self) -> int:
        """Queues of the widest port whose netmap_if, with a host ring in each direction, fits one if object."""
        return (_object(self.if_size) - IF_HEADER) // (2 * RING_OFFSET) - 1


def _object(size: int) -> int:
    return -(-size // 64) * 64


def _pool(size: int, count: int) -> int:
    size = _object(size)
    cluster = next(objects for objects in range(1, 65) if objects * size % PAGE == 0)
    return -(-count // cluster) * cluster * size


# A port is opened as netmap:NAME. Its programs end the name at one of -*^{}/@, the kernel forbids ':' and spaces in an
# interface's name, and netmap takes whatever begins with "val" for a VALE port: none of these could ever be opened.
PORT_NAME = re.compile(r"(?!val|\.{1,2}$)[A-Za-z0-9_.]{1,15}")
PORT_NAME_IN_WORDS = '1 to 15 of A-Z a-z 0-9 _ . and neither "." nor ".." nor begin with "val"'
DEFAULT_PORTS = MappingProxyType({"tap0": {"backend": "tap"}})


@dataclasses.dataclass(frozen=True)
class Port:
    """[ports.NAME]: which backend serves the name, and that backend's own options."""

    name: str
    backend: str
    options: DeviceOptions


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a file can say; load() makes it, of no file too."""

    device: Device
    log: Log
    memory: Memory
    parameters: Any  # a Settings, which is made of a table
    interfaces: Interfaces
    dpdk: Dpdk
    ports: Mapping[str, Port]


def load(path: Path | None = None, overrides: Mapping[Keys, object] = MappingProxyType({})) -> Config:
    """The configuration of a file, or the default one; overrides are values of the command line, by where they stand.

    Overrides pass the same checks: `{("device", "door"): "fuse", ("ports", "tap1", "backend"): "tap"}`.
    """
    return _Given(str(path or ""), _text(path) if path else "", overrides).config()


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a configuration comes from, at start and again at each reload."""

    path: Path | None
    overrides: Mapping[Keys, object]

    def load(self) -> Config:
        return load(self.path, self.overrides)


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise ConfigError(message) from error
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"{path}:{line}: is not UTF-8"
        raise ConfigError(message) from error


TABLES = ("device", "log", "memory", "parameters", "interfaces", "dpdk")
ALLOWED = {name: f"[{name}]" for name in TABLES} | {"ports": "[ports.NAME]"}


@dataclasses.dataclass(frozen=True)
class _Given:
    """One file's text and the command line's values over it, on their way to a Config."""

    name: str
    text: str
    overrides: Mapping[Keys, object]

    def config(self) -> Config:
        tables = self._tables()
        for name, table in tables.items():
            if name not in ALLOWED:
                self._fail((), name, f"is no table of a configuration; allowed: {', '.join(ALLOWED.values())}")
            self._table((name,), table)
        memory = self._memory(tables.get("memory", {}))
        ports = tables.get("ports", DEFAULT_PORTS)
        return Config(
            device=fill(Device, tables.get("device", {}), partial(self._fail, ("device",))),
            log=fill(Log, tables.get("log", {}), partial(self._fail, ("log",))),
            memory=memory,
            parameters=fill(Settings, tables.get("parameters", {}), partial(self._fail, ("parameters",))),
            interfaces=self._interfaces(tables.get("interfaces", {})),
            dpdk=fill(Dpdk, tables.get("dpdk", {}), partial(self._fail, ("dpdk",))),
            ports=MappingProxyType({name: self._port(name, given, memory) for name, given in ports.items()}),
        )

    def _tables(self) -> dict[str, Any]:
        try:
            tables = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            line, table, key, what = diagnose(self.text, error)
            raise ConfigError(_described(f"{self.name}:{line}", table, key, what)) from error
        for (*path, key), value in self.overrides.items():
            inner = tables
            for depth, name in enumerate(path, start=1):
                inner = self._table(tuple(path[:depth]), inner.setdefault(name, {}))
            inner[key] = value
        return tables

    def _interfaces(self, table: Mapping[str, object]) -> Interfaces:
        interfaces = fill(Interfaces, table, partial(self._fail, ("interfaces",)))
        takers = [name for name in BACKENDS if name not in MAKERS]
        if interfaces.backend not in takers:
            what = f"is {shown(interfaces.backend)}, must be one of {', '.join(map(shown, takers))}"
            self._fail(("interfaces",), "backend", what)
        return interfaces

    def _memory(self, table: Mapping[str, object]) -> Memory:
        memory = fill(Memory, table, partial(self._fail, ("memory",)))
        if memory.region >= REGION_LIMIT:
            pool = max(memory.pools, key=memory.pools.__getitem__)
            sums = " + ".join(f"{name} {size}" for name, size in memory.pools.items())
            what = f"the region would be {memory.region} bytes ({sums}), must stay below {REGION_LIMIT}"
            self._fail(("memory",), next(key for key in (f"{pool}_num", f"{pool}_size") if key in table), what)
        return memory

    def _port(self, name: str, given: object, memory: Memory) -> Port:
        path = ("ports", name)
        if not PORT_NAME.fullmatch(name):
            self._fail(path, "", f"is no port's name, must be {PORT_NAME_IN_WORDS}")
        given = self._table(path, given)
        backend = given.get("backend")
        if not isinstance(backend, str) or backend not in BACKENDS:
            found = f"is {shown(backend)}" if "backend" in given else "is missing"
            self._fail(path, "backend", f"{found}, must be one of {', '.join(map(shown, BACKENDS))}")
        options = {key: value for key, value in given.items() if key != "backend"}
        port = Port(name, backend, fill(BACKENDS[backend].Options, options, partial(self._fail, path)))
        for key, most, bound in (
            ("slots", memory.most_slots, "ring_size"),
            ("queues", memory.most_queues, "if_size"),
        ):
            value = getattr(port.options, key, 0)
            if value > most:
                room = f"[memory] {bound} = {getattr(memory, bound)} has room for at most {most}"
                if key in given:
                    self._fail(path, key, f"is {value}, but {room}")
                self._fail(("memory",), bound, f"is too small for [ports.{name}] {key} = {value}: {room}")
        return port

    def _table(self, path: Keys, value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            self._fail(path[:-1], path[-1], f"is {shown(value)}, must be a table")
        return value

    def _fail(self, table: Keys, key: str, what: str) -> NoReturn:
        """Refuse a key of a table, or with the key "" the table."""
        path = (*table, key) if key else table
        overridden = any(keys[: len(path)] == path for keys in self.overrides)
        if overridden or not self.name:
            raise OptionError(_described("command line", table, key, what))
        raise ConfigError(_described(f"{self.name}:{locate(self.text, path)}", table, key, what))


def _described(place: str, table: Keys, key: str, what: str) -> str:
    header = f"[{'.'.join(map(_spelled, table))}]" if table else ""
    where = " ".join(filter(None, (header, _spelled(key) if key else "")))
    return ": ".join(filter(None, (place, where, what)))


def _spelled(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else shown(key)


@dataclasses.dataclass(frozen=True)
class Change:
    """One difference between two configurations; refused says why a reload cannot make it, "" that it can.

    A port that comes or goes is one Change with the key "" and None for the side on which it is missing.
    """

    table: str
    key: str
    old: object
    new: object
    refused: str = ""


_REFUSED = {
    "device": "the node is made once, at start: restart the daemon",
    "log": "",
    "memory": "write the parameter of that name in the state files, or restart the daemon",
    "parameters": "it is read once, at start: restart the daemon",
    "interfaces": "it is read once, at start: restart the daemon",
    "dpdk": "DPDK is started once: restart the daemon",
    "ports": "the port's rings may be in use: take the port out, reload, put it back, reload",
}


def diff(old: Config, new: Config) -> list[Change]:
    """What a reload from old to new has to do, in the order of the tables."""
    changes = [
        change
        for name in TABLES
        for change in _diff_table(name, _REFUSED[name], getattr(old, name), getattr(new, name))
    ]
    for name in {**old.ports, **new.ports}:
        table = f"ports.{name}"
        before, after = old.ports.get(name), new.ports.get(name)
        if before is None or after is None:
            changes.append(Change(table, "", before, after))
        elif before.backend != after.backend:
            changes.append(Change(table, "backend", before.backend, after.backend, _REFUSED["ports"]))
        else:
            changes += _diff_table(table, _REFUSED["ports"], before.options, after.options)
    return changes


def _diff_table(table: str, refused: str, old: object, new: object) -> list[Change]:
    return [
        Change(table, key, getattr(old, key), getattr(new, key), "" if kind.live else refused)
        for key, kind in kinds(type(old)).items()
        if getattr(old, key) != getattr(new, key)
    ]
