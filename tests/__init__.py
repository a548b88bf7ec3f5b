# SPDX-License-Identifier: BSD-2-Clause
"""The tests; unit/ needs nothing, device/ needs root and a kernel with FUSE passthrough."""
