# SPDX-License-Identifier: BSD-2-Clause
"""What libcompat_netmap does inside DPDK programs, on devices that any machine has."""
