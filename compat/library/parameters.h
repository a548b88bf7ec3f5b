/* SPDX-License-Identifier: BSD-2-Clause */
/* What may be chosen about libcompat_netmap: netmap's names for its memory, and how it waits. */
#ifndef COMPAT_NETMAP_PARAMETERS_H
#define COMPAT_NETMAP_PARAMETERS_H

#include <stdint.h>

#include "region.h"

struct rte_netmap_conf;

struct parameters {
    uint32_t max_rings, max_slots;
    int socket_id;
    struct nm_pool_request pools[NM_POOLS];
    uint32_t no_timestamp;
    uint32_t copy_below; /* bytes: longer frames are sent from where they are, if the device can */
    uint32_t poll_spin;  /* us that poll looks again and again before it sleeps */
    uint32_t poll_sleep; /* us between two looks for sleepers, at most */
};

/* From what the program says, then the environment: 0 or -EINVAL, with a line in the log. */
int parameters_read(const struct rte_netmap_conf *conf, struct parameters *out);

#endif
