/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Building and recognising gen's frames, byte by byte in network order; no rings here.
 */
#include "frame.h"

#include <string.h>

enum {
    ETHERNET_SIZE = 14,
    IP_SIZE = 20,
    UDP_SIZE = 8,
    IP_AT = ETHERNET_SIZE,
    UDP_AT = IP_AT + IP_SIZE,
    UDP_CHECKSUM_AT = UDP_AT + 6,
    MAGIC_AT = UDP_AT + UDP_SIZE, /* payload: magic, stream, sequence number */
    STREAM_AT = MAGIC_AT + 4,
    SEQUENCE_AT = STREAM_AT + 4,
    PATTERN_AT = SEQUENCE_AT + 8,

    ETHERTYPE_IPV4 = 0x0800,
    ETHERTYPE_VLAN = 0x8100,
    ETHERTYPE_SERVICE_VLAN = 0x88a8,
    PROTOCOL_UDP = 17,
};

static const uint8_t magic[4] = {'n', 'm', 't', 'g'};

static void put16(uint8_t *where, uint16_t value) {
    where[0] = (uint8_t)(value >> 8);
    where[1] = (uint8_t)value;
}

static void put32(uint8_t *where, uint32_t value) {
    put16(where, (uint16_t)(value >> 16));
    put16(where + 2, (uint16_t)value);
}

static uint16_t get16(const uint8_t *where) { return (uint16_t)(where[0] << 8 | where[1]); }

static uint32_t get32(const uint8_t *where) {
    return (uint32_t)get16(where) << 16 | get16(where + 2);
}

/* The internet checksum (RFC 1071) in two steps, so that a sum can be kept and added to. */
static uint32_t checksum_add(uint32_t sum, const uint8_t *bytes, size_t length) {
    size_t i;
    for (i = 0; i + 1 < length; i += 2)
        sum += get16(bytes + i);
    if (i < length) sum += (uint32_t)bytes[i] << 8;
    return sum;
}

static uint16_t checksum_fold(uint32_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)~sum;
}

void frame_prepare(struct frame_template *frame, const struct frame_addresses *addresses,
                   uint16_t length, uint32_t stream) {
    uint8_t *bytes = frame->bytes, *ip = bytes + IP_AT, *udp = bytes + UDP_AT;
    uint16_t udp_length = (uint16_t)(length - UDP_AT);
    memset(bytes, 0, PATTERN_AT);
    frame->length = length;

    memcpy(bytes, addresses->destination_mac, 6);
    memcpy(bytes + 6, addresses->source_mac, 6);
    put16(bytes + 12, ETHERTYPE_IPV4);

    ip[0] = 0x45;                              /* version 4, header of five words */
    put16(ip + 2, (uint16_t)(length - IP_AT)); /* total length */
    put16(ip + 6, 0x4000);                     /* do not fragment */
    ip[8] = 64;                                /* time to live */
    ip[9] = PROTOCOL_UDP;
    memcpy(ip + 12, addresses->source.address, 4);
    memcpy(ip + 16, addresses->destination.address, 4);
    put16(ip + 10, checksum_fold(checksum_add(0, ip, IP_SIZE)));

    put16(udp, addresses->source.port);
    put16(udp + 2, addresses->destination.port);
    put16(udp + 4, udp_length);

    memcpy(bytes + MAGIC_AT, magic, sizeof(magic));
    put32(bytes + STREAM_AT, stream);
    for (size_t i = PATTERN_AT; i < length; i++)
        bytes[i] = (uint8_t)(i - PATTERN_AT);

    /* With the pseudo header of RFC 768: addresses, protocol, length. */
    frame->checksum =
        checksum_add(checksum_add(PROTOCOL_UDP + udp_length, ip + 12, 8), udp, udp_length);
}

void frame_write(const struct frame_template *frame, uint64_t sequence, uint8_t *where) {
    uint32_t high = (uint32_t)(sequence >> 32), low = (uint32_t)sequence;
    uint32_t sum = frame->checksum + (high >> 16) + (high & 0xffff) + (low >> 16) + (low & 0xffff);
    uint16_t checksum = checksum_fold(sum);
    memcpy(where, frame->bytes, frame->length);
    put32(where + SEQUENCE_AT, high);
    put32(where + SEQUENCE_AT + 4, low);
    put16(where + UDP_CHECKSUM_AT, checksum ? checksum : 0xffff); /* 0 would say "none" */
}

bool frame_read(const uint8_t *bytes, size_t length, uint32_t *stream, uint64_t *sequence) {
    size_t tags = 0;
    while (length >= 14 + tags + 4 && (get16(bytes + 12 + tags) == ETHERTYPE_VLAN ||
                                       get16(bytes + 12 + tags) == ETHERTYPE_SERVICE_VLAN))
        tags += 4;
    bytes += tags;
    if (length < tags + PATTERN_AT || get16(bytes + 12) != ETHERTYPE_IPV4 || bytes[IP_AT] != 0x45 ||
        bytes[IP_AT + 9] != PROTOCOL_UDP || memcmp(bytes + MAGIC_AT, magic, sizeof(magic)) != 0)
        return false;
    *stream = get32(bytes + STREAM_AT);
    *sequence = (uint64_t)get32(bytes + SEQUENCE_AT) << 32 | get32(bytes + SEQUENCE_AT + 4);
    return true;
}
