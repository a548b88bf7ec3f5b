/* SPDX-License-Identifier: BSD-2-Clause */
/* The data path of a DPDK device: one RX and one TX queue as a queue of backend.h. */
#ifndef CUSE_NETMAP_DPDK_QUEUE_H
#define CUSE_NETMAP_DPDK_QUEUE_H

#include <pthread.h>
#include <rte_mbuf.h>

#include "backends/backend.h"
#include "events.h"
#include "ring_core.h"

#define NM_DPDK_BURST 64

/* A frame that the device reads where it is: `landed` once it no longer does. */
struct nm_flight {
    struct rte_mbuf_ext_shared_info shared;
    uint64_t number; /* of the frame, counted from the first that was taken */
    bool landed;
};

/* What nm_dpdk_set_memory says. */
struct nm_dpdk_memory {
    char *base;
    uint64_t length;
};

struct nm_dpdk_queue {
    uint16_t number, index; /* the device's, and the queue's there */
    uint16_t *open;         /* queues of the device: with the last it is stopped */
    struct rte_mempool *pool;
    const struct nm_dpdk_memory *memory;
    uint32_t longest; /* bytes of a frame that may be sent, atomically */
    uint32_t copy_below;
    uint32_t room; /* bytes that one mbuf holds */
    bool chains;   /* the device sends frames of several mbufs */

    /* Sending: one thread at a time. The flights from `landing` up to `starting` are under way. */
    uint64_t taken;
    struct nm_flight *flights;
    uint32_t num_flights, starting, landing; /* a power of two; free-running */

    /* Receiving: what has been taken from the device, and not by a program yet. */
    pthread_mutex_t lock;
    struct rte_mbuf *waiting[NM_DPDK_BURST];
    uint16_t next, end;

    /* poller.c's, with its lock. */
    nm_watch_call *call;
    void *arg;
    uint32_t armed;                        /* EPOLLIN, EPOLLOUT */
    uint64_t due[NM_DIRS], pause[NM_DIRS]; /* ns: of the next look, and until the one after it */
    bool interrupts;                       /* the device can say that frames have come */
    bool interrupted;                      /* and will: nobody need look */
    uint64_t longest_pause;
    struct nm_dpdk_queue *next_queue;
};

const struct nm_backend_ops *nm_dpdk_backend(void);

/* -ENOMEM. The rest of the queue is set. */
int nm_dpdk_queue_init(struct nm_dpdk_queue *queue, uint32_t descriptors);
/* The device has been closed: nothing of it reads frames any more. */
void nm_dpdk_queue_fini(struct nm_dpdk_queue *queue);
/* Whether frames wait: looks at the device if need be. Any thread. */
bool nm_dpdk_look(struct nm_dpdk_queue *queue);
/* Of the frames taken last, how many the device may still read. By whoever sends. */
uint32_t nm_dpdk_in_flight(struct nm_dpdk_queue *queue);

#endif
