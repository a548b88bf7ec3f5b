# SPDX-License-Identifier: BSD-2-Clause
"""What the state files say: the device, the parameters, packet memory, ports and their rings, switches, clients.

How files come to be is state.py's, where the values come from, the registry's and the engine's. All of it is read
with control's lock held.
"""

import logging
import pwd
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial

from cuse_netmap._core import DIRECTIONS, DROPS, OpenFile, Port, Region, RingStats
from cuse_netmap.control.parameters import TABLE, Parameters
from cuse_netmap.control.registry import Holder, PortView, Registry, SwitchView
from cuse_netmap.errors import Refused
from cuse_netmap.state import Each, File, Fixed, Folder

log = logging.getLogger(__name__)

COUNTERS = ("packets", "bytes", "syncs", "wakeups", "bad_rings", "bad_slots")


def tree(device: Mapping[str, object], parameters: Parameters, registry: Registry) -> Folder:
    """The root; `device` is what does not change for the daemon's whole life."""
    return Fixed(
        {
            "device": Fixed({name: _constant(value) for name, value in device.items()}),
            "parameters": Fixed({name: _parameter(parameters, name) for name in TABLE}),
            "memory": Each(registry.regions.by_name, _region),
            "ports": Each(registry.ports, partial(_port, registry)),
            "vale": Each(registry.switches, _switch),
            "clients": Each(
                lambda: {str(number): holder for number, holder in registry.holders.items()},
                partial(_client, registry),
            ),
        }
    )


def _constant(value: object) -> File:
    return File(lambda: value)


def _parameter(parameters: Parameters, name: str) -> File:
    def write(text: str) -> None:
        try:
            parameters.write(name, text)
        except Refused as refusal:
            log.warning("refused: parameter %s: %s (%s)", name, refusal.reason, refusal.code)
            raise
        log.info("parameter %s is %d now", name, parameters.value(name))

    return File(lambda: parameters.value(name), write if TABLE[name].live else None)


def _region(_name: str, region: Region) -> Folder:
    def pool(name: str) -> Folder:
        return Fixed(
            {
                "size": File(lambda: region.pool(name).objsize),
                "total": File(lambda: region.pool(name).objtotal),
                "used": File(lambda: region.pool(name).used),
            }
        )

    return Fixed({"size": File(lambda: region.size), **{name: pool(name) for name in Region.POOLS}})


# ---- ports


def _port(registry: Registry, _name: str, view: PortView) -> Folder:
    port = view.port
    return Fixed(
        {
            "kind": File(lambda: port.kind),
            "backend": _constant(view.backend),
            "description": _constant(view.description),
            "mem_id": File(lambda: registry.regions.id_of(port)),
            "users": File(lambda: port.files),
            "mtu": File(lambda: port.mtu),
            "gone": File(lambda: int(port.gone)),
            **{direction: _direction(port, direction) for direction in DIRECTIONS},
            **_device(view),
        }
    )


def _device(view: PortView) -> dict[str, File | Folder]:
    """What the backend says of the device, if it says anything."""
    names = list(view.facts())
    return {"device": Fixed({name: File(partial(_fact, view, name)) for name in names})} if names else {}


def _fact(view: PortView, name: str) -> object:
    return view.facts().get(name, "")


def _direction(port: Port, direction: str) -> Folder:
    """What all rings of a direction have counted together, and the rings by number."""

    def rings() -> dict[str, int]:
        return {str(number): number for number in range(port.all_rings(direction))}

    def total() -> RingStats:
        return RingStats.total(port.ring(direction, number).stats for number in rings().values())

    totals = {
        "rings": File(lambda: port.rings(direction)),
        "host_rings": File(lambda: port.host_rings(direction)),
        "slots": File(lambda: port.slots(direction)),
        **_counters(total),
    }
    return _Both(totals, Each(rings, lambda _, number: _ring(port, direction, number)))


class _Both(Fixed):
    """Names that are always there, and others."""

    def __init__(self, children: Mapping[str, File | Folder], others: Folder) -> None:
        super().__init__(children)
        self.others = others

    def names(self) -> list[str]:
        return [*super().names(), *self.others.names()]

    def child(self, name: str) -> File | Folder | None:
        return super().child(name) or self.others.child(name)


def _ring(port: Port, direction: str, number: int) -> Folder:
    def value(name: str) -> File:
        return File(lambda: int(getattr(port.ring(direction, number), name)))

    values = {name: value(name) for name in ("slots", "host", "users", "hwcur", "hwtail", "rhead")}
    return Fixed({**values, **_counters(lambda: port.ring(direction, number).stats)})


def _counters(stats: Callable[[], RingStats]) -> dict[str, File | Folder]:
    def drops(reason: str) -> File:
        return File(lambda: stats().drops.get(reason, 0))

    def counter(name: str) -> File:
        return File(lambda: int(getattr(stats(), name)))

    return {
        **{name: counter(name) for name in COUNTERS},
        "drops": Fixed({reason: drops(reason) for reason in DROPS}),
    }


# ---- switches


def _switch(_name: str, switch: SwitchView) -> Folder:
    ports = {str(place): name for name, place in switch.places.items()}
    return Fixed(
        {
            "ports": Each(lambda: ports, lambda _, name: _constant(name)),
            "learned": Each(switch.learned, lambda _, place: _constant(place)),
        }
    )


# ---- clients


def _client(registry: Registry, _number: str, holder: Holder) -> Folder:
    return Fixed(
        {
            "pid": _constant(holder.pid),
            "command": _constant(holder.command),
            "user": File(lambda: holder.uid, show=_user),
            "port": File(lambda: registry.port_of(holder)),
            "rings": File(lambda: _bound(holder.open)),
        }
    )


def _user(uid: int) -> str:
    """A user's name, which somebody far away may have to be asked for; the number of one that has none."""
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _bound(open_file: OpenFile) -> str:
    """The rings as they are called in the port's folder."""
    return " ".join(f"{direction}/{number}" for direction in DIRECTIONS for number in open_file.bound(direction))
