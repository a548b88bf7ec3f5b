/* SPDX-License-Identifier: BSD-2-Clause */
/* Makes any netmap client one that has netmap inside, on all ports of DPDK: gcc -include. The
 * environment says which: INSIDE_EAL are the EAL's options, INSIDE_RINGS how many rings a port has
 * (1). */
#define NETMAP_WITH_LIBS
#ifndef NETMAP_OLD_API
#define COMPAT_NETMAP_API 14
#endif
#include "compat_netmap_redirect.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((constructor)) static void inside(void) {
    char *arguments[64] = {(char *)"inside"}, *options = strdup(getenv("INSIDE_EAL"));
    const char *rings = getenv("INSIDE_RINGS");
    int count = 1;
    for (char *next; count < 63 && (next = strsep(&options, " "));)
        if (*next) arguments[count++] = next;
    struct rte_netmap_conf conf = {
        .socket_id = SOCKET_ID_ANY, .max_rings = 4, .max_slots = 1024, .max_bufsz = 2048};
    uint16_t number = (uint16_t)(rings ? atoi(rings) : 1), port;
    struct rte_netmap_port_conf one = {.socket_id = SOCKET_ID_ANY,
                                       .nr_tx_rings = number,
                                       .nr_rx_rings = number,
                                       .nr_tx_slots = 1024,
                                       .nr_rx_slots = 1024};
    if (rte_eal_init(count, arguments) < 0 || rte_netmap_init(&conf)) exit(9);
    RTE_ETH_FOREACH_DEV(port) {
        if (rte_netmap_init_port(port, &one)) exit(9);
        rte_eth_promiscuous_enable(port);
    }
}
