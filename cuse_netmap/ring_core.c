/* SPDX-License-Identifier: BSD-2-Clause */
/* The hot path of the engine: what a sync and a poll do to rings. How rings come to be bound is in
 * bind.c, what moves packets in ports/. */
#include "ring_core.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/time.h>

#include "barrier.h"
#include "monitored.h"

#define EVENTS_OF(dir) ((dir) == NM_TX ? POLLOUT | POLLWRNORM : POLLIN | POLLRDNORM)
#define WAKE_EVENT(dir) ((dir) == NM_TX ? POLLOUT : POLLIN)

bool nm_kring_try_lock(struct nm_kring *kring) {
    return !__atomic_test_and_set(&kring->busy, __ATOMIC_ACQUIRE);
}

void nm_kring_lock(struct nm_kring *kring) {
    while (!nm_kring_try_lock(kring))
        sched_yield();
}

void nm_kring_unlock(struct nm_kring *kring) { __atomic_clear(&kring->busy, __ATOMIC_RELEASE); }

/* A sync that has a caller may wait for the caller's memory, which may take for ever. */
static bool lock_unless_waiting(struct nm_kring *kring) {
    while (!nm_kring_try_lock(kring)) {
        if (READ_ONCE(kring->waiting)) return false;
        sched_yield();
    }
    return true;
}

static void set_waiting(struct nm_kring *kring, uint32_t caller) {
    WRITE_ONCE(kring->waiting, caller && kring->dir == NM_TX);
}

/* Whoever polled meanwhile was told nothing and has to look again. */
static void unlock_waiting(struct nm_kring *kring) {
    bool waited = kring->waiting;
    WRITE_ONCE(kring->waiting, false);
    nm_kring_unlock(kring);
    if (waited) nm_kring_wake(kring);
}

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
void nm_kring_reinitialise(struct nm_kring *kring, uint32_t head, uint32_t cur) {
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
        if (kring->dir == NM_TX) kring->shown = kring->hwcur;
        kring->rhead = kring->hwcur;
        WRITE_ONCE(ring->head, kring->hwcur);
        WRITE_ONCE(ring->cur, kring->hwcur);
        WRITE_ONCE(ring->tail, kring->hwtail);
    }
}

/* Syncs with indices that are on the ring. */
static int sync_at(struct nm_kring *kring, uint32_t head, uint32_t caller) {
    kring->caller = caller;
    if (__builtin_expect(READ_ONCE(kring->views) != NULL, 0)) return nm_monitored_sync(kring, head);
    return kring->port->ops->sync(kring, head);
}

static bool no_timestamp;

void nm_set_no_timestamp(bool on) { WRITE_ONCE(no_timestamp, on); }

void nm_stamp(uint32_t flags, struct timeval *ts) {
    struct timeval now;
    if (READ_ONCE(no_timestamp) && !(flags & NR_TIMESTAMP)) return;
    gettimeofday(&now, NULL);
    *ts = now;
}

static bool forward_all;

void nm_set_forward_all(bool on) { WRITE_ONCE(forward_all, on); }

/* Only a file that has all hardware TX rings may have packets put into them. */
static bool may_forward_down(const struct nm_file *file) {
    return !file->first[NM_TX] && file->last[NM_TX] >= file->port->num_rings[NM_TX];
}

void nm_kring_forward(const struct nm_file *file, struct nm_kring *kring, uint32_t head,
                      uint32_t flags) {
    kring->forwarded = false;
    if (kring->dir == NM_TX || !kring->port->ops->forward) return;
    bool all = READ_ONCE(forward_all);
    if (!all && !(flags & NR_FORWARD)) return;
    kring->forwarded = kring->port->ops->forward(kring, head, all, may_forward_down(file));
}

/* One sync of one ring, its busy flag held. `ready` tells whether the client has room or packets
 * before it (cur != tail); 0, or -errno: -EINVAL for indices out of bounds. */
static int sync_ring(const struct nm_file *file, struct nm_kring *kring, uint32_t caller,
                     bool *ready) {
    if (__builtin_expect(kring->old.layout != NULL, 0))
        return nm_old_ring_sync(file, kring, caller, ready);
    struct netmap_ring *ring = kring->ring;
    uint32_t head = load_acquire(&ring->head);
    uint32_t cur = READ_ONCE(ring->cur);
    kring->stats.syncs++;

    int error = 0;
    uint32_t from = kring->dir == NM_TX ? kring->rhead : kring->hwcur;
    if (indices_valid(kring, from, head, cur)) {
        kring->rhead = head;
    } else {
        nm_kring_reinitialise(kring, head, cur);
        error = -EINVAL;
        if (kring->dir == NM_TX) return error;
        head = kring->hwcur; /* nothing is given back, but what has arrived is shown */
    }
    nm_kring_forward(file, kring, head, READ_ONCE(ring->flags));
    int failed = sync_at(kring, head, caller);
    store_release(&ring->tail, kring->hwtail);
    if (kring->dir == NM_RX) nm_stamp(READ_ONCE(ring->flags), &ring->ts);
    if (failed) return failed;
    *ready = cur != kring->hwtail;
    return error;
}

/* The file's port, once it is registered; to be followed by leave. A file that may change its rings
 * keeps them until then. */
static struct nm_port *enter(struct nm_file *file) {
    if (!load_acquire(&file->active)) return NULL;
    if (__builtin_expect(!file->changes, 1)) return file->port;
    pthread_rwlock_rdlock(&file->binding);
    if (file->active) return file->port;
    pthread_rwlock_unlock(&file->binding);
    return NULL;
}

static void leave(struct nm_file *file) {
    if (__builtin_expect(file->changes, 0)) pthread_rwlock_unlock(&file->binding);
}

/* First asked for, then looked at: whoever publishes in between sees the wish. */
static void ask_for_wake(struct nm_file *file, bool tx, bool rx) {
    const bool wanted[NM_DIRS] = {[NM_TX] = tx, [NM_RX] = rx};
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        if (!wanted[dir]) continue;
        __atomic_or_fetch(&file->armed, WAKE_EVENT(dir), __ATOMIC_SEQ_CST);
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++)
            WRITE_ONCE(file->port->krings[dir][i].wanted, true);
    }
    full_barrier();
}

static void arm(struct nm_kring *kring, bool ready) {
    if (kring->port->ops->arm) kring->port->ops->arm(kring, ready);
}

void nm_file_arm(struct nm_file *file) {
    ask_for_wake(file, true, true);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            struct nm_kring *kring = &file->port->krings[dir][i];
            nm_kring_lock(kring);
            arm(kring, false);
            nm_kring_unlock(kring);
        }
    }
}

static int sync_rings(struct nm_file *file, struct nm_port *port, enum nm_dir dir,
                      uint32_t caller) {
    if (READ_ONCE(file->csb.atok)) return -EBUSY;
    if (READ_ONCE(port->gone)) return -EIO;
    for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
        struct nm_kring *kring = &port->krings[dir][i];
        bool ready;
        if (!nm_kring_try_lock(kring)) {
            /* Another thread's sync is as good as ours, but a monitor's look is none. */
            if (dir == NM_TX || !READ_ONCE(kring->views)) continue;
            nm_kring_lock(kring);
        }
        set_waiting(kring, caller);
        int error = sync_ring(file, kring, caller, &ready);
        /* An edge-triggered sleeper does not poll again before it sleeps. */
        if (READ_ONCE(file->armed) & WAKE_EVENT(dir)) arm(kring, false);
        unlock_waiting(kring);
        if (error == NM_NEEDS_CALLER) return error;
    }
    return 0;
}

int nm_file_sync(struct nm_file *file, enum nm_dir dir, uint32_t caller) {
    struct nm_port *port = enter(file);
    if (!port) return -ENXIO;
    int error = sync_rings(file, port, dir, caller);
    leave(file);
    return error;
}

#define FORWARDED (1 << 16) /* beside the events: TX rings are to be synced */

/* Syncs one ring for poll; returns the events it makes true, or NM_NEEDS_CALLER. */
static int poll_ring(const struct nm_file *file, struct nm_kring *kring, bool want_wake,
                     uint32_t caller) {
    bool ready = false;
    int revents = 0;
    /* A poll that skipped a busy ring could sleep through what the other thread publishes, unless
     * that wakes it. */
    if (!lock_unless_waiting(kring)) return 0;
    set_waiting(kring, caller);
    int error = sync_ring(file, kring, caller, &ready);
    if (error) revents |= POLLERR;
    if (ready) revents |= EVENTS_OF(kring->dir);
    if (kring->forwarded) revents |= FORWARDED;
    if (want_wake) arm(kring, ready);
    unlock_waiting(kring);
    return error == NM_NEEDS_CALLER ? error : revents;
}

/* Whether its user has left something to be sent. */
static bool has_unsent(const struct nm_kring *kring) {
    bool old = kring->old.layout;
    uint32_t head = old ? nm_old_ring_cur(kring) : READ_ONCE(kring->ring->head);
    return head != READ_ONCE(kring->hwcur);
}

static int poll_rings(struct nm_file *file, struct nm_port *port, uint32_t events, bool arm,
                      uint32_t caller) {
    if (READ_ONCE(port->gone) || READ_ONCE(file->csb.atok)) return POLLERR;
    uint32_t want_tx = events & EVENTS_OF(NM_TX), want_rx = events & EVENTS_OF(NM_RX);
    if (arm) ask_for_wake(file, want_tx, want_rx);
    int revents = 0, some = 0;
    if (want_tx || !file->no_tx_poll) {
        for (uint32_t i = file->first[NM_TX]; i < file->last[NM_TX] && some >= 0; i++) {
            struct nm_kring *kring = &port->krings[NM_TX][i];
            bool unsatisfied = want_tx && !(revents & EVENTS_OF(NM_TX));
            if (unsatisfied || has_unsent(kring))
                revents |= some = poll_ring(file, kring, arm && unsatisfied, caller);
        }
    }
    if (want_rx) {
        for (uint32_t i = file->first[NM_RX]; i < file->last[NM_RX] && some >= 0; i++)
            revents |= some = poll_ring(file, &port->krings[NM_RX][i], arm, caller);
    }
    if (some < 0) return some;
    if (revents & FORWARDED) {
        for (uint32_t i = file->first[NM_TX]; i < file->last[NM_TX]; i++) {
            struct nm_kring *kring = &port->krings[NM_TX][i];
            if (has_unsent(kring)) revents |= poll_ring(file, kring, false, caller);
        }
    }
    if (READ_ONCE(port->gone)) revents |= POLLERR;
    return revents & (int)(events | POLLERR);
}

int nm_file_poll(struct nm_file *file, uint32_t events, bool arm, uint32_t caller) {
    struct nm_port *port = enter(file);
    if (!port) return POLLERR;
    int revents = poll_rings(file, port, events, arm, caller);
    leave(file);
    return revents;
}

int nm_kring_advance(struct nm_kring *kring, uint32_t head, uint32_t cur, uint32_t caller) {
    kring->stats.syncs++;
    uint32_t from = kring->dir == NM_TX ? kring->rhead : kring->hwcur;
    if (!indices_valid(kring, from, head, cur)) return -EINVAL;
    kring->rhead = head;
    return sync_at(kring, head, caller);
}

void nm_kring_wake(struct nm_kring *kring) {
    struct nm_port *port = kring->port;
    uint32_t event = WAKE_EVENT(kring->dir);
    full_barrier();
    if (!READ_ONCE(kring->wanted)) return;
    pthread_mutex_lock(&port->lock);
    WRITE_ONCE(kring->wanted, false);
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
    if (READ_ONCE(kring->views)) nm_monitored_wake(kring);
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
    nm_monitored_gone(port);
}
