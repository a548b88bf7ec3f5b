/* SPDX-License-Identifier: BSD-2-Clause */
/* One thread that waits for descriptors on behalf of sleeping clients. A watch costs nothing until
 * it is armed, fires once, and is armed again by the next client that sleeps. */
#ifndef CUSE_NETMAP_EVENTS_H
#define CUSE_NETMAP_EVENTS_H

#include <stdbool.h>
#include <stdint.h>

struct nm_events;
struct nm_watch;

/* Called on the events thread with the EPOLL* bits that came true. It must not destroy watches.
 * True: go on watching; false: the descriptor is of no use any more. */
typedef bool nm_watch_call(void *arg, uint32_t events);

int nm_events_create(struct nm_events **out);
void nm_events_destroy(struct nm_events *events); /* no watch may be left */

int nm_watch_create(struct nm_events *events, int fd, nm_watch_call *call, void *arg,
                    struct nm_watch **out);
/* The call is made once for each event armed, and for EPOLLERR and EPOLLHUP while one is. Any
 * thread. */
void nm_watch_arm(struct nm_watch *watch, uint32_t events);
/* The same a moment later, and some milliseconds later while it is asked for again and again: for a
 * client that has found something and most likely looks again before it sleeps. */
void nm_watch_arm_soon(struct nm_watch *watch, uint32_t events);
/* Once this returns the call is not running and will not be made again. */
void nm_watch_destroy(struct nm_watch *watch);

#endif
