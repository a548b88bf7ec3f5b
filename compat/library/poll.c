/* SPDX-License-Identifier: BSD-2-Clause */
/* rte_netmap_poll: netmap's descriptors by the engine, all others by libc, until one of them is
 * ready. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "barrier.h"
#include "library.h"

#define FEW 8           /* descriptors for which the stack has room */
#define MOST (1u << 20) /* descriptors: what libc takes is less */
#define FOREVER UINT64_MAX

struct poll_set {
    struct pollfd *fds; /* the caller's */
    nfds_t count;
    nfds_t ours;            /* how many are netmap's */
    struct waiter *waiters; /* for each: its file, or NULL if it is libc's */
    struct pollfd *libc;    /* what libc is asked: one more, for the thread's own event */
    int event;              /* that, once it sleeps; else -1 */
};

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- looking -----------------------------------------------------------------------------------
 */

/* What the engine says of ours: how many are ready. With `arm` it will wake us once more may be
 * true. */
static int look_at_ours(struct poll_set *set, bool arm) {
    int ready = 0;
    for (nfds_t i = 0; i < set->count; i++) {
        struct open_file *file = set->waiters[i].file;
        if (!file) continue;
        struct pollfd *fd = &set->fds[i];
        pthread_rwlock_rdlock(&file->use);
        int revents = nm_file_poll(&file->file, (uint16_t)fd->events, arm, 0);
        pthread_rwlock_unlock(&file->use);
        fd->revents = (short)revents;
        ready += revents != 0;
    }
    return ready;
}

/* Asks libc about the others, and whether the engine has called: how many of the others are ready.
 */
static int ask_libc(struct poll_set *set, uint64_t until) {
    for (nfds_t i = 0; i < set->count; i++)
        set->libc[i] = (struct pollfd){.fd = set->waiters[i].file ? -1 : set->fds[i].fd,
                                       .events = set->fds[i].events};
    set->libc[set->count] = (struct pollfd){.fd = set->event, .events = POLLIN};
    uint64_t now = until && until != FOREVER ? now_ns() : 0, left = now < until ? until - now : 0;
    struct timespec wait = {.tv_sec = (time_t)(left / 1000000000u),
                            .tv_nsec = (long)(left % 1000000000u)};
    if (ppoll(set->libc, set->count + 1, until == FOREVER ? NULL : &wait, NULL) < 0) return -errno;
    int ready = 0;
    for (nfds_t i = 0; i < set->count; i++) {
        if (set->waiters[i].file) continue;
        set->fds[i].revents = set->libc[i].revents;
        ready += set->libc[i].revents != 0;
    }
    return ready;
}

static int look(struct poll_set *set, bool arm) {
    int ready = look_at_ours(set, arm);
    if (set->ours == set->count) return ready;
    int others = ask_libc(set, 0);
    return others < 0 ? others : ready + others;
}

/* Before a thread sleeps, which takes longer than most packets do. */
static int spin(struct poll_set *set, uint64_t until) {
    uint64_t enough = now_ns() + netmap.parameters.poll_spin * 1000ull;
    if (enough > until) enough = until;
    int ready;
    do
        ready = look(set, false);
    while (!ready && now_ns() < enough);
    return ready;
}

/* ---- sleeping ----------------------------------------------------------------------------------
 */

static pthread_key_t event_key;
static pthread_once_t event_once = PTHREAD_ONCE_INIT;

static void close_event(void *plus_one) { close((int)(intptr_t)plus_one - 1); }

static void make_key(void) { pthread_key_create(&event_key, close_event); }

/* The thread's own, made when it first sleeps: -errno. */
static int own_event(void) {
    pthread_once(&event_once, make_key);
    intptr_t plus_one = (intptr_t)pthread_getspecific(event_key);
    if (plus_one) return (int)plus_one - 1;
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (event < 0) return -errno;
    pthread_setspecific(event_key, (void *)(intptr_t)(event + 1));
    return event;
}

static int sleep_until(struct poll_set *set, uint64_t until) {
    for (;;) {
        eventfd_t calls;
        eventfd_read(set->event, &calls);
        int ready = look(set, true);
        if (ready || (until != FOREVER && now_ns() >= until)) return ready;
        int others = ask_libc(set, until);
        if (others < 0) return others;
        /* The next look counts them again, and is also the last at ours. */
    }
}

static int wait_for(struct poll_set *set, int timeout) {
    if (!timeout) return look(set, false);
    uint64_t until = timeout < 0 ? FOREVER : now_ns() + (uint64_t)timeout * 1000000u;
    int ready = spin(set, until);
    if (ready) return ready;
    int event = own_event();
    if (event < 0) return event;
    set->event = event;
    for (nfds_t i = 0; i < set->count; i++) {
        set->waiters[i].event = event;
        if (set->waiters[i].file) file_add_waiter(&set->waiters[i]);
    }
    ready = sleep_until(set, until);
    for (nfds_t i = 0; i < set->count; i++)
        if (set->waiters[i].file) file_remove_waiter(&set->waiters[i]);
    return ready;
}

/* ---- the call ----------------------------------------------------------------------------------
 */

static int poll_mixed(struct poll_set *set, int timeout) {
    for (nfds_t i = 0; i < set->count; i++) {
        set->waiters[i].file = set->fds[i].fd < 0 ? NULL : file_get(set->fds[i].fd);
        set->ours += set->waiters[i].file != NULL;
    }
    int ready = !set->ours      ? poll(set->fds, set->count, timeout)
                : netmap.forked ? -ENXIO
                                : wait_for(set, timeout);
    if (!set->ours && ready < 0) ready = -errno;
    for (nfds_t i = 0; i < set->count; i++)
        if (set->waiters[i].file) file_put(set->waiters[i].file);
    return ready;
}

int rte_netmap_poll(struct pollfd *fds, nfds_t nfds, int timeout) {
    struct waiter few_waiters[FEW];
    struct pollfd few_fds[FEW + 1];
    struct poll_set set = {
        .fds = fds, .count = nfds, .waiters = few_waiters, .libc = few_fds, .event = -1};
    if (nfds <= FEW) return answer(poll_mixed(&set, timeout));
    if (nfds > MOST) return answer(-EINVAL);
    set.waiters = calloc(nfds, sizeof(set.waiters[0]));
    set.libc = calloc(nfds + 1, sizeof(set.libc[0]));
    int ready = set.waiters && set.libc ? poll_mixed(&set, timeout) : -ENOMEM;
    free(set.waiters);
    free(set.libc);
    return answer(ready);
}
