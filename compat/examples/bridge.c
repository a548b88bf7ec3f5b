/* SPDX-License-Identifier: BSD-2-Clause */
/* A bridge of DPDK ports in netmap's terms: one port returns all that it receives, two pass it to
 * each other. Frames change hands with their buffers, addresses and all; nothing is copied here. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>

#include "compat_netmap.h"

#define PORTS_MOST 2
#define RINGS 1
#define SLOTS 512
#define BUFFER 2048 /* bytes */
#define WAIT 500    /* ms: a signal that comes just before poll is seen that late */

struct end {
    const char *name;
    uint16_t id;
    int fd;
    struct netmap_if *nifp;
    uint64_t packets, bytes; /* received, and passed on */
};

static volatile sig_atomic_t stop;

static void ask_to_stop(int number) {
    (void)number;
    stop = 1;
}

static void usage(FILE *where) {
    fprintf(where, "usage: bridge [EAL options] -- -i PORT [-i PORT]\n");
}

__attribute__((noreturn, format(printf, 1, 2))) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "bridge: ");
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(EXIT_FAILURE);
}

/* By DPDK's number or its name. */
static uint16_t port_id(const char *name) {
    uint16_t id;
    char *rest;
    unsigned long number = strtoul(name, &rest, 10);
    if (*name && !*rest && number < RTE_MAX_ETHPORTS) return (uint16_t)number;
    if (rte_eth_dev_get_port_by_name(name, &id)) fail("DPDK has no port %s", name);
    return id;
}

static unsigned parse(int argc, char **argv, struct end ends[PORTS_MOST]) {
    unsigned count = 0;
    for (int option; (option = getopt(argc, argv, "hi:")) != -1;) {
        if (option == 'h') {
            usage(stdout);
            exit(EXIT_SUCCESS);
        }
        if (option != 'i' || count == PORTS_MOST) {
            usage(stderr);
            exit(EXIT_FAILURE);
        }
        ends[count++] = (struct end){.name = optarg, .id = port_id(optarg)};
    }
    if (!count || optind != argc) {
        usage(stderr);
        exit(EXIT_FAILURE);
    }
    return count;
}

static void prepare(const struct end *end) {
    struct rte_netmap_port_conf conf = {.socket_id = SOCKET_ID_ANY,
                                        .nr_tx_rings = RINGS,
                                        .nr_rx_rings = RINGS,
                                        .nr_tx_slots = SLOTS,
                                        .nr_rx_slots = SLOTS};
    if (rte_netmap_init_port(end->id, &conf)) fail("port %s: %s", end->name, strerror(errno));
    int error = rte_eth_promiscuous_enable(end->id);
    if (error && error != -ENOTSUP)
        fail("port %s: promiscuous mode: %s", end->name, strerror(-error));
}

/* All ports are in one memory, which is mapped once. */
static void bind_end(struct end *end, void **memory) {
    struct nmreq request = {.nr_version = NETMAP_API};
    snprintf(request.nr_name, sizeof(request.nr_name), "%u", end->id);
    end->fd = rte_netmap_open("/dev/netmap", O_RDWR);
    if (end->fd < 0) fail("/dev/netmap: %s", strerror(errno));
    if (rte_netmap_ioctl(end->fd, NIOCREGIF, &request))
        fail("port %s: %s", end->name, strerror(errno));
    if (!*memory)
        *memory = rte_netmap_mmap(NULL, request.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED,
                                  end->fd, 0);
    if (*memory == MAP_FAILED) fail("mmap: %s", strerror(errno));
    end->nifp = NETMAP_IF(*memory, request.nr_offset);
}

/* As many frames as there are and there is room for. */
static void move(struct end *from, struct netmap_ring *rx, struct netmap_ring *tx) {
    uint32_t count = rx->avail < tx->avail ? rx->avail : tx->avail;
    uint32_t r = rx->cur, t = tx->cur;
    for (uint32_t i = 0; i < count; i++) {
        struct netmap_slot *in = &rx->slot[r], *out = &tx->slot[t];
        uint32_t spare = out->buf_idx;
        out->buf_idx = in->buf_idx;
        out->len = in->len;
        out->flags = NS_BUF_CHANGED;
        in->buf_idx = spare;
        in->flags = NS_BUF_CHANGED;
        from->bytes += out->len;
        r = NETMAP_RING_NEXT(rx, r);
        t = NETMAP_RING_NEXT(tx, t);
    }
    from->packets += count;
    rx->cur = r;
    rx->avail -= count;
    tx->cur = t;
    tx->avail -= count;
}

/* What waits for: frames, or if there are some already, room at the other end. */
static short wanted(const struct end *end, const struct end *other) {
    bool holds = NETMAP_RXRING(end->nifp, 0)->avail > 0,
         held = NETMAP_RXRING(other->nifp, 0)->avail > 0;
    return (short)((holds ? 0 : POLLIN) | (held ? POLLOUT : 0));
}

static void run(struct end *ends, unsigned count) {
    struct end *a = &ends[0], *b = &ends[count - 1];
    while (!stop) {
        struct pollfd fds[PORTS_MOST] = {{.fd = a->fd, .events = wanted(a, b)},
                                         {.fd = b->fd, .events = wanted(b, a)}};
        if (rte_netmap_poll(fds, count, WAIT) < 0 && errno != EINTR)
            fail("poll: %s", strerror(errno));
        for (unsigned i = 0; i < count; i++)
            if (fds[i].revents & POLLERR) fail("port %s: its rings are in error", ends[i].name);
        move(a, NETMAP_RXRING(a->nifp, 0), NETMAP_TXRING(b->nifp, 0));
        if (count > 1) move(b, NETMAP_RXRING(b->nifp, 0), NETMAP_TXRING(a->nifp, 0));
    }
}

int main(int argc, char **argv) {
    struct end ends[PORTS_MOST];
    int used = rte_eal_init(argc, argv);
    if (used < 0) fail("the EAL does not start: %s", rte_strerror(rte_errno));
    unsigned count = parse(argc - used, argv + used, ends);
    struct rte_netmap_conf conf = {
        .socket_id = SOCKET_ID_ANY, .max_rings = RINGS, .max_slots = SLOTS, .max_bufsz = BUFFER};
    if (rte_netmap_init(&conf)) fail("rte_netmap_init: %s", strerror(errno));
    void *memory = NULL;
    for (unsigned i = 0; i < count; i++)
        prepare(&ends[i]);
    for (unsigned i = 0; i < count; i++)
        bind_end(&ends[i], &memory);
    struct sigaction action = {.sa_handler = ask_to_stop}; /* which interrupts poll */
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    printf("bridge: %s %s %s\n", ends[0].name, count > 1 ? "and" : "returns what it receives",
           count > 1 ? ends[1].name : "");
    fflush(stdout);
    run(ends, count);
    for (unsigned i = 0; i < count; i++) {
        printf("%s: %" PRIu64 " packets, %" PRIu64 " bytes received and passed on\n", ends[i].name,
               ends[i].packets, ends[i].bytes);
        rte_netmap_close(ends[i].fd);
    }
    rte_netmap_cleanup();
    rte_eal_cleanup();
    return EXIT_SUCCESS;
}
