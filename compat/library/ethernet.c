/* SPDX-License-Identifier: BSD-2-Clause */
/* A port of DPDK as rte_netmap_port_conf wants it: configured at rte_netmap_init_port, started and
 * made a port of netmap when it is first registered, and started until the end. What moves its
 * frames is dpdk/queue.c. */
#include <dlfcn.h>
#include <errno.h>
#include <rte_errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "dpdk/queue.h"
#include "library.h"

#define POOL_CACHE 64 /* mbufs that a thread keeps */
#define THREADS 16    /* that may do so */

static int failed(const struct wire *wire, int result, const char *what) {
    int error = result == -ENOTSUP ? EOPNOTSUPP
                : result < -1      ? -result
                : rte_errno > 0    ? rte_errno
                                   : EIO;
    return refuse(error, "port %u: %s: %s", wire->id, what, rte_strerror(error));
}

/* ---- the signals of DPDK's tap driver ----------------------------------------------------------
 */

/* It is told of frames by a realtime signal, which would end every poll of the program with EINTR,
 * and the program itself with SIGIO should too many be queued. Where it finds no signal free while
 * it sets queues up, it looks instead. */
struct signals {
    bool kept[_NSIG];
};

static void ignore(int number) { (void)number; }

static bool is_drivers(const struct sigaction *action) {
    Dl_info info;
    return action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN &&
           action->sa_handler != ignore && dladdr((void *)(uintptr_t)action->sa_handler, &info) &&
           info.dli_fname && strstr(info.dli_fname, "rte_net_tap");
}

static void keep_signals(struct signals *signals) {
    const struct sigaction ours = {.sa_handler = ignore, .sa_flags = SA_RESTART};
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++) {
        struct sigaction now;
        if (sigaction(number, NULL, &now)) continue;
        bool free = now.sa_handler == SIG_DFL;
        signals->kept[number] = free;
        if (free || is_drivers(&now)) sigaction(number, &ours, NULL);
    }
}

static void give_signals_back(const struct signals *signals) {
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        if (signals->kept[number]) signal(number, SIG_DFL);
}

/* ---- configuring -------------------------------------------------------------------------------
 */

static int check(const struct wire *wire, const struct rte_netmap_port_conf *conf) {
    const struct parameters *most = &netmap.parameters;
    struct rte_eth_dev_owner owner = {0};
    if (!conf) return refuse(EINVAL, "rte_netmap_init_port(%u): conf is NULL", wire->id);
    if (!conf->nr_tx_rings || !conf->nr_rx_rings || conf->nr_tx_rings > most->max_rings ||
        conf->nr_rx_rings > most->max_rings)
        return refuse(EINVAL, "port %u: %u TX and %u RX rings, each may be 1 to %u", wire->id,
                      conf->nr_tx_rings, conf->nr_rx_rings, most->max_rings);
    if (conf->nr_tx_slots < 2 || conf->nr_rx_slots < 2 || conf->nr_tx_slots > most->max_slots ||
        conf->nr_rx_slots > most->max_slots)
        return refuse(EINVAL, "port %u: %u TX and %u RX slots, each may be 2 to %u", wire->id,
                      conf->nr_tx_slots, conf->nr_rx_slots, most->max_slots);
    if (!rte_eth_dev_owner_get(wire->id, &owner) && owner.id != RTE_ETH_DEV_NO_OWNER)
        return refuse(EBUSY, "port %u: %s owns it", wire->id, owner.name);
    return 0;
}

/* Mbufs for what the queues hold, what waits for a sync, and what threads keep. */
static int make_pool(struct wire *wire, const struct rte_netmap_port_conf *conf) {
    char name[RTE_MEMPOOL_NAMESIZE];
    uint32_t queues = wire->set_up.rx_queues + wire->set_up.tx_queues;
    uint32_t count = wire->set_up.rx_queues * wire->rx_descriptors +
                     wire->set_up.tx_queues * wire->set_up.tx_descriptors +
                     queues * 2 * NM_DPDK_BURST + THREADS * POOL_CACHE * 3 / 2;
    snprintf(name, sizeof(name), "compat_netmap_%u", wire->id);
    wire->own_pool = rte_pktmbuf_pool_create(name, count, POOL_CACHE, 0, RTE_MBUF_DEFAULT_BUF_SIZE,
                                             conf->socket_id);
    if (wire->own_pool) return 0;
    return failed(wire, 0, "memory for its mbufs");
}

static int configure(struct wire *wire, struct rte_eth_conf *wanted,
                     const struct rte_netmap_port_conf *conf) {
    /* Frames are sent in mbufs of more than one kind. */
    wanted->txmode.offloads &= ~(uint64_t)RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE;
    if (wire->set_up.chains) wanted->txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    wanted->intr_conf.rxq = 1;
    int error = rte_eth_dev_configure(wire->id, conf->nr_rx_rings, conf->nr_tx_rings, wanted);
    if (error && error != -EBUSY) {
        wanted->intr_conf.rxq = 0;
        error = rte_eth_dev_configure(wire->id, conf->nr_rx_rings, conf->nr_tx_rings, wanted);
    }
    wire->set_up.interrupts = wanted->intr_conf.rxq;
    return error ? failed(wire, error, "rte_eth_dev_configure") : 0;
}

static int set_queues_up(struct wire *wire, const struct rte_eth_dev_info *info,
                         const struct rte_eth_conf *wanted,
                         const struct rte_netmap_port_conf *conf) {
    struct rte_eth_rxconf rx = info->default_rxconf;
    struct rte_eth_txconf tx = info->default_txconf;
    int error = 0;
    rx.offloads = wanted->rxmode.offloads;
    tx.offloads = wanted->txmode.offloads;
    for (uint16_t i = 0; i < conf->nr_rx_rings && !error; i++)
        error = rte_eth_rx_queue_setup(wire->id, i, wire->rx_descriptors, (unsigned)conf->socket_id,
                                       &rx, wire->set_up.pool);
    if (error) return failed(wire, error, "rte_eth_rx_queue_setup");
    for (uint16_t i = 0; i < conf->nr_tx_rings && !error; i++)
        error = rte_eth_tx_queue_setup(wire->id, i, wire->set_up.tx_descriptors,
                                       (unsigned)conf->socket_id, &tx);
    return error ? failed(wire, error, "rte_eth_tx_queue_setup") : 0;
}

static uint16_t descriptors(uint32_t slots) {
    return (uint16_t)(slots < UINT16_MAX ? slots : UINT16_MAX);
}

static int set_up(struct wire *wire, const struct rte_netmap_port_conf *conf) {
    struct rte_eth_dev_info info;
    struct rte_eth_conf wanted = conf->eth_conf ? *conf->eth_conf : (struct rte_eth_conf){0};
    int error = rte_eth_dev_info_get(wire->id, &info);
    if (error) return failed(wire, error, "rte_eth_dev_info_get");
    if (conf->nr_rx_rings > info.max_rx_queues || conf->nr_tx_rings > info.max_tx_queues)
        return refuse(EINVAL, "port %u: %u TX and %u RX rings, the device has %u and %u queues",
                      wire->id, conf->nr_tx_rings, conf->nr_rx_rings, info.max_tx_queues,
                      info.max_rx_queues);
    wire->rx_descriptors = descriptors(conf->nr_rx_slots);
    wire->slots[NM_RX] = conf->nr_rx_slots;
    wire->slots[NM_TX] = conf->nr_tx_slots;
    wire->set_up =
        (struct nm_dpdk_set_up){.pool = conf->pool,
                                .rx_queues = conf->nr_rx_rings,
                                .tx_queues = conf->nr_tx_rings,
                                .tx_descriptors = descriptors(conf->nr_tx_slots),
                                .chains = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS};
    error = configure(wire, &wanted, conf);
    if (error) return error;
    error = rte_eth_dev_adjust_nb_rx_tx_desc(wire->id, &wire->rx_descriptors,
                                             &wire->set_up.tx_descriptors);
    if (error) return failed(wire, error, "rte_eth_dev_adjust_nb_rx_tx_desc");
    error = wire->set_up.pool ? 0 : make_pool(wire, conf);
    if (error) return error;
    if (wire->own_pool) wire->set_up.pool = wire->own_pool;
    return set_queues_up(wire, &info, &wanted, conf);
}

int ethernet_configure(struct wire *wire, const struct rte_netmap_port_conf *conf) {
    struct signals signals = {0};
    int error = check(wire, conf);
    if (error) return error;
    keep_signals(&signals);
    error = set_up(wire, conf);
    give_signals_back(&signals);
    wire->ready = !error;
    if (!error) return 0;
    rte_mempool_free(wire->own_pool);
    wire->own_pool = NULL;
    return error;
}

/* ---- starting ----------------------------------------------------------------------------------
 */

static int create_port(struct wire *wire) {
    uint32_t count = wire->set_up.rx_queues > wire->set_up.tx_queues ? wire->set_up.rx_queues
                                                                     : wire->set_up.tx_queues;
    const uint32_t rings[NM_DIRS] = {[NM_RX] = wire->set_up.rx_queues,
                                     [NM_TX] = wire->set_up.tx_queues};
    struct nm_pool_geometry buffers = nm_region_pool(netmap.region, NM_POOL_BUF);
    struct nm_refusal why = {0};
    char name[IFNAMSIZ];
    void **queues = calloc(count, sizeof(queues[0]));
    if (!queues) return refuse(ENOMEM, "out of memory");
    for (uint32_t i = 0; i < count; i++)
        queues[i] = nm_dpdk_queue(wire->device, (uint16_t)i);
    snprintf(name, sizeof(name), "dpdk%u", wire->id);
    nm_dpdk_set_memory(wire->device, nm_region_object(netmap.region, NM_POOL_BUF, 0),
                       (uint64_t)buffers.objsize * buffers.objtotal);
    int error = nm_nic_create_sized(netmap.region, netmap.events, name, nm_dpdk_backend(), queues,
                                    count, rings, wire->slots, &wire->port, &why);
    free(queues);
    return error ? refuse(-error, "port %u: %s", wire->id, why.text) : 0;
}

int ethernet_start(struct wire *wire) {
    if (wire->port) return 0;
    const struct nm_dpdk_config config = {
        .mbuf_size =
            (uint16_t)(rte_pktmbuf_data_room_size(wire->set_up.pool) - RTE_PKTMBUF_HEADROOM),
        .copy_below = netmap.parameters.copy_below < UINT16_MAX
                          ? (uint16_t)netmap.parameters.copy_below
                          : UINT16_MAX,
        .promiscuous = rte_eth_promiscuous_get(wire->id) == 1,
        .poll_us = netmap.parameters.poll_sleep};
    struct nm_refusal why = {0};
    struct signals signals = {0};
    keep_signals(&signals);
    int error = nm_dpdk_adopt(wire->id, &wire->set_up, &config, &wire->device, &why);
    give_signals_back(&signals);
    if (error) return refuse(-error, "port %u: %s", wire->id, why.text);
    error = create_port(wire);
    if (!error) return 0;
    nm_dpdk_close(wire->device);
    wire->device = NULL;
    return error;
}

void ethernet_close(struct wire *wire) {
    nm_port_destroy(wire->port);
    if (wire->device) nm_dpdk_close(wire->device);
    if (wire->own_pool && !rte_mempool_in_use_count(wire->own_pool))
        rte_mempool_free(wire->own_pool);
    *wire = (struct wire){.id = wire->id};
}
