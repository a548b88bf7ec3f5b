/* SPDX-License-Identifier: BSD-2-Clause */
/* netmap inside a DPDK program: the calls that take the place of open, ioctl, mmap, poll and close,
 * and the two that set them up. Link with libcompat_netmap (pkg-config compat_netmap);
 * compat_netmap(3) has all of it.
 *
 * The rings are those of netmap's API 3, with cur and avail, for which DPDK's own library of this
 * name was written. A program that defines COMPAT_NETMAP_API as 14 before it includes this file, or
 * includes today's <net/netmap.h> first, gets today's, with head, cur and tail; 5 is there too.
 */
#ifndef COMPAT_NETMAP_H
#define COMPAT_NETMAP_H

#include <net/if.h>
#include <poll.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#include <rte_ethdev.h>
#include <rte_mempool.h>

#if !defined(COMPAT_NETMAP_API) && defined(NETMAP_OLD_API)
#define COMPAT_NETMAP_API NETMAP_OLD_API
#elif !defined(COMPAT_NETMAP_API) && defined(_NET_NETMAP_H_)
#define COMPAT_NETMAP_API 14
#elif !defined(COMPAT_NETMAP_API)
#define COMPAT_NETMAP_API 3
#endif

#ifndef COMPAT_NETMAP_NO_SHIMS
#include "compat_netmap_shims.h"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The memory of all ports. The environment's COMPAT_NETMAP_PARAMETERS has the last word on it. */
struct rte_netmap_conf {
    int32_t socket_id;  /* NUMA socket of mbufs that the library allocates, or SOCKET_ID_ANY */
    uint32_t max_rings; /* most rings of a port, in each direction */
    uint32_t max_slots; /* most slots of a ring */
    uint16_t max_bufsz; /* bytes of a buffer */
};

/* One port. */
struct rte_netmap_port_conf {
    struct rte_eth_conf *eth_conf; /* for rte_eth_dev_configure; NULL: as after {0} */
    struct rte_mempool *pool; /* mbufs, at most all of them in use; NULL: the library makes one */
    int32_t socket_id;        /* NUMA socket of the queues, or SOCKET_ID_ANY */
    uint16_t nr_tx_rings;     /* queues and rings, 1 to max_rings */
    uint16_t nr_rx_rings;
    uint32_t
        nr_tx_slots; /* slots of a ring, 2 to max_slots; descriptors as near as the device has */
    uint32_t nr_rx_slots;
    uint16_t tx_burst; /* whatever it is: bursts have up to 64 packets */
    uint16_t rx_burst;
};

/*
 * To be called once, after rte_eal_init. 0, or a negative errno, which errno has too:
 * EINVAL    conf is NULL, or says what netmap cannot have, or the environment's parameters do
 * EALREADY  it has been called
 * ENOMEM    no memory, or 4 GiB and more asked for
 */
int rte_netmap_init(const struct rte_netmap_conf *conf);

/*
 * Configures a port of DPDK and makes it one of netmap. 0, or a negative errno, which errno has
 * too: ENODEV    rte_netmap_init has not been called, or DPDK has no such port EINVAL    conf is
 * NULL or asks for more than rte_netmap_init was told EBUSY     the port is one of netmap already,
 * is started, or is owned by something else in DPDK ENOMEM    no memory for mbufs or rings or what
 * rte_eth_dev_configure and the set-up of queues answered
 */
int rte_netmap_init_port(uint16_t portid, const struct rte_netmap_port_conf *conf);

/*
 * Undoes both, before rte_eal_cleanup: descriptors that are still open lose their ports, and the
 * ports of DPDK are stopped. No other call may be under way. Not needed by a program that is about
 * to exit.
 */
void rte_netmap_cleanup(void);

/*
 * As the calls of libc without the rte_netmap_: the same arguments, -1 (or MAP_FAILED) and errno.
 * Given a path that does not begin with /dev/netmap, or a descriptor that rte_netmap_open has not
 * made, they call libc.
 */
int rte_netmap_open(const char *pathname, int flags, ...);
int rte_netmap_close(int fd);
int rte_netmap_ioctl(int fd, unsigned long request, ...);
void *rte_netmap_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
int rte_netmap_poll(struct pollfd *fds, nfds_t nfds, int timeout);

#ifdef __cplusplus
}
#endif

/* Behind the calls, so that what they declare inline may use them (compat_netmap_redirect.h). */
#if COMPAT_NETMAP_API == 3 || COMPAT_NETMAP_API == 5
#ifndef NETMAP_OLD_API
#define NETMAP_OLD_API COMPAT_NETMAP_API
#endif
#ifndef NETMAP_READONLY
#define NETMAP_READONLY /* programs of that time were let write anywhere */
#endif
#elif COMPAT_NETMAP_API != 14
#error "COMPAT_NETMAP_API is 3, 5 or 14"
#endif
#include <net/netmap.h>
#include <net/netmap_user.h>

#endif
