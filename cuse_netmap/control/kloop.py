# SPDX-License-Identifier: BSD-2-Clause
"""CSB and sync-kloop: who may have them, and what the options must say (ABI.md 13.2, 13.3). What loops is kloop.c."""

import errno
import logging
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from cuse_netmap.control.options import RegisterOptions
from cuse_netmap.control.requests import EVENTFD_PAIR, KloopMode, KloopStart, Option, OptionType, RequestType
from cuse_netmap.control.transaction import GivenOption, Transaction
from cuse_netmap.errors import Refused
from cuse_netmap.processes import command_of

if TYPE_CHECKING:
    from cuse_netmap._core import OpenFile, Request
    from cuse_netmap.control.control import Work

log = logging.getLogger(__name__)

SLEEP_MOST = 1_000_000  # microseconds
DIRECT_TX, DIRECT_RX = 1, 2


def enable(given: Transaction, work: "Work") -> None:
    """CSB_ENABLE: the option CSB for a descriptor that is registered already."""
    option = given.option(OptionType.CSB)
    if option is None:
        raise Refused(errno.EINVAL, "the option CSB is missing")
    _check_registered(work.request.open)
    work.options = RegisterOptions([option])


def start(given: Transaction, work: "Work") -> None:
    """SYNC_KLOOP_START: answered when the loop ends."""
    request, asked = work.request, KloopStart.decode(given.body)
    if asked.sleep_us > SLEEP_MOST:
        raise Refused(errno.EINVAL, f"{asked.sleep_us} microseconds between rounds, at most {SLEEP_MOST} may be")
    _check_registered(request.open)
    if not request.open.has_csb:
        raise Refused(errno.EINVAL, "the descriptor has no CSB")
    if request.open.looping:
        raise Refused(errno.EBUSY, "a sync loop runs on this descriptor already")
    option = given.option(OptionType.SYNC_KLOOP_EVENTFDS)
    eventfds = _eventfds(option, request.open.rings) if option else []
    mode = _mode(given.option(OptionType.SYNC_KLOOP_MODE), option, eventfds)
    work.hand_over = partial(_start, request, asked.sleep_us, mode, eventfds)


def stop(_given: Transaction, work: "Work") -> None:
    """SYNC_KLOOP_STOP: answered when the loop has ended; where none runs, at once, and the next one ends at once."""
    _check_registered(work.request.open)
    work.hand_over = work.request.stop_loop


HANDLERS: MappingProxyType[int, Callable[[Transaction, "Work"], None]] = MappingProxyType(
    {
        RequestType.CSB_ENABLE: enable,
        RequestType.SYNC_KLOOP_START: start,
        RequestType.SYNC_KLOOP_STOP: stop,
    }
)


def _check_registered(open_file: "OpenFile") -> None:
    if not open_file.registered:
        raise Refused(errno.ENXIO, "the descriptor is not registered on a port")


def _refuse(option: GivenOption, reason: str) -> Refused:
    option.status = errno.EINVAL
    return Refused(errno.EINVAL, reason)


def _eventfds(option: GivenOption, rings: int) -> list[int]:
    """The program's descriptors: ioeventfd and irqfd of each bound ring."""
    size = Option.size() + rings * EVENTFD_PAIR.size
    if option.header.size_given != size:
        said = option.header.size_given
        raise _refuse(option, f"the option SYNC_KLOOP_EVENTFDS says {said} bytes, {rings} rings are bound: {size}")
    option.status = 0
    return [fd for pair in EVENTFD_PAIR.iter_unpack(option.body) for fd in pair]


def _mode(option: GivenOption | None, eventfds_option: GivenOption | None, eventfds: list[int]) -> int:
    if option is None:
        return 0
    mode = KloopMode.decode(option.body).mode
    if mode & ~(DIRECT_TX | DIRECT_RX):
        raise _refuse(option, f"the option SYNC_KLOOP_MODE has unknown bits: {mode:#x}")
    if mode and (not eventfds or min(eventfds[::2]) < 0):
        raise _refuse(eventfds_option or option, "direct processing needs an ioeventfd for every ring")
    option.status = 0
    return mode


def _start(request: "Request", sleep_us: int, mode: int, eventfds: list[int]) -> bool:
    pid, command, rings = request.pid, command_of(request.pid), request.open.rings
    request.start_loop(sleep_us, mode, eventfds)
    how = "kicks" if eventfds and min(eventfds[::2]) >= 0 else f"{sleep_us} microseconds between rounds"
    log.info("sync loop over %d rings for pid %d (%s), %s", rings, pid, command, how)
    return True
