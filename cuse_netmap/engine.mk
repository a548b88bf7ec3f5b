# SPDX-License-Identifier: BSD-2-Clause
# Which folders hold the engine's C and how it is compiled: read by make and by setup.py. Nothing of Python is in it.
ENGINE_FOLDERS := cuse_netmap cuse_netmap/doors cuse_netmap/ports cuse_netmap/backends
ENGINE_CFLAGS := -std=gnu11 -D_GNU_SOURCE -O2 -g -fPIC -Wall -Wextra -Werror
