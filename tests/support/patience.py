# SPDX-License-Identifier: BSD-2-Clause
"""How long the tests wait: every time limit of theirs passes through here, so that a slow machine needs one word.

PATIENCE in the environment (`make test PATIENCE=20`) is the factor by which this machine is slower than the ones that
the limits are written for. Pauses in which nothing may happen are no limits, and stay as they are.
"""

import os

# Nobody gets less than what is written: a limit that is too short only accuses the innocent.
PATIENCE = max(1.0, float(os.environ.get("PATIENCE") or 1))


def at_most(seconds: float) -> float:
    """A time limit as it is written, as this machine needs it."""
    return seconds * PATIENCE
