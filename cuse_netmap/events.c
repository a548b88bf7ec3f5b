/* SPDX-License-Identifier: BSD-2-Clause */
/* The events thread: an epoll loop over one-shot watches. */
#include "events.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define SOON_NS 300000 /* twice that, if nobody asks again */
#define TICKS 8        /* and no longer, whoever does */

struct nm_events {
    int epoll, stop, timer;
    pthread_t thread;
    pthread_mutex_t calling; /* held while watches are called; a dead watch is never called */
    struct nm_watch *graveyard;
    pthread_mutex_t soon_lock;
    struct nm_watch *soon; /* armed at a tick of the timer, which runs while there are any */
};

struct nm_watch {
    struct nm_events *events;
    int fd;
    nm_watch_call *call;
    void *arg;
    pthread_mutex_t lock;
    uint32_t armed;
    uint32_t soon;  /* to be armed */
    bool again;     /* asked for since the last tick */
    uint32_t ticks; /* since it was first asked for */
    bool listed;    /* in events->soon, whose lock this needs */
    struct nm_watch *next_soon;
    bool present; /* in the epoll set */
    bool dead;
    struct nm_watch *next_dead;
};

static int change(struct nm_watch *watch, int op) {
    struct epoll_event event = {.events = watch->armed | EPOLLONESHOT, .data.ptr = watch};
    watch->present = op != EPOLL_CTL_DEL;
    return epoll_ctl(watch->events->epoll, op, watch->fd, &event) < 0 ? -errno : 0;
}

/* A descriptor that nobody waits for is not in the set: the kernel would call the set whenever
 * something moves there, for an AF_XDP socket with each frame sent. */
static void set_interest(struct nm_watch *watch) {
    if (watch->armed)
        change(watch, watch->present ? EPOLL_CTL_MOD : EPOLL_CTL_ADD);
    else if (watch->present)
        change(watch, EPOLL_CTL_DEL);
}

void nm_watch_arm(struct nm_watch *watch, uint32_t events) {
    pthread_mutex_lock(&watch->lock);
    watch->soon &= ~events;
    if ((watch->armed & events) != events) { /* else its call is still to come */
        watch->armed |= events;
        set_interest(watch);
    }
    pthread_mutex_unlock(&watch->lock);
}

static void set_timer(struct nm_events *events, bool on) {
    struct itimerspec period = {{0, on ? SOON_NS : 0}, {0, on ? SOON_NS : 0}};
    timerfd_settime(events->timer, 0, &period, NULL);
}

static void list(struct nm_watch *watch) {
    struct nm_events *events = watch->events;
    pthread_mutex_lock(&events->soon_lock);
    if (!watch->listed) {
        if (!events->soon) set_timer(events, true);
        watch->next_soon = events->soon;
        events->soon = watch;
        watch->listed = true;
    }
    pthread_mutex_unlock(&events->soon_lock);
}

static void unlist(struct nm_watch *watch) {
    struct nm_events *events = watch->events;
    pthread_mutex_lock(&events->soon_lock);
    for (struct nm_watch **at = &events->soon; *at; at = &(*at)->next_soon) {
        if (*at != watch) continue;
        *at = watch->next_soon;
        break;
    }
    pthread_mutex_unlock(&events->soon_lock);
}

void nm_watch_arm_soon(struct nm_watch *watch, uint32_t events) {
    pthread_mutex_lock(&watch->lock);
    bool wanted = (watch->armed & events) != events, new = wanted && !watch->soon;
    if (wanted) {
        watch->soon |= events;
        watch->again = true;
    }
    pthread_mutex_unlock(&watch->lock);
    if (new) list(watch);
}

/* Whether there is still something to be armed. */
static bool tick_watch(struct nm_watch *watch) {
    pthread_mutex_lock(&watch->lock);
    if (watch->soon && (!watch->again || ++watch->ticks == TICKS)) {
        watch->armed |= watch->soon;
        watch->soon = 0;
        set_interest(watch);
    }
    watch->again = false;
    if (!watch->soon) watch->ticks = 0;
    bool more = watch->soon;
    pthread_mutex_unlock(&watch->lock);
    return more;
}

static void tick(struct nm_events *events) {
    uint64_t count;
    if (read(events->timer, &count, sizeof(count)) < 0) return;
    pthread_mutex_lock(&events->soon_lock);
    for (struct nm_watch **at = &events->soon; *at;) {
        struct nm_watch *watch = *at;
        watch->listed = tick_watch(watch);
        if (watch->listed)
            at = &watch->next_soon;
        else
            *at = watch->next_soon;
    }
    if (!events->soon) set_timer(events, false);
    pthread_mutex_unlock(&events->soon_lock);
}

static void fire(struct nm_watch *watch, uint32_t events) {
    pthread_mutex_lock(&watch->lock);
    watch->armed &= ~events;
    pthread_mutex_unlock(&watch->lock);
    bool useful = watch->call(watch->arg, events);
    pthread_mutex_lock(&watch->lock);
    /* Even for nothing: a one-shot that has fired reports no error either. */
    if (useful) set_interest(watch);
    pthread_mutex_unlock(&watch->lock);
}

/* A dead watch may still be named by the batch in hand, so it is freed only behind a batch. */
static void bury(struct nm_events *events) {
    while (events->graveyard) {
        struct nm_watch *watch = events->graveyard;
        events->graveyard = watch->next_dead;
        pthread_mutex_destroy(&watch->lock);
        free(watch);
    }
}

static void *loop(void *arg) {
    struct nm_events *events = arg;
    struct epoll_event ready[16];
    for (;;) {
        int n = epoll_wait(events->epoll, ready, 16, -1);
        if (n < 0 && errno != EINTR) return NULL;
        pthread_mutex_lock(&events->calling);
        for (int i = 0; i < n; i++) {
            struct nm_watch *watch = ready[i].data.ptr;
            if (!watch) {
                pthread_mutex_unlock(&events->calling);
                return NULL;
            }
            if (ready[i].data.ptr == events)
                tick(events);
            else if (!watch->dead)
                fire(watch, ready[i].events);
        }
        bury(events);
        pthread_mutex_unlock(&events->calling);
    }
}

static void release(struct nm_events *events) {
    if (events->epoll >= 0) close(events->epoll);
    if (events->stop >= 0) close(events->stop);
    if (events->timer >= 0) close(events->timer);
    pthread_mutex_destroy(&events->soon_lock);
    pthread_mutex_destroy(&events->calling);
    free(events);
}

int nm_events_create(struct nm_events **out) {
    struct nm_events *events = calloc(1, sizeof(*events));
    if (!events) return -ENOMEM;
    pthread_mutex_init(&events->calling, NULL);
    pthread_mutex_init(&events->soon_lock, NULL);
    events->epoll = epoll_create1(EPOLL_CLOEXEC);
    events->stop = eventfd(0, EFD_CLOEXEC);
    events->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    struct epoll_event stop = {.events = EPOLLIN, .data.ptr = NULL};
    struct epoll_event timer = {.events = EPOLLIN, .data.ptr = events};
    int error = 0;
    if (events->epoll < 0 || events->stop < 0 || events->timer < 0 ||
        epoll_ctl(events->epoll, EPOLL_CTL_ADD, events->stop, &stop) < 0 ||
        epoll_ctl(events->epoll, EPOLL_CTL_ADD, events->timer, &timer) < 0)
        error = -errno;
    else
        error = -pthread_create(&events->thread, NULL, loop, events);
    if (error) {
        release(events);
        return error;
    }
    *out = events;
    return 0;
}

void nm_events_destroy(struct nm_events *events) {
    if (!events) return;
    eventfd_write(events->stop, 1);
    pthread_join(events->thread, NULL);
    bury(events);
    release(events);
}

int nm_watch_create(struct nm_events *events, int fd, nm_watch_call *call, void *arg,
                    struct nm_watch **out) {
    struct nm_watch *watch = malloc(sizeof(*watch));
    if (!watch) return -ENOMEM;
    *watch = (struct nm_watch){.events = events, .fd = fd, .call = call, .arg = arg};
    pthread_mutex_init(&watch->lock, NULL);
    pthread_mutex_lock(&watch->lock);
    int error = change(watch, EPOLL_CTL_ADD); /* what cannot be watched is refused now */
    if (!error) set_interest(watch);
    pthread_mutex_unlock(&watch->lock);
    if (error)
        free(watch);
    else
        *out = watch;
    return error;
}

void nm_watch_destroy(struct nm_watch *watch) {
    if (!watch) return;
    struct nm_events *events = watch->events;
    pthread_mutex_lock(&events->calling); /* or a call that is running would put it back */
    unlist(watch);
    if (watch->present) epoll_ctl(events->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->dead = true;
    watch->next_dead = events->graveyard;
    events->graveyard = watch;
    pthread_mutex_unlock(&events->calling);
}
