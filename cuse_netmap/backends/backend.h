/* SPDX-License-Identifier: BSD-2-Clause */
/* What a backend is to the engine: queues that take and give frames. A backend knows nothing of
 * ioctls, rings or slots; ports/nic.c does the slots. */
#ifndef CUSE_NETMAP_BACKEND_H
#define CUSE_NETMAP_BACKEND_H

#include <stdbool.h>
#include <stdint.h>

#include "ring_core.h"

/* One buffer of a packet. A packet longer than a buffer continues in the next frame. */
struct nm_frame {
    char *data;
    uint16_t len; /* bytes: of the packet (tx), of the buffer before and of the packet after rx */
    bool more;    /* the packet goes on in the next frame */
};

struct nm_backend_ops {
    const char *name;
    /* Sends whole packets; count frames hold no part of one. Returns the frames taken (sent, or
     * dropped and counted), fewer when the device is full. -EIO once the device is gone. */
    int (*tx)(void *queue, const struct nm_frame *frames, uint32_t count,
              struct nm_ring_stats *stats);
    /* Receives packets of up to `per_packet` frames each while that many are left of `count`; sets
     * len and more of each frame it fills and returns how many. Longer packets are dropped and
     * counted. -EIO once the device is gone. */
    int (*rx)(void *queue, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
              struct nm_ring_stats *stats);
    /* Becomes readable when rx, writable when tx may get further. */
    int (*event_fd)(void *queue);
    /* Before the first rx: forget what came while nobody listened. */
    void (*flush)(void *queue, struct nm_ring_stats *stats);
    void (*close)(void *queue);
};

#endif
