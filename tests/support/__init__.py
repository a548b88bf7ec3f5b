# SPDX-License-Identifier: BSD-2-Clause
"""What the tests share: a real daemon, real interfaces, C clients. Nothing here imitates what we emulate."""
