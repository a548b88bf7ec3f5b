/* SPDX-License-Identifier: BSD-2-Clause */
/* A network interface as a port: turns slots into frames for a backend's queues and back. This is
 * where slots of clients are read, once each, and checked. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "barrier.h"
#include "ports/flying.h"
#include "ports/offload.h"
#include "ports/ports.h"

#define BATCH 256

struct nic_queue {
    void *queue;               /* the backend's */
    struct nm_watch *watch;    /* NULL: the backend wakes by itself */
    struct nm_watch *tx_watch; /* NULL: it is the same */
    struct nm_port *port;
    uint32_t rings[NM_DIRS]; /* its rings among the port's, if they are not too few */
    bool tx_blocked;         /* the device took less than it was given, or has buffers */
    bool tx_away;            /* it has not given back all that it took */
    struct nm_flying flying;
};

/* The wire, or the host's stack: the first queues' rings are the first rings. */
struct side {
    const struct nm_backend_ops *backend;
    uint32_t count;
    struct nic_queue *queues;
};

struct nic {
    struct nm_events *events;
    struct side wire, host;
};

static struct side *side_of(const struct nm_kring *kring) {
    struct nic *nic = kring->port->private;
    return kring->host ? &nic->host : &nic->wire;
}

static const struct nm_backend_ops *backend_of(const struct nm_kring *kring) {
    return side_of(kring)->backend;
}

/* NULL for a host ring that nothing stands behind. */
static struct nic_queue *queue_of(const struct nm_kring *kring) {
    const struct side *side = side_of(kring);
    uint32_t index = kring->index - (kring->host ? kring->port->num_rings[kring->dir] : 0);
    return index < side->count ? &side->queues[index] : NULL;
}

/* Buffers of rings that are no more come back when the device is done with them. */
static void recover(struct nic_queue *queue, uint32_t away) {
    struct nm_flying *flying = &queue->flying;
    nm_flying_settle(flying, &queue->port->buffers, away);
    nm_flying_recover(flying, queue->port->region, away > flying->count ? away - flying->count : 0);
}

#define NOTES (NS_BUF_CHANGED | NS_REPORT) /* of programs, which a sync takes back */

static uint32_t slots_on(const struct nm_kring *kring, uint32_t slot, uint32_t count) {
    return (slot + count) % kring->num_slots;
}

static void clear_flags(struct nm_kring *kring, uint32_t slot, uint32_t end, uint16_t which) {
    for (; slot != end; slot = nm_kring_next(kring, slot)) {
        uint16_t *flags = &kring->ring->slot[slot].flags, set = READ_ONCE(*flags);
        if (set & which) WRITE_ONCE(*flags, (uint16_t)(set & ~which));
    }
}

/* The slots from `slot` on as frames, up to and including the last whole packet before `head`.
 * A chain of slots that is longer than netmap allows is cut there, so that none can last for ever.
 * `*flags` has those of all slots. */
static uint32_t gather(struct nm_kring *kring, uint32_t slot, uint32_t head,
                       struct nm_frame frames[BATCH], uint16_t *flags) {
    const struct nm_buffers *buffers = &kring->port->buffers;
    const struct netmap_slot *slots = kring->ring->slot;
    uint32_t n = 0, whole = 0, chain = 0, bad_slots = 0, num_slots = kring->num_slots;
    uint16_t all = 0;
    bool may_send_twice = backend_of(kring)->held != NULL;
    for (; slot != head && n < BATCH; slot = slot + 1 == num_slots ? 0 : slot + 1) {
        const struct netmap_slot *s = &slots[slot];
        uint32_t index = READ_ONCE(s->buf_idx);
        uint32_t len = READ_ONCE(s->len);
        uint16_t set = READ_ONCE(s->flags);
        bool more = set & NS_MOREFRAG && ++chain < NETMAP_MAX_FRAGS;
        uint32_t offset = nm_slot_offset(kring, s);
        char *data = nm_buffer_or(buffers, index, may_send_twice);
        bool bad = data == buffers->base;
        bad_slots += bad;
        all |= set;
        if (len > buffers->size - offset) len = buffers->size - offset;
        frames[n++] = (struct nm_frame){
            .data = data + offset, .buffer = bad ? 0 : index, .len = (uint16_t)len, .more = more};
        if (!more) {
            whole = n;
            chain = 0;
        }
    }
    kring->stats.bad_slots += bad_slots;
    *flags = all;
    return whole;
}

/* Nothing stands behind the host rings of a wire whose far end is the host already. */
static int sink(struct nm_kring *kring, uint32_t head) {
    kring->stats.drops[NM_DROP_SINK] += nm_kring_distance(kring, kring->hwcur, head);
    kring->hwcur = head;
    kring->hwtail = nm_kring_prev(kring, head);
    return 0;
}

/* Of the frames just taken, those that the device still reads keep their buffers; others of before
 * come back. How many of the ring's frames are under way. */
static uint32_t follow(struct nm_kring *kring, struct nic_queue *queue,
                       const struct nm_frame *frames, uint32_t taken) {
    const struct nm_backend_ops *backend = backend_of(kring);
    if (backend->held) return backend->held(queue->queue);
    if (!backend->in_flight) return 0;
    uint32_t away = (uint32_t)backend->in_flight(queue->queue);
    uint32_t new = away < taken ? away : taken;
    nm_flying_settle(&queue->flying, &kring->port->buffers, away - new);
    for (uint32_t i = taken - new; i < taken; i++)
        nm_flying_add(&queue->flying, &kring->port->buffers, frames[i].buffer);
    return queue->flying.count;
}

static int nic_txsync(struct nm_kring *kring, uint32_t head) {
    struct nm_frame frames[BATCH];
    struct nic_queue *queue = queue_of(kring);
    if (!queue) return sink(kring, head);
    const struct nm_backend_ops *backend = backend_of(kring);
    int error = 0;
    uint32_t away = follow(kring, queue, NULL, 0);
    queue->tx_blocked = false;
    while (kring->hwcur != head) {
        uint16_t flags;
        uint32_t count = gather(kring, kring->hwcur, head, frames, &flags);
        if (!count) break; /* the rest of a packet is still to come */
        int taken = backend->tx(queue->queue, frames, count, &kring->stats);
        if (taken < 0) {
            error = taken;
            break;
        }
        uint32_t done = slots_on(kring, kring->hwcur, (uint32_t)taken);
        if (flags & NOTES) clear_flags(kring, kring->hwcur, done, NOTES);
        WRITE_ONCE(kring->hwcur, done);
        away = follow(kring, queue, frames, (uint32_t)taken);
        queue->tx_blocked = (uint32_t)taken < count;
        if (queue->tx_blocked) break;
    }
    queue->tx_away = away > 0;
    queue->tx_blocked |= queue->tx_away && !backend->held;
    kring->hwtail = nm_kring_prev(kring, nm_kring_back(kring, kring->hwcur, away));
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

static uint32_t rx_room(const struct nm_kring *kring) {
    return nm_kring_room(kring, kring->hwtail, kring->hwcur);
}

static void release(struct nm_kring *kring, uint32_t head) {
    clear_flags(kring, kring->hwcur, head, NS_BUF_CHANGED);
    kring->hwcur = head;
}

/* Fills slots with what is ready: how many, or -errno. */
static int fill(struct nm_kring *kring, struct nic_queue *queue, uint32_t count,
                uint32_t per_packet) {
    const struct nm_buffers *buffers = &kring->port->buffers;
    struct nm_frame frames[BATCH];
    uint32_t slot = kring->hwtail;
    for (uint32_t i = 0; i < count; i++, slot = nm_kring_next(kring, slot)) {
        const struct netmap_slot *s = &kring->ring->slot[slot];
        uint32_t index = READ_ONCE(s->buf_idx);
        char *data = nm_buffer(buffers, index);
        bool bad = data == buffers->base;
        uint32_t offset = nm_slot_offset(kring, s), size = buffers->size - offset;
        frames[i] = (struct nm_frame){.data = data + offset,
                                      .buffer = bad || offset ? 0 : index,
                                      .len = (uint16_t)(size < UINT16_MAX ? size : UINT16_MAX)};
        kring->stats.bad_slots += bad;
    }
    int filled = backend_of(kring)->rx(queue->queue, frames, count, per_packet, &kring->stats);
    for (int i = 0; i < filled; i++) {
        struct netmap_slot *s = &kring->ring->slot[kring->hwtail];
        WRITE_ONCE(s->len, frames[i].len);
        if (frames[i].swapped) WRITE_ONCE(s->buf_idx, frames[i].buffer);
        uint32_t flags = frames[i].swapped ? NS_BUF_CHANGED : 0;
        WRITE_ONCE(s->flags, (uint16_t)(flags | (frames[i].more ? NS_MOREFRAG : 0)));
        kring->hwtail = nm_kring_next(kring, kring->hwtail);
    }
    return filled;
}

/* A packet that the kernel left to be finished; false if there is none, or no room for it yet. */
static bool finish(struct nm_kring *kring, struct nic_queue *queue) {
    const struct nm_backend_ops *backend = backend_of(kring);
    struct nm_unfinished packet;
    if (!backend->unfinished || !backend->unfinished(queue->queue, &packet)) return false;
    struct nm_outlet outlet = {.kring = kring, .next = kring->hwtail, .room = rx_room(kring)};
    enum nm_drop drop = nm_offload_finish(&outlet, &packet, kring->port->mtu + LINK_HEADERS);
    if (drop == NM_DROP_FULL && kring->hwcur != kring->hwtail) return false;
    if (drop != NM_DROPS) kring->stats.drops[drop == NM_DROP_FULL ? NM_DROP_LONG : drop]++;
    for (; kring->hwtail != outlet.next; kring->hwtail = nm_kring_next(kring, kring->hwtail)) {
        struct netmap_slot *slot = &kring->ring->slot[kring->hwtail];
        WRITE_ONCE(slot->flags, READ_ONCE(slot->flags) & NS_MOREFRAG); /* fragments are VALE's */
    }
    backend->finished(queue->queue);
    return true;
}

static int nic_rxsync(struct nm_kring *kring, uint32_t head) {
    struct nic_queue *queue = queue_of(kring);
    release(kring, head);
    if (!queue) return 0;
    uint32_t per_packet = slots_per_packet(kring);
    for (;;) {
        uint32_t room = rx_room(kring), count = room < BATCH ? room : BATCH;
        if (count < per_packet) return 0;
        int filled = fill(kring, queue, count, per_packet);
        if (filled < 0) return filled;
        bool more = count - (uint32_t)filled < per_packet;
        if (!more && !finish(kring, queue)) return 0; /* nothing waits any more */
    }
}

/* ---- forwarding -------------------------------------------------------------------------------
 */

/* Slots of the packet that begins at `slot`; 0: it does not end before `head`. */
static uint32_t slots_of_packet(const struct nm_kring *kring, uint32_t slot, uint32_t head) {
    for (uint32_t n = 1; slot != head; n++, slot = nm_kring_next(kring, slot))
        if (n == NETMAP_MAX_FRAGS || !(READ_ONCE(kring->ring->slot[slot].flags) & NS_MOREFRAG))
            return n;
    return 0;
}

static bool is_marked(const struct nm_kring *kring, uint32_t slot) {
    return READ_ONCE(kring->ring->slot[slot].flags) & NS_FORWARD;
}

static void to_host(struct nm_kring *kring, const struct nm_frame *frames, uint32_t count) {
    int taken = backend_of(kring)->to_host(queue_of(kring)->queue, frames, count, &kring->stats);
    for (uint32_t i = taken < 0 ? count : (uint32_t)taken; i < count; i++)
        kring->stats.drops[NM_DROP_FULL] += !frames[i].more;
}

static void forward_up(struct nm_kring *kring, uint32_t head, bool all) {
    struct nm_frame frames[BATCH];
    uint32_t waiting = 0, count;
    for (uint32_t slot = kring->hwcur; (count = slots_of_packet(kring, slot, head)) > 0;) {
        uint32_t end = slots_on(kring, slot, count);
        if (all || is_marked(kring, slot)) {
            if (waiting + count > BATCH) {
                to_host(kring, frames, waiting);
                waiting = 0;
            }
            uint16_t flags;
            waiting += gather(kring, slot, end, frames + waiting, &flags);
            clear_flags(kring, slot, end, NS_FORWARD);
        }
        slot = end;
    }
    if (waiting) to_host(kring, frames, waiting);
}

/* Changes buffers between the packet's slots and as many of a TX ring that has room for them. */
static bool put_down(struct nm_kring *kring, uint32_t slot, uint32_t count, struct nm_kring *to) {
    nm_kring_lock(to);
    uint32_t head = READ_ONCE(to->ring->head);
    uint32_t used = head < to->num_slots ? nm_kring_distance(to, to->rhead, head) : to->num_slots;
    bool room = used + count <= nm_kring_distance(to, to->rhead, to->hwtail);
    for (uint32_t i = 0; room && i < count; i++, slot = nm_kring_next(kring, slot)) {
        struct netmap_slot *from = &kring->ring->slot[slot], *here = &to->ring->slot[head];
        uint32_t ours = READ_ONCE(from->buf_idx), theirs = READ_ONCE(here->buf_idx);
        uint16_t flags = READ_ONCE(from->flags) & NS_MOREFRAG;
        WRITE_ONCE(here->buf_idx, ours);
        WRITE_ONCE(here->len, READ_ONCE(from->len));
        WRITE_ONCE(here->flags, (uint16_t)(flags | NS_BUF_CHANGED));
        if (kring->offset_max) here->ptr = nm_slot_offset(kring, from);
        WRITE_ONCE(from->buf_idx, theirs);
        WRITE_ONCE(from->flags, NS_BUF_CHANGED);
        head = nm_kring_next(to, head);
    }
    if (room) {
        WRITE_ONCE(to->ring->cur, head);
        store_release(&to->ring->head, head);
    }
    nm_kring_unlock(to);
    return room;
}

static bool forward_down(struct nm_kring *kring, uint32_t head, bool all) {
    struct nm_port *port = kring->port;
    uint32_t to = 0, count;
    bool some = false;
    for (uint32_t slot = kring->hwcur; (count = slots_of_packet(kring, slot, head)) > 0;) {
        if (all || is_marked(kring, slot)) {
            while (to < port->num_rings[NM_TX] &&
                   !put_down(kring, slot, count, &port->krings[NM_TX][to]))
                to++;
            bool put = to < port->num_rings[NM_TX];
            kring->stats.drops[NM_DROP_FULL] += !put;
            some |= put;
        }
        slot = slots_on(kring, slot, count);
    }
    return some;
}

static bool nic_forward(struct nm_kring *kring, uint32_t head, bool all, bool down) {
    if (kring->host)
        return kring->index == kring->port->num_rings[NM_RX] && down &&
               forward_down(kring, head, all);
    if (queue_of(kring) && backend_of(kring)->to_host) forward_up(kring, head, all);
    return false;
}

/* ---- sync -------------------------------------------------------------------------------------
 */

static int nic_sync(struct nm_kring *kring, uint32_t head) {
    int error = kring->dir == NM_TX ? nic_txsync(kring, head) : nic_rxsync(kring, head);
    if (error == -EIO) nm_port_gone(kring->port);
    return error;
}

/* Waking a reader that holds a full ring, or a writer the device does not hold up, would wake it
 * for ever. */
static void nic_arm(struct nm_kring *kring, bool ready) {
    const struct nic_queue *queue = queue_of(kring);
    if (!queue) return;
    uint32_t events = 0;
    if (kring->dir == NM_RX && (ready || rx_room(kring) >= slots_per_packet(kring)))
        events = EPOLLIN;
    if (kring->dir == NM_TX && (queue->tx_blocked || (queue->tx_away && !ready))) events = EPOLLOUT;
    if (!events) return;
    if (!queue->watch)
        backend_of(kring)->arm(queue->queue, events);
    else if (events == EPOLLIN && ready)
        nm_watch_arm_soon(queue->watch, events);
    else
        nm_watch_arm(events == EPOLLOUT && queue->tx_watch ? queue->tx_watch : queue->watch,
                     events);
}

static bool queue_event(void *arg, uint32_t events) {
    const struct nic_queue *queue = arg;
    struct nm_port *port = queue->port;
    const struct nm_kring *rx = &port->krings[NM_RX][queue->rings[NM_RX]];
    if (events & (EPOLLERR | EPOLLHUP)) {
        const struct nm_backend_ops *backend = backend_of(rx);
        if (!backend->gone || backend->gone(queue->queue)) {
            nm_port_gone(port);
            return false;
        }
    }
    if (events & EPOLLIN) nm_kring_wake(&port->krings[NM_RX][queue->rings[NM_RX]]);
    if (events & EPOLLOUT) nm_kring_wake(&port->krings[NM_TX][queue->rings[NM_TX]]);
    return true;
}

static int nic_start(struct nm_kring *kring, struct nm_refusal *why) {
    struct nic_queue *queue = queue_of(kring);
    if (!queue) return 0;
    const struct nm_backend_ops *backend = backend_of(kring);
    if (kring->dir == NM_TX) {
        if (backend->in_flight) recover(queue, (uint32_t)backend->in_flight(queue->queue));
        return 0;
    }
    int error = backend->start(queue->queue, &kring->stats);
    if (!error) return 0;
    return nm_refuse(why, -error, "receiving on %s: %s", kring->port->name, strerror(-error));
}

static void nic_stop(struct nm_kring *kring) {
    struct nic_queue *queue = queue_of(kring);
    if (!queue) return;
    const struct nm_backend_ops *backend = backend_of(kring);
    if (kring->dir == NM_RX) {
        backend->stop(queue->queue);
    } else if (backend->settle) {
        backend->settle(queue->queue);
    } else if (backend->in_flight) {
        recover(queue, (uint32_t)backend->in_flight(queue->queue));
        nm_flying_abandon(&queue->flying);
    }
}

/* ---- life -------------------------------------------------------------------------------------
 */

static void close_queues(const struct nm_backend_ops *backend, void **queues, uint32_t count) {
    for (uint32_t i = 0; i < count; i++)
        backend->close(queues[i]);
}

static void close_side(struct side *side) {
    for (uint32_t i = 0; i < side->count; i++) {
        nm_watch_destroy(side->queues[i].watch);
        nm_watch_destroy(side->queues[i].tx_watch);
        side->backend->close(side->queues[i].queue);
    }
    for (uint32_t i = 0; i < side->count; i++) { /* nothing is under way any more */
        recover(&side->queues[i], 0);
        nm_flying_fini(&side->queues[i].flying);
    }
    free(side->queues);
    *side = (struct side){0};
}

/* Takes the queues over, also when it fails. `first` are the rings of the first. */
static int open_side(struct side *side, struct nm_port *port, const uint32_t first[NM_DIRS],
                     const struct nm_backend_ops *backend, void **queues, uint32_t count,
                     struct nm_refusal *why) {
    side->queues = calloc(count ? count : 1, sizeof(side->queues[0]));
    if (!side->queues) {
        close_queues(backend, queues, count);
        return nm_refuse(why, ENOMEM, "out of memory");
    }
    struct nm_events *events = ((struct nic *)port->private)->events;
    side->backend = backend;
    side->count = count;
    int error = 0;
    for (uint32_t i = 0; i < count; i++)
        side->queues[i] =
            (struct nic_queue){.queue = queues[i],
                               .port = port,
                               .rings = {[NM_RX] = first[NM_RX] + i, [NM_TX] = first[NM_TX] + i}};
    for (uint32_t i = 0; i < count; i++) {
        error = backend->lend ? backend->lend(queues[i], why) : 0;
        if (!error) continue;
        close_side(side);
        return error;
    }
    for (uint32_t i = 0; i < count && !error; i++) {
        struct nic_queue *queue = &side->queues[i];
        if (backend->in_flight) error = nm_flying_init(&queue->flying, port->num_slots[NM_TX]);
        if (error) break;
        if (backend->listen) {
            error = backend->listen(queue->queue, queue_event, queue);
            continue;
        }
        error = nm_watch_create(events, backend->event_fd(queue->queue), queue_event, queue,
                                &queue->watch);
        if (error || !backend->tx_event_fd) continue;
        error = nm_watch_create(events, backend->tx_event_fd(queue->queue), queue_event, queue,
                                &queue->tx_watch);
    }
    if (!error) return 0;
    close_side(side);
    return nm_refuse(why, -error, "watching %s failed", port->name);
}

static void for_each_wire_ring(struct nm_port *port, void (*call)(struct nm_kring *kring)) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++)
        for (uint32_t i = 0; i < port->num_rings[dir]; i++)
            call(&port->krings[dir][i]);
}

static void stop_receiving(struct nm_kring *kring) {
    if (kring->live && kring->dir == NM_RX) nic_stop(kring);
}

static void nic_destroy(struct nm_port *port) {
    struct nic *nic = port->private;
    close_side(&nic->wire);
    close_side(&nic->host);
    free(nic);
}

static const struct nm_port_ops nic_ops = {.kind = "nic",
                                           .leaf = true,
                                           .offsets = true,
                                           .start = nic_start,
                                           .stop = nic_stop,
                                           .sync = nic_sync,
                                           .forward = nic_forward,
                                           .arm = nic_arm,
                                           .destroy = nic_destroy};

int nm_nic_create_sized(struct nm_region *region, struct nm_events *events, const char *name,
                        const struct nm_backend_ops *backend, void **queues, uint32_t num_queues,
                        const uint32_t rings[NM_DIRS], const uint32_t slots[NM_DIRS],
                        struct nm_port **out, struct nm_refusal *why) {
    if (backend->abi != NM_BACKEND_ABI) /* nothing else of it can be relied on, not its close */
        return nm_refuse(why, EINVAL,
                         "the backend of %s was compiled with another version's backend.h", name);
    struct nic *nic = calloc(1, sizeof(*nic));
    if (!nic) {
        close_queues(backend, queues, num_queues);
        return nm_refuse(why, ENOMEM, "out of memory");
    }
    nic->events = events;
    struct nm_port_config config = {.name = name,
                                    .ops = &nic_ops,
                                    .private = nic,
                                    .rings = {rings[NM_RX], rings[NM_TX]},
                                    .slots = {slots[NM_RX], slots[NM_TX]},
                                    .has_host = true};
    int error = nm_port_create(region, &config, out, why);
    if (error) {
        close_queues(backend, queues, num_queues);
        free(nic);
        return error;
    }
    const uint32_t first[NM_DIRS] = {0};
    error = open_side(&nic->wire, *out, first, backend, queues, num_queues, why);
    if (error) nm_port_destroy(*out);
    return error;
}

/* Whoever syncs one of the rings meanwhile waits, and finds the other device behind it. */
int nm_nic_set_wire(struct nm_port *port, const struct nm_backend_ops *backend, void **queues,
                    uint32_t num_queues, struct nm_refusal *why) {
    struct nic *nic = port->private;
    const uint32_t first[NM_DIRS] = {0};
    for_each_wire_ring(port, nm_kring_lock);
    for_each_wire_ring(port, stop_receiving);
    close_side(&nic->wire);
    int error = open_side(&nic->wire, port, first, backend, queues, num_queues, why);
    for (uint32_t i = 0; !error && i < port->num_rings[NM_RX]; i++)
        if (port->krings[NM_RX][i].live) error = nic_start(&port->krings[NM_RX][i], why);
    for_each_wire_ring(port, nm_kring_unlock);
    for_each_wire_ring(port, nm_kring_wake); /* nothing watches for sleepers any more */
    if (error) nm_port_gone(port);
    return error;
}

int nm_nic_create(struct nm_region *region, struct nm_events *events, const char *name,
                  const struct nm_backend_ops *backend, void **queues, uint32_t num_queues,
                  uint32_t num_slots, struct nm_port **out, struct nm_refusal *why) {
    const uint32_t rings[NM_DIRS] = {num_queues, num_queues};
    const uint32_t slots[NM_DIRS] = {num_slots, num_slots};
    return nm_nic_create_sized(region, events, name, backend, queues, num_queues, rings, slots, out,
                               why);
}

int nm_nic_set_host(struct nm_port *port, const struct nm_backend_ops *backend, void **queues,
                    uint32_t num_queues, struct nm_refusal *why) {
    struct nic *nic = port->private;
    close_side(&nic->host);
    return num_queues
               ? open_side(&nic->host, port, port->num_rings, backend, queues, num_queues, why)
               : 0;
}
