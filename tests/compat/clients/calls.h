/* SPDX-License-Identifier: BSD-2-Clause */
/* What the programs have in common that ask what the calls of libcompat_netmap do, one test a name:
 * `calls_PART NAME [EAL options]`. Silent and exit status 0 if all is as compat_netmap.h has it,
 * else a line for each thing that is not. Port 0 is a ring that returns what is sent, ports 1 and 2
 * are null devices, of which 2 is none of netmap's. */
#ifndef CALLS_H
#define CALLS_H

#define COMPAT_NETMAP_API 14
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "compat_netmap.h"

#define SLOTS 64
#define PAGE 4096

static int wrong;

static inline void say(int line, const char *what, long value) {
    printf("line %d: %s: %ld, errno %s\n", line, what, value, strerror(errno));
    fflush(stdout);
    wrong = 1;
}

#define IS(call, wanted)                                                                           \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long value_ = (long)(call);                                                                \
        if (value_ != (long)(wanted)) say(__LINE__, #call, value_);                                \
    } while (0)
#define FAILS(call, number)                                                                        \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long value_ = (long)(call);                                                                \
        if (value_ != -1 || errno != (number)) say(__LINE__, #call, value_);                       \
    } while (0)
/* The two of the library's own: a negative errno, and errno too. */
#define REFUSED(call, number)                                                                      \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long value_ = (long)(call);                                                                \
        if (value_ != -(number) || errno != (number)) say(__LINE__, #call, value_);                \
    } while (0)

static struct rte_netmap_conf conf = {
    .socket_id = SOCKET_ID_ANY, .max_rings = 2, .max_slots = 1024, .max_bufsz = 2048};

static inline struct rte_netmap_port_conf port_conf(void) {
    return (struct rte_netmap_port_conf){.socket_id = SOCKET_ID_ANY,
                                         .nr_tx_rings = 1,
                                         .nr_rx_rings = 1,
                                         .nr_tx_slots = SLOTS,
                                         .nr_rx_slots = SLOTS};
}

static inline void set_up(void) {
    struct rte_netmap_port_conf one = port_conf();
    IS(rte_netmap_init(&conf), 0);
    IS(rte_netmap_init_port(0, &one), 0);
    IS(rte_netmap_init_port(1, &one), 0);
}

static inline int device(void) {
    int fd = rte_netmap_open("/dev/netmap", O_RDWR);
    if (fd < 0) {
        say(__LINE__, "open", fd);
        exit(1);
    }
    return fd;
}

static struct nmreq_register body;

static inline int attempt_as(int fd, const char *name, uint32_t mode, uint64_t flags,
                             uint16_t ringid) {
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", name);
    body = (struct nmreq_register){.nr_mode = mode, .nr_flags = flags, .nr_ringid = ringid};
    return rte_netmap_ioctl(fd, NIOCCTRL, &header);
}

static inline int attempt(int fd) { return attempt_as(fd, "0", NR_REG_ALL_NIC, 0, 0); }

static inline int registered(void) {
    int fd = device();
    IS(attempt(fd), 0);
    return fd;
}

static inline struct netmap_if *mapped(int fd) {
    char *memory =
        rte_netmap_mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        say(__LINE__, "mmap", -1);
        exit(1);
    }
    return NETMAP_IF(memory, body.nr_offset);
}

static inline short ready(int fd, short events, int milliseconds) {
    struct pollfd wait = {.fd = fd, .events = events};
    return rte_netmap_poll(&wait, 1, milliseconds) > 0 ? wait.revents : 0;
}

static inline void put(struct netmap_if *nifp, unsigned char mark, uint16_t length) {
    struct netmap_ring *ring = NETMAP_TXRING(nifp, 0);
    struct netmap_slot *slot = &ring->slot[ring->head];
    memset(NETMAP_BUF(ring, slot->buf_idx), mark, length);
    slot->len = length;
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
}

/* The first byte of the next frame, -1: there is none. */
static inline int take(struct netmap_if *nifp) {
    struct netmap_ring *ring = NETMAP_RXRING(nifp, 0);
    if (nm_ring_empty(ring)) return -1;
    unsigned char mark = *(unsigned char *)NETMAP_BUF(ring, ring->slot[ring->head].buf_idx);
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
    return mark;
}

static inline long long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

struct call_case {
    const char *name;
    void (*run)(void);
};
#define CASE(name) {#name, name}

static inline int run_case(const struct call_case *cases, int argc, char **argv) {
    if (argc < 2 || rte_eal_init(argc - 1, argv + 1) < 0) return 9;
    for (; cases->name; cases++) {
        if (strcmp(cases->name, argv[1])) continue;
        cases->run();
        rte_netmap_cleanup();
        rte_eal_cleanup();
        return wrong;
    }
    return 2;
}

#endif
