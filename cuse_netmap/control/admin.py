# SPDX-License-Identifier: BSD-2-Clause
"""The requests that are about ports and switches, not about the descriptor they come through (ABI.md section 4.2).

Each takes the name and the body that came, and returns those that go back.
"""

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from cuse_netmap.control import names
from cuse_netmap.control.registry import Registry
from cuse_netmap.control.requests import (
    NewInterface,
    PoolsInfo,
    PortHeader,
    PortInfo,
    Record,
    RequestType,
    ValeAttach,
    ValeDetach,
    ValeList,
    ValePolling,
)
from cuse_netmap.errors import Refused

Answer = tuple[str, Record | None]


@dataclass(frozen=True)
class Request:
    """How one type of request is decided; `body` is None for those that have none."""

    body: type[Record] | None
    decide: Callable[[Registry, str, Any], Answer]
    changes: bool = False  # what it may do depends on who has closed what
    undo: Callable[[Registry, str], object] | None = None  # should an interface refuse what was decided


def _port_info(registry: Registry, name: str, asked: PortInfo) -> Answer:
    return name, registry.port_info(name, asked)


def _pools_info(registry: Registry, name: str, asked: PoolsInfo) -> Answer:
    if not name:
        raise Refused(errno.ENXIO, "no port is named")
    info = registry.port_info(name, PortInfo(mem_id=asked.mem_id))
    answer = PoolsInfo(memsize=info.memsize, mem_id=info.mem_id)
    for pool in ("if", "ring", "buf"):
        geometry = registry.regions.find(info.mem_id).pool(pool)
        setattr(answer, f"{pool}_offset", geometry.offset)
        setattr(answer, f"{pool}_total", geometry.objtotal)
        setattr(answer, f"{pool}_size", geometry.objsize)
    return name, answer


def _attach(registry: Registry, name: str, asked: ValeAttach) -> Answer:
    register = asked.register
    registry.regions.find(register.mem_id)
    return name, ValeAttach(asked.raw_register, registry.vale.attach(names.parse(name), register))


def _undo_attach(registry: Registry, name: str) -> None:
    registry.vale.detach(names.parse(name))


def _detach(registry: Registry, name: str, _asked: ValeDetach) -> Answer:
    return name, ValeDetach(registry.vale.detach(names.parse(name)))


def _list(registry: Registry, name: str, asked: ValeList) -> Answer:
    return registry.vale.list(name, asked)


def _set_header(registry: Registry, name: str, asked: PortHeader) -> Answer:
    registry.vale.set_header(name, asked.length)
    return name, asked


def _get_header(registry: Registry, name: str, _asked: PortHeader) -> Answer:
    return name, PortHeader(registry.header(name))


def _create(registry: Registry, name: str, asked: NewInterface) -> Answer:
    return name, registry.vale.create(name, registry.regions.find(asked.mem_id), asked)


def _delete(registry: Registry, name: str, _asked: None) -> Answer:
    registry.vale.delete(name)
    registry.regions.sweep()
    return name, None


def _poll(registry: Registry, name: str, asked: ValePolling) -> Answer:
    registry.vale.poll(names.parse(name), asked)
    return name, asked


def _stop_polling(registry: Registry, name: str, asked: ValePolling) -> Answer:
    registry.vale.poll(names.parse(name), None)
    return name, asked


REQUESTS: Mapping[int, Request] = MappingProxyType(
    {
        RequestType.PORT_INFO_GET: Request(PortInfo, _port_info),
        RequestType.POOLS_INFO_GET: Request(PoolsInfo, _pools_info),
        RequestType.VALE_ATTACH: Request(ValeAttach, _attach, changes=True, undo=_undo_attach),
        RequestType.VALE_DETACH: Request(ValeDetach, _detach, changes=True),
        RequestType.VALE_LIST: Request(ValeList, _list),
        RequestType.PORT_HDR_SET: Request(PortHeader, _set_header),
        RequestType.PORT_HDR_GET: Request(PortHeader, _get_header),
        RequestType.VALE_NEWIF: Request(NewInterface, _create, changes=True),
        RequestType.VALE_DELIF: Request(None, _delete, changes=True),
        RequestType.VALE_POLLING_ENABLE: Request(ValePolling, _poll),
        RequestType.VALE_POLLING_DISABLE: Request(ValePolling, _stop_polling),
    }
)
