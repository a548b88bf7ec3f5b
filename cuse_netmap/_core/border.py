# SPDX-License-Identifier: BSD-2-Clause
"""What all modules of this border share: C's -errno become `Refused`; names of C's numbers; the engine's lock."""

import os
import threading
from typing import Any

from cuse_netmap._engine import ffi, lib
from cuse_netmap.errors import Refused

DIRECTIONS = {"rx": lib.NM_RX, "tx": lib.NM_TX}
# Held by whoever changes what exists in the engine (ring_core.h); control's lock.
exclusive = threading.RLock()


def text(pointer: Any) -> str:
    return str(ffi.string(pointer).decode(errors="replace"))


class Why:
    """Room for C's reason, and the check that turns a negative result into a `Refused`."""

    def __init__(self) -> None:
        self.pointer = ffi.new("struct nm_refusal *")

    def check(self, result: int, doing: str = "") -> int:
        if result < 0:
            raise Refused(-result, text(self.pointer.text) or doing or os.strerror(-result))
        return result
