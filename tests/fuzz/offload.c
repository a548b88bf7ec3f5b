/* SPDX-License-Identifier: BSD-2-Clause */
/* Drives the real nm_offload with packets that are nearly right, or not at all: offload SEED STEPS.
 * Memory that is not its own is poisoned: each fragment ends at its last byte, and between any two
 * buffers of the receiver lies one that nobody may touch. What is delivered must be whole. */
#include <endian.h>
#include <linux/virtio_net.h>
#include <sanitizer/asan_interface.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ports/offload.h"

#define SLOTS 256
#define BUFFERS (2 * SLOTS + 2) /* the even ones are the receiver's, buffer 0 included */
#define BUFFER_MOST 4096
#define FRAME_MOST 1514

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail(__LINE__, #condition);                                              \
    } while (0)

static uint64_t state, seed, step, delivered, cut;
static char memory[BUFFERS * BUFFER_MOST] __attribute__((aligned(64)));
static uint8_t buffer_state[BUFFERS];
static struct nm_port port;
static struct nm_kring kring = {.port = &port};
static union {
    struct netmap_ring ring;
    char space[sizeof(struct netmap_ring) + SLOTS * sizeof(struct netmap_slot)];
} shared;

static void fail(int line, const char *what) {
    fprintf(stderr, "seed %llu, step %llu: line %d: %s\n", (unsigned long long)seed,
            (unsigned long long)step, line, what);
    abort();
}

static uint32_t below(uint32_t limit) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16) % limit;
}

/* ---- the receiver --------------------------------------------------------------------------- */

static void make_receiver(void) {
    static const uint32_t sizes[] = {64, 128, 512, 2048, 2048, 2048, BUFFER_MOST};
    ASAN_UNPOISON_MEMORY_REGION(memory, sizeof(memory));
    uint32_t size = sizes[below(7)];
    port.buffers = (struct nm_buffers){memory, buffer_state, size, BUFFERS};
    for (uint32_t i = 0; i < BUFFERS; i++) {
        buffer_state[i] = NM_BUFFER_CLIENT;
        if (i % 2) ASAN_POISON_MEMORY_REGION(memory + (size_t)i * size, size);
    }
    kring.ring = &shared.ring;
    kring.num_slots = 2 + below(SLOTS - 1);
    kring.offset_max = below(4) ? 0 : below(size + 1);
    kring.offset_mask = below(2) ? UINT64_MAX : below(size);
    for (uint32_t i = 0; i < kring.num_slots; i++) {
        kring.ring->slot[i] = (struct netmap_slot){
            .buf_idx = below(64) ? 2 * (i + 1) : BUFFERS + below(3),
            .ptr = (uint64_t)below(UINT32_MAX) << below(32),
        };
    }
}

/* What stands in slots [from, to): whole packets, none empty, none longer than asked. */
static void check_slots(uint32_t from, uint32_t to, uint32_t most) {
    struct nm_ring_stats *stats = &kring.stats;
    uint32_t packets = 0, bytes = 0;
    while (from != to) {
        uint32_t count = kring.ring->slot[from].flags >> 8, length = 0;
        CHECK(count && count <= NETMAP_MAX_FRAGS);
        for (uint32_t i = 0; i < count; i++) {
            CHECK(from != to);
            const struct netmap_slot *slot = &kring.ring->slot[from];
            CHECK(slot->len);
            CHECK(slot->len <= port.buffers.size - nm_slot_offset(&kring, slot));
            CHECK(slot->flags == (count << 8 | (i + 1 < count ? NS_MOREFRAG : 0)));
            length += slot->len;
            from = nm_kring_next(&kring, from);
        }
        CHECK(length <= most);
        packets++;
        bytes += length;
    }
    CHECK(stats->packets == packets && stats->bytes == bytes);
    uint64_t drops = 0;
    for (enum nm_drop i = 0; i < NM_DROPS; i++)
        drops += stats->drops[i];
    CHECK(drops == !packets);
    CHECK(!drops || stats->drops[NM_DROP_BAD] || stats->drops[NM_DROP_FULL] ||
          stats->drops[NM_DROP_LONG]);
    delivered += packets;
    cut += packets > 1;
}

/* ---- the packet ----------------------------------------------------------------------------- */

static void put16(char *to, uint32_t value) {
    to[0] = (char)(value >> 8);
    to[1] = (char)value;
}

/* A header and a frame that agree with each other; bytes of both change afterwards. */
static void make_headers(char *packet, uint32_t header) {
    bool v4 = below(2), tcp = below(3);
    struct virtio_net_hdr vnet = {
        .flags = below(4) ? VIRTIO_NET_HDR_F_NEEDS_CSUM : (uint8_t)below(4),
        .gso_size = htole16((uint16_t)(below(3) ? below(2000) : below(0x10000))),
        .csum_start = htole16((uint16_t)(below(4) ? 34 : below(0x10000))),
        .csum_offset = htole16((uint16_t)(below(4) ? 16 : below(0x10000))),
    };
    vnet.gso_type = !tcp ? VIRTIO_NET_HDR_GSO_UDP
                    : v4 ? VIRTIO_NET_HDR_GSO_TCPV4
                         : VIRTIO_NET_HDR_GSO_TCPV6;
    if (tcp && !below(4)) vnet.gso_type |= VIRTIO_NET_HDR_GSO_ECN;
    if (!below(4)) vnet.gso_type = VIRTIO_NET_HDR_GSO_NONE;
    memcpy(packet, &vnet, header < sizeof(vnet) ? header : sizeof(vnet));

    char *at = packet + header + 12;
    for (uint32_t tags = below(4) ? 0 : below(70); tags; tags--, at += 4)
        put16(at, below(2) ? 0x8100 : 0x88a8);
    put16(at, v4 ? 0x0800 : 0x86dd);
    at += 2;
    uint32_t words = v4 ? (below(4) ? 5 : below(16)) : 10;
    at[0] = (char)(v4 ? 0x40 | words : 0x60);
    if (v4) put16(at + 6, below(8) ? 0x4000 : below(0x10000));
    at[v4 ? 9 : 6] = (char)(below(16) ? (tcp ? 6 : 17) : (int)below(256));
    at[4 * words + 12] = (char)((below(4) ? 5 : below(16)) << 4);
}

static void one_packet(void) {
    static const uint32_t lengths[] = {0, 10, 12};
    static char packet[NETMAP_MAX_FRAGS * BUFFER_MOST];
    uint32_t from = lengths[below(3)], to = lengths[below(3)];
    if (from == to) return;
    uint32_t length = 1 + (below(3) ? below(sizeof(packet) / 8) : below(sizeof(packet)));
    if (!below(8)) length = 1 + below(100);
    for (uint32_t i = 0; i < length && i < 1024; i++)
        packet[i] = (char)below(256);
    if (below(16)) make_headers(packet, from);
    for (uint32_t i = below(3) ? 0 : below(4); i > 0; i--)
        packet[below(100)] = (char)below(256);

    struct nm_fragment fragments[NETMAP_MAX_FRAGS];
    uint32_t count = 0, stop = below(2) ? 4 : 1000; /* few fragments, or as many as there can be */
    for (uint32_t done = 0; done < length; count++) {
        uint32_t len = length - done;
        if (count + 1 < NETMAP_MAX_FRAGS && below(stop)) {
            len = below(3) ? below(BUFFER_MOST) : below(20);
            if (len > length - done) len = length - done;
        }
        char *data = malloc(len);
        CHECK(data);
        memcpy(data, packet + done, len);
        fragments[count] = (struct nm_fragment){.data = data, .len = len};
        done += len;
    }
    fragments[0].count = (uint8_t)count;

    struct nm_outlet outlet = {.kring = &kring,
                               .next = below(kring.num_slots),
                               .room = below(4) ? kring.num_slots - 1 : below(kring.num_slots)};
    struct nm_outlet before = outlet;
    memset(&kring.stats, 0, sizeof(kring.stats));
    nm_offload(&outlet, fragments, from, to);
    uint32_t filled = nm_kring_distance(&kring, before.next, outlet.next);
    CHECK(filled <= before.room && outlet.room == before.room - filled);
    check_slots(before.next, outlet.next,
                kring.stats.packets > 1 ? FRAME_MOST : length + to - from);
    for (uint32_t i = 0; i < count; i++)
        free(fragments[i].data);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    seed = strtoull(argv[1], NULL, 0);
    state = seed * 0x9e3779b97f4a7c15u + 1;
    uint64_t steps = strtoull(argv[2], NULL, 0);
    for (step = 0; step < steps; step++) {
        if (step % 16 == 0) make_receiver();
        one_packet();
    }
    printf("seed %llu: %llu frames delivered, %llu packets cut\n", (unsigned long long)seed,
           (unsigned long long)delivered, (unsigned long long)cut);
    return 0;
}
