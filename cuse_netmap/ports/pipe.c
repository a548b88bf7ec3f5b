/* SPDX-License-Identifier: BSD-2-Clause */
/* Pipes: two ports back to back. A slot travels whole, with its buffer, from position k of the
 * sender's ring to position k of the receiver's, and back when the receiver has released it. */
#include "barrier.h"
#include "ports/ports.h"

/* A slot as another program left it: read once, made harmless, written once. Returns its length. */
static uint32_t pass(struct netmap_slot *to, struct netmap_slot *from,
                     const struct nm_buffers *buffers, uint16_t *flags) {
    uint32_t index = READ_ONCE(from->buf_idx), len = READ_ONCE(from->len);
    *flags = READ_ONCE(from->flags);
    WRITE_ONCE(to->buf_idx, index < buffers->total ? index : 0);
    if (len > buffers->size) len = 0;
    WRITE_ONCE(to->len, (uint16_t)len);
    WRITE_ONCE(to->flags, *flags);
    WRITE_ONCE(to->ptr, READ_ONCE(from->ptr));
    if (*flags & NS_BUF_CHANGED) WRITE_ONCE(from->flags, (uint16_t)(*flags & ~NS_BUF_CHANGED));
    return len;
}

static void pipe_txsync(struct nm_kring *tx, uint32_t head) {
    struct nm_kring *rx = tx->partner;
    const struct nm_buffers *buffers = &tx->port->buffers;
    uint32_t complete = rx->filled, packets = 0;
    uint64_t bytes = 0;
    uint32_t k = tx->hwcur;
    tx->hwtail = nm_kring_prev(tx, load_acquire(&rx->hwcur));
    if (k == head) return;
    while (k != head) {
        uint16_t flags;
        bytes += pass(&rx->ring->slot[k], &tx->ring->slot[k], buffers, &flags);
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
    const struct nm_buffers *buffers = &rx->port->buffers;
    uint32_t packets = 0;
    uint64_t bytes = 0;
    uint32_t k = rx->hwcur;
    rx->hwtail = load_acquire(&rx->filled);
    if (k == head) return;
    while (k != head) {
        uint16_t flags;
        bytes += pass(&tx->ring->slot[k], &rx->ring->slot[k], buffers, &flags);
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

static const struct nm_port_ops pipe_ops = {.kind = "pipe", .sync = pipe_sync};

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
