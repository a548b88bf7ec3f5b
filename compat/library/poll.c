/* SPDX-License-Identifier: BSD-2-Clause */
/* rte_netmap_poll: netmap's descriptors by the engine, all others by libc, until one of them is
 * ready. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "barrier.h"
#include "library.h"

#define FEW 8           /* descriptors for which the stack has room */
#define MOST (1u << 20) /* descriptors: what libc takes is less */
#define FOREVER UINT64_MAX

struct poll_set {
    struct pollfd *fds; /* the caller's */
    nfds_t count;
    nfds_t ours;             /* how many are netmap's */
    struct open_file **file; /* for each: NULL if it is libc's */
    struct pollfd *libc;     /* what libc is asked */
};

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What the engine says of ours: how many are ready. With `arm` it will make them readable once more
 * may be true. */
static int look_at_ours(struct poll_set *set, bool arm) {
    int ready = 0;
    for (nfds_t i = 0; i < set->count; i++) {
        struct open_file *file = set->file[i];
        if (!file) continue;
        struct pollfd *fd = &set->fds[i];
        if (arm) file_quieten(file, fd->fd);
        pthread_rwlock_rdlock(&file->use);
        int revents = nm_file_poll(&file->file, (uint16_t)fd->events, arm, 0);
        pthread_rwlock_unlock(&file->use);
        fd->revents = (short)revents;
        ready += revents != 0;
    }
    return ready;
}

/* Asks libc about the others, and about ours whether the engine has called: how many of the others
 * are ready. */
static int ask_libc(struct poll_set *set, uint64_t until) {
    for (nfds_t i = 0; i < set->count; i++) {
        set->libc[i].fd = set->fds[i].fd;
        set->libc[i].events = set->file[i] ? POLLIN : set->fds[i].events;
    }
    uint64_t now = until && until != FOREVER ? now_ns() : 0, left = now < until ? until - now : 0;
    struct timespec wait = {.tv_sec = (time_t)(left / 1000000000u),
                            .tv_nsec = (long)(left % 1000000000u)};
    if (ppoll(set->libc, set->count, until == FOREVER ? NULL : &wait, NULL) < 0) return -errno;
    int ready = 0;
    for (nfds_t i = 0; i < set->count; i++) {
        if (set->file[i]) continue;
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

static int wait_for(struct poll_set *set, int timeout) {
    if (!timeout) return look(set, false);
    uint64_t until = timeout < 0 ? FOREVER : now_ns() + (uint64_t)timeout * 1000000u;
    int ready = spin(set, until);
    while (!ready) {
        ready = look(set, true);
        if (ready || (until != FOREVER && now_ns() >= until)) break;
        int others = ask_libc(set, until);
        if (others < 0) return others;
        /* They are counted again by the next look, which is also the last for ours. */
    }
    return ready;
}

static int poll_mixed(struct poll_set *set, int timeout) {
    for (nfds_t i = 0; i < set->count; i++) {
        set->file[i] = set->fds[i].fd < 0 ? NULL : file_get(set->fds[i].fd);
        set->ours += set->file[i] != NULL;
    }
    int ready = set->ours ? wait_for(set, timeout) : poll(set->fds, set->count, timeout);
    if (!set->ours && ready < 0) ready = -errno;
    for (nfds_t i = 0; i < set->count; i++)
        if (set->file[i]) file_put(set->file[i]);
    return ready;
}

int rte_netmap_poll(struct pollfd *fds, nfds_t nfds, int timeout) {
    struct open_file *few_files[FEW];
    struct pollfd few_fds[FEW];
    struct poll_set set = {.fds = fds, .count = nfds, .file = few_files, .libc = few_fds};
    if (nfds <= FEW) return answer(poll_mixed(&set, timeout));
    if (nfds > MOST) return answer(-EINVAL);
    set.file = calloc(nfds, sizeof(set.file[0]));
    set.libc = calloc(nfds, sizeof(set.libc[0]));
    int ready = set.file && set.libc ? poll_mixed(&set, timeout) : -ENOMEM;
    free(set.file);
    free(set.libc);
    return answer(ready);
}
