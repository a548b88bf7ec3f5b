/* SPDX-License-Identifier: BSD-2-Clause */
/* What departing files leave behind goes back to the pools, whatever they have written there. */
#ifndef CUSE_NETMAP_RECLAIM_H
#define CUSE_NETMAP_RECLAIM_H

#include "ring_core.h"

/* Which buffers the live rings and extra lists of a region name, and how many they account for. */
struct nm_census {
    uint64_t *visible; /* a bit a buffer */
    uint64_t owed;
};

/* Of all that is held now, or will be once what is given back below has gone. One at a time. */
struct nm_census nm_census_take(struct nm_region *region);
/* A ring, and the other end's of a pipe, that nobody uses any more; its buffers. */
void nm_give_back_ring(struct nm_kring *kring, const struct nm_census *census);
/* Those among the file's rings that nobody uses any more. */
void nm_give_back_rings(struct nm_port *port, const struct nm_file *file,
                        const struct nm_census *census);
/* The file's list of extra buffers. */
void nm_give_back_extra(struct nm_port *port, const struct nm_file *file,
                        const struct nm_census *census);

#endif
