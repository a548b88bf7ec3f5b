/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * reflect: sends every frame back on the port it came from, MAC addresses swapped, by exchanging
 * buffers between RX and TX slots; no frame is copied.
 */
#include "programs.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

static uint64_t count;
static bool keep;

static const struct option_entry options[] = {
    {'n', "count", "COUNT", read_count, &count, "end after so many frames, 0 never (0)"},
    {'k', "keep", NULL, NULL, &keep, "leave the MAC addresses as they are"},
    {0},
};

#define STOP_DRAIN_SECONDS 1.0

static void swap_macs(uint8_t *frame) {
    uint8_t mac[6];
    memcpy(mac, frame, 6);
    memcpy(frame, frame + 6, 6);
    memcpy(frame + 6, mac, 6);
}

/* Slots of the frame at the ring's head; 0 if there is none, or not all of it. */
static uint32_t frame_slots(struct netmap_ring *ring) {
    uint32_t slots = 0, i = ring->head;
    while (i != ring->tail) {
        slots++;
        if (!(ring->slot[i].flags & NS_MOREFRAG)) return slots;
        i = nm_ring_next(ring, i);
    }
    return 0;
}

/* Moves so many slots; the program gets the TX slots' buffers in exchange, so that none is ever
 * missing. */
static uint64_t exchange(struct netmap_ring *from, struct netmap_ring *to, uint32_t slots) {
    uint32_t rx = from->head, tx = to->head;
    uint64_t bytes = 0;
    for (; slots > 0; slots--) {
        struct netmap_slot *received = &from->slot[rx], *free_slot = &to->slot[tx];
        uint32_t buffer = free_slot->buf_idx;
        free_slot->buf_idx = received->buf_idx;
        free_slot->len = received->len;
        free_slot->flags = NS_BUF_CHANGED | (received->flags & NS_MOREFRAG);
        received->buf_idx = buffer;
        received->flags = NS_BUF_CHANGED;
        bytes += free_slot->len;
        rx = nm_ring_next(from, rx);
        tx = nm_ring_next(to, tx);
    }
    from->head = from->cur = rx;
    to->head = to->cur = tx;
    return bytes;
}

/* Moves what there is room for. Returns whether frames had to stay for want of room. */
static bool reflect_ring(struct netmap_ring *from, struct netmap_ring *to, struct traffic *traffic,
                         double now) {
    uint64_t packets = 0, bytes = 0;
    uint32_t slots = 0;
    bool blocked = false;
    while ((count == 0 || traffic->packets + packets < count) && (slots = frame_slots(from)) > 0) {
        struct netmap_slot *slot = &from->slot[from->head];
        blocked = slots > nm_ring_space(to);
        if (blocked) break;
        if (!keep && slot->len >= 12) swap_macs((uint8_t *)NETMAP_BUF(from, slot->buf_idx));
        bytes += exchange(from, to, slots);
        packets++;
    }
    traffic_add(traffic, packets, bytes, now);
    /* Whatever is left has been looked at: wake only when something new comes, or when room does.
     */
    from->cur = from->tail;
    to->cur = to->tail;
    return blocked;
}

/* RX ring number n goes to TX ring number n, and round again if there are fewer. */
static bool reflect_all(struct nm_desc *port, struct traffic *traffic) {
    struct netmap_ring *from, *to;
    uint32_t tx = port->first_tx_ring;
    double now = now_seconds();
    bool blocked = false;
    for (uint32_t rx = port->first_rx_ring; (from = rx_ring(port, &rx)); rx++, tx++) {
        to = tx_ring(port, &tx);
        if (!to) {
            tx = port->first_tx_ring;
            to = tx_ring(port, &tx);
        }
        blocked |= reflect_ring(from, to, traffic, now);
    }
    return blocked;
}

static int run(struct nm_desc *port) {
    struct traffic traffic = {0};
    uint32_t rx = port->first_rx_ring, tx = port->first_tx_ring;
    bool well = true, blocked = false;

    if (!rx_ring(port, &rx) || !tx_ring(port, &tx)) {
        complain("reflect needs RX and TX rings; leave out /R and /T");
        return EXIT_USAGE;
    }
    while (well && !stop_requests() && (count == 0 || traffic.packets < count)) {
        /* poll() also sends what the round before put into the TX rings. */
        well = wait_for(port, (short)(POLLIN | (blocked ? POLLOUT : 0)), now_seconds() + 1);
        if (!well) break;
        blocked = reflect_all(port, &traffic);
        traffic_report(&traffic, now_seconds());
    }
    if (well) well = drain(port, stop_requests() ? now_seconds() + STOP_DRAIN_SECONDS : 0);
    traffic_total(&traffic, "reflected");
    putchar('\n');
    return well ? EXIT_OK : EXIT_RUNTIME;
}

const struct program reflect_program = {
    .name = "reflect",
    .summary = "sends every frame back where it came from, MAC addresses swapped",
    .options = options,
    .run = run,
};
