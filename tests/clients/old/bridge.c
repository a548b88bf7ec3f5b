/* SPDX-License-Identifier: BSD-2-Clause */
/* Two ports, bridged by exchanging buffers, as programs of 2011 to 2019 did it: `bridge PORT
 * PORT`. One map serves both. Says "ready"; ends with its standard input, then "moved N". */
#include <poll.h>
#include <stdbool.h>
#include <unistd.h>

#include "port.h"

static struct side {
    int fd;
    struct netmap_ring *rx, *tx;
} sides[2];
static unsigned long moved;

static void open_side(struct side *side, const char *port) {
    side->fd = open_device();
    struct netmap_if *nifp = bind_port(side->fd, port, 0);
    side->rx = NETMAP_RXRING(nifp, 0);
    side->tx = NETMAP_TXRING(nifp, 0);
}

static void move(struct netmap_ring *rx, struct netmap_ring *tx) {
    for (; space(rx) && space(tx); advance(rx), advance(tx)) {
        struct netmap_slot *from = &rx->slot[rx->cur], *to = &tx->slot[tx->cur];
        uint32_t held = to->buf_idx;
        to->buf_idx = from->buf_idx;
        from->buf_idx = held;
        to->len = from->len;
        to->flags |= NS_BUF_CHANGED;
        from->flags |= NS_BUF_CHANGED;
        moved++;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    for (int i = 0; i < 2; i++)
        open_side(&sides[i], argv[1 + i]);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct pollfd wait[3] = {{.fd = sides[0].fd}, {.fd = sides[1].fd}, {.fd = 0, POLLIN, 0}};
        for (int i = 0; i < 2; i++) { /* packets before room for them */
            bool waits = space(sides[i].rx);
            wait[i].events |= waits ? 0 : POLLIN;
            wait[!i].events |= waits ? POLLOUT : 0;
        }
        if (poll(wait, 3, 100) < 0) return 2;
        if (wait[2].revents && read(STDIN_FILENO, (char[16]){0}, 16) <= 0) break;
        for (int i = 0; i < 2; i++)
            move(sides[i].rx, sides[!i].tx);
    }
    printf("moved %lu\n", moved);
    return 0;
}
