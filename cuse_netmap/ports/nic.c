/* SPDX-License-Identifier: BSD-2-Clause */
/* A network interface as a port: turns slots into frames for a backend's queues and back. This is
 * where slots of clients are read, once each, and checked. */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "barrier.h"
#include "ports/ports.h"

#define BATCH 256

struct nic_queue {
    void *queue; /* the backend's */
    struct nm_watch *watch;
    struct nm_port *port;
    uint32_t index;
    bool tx_blocked; /* the device took less than it was given */
};

struct nic {
    const struct nm_backend_ops *backend;
    uint32_t num_queues;
    struct nic_queue queues[];
};

static struct nic_queue *queue_of(const struct nm_kring *kring) {
    struct nic *nic = kring->port->private;
    return &nic->queues[kring->index];
}

static const struct nm_backend_ops *backend_of(const struct nm_kring *kring) {
    return ((struct nic *)kring->port->private)->backend;
}

/* The slots from `slot` on as frames, up to and including the last whole packet before `head`.
 * A chain of slots that is longer than netmap allows is cut there, so that none can last for ever.
 */
static uint32_t gather(struct nm_kring *kring, uint32_t slot, uint32_t head,
                       struct nm_frame frames[BATCH]) {
    const struct nm_buffers *buffers = &kring->port->buffers;
    uint32_t n = 0, whole = 0, chain = 0;
    for (; slot != head && n < BATCH; slot = nm_kring_next(kring, slot)) {
        const struct netmap_slot *s = &kring->ring->slot[slot];
        uint32_t index = READ_ONCE(s->buf_idx);
        uint32_t len = READ_ONCE(s->len);
        bool more = READ_ONCE(s->flags) & NS_MOREFRAG && ++chain < NETMAP_MAX_FRAGS;
        uint32_t offset = nm_slot_offset(kring, s);
        char *data = nm_buffer(buffers, index);
        if (data == buffers->base) kring->stats.bad_slots++;
        if (len > buffers->size - offset) len = buffers->size - offset;
        frames[n++] = (struct nm_frame){.data = data + offset, .len = (uint16_t)len, .more = more};
        if (!more) {
            whole = n;
            chain = 0;
        }
    }
    return whole;
}

static int send_host(struct nm_kring *kring, uint32_t head) {
    /* Nothing stands behind the host rings of a wire whose far end is the host already. */
    kring->stats.drops[NM_DROP_SINK] += nm_kring_distance(kring, kring->hwcur, head);
    kring->hwcur = head;
    kring->hwtail = nm_kring_prev(kring, head);
    return 0;
}

static int nic_txsync(struct nm_kring *kring, uint32_t head) {
    struct nm_frame frames[BATCH];
    if (kring->host) return send_host(kring, head);
    int error = 0;
    queue_of(kring)->tx_blocked = false;
    while (kring->hwcur != head) {
        uint32_t count = gather(kring, kring->hwcur, head, frames);
        if (!count) break; /* the rest of a packet is still to come */
        int taken = backend_of(kring)->tx(queue_of(kring)->queue, frames, count, &kring->stats);
        if (taken < 0) {
            error = taken;
            break;
        }
        for (int i = 0; i < taken; i++) {
            struct netmap_slot *slot = &kring->ring->slot[kring->hwcur];
            uint16_t flags = READ_ONCE(slot->flags);
            if (flags & (NS_BUF_CHANGED | NS_REPORT))
                WRITE_ONCE(slot->flags, (uint16_t)(flags & ~(NS_BUF_CHANGED | NS_REPORT)));
            kring->hwcur = nm_kring_next(kring, kring->hwcur);
        }
        queue_of(kring)->tx_blocked = (uint32_t)taken < count;
        if (queue_of(kring)->tx_blocked) break;
    }
    kring->hwtail = nm_kring_prev(kring, kring->hwcur);
    return error;
}

#define LINK_HEADERS 18 /* bytes before the MTU counts: Ethernet and one VLAN tag */

/* The slots a frame of the interface may take; offsets leave less room in each. */
static uint32_t slots_per_packet(const struct nm_kring *kring) {
    uint32_t most =
        kring->num_slots - 1 < NETMAP_MAX_FRAGS ? kring->num_slots - 1 : NETMAP_MAX_FRAGS;
    uint32_t room = kring->port->buffers.size - kring->offset_max;
    uint32_t slots = room ? (kring->port->mtu + LINK_HEADERS + room - 1) / room : most;
    return slots < most ? slots : most;
}

/* Slots that may be filled: one always stays empty, so that full and empty differ. */
static uint32_t rx_room(const struct nm_kring *kring) {
    return kring->num_slots - 1 - nm_kring_distance(kring, kring->hwcur, kring->hwtail);
}

static void release(struct nm_kring *kring, uint32_t head) {
    for (; kring->hwcur != head; kring->hwcur = nm_kring_next(kring, kring->hwcur)) {
        struct netmap_slot *slot = &kring->ring->slot[kring->hwcur];
        uint16_t flags = READ_ONCE(slot->flags);
        if (flags & NS_BUF_CHANGED) WRITE_ONCE(slot->flags, (uint16_t)(flags & ~NS_BUF_CHANGED));
    }
}

static int nic_rxsync(struct nm_kring *kring, uint32_t head) {
    const struct nm_buffers *buffers = &kring->port->buffers;
    struct nm_frame frames[BATCH];
    release(kring, head);
    if (kring->host) return 0;
    uint32_t per_packet = slots_per_packet(kring);
    for (;;) {
        uint32_t room = rx_room(kring), count = room < BATCH ? room : BATCH;
        if (count < per_packet) return 0;
        uint32_t slot = kring->hwtail;
        for (uint32_t i = 0; i < count; i++, slot = nm_kring_next(kring, slot)) {
            const struct netmap_slot *s = &kring->ring->slot[slot];
            char *data = nm_buffer(buffers, READ_ONCE(s->buf_idx));
            uint32_t offset = nm_slot_offset(kring, s), size = buffers->size - offset;
            frames[i] = (struct nm_frame){.data = data + offset,
                                          .len = (uint16_t)(size < UINT16_MAX ? size : UINT16_MAX)};
            if (data == buffers->base) kring->stats.bad_slots++;
        }
        int filled =
            backend_of(kring)->rx(queue_of(kring)->queue, frames, count, per_packet, &kring->stats);
        for (int i = 0; i < filled; i++) {
            struct netmap_slot *s = &kring->ring->slot[kring->hwtail];
            WRITE_ONCE(s->len, frames[i].len);
            WRITE_ONCE(s->flags, frames[i].more ? NS_MOREFRAG : 0);
            kring->hwtail = nm_kring_next(kring, kring->hwtail);
        }
        if (filled < 0) return filled;
        if (count - (uint32_t)filled >= per_packet) return 0; /* nothing waits any more */
    }
}

static int nic_sync(struct nm_kring *kring, uint32_t head) {
    int error = kring->dir == NM_TX ? nic_txsync(kring, head) : nic_rxsync(kring, head);
    if (error == -EIO) nm_port_gone(kring->port);
    return error;
}

/* Waking a reader that holds a full ring, or a writer the device does not hold up, would wake it
 * for ever. */
static void nic_arm(struct nm_kring *kring, bool ready) {
    if (kring->host) return;
    if (kring->dir == NM_RX && (ready || rx_room(kring) >= slots_per_packet(kring)))
        nm_watch_arm(queue_of(kring)->watch, EPOLLIN);
    if (kring->dir == NM_TX && queue_of(kring)->tx_blocked)
        nm_watch_arm(queue_of(kring)->watch, EPOLLOUT);
}

static void queue_event(void *arg, uint32_t events) {
    struct nic_queue *queue = arg;
    if (events & (EPOLLERR | EPOLLHUP)) {
        nm_port_gone(queue->port);
        return;
    }
    if (events & EPOLLIN) nm_kring_wake(&queue->port->krings[NM_RX][queue->index]);
    if (events & EPOLLOUT) nm_kring_wake(&queue->port->krings[NM_TX][queue->index]);
}

static int nic_start(struct nm_kring *kring, struct nm_refusal *why) {
    (void)why;
    if (!kring->host && kring->dir == NM_RX)
        backend_of(kring)->flush(queue_of(kring)->queue, &kring->stats);
    return 0;
}

static void release_queues(const struct nm_backend_ops *backend, struct nic *nic) {
    for (uint32_t i = 0; i < nic->num_queues; i++) {
        nm_watch_destroy(nic->queues[i].watch);
        backend->close(nic->queues[i].queue);
    }
    free(nic);
}

static void nic_destroy(struct nm_port *port) {
    struct nic *nic = port->private;
    release_queues(nic->backend, nic);
}

static const struct nm_port_ops nic_ops = {.kind = "nic",
                                           .leaf = true,
                                           .offsets = true,
                                           .start = nic_start,
                                           .sync = nic_sync,
                                           .arm = nic_arm,
                                           .destroy = nic_destroy};

int nm_nic_create(struct nm_region *region, struct nm_events *events, const char *name,
                  const struct nm_backend_ops *backend, void **queues, uint32_t num_queues,
                  uint32_t num_slots, struct nm_port **out, struct nm_refusal *why) {
    struct nic *nic = calloc(1, sizeof(*nic) + num_queues * sizeof(nic->queues[0]));
    if (!nic) {
        for (uint32_t i = 0; i < num_queues; i++)
            backend->close(queues[i]);
        return nm_refuse(why, ENOMEM, "out of memory");
    }
    nic->backend = backend;
    nic->num_queues = num_queues;
    for (uint32_t i = 0; i < num_queues; i++)
        nic->queues[i] = (struct nic_queue){.queue = queues[i], .index = i};

    struct nm_port_config config = {.name = name,
                                    .ops = &nic_ops,
                                    .private = nic,
                                    .rings = {num_queues, num_queues},
                                    .slots = {num_slots, num_slots},
                                    .has_host = true};
    struct nm_port *port;
    int error = nm_port_create(region, &config, &port, why);
    if (error) {
        release_queues(backend, nic);
        return error;
    }
    for (uint32_t i = 0; i < num_queues && !error; i++) {
        struct nic_queue *queue = &nic->queues[i];
        queue->port = port;
        error = nm_watch_create(events, backend->event_fd(queue->queue), queue_event, queue,
                                &queue->watch);
    }
    if (error) {
        nm_port_destroy(port);
        return nm_refuse(why, -error, "watching %s failed", name);
    }
    *out = port;
    return 0;
}
