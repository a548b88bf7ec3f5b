/* SPDX-License-Identifier: BSD-2-Clause */
/* Who wakes programs that sleep on rings of DPDK devices: one thread, which sleeps until an
 * interrupt where the device has them, and else looks, less and less often while nothing comes.
 * While nobody sleeps it does nothing. */
#ifndef CUSE_NETMAP_DPDK_POLLER_H
#define CUSE_NETMAP_DPDK_POLLER_H

#include "dpdk/queue.h"

/* From now on `call` may be made (backend.h), on the poller's thread. -errno of starting that. */
int nm_poller_add(struct nm_dpdk_queue *queue, nm_watch_call *call, void *arg);
/* Somebody sleeps for these events, EPOLLIN or EPOLLOUT. Any thread. */
void nm_poller_arm(struct nm_dpdk_queue *queue, uint32_t events);
/* No call is running or will be made again; of one that was never added, nothing. */
void nm_poller_remove(struct nm_dpdk_queue *queue);

#endif
