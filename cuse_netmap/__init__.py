# SPDX-License-Identifier: BSD-2-Clause
"""cuse-netmap: /dev/netmap served by an ordinary program; here is its version and nothing else."""

__version__ = "0.1.0"
