/* SPDX-License-Identifier: BSD-2-Clause */
/* The census of buffers, and what goes by it. */
#include "reclaim.h"

#include "barrier.h"

static bool usable_index(const struct nm_buffers *buffers, uint32_t index) {
    return index >= NETMAP_BUF_FIRST && index < buffers->total;
}

static void see(struct nm_census *census, const struct nm_buffers *buffers, uint32_t index) {
    if (usable_index(buffers, index)) census->visible[index / 64] |= 1ull << (index % 64);
}

static uint32_t next_extra(const struct nm_buffers *buffers, uint32_t index) {
    return READ_ONCE(*(uint32_t *)(buffers->base + (size_t)index * buffers->size));
}

/* The buffer at position `k`: of a pipe, by the receiver's slot while it has the packet. */
static uint32_t buffer_at(const struct nm_kring *kring, uint32_t k) {
    const struct nm_kring *rx = kring->partner;
    if (rx) {
        uint32_t returned = load_acquire(&rx->hwcur), taken = READ_ONCE(kring->hwcur);
        if (nm_kring_distance(kring, returned, k) < nm_kring_distance(kring, returned, taken))
            kring = rx;
    }
    return kring->old.layout ? nm_old_ring_buffer(kring, k)
                             : READ_ONCE(kring->ring->slot[k].buf_idx);
}

/* Whose slots account for buffers: of the two rings of a pipe's direction, the sender's. */
static bool accounts(const struct nm_kring *kring) {
    return nm_kring_exists(kring) && !(kring->partner && kring->dir == NM_RX);
}

static void count_port(struct nm_census *census, const struct nm_port *port) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = 0; i < nm_port_total_rings(port, dir); i++) {
            const struct nm_kring *kring = &port->krings[dir][i];
            if (!accounts(kring)) continue;
            census->owed += kring->num_slots;
            for (uint32_t s = 0; s < kring->num_slots; s++)
                see(census, &port->buffers, buffer_at(kring, s));
        }
    }
    for (const struct nm_file *file = port->first_file; file; file = file->next_file) {
        census->owed += file->extra_bufs;
        uint32_t index = READ_ONCE(file->nifp->ni_bufs_head);
        for (uint32_t n = 0; n < file->extra_bufs && usable_index(&port->buffers, index); n++) {
            see(census, &port->buffers, index);
            index = next_extra(&port->buffers, index);
        }
    }
}

struct nm_census nm_census_take(struct nm_region *region) {
    struct nm_census census = {.visible = nm_region_blank_bitmap(region)};
    for (struct nm_port *port = *nm_region_ports(region); port; port = port->next_port)
        count_port(&census, port);
    return census;
}

/* Frees a buffer that a departing client left in a slot or a list, unless a live ring names it too:
 * a client killed in the middle of a swap, or one that wrote down what is not its own. */
static bool give_back(const struct nm_census *census, struct nm_region *region, uint32_t index) {
    struct nm_buffers buffers = nm_region_buffers(region);
    if (!usable_index(&buffers, index) || buffers.state[index] != NM_BUFFER_CLIENT) return false;
    if (census->visible[index / 64] >> (index % 64) & 1) return false;
    return nm_region_free(region, NM_POOL_BUF, index);
}

void nm_give_back_ring(struct nm_kring *kring, const struct nm_census *census) {
    struct nm_kring *partner = kring->partner;
    struct nm_kring *sender = partner && kring->dir == NM_RX ? partner : kring;
    struct nm_region *region = kring->port->region;
    for (uint32_t s = 0; s < kring->num_slots; s++)
        give_back(census, region, buffer_at(sender, s));
    nm_region_free(region, NM_POOL_RING, kring->ring_object);
    kring->ring = NULL;
    if (!partner) return;
    nm_region_free(region, NM_POOL_RING, partner->ring_object);
    partner->ring = NULL;
}

void nm_give_back_rings(struct nm_port *port, const struct nm_file *file,
                        const struct nm_census *census) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++)
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++)
            if (!nm_kring_exists(&port->krings[dir][i]))
                nm_give_back_ring(&port->krings[dir][i], census);
}

void nm_give_back_extra(struct nm_port *port, const struct nm_file *file,
                        const struct nm_census *census) {
    uint32_t index = READ_ONCE(file->nifp->ni_bufs_head);
    for (uint32_t n = 0; n < file->extra_bufs && usable_index(&port->buffers, index); n++) {
        uint32_t next = next_extra(&port->buffers, index);
        if (!give_back(census, port->region, index)) break;
        index = next;
    }
}
