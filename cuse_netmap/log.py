# SPDX-License-Identifier: BSD-2-Clause
"""Where the daemon's words go: standard error, one line a record, rate limited so that no client can flood it."""

import logging
import sys
import threading
import time
from collections.abc import Callable

BURST = 20  # records of one place in the code within PERIOD seconds; what is more is counted
PERIOD = 5.0


class OneLine(logging.Formatter):
    """Programs choose their names: none may end a line or steer a terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in record.message)
        return super().formatMessage(record)


class RateLimit(logging.Filter):
    """Lets a burst from each place through, then says how many it has kept back. Errors always pass."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()
        self.windows: dict[tuple[str, int], tuple[float, int]] = {}
        self.kept_back: dict[tuple[str, int], logging.LogRecord] = {}  # the latest of each place

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
            if count < BURST:
                self.kept_back.pop(place, None)
                return True
            self.kept_back[place] = record
            return False

    def rest(self) -> list[logging.LogRecord]:
        """The latest record of each place that has kept some back, saying how many those were before it."""
        with self.lock:
            records = list(self.kept_back.items())
            self.kept_back.clear()
            for place, record in records:
                record.msg = f"{record.getMessage()} [and {self.windows[place][1] - BURST - 1} like it before]"
                record.args = ()
            return [record for _, record in records]


def set_up(level: str) -> Callable[[], None]:
    """Once, at start; to be called at the end is what it returns, which says what was kept back."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("cuse-netmap: %(levelname)s: %(message)s"))
    limit = RateLimit()
    handler.addFilter(limit)
    logging.getLogger().handlers[:] = [handler]
    set_level(level)

    def finish() -> None:
        for record in limit.rest():
            handler.emit(record)

    return finish


def set_level(level: str) -> None:
    """Of our own words; libraries keep to warnings."""
    logging.getLogger("cuse_netmap").setLevel(level.upper())
