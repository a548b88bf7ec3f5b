/* SPDX-License-Identifier: BSD-2-Clause */
/* What xdp.c, which moves packets, and xdp_open.c, which makes what they move through, share. */
#ifndef CUSE_NETMAP_XDP_QUEUE_H
#define CUSE_NETMAP_XDP_QUEUE_H

#include <linux/if_xdp.h>
#include <xdp/xsk.h>

#include "backends/xdp.h"

#define NM_XDP_HEADROOM 256 /* XDP_PACKET_HEADROOM: a frame's distance from its chunk's start */
#define NM_XDP_SPARES 256   /* buffers of a queue to copy into what cannot be sent from its own */

/* Where a buffer below the limit is; anything else is its place among those in flight. */
#define NM_XDP_NOWHERE UINT32_MAX /* with clients, or in the pool */
#define NM_XDP_FILLING (UINT32_MAX - 1)
#define NM_XDP_SPARE (UINT32_MAX - 2)
#define NM_XDP_SPARE_AWAY (UINT32_MAX - 3)

struct nm_xdp_queue;

/* An interface. Its buffers go back to the region when all its sockets are closed. */
struct nm_xdp_device {
    struct nm_region *region;
    struct nm_buffers buffers;
    uint32_t limit; /* buffers from here on are not the kernel's to reach */
    uint32_t chunk; /* bytes, the headroom included; at most a buffer behind that */
    uint32_t frame_most;
    bool zero_copy;
    struct xsk_umem *umem;
    uint32_t generation; /* of the region's memory when it was registered */
    bool generic;
    int map, link;
    int control; /* a socket to ask for the link's state */
    int host;    /* one whose frames the host's stack gets */
    uint32_t ifindex;
    char name[16];
    uint32_t *place; /* of each buffer below the limit */
    uint32_t num_queues, open_queues;
    struct nm_xdp_queue *queues;
};

/* A frame that tx has taken. */
struct nm_xdp_flight {
    uint32_t buffer; /* that it is in flight in; 0: none */
    bool done;
};

struct nm_xdp_queue {
    struct nm_xdp_device *device;
    struct xsk_socket *socket;
    uint32_t number;
    int next_user; /* a socket to be bound when the driver has let go of the queue; -1: none */

    /* Sending. Places run from `oldest` to `next`, and are counted modulo the size of tx. */
    struct xsk_ring_prod tx;
    struct xsk_ring_cons comp;
    struct nm_xdp_flight *flights;
    uint32_t oldest, next;
    uint32_t away;                /* descriptors the kernel has not completed */
    uint32_t *spares, num_spares; /* room for NM_XDP_SPARES and all that can be in flight */

    /* Receiving. */
    struct xsk_ring_cons rx;
    struct xsk_ring_prod fill;
    struct nm_ring_stats *stats; /* from the first start on */
    struct xdp_statistics seen;  /* of what the kernel has counted */
    uint64_t looked;             /* when, in milliseconds */
};

static inline uint64_t nm_xdp_address(const struct nm_xdp_device *device, uint32_t buffer) {
    return (uint64_t)buffer * device->buffers.size;
}

/* Whether the kernel can receive into a buffer. Drivers that write there themselves know it by
 * pages, and refuse chunks that cross them. */
static inline bool nm_xdp_fillable(const struct nm_xdp_device *device, uint32_t buffer) {
    if (buffer < NETMAP_BUF_FIRST || buffer >= device->limit) return false;
    uint64_t start = nm_xdp_address(device, buffer) - NM_XDP_HEADROOM;
    return !device->zero_copy || start / 4096 == (start + device->chunk - 1) / 4096;
}

/* The queue may receive into a buffer of its own. */
static inline void nm_xdp_fill(struct nm_xdp_queue *queue, uint32_t slot, uint32_t buffer) {
    *xsk_ring_prod__fill_addr(&queue->fill, slot) =
        nm_xdp_address(queue->device, buffer) - NM_XDP_HEADROOM;
}

/* One of the queue's own goes back to the region. */
static inline void nm_xdp_return(struct nm_xdp_device *device, uint32_t buffer) {
    device->place[buffer] = NM_XDP_NOWHERE;
    nm_region_return(device->region, buffer);
}

int nm_xdp_lend(void *queue, struct nm_refusal *why);
void nm_xdp_close(void *queue);

#endif
