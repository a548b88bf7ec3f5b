/* SPDX-License-Identifier: BSD-2-Clause */
/* What a ring shows to those who monitor it: whole packets copied, or slots whose buffers change
 * hands. */
#include "monitored.h"

#include <stdlib.h>
#include <string.h>

#include "barrier.h"
#include "client_memory.h"

#define KEPT_FLAGS (NS_MOREFRAG | NS_PORT_MASK)

/* ---- one slot ---------------------------------------------------------------------------------
 */

/* What slots [from, from + count) point to in their sender's memory. */
struct fetched {
    bool any;
    uint32_t from, count;
    struct nm_client_part *parts;
    char *data;
};

/* How a range of slots is shown. */
struct showing {
    struct nm_kring *kring;
    const struct fetched *fetched;
    bool swap;
};

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* The packet of slot `k`, at most `most` bytes of it, into `to`; how many bytes. */
static uint32_t copy(const struct showing *showing, uint32_t k, char *to, uint32_t most) {
    const struct nm_kring *kring = showing->kring;
    const struct nm_buffers *buffers = &kring->port->buffers;
    const struct netmap_slot *slot = &kring->ring->slot[k];
    uint32_t len = least(READ_ONCE(slot->len), most);
    const struct fetched *fetched = showing->fetched;
    if (fetched->any && READ_ONCE(slot->flags) & NS_INDIRECT) {
        uint32_t n = nm_kring_distance(kring, fetched->from, k);
        bool good = n < fetched->count && fetched->parts[n].good;
        len = good ? least(len, fetched->parts[n].size) : 0;
        if (len) memcpy(to, fetched->parts[n].buffer, len);
        return len;
    }
    uint32_t offset = nm_slot_offset(kring, slot);
    len = least(len, buffers->size - offset);
    /* A monitor that lies may have named the very same buffer. */
    memmove(to, nm_buffer(buffers, READ_ONCE(slot->buf_idx)) + offset, len);
    return len;
}

/* Whether slot `k` changed buffers with the monitor's: only where both name buffers that programs
 * may use, and the packet is where a monitor, which has no offsets, looks for it. */
static bool swapped(const struct showing *showing, uint32_t k, struct netmap_slot *monitor) {
    const struct nm_kring *kring = showing->kring;
    const struct nm_buffers *buffers = &kring->port->buffers;
    struct netmap_slot *slot = &kring->ring->slot[k];
    uint16_t flags = READ_ONCE(slot->flags);
    if (!showing->swap || nm_slot_offset(kring, slot)) return false;
    if (showing->fetched->any && flags & NS_INDIRECT) return false;
    uint32_t theirs = READ_ONCE(slot->buf_idx), ours = READ_ONCE(monitor->buf_idx);
    if (nm_buffer(buffers, theirs) == buffers->base || nm_buffer(buffers, ours) == buffers->base)
        return false;
    WRITE_ONCE(monitor->buf_idx, theirs);
    WRITE_ONCE(slot->buf_idx, ours);
    WRITE_ONCE(slot->flags, (uint16_t)(flags | NS_BUF_CHANGED));
    return true;
}

/* Shows slot `k` in slot `m` of a monitor; returns its flags there. */
static uint16_t put(const struct showing *showing, uint32_t k, struct nm_kring *monitor,
                    uint32_t m) {
    const struct nm_kring *kring = showing->kring;
    const struct nm_buffers *buffers = &monitor->port->buffers;
    const struct netmap_slot *slot = &kring->ring->slot[k];
    struct netmap_slot *to = &monitor->ring->slot[m];
    uint16_t flags = READ_ONCE(slot->flags) & KEPT_FLAGS;
    if (kring->dir == NM_TX) flags |= NS_TXMON;
    uint32_t len;
    if (swapped(showing, k, to)) {
        len = least(READ_ONCE(slot->len), buffers->size);
        flags |= NS_BUF_CHANGED;
    } else {
        char *buffer = nm_buffer(buffers, READ_ONCE(to->buf_idx));
        if (buffer == buffers->base) monitor->stats.bad_slots++;
        uint32_t offset = nm_slot_offset(monitor, to);
        len = copy(showing, k, buffer + offset, buffers->size - offset);
    }
    WRITE_ONCE(to->len, (uint16_t)len);
    WRITE_ONCE(to->flags, flags);
    monitor->stats.bytes += len;
    return flags;
}

/* ---- ranges of slots --------------------------------------------------------------------------
 */

static bool ends_packet(const struct nm_kring *kring, uint32_t k) {
    return !(READ_ONCE(kring->ring->slot[k].flags) & NS_MOREFRAG);
}

/* Where the newest packets of [from, to) begin that fit into `room` slots; *skipped counts the
 * others. */
static uint32_t newest(const struct nm_kring *kring, uint32_t from, uint32_t to, uint32_t room,
                       uint32_t *skipped) {
    uint32_t slots = nm_kring_distance(kring, from, to);
    bool within = false; /* a packet that has lost its beginning */
    *skipped = 0;
    for (; slots && (slots > room || within); slots--, from = nm_kring_next(kring, from)) {
        within = !ends_packet(kring, from);
        *skipped += !within;
    }
    return from;
}

static void show(const struct showing *showing, const struct nm_view *view, uint32_t from,
                 uint32_t to) {
    const struct nm_kring *kring = showing->kring;
    struct nm_kring *monitor = view->to;
    uint32_t skipped;
    pthread_mutex_lock(&monitor->fill_lock);
    uint32_t m = monitor->filled;
    uint32_t room = nm_kring_room(monitor, m, load_acquire(&monitor->hwcur));
    from = newest(kring, from, to, room, &skipped);
    monitor->stats.drops[NM_DROP_FULL] += skipped;
    for (uint32_t k = from; k != to; k = nm_kring_next(kring, k), m = nm_kring_next(monitor, m))
        monitor->stats.packets += !(put(showing, k, monitor, m) & NS_MOREFRAG);
    store_release(&monitor->filled, m);
    pthread_mutex_unlock(&monitor->fill_lock);
    if (from != to) nm_kring_wake(monitor);
}

/* Slots [from, to) hold new packets. */
static void show_new(struct nm_kring *kring, const struct fetched *fetched, uint32_t from,
                     uint32_t to) {
    const struct showing showing = {.kring = kring, .fetched = fetched};
    if (from == to) return;
    for (const struct nm_view *view = kring->views; view; view = view->next)
        if (!view->zero_copy) show(&showing, view, from, to);
}

/* Slots [from, to) are about to change hands. */
static void show_done(struct nm_kring *kring, const struct fetched *fetched, uint32_t from,
                      uint32_t to) {
    if (from == to) return;
    for (const struct nm_view *view = kring->views; view && view->zero_copy; view = view->next) {
        bool last = !view->next || !view->next->zero_copy;
        const struct showing showing = {.kring = kring, .fetched = fetched, .swap = last};
        show(&showing, view, from, to);
    }
}

/* ---- syncs ------------------------------------------------------------------------------------
 */

/* `shown` is where the slots begin that copying views have not been shown. */
static void begin(struct nm_kring *kring) {
    if (kring->views_new) kring->shown = kring->dir == NM_TX ? kring->hwcur : kring->hwtail;
    kring->views_new = false;
}

static int monitored_rxsync(struct nm_kring *kring, uint32_t head) {
    const struct fetched nothing = {0};
    pthread_mutex_lock(&kring->views_lock);
    begin(kring);
    show_done(kring, &nothing, kring->hwcur, head);
    pthread_mutex_unlock(&kring->views_lock);

    int error = kring->port->ops->sync(kring, head);

    pthread_mutex_lock(&kring->views_lock);
    show_new(kring, &nothing, kring->shown, kring->hwtail);
    kring->shown = kring->hwtail;
    pthread_mutex_unlock(&kring->views_lock);
    return error;
}

/* The end of the last whole packet in [from, to). */
static uint32_t whole(const struct nm_kring *kring, uint32_t from, uint32_t to) {
    while (to != from && !ends_packet(kring, nm_kring_prev(kring, to)))
        to = nm_kring_prev(kring, to);
    return to;
}

/* What slots [from, to) point to, where the port cares for that. Without memory to put it into,
 * nothing. */
static void fetch(const struct nm_kring *kring, uint32_t from, uint32_t to, struct fetched *out) {
    uint32_t size = kring->port->buffers.size, indirect = 0;
    *out = (struct fetched){.from = from, .count = nm_kring_distance(kring, from, to)};
    if (!kring->port->ops->indirect) return;
    for (uint32_t k = from; k != to; k = nm_kring_next(kring, k))
        indirect += READ_ONCE(kring->ring->slot[k].flags) & NS_INDIRECT ? 1 : 0;
    out->any = indirect;
    if (!indirect) return;
    out->parts = calloc(out->count, sizeof(*out->parts));
    out->data = malloc((size_t)indirect * size);
    if (!out->parts || !out->data) {
        out->count = 0;
        return;
    }
    char *data = out->data;
    for (uint32_t n = 0, k = from; n < out->count && indirect; n++, k = nm_kring_next(kring, k)) {
        const struct netmap_slot *slot = &kring->ring->slot[k];
        uint32_t len = READ_ONCE(slot->len);
        if (!(READ_ONCE(slot->flags) & NS_INDIRECT)) continue;
        out->parts[n] = (struct nm_client_part){
            .address = READ_ONCE(slot->ptr), .buffer = data, .size = len <= size ? len : 0};
        data += size;
        indirect--; /* the program may be setting more flags meanwhile */
    }
    nm_client_read_parts(kring->caller, out->parts, out->count);
}

/* Whether the caller must be known before anything is shown. */
static bool needs_caller(const struct nm_kring *kring, uint32_t from, uint32_t to) {
    if (kring->caller || !kring->port->ops->indirect) return false;
    for (; from != to; from = nm_kring_next(kring, from))
        if (READ_ONCE(kring->ring->slot[from].flags) & NS_INDIRECT) return true;
    return false;
}

/* Slots that came back without ever having made a whole packet were shown to nobody. */
static void catch_up(struct nm_kring *kring, uint32_t head) {
    uint32_t oldest = nm_kring_next(kring, kring->hwtail);
    uint32_t hidden = nm_kring_distance(kring, kring->shown, head);
    if (hidden <= nm_kring_distance(kring, oldest, head)) return;
    kring->shown = oldest;
    for (const struct nm_view *view = kring->views; view; view = view->next) {
        if (view->zero_copy) continue;
        pthread_mutex_lock(&view->to->fill_lock);
        view->to->stats.drops[NM_DROP_BAD]++;
        pthread_mutex_unlock(&view->to->fill_lock);
    }
}

static int monitored_txsync(struct nm_kring *kring, uint32_t head) {
    struct fetched fetched;
    pthread_mutex_lock(&kring->views_lock);
    begin(kring);
    pthread_mutex_unlock(&kring->views_lock);
    uint32_t end = whole(kring, kring->shown, head);
    if (needs_caller(kring, kring->hwcur, head)) return NM_NEEDS_CALLER;
    fetch(kring, kring->shown, head, &fetched);

    pthread_mutex_lock(&kring->views_lock);
    show_new(kring, &fetched, kring->shown, end);
    kring->shown = end;
    pthread_mutex_unlock(&kring->views_lock);

    uint32_t tail = kring->hwtail;
    int error = kring->port->ops->sync(kring, head);

    pthread_mutex_lock(&kring->views_lock);
    show_done(kring, &fetched, nm_kring_next(kring, tail), nm_kring_next(kring, kring->hwtail));
    catch_up(kring, head);
    pthread_mutex_unlock(&kring->views_lock);
    free(fetched.parts);
    free(fetched.data);
    return error;
}

int nm_monitored_sync(struct nm_kring *kring, uint32_t head) {
    return kring->dir == NM_TX ? monitored_txsync(kring, head) : monitored_rxsync(kring, head);
}

/* ---- life -------------------------------------------------------------------------------------
 */

void nm_view_open(struct nm_view *view) {
    struct nm_kring *kring = view->from;
    pthread_mutex_lock(&kring->views_lock);
    if (!kring->views) kring->views_new = true;
    struct nm_view **link = &kring->views;
    while (*link && !view->zero_copy)
        link = &(*link)->next;
    view->next = *link;
    WRITE_ONCE(*link, view);
    pthread_mutex_unlock(&kring->views_lock);
}

void nm_view_close(struct nm_view *view) {
    struct nm_kring *kring = view->from;
    if (!kring) return;
    pthread_mutex_lock(&kring->views_lock);
    struct nm_view **link = &kring->views;
    while (*link != view)
        link = &(*link)->next;
    WRITE_ONCE(*link, view->next);
    pthread_mutex_unlock(&kring->views_lock);
    view->from = NULL;
}

void nm_monitored_wake(struct nm_kring *kring) {
    pthread_mutex_lock(&kring->views_lock);
    for (const struct nm_view *view = kring->views; view; view = view->next)
        if (!view->zero_copy) nm_kring_wake(view->to);
    pthread_mutex_unlock(&kring->views_lock);
}

void nm_monitored_gone(struct nm_port *port) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = 0; i < nm_port_total_rings(port, dir); i++) {
            struct nm_kring *kring = &port->krings[dir][i];
            pthread_mutex_lock(&kring->views_lock);
            for (const struct nm_view *view = kring->views; view; view = view->next)
                nm_port_gone(view->to->port);
            pthread_mutex_unlock(&kring->views_lock);
        }
    }
}

void nm_monitored_end(struct nm_port *port) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = 0; i < nm_port_total_rings(port, dir); i++) {
            struct nm_view *view;
            while ((view = port->krings[dir][i].views)) {
                struct nm_kring *monitor = view->to;
                nm_kring_lock(monitor); /* whose sync may be at the ring */
                nm_view_close(view);
                view->ended = true;
                nm_kring_unlock(monitor);
                nm_kring_wake(monitor);
            }
        }
    }
}
