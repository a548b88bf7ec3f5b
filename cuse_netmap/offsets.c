/* SPDX-License-Identifier: BSD-2-Clause */
/* The option OFFSETS, from request to slots. */
#include "offsets.h"

#include <string.h>

#include "barrier.h"

static uint64_t mask_of(const struct nm_offsets *wanted) {
    bool all = wanted->bits == 0 || wanted->bits >= 64;
    return all ? UINT64_MAX : (1ull << wanted->bits) - 1;
}

static int check(const struct nm_file *file, const struct nm_port *port, struct nm_refusal *why) {
    const struct nm_offsets *wanted = file->offsets;
    uint64_t mask = mask_of(wanted), max = wanted->max_offset;
    if (!port->ops->offsets) return nm_refuse(why, EOPNOTSUPP, "%s has no offsets", port->name);
    if (wanted->bits > 64)
        return nm_refuse(why, EINVAL, "an offset of %u bits asked for", wanted->bits);
    if (max > port->buffers.size || (max & mask) != max)
        return nm_refuse(why, EINVAL, "the offset %llu fits neither %u bits nor %u bytes of buffer",
                         (unsigned long long)max, wanted->bits, port->buffers.size);
    if (wanted->initial_offset > max)
        return nm_refuse(why, EINVAL, "the initial offset %llu is beyond the largest, %llu",
                         (unsigned long long)wanted->initial_offset, (unsigned long long)max);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            const struct nm_kring *kring = &port->krings[dir][i];
            if (!kring->users || !kring->offset_mask) continue;
            if (kring->offset_max < max || (kring->offset_mask & mask) != mask)
                return nm_refuse(
                    why, EBUSY, "%s has rings in use with offsets of at most %u, mask %#llx",
                    port->name, kring->offset_max, (unsigned long long)kring->offset_mask);
        }
    }
    return 0;
}

int nm_offsets_check(const struct nm_file *file, const struct nm_port *port,
                     struct nm_refusal *why) {
    if (!file->offsets) return 0;
    int error = check(file, port, why);
    file->offsets->status = -error;
    return error;
}

/* What a slot holds begins at `to` from now on, or where there is room for it; where that is. */
static uint32_t move_packet(const struct nm_kring *kring, const struct netmap_slot *slot,
                            uint32_t to, uint32_t max) {
    const struct nm_buffers *buffers = &kring->port->buffers;
    char *buffer = nm_buffer(buffers, READ_ONCE(slot->buf_idx));
    uint32_t from = nm_slot_offset(kring, slot), len = READ_ONCE(slot->len);
    if (len > buffers->size - from) len = 0;
    if (len > buffers->size - to) to = from < max ? from : max;
    if (to != from && buffer != buffers->base) memmove(buffer + to, buffer + from, len);
    return to;
}

/* All slots begin with an offset. Those that the other end of a pipe has sent keep their data. */
static void settle_slots(struct nm_kring *kring, uint64_t mask, uint32_t max, uint32_t initial) {
    const struct nm_kring *sender = kring->dir == NM_RX ? kring->partner : NULL;
    uint32_t sent = sender ? nm_kring_distance(kring, kring->hwcur, sender->hwcur) : 0;
    for (uint32_t k = 0; k < kring->num_slots; k++) {
        struct netmap_slot *slot = &kring->ring->slot[k];
        bool holds = nm_kring_distance(kring, kring->hwcur, k) < sent;
        uint32_t offset = holds ? move_packet(kring, slot, initial, max) : initial;
        WRITE_ONCE(slot->ptr, (READ_ONCE(slot->ptr) & ~mask) | offset);
    }
}

void nm_offsets_apply(struct nm_kring *kring, const struct nm_offsets *wanted) {
    bool first = !kring->users;
    if (!wanted && !(first && kring->offset_mask)) return;
    if (!first && kring->offset_mask) return;
    uint64_t mask = wanted ? mask_of(wanted) : 0;
    uint32_t max = wanted ? (uint32_t)wanted->max_offset : 0;
    /* The other end of a pipe writes into our slots during its syncs. */
    if (kring->partner) nm_kring_lock(kring->partner);
    if (first) settle_slots(kring, mask, max, wanted ? (uint32_t)wanted->initial_offset : 0);
    kring->offset_mask = mask;
    kring->offset_max = max;
    kring->ring->offset_mask = mask;
    if (kring->partner) nm_kring_unlock(kring->partner);
}

void nm_offsets_answer(struct nm_file *file) {
    struct nm_offsets *offsets = file->offsets;
    bool any = false;
    if (!offsets) return;
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            uint32_t max = file->port->krings[dir][i].offset_max;
            if (!any || max < offsets->max_offset) offsets->max_offset = max;
            any = true;
        }
    }
}
