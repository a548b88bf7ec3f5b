# SPDX-License-Identifier: BSD-2-Clause
"""`python -m cuse_netmap`: the command, for whoever has no entry point installed."""

import sys

from cuse_netmap.cli import main

if __name__ == "__main__":
    sys.exit(main())
