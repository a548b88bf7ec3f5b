/* SPDX-License-Identifier: BSD-2-Clause */
/* Two ports, bridged by exchanging buffers, as programs of 2011 to 2013 did it: `bridge PORT
 * PORT`. One map serves both. Says "ready"; ends with its standard input, then "moved N". */
#include <fcntl.h>
#include <net/netmap.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static char *memory;
static struct side {
    int fd;
    struct netmap_ring *rx, *tx;
} sides[2];
static unsigned long moved;

static void open_side(struct side *side, const char *port) {
    struct nmreq request;
    memset(&request, 0, sizeof(request));
    snprintf(request.nr_name, sizeof(request.nr_name), "%s", port);
#ifdef NETMAP_API
    request.nr_version = NETMAP_API;
#endif
    side->fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (side->fd < 0 || ioctl(side->fd, NIOCREGIF, &request)) exit(2);
    if (!memory)
        memory = mmap(NULL, request.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, side->fd, 0);
    if (memory == MAP_FAILED) exit(2);
    struct netmap_if *nifp = NETMAP_IF(memory, request.nr_offset);
    side->rx = NETMAP_RXRING(nifp, 0);
    side->tx = NETMAP_TXRING(nifp, 0);
}

static void move(struct netmap_ring *rx, struct netmap_ring *tx) {
    while (rx->avail && tx->avail) {
        struct netmap_slot *from = &rx->slot[rx->cur], *to = &tx->slot[tx->cur];
        uint32_t held = to->buf_idx;
        to->buf_idx = from->buf_idx;
        from->buf_idx = held;
        to->len = from->len;
        to->flags |= NS_BUF_CHANGED;
        from->flags |= NS_BUF_CHANGED;
        rx->cur = NETMAP_RING_NEXT(rx, rx->cur);
        tx->cur = NETMAP_RING_NEXT(tx, tx->cur);
        rx->avail--;
        tx->avail--;
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
            bool waits = sides[i].rx->avail;
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
