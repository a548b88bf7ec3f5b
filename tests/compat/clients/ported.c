/* SPDX-License-Identifier: BSD-2-Clause */
/* A program as it was written for the library that DPDK had: API 3, calls of its EAL that have
 * gone, requests on the stack with whatever is there, MAP_PRIVATE, poll without patience. Sends
 * COUNT frames into port 0, a ring, and takes them back: `ported COUNT [EAL options]`. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "compat_netmap.h"
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

static struct rte_eth_conf eth_conf = {
    .txmode = {.mq_mode = ETH_MQ_TX_NONE},
};

static struct rte_netmap_port_conf port_conf = {
    .eth_conf = &eth_conf,
    .socket_id = SOCKET_ID_ANY,
    .nr_tx_rings = 1,
    .nr_rx_rings = 1,
    .nr_tx_slots = 0x200,
    .nr_rx_slots = 0x100,
    .tx_burst = 0x20,
    .rx_burst = 0x20,
};

static struct rte_netmap_conf netmap_conf = {
    .socket_id = SOCKET_ID_ANY,
    .max_bufsz = RTE_MBUF_DEFAULT_DATAROOM,
    .max_rings = 1,
    .max_slots = 0x400,
};

static void fail(const char *what, int error) {
    printf("%s failed (error %d)\n", what, error);
    exit(EXIT_FAILURE);
}

static unsigned char content(unsigned frame, unsigned at) {
    return (unsigned char)(frame * 31 + at);
}

static unsigned fill(struct netmap_ring *ring, unsigned frame, unsigned most) {
    unsigned done = 0;
    while (ring->avail && done < most) {
        struct netmap_slot *slot = &ring->slot[ring->cur];
        unsigned char *data = (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);
        slot->len = (uint16_t)(60 + frame % 1400);
        for (unsigned at = 0; at < slot->len; at++)
            data[at] = content(frame, at);
        ring->cur = NETMAP_RING_NEXT(ring, ring->cur);
        ring->avail--;
        frame++;
        done++;
    }
    return done;
}

static unsigned check(struct netmap_ring *ring, unsigned frame) {
    unsigned done = 0;
    for (; ring->avail; ring->avail--, done++, frame++) {
        struct netmap_slot *slot = &ring->slot[ring->cur];
        unsigned char *data = (unsigned char *)NETMAP_BUF(ring, slot->buf_idx);
        if (slot->len != 60 + frame % 1400) fail("length", (int)frame);
        for (unsigned at = 0; at < slot->len; at++)
            if (data[at] != content(frame, at)) fail("content", (int)frame);
        ring->cur = NETMAP_RING_NEXT(ring, ring->cur);
    }
    return done;
}

int main(int argc, char **argv) {
    unsigned count = argc > 1 ? (unsigned)atoi(argv[1]) : 0, sent = 0, received = 0;
    int error = rte_eal_init(argc - 1, argv + 1);
    if (error < 0) fail("rte_eal_init", error);
    if (rte_eal_pci_probe() < 0 || rte_eth_dev_count() < 1) fail("probe", 0);
    port_conf.pool = rte_pktmbuf_pool_create("mbuf_pool", 8191, 32, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
                                             (int)rte_socket_id());
    error = rte_netmap_init(&netmap_conf);
    if (error < 0) fail("rte_netmap_init", error);
    error = rte_netmap_init_port(0, &port_conf);
    if (error < 0) fail("rte_netmap_init_port", error);
    rte_eth_promiscuous_enable(0);

    struct nmreq req;
    memset(&req, 0xee, sizeof(req)); /* what a stack may hold */
    snprintf(req.nr_name, sizeof(req.nr_name), "0");
    req.nr_version = NETMAP_API;
    req.nr_ringid = 0;
    int fd = rte_netmap_open("/dev/netmap", O_RDWR);
    error = rte_netmap_ioctl(fd, NIOCGINFO, &req);
    if (error) fail("NIOCGINFO", error);
    if (req.nr_tx_slots != 0x200 || req.nr_rx_slots != 0x100) fail("slots", 0);
    error = rte_netmap_ioctl(fd, NIOCREGIF, &req);
    if (error) fail("NIOCREGIF", error);
    void *mem = rte_netmap_mmap(NULL, req.nr_memsize, PROT_WRITE | PROT_READ, MAP_PRIVATE, fd, 0);
    if (mem == MAP_FAILED) fail("mmap", 0);
    struct netmap_if *nifp = NETMAP_IF(mem, req.nr_offset);
    struct netmap_ring *tx = NETMAP_TXRING(nifp, 0), *rx = NETMAP_RXRING(nifp, 0);

    struct pollfd pollfd = {.fd = fd, .events = POLLIN | POLLOUT};
    while (received < count) {
        pollfd.revents = 0;
        if (rte_netmap_poll(&pollfd, 1, 0) < 0 || pollfd.revents & POLLERR) fail("poll", 0);
        if (pollfd.revents & POLLIN) received += check(rx, received);
        if (pollfd.revents & POLLOUT) sent += fill(tx, sent, count - sent);
    }
    error = rte_netmap_ioctl(fd, NIOCUNREGIF, &req);
    if (error) fail("NIOCUNREGIF", error);
    rte_netmap_close(fd);
    printf("%u frames\n", received);
    return 0;
}
