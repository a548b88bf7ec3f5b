/* SPDX-License-Identifier: BSD-2-Clause */
/* The hot path of the engine: what a sync and a poll do to rings. How rings come to be bound is in
 * bind.c, what moves packets in ports/. */
#include "ring_core.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/time.h>

#include "barrier.h"

#define EVENTS_OF(dir) ((dir) == NM_TX ? POLLOUT | POLLWRNORM : POLLIN | POLLRDNORM)
#define WAKE_EVENT(dir) ((dir) == NM_TX ? POLLOUT : POLLIN)

static bool try_lock(struct nm_kring *kring) {
    return !__atomic_test_and_set(&kring->busy, __ATOMIC_ACQUIRE);
}

static void unlock(struct nm_kring *kring) { __atomic_clear(&kring->busy, __ATOMIC_RELEASE); }

/* Is `index` on the way from `from` to `to`, both ends included? All are below num_slots. */
static bool between(const struct nm_kring *kring, uint32_t from, uint32_t index, uint32_t to) {
    return nm_kring_distance(kring, from, index) <= nm_kring_distance(kring, from, to);
}

/* head and cur as the client left them are used only if from <= head <= cur <= tail on the ring. */
static bool indices_valid(const struct nm_kring *kring, uint32_t from, uint32_t head,
                          uint32_t cur) {
    uint32_t n = kring->num_slots;
    return head < n && cur < n && between(kring, from, head, kring->hwtail) &&
           between(kring, head, cur, kring->hwtail);
}

/* A client got its ring wrong. Slots are made harmless; indices outside the ring are set back to
 * the engine's own; indices inside it are left for the client to mend (netmap does the same). */
static void reinitialise(struct nm_kring *kring, uint32_t head, uint32_t cur) {
    struct netmap_ring *ring = kring->ring;
    const struct nm_buffers *buffers = &kring->port->buffers;
    for (uint32_t i = 0; i < kring->num_slots; i++) {
        struct netmap_slot *slot = &ring->slot[i];
        uint32_t index = READ_ONCE(slot->buf_idx);
        if (index < NETMAP_BUF_FIRST || index >= buffers->total) {
            WRITE_ONCE(slot->buf_idx, 0);
            WRITE_ONCE(slot->len, 0);
        } else if (READ_ONCE(slot->len) > buffers->size) {
            WRITE_ONCE(slot->len, 0);
        }
    }
    kring->stats.bad_rings++;
    uint32_t n = kring->num_slots;
    if (head >= n || cur >= n || READ_ONCE(ring->tail) >= n) {
        kring->rhead = kring->hwcur;
        WRITE_ONCE(ring->head, kring->hwcur);
        WRITE_ONCE(ring->cur, kring->hwcur);
        WRITE_ONCE(ring->tail, kring->hwtail);
    }
}

static bool no_timestamp;

void nm_set_no_timestamp(bool on) { WRITE_ONCE(no_timestamp, on); }

/* One sync of one ring, its busy flag held. `ready` tells whether the client has room or packets
 * before it (cur != tail); 0, or -errno: -EINVAL for indices out of bounds. */
static int sync_ring(struct nm_kring *kring, bool *ready) {
    struct netmap_ring *ring = kring->ring;
    struct nm_port *port = kring->port;
    uint32_t head = load_acquire(&ring->head);
    uint32_t cur = READ_ONCE(ring->cur);
    kring->stats.syncs++;

    int error = 0;
    uint32_t from = kring->dir == NM_TX ? kring->rhead : kring->hwcur;
    if (indices_valid(kring, from, head, cur)) {
        kring->rhead = head;
    } else {
        reinitialise(kring, head, cur);
        error = -EINVAL;
        if (kring->dir == NM_TX) return error;
        head = kring->hwcur; /* nothing is given back, but what has arrived is shown */
    }
    int failed = port->ops->sync(kring, head);
    store_release(&ring->tail, kring->hwtail);
    if (kring->dir == NM_RX &&
        (!READ_ONCE(no_timestamp) || READ_ONCE(ring->flags) & NR_TIMESTAMP)) {
        struct timeval now;
        gettimeofday(&now, NULL);
        ring->ts = now;
    }
    if (failed) return failed;
    *ready = cur != kring->hwtail;
    return error;
}

/* The file's port, once it is registered. */
static struct nm_port *bound_port(struct nm_file *file) {
    return load_acquire(&file->active) ? file->port : NULL;
}

int nm_file_sync(struct nm_file *file, enum nm_dir dir) {
    struct nm_port *port = bound_port(file);
    if (!port) return -ENXIO;
    if (READ_ONCE(port->gone)) return -EIO;
    for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
        struct nm_kring *kring = &port->krings[dir][i];
        bool ready;
        if (!try_lock(kring)) continue; /* another thread is at it: as good as ours */
        sync_ring(kring, &ready);
        /* An edge-triggered sleeper does not poll again before it sleeps. */
        if (READ_ONCE(file->armed) & WAKE_EVENT(dir)) port->ops->arm(kring, false);
        unlock(kring);
    }
    return 0;
}

/* A poll that skipped a busy ring could sleep through what the other thread is about to publish. */
static void wait_lock(struct nm_kring *kring) {
    while (!try_lock(kring))
        sched_yield();
}

/* Syncs one ring for poll; returns the events it makes true. */
static uint32_t poll_ring(struct nm_kring *kring, bool arm) {
    bool ready = false;
    uint32_t revents = 0;
    wait_lock(kring);
    int error = sync_ring(kring, &ready);
    if (error) revents |= POLLERR;
    if (ready) revents |= EVENTS_OF(kring->dir);
    if (arm) kring->port->ops->arm(kring, ready);
    unlock(kring);
    return revents;
}

uint32_t nm_file_poll(struct nm_file *file, uint32_t events, bool arm) {
    struct nm_port *port = bound_port(file);
    if (!port || READ_ONCE(port->gone)) return POLLERR;
    uint32_t want_tx = events & EVENTS_OF(NM_TX), want_rx = events & EVENTS_OF(NM_RX);
    if (arm) {
        /* First asked for, then looked at: whoever publishes in between sees the wish. */
        __atomic_or_fetch(&file->armed,
                          (want_tx ? WAKE_EVENT(NM_TX) : 0) | (want_rx ? WAKE_EVENT(NM_RX) : 0),
                          __ATOMIC_SEQ_CST);
        full_barrier();
    }
    uint32_t revents = 0;
    if (want_tx || !file->no_tx_poll) {
        for (uint32_t i = file->first[NM_TX]; i < file->last[NM_TX]; i++) {
            struct nm_kring *kring = &port->krings[NM_TX][i];
            bool unsatisfied = want_tx && !(revents & EVENTS_OF(NM_TX));
            bool pending = READ_ONCE(kring->ring->head) != READ_ONCE(kring->hwcur);
            if (unsatisfied || pending) revents |= poll_ring(kring, arm && unsatisfied);
        }
    }
    if (want_rx) {
        for (uint32_t i = file->first[NM_RX]; i < file->last[NM_RX]; i++)
            revents |= poll_ring(&port->krings[NM_RX][i], arm);
    }
    if (READ_ONCE(port->gone)) revents |= POLLERR;
    return revents & (events | POLLERR);
}

void nm_kring_wake(struct nm_kring *kring) {
    struct nm_port *port = kring->port;
    uint32_t event = WAKE_EVENT(kring->dir);
    full_barrier();
    pthread_mutex_lock(&port->lock);
    for (struct nm_file *file = port->first_file; file; file = file->next_file) {
        if (kring->index < file->first[kring->dir] || kring->index >= file->last[kring->dir])
            continue;
        if (!(READ_ONCE(file->armed) & event)) continue;
        if (__atomic_fetch_and(&file->armed, ~event, __ATOMIC_SEQ_CST) & event) {
            kring->stats.wakeups++;
            file->wake(file);
        }
    }
    pthread_mutex_unlock(&port->lock);
}

void nm_port_gone(struct nm_port *port) {
    WRITE_ONCE(port->gone, true);
    full_barrier();
    pthread_mutex_lock(&port->lock);
    for (struct nm_file *file = port->first_file; file; file = file->next_file) {
        __atomic_store_n(&file->armed, 0, __ATOMIC_SEQ_CST);
        file->wake(file);
    }
    pthread_mutex_unlock(&port->lock);
}
