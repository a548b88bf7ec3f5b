# SPDX-License-Identifier: BSD-2-Clause
"""Where the daemon's words go: standard error, one line a record, rate limited so that no client can flood it."""

import logging
import sys
import threading
import time

BURST = 20  # records of one place in the code within PERIOD seconds; what is more is counted
PERIOD = 5.0


class RateLimit(logging.Filter):
    """Lets a burst from each place through, then says how many it has kept back. Errors always pass."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.windows: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        place = (record.pathname, record.lineno)
        now = time.monotonic()
        with self.lock:
            start, count = self.windows.get(place, (now, 0))
            if now - start >= PERIOD:
                if count > BURST:
                    record.msg = f"{record.getMessage()} [and {count - BURST} like it before]"
                    record.args = ()
                start, count = now, 0
            self.windows[place] = (start, count + 1)
            return count < BURST


class OneLine(logging.Formatter):
    """A record is a line: control characters in what programs call themselves and their ports are escaped."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the base class's name
        line = super().formatMessage(record)
        return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in line)


def set_up(level: str) -> None:
    """Once, at start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("cuse-netmap: %(levelname)s: %(message)s"))
    handler.addFilter(RateLimit())
    logging.getLogger().handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Of our own words; libraries keep to warnings."""
    logging.getLogger("cuse_netmap").setLevel(level.upper())
