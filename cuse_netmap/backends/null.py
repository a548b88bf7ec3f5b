# SPDX-License-Identifier: BSD-2-Clause
"""The null backend: rings without a wire. What is sent vanishes, nothing arrives."""

import dataclasses

from cuse_netmap.backends import Interface, Place, make_port
from cuse_netmap.options import PortOptions


@dataclasses.dataclass(frozen=True)
class Options(PortOptions):
    """[ports.NAME] of the null backend."""


def open_port(place: Place, name: str, options: Options) -> Interface:
    from cuse_netmap import _core

    queues = _core.null_queues(options.queues)
    port = make_port(place, name, _core.NULL_BACKEND, queues, options.slots)
    return Interface(port, f"null, {options.queues} ring pair(s) of {options.slots} slots")
