/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs that do nothing but move 60-byte frames through /dev/netmap, at most BATCH between two
 * system calls: poll(), or with `busy` NIOCTXSYNC and NIOCRXSYNC without ever sleeping. They print
 * "ready", run until SIGTERM and print frames, frames a second and missing numbers.
 *
 *   flow send|broadcast PORT BATCH poll|busy [write]   write: every frame anew, with its number
 *   flow receive PORT BATCH poll|busy [read]           read: the numbers of all
 *   flow bridge PORT PORT BATCH                        both ways, buffers exchanged, by poll() */
#define NETMAP_WITH_LIBS
#include <poll.h>

#include "traffic.h"

#define PATIENCE 100 /* ms without looking whether we are to stop */

static struct flow flow;
static uint32_t batch;
static bool busy;

static struct nm_desc *open_port(const char *name) {
    struct nm_desc *port = nm_open(name, NULL, 0, NULL);
    if (!port) die(name);
    return port;
}

static void sync_or_wait(struct nm_desc *port, short events) {
    struct pollfd file = {.fd = NETMAP_FD(port), .events = events};
    if (!busy)
        poll(&file, 1, PATIENCE);
    else if (ioctl(file.fd, events & POLLOUT ? NIOCTXSYNC : NIOCRXSYNC, NULL) < 0)
        die("sync");
    if (file.revents & POLLERR) die("poll");
}

static void send_frames(const char *name, const uint8_t to[6], bool anew) {
    uint8_t frame[LENGTH];
    struct nm_desc *port = open_port(name);
    struct netmap_ring *ring = NETMAP_TXRING(port->nifp, port->first_tx_ring);
    make_frame(frame, to, sender_address);
    prepare(ring, frame);
    run_until_stopped();
    while (!stopped) {
        count(&flow, fill(ring, batch, &flow, anew ? frame : NULL));
        sync_or_wait(port, POLLOUT);
    }
    nm_close(port);
}

/* A switch learns where we are. */
static void announce(struct nm_desc *port) {
    uint8_t frame[LENGTH];
    struct netmap_ring *ring = NETMAP_TXRING(port->nifp, port->first_tx_ring);
    make_frame(frame, to_all, to_receiver);
    prepare(ring, frame);
    fill(ring, 1, &flow, NULL);
    if (ioctl(NETMAP_FD(port), NIOCTXSYNC, NULL) < 0) die("NIOCTXSYNC");
}

static void receive(const char *name, bool look) {
    struct nm_desc *port = open_port(name);
    struct netmap_ring *ring = NETMAP_RXRING(port->nifp, port->first_rx_ring);
    if (!strncmp(name, "vale", 4)) announce(port);
    run_until_stopped();
    while (!stopped) {
        sync_or_wait(port, POLLIN);
        count(&flow, take(ring, batch, &flow, look));
    }
    nm_close(port);
}

/* As many frames as there are, there is room for, and a batch has: how many. */
static uint32_t pass(struct nm_desc *a, struct nm_desc *b) {
    struct netmap_ring *from = NETMAP_RXRING(a->nifp, a->first_rx_ring);
    struct netmap_ring *to = NETMAP_TXRING(b->nifp, b->first_tx_ring);
    uint32_t rx = from->head, tx = to->head, most = nm_ring_space(from);
    if (most > nm_ring_space(to)) most = nm_ring_space(to);
    if (most > batch) most = batch;
    for (uint32_t i = 0; i < most; i++) {
        struct netmap_slot *received = &from->slot[rx], *vacant = &to->slot[tx];
        uint32_t buffer = vacant->buf_idx;
        vacant->buf_idx = received->buf_idx;
        vacant->len = received->len;
        vacant->flags = NS_BUF_CHANGED | (received->flags & NS_MOREFRAG);
        received->buf_idx = buffer;
        received->flags = NS_BUF_CHANGED;
        rx = nm_ring_next(from, rx);
        tx = nm_ring_next(to, tx);
    }
    from->head = from->cur = rx;
    to->head = to->cur = tx;
    return most;
}

static bool waits(struct nm_desc *port) {
    return !nm_ring_empty(NETMAP_RXRING(port->nifp, port->first_rx_ring));
}

static void bridge(const char *one, const char *other) {
    struct nm_desc *a = open_port(one), *b = open_port(other);
    run_until_stopped();
    while (!stopped) {
        struct pollfd files[2] = {{.fd = NETMAP_FD(a), .events = waits(b) ? POLLOUT : POLLIN},
                                  {.fd = NETMAP_FD(b), .events = waits(a) ? POLLOUT : POLLIN}};
        poll(files, 2, PATIENCE);
        if ((files[0].revents | files[1].revents) & POLLERR) die("poll");
        count(&flow, pass(a, b) + pass(b, a));
    }
    nm_close(a);
    nm_close(b);
}

int main(int argc, char **argv) {
    if (argc < 5) return 2;
    const char *what = argv[1];
    batch = (uint32_t)atol(argv[!strcmp(what, "bridge") ? 4 : 3]);
    busy = !strcmp(argv[4], "busy");
    if (!strcmp(what, "send"))
        send_frames(argv[2], to_receiver, argc > 5);
    else if (!strcmp(what, "broadcast"))
        send_frames(argv[2], to_all, argc > 5);
    else if (!strcmp(what, "receive"))
        receive(argv[2], argc > 5);
    else if (!strcmp(what, "bridge"))
        bridge(argv[2], argv[3]);
    else
        return 2;
    print_flow(&flow);
    return 0;
}
