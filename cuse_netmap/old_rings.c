/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings with avail, cur and reserved, to and from the engine's own. */
#include "old_rings.h"

#include <errno.h>
#include <string.h>

#include "ages.h"
#include "barrier.h"
#include "ring_core.h"

static uint32_t *word(const struct nm_old_ring *old, uint32_t offset) {
    return (uint32_t *)(void *)(old->memory + offset);
}

static uint16_t *half(const struct nm_old_ring *old, uint32_t offset) {
    return (uint16_t *)(void *)(old->memory + offset);
}

/* Of 8 bytes, ptr is not to be touched. */
static struct netmap_slot *old_slot(const struct nm_old_ring *old, uint32_t k) {
    return (struct netmap_slot *)(void *)(old->memory + old->layout->header +
                                          (size_t)k * old->layout->slot);
}

static bool has_ptr(const struct nm_old_ring *old) {
    return old->layout->slot == sizeof(struct netmap_slot);
}

/* ---- slots ------------------------------------------------------------------------------------
 */

/* The engine gets slots [from, to) as the program left them, which sees at once that they were
 * looked at, as from a kernel that works on the very same slots. */
static void take(struct nm_kring *kring, uint32_t from, uint32_t to) {
    const struct nm_old_ring *old = &kring->old;
    for (uint32_t k = from; k != to; k = nm_kring_next(kring, k)) {
        struct netmap_slot *source = old_slot(old, k), *target = &kring->ring->slot[k];
        uint16_t flags = READ_ONCE(source->flags);
        WRITE_ONCE(target->buf_idx, READ_ONCE(source->buf_idx));
        WRITE_ONCE(target->len, READ_ONCE(source->len));
        WRITE_ONCE(target->flags, flags & old->layout->slot_flags);
        WRITE_ONCE(target->ptr, has_ptr(old) ? READ_ONCE(source->ptr) : 0);
        if (flags & (NS_BUF_CHANGED | NS_REPORT))
            WRITE_ONCE(source->flags, (uint16_t)(flags & ~(NS_BUF_CHANGED | NS_REPORT)));
    }
}

/* The program gets slots [from, to) as the engine left them. */
static void give(struct nm_kring *kring, uint32_t from, uint32_t to) {
    const struct nm_old_ring *old = &kring->old;
    for (uint32_t k = from; k != to; k = nm_kring_next(kring, k)) {
        const struct netmap_slot *source = &kring->ring->slot[k];
        struct netmap_slot *target = old_slot(old, k);
        uint16_t flags = READ_ONCE(source->flags);
        /* Generators mark every slot of a fresh ring once, also the one that they do not have. */
        if (kring->dir == NM_TX) flags |= READ_ONCE(target->flags) & NS_BUF_CHANGED;
        WRITE_ONCE(target->buf_idx, READ_ONCE(source->buf_idx));
        WRITE_ONCE(target->len, READ_ONCE(source->len));
        WRITE_ONCE(target->flags, flags);
        if (has_ptr(old)) WRITE_ONCE(target->ptr, READ_ONCE(source->ptr));
    }
}

static void give_all(struct nm_kring *kring) {
    uint32_t last = kring->num_slots - 1;
    give(kring, 0, last);
    give(kring, last, 0);
}

/* ---- indices ----------------------------------------------------------------------------------
 */

/* Slots up to hwtail become the program's; `cur` is where it stands. */
static void publish(struct nm_kring *kring, uint32_t cur) {
    struct nm_old_ring *old = &kring->old;
    give(kring, old->tail, kring->hwtail);
    store_release(&old->tail, kring->hwtail);
    old->avail = nm_kring_distance(kring, cur, kring->hwtail);
    store_release(word(old, old->layout->avail), old->avail);
}

/* What a program has written, and what it means in the engine's terms. */
struct position {
    uint32_t head, cur;
    bool good;
};

/* On TX `avail` is ours to write: what a program leaves there means nothing. On RX it is checked,
 * but for -1, in which a loop over `avail--` ends. */
static struct position read_position(const struct nm_kring *kring) {
    const struct nm_old_ring *old = &kring->old;
    uint32_t cur = load_acquire(word(old, old->layout->cur));
    struct position position = {.head = cur, .cur = cur};
    uint32_t from = old->head;
    if (cur >= kring->num_slots) return position;
    uint64_t moved = nm_kring_distance(kring, from, cur);
    position.good = moved <= nm_kring_distance(kring, from, old->tail);
    if (kring->dir == NM_TX) return position;
    uint32_t avail = READ_ONCE(*word(old, old->layout->avail));
    uint64_t reserved = old->layout->reserved ? READ_ONCE(*word(old, old->layout->reserved)) : 0;
    position.good &= avail <= old->avail || avail == UINT32_MAX;
    position.good &= reserved <= moved;
    if (position.good)
        position.head =
            (uint32_t)((cur + (uint64_t)kring->num_slots - reserved) % kring->num_slots);
    return position;
}

/* The program got its ring wrong: its slots are made harmless, and all it holds is shown to it
 * again. */
static void reinitialise(struct nm_kring *kring) {
    struct nm_old_ring *old = &kring->old;
    take(kring, old->head, old->tail);
    nm_kring_reinitialise(kring, UINT32_MAX, UINT32_MAX);
    give_all(kring);
    WRITE_ONCE(old->head, kring->hwcur);
    store_release(&old->tail, kring->hwtail);
    WRITE_ONCE(*word(old, old->layout->cur), kring->hwcur);
    if (old->layout->reserved) WRITE_ONCE(*word(old, old->layout->reserved), 0);
}

int nm_old_ring_sync(const struct nm_file *file, struct nm_kring *kring, uint32_t caller,
                     bool *ready) {
    struct nm_old_ring *old = &kring->old;
    uint16_t flags = READ_ONCE(*half(old, old->layout->flags));
    struct position position = read_position(kring);
    int error = 0;
    if (position.good) {
        take(kring, old->head, position.head);
        WRITE_ONCE(old->head, position.head);
    } else {
        reinitialise(kring);
        error = -EINVAL;
        position.head = position.cur = kring->hwcur;
    }
    int failed = 0;
    nm_kring_forward(file, kring, position.head, flags & old->layout->ring_flags);
    /* As with today's rings: what has arrived is shown, nothing is sent. */
    if (position.good || kring->dir == NM_RX)
        failed = nm_kring_advance(kring, position.head, position.cur, caller);
    publish(kring, position.cur);
    if (kring->dir == NM_RX && old->layout->ts)
        nm_stamp(flags, (struct timeval *)(void *)(old->memory + old->layout->ts));
    if (failed) return failed;
    *ready = position.cur != kring->hwtail;
    return error;
}

uint32_t nm_old_ring_cur(const struct nm_kring *kring) {
    return READ_ONCE(*word(&kring->old, kring->old.layout->cur));
}

uint32_t nm_old_ring_buffer(const struct nm_kring *kring, uint32_t k) {
    const struct nm_old_ring *old = &kring->old;
    uint32_t tail = load_acquire(&old->tail), head = READ_ONCE(old->head);
    bool given = nm_kring_distance(kring, head, k) < nm_kring_distance(kring, head, tail);
    const struct netmap_slot *slot = given ? old_slot(old, k) : &kring->ring->slot[k];
    return READ_ONCE(slot->buf_idx);
}

/* ---- life -------------------------------------------------------------------------------------
 */

void nm_old_ring_open(struct nm_kring *kring, const struct nm_ring_layout *layout) {
    struct nm_old_ring *old = &kring->old;
    struct nm_region *region = kring->port->region;
    uint32_t object = (uint32_t)nm_region_alloc(region, NM_POOL_RING);
    *old = (struct nm_old_ring){.layout = layout,
                                .memory = nm_region_object(region, NM_POOL_RING, object),
                                .object = object,
                                .head = kring->rhead,
                                .tail = kring->hwtail};
    memset(old->memory, 0, nm_region_pool(region, NM_POOL_RING).objsize);
    struct netmap_ring *ring = (struct netmap_ring *)(void *)old->memory;
    ring->buf_ofs = (int64_t)(nm_region_offset(region, NM_POOL_BUF, 0) -
                              nm_region_offset(region, NM_POOL_RING, object));
    ring->num_slots = kring->num_slots;
    *half(old, layout->buf_size) = (uint16_t)kring->port->buffers.size;
    *word(old, layout->cur) = kring->rhead;
    give_all(kring);
    publish(kring, kring->rhead);
}

void nm_old_ring_close(struct nm_kring *kring) {
    struct nm_old_ring *old = &kring->old;
    struct netmap_ring *ring = kring->ring;
    if (!old->layout) return;
    take(kring, old->head, old->tail);
    WRITE_ONCE(ring->head, old->head);
    WRITE_ONCE(ring->cur, old->head);
    WRITE_ONCE(ring->tail, kring->hwtail);
    nm_region_free(kring->port->region, NM_POOL_RING, old->object);
    *old = (struct nm_old_ring){0};
}
