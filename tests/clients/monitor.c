/* SPDX-License-Identifier: BSD-2-Clause */
/* Watches a port until it is killed: polls, and gives back half of what there is.
 *
 *   monitor netmap:tap0/rt */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
#include <poll.h>
#include <stdio.h>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    struct nm_desc *port = nm_open(argv[1], NULL, 0, NULL);
    if (!port) {
        perror("nm_open");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd file = {.fd = NETMAP_FD(port), .events = POLLIN};
        if (poll(&file, 1, -1) < 0 || file.revents & POLLERR) return 1;
        for (unsigned i = port->first_rx_ring; i <= port->last_rx_ring; i++) {
            struct netmap_ring *ring = NETMAP_RXRING(port->nifp, i);
            for (unsigned n = (nm_ring_space(ring) + 1) / 2; n; n--)
                ring->head = ring->cur = nm_ring_next(ring, ring->head);
        }
    }
}
