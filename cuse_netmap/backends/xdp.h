/* SPDX-License-Identifier: BSD-2-Clause */
/* The data path of an interface of the kernel's through AF_XDP sockets, whose memory is the buffer
 * pool itself: neither direction copies here. How interfaces are found is backends/xdp.py's. */
#ifndef CUSE_NETMAP_XDP_H
#define CUSE_NETMAP_XDP_H

#include "backends/backend.h"
#include "refusal.h"
#include "region.h"

const struct nm_backend_ops *nm_xdp_backend(void);

/* How an interface's driver takes part. */
enum nm_xdp_mode {
    NM_XDP_BEST,     /* one of the next two: the first that it can */
    NM_XDP_ZEROCOPY, /* it runs the XDP program, and reads and writes the buffers */
    NM_XDP_NATIVE,   /* it runs the program, and the kernel copies */
    NM_XDP_GENERIC,  /* not at all: the kernel does both with its socket buffers */
};

struct nm_xdp_config {
    const char *name;    /* of the interface, in the network namespace of the calling thread */
    uint32_t ifindex;    /* the same */
    uint32_t queues;     /* all it has */
    uint32_t slots;      /* of a ring of each */
    uint32_t buffers;    /* the lowest ones of the pool, which devices reach; others are copied */
    uint32_t frame_most; /* bytes of a frame that may be sent; nm_xdp_set_frame_most */
    enum nm_xdp_mode mode;
};

/* Attaches the XDP program and opens all queues of an interface, each of which receives only once
 * it is started. May take as long as registering the memory does, and leaves the region's books
 * alone.
 * -EOPNOTSUPP: not in this mode; -EBUSY: it has an XDP program, or somebody has a queue; -ENOBUFS:
 * more memory than may be locked; -EPERM: a capability is missing; -EINVAL: buffers of this size
 * cannot be used; else -errno of the system call that *why names. */
int nm_xdp_open(const struct nm_xdp_config *config, struct nm_region *region, void **queues,
                struct nm_refusal *why);

/* Whether its driver reads and writes the buffers. */
bool nm_xdp_zero_copy(const void *queue);

/* The interface's MTU has changed. */
void nm_xdp_set_frame_most(void *queue, uint32_t bytes);

#endif
