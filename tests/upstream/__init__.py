# SPDX-License-Identifier: BSD-2-Clause
"""Upstream netmap's own suites, unmodified, against our daemon. Their sources and programs are elsewhere."""
