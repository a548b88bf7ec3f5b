/* SPDX-License-Identifier: BSD-2-Clause */
/* Setting a DPDK device up, in the order in which DPDK wants it. */
#define ALLOW_EXPERIMENTAL_API /* rte_dev_dma_map and rte_devargs_reset, both from 2018 */
#include "dpdk/port.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <rte_dev.h>
#include <rte_devargs.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_memory.h>
#include <rte_version.h>

#include "barrier.h"
#include "dpdk/eal.h"
#include "dpdk/queue.h"

#if RTE_VERSION < RTE_VERSION_NUM(22, 11, 0, 0)
#error "DPDK 22.11 or later is needed"
#endif

#define LINK_HEADERS 18 /* bytes before the MTU counts: Ethernet and one VLAN tag */
/* Mbufs that a thread keeps of a pool, and may have half as many again: two bursts, so that those
 * of the last burst, which the CPU still has, are those of the next. */
#define CACHE (2 * NM_DPDK_BURST)
#define PAGE 4096ul
#define LANDING_MS 100 /* that memory waits for frames in flight before it stays the device's */

struct nm_dpdk_port {
    uint16_t number, queues, rx_descriptors, tx_descriptors;
    bool made;    /* by us: is removed again */
    bool adopted; /* not even its pool is ours */
    bool interrupts;
    bool was_promiscuous; /* as the device was found */
    uint16_t had_mtu;
    uint16_t open; /* queues; the last to be closed stops the device */
    struct rte_mempool *pool;
    struct nm_dpdk_memory memory;
    struct rte_eth_dev_owner owner;
    struct nm_dpdk_queue queue[];
};

static uint32_t cpus(void) {
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (uint32_t)count : 1;
}

/* ---- finding ----------------------------------------------------------------------------------
 */

static int find(const char *devargs, uint16_t *number, bool *made, struct nm_refusal *why) {
    struct rte_devargs parsed = {0};
    nm_eal_listen();
    rte_errno = 0;
    int result = rte_devargs_parse(&parsed, devargs);
    if (result) return nm_refuse(why, EINVAL, "no device: %s", devargs);
    char name[RTE_DEV_NAME_MAX_LEN];
    snprintf(name, sizeof(name), "%s", parsed.name);
    rte_devargs_reset(&parsed);
    *made = rte_eth_dev_get_port_by_name(name, number) != 0;
    if (!*made) return 0; /* the EAL's options have made it, or some port of ours, its owner */
    result = rte_dev_probe(devargs);
    if (result && result != -EEXIST) {
        if (result == -1 && !rte_errno) rte_errno = ENODEV;
        return nm_eal_refuse(why, result, "device %s", devargs);
    }
    if (!rte_eth_dev_get_port_by_name(name, number)) return 0;
    return nm_refuse(why, ENODEV, "%s is no Ethernet device", devargs);
}

static int own(struct nm_dpdk_port *port, const char *name, struct nm_refusal *why) {
    snprintf(port->owner.name, sizeof(port->owner.name), "cuse-netmap");
    int error = rte_eth_dev_owner_new(&port->owner.id);
    if (!error) error = rte_eth_dev_owner_set(port->number, &port->owner);
    if (error == -EPERM) return nm_refuse(why, EBUSY, "%s is taken by another port", name);
    return error ? nm_eal_refuse(why, error, "owning %s", name) : 0;
}

/* ---- setting up -------------------------------------------------------------------------------
 */

static int make_pool(struct nm_dpdk_port *port, const struct nm_dpdk_config *config,
                     struct nm_refusal *why) {
    char name[RTE_MEMPOOL_NAMESIZE];
    /* What the queues hold, what waits for a program, a burst of a sender's, what threads keep. */
    uint32_t each = port->rx_descriptors + port->tx_descriptors + 2 * NM_DPDK_BURST;
    uint32_t count = each * port->queues + (cpus() + 8) * (CACHE + CACHE / 2);
    snprintf(name, sizeof(name), "netmap-%u-%u", port->number, (uint32_t)port->owner.id);
    port->pool = rte_pktmbuf_pool_create(name, count, CACHE, 0,
                                         (uint16_t)(RTE_PKTMBUF_HEADROOM + config->mbuf_size),
                                         rte_eth_dev_socket_id(port->number));
    if (port->pool) return 0;
    return nm_eal_refuse(why, 0, "memory for %u mbufs of %u bytes", count, config->mbuf_size);
}

static int set_mtu(const struct nm_dpdk_port *port, uint16_t mtu, struct nm_refusal *why) {
    nm_eal_listen();
    int error = rte_eth_dev_set_mtu(port->number, mtu);
    uint16_t now = 0;
    if (error && !rte_eth_dev_get_mtu(port->number, &now) && now == mtu) return 0;
    return error ? nm_eal_refuse(why, error, "an MTU of %u", mtu) : 0;
}

static int configure(struct nm_dpdk_port *port, const struct nm_dpdk_config *config,
                     struct nm_refusal *why) {
    struct rte_eth_dev_info info;
    int error = rte_eth_dev_info_get(port->number, &info);
    if (error) return nm_eal_refuse(why, error, "asking the device");
    port->was_promiscuous = rte_eth_promiscuous_get(port->number) == 1;
    rte_eth_dev_get_mtu(port->number, &port->had_mtu);
    if (config->queues > info.max_rx_queues || config->queues > info.max_tx_queues)
        return nm_refuse(why, EINVAL, "%u queues: the device has %u to receive and %u to send",
                         config->queues, info.max_rx_queues, info.max_tx_queues);
    uint16_t mtu = config->mtu;
    if (!mtu && rte_eth_dev_get_mtu(port->number, &mtu)) mtu = RTE_ETHER_MTU;
    struct rte_eth_conf wanted = {.intr_conf.rxq = 1, .rxmode.mtu = mtu};
    bool chains = info.tx_offload_capa & RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    if (chains) wanted.txmode.offloads |= RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
    if (info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER && mtu + LINK_HEADERS > config->mbuf_size)
        wanted.rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
    nm_eal_listen();
    error = rte_eth_dev_configure(port->number, config->queues, config->queues, &wanted);
    if (error) { /* some say that they cannot interrupt, some find out when they start */
        wanted.intr_conf.rxq = 0;
        nm_eal_listen();
        error = rte_eth_dev_configure(port->number, config->queues, config->queues, &wanted);
    }
    if (error) return nm_eal_refuse(why, error, "%u queue(s), an MTU of %u", config->queues, mtu);
    port->interrupts = wanted.intr_conf.rxq;
    port->rx_descriptors = port->tx_descriptors = config->descriptors;
    error = rte_eth_dev_adjust_nb_rx_tx_desc(port->number, &port->rx_descriptors,
                                             &port->tx_descriptors);
    if (error) return nm_eal_refuse(why, error, "%u descriptors", config->descriptors);
    if (config->mtu) error = set_mtu(port, config->mtu, why);
    for (uint16_t i = 0; i < config->queues; i++)
        port->queue[i].chains = chains;
    return error;
}

static int set_queues_up(struct nm_dpdk_port *port, struct nm_refusal *why) {
    unsigned int socket = (unsigned int)rte_eth_dev_socket_id(port->number);
    nm_eal_listen();
    for (uint16_t i = 0; i < port->queues; i++) {
        int error =
            rte_eth_rx_queue_setup(port->number, i, port->rx_descriptors, socket, NULL, port->pool);
        if (!error)
            error = rte_eth_tx_queue_setup(port->number, i, port->tx_descriptors, socket, NULL);
        if (error) return nm_eal_refuse(why, error, "queue %u", i);
    }
    return 0;
}

static void prepare(struct nm_dpdk_port *port, uint16_t i, const struct nm_dpdk_config *config) {
    struct nm_dpdk_queue *queue = &port->queue[i];
    queue->number = port->number;
    queue->index = i;
    queue->open = &port->open;
    queue->pool = port->pool;
    queue->memory = &port->memory;
    queue->copy_below = config->copy_below == UINT16_MAX ? UINT32_MAX : config->copy_below;
    queue->room = config->mbuf_size;
    queue->longest_pause = config->poll_us * 1000ull;
    nm_eal_mute(true); /* that there are none is no error */
    queue->interrupts = port->interrupts && rte_eth_dev_rx_intr_ctl_q_get_fd(port->number, i) >= 0;
    nm_eal_mute(false);
}

static void follow_mtu(struct nm_dpdk_port *port) {
    uint16_t mtu = RTE_ETHER_MTU;
    rte_eth_dev_get_mtu(port->number, &mtu);
    for (uint16_t i = 0; i < port->queues; i++)
        WRITE_ONCE(port->queue[i].longest, mtu + LINK_HEADERS);
}

static int start(struct nm_dpdk_port *port, const struct nm_dpdk_config *config,
                 struct nm_refusal *why) {
    for (uint16_t i = 0; i < port->queues; i++)
        if (nm_dpdk_queue_init(&port->queue[i], port->tx_descriptors))
            return nm_refuse(why, ENOMEM, "out of memory");
    nm_eal_listen();
    int error = rte_eth_dev_start(port->number);
    if (error) return nm_eal_refuse(why, error, "starting the device");
    port->open = port->queues;
    for (uint16_t i = 0; i < port->queues; i++)
        prepare(port, i, config);
    follow_mtu(port);
    return nm_dpdk_set_promiscuous(port, config->promiscuous, why);
}

static int open_port(struct nm_dpdk_port *port, const char *name,
                     const struct nm_dpdk_config *config, struct nm_refusal *why) {
    int error = own(port, name, why);
    if (error) {
        free(port); /* and not the device, which is somebody's */
        return error;
    }
    error = configure(port, config, why);
    if (!error) error = make_pool(port, config, why);
    if (!error) error = set_queues_up(port, why);
    if (!error) error = start(port, config, why);
    if (error) nm_dpdk_close(port);
    return error;
}

static struct nm_dpdk_port *allocate(uint16_t queues) {
    struct nm_dpdk_port *port = calloc(1, sizeof(*port) + queues * sizeof(struct nm_dpdk_queue));
    if (port) port->queues = queues;
    return port;
}

int nm_dpdk_open(const char *devargs, const struct nm_dpdk_config *config,
                 struct nm_dpdk_port **out, struct nm_refusal *why) {
    struct nm_dpdk_port *port = allocate(config->queues);
    if (!port) return nm_refuse(why, ENOMEM, "out of memory");
    int error = find(devargs, &port->number, &port->made, why);
    if (error) {
        free(port);
        return error;
    }
    *out = port;
    return open_port(port, devargs, config, why);
}

int nm_dpdk_take(uint16_t number, const struct nm_dpdk_config *config, struct nm_dpdk_port **out,
                 struct nm_refusal *why) {
    char name[RTE_ETH_NAME_MAX_LEN];
    if (rte_eth_dev_get_name_by_port(number, name))
        return nm_refuse(why, ENODEV, "there is no DPDK device %u", number);
    struct nm_dpdk_port *port = allocate(config->queues);
    if (!port) return nm_refuse(why, ENOMEM, "out of memory");
    port->number = number;
    *out = port;
    return open_port(port, name, config, why);
}

int nm_dpdk_adopt(uint16_t number, const struct nm_dpdk_set_up *set_up,
                  const struct nm_dpdk_config *config, struct nm_dpdk_port **out,
                  struct nm_refusal *why) {
    uint16_t queues = set_up->rx_queues > set_up->tx_queues ? set_up->rx_queues : set_up->tx_queues;
    struct nm_dpdk_port *port = allocate(queues);
    if (!port) return nm_refuse(why, ENOMEM, "out of memory");
    port->number = number;
    port->adopted = true;
    port->interrupts = set_up->interrupts;
    port->tx_descriptors = set_up->tx_descriptors;
    port->pool = set_up->pool;
    for (uint16_t i = 0; i < queues; i++)
        port->queue[i].chains = set_up->chains;
    *out = port;
    int error = start(port, config, why);
    if (error) nm_dpdk_close(port);
    return error;
}

void *nm_dpdk_queue(struct nm_dpdk_port *port, uint16_t index) { return &port->queue[index]; }

/* ---- memory -----------------------------------------------------------------------------------
 */

/* Drivers that read frames by the pointers of this process. Other virtual ones give addresses away
 * to somebody who knows DPDK's own memory and no other: virtio-user, memif without copying. */
static bool is_plain(const char *driver) {
    static const char *const plain[] = {"net_af_packet", "net_null", "net_pcap",
                                        "net_ring",      "net_tap",  "net_vhost"};
    for (uint32_t i = 0; i < RTE_DIM(plain); i++)
        if (!strcmp(driver, plain[i])) return true;
    return false;
}

/* A device that reaches memory by itself needs it mapped for that. Where addresses are physical
 * ones nobody knows those of our pages. */
static bool map(const struct nm_dpdk_port *port, const struct nm_dpdk_memory *memory, bool yes) {
    struct rte_eth_dev_info info;
    if (rte_eth_dev_info_get(port->number, &info) || !info.device) return false;
    if (nm_eal_is_virtual(port->number)) return is_plain(info.driver_name);
    int (*change)(struct rte_device *, void *, uint64_t, size_t) =
        yes ? rte_dev_dma_map : rte_dev_dma_unmap;
    return !change(info.device, memory->base, (uintptr_t)memory->base, memory->length);
}

/* What DPDK knows of as memory, by how many of our ports; set-up is one thread's at a time. */
static struct {
    struct nm_dpdk_memory memory;
    uint32_t users;
} known;

static bool make_known(const struct nm_dpdk_memory *memory) {
    if (known.users) {
        bool same = memory->base == known.memory.base && memory->length == known.memory.length;
        known.users += same;
        return same;
    }
    if (rte_extmem_register(memory->base, memory->length, NULL, 0, PAGE)) return false;
    known.memory = *memory;
    known.users = 1;
    return true;
}

static void forget(void) {
    if (--known.users == 0) rte_extmem_unregister(known.memory.base, known.memory.length);
}

static void let_go(struct nm_dpdk_port *port) {
    if (!port->memory.length) return;
    map(port, &port->memory, false);
    forget();
    port->memory = (struct nm_dpdk_memory){0};
}

/* Whether the device reads nothing of it any more. */
static bool has_landed(struct nm_dpdk_port *port) {
    for (uint32_t waited = 0;; waited++) {
        uint32_t away = 0;
        for (uint16_t i = 0; i < port->queues; i++)
            away += nm_dpdk_in_flight(&port->queue[i]);
        if (!away || waited == LANDING_MS) return !away;
        usleep(1000);
    }
}

bool nm_dpdk_set_memory(struct nm_dpdk_port *port, void *base, uint64_t length) {
    length = length / PAGE * PAGE;
    if (port->memory.base == base && port->memory.length == length) return length > 0;
    if (port->memory.length && !has_landed(port)) return false;
    let_go(port);
    if (!length || rte_eal_iova_mode() != RTE_IOVA_VA) return false;
    struct nm_dpdk_memory memory = {.base = base, .length = length};
    if (!make_known(&memory)) return false;
    if (!map(port, &memory, true)) {
        forget();
        return false;
    }
    port->memory = memory; /* from now on frames are pointed at */
    return true;
}

/* ---- closing ----------------------------------------------------------------------------------
 */

/* Behind some devices there are interfaces of the kernel's, which stay. */
static void leave_as_found(struct nm_dpdk_port *port) {
    uint16_t mtu = port->had_mtu;
    if (!port->was_promiscuous) rte_eth_promiscuous_disable(port->number);
    if (mtu && !rte_eth_dev_get_mtu(port->number, &mtu) && mtu != port->had_mtu)
        rte_eth_dev_set_mtu(port->number, port->had_mtu);
}

static void close_device(void *arg) {
    struct nm_dpdk_port *port = arg;
    struct rte_eth_dev_info info = {0};
    rte_eth_dev_info_get(port->number, &info);
    nm_eal_mute(true); /* a device that has vanished */
    if (!port->adopted) leave_as_found(port);
    nm_eal_mute(false);
    if (port->open) rte_eth_dev_stop(port->number);
    let_go(port);
    for (uint16_t i = 0; i < port->queues; i++)
        nm_dpdk_queue_fini(&port->queue[i]);
    if (port->adopted) return;
    rte_eth_dev_owner_unset(port->number, port->owner.id);
    if (!port->made) return;
    rte_eth_dev_close(port->number);
    if (info.device) rte_dev_remove(info.device);
}

void nm_dpdk_close(struct nm_dpdk_port *port) {
    nm_eal_in_turn(port->number, close_device, port);
    /* Mbufs that vanished with the device, or that another still has, keep their pool. */
    if (!port->adopted && port->pool && !rte_mempool_in_use_count(port->pool))
        rte_mempool_free(port->pool);
    free(port);
}

/* ---- while it is there ------------------------------------------------------------------------
 */

int nm_dpdk_set_mtu(struct nm_dpdk_port *port, uint16_t mtu, struct nm_refusal *why) {
    int error = set_mtu(port, mtu, why);
    if (!error) follow_mtu(port);
    return error;
}

int nm_dpdk_set_promiscuous(struct nm_dpdk_port *port, bool on, struct nm_refusal *why) {
    nm_eal_listen();
    int error =
        on ? rte_eth_promiscuous_enable(port->number) : rte_eth_promiscuous_disable(port->number);
    if (!error || error == -ENOTSUP) return 0; /* then it is as it always is */
    return nm_eal_refuse(why, error, "promiscuous %s", on ? "on" : "off");
}

void nm_dpdk_facts(const struct nm_dpdk_port *port, struct nm_dpdk_facts *out) {
    *out = (struct nm_dpdk_facts){.speed = UINT32_MAX};
    struct rte_eth_dev_info info;
    struct rte_eth_link link = {.link_speed = RTE_ETH_SPEED_NUM_UNKNOWN};
    struct rte_eth_stats stats = {0};
    if (!rte_eth_dev_info_get(port->number, &info))
        snprintf(out->driver, sizeof(out->driver), "%s", info.driver_name);
    rte_eth_link_get_nowait(port->number, &link);
    rte_eth_stats_get(port->number, &stats);
    rte_eth_dev_get_mtu(port->number, &out->mtu);
    out->up = link.link_status == RTE_ETH_LINK_UP;
    out->speed = link.link_speed;
    out->promiscuous = rte_eth_promiscuous_get(port->number) == 1;
    out->rx_packets = stats.ipackets;
    out->rx_bytes = stats.ibytes;
    out->rx_missed = stats.imissed;
    out->rx_errors = stats.ierrors;
    out->rx_no_mbuf = stats.rx_nombuf;
    out->tx_packets = stats.opackets;
    out->tx_bytes = stats.obytes;
    out->tx_errors = stats.oerrors;
    out->rx_descriptors = port->rx_descriptors;
    out->tx_descriptors = port->tx_descriptors;
    out->interrupts = port->queue[0].interrupts;
    out->pointed_at = port->memory.length > 0;
}

void nm_dpdk_address(const struct nm_dpdk_port *port, uint8_t mac[6]) {
    struct rte_ether_addr address = {0};
    rte_eth_macaddr_get(port->number, &address);
    memcpy(mac, address.addr_bytes, sizeof(address.addr_bytes));
}
