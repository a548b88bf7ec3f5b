/* SPDX-License-Identifier: BSD-2-Clause */
/* A program between two ports: what one receives the other sends, by exchanging buffers, which both
 * have in one region. `bridge PORT PORT` until SIGTERM, then "FRAMES", both directions together. */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

static volatile sig_atomic_t ended;

static void end(int number) {
    (void)number;
    ended = 1;
}

/* Moves all there is, if there is room: how many. */
static uint64_t move(struct nm_desc *from, struct nm_desc *to) {
    struct netmap_ring *rx = NETMAP_RXRING(from->nifp, from->first_rx_ring);
    struct netmap_ring *tx = NETMAP_TXRING(to->nifp, to->first_tx_ring);
    uint32_t room = nm_ring_space(tx), there = nm_ring_space(rx);
    uint32_t count = there < room ? there : room, r = rx->head, t = tx->head;
    for (uint32_t i = 0; i < count; i++, r = nm_ring_next(rx, r), t = nm_ring_next(tx, t)) {
        struct netmap_slot *received = &rx->slot[r], *free_slot = &tx->slot[t];
        uint32_t buffer = free_slot->buf_idx;
        free_slot->buf_idx = received->buf_idx;
        free_slot->len = received->len;
        free_slot->flags = NS_BUF_CHANGED | (received->flags & NS_MOREFRAG);
        received->buf_idx = buffer;
        received->flags = NS_BUF_CHANGED;
    }
    rx->head = rx->cur = r;
    tx->head = tx->cur = t;
    return count;
}

static bool is_empty(const struct nm_desc *port) {
    return nm_ring_empty(NETMAP_RXRING(port->nifp, port->first_rx_ring));
}

int main(int argc, char **argv) {
    struct nm_desc *ports[2];
    uint64_t frames = 0;
    signal(SIGTERM, end);
    if (argc != 3) return 2;
    for (int i = 0; i < 2; i++) {
        ports[i] = nm_open(argv[i + 1], NULL, i ? NM_OPEN_NO_MMAP : 0, i ? ports[0] : NULL);
        if (!ports[i]) {
            perror(argv[i + 1]);
            return 1;
        }
    }
    puts("ready");
    fflush(stdout);
    while (!ended) {
        struct pollfd files[2];
        for (int i = 0; i < 2; i++) /* with frames in hand it is room that is waited for */
            files[i] = (struct pollfd){ports[i]->fd, is_empty(ports[i]) ? POLLIN : 0, 0};
        for (int i = 0; i < 2; i++)
            if (!is_empty(ports[i])) files[!i].events |= POLLOUT;
        poll(files, 2, 100); /* which also sends what was moved */
        frames += move(ports[0], ports[1]) + move(ports[1], ports[0]);
    }
    printf("%llu\n", (unsigned long long)frames);
    return 0;
}
