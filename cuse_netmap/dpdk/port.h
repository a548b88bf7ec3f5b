/* SPDX-License-Identifier: BSD-2-Clause */
/* An Ethernet device of DPDK's: found, set up, started, asked, closed. Its queues are what
 * backend.h says (queue.h). */
#ifndef CUSE_NETMAP_DPDK_PORT_H
#define CUSE_NETMAP_DPDK_PORT_H

#include <stdbool.h>
#include <stdint.h>

#include "refusal.h"

struct nm_dpdk_config {
    uint16_t queues;      /* in each direction */
    uint16_t descriptors; /* of each; what the device makes of it is in nm_dpdk_facts */
    uint16_t mbuf_size;   /* bytes of a frame that one mbuf holds; longer frames take several */
    uint16_t mtu;         /* 0: as the device has it */
    uint16_t copy_below;  /* shorter frames are copied and not pointed at; UINT16_MAX: all are */
    bool promiscuous;
    uint32_t poll_us; /* the longest time between two looks for a sleeper */
};

struct nm_dpdk_facts {
    char driver[64];
    uint64_t rx_packets, rx_bytes, rx_missed, rx_errors, rx_no_mbuf;
    uint64_t tx_packets, tx_bytes, tx_errors;
    uint32_t speed; /* Mbit/s, UINT32_MAX: unknown */
    uint16_t mtu, rx_descriptors, tx_descriptors;
    bool up, promiscuous;
    bool interrupts; /* wake sleepers: else somebody looks */
    bool pointed_at; /* frames need not be copied for sending */
};

struct nm_dpdk_port;

/* Makes or takes the device that `devargs` describes, such as "net_af_packet0,iface=v0" or a PCI
 * address, and starts it. EBUSY: some port has it already; EINVAL: there cannot be such a device,
 * or not with so many queues or such an MTU; ENOMEM; else what DPDK says. */
int nm_dpdk_open(const char *devargs, const struct nm_dpdk_config *config,
                 struct nm_dpdk_port **out, struct nm_refusal *why);
/* The same with a device that is there, by its number, and stays: ENODEV if it is not. */
int nm_dpdk_take(uint16_t number, const struct nm_dpdk_config *config, struct nm_dpdk_port **out,
                 struct nm_refusal *why);
/* The same with a device that somebody else has configured, with its queues, and not started: it
 * stays, and so does the pool, from which frames to send get their mbufs. Of `config` what is about
 * neither queues nor descriptors nor the MTU. */
struct rte_mempool;
struct nm_dpdk_set_up {
    struct rte_mempool *pool;
    uint16_t rx_queues, tx_queues, tx_descriptors;
    bool chains;     /* RTE_ETH_TX_OFFLOAD_MULTI_SEGS is on */
    bool interrupts; /* intr_conf.rxq is */
};
int nm_dpdk_adopt(uint16_t number, const struct nm_dpdk_set_up *set_up,
                  const struct nm_dpdk_config *config, struct nm_dpdk_port **out,
                  struct nm_refusal *why);
/* A queue of it, for nm_nic_create with nm_dpdk_backend(). All of them are closed before the port.
 */
void *nm_dpdk_queue(struct nm_dpdk_port *port, uint16_t index);
/* Stops the device; one that nm_dpdk_open made is no more. Its queues are gone already. */
void nm_dpdk_close(struct nm_dpdk_port *port);

/* The memory that frames are in from now on, `length` bytes; NULL: frames are copied. While nothing
 * is being sent. Frames in flight are waited for, but not for ever: then the device keeps the
 * memory they are in, and copies those in another, until this is called again. True if they can be
 * pointed at. */
bool nm_dpdk_set_memory(struct nm_dpdk_port *port, void *base, uint64_t length);

int nm_dpdk_set_mtu(struct nm_dpdk_port *port, uint16_t mtu, struct nm_refusal *why);
int nm_dpdk_set_promiscuous(struct nm_dpdk_port *port, bool on, struct nm_refusal *why);
void nm_dpdk_facts(const struct nm_dpdk_port *port, struct nm_dpdk_facts *out);
void nm_dpdk_address(const struct nm_dpdk_port *port, uint8_t mac[6]);

#endif
