/* SPDX-License-Identifier: BSD-2-Clause */
/* 60-byte frames into a device of DPDK's, as fast as one thread can, each written anew. `bare` is
 * what a program of DPDK's own does: take mbufs, write frames into them, hand them to the device.
 * `engine` writes them into the slots of a ring and calls the engine's sync, without the door.
 * Prints frames, frames a second, and 0.
 *
 *   dpdk bare|engine DEVARGS BATCH SECONDS [EAL OPTION...] */
#include <errno.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dpdk/eal.h"
#include "dpdk/port.h"
#include "dpdk/queue.h"
#include "ports/ports.h"
#include "traffic.h"

#define DESCRIPTORS 1024
#define MOST 64 /* of a burst */

static uint8_t frame[LENGTH];
static struct flow flow;
static double end;

static void check(int result, const char *doing) {
    if (result >= 0) return;
    fprintf(stderr, "%s: %d\n", doing, result);
    exit(1);
}

static void bare(uint16_t burst) {
    struct rte_mempool *pool =
        rte_pktmbuf_pool_create("bench", 8191, 256, 0, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
    struct rte_eth_conf config = {0};
    if (burst > MOST) burst = MOST;
    check(pool ? 0 : -1, "mbufs");
    check(rte_eth_dev_configure(0, 1, 1, &config), "configure");
    check(rte_eth_rx_queue_setup(0, 0, DESCRIPTORS, 0, NULL, pool), "RX queue");
    check(rte_eth_tx_queue_setup(0, 0, DESCRIPTORS, 0, NULL), "TX queue");
    check(rte_eth_dev_start(0), "start");
    struct rte_mbuf *packets[MOST];
    while (now() < end) {
        if (rte_pktmbuf_alloc_bulk(pool, packets, burst)) continue;
        for (uint16_t i = 0; i < burst; i++) {
            char *data = rte_pktmbuf_append(packets[i], LENGTH);
            memcpy(data, frame, LENGTH);
            memcpy(data + SEQUENCE, &flow.sequence, sizeof(flow.sequence));
            flow.sequence++;
        }
        uint16_t sent = rte_eth_tx_burst(0, 0, packets, burst);
        rte_pktmbuf_free_bulk(packets + sent, burst - sent);
        count(&flow, sent);
    }
    check(rte_eth_dev_stop(0), "stop");
}

static void through_engine(uint32_t batch) {
    const struct nm_pool_request pools[NM_POOLS] = {
        [NM_POOL_IF] = {1024, 2}, [NM_POOL_RING] = {36864, 4}, [NM_POOL_BUF] = {2048, 4096}};
    const struct nm_dpdk_config config = {.queues = 1,
                                          .descriptors = DESCRIPTORS,
                                          .mbuf_size = 2048,
                                          .copy_below = 256,
                                          .poll_us = 1000};
    struct nm_region *region;
    struct nm_dpdk_port *device;
    struct nm_port *port;
    struct nm_file file = {0};
    struct nmreq_register request = {.nr_mode = NR_REG_ALL_NIC};
    check(nm_region_create(pools, &region, NULL), "region");
    nm_eal_adopt();
    check(nm_dpdk_take(0, &config, &device, NULL), "device");
    void *queue = nm_dpdk_queue(device, 0);
    check(nm_nic_create(region, NULL, "bench", nm_dpdk_backend(), &queue, 1, 1024, &port, NULL),
          "port");
    check(nm_file_register(&file, port, &request, NULL), "register");
    nm_file_activate(&file);
    struct netmap_ring *ring = port->krings[NM_TX][0].ring;
    while (now() < end) {
        count(&flow, fill(ring, batch, &flow, frame));
        nm_file_sync(&file, NM_TX, 0);
    }
    nm_file_unregister(&file);
    nm_port_destroy(port);
    nm_dpdk_close(device);
    nm_region_destroy(region);
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    const char *way = argv[1], *devargs = argv[2];
    uint32_t batch = (uint32_t)atoi(argv[3]);
    double seconds = atof(argv[4]);
    if (batch < 1) return 2;
    argv[4] = argv[0];
    check(rte_eal_init(argc - 4, argv + 4), "EAL");
    check(rte_dev_probe(devargs), devargs);
    make_frame(frame, to_receiver, sender_address);
    end = now() + seconds;
    if (!strcmp(way, "bare"))
        bare((uint16_t)(batch < MOST ? batch : MOST));
    else
        through_engine(batch);
    print_flow(&flow);
    rte_eal_cleanup();
    return 0;
}
