# SPDX-License-Identifier: BSD-2-Clause
"""Pipes: NAME{ID and NAME}ID, made when either end is first opened (ABI.md section 12.3)."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from cuse_netmap._core import Port, Region, pipe_ports
from cuse_netmap.control import sizes
from cuse_netmap.control.names import PortName
from cuse_netmap.control.sizes import Asked
from cuse_netmap.errors import Refused

MOST = 64  # of one parent


@dataclass(frozen=True)
class Pipe:
    """A pipe that somebody uses: its ends, master first."""

    ends: tuple[Port, Port]

    @property
    def used(self) -> bool:
        return any(end.files for end in self.ends)


class Pipes:
    """All pipes, by parent and identifier."""

    def __init__(self) -> None:
        self.pipes: dict[tuple[str, str], Pipe] = {}

    def ports(self) -> Iterator[tuple[str, Port]]:
        """Both ends of each, by name."""
        for (parent, identifier), pipe in self.pipes.items():
            yield from zip(_end_names(parent, identifier), pipe.ends, strict=True)

    def find(self, name: PortName) -> Port:
        """An end of a pipe that there is. Refused ENODEV."""
        pipe = self.pipes.get((name.parent, name.pipe))
        if pipe is None:
            raise Refused(errno.ENODEV, f"there is no pipe {name.name!r}")
        return pipe.ends[name.end]

    def open(self, name: PortName, region: Region, parent: Port | None, asked: Asked) -> Port:
        """The end of that name; the pipe is made if need be, in the region and of the sizes of its parent, if any.

        Refused EINVAL: half a name; EBUSY: a switch holds the parent; ENOMEM: too many pipes.
        """
        if not name.valid:
            raise Refused(errno.EINVAL, f"{name.name!r} names no pipe: PARENT{{ID or PARENT}}ID")
        if (name.parent, name.pipe) in self.pipes:
            return self.find(name)
        if parent and parent.attached:
            raise Refused(errno.EBUSY, f"{name.parent} is attached to a VALE switch")
        if sum(of == name.parent for of, _ in self.pipes) >= MOST:
            raise Refused(errno.ENOMEM, f"{name.parent} has {MOST} pipes already")
        wanted = sizes.bounded(asked, sizes.PIPE, region, parent.sizes if parent else None)
        names = _end_names(name.parent, name.pipe)
        pipe = Pipe(pipe_ports(region, names, wanted.turned() if name.slave else wanted))
        self.pipes[name.parent, name.pipe] = pipe
        return pipe.ends[name.end]

    def settle(self, name: PortName) -> None:
        """A pipe of which nobody has an end goes."""
        pipe = self.pipes.get((name.parent, name.pipe))
        if pipe and not pipe.used:
            del self.pipes[name.parent, name.pipe]
            for end in pipe.ends:
                end.close()


def _end_names(parent: str, identifier: str) -> tuple[str, str]:
    return f"{parent}{{{identifier}", f"{parent}}}{identifier}"
