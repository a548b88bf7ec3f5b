# SPDX-License-Identifier: BSD-2-Clause
"""The set-up as somebody meets it who breaks it off; what it sets up is proved by every other test."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.support.patience import at_most

INTERRUPTIBLE = str(Path(__file__).parents[2] / "packaging/interruptible")
# It has a child, as pip has.
SLOW = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; print('started', flush=True); time.sleep(60)"])
child.wait()
"""


def test_ctrl_c_in_the_set_up_is_a_sentence_and_ends_all_of_it() -> None:
    pipe = subprocess.PIPE
    command = [INTERRUPTIBLE, sys.executable, "-c", SLOW]
    running = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, process_group=0)
    assert running.stdout
    assert running.stdout.readline() == "started\n"
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=at_most(10))  # until nobody has the pipes any more
    assert said == "cuse-netmap: set-up was interrupted: run it again\n"
    assert running.returncode == 128 + signal.SIGINT


def test_the_status_of_a_step_of_the_set_up_is_the_steps() -> None:
    for status in (0, 3):
        assert subprocess.run([INTERRUPTIBLE, "sh", "-c", f"exit {status}"], check=False).returncode == status
