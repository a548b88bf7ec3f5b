/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes: two ports back to back. A slot travels whole, with its buffer, from position k of the
 * sender's ring to position k of the receiver's, and back when the receiver has released it. */
#include <string.h>

#include "barrier.h"
#include "ports/ports.h"

/* Where the packet begins for its receiver: where the sender put it, but not before the offset that
 * the receiver's own slot asks for, nor behind the largest it knows, which is 0 for one that wants
 * no offsets. What begins elsewhere then is moved, which is only needed while the two ends want
 * different things. The length, or 0 for one that does not fit. */
static uint32_t pass_offset(struct nm_kring *to, const struct nm_kring *from, uint32_t k,
                            char *buffer, uint32_t len) {
    uint32_t size = from->port->buffers.size;
    struct netmap_slot *slot = &to->ring->slot[k];
    uint64_t ptr = READ_ONCE(from->ring->slot[k].ptr);
    uint32_t begins = nm_slot_offset(from, &from->ring->slot[k]);
    uint32_t wanted = nm_slot_offset(to, slot);
    uint32_t kept = begins < to->offset_max ? begins : to->offset_max;
    if (len > size - begins) len = 0;
    if (wanted < kept || len > size - wanted) wanted = kept;
    if (buffer && wanted != begins) memmove(buffer + wanted, buffer + begins, len);
    WRITE_ONCE(slot->ptr, (ptr & ~to->offset_mask) | wanted);
    return len;
}

/* Slot k as another program left it: read once, made harmless, written once. Its length. */
static uint32_t pass(struct nm_kring *to, const struct nm_kring *from, uint32_t k,
                     uint16_t *flags) {
    const struct nm_buffers *buffers = &from->port->buffers;
    struct netmap_slot *source = &from->ring->slot[k], *target = &to->ring->slot[k];
    uint32_t index = READ_ONCE(source->buf_idx), len = READ_ONCE(source->len);
    *flags = READ_ONCE(source->flags);
    WRITE_ONCE(target->buf_idx, index < buffers->total ? index : 0);
    if (len > buffers->size) len = 0;
    if (from->offset_mask | to->offset_mask) {
        char *buffer = from->dir == NM_TX ? nm_buffer(buffers, index) : buffers->base;
        len = pass_offset(to, from, k, buffer == buffers->base ? NULL : buffer, len);
    } else {
        WRITE_ONCE(target->ptr, READ_ONCE(source->ptr));
    }
    WRITE_ONCE(target->len, (uint16_t)len);
    WRITE_ONCE(target->flags, *flags);
    if (*flags & NS_BUF_CHANGED) WRITE_ONCE(source->flags, (uint16_t)(*flags & ~NS_BUF_CHANGED));
    return len;
}

static void pipe_txsync(struct nm_kring *tx, uint32_t head) {
    struct nm_kring *rx = tx->partner;
    uint32_t complete = rx->filled, packets = 0;
    uint64_t bytes = 0;
    uint32_t k = tx->hwcur;
    tx->hwtail = nm_kring_prev(tx, load_acquire(&rx->hwcur));
    if (k == head) return;
    while (k != head) {
        uint16_t flags;
        bytes += pass(rx, tx, k, &flags);
        k = nm_kring_next(tx, k);
        if (flags & NS_MOREFRAG) continue;
        complete = k;
        packets++;
    }
    WRITE_ONCE(tx->hwcur, k);
    tx->stats.packets += packets;
    tx->stats.bytes += bytes;
    if (complete == rx->filled) return; /* the rest of a packet is still to come */
    store_release(&rx->filled, complete);
    nm_kring_wake(rx);
}

static void pipe_rxsync(struct nm_kring *rx, uint32_t head) {
    struct nm_kring *tx = rx->partner;
    uint32_t packets = 0;
    uint64_t bytes = 0;
    uint32_t k = rx->hwcur;
    rx->hwtail = load_acquire(&rx->filled);
    if (k == head) return;
    while (k != head) {
        uint16_t flags;
        bytes += pass(tx, rx, k, &flags);
        packets += !(flags & NS_MOREFRAG);
        k = nm_kring_next(rx, k);
    }
    store_release(&rx->hwcur, k);
    rx->stats.packets += packets;
    rx->stats.bytes += bytes;
    nm_kring_wake(tx);
}

static int pipe_sync(struct nm_kring *kring, uint32_t head) {
    if (kring->dir == NM_TX)
        pipe_txsync(kring, head);
    else
        pipe_rxsync(kring, head);
    return 0;
}

static const struct nm_port_ops pipe_ops = {.kind = "pipe", .offsets = true, .sync = pipe_sync};

int nm_pipe_create(struct nm_region *region, const char *const names[2],
                   const uint32_t rings[NM_DIRS], const uint32_t slots[NM_DIRS],
                   struct nm_port *ends[2], struct nm_refusal *why) {
    for (int end = 0; end < 2; end++) {
        struct nm_port_config config = {.name = names[end], .ops = &pipe_ops};
        for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
            config.rings[dir] = rings[end ? !dir : dir];
            config.slots[dir] = slots[end ? !dir : dir];
        }
        int error = nm_port_create(region, &config, &ends[end], why);
        if (error) {
            if (end) nm_port_destroy(ends[0]);
            return error;
        }
    }
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = 0; i < ends[0]->num_rings[dir]; i++) {
            ends[0]->krings[dir][i].partner = &ends[1]->krings[!dir][i];
            ends[1]->krings[!dir][i].partner = &ends[0]->krings[dir][i];
        }
    }
    return 0;
}
