/* SPDX-License-Identifier: BSD-2-Clause */
/* The smallest backend there can be: what is sent vanishes, nothing ever arrives. */
#ifndef CUSE_NETMAP_NULL_H
#define CUSE_NETMAP_NULL_H

#include "backends/backend.h"

const struct nm_backend_ops *nm_null_backend(void);

void *nm_null_queue(void);

#endif
