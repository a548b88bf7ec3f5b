/* SPDX-License-Identifier: BSD-2-Clause */
/* A program that writes nonsense over all it shares with the server while it syncs and polls. It
 * names no buffer of other programs: what it may do to those is another test's. */
#include <fcntl.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define SLOTS 1024
#define RINGS 4
#define EXTRA 16

static int fd;
static char *interface; /* our netmap_if, and where our rings were before we spoilt the offsets */
static char *rings[RINGS];
static uint32_t buffers[RINGS * SLOTS];
static atomic_bool over;

static uint64_t next(uint64_t *state) { /* xorshift64 */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

/* Of every kind of number that a server may stumble over. */
static uint32_t odd(uint64_t *state) {
    static const uint32_t edges[] = {0,          1,          2,         SLOTS - 1,  SLOTS,
                                     SLOTS + 1,  0x7fffffff, 1u << 31,  0xffffffff, 0xfffffffe,
                                     163840 - 1, 163840,     0x10000001};
    uint32_t kind = next(state) % 4;
    if (kind == 0) return (uint32_t)next(state);
    if (kind == 1) return edges[next(state) % (sizeof(edges) / sizeof(edges[0]))];
    return next(state) % SLOTS;
}

static uint32_t odd_buffer(uint64_t *state) {
    switch (next(state) % 4) {
    case 0:
        return next(state) % 2;
    case 1:
        return 163840 + next(state) % 0xf0000000;
    default:
        return buffers[next(state) % (RINGS * SLOTS)];
    }
}

static void scribble_ring(char *ring, uint64_t *state) {
    uint32_t kind = next(state) % 8;
    if (kind < 4) { /* head, cur, tail, flags */
        *(volatile uint32_t *)(ring + 20 + 4 * kind) = odd(state);
    } else if (kind == 4) { /* any of the header, of which the program should write nothing */
        *(volatile uint32_t *)(ring + 4 * (next(state) % 64)) = odd(state);
    } else {
        volatile struct netmap_slot *slot =
            (struct netmap_slot *)(ring + 256) + next(state) % SLOTS;
        slot->buf_idx = odd_buffer(state);
        slot->len = (uint16_t)odd(state);
        slot->flags = (uint16_t)next(state);
        slot->ptr = next(state);
    }
}

static void *scribble(void *seed) {
    uint64_t state = (uintptr_t)seed;
    while (!over) {
        if (next(&state) % 16)
            scribble_ring(rings[next(&state) % RINGS], &state);
        else if (next(&state) % 2)
            *(volatile uint32_t *)(interface + 4 * (next(&state) % 256)) = odd(&state);
        else
            *(volatile uint32_t *)(interface + 32) = odd_buffer(&state); /* ni_bufs_head */
    }
    return NULL;
}

static void *sync_all(void *seed) {
    uint64_t state = (uintptr_t)seed;
    while (!over) {
        struct pollfd ready = {.fd = fd, .events = (short)next(&state)};
        switch (next(&state) % 3) {
        case 0:
            ioctl(fd, NIOCTXSYNC);
            break;
        case 1:
            ioctl(fd, NIOCRXSYNC);
            break;
        default:
            poll(&ready, 1, (int)(next(&state) % 2));
        }
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    uint64_t seed = strtoull(argv[2], NULL, 0);
    struct nmreq_register body = {.nr_mode = NR_REG_NIC_SW, .nr_extra_bufs = EXTRA};
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", argv[1]);
    fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0 || ioctl(fd, NIOCCTRL, &header)) return 1;
    char *memory = mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return 1;
    struct netmap_if *nifp = NETMAP_IF(memory, body.nr_offset);
    interface = (char *)nifp;
    for (int i = 0; i < RINGS; i++) {
        struct netmap_ring *ring = i < 2 ? NETMAP_TXRING(nifp, i) : NETMAP_RXRING(nifp, i - 2);
        rings[i] = (char *)ring;
        for (int s = 0; s < SLOTS; s++)
            buffers[i * SLOTS + s] = ring->slot[s].buf_idx;
    }
    pthread_t threads[4];
    for (uintptr_t i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, i % 2 ? sync_all : scribble,
                       (void *)(uintptr_t)(seed * 8 + i + 1));
    usleep((useconds_t)atoi(argv[3]) * 1000);
    over = true;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
