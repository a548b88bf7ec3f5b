/* SPDX-License-Identifier: BSD-2-Clause */
/* The data path of a TAP device the daemon owns. How the device is made is backends/tap.py's. */
#ifndef CUSE_NETMAP_TAP_H
#define CUSE_NETMAP_TAP_H

#include "backends/backend.h"

const struct nm_backend_ops *nm_tap_backend(void);

/* A queue over an open, non-blocking TAP descriptor (IFF_TAP | IFF_NO_PI), which it takes over. */
void *nm_tap_queue(int fd);

#endif
