/* SPDX-License-Identifier: BSD-2-Clause */
/* Host rings: a port of DPDK has left the kernel, so what stands for the host is a TAP device that
 * carries its address, dpdkN for port N: frames the host sends there are in the host RX ring, those
 * of the host TX ring it receives. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/tap.h"
#include "library.h"

#define SEND_BUFFER (1 << 20) /* bytes: what the host has not received yet */

static int create(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), size = SEND_BUFFER;
    if (fd < 0) return -errno;
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    if (!ioctl(fd, TUNSETIFF, &request) && !ioctl(fd, TUNSETSNDBUF, &size)) return fd;
    int error = errno;
    close(fd);
    return -error;
}

/* The wire's address and MTU, and up. */
static int configure(const struct wire *wire, const char *name) {
    struct rte_ether_addr address;
    struct ifreq request = {0};
    uint16_t mtu = RTE_ETHER_MTU;
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (control < 0) return -errno;
    snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", name);
    rte_eth_dev_get_mtu(wire->id, &mtu);
    rte_eth_macaddr_get(wire->id, &address);
    request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(request.ifr_hwaddr.sa_data, address.addr_bytes, sizeof(address.addr_bytes));
    int error = ioctl(control, SIOCSIFHWADDR, &request) ? -errno : 0;
    request.ifr_mtu = mtu;
    if (!error && ioctl(control, SIOCSIFMTU, &request)) error = -errno;
    request.ifr_flags = IFF_UP;
    if (!error && ioctl(control, SIOCSIFFLAGS, &request)) error = -errno;
    close(control);
    return error;
}

int host_open(struct wire *wire) {
    if (wire->has_host) return 0;
    char name[IFNAMSIZ];
    snprintf(name, sizeof(name), "dpdk%u", wire->id);
    int fd = create(name);
    int error = fd < 0 ? fd : configure(wire, name);
    void *queue = error ? NULL : nm_tap_queue(fd);
    if (!queue) {
        if (fd >= 0) close(fd);
        error = error ? error : -ENOMEM;
        return refuse(-error, "port %u: no TAP device %s for its host rings: %s", wire->id, name,
                      strerror(-error));
    }
    struct nm_refusal why = {0};
    error = nm_nic_set_host(wire->port, nm_tap_backend(), &queue, 1, &why);
    if (error) return refuse(-error, "port %u: %s", wire->id, why.text);
    wire->has_host = true;
    tell("port %u: its host rings are the interface %s", wire->id, name);
    return 0;
}
