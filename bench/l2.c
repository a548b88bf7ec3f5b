/* SPDX-License-Identifier: BSD-2-Clause */
/* What a program of DPDK's own does where the library's bridge is: bursts from port 0 to port 1 and
 * back, addresses untouched. Says "ready", and at SIGINT the packets and the packets a second that
 * it has passed on.
 *
 *   l2 [EAL OPTION...] */
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define BURST 64 /* as the library sends and receives */
#define DESCRIPTORS 1024
#define PORTS 2

static volatile sig_atomic_t stop;

static void ask_to_stop(int number) {
    (void)number;
    stop = 1;
}

static void check(int result, const char *doing) {
    if (result >= 0) return;
    fprintf(stderr, "l2: %s: %d\n", doing, result);
    exit(1);
}

static void start(uint16_t port, struct rte_mempool *pool) {
    struct rte_eth_conf conf = {0};
    check(rte_eth_dev_configure(port, 1, 1, &conf), "configure");
    check(rte_eth_rx_queue_setup(port, 0, DESCRIPTORS, 0, NULL, pool), "RX queue");
    check(rte_eth_tx_queue_setup(port, 0, DESCRIPTORS, 0, NULL), "TX queue");
    check(rte_eth_dev_start(port), "start");
    rte_eth_promiscuous_enable(port);
}

static uint64_t forward(uint16_t from, uint16_t to) {
    struct rte_mbuf *packets[BURST];
    uint16_t count = rte_eth_rx_burst(from, 0, packets, BURST);
    if (!count) return 0;
    uint16_t sent = rte_eth_tx_burst(to, 0, packets, count);
    if (sent < count) rte_pktmbuf_free_bulk(packets + sent, count - sent);
    return sent;
}

int main(int argc, char **argv) {
    check(rte_eal_init(argc, argv), "EAL");
    struct rte_mempool *pool =
        rte_pktmbuf_pool_create("l2", 16383, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    check(pool ? 0 : -1, "mbufs");
    for (uint16_t port = 0; port < PORTS; port++)
        start(port, pool);
    signal(SIGINT, ask_to_stop);
    puts("ready");
    fflush(stdout);
    uint64_t packets = 0;
    while (!stop)
        packets += forward(0, 1) + forward(1, 0);
    printf("packets %llu\n", (unsigned long long)packets);
    return 0;
}
