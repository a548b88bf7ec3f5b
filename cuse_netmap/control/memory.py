# SPDX-License-Identifier: BSD-2-Clause
"""What region 1 is to be, by its six parameters: made so as soon as nobody uses it. Called with control's lock held."""

import errno
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from cuse_netmap._core import Door, Region
from cuse_netmap.control.parameters import MEMORY, Parameters
from cuse_netmap.errors import Refused

log = logging.getLogger(__name__)


class MemoryRequest:
    """The geometry that is asked for, and the one there is; `left` says that no device has the region any more."""

    def __init__(self, region: Region, parameters: Parameters, doors: Sequence[Door], left: Callable[[], bool]) -> None:
        self.region = region
        self.doors = doors  # all that serve the region
        self.left = left
        self.used = False  # somebody has used the region: until then netmap does not say what there is
        self._asked = {name: parameters.value(name) for name in MEMORY}
        self._pending = False
        for name in MEMORY:
            parameters.on_change(name, partial(self._ask, name))
        for pool in Region.POOLS:
            parameters.follow(f"{pool}_curr_size", partial(self._current, pool, "objsize"))
            parameters.follow(f"{pool}_curr_num", partial(self._current, pool, "objtotal"))

    def _current(self, pool: str, what: str) -> int:
        return int(getattr(self.region.pool(pool), what)) if self.used else 0

    def _ask(self, name: str, value: int) -> None:
        """Refused EINVAL: with what else is asked for, no region can be like that."""
        if self._asked[name] == value:
            return
        asked = {**self._asked, name: value}
        Region.check(_pools(asked))
        self._asked = asked
        self._pending = True
        self.settle()

    def settle(self) -> None:
        """Makes the region as it was asked for, if it is not in use: to be called when that may have changed."""
        if not self._pending or not self.left():
            return
        try:
            self.region.resize(_pools(self._asked), self.doors)
        except Refused as refusal:
            if refusal.errno == errno.EBUSY:
                return
            log.error("packet memory stays as it is: %s", refusal.reason)
        else:
            log.info("packet memory is %d bytes now: %s", self.region.size, _in_words(self._asked))
        self._pending = False


def _pools(asked: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {pool: (asked[f"{pool}_size"], asked[f"{pool}_num"]) for pool in Region.POOLS}


def _in_words(asked: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in asked.items())
