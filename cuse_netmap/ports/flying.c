/* SPDX-License-Identifier: BSD-2-Clause */
/* A queue of buffer indices, and those that outlived their rings. */
#include "ports/flying.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NOBODYS 0 /* netmap's buffer 0 is never anybody's */

int nm_flying_init(struct nm_flying *flying, uint32_t slots) {
    *flying = (struct nm_flying){.size = slots};
    flying->buffers = malloc(slots * sizeof(flying->buffers[0]));
    return flying->buffers ? 0 : -ENOMEM;
}

void nm_flying_fini(struct nm_flying *flying) {
    free(flying->buffers);
    free(flying->orphans);
    *flying = (struct nm_flying){0};
}

void nm_flying_add(struct nm_flying *flying, const struct nm_buffers *buffers, uint32_t buffer) {
    /* Of several slots that name one buffer, the first has it. */
    if (!nm_buffer_take(buffers, buffer, NM_BUFFER_IN_FLIGHT)) buffer = NOBODYS;
    flying->buffers[(flying->first + flying->count++) % flying->size] = buffer;
}

static uint32_t take_oldest(struct nm_flying *flying) {
    uint32_t buffer = flying->buffers[flying->first];
    flying->first = (flying->first + 1) % flying->size;
    flying->count--;
    return buffer;
}

static void give(const struct nm_buffers *buffers, uint32_t buffer) {
    if (buffer != NOBODYS) nm_buffer_give(buffers, buffer);
}

void nm_flying_settle(struct nm_flying *flying, const struct nm_buffers *buffers, uint32_t left) {
    while (flying->count > left)
        give(buffers, take_oldest(flying));
}

void nm_flying_abandon(struct nm_flying *flying) {
    if (!flying->count) return;
    size_t total = (size_t)flying->num_orphans + flying->count;
    uint32_t *orphans = realloc(flying->orphans, total * sizeof(orphans[0]));
    if (orphans) flying->orphans = orphans;
    while (flying->count) { /* without memory to remember them, they stay taken */
        uint32_t buffer = take_oldest(flying);
        if (orphans) orphans[flying->num_orphans++] = buffer;
    }
}

void nm_flying_recover(struct nm_flying *flying, struct nm_region *region, uint32_t left) {
    if (flying->num_orphans <= left) return;
    const struct nm_buffers buffers = nm_region_buffers(region);
    uint32_t back = flying->num_orphans - left;
    for (uint32_t i = 0; i < back; i++) {
        give(&buffers, flying->orphans[i]);
        nm_region_free(region, NM_POOL_BUF, flying->orphans[i]); /* which knows nobody's */
    }
    memmove(flying->orphans, flying->orphans + back, left * sizeof(flying->orphans[0]));
    flying->num_orphans = left;
}
