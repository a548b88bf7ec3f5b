/* SPDX-License-Identifier: BSD-2-Clause */
/* The ioctls of network devices (netdevice(7), linux/ethtool.h) on a descriptor, answered from the
 * port of DPDK that it is registered on, whatever name the request has. */
#include <errno.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>

#include "library.h"

/* What DPDK says of the wire: 0 or -errno, with a line in the log. */
static int said(const struct wire *wire, const char *call, int result) {
    if (result >= 0) return 0;
    int error = result == -ENOTSUP ? EOPNOTSUPP : -result;
    return refuse(error, "port %u: %s: %s", wire->id, call, strerror(error));
}

/* ---- flags -------------------------------------------------------------------------------------
 */

static int get_flags(struct wire *wire, struct ifreq *request) {
    struct rte_eth_link link = {0};
    rte_eth_link_get_nowait(wire->id, &link);
    int flags = IFF_BROADCAST | IFF_MULTICAST | IFF_UP;
    if (link.link_status) flags |= IFF_RUNNING;
    if (rte_eth_promiscuous_get(wire->id) == 1) flags |= IFF_PROMISC;
    if (rte_eth_allmulticast_get(wire->id) == 1) flags |= IFF_ALLMULTI;
    request->ifr_flags = (short)flags;
    return 0;
}

/* The device of a port that is registered is up; what is set is its link. */
static int set_flags(struct wire *wire, struct ifreq *request) {
    struct ifreq now;
    get_flags(wire, &now);
    int changed = now.ifr_flags ^ request->ifr_flags, wanted = request->ifr_flags, error = 0;
    if (changed & IFF_PROMISC)
        error = said(wire, "promiscuous mode",
                     wanted & IFF_PROMISC ? rte_eth_promiscuous_enable(wire->id)
                                          : rte_eth_promiscuous_disable(wire->id));
    if (!error && changed & IFF_ALLMULTI)
        error = said(wire, "all multicast",
                     wanted & IFF_ALLMULTI ? rte_eth_allmulticast_enable(wire->id)
                                           : rte_eth_allmulticast_disable(wire->id));
    if (!error && changed & IFF_UP)
        error = said(wire, "link",
                     wanted & IFF_UP ? rte_eth_dev_set_link_up(wire->id)
                                     : rte_eth_dev_set_link_down(wire->id));
    return error;
}

/* ---- sizes and addresses -----------------------------------------------------------------------
 */

static int get_mtu(struct wire *wire, struct ifreq *request) {
    uint16_t mtu = 0;
    int error = said(wire, "its MTU", rte_eth_dev_get_mtu(wire->id, &mtu));
    if (!error) request->ifr_mtu = mtu;
    return error;
}

static int set_mtu(struct wire *wire, struct ifreq *request) {
    int mtu = request->ifr_mtu;
    uint32_t buffer = wire->port->buffers.size;
    if (mtu < RTE_ETHER_MIN_MTU || mtu > (int)buffer)
        return refuse(EINVAL, "port %u: an MTU of %d, a buffer has %u bytes", wire->id, mtu,
                      buffer);
    int error = said(wire, "setting its MTU", rte_eth_dev_set_mtu(wire->id, (uint16_t)mtu));
    if (!error) nm_port_set_mtu(wire->port, (uint32_t)mtu);
    return error;
}

static int get_address(struct wire *wire, struct ifreq *request) {
    struct rte_ether_addr address;
    int error = said(wire, "its address", rte_eth_macaddr_get(wire->id, &address));
    request->ifr_hwaddr.sa_family = ARPHRD_ETHER;
    if (!error) memcpy(request->ifr_hwaddr.sa_data, address.addr_bytes, sizeof(address.addr_bytes));
    return error;
}

static int set_address(struct wire *wire, struct ifreq *request) {
    struct rte_ether_addr address;
    if (request->ifr_hwaddr.sa_family != ARPHRD_ETHER)
        return refuse(EINVAL, "port %u: an address of family %u", wire->id,
                      request->ifr_hwaddr.sa_family);
    memcpy(address.addr_bytes, request->ifr_hwaddr.sa_data, sizeof(address.addr_bytes));
    return said(wire, "setting its address", rte_eth_dev_default_mac_addr_set(wire->id, &address));
}

/* Of the kernel's interface where the driver has one behind it. */
static int get_index(struct wire *wire, struct ifreq *request) {
    struct rte_eth_dev_info info;
    int error = said(wire, "its facts", rte_eth_dev_info_get(wire->id, &info));
    if (error) return error;
    if (!info.if_index)
        return refuse(EOPNOTSUPP, "port %u: no interface of the kernel is behind it", wire->id);
    request->ifr_ifindex = (int)info.if_index;
    return 0;
}

static int get_queue_length(struct wire *wire, struct ifreq *request) {
    request->ifr_qlen = (int)wire->port->num_slots[NM_TX];
    return 0;
}

/* ---- ethtool -----------------------------------------------------------------------------------
 */

static int tool_link(struct wire *wire, void *data) {
    struct rte_eth_link link = {0};
    int error = said(wire, "its link", rte_eth_link_get_nowait(wire->id, &link));
    ((struct ethtool_value *)data)->data = link.link_status;
    return error;
}

static int tool_driver(struct wire *wire, void *data) {
    struct ethtool_drvinfo *out = data;
    struct rte_eth_dev_info info;
    int error = said(wire, "its facts", rte_eth_dev_info_get(wire->id, &info));
    if (error) return error;
    memset((char *)out + sizeof(out->cmd), 0, sizeof(*out) - sizeof(out->cmd));
    snprintf(out->driver, sizeof(out->driver), "%s", info.driver_name);
    return 0;
}

static int tool_rings(struct wire *wire, void *data) {
    struct ethtool_ringparam *out = data;
    *out = (struct ethtool_ringparam){.cmd = out->cmd,
                                      .rx_max_pending = wire->port->num_slots[NM_RX],
                                      .tx_max_pending = wire->port->num_slots[NM_TX],
                                      .rx_pending = wire->port->num_slots[NM_RX],
                                      .tx_pending = wire->port->num_slots[NM_TX]};
    return 0;
}

static int tool_channels(struct wire *wire, void *data) {
    struct ethtool_channels *out = data;
    uint32_t rx = wire->port->num_rings[NM_RX], tx = wire->port->num_rings[NM_TX];
    *out = (struct ethtool_channels){
        .cmd = out->cmd, .max_rx = rx, .max_tx = tx, .rx_count = rx, .tx_count = tx};
    return 0;
}

/* netmap's frames are whole: no offload is ever on. */
static int tool_offload(struct wire *wire, void *data) {
    (void)wire;
    ((struct ethtool_value *)data)->data = 0;
    return 0;
}

static int tool_set_offload(struct wire *wire, void *data) {
    if (!((struct ethtool_value *)data)->data) return 0;
    return refuse(EOPNOTSUPP, "port %u: netmap has no offloads to switch on", wire->id);
}

static const struct {
    uint32_t command;
    int (*answer)(struct wire *wire, void *data);
} tools[] = {
    {ETHTOOL_GLINK, tool_link},          {ETHTOOL_GDRVINFO, tool_driver},
    {ETHTOOL_GRINGPARAM, tool_rings},    {ETHTOOL_GCHANNELS, tool_channels},
    {ETHTOOL_GRXCSUM, tool_offload},     {ETHTOOL_GTXCSUM, tool_offload},
    {ETHTOOL_GSG, tool_offload},         {ETHTOOL_GTSO, tool_offload},
    {ETHTOOL_GUFO, tool_offload},        {ETHTOOL_GGSO, tool_offload},
    {ETHTOOL_GGRO, tool_offload},        {ETHTOOL_SRXCSUM, tool_set_offload},
    {ETHTOOL_STXCSUM, tool_set_offload}, {ETHTOOL_SSG, tool_set_offload},
    {ETHTOOL_STSO, tool_set_offload},    {ETHTOOL_SUFO, tool_set_offload},
    {ETHTOOL_SGSO, tool_set_offload},    {ETHTOOL_SGRO, tool_set_offload},
};

static int ethtool(struct wire *wire, struct ifreq *request) {
    void *data = request->ifr_data;
    uint32_t command;
    if (!data) return refuse(EFAULT, "port %u: SIOCETHTOOL without data", wire->id);
    memcpy(&command, data, sizeof(command));
    for (size_t i = 0; i < sizeof(tools) / sizeof(tools[0]); i++)
        if (tools[i].command == command) return tools[i].answer(wire, data);
    return refuse(EOPNOTSUPP, "port %u: ethtool command %#x is not supported", wire->id, command);
}

/* ---- all of them -------------------------------------------------------------------------------
 */

static const struct {
    unsigned long command;
    int (*answer)(struct wire *wire, struct ifreq *request);
} commands[] = {
    {SIOCGIFFLAGS, get_flags}, {SIOCSIFFLAGS, set_flags},         {SIOCGIFMTU, get_mtu},
    {SIOCSIFMTU, set_mtu},     {SIOCGIFHWADDR, get_address},      {SIOCSIFHWADDR, set_address},
    {SIOCGIFINDEX, get_index}, {SIOCGIFTXQLEN, get_queue_length}, {SIOCETHTOOL, ethtool},
};

int device_ioctl(struct wire *wire, unsigned long command, void *argument) {
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        if (commands[i].command != command) continue;
        return argument ? commands[i].answer(wire, argument)
                        : refuse(EFAULT, "ioctl %#lx: the argument is NULL", command);
    }
    return refuse(EOPNOTSUPP, "netmap has no ioctl %#lx", command);
}
