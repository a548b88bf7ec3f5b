/* SPDX-License-Identifier: BSD-2-Clause */
/* Packets between ports whose virtio-net headers differ: headers, checksums, segments. */
#ifndef CUSE_NETMAP_OFFLOAD_H
#define CUSE_NETMAP_OFFLOAD_H

#include "ports/switch.h"

/* One buffer of a packet on its way through a switch. */
struct nm_fragment {
    char *data;
    uint32_t len;  /* bytes */
    uint8_t count; /* of the packet's first: how many buffers it has */
};

/* Puts a packet, which begins with a header of `from` bytes (0, 10, 12), into the outlet with one
 * of `to` bytes, which differs: as several packets where it is to be segmented and the receiver
 * takes no headers. All of them, or none and a drop is counted. */
void nm_offload(struct nm_outlet *outlet, const struct nm_fragment *packet, uint32_t from,
                uint32_t to);

/* Finishes a packet from a device, cut into frames of at most `frame_most` bytes: NM_DROPS if it is
 * in the outlet, else why it is not; NM_DROP_FULL if only room is missing. */
enum nm_drop nm_offload_finish(struct nm_outlet *outlet, const struct nm_unfinished *packet,
                               uint32_t frame_most);

#endif
