/* SPDX-License-Identifier: BSD-2-Clause */
/* What is counted of a ring. */
#ifndef CUSE_NETMAP_STATS_H
#define CUSE_NETMAP_STATS_H

#include <stdint.h>

enum nm_drop {
    NM_DROP_DOWN,    /* the interface is down */
    NM_DROP_SHORT,   /* no Ethernet header */
    NM_DROP_LONG,    /* longer than a frame may be, or than the slots given for it */
    NM_DROP_STALE,   /* queued before anyone had bound the ring */
    NM_DROP_SINK,    /* a ring with nothing behind it */
    NM_DROP_ERROR,   /* the kernel refused it */
    NM_DROP_FULL,    /* the receiver had no room; counted at the receiver */
    NM_DROP_NOWHERE, /* a switch has nobody to give it to: its own port, or one that is not open */
    NM_DROP_BAD,     /* a chain of slots without end, a pointer into nowhere, headers that lie */
    NM_DROPS
};

/* Counters of one ring since its port exists. Written by the thread that syncs, read by anyone. */
struct nm_ring_stats {
    uint64_t packets, bytes;
    uint64_t drops[NM_DROPS];
    uint64_t syncs, wakeups;
    uint64_t bad_rings; /* head or cur out of bounds */
    uint64_t bad_slots; /* a buffer index no client may use */
};

#endif
