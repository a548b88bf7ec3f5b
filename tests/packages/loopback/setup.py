# SPDX-License-Identifier: BSD-2-Clause
"""The package's C; the rest stands in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["netmap_loopback/_build.py:ffibuilder"])
