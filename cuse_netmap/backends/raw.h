/* SPDX-License-Identifier: BSD-2-Clause */
/* The data path of an interface of the kernel's through AF_PACKET sockets (packet(7)), which any
 * driver has. How interfaces are found is backends/raw.py's. */
#ifndef CUSE_NETMAP_RAW_H
#define CUSE_NETMAP_RAW_H

#include "backends/backend.h"
#include "refusal.h"

const struct nm_backend_ops *nm_raw_backend(void);

struct nm_raw_config {
    int ifindex;         /* in the network namespace of the calling thread */
    uint32_t frame_size; /* bytes of the longest ordinary frame */
    uint32_t frames;     /* that may wait to be received */
    uint32_t queue,
        queues;     /* which of the interface's receive queues this one is, and of how many */
    uint32_t first; /* the first queue's number in a packet (nm_steer_packet_queue) */
};

/* Opens a queue, which receives only once it is started. -EPERM: no CAP_NET_RAW; -ENXIO: no such
 * interface; else -errno of the system call that *why names. */
int nm_raw_queue_open(const struct nm_raw_config *config, void **out, struct nm_refusal *why);

#endif
