/* SPDX-License-Identifier: BSD-2-Clause */
/* What a backend is to the engine: queues that take and give frames. A backend knows nothing of
 * ioctls, rings or slots; ports/nic.c does the slots. With stats.h it is all that a backend of
 * another package is compiled with, as <cuse_netmap/backend.h> (docs/backends.md). */
#ifndef CUSE_NETMAP_BACKEND_H
#define CUSE_NETMAP_BACKEND_H

#include <linux/virtio_net.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "../stats.h"

struct nm_refusal;

/* One buffer of a packet. A packet longer than a buffer continues in the next frame. */
struct nm_frame {
    char *data;
    uint32_t buffer; /* the client's buffer it is in, if that may change hands, else 0 */
    uint16_t len; /* bytes: of the packet (tx), of the buffer before and of the packet after rx */
    bool more;    /* the packet goes on in the next frame */
    bool swapped; /* rx: the packet is at the start of `buffer`, which is another one now */
};

/* A received packet that is not ready for a program: its virtio-net header (linux/virtio_net.h)
 * asks for a checksum, or to be cut into several. The pieces are the packet. */
struct nm_unfinished {
    struct virtio_net_hdr header;
    struct iovec pieces[3];
    uint32_t count;
};

/* Tells a backend that was compiled with another version of this page: whatever else changes its
 * meaning, but not the size of the struct, adds one to the first number. */
#define NM_BACKEND_ABI (1u << 16 | (uint32_t)sizeof(struct nm_backend_ops))

/* Sync calls tx and rx of a queue, each by one thread at a time, but both at once. */
struct nm_backend_ops {
    uint32_t abi; /* NM_BACKEND_ABI */
    const char *name;
    /* Sends whole packets; count frames hold no part of one. Returns the frames taken (sent, or
     * dropped and counted), fewer when the device is full. -EIO once the device is gone. */
    int (*tx)(void *queue, const struct nm_frame *frames, uint32_t count,
              struct nm_ring_stats *stats);
    /* The same, but it is the host's stack that gets them, as if they had come in here; it counts
     * what it drops only. NULL: there is none. */
    int (*to_host)(void *queue, const struct nm_frame *frames, uint32_t count,
                   struct nm_ring_stats *stats);
    /* How many of the frames taken last the device still reads where they are: their buffers are
     * nobody else's until then. NULL: none. */
    int (*in_flight)(void *queue);
    /* Receives packets of up to `per_packet` frames each while that many are left of `count`; sets
     * len and more of each frame it fills and returns how many. Longer packets are dropped and
     * counted. -EIO once the device is gone. */
    int (*rx)(void *queue, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
              struct nm_ring_stats *stats);
    /* Where rx stops: the next packet, if it is an unfinished one. Valid until it is finished,
     * which takes it off the queue. NULL: there are none. */
    bool (*unfinished)(void *queue, struct nm_unfinished *packet);
    void (*finished)(void *queue);
    /* Becomes readable when rx, writable when tx may get further. It is watched while somebody
     * sleeps, so what the next tx or rx says of the device counts, not an error here. */
    int (*event_fd)(void *queue);
    /* The one that becomes writable, if that is another. NULL: it is the same. */
    int (*tx_event_fd)(void *queue);
    /* Instead of event_fd, for a backend that says so itself: `call`, once for each of EPOLLIN and
     * EPOLLOUT armed, and with EPOLLERR when the device is gone, from a thread of its own, from
     * listen (-errno) until close returns. */
    int (*listen)(void *queue, bool (*call)(void *arg, uint32_t events), void *arg);
    void (*arm)(void *queue, uint32_t events);
    /* It said EPOLLERR or EPOLLHUP: has the device gone? NULL: yes. */
    bool (*gone)(void *queue);
    /* Before the first rx: what comes from now on is received, and nothing that came before. -errno
     * of what failed. And behind the last: nothing is received any more. */
    int (*start)(void *queue, struct nm_ring_stats *stats);
    void (*stop)(void *queue);
    void (*close)(void *queue);

    /* Of a backend whose device reads and writes buffers itself, NULL of all others. It may take a
     * frame's buffer (region.h), in flight on tx, lent for another one on rx. */

    /* Behind the opening, with the region's books at hand (nm_region_lend): takes the buffers that
     * the queue needs for its own. close gives them back. */
    int (*lend)(void *queue, struct nm_refusal *why);
    /* Instead of in_flight, with the books of buffers in flight kept by the backend: how many
     * frames of those that tx has taken are the device's still, the latest ones. */
    uint32_t (*held)(void *queue);
    /* Behind the last tx: none is in flight any more, whatever the device does. */
    void (*settle)(void *queue);
};

#endif
