/* SPDX-License-Identifier: BSD-2-Clause */
/* netmap_ifs: made, filled, and never looked at again but for their lists of buffers. */
#include "netmap_if.h"

#include <string.h>

#include "ages.h"
#include "barrier.h"

int nm_if_check_size(const struct nm_region *region, uint32_t rings, struct nm_refusal *why) {
    uint32_t size = nm_region_pool(region, NM_POOL_IF).objsize;
    if (NETMAP_IF_BYTES(rings) <= size) return 0;
    return nm_refuse(why, ENOMEM, "a netmap_if of %u rings takes %zu bytes, if_size is %u", rings,
                     NETMAP_IF_BYTES(rings), size);
}

/* A host ring in each direction is counted even if there is none, as programs do. */
uint32_t nm_if_entries(const struct nm_port *port, enum nm_dir dir) {
    return port->num_rings[dir] + (port->num_host[dir] ? port->num_host[dir] : 1);
}

/* How many hardware and host rings a netmap_if counts. A pair is a ring each way; programs from
 * before there could be several host rings count one. */
struct counted {
    uint32_t hardware, host;
};

static struct counted counted(const struct nm_port *port, const struct nm_if_layout *layout,
                              enum nm_dir dir) {
    uint32_t hardware = port->num_rings[dir], other = port->num_rings[!dir];
    bool pairs = layout->rings[NM_TX] == layout->rings[NM_RX];
    if (pairs && other < hardware) hardware = other;
    return (struct counted){
        hardware, layout->host_rings[dir] ? nm_if_entries(port, dir) - port->num_rings[dir] : 1};
}

static void put(struct netmap_if *nifp, uint16_t offset, uint32_t value) {
    if (offset) WRITE_ONCE(*(uint32_t *)(void *)((char *)nifp + offset), value);
}

/* Where the file's rings are: tx, host tx, rx, host rx; 0: not bound. */
void nm_if_show_rings(const struct nm_port *port, const struct nm_file *file) {
    const struct nm_if_layout *layout = nm_age_of(file->api)->nifp;
    uint64_t here = nm_region_offset(port->region, NM_POOL_IF, file->if_object);
    int64_t *ring_ofs = (int64_t *)(void *)((char *)file->nifp + layout->ring_ofs);
    for (int d = NM_TX; d >= NM_RX; d--) {
        struct counted count = counted(port, layout, d);
        for (uint32_t entry = 0; entry < count.hardware + count.host; entry++) {
            uint32_t i =
                entry < count.hardware ? entry : entry - count.hardware + port->num_rings[d];
            bool bound = i >= file->first[d] && i < file->last[d];
            const struct nm_kring *kring = bound ? &port->krings[d][i] : NULL;
            uint32_t object = bound && kring->old.layout ? kring->old.object
                              : bound                    ? kring->ring_object
                                                         : 0;
            uint64_t there = nm_region_offset(port->region, NM_POOL_RING, object);
            WRITE_ONCE(*ring_ofs, bound ? (int64_t)(there - here) : 0);
            ring_ofs++;
        }
    }
}

/* A chain through the first word of each buffer, its head the one allocated last. */
static void grant_extra(struct nm_port *port, struct nm_file *file, uint32_t wanted) {
    uint32_t head = 0, granted = 0;
    for (; granted < wanted; granted++) {
        int64_t index = nm_region_alloc(port->region, NM_POOL_BUF);
        if (index < 0) break;
        *(uint32_t *)nm_region_object(port->region, NM_POOL_BUF, (uint32_t)index) = head;
        head = (uint32_t)index;
    }
    if (granted) file->nifp->ni_bufs_head = head; /* else it may not have that field */
    file->extra_bufs = granted;
}

void nm_if_create(struct nm_port *port, struct nm_file *file, uint32_t extra) {
    struct nm_region *region = port->region;
    const struct nm_if_layout *layout = nm_age_of(file->api)->nifp;
    file->if_object = (uint32_t)nm_region_alloc(region, NM_POOL_IF);
    struct netmap_if *nifp = nm_region_object(region, NM_POOL_IF, file->if_object);
    memset(nifp, 0, nm_region_pool(region, NM_POOL_IF).objsize);
    memcpy(nifp->ni_name, port->name, strnlen(port->name, sizeof(nifp->ni_name) - 1));
    put(nifp, layout->flags, nm_region_extmem(region) ? NI_PRIV_MEM : 0);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        put(nifp, layout->rings[dir], counted(port, layout, dir).hardware);
        put(nifp, layout->host_rings[dir], counted(port, layout, dir).host);
    }
    file->nifp = nifp;
    nm_if_show_rings(port, file);
    grant_extra(port, file, layout->bufs_head ? extra : 0);
}
