/* SPDX-License-Identifier: BSD-2-Clause */
/* One sender in two ages: compiled as it is, of API 14; with NETMAP_OLD_API, of that. All else is
 * the same: `aged PORT BATCH` sends 60-byte frames, at most BATCH between two calls of poll(), and
 * says what flow.c says. */
#include <fcntl.h>
#include <net/netmap.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "traffic.h"

static int fd;

static struct netmap_ring *open_port(const char *port) {
    struct nmreq request = {.nr_version = NETMAP_API};
    snprintf(request.nr_name, sizeof(request.nr_name), "%s", port);
    fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0 || ioctl(fd, NIOCREGIF, &request)) die(port);
    char *memory = mmap(NULL, request.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) die("mmap");
    return NETMAP_TXRING(NETMAP_IF(memory, request.nr_offset), 0);
}

static uint32_t room(const struct netmap_ring *ring) {
#ifdef NETMAP_OLD_API
    return ring->avail;
#else
    return nm_ring_space((struct netmap_ring *)(uintptr_t)ring);
#endif
}

static uint32_t put(struct netmap_ring *ring, uint32_t batch) {
    uint32_t slot = ring->cur, n = room(ring) < batch ? room(ring) : batch;
    for (uint32_t i = 0; i < n; i++) {
        ring->slot[slot].len = LENGTH;
        ring->slot[slot].flags = 0;
        slot = slot + 1 == ring->num_slots ? 0 : slot + 1;
    }
#ifdef NETMAP_OLD_API
    ring->avail -= n;
#else
    ring->head = slot;
#endif
    ring->cur = slot;
    return n;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    uint32_t batch = (uint32_t)atol(argv[2]);
    uint8_t frame[LENGTH];
    struct flow flow = {0};
    struct netmap_ring *ring = open_port(argv[1]);
    make_frame(frame, to_receiver, sender_address);
    prepare(ring, frame);
    run_until_stopped();
    while (!stopped) {
        struct pollfd file = {.fd = fd, .events = POLLOUT};
        count(&flow, put(ring, batch));
        poll(&file, 1, 100);
        if (file.revents & POLLERR) die("poll");
    }
    print_flow(&flow);
    return 0;
}
