/* SPDX-License-Identifier: BSD-2-Clause */
/* The buffers of a TX queue that its device still reads, in the order in which they were sent: not
 * the client's to name while its ring lives, and not the pool's to give away when it is gone. */
#ifndef CUSE_NETMAP_FLYING_H
#define CUSE_NETMAP_FLYING_H

#include <stdint.h>

#include "region.h"

struct nm_flying {
    uint32_t *buffers; /* of the ring that lives: a queue of indices */
    uint32_t size, first, count;
    uint32_t *orphans; /* of rings that are gone: older than all of those */
    uint32_t num_orphans;
};

/* At most `slots` are under way of one ring. -ENOMEM. */
int nm_flying_init(struct nm_flying *flying, uint32_t slots);
void nm_flying_fini(struct nm_flying *flying);

/* A buffer is under way, and is not to be named until it is back. */
void nm_flying_add(struct nm_flying *flying, const struct nm_buffers *buffers, uint32_t buffer);
/* All of the living ring but the `left` sent last are back. */
void nm_flying_settle(struct nm_flying *flying, const struct nm_buffers *buffers, uint32_t left);
/* The ring goes: what is under way belongs to no slot any more. */
void nm_flying_abandon(struct nm_flying *flying);
/* Gives the pool those orphans that are back: all but the `left` sent last. By whoever changes what
 * exists. */
void nm_flying_recover(struct nm_flying *flying, struct nm_region *region, uint32_t left);

#endif
