/* SPDX-License-Identifier: BSD-2-Clause */
/* The poller: one thread for all queues, there from the first to the last of them. */
#include "dpdk/poller.h"

#include <errno.h>
#include <poll.h>
#include <rte_epoll.h>
#include <rte_ethdev.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "barrier.h"
#include "dpdk/eal.h"

#define FIRST_PAUSE 20000ull /* ns */
#define NEVER UINT64_MAX

static struct {
    pthread_mutex_t life;    /* adding and removing */
    pthread_mutex_t calling; /* held while the thread is at queues: a removed one is not */
    pthread_mutex_t lock;    /* guards what is armed, due, and the time until which it sleeps */
    struct nm_dpdk_queue *first;
    pthread_t thread;
    int epoll; /* of DPDK's kind: interrupts, and the kick */
    int kick;
    struct rte_epoll_event kicked;
    uint64_t sleeps_until;
    bool ending;
} poller = {.life = PTHREAD_MUTEX_INITIALIZER,
            .calling = PTHREAD_MUTEX_INITIALIZER,
            .lock = PTHREAD_MUTEX_INITIALIZER};

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static const uint32_t event_of[NM_DIRS] = {[NM_RX] = EPOLLIN, [NM_TX] = EPOLLOUT};

/* With the lock. The pause grows until something moves, which sets it back to 0. */
static void put_off(struct nm_dpdk_queue *queue, enum nm_dir dir, uint64_t from) {
    uint64_t pause = READ_ONCE(queue->pause[dir]) * 2;
    if (pause < FIRST_PAUSE) pause = FIRST_PAUSE;
    if (pause > queue->longest_pause) pause = queue->longest_pause;
    WRITE_ONCE(queue->pause[dir], pause);
    queue->due[dir] = from + pause;
}

/* Whether this direction is to be looked at. One that is no more stays armed. */
static bool is_due(struct nm_dpdk_queue *queue, enum nm_dir dir, uint64_t time) {
    pthread_mutex_lock(&poller.lock);
    bool due = queue->armed & event_of[dir] && queue->due[dir] <= time;
    if (due && dir == NM_RX && queue->interrupted)
        queue->due[dir] = NEVER; /* it was for what came before the interrupt was allowed */
    else if (due)
        put_off(queue, dir, time);
    pthread_mutex_unlock(&poller.lock);
    return due;
}

static void wake(struct nm_dpdk_queue *queue, enum nm_dir dir) {
    pthread_mutex_lock(&poller.lock);
    bool armed = queue->armed & event_of[dir];
    queue->armed &= ~event_of[dir];
    pthread_mutex_unlock(&poller.lock);
    if (armed) queue->call(queue->arg, event_of[dir]);
}

static void look_at_all(void) {
    uint64_t time = now();
    for (struct nm_dpdk_queue *queue = poller.first; queue; queue = queue->next_queue) {
        if (is_due(queue, NM_RX, time) && nm_dpdk_look(queue)) wake(queue, NM_RX);
        /* Nothing says whether a device has room: its sender tries. */
        if (is_due(queue, NM_TX, time)) wake(queue, NM_TX);
    }
}

static void take_events(void) {
    struct rte_epoll_event events[16];
    int count = rte_epoll_wait(poller.epoll, events, 16, 0);
    for (int i = 0; i < count; i++) {
        struct nm_dpdk_queue *queue = events[i].epdata.data;
        if (!queue) {
            eventfd_t times;
            eventfd_read(poller.kick, &times);
        } else if (events[i].epdata.event & (EPOLLERR | EPOLLHUP)) {
            queue->call(queue->arg, EPOLLERR);
        } else {
            rte_eth_dev_rx_intr_disable(queue->number, queue->index);
            wake(queue, NM_RX);
        }
    }
}

/* How long there is nothing to do, ns; NEVER: until somebody says. */
static uint64_t rest(void) {
    uint64_t next = NEVER;
    pthread_mutex_lock(&poller.lock);
    for (struct nm_dpdk_queue *queue = poller.first; queue; queue = queue->next_queue)
        for (enum nm_dir dir = 0; dir < NM_DIRS; dir++)
            if (queue->armed & event_of[dir] && queue->due[dir] < next) next = queue->due[dir];
    poller.sleeps_until = next;
    pthread_mutex_unlock(&poller.lock);
    uint64_t time = now();
    if (next == NEVER) return NEVER;
    return next > time ? next - time : 0;
}

static void *loop(void *arg) {
    (void)arg;
    pthread_setname_np(pthread_self(), "dpdk-poller");
    nm_eal_enter();
    while (!load_acquire(&poller.ending)) {
        pthread_mutex_lock(&poller.calling);
        take_events();
        look_at_all();
        uint64_t pause = rest();
        pthread_mutex_unlock(&poller.calling);
        struct pollfd file = {.fd = poller.epoll, .events = POLLIN};
        struct timespec time = {.tv_sec = (time_t)(pause / 1000000000),
                                .tv_nsec = (long)(pause % 1000000000)};
        ppoll(&file, 1, pause == NEVER ? NULL : &time, NULL);
    }
    return NULL;
}

static void close_all(void) {
    if (poller.epoll >= 0) close(poller.epoll);
    if (poller.kick >= 0) close(poller.kick);
}

static int start(void) {
    poller.epoll = epoll_create1(EPOLL_CLOEXEC);
    poller.kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    poller.kicked = (struct rte_epoll_event){.epdata.event = EPOLLIN};
    poller.ending = false;
    poller.sleeps_until = 0;
    sigset_t all, old;
    sigfillset(&all);
    int error = 0;
    if (poller.epoll < 0 || poller.kick < 0 ||
        rte_epoll_ctl(poller.epoll, EPOLL_CTL_ADD, poller.kick, &poller.kicked))
        error = -errno;
    pthread_sigmask(SIG_SETMASK, &all, &old); /* which the thread inherits: none is for it */
    if (!error) error = -pthread_create(&poller.thread, NULL, loop, NULL);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error) close_all();
    return error;
}

static void end(void) {
    store_release(&poller.ending, true);
    eventfd_write(poller.kick, 1);
    pthread_join(poller.thread, NULL);
    close_all();
}

static int control(struct nm_dpdk_queue *queue, int operation) {
    return rte_eth_dev_rx_intr_ctl_q(queue->number, queue->index, poller.epoll, operation, queue);
}

int nm_poller_add(struct nm_dpdk_queue *queue, nm_watch_call *call, void *arg) {
    pthread_mutex_lock(&poller.life);
    int error = poller.first ? 0 : start();
    if (!error) {
        pthread_mutex_lock(&poller.calling);
        queue->call = call;
        queue->arg = arg;
        queue->next_queue = poller.first;
        poller.first = queue;
        queue->interrupts = queue->interrupts && !control(queue, RTE_INTR_EVENT_ADD);
        pthread_mutex_unlock(&poller.calling);
    }
    pthread_mutex_unlock(&poller.life);
    return error;
}

/* Whether the device will say that frames have come. Some have nothing to allow, and say it always;
 * some cannot at times, as nobody is connected. */
static bool allow_interrupt(struct nm_dpdk_queue *queue) {
    if (!queue->interrupts) return false;
    int error = rte_eth_dev_rx_intr_enable(queue->number, queue->index);
    return !error || error == -ENOTSUP;
}

void nm_poller_arm(struct nm_dpdk_queue *queue, uint32_t events) {
    bool interrupted = events & EPOLLIN && allow_interrupt(queue);
    uint64_t time = now(), first = NEVER;
    pthread_mutex_lock(&poller.lock);
    if (events & EPOLLIN) queue->interrupted = interrupted;
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        if (!(events & event_of[dir] & ~queue->armed)) continue;
        uint64_t pause = READ_ONCE(queue->pause[dir]);
        queue->due[dir] = time + (pause ? pause : FIRST_PAUSE);
        if (dir == NM_RX && interrupted) queue->due[dir] = time;
        if (queue->due[dir] < first) first = queue->due[dir];
    }
    queue->armed |= events;
    bool kick = first < poller.sleeps_until;
    if (kick) poller.sleeps_until = first;
    pthread_mutex_unlock(&poller.lock);
    if (kick) eventfd_write(poller.kick, 1);
}

void nm_poller_remove(struct nm_dpdk_queue *queue) {
    if (!queue->call) return;
    pthread_mutex_lock(&poller.life);
    pthread_mutex_lock(&poller.calling);
    if (queue->interrupts) control(queue, RTE_INTR_EVENT_DEL);
    struct nm_dpdk_queue **link = &poller.first;
    while (*link != queue)
        link = &(*link)->next_queue;
    *link = queue->next_queue;
    queue->call = NULL;
    pthread_mutex_unlock(&poller.calling);
    if (!poller.first) end();
    pthread_mutex_unlock(&poller.life);
}
