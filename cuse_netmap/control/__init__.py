# SPDX-License-Identifier: BSD-2-Clause
"""What an ioctl means: codecs (requests), names, ports and files (registry), and the decisions themselves."""
