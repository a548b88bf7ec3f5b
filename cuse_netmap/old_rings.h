/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings of the time before head, cur and tail: a second ring object, in the layout of its age,
 * beside the engine's own. A sync takes over what the program has written there and writes there
 * what it shall see; slots go across only while they change hands. */
#ifndef CUSE_NETMAP_OLD_RINGS_H
#define CUSE_NETMAP_OLD_RINGS_H

#include <stdbool.h>
#include <stdint.h>

struct nm_file;
struct nm_kring;
struct nm_ring_layout;

/* Part of a kring. Slots [head, tail) have been given to the program, `avail` of them from its
 * `cur` on; changed by syncs alone, and read by the census too. */
struct nm_old_ring {
    const struct nm_ring_layout *layout; /* NULL: there is none, its users know today's rings */
    char *memory;
    uint32_t object;
    uint32_t head, tail, avail;
};

/* The ring's first user knows rings of that layout: makes one that says what the engine's says. An
 * object of the ring pool must be free. */
void nm_old_ring_open(struct nm_kring *kring, const struct nm_ring_layout *layout);
/* The last user has left: the engine's ring gets back what was given. Nothing if there is none. */
void nm_old_ring_close(struct nm_kring *kring);

/* One sync of a ring that has an old one, its busy flag held, as sync_ring in ring_core.c. A bad
 * index re-initialises the ring and is -EINVAL. */
int nm_old_ring_sync(const struct nm_file *file, struct nm_kring *kring, uint32_t caller,
                     bool *ready);
/* What the program has as its position, any number. */
uint32_t nm_old_ring_cur(const struct nm_kring *kring);
/* The buffer that slot `k` names: the program's word for slots it has been given. */
uint32_t nm_old_ring_buffer(const struct nm_kring *kring, uint32_t k);

#endif
