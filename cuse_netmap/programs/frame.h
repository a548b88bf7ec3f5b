/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The frames that gen sends and sink recognises: UDP over IPv4 over Ethernet, a sequence number
 * first in the payload; rings and slots are no business of this file.
 */
#ifndef NETMAP_TRAFFIC_FRAME_H
#define NETMAP_TRAFFIC_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_MIN 60 /* shortest on the wire, FCS not counted */
#define FRAME_MAX 65535

struct endpoint {
    uint8_t address[4];
    uint16_t port;
};

struct frame_addresses {
    uint8_t source_mac[6];
    uint8_t destination_mac[6];
    struct endpoint source;
    struct endpoint destination;
};

/* A frame of which only the sequence number changes. */
struct frame_template {
    uint16_t length;
    uint32_t
        checksum; /* unfolded sum of all that the UDP checksum covers but the sequence number */
    uint8_t bytes[FRAME_MAX];
};

/* A frame of length bytes (FRAME_MIN or more), payload a counting pattern; stream tells one run
 * from another. */
void frame_prepare(struct frame_template *frame, const struct frame_addresses *addresses,
                   uint16_t length, uint32_t stream);

/* Writes the frame with this sequence number to where, which has room for its length. */
void frame_write(const struct frame_template *frame, uint64_t sequence, uint8_t *where);

/* Is this one of gen's frames (VLAN tags are looked past)? Then its stream and sequence number. */
bool frame_read(const uint8_t *bytes, size_t length, uint32_t *stream, uint64_t *sequence);

#endif /* NETMAP_TRAFFIC_FRAME_H */
