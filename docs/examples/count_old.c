/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An example: count.c as it was written in 2011 to 2013, when rings had cur and avail; counts the
 * frames that arrive at a netmap port until ctrl-C.
 *
 *   cc -DNETMAP_OLD_API=3 -o count_old count_old.c
 *   ./count_old tap0
 */
#include <fcntl.h>
#include <net/netmap.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static volatile sig_atomic_t stop;
static unsigned long frames, bytes;

static void on_signal(int number) { stop = number; }

int main(int argc, char **argv) {
    struct pollfd file = {.fd = open("/dev/netmap", O_RDWR), .events = POLLIN};
    struct nmreq request = {.nr_ringid = NETMAP_HW_RING | 0}; /* the first pair of rings */
#ifdef NETMAP_API                                             /* of 2012 and later */
    request.nr_version = NETMAP_API;
#endif
    snprintf(request.nr_name, sizeof(request.nr_name), "%s", argc == 2 ? argv[1] : "");
    if (ioctl(file.fd, NIOCREGIF, &request)) {
        fprintf(stderr, "usage: %s NAME, with /dev/netmap served\n", argv[0]);
        return 1;
    }
    void *memory = mmap(NULL, request.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, file.fd, 0);
    if (memory == MAP_FAILED) return 1;
    struct netmap_ring *ring = NETMAP_RXRING(NETMAP_IF(memory, request.nr_offset), 0);
    signal(SIGINT, on_signal);
    while (!stop) {
        /* poll() gives back what is before cur and sets avail anew. */
        if (poll(&file, 1, 1000) <= 0) continue;
        for (; ring->avail > 0; ring->avail--) {
            frames++;
            bytes += ring->slot[ring->cur].len;
            ring->cur = NETMAP_RING_NEXT(ring, ring->cur);
        }
    }
    printf("%lu frames, %lu bytes\n", frames, bytes);
    return 0;
}
