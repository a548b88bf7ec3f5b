/* SPDX-License-Identifier: BSD-2-Clause */
/* CSB and sync-kloop. A loop looks at the indices of all its rings with one system call, syncs, and
 * tells what has changed with another; when nothing does any more it asks for kicks and wakes,
 * looks once again and sleeps. */
#include "kloop.h"

#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "barrier.h"
#include "client_files.h"
#include "client_memory.h"
#include "ring_core.h"

#define STACK_SIZE (256 * 1024)
#define SLICE_NS 10000000 /* three times the usual */
#define STOPS_MOST 4      /* a file has no more requests than that */
/* What is told of a ring: hwcur and hwtail, which are one aligned word that is never seen half
 * written, then kern_need_kick. */
#define TOLD_SIZE (offsetof(struct nm_csb_ktoa, kern_need_kick) + sizeof(uint32_t))

struct ring {
    struct nm_kring *kring;
    bool direct; /* every change counts: kern_need_kick stays 1, appl_need_kick is not asked */
    bool news;   /* `ktoa` is not what the program has */
    bool moved;  /* hwtail, since an interrupt was considered */
    int irqfd;   /* or -1 */
};

struct nm_kloop {
    struct nm_inbox *inbox;
    struct nm_file *file;
    struct nm_request *start, *stops[STOPS_MOST]; /* held; guarded by `loops_lock` */
    uint32_t num_stops;
    uint32_t pid, uid;
    uint32_t sleep_us;
    bool kicks;        /* every ring has an ioeventfd */
    bool stopped, cut; /* why it is to end */
    int epoll, wakeup; /* an eventfd: look whether it is the end, or at the rings */
    void (*wake_before)(struct nm_file *file);
    uint32_t num_rings, num_fds;
    struct ring *rings;
    struct nm_csb_atok *atok; /* as last read */
    struct nm_csb_ktoa *ktoa; /* as last written, or about to be */
    int *fds;                 /* of the program's eventfds: ioeventfd and irqfd of each ring */
    struct nm_client_part *parts;
    struct nm_kloop *next;
};

/* All loops of all files; the lock is taken before an inbox's. */
static pthread_mutex_t loops_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t loop_ended = PTHREAD_COND_INITIALIZER;
static struct nm_kloop *loops;

static uint32_t bound_rings(const struct nm_file *file) {
    return nm_file_rings(file, NM_TX) + nm_file_rings(file, NM_RX);
}

/* In the order of the arrays. */
static struct nm_kring *bound_ring(const struct nm_file *file, uint32_t i) {
    uint32_t tx = nm_file_rings(file, NM_TX);
    return i < tx ? &file->port->krings[NM_TX][file->first[NM_TX] + i]
                  : &file->port->krings[NM_RX][file->first[NM_RX] + i - tx];
}

/* ---- CSB --------------------------------------------------------------------------------------
 */

int nm_csb_enable(struct nm_inbox *inbox, struct nm_request *request, uint64_t atok,
                  uint64_t ktoa) {
    struct nm_file *file = nm_open_file(request->open);
    uint32_t n = bound_rings(file);
    size_t size = n * sizeof(struct nm_csb_atok);
    struct nm_csb_atok *to_kernel = calloc(n, sizeof(*to_kernel));
    struct nm_csb_ktoa *to_program = calloc(n, sizeof(*to_program));
    int error = to_kernel && to_program ? 0 : -ENOMEM;
    if (!error) error = nm_request_read(inbox, request, atok, to_kernel, size);
    for (uint32_t i = 0; i < n && !error; i++) {
        struct nm_kring *kring = bound_ring(file, i);
        nm_kring_lock(kring);
        to_kernel[i].head = to_kernel[i].cur = kring->rhead;
        to_program[i].hwcur = kring->hwcur;
        to_program[i].hwtail = kring->hwtail;
        nm_kring_unlock(kring);
        to_kernel[i].appl_need_kick = to_kernel[i].sync_flags = 1;
        to_program[i].kern_need_kick = 1;
    }
    if (!error) error = nm_request_write(inbox, request, atok, to_kernel, size);
    if (!error) error = nm_request_write(inbox, request, ktoa, to_program, size);
    if (!error) {
        WRITE_ONCE(file->csb.ktoa, ktoa);
        WRITE_ONCE(file->csb.atok, atok);
    }
    free(to_kernel);
    free(to_program);
    return error;
}

/* ---- a round ----------------------------------------------------------------------------------
 */

/* A caller that has its answer may be gone, and its thread id somebody else's. */
static int still_there(const struct nm_kloop *loop) { return READ_ONCE(loop->cut) ? -EINTR : 0; }

/* Reads what the program wants. head and cur are one aligned word, so that they are of one moment.
 * What was told before is seen by the program before appl_need_kick is read here. */
static int look(struct nm_kloop *loop) {
    int error = still_there(loop);
    if (!error)
        error = nm_client_read(loop->pid, loop->file->csb.atok, loop->atok,
                               loop->num_rings * sizeof(*loop->atok));
    if (error) return error;
    for (uint32_t i = 0; i < loop->num_rings; i++) {
        struct ring *ring = &loop->rings[i];
        if (!ring->moved) continue;
        ring->moved = false;
        if (ring->irqfd >= 0 && (ring->direct || loop->atok[i].appl_need_kick))
            eventfd_write(ring->irqfd, 1);
    }
    return 0;
}

/* Writes what is new to the program. */
static int tell(struct nm_kloop *loop) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < loop->num_rings; i++) {
        if (!loop->rings[i].news) continue;
        loop->rings[i].news = false;
        loop->parts[n++] = (struct nm_client_part){
            .address = loop->file->csb.ktoa + i * sizeof(*loop->ktoa),
            .buffer = &loop->ktoa[i],
            .size = TOLD_SIZE,
        };
    }
    int error = still_there(loop);
    return error ? error : nm_client_write_parts(loop->pid, loop->parts, n);
}

/* Whether the program is to kick when it has something new. */
static void want_kicks(struct nm_kloop *loop, bool wanted) {
    for (uint32_t i = 0; i < loop->num_rings; i++) {
        uint32_t value = wanted || loop->rings[i].direct;
        loop->rings[i].news |= loop->ktoa[i].kern_need_kick != value;
        loop->ktoa[i].kern_need_kick = value;
    }
}

/* Whether anything has changed for the program. */
static bool sync_ring(struct nm_kloop *loop, uint32_t i) {
    struct ring *ring = &loop->rings[i];
    struct nm_kring *kring = ring->kring;
    struct nm_csb_ktoa *ktoa = &loop->ktoa[i];
    nm_kring_lock(kring);
    int error = nm_kring_advance(kring, loop->atok[i].head, loop->atok[i].cur, loop->pid);
    if (error == -EINVAL) kring->stats.bad_rings++;
    uint32_t hwcur = kring->hwcur, hwtail = kring->hwtail;
    nm_kring_unlock(kring);
    bool changed = hwcur != ktoa->hwcur || hwtail != ktoa->hwtail;
    ring->news |= changed;
    ring->moved |= hwtail != ktoa->hwtail;
    ktoa->hwcur = hwcur;
    ktoa->hwtail = hwtail;
    return changed;
}

/* Syncs every ring once. 1: something has changed, 0: nothing; -errno. */
static int round_of(struct nm_kloop *loop) {
    int error = look(loop);
    bool changed = false;
    for (uint32_t i = 0; i < loop->num_rings && !error; i++) {
        changed |= sync_ring(loop, i);
        error = still_there(loop);
    }
    if (changed) want_kicks(loop, false);
    if (!error) error = tell(loop);
    return error ? error : changed;
}

static bool over(const struct nm_kloop *loop, int *result) {
    if (READ_ONCE(loop->stopped))
        *result = 0;
    else if (READ_ONCE(loop->cut))
        *result = -EINTR;
    else if (READ_ONCE(loop->file->port->gone))
        *result = -EIO;
    else
        return false;
    return true;
}

/* Until a kick, a wake, or the time is over. Nothing is read from the eventfds: it is the write
 * that wakes, not what is in them. */
static void sleep_for(const struct nm_kloop *loop, uint64_t us) {
    struct epoll_event events[16];
    struct timespec time = {(time_t)(us / 1000000), (long)(us % 1000000) * 1000};
    epoll_pwait2(loop->epoll, events, 16, &time, NULL);
}

static int loop_with_pauses(struct nm_kloop *loop) {
    int result;
    want_kicks(loop, false);
    while (!over(loop, &result)) {
        int changed = round_of(loop);
        int error = changed < 0 ? changed : 0;
        if (changed > 0 && loop->num_fds) error = look(loop); /* interrupts await no next round */
        if (error) return error;
        if (loop->sleep_us)
            sleep_for(loop, loop->sleep_us);
        else if (!changed)
            sched_yield(); /* who has nothing to do lets others go first */
    }
    return result;
}

static int loop_with_kicks(struct nm_kloop *loop) {
    int result;
    bool armed = false;
    while (!over(loop, &result)) {
        int changed = round_of(loop);
        if (changed < 0) return changed;
        if (changed) {
            armed = false;
        } else if (!armed) {
            /* First asked for, then looked once more: whoever comes in between is not missed. */
            armed = true;
            want_kicks(loop, true);
            int error = tell(loop);
            if (error) return error;
            nm_file_arm(loop->file);
        } else {
            sleep_for(loop, NETMAP_KLOOP_KICK_WAIT_MAX_MS * 1000ull);
            armed = false;
        }
    }
    return result;
}

static int run(struct nm_kloop *loop) {
    int result;
    if (over(loop, &result)) return result;
    /* What the program has been told so far. */
    result = nm_client_read(loop->pid, loop->file->csb.ktoa, loop->ktoa,
                            loop->num_rings * sizeof(*loop->ktoa));
    if (result) return result;
    return loop->kicks ? loop_with_kicks(loop) : loop_with_pauses(loop);
}

/* ---- beginning and end ------------------------------------------------------------------------
 */

static void wake_loop(struct nm_file *file) { eventfd_write(file->kloop->wakeup, 1); }

/* An irqfd that the program has filled holds up whoever signals it, for ever if it dies then. */
static void make_room(int irqfd) {
    struct pollfd poller = {.fd = irqfd, .events = POLLOUT};
    uint64_t count;
    if (irqfd < 0 || poll(&poller, 1, 0) != 0) return;
    ssize_t emptied = preadv2(irqfd, &(struct iovec){&count, sizeof(count)}, 1, -1, RWF_NOWAIT);
    (void)emptied; /* or somebody else has */
}

/* Nobody waits for the loop any more. */
static void cut_loop(void *arg) {
    struct nm_kloop *loop = arg;
    WRITE_ONCE(loop->cut, true);
    eventfd_write(loop->wakeup, 1);
    for (uint32_t i = 0; i < loop->num_rings; i++)
        make_room(loop->rings[i].irqfd);
}

static void set_wake(struct nm_file *file, void (*wake)(struct nm_file *file)) {
    pthread_mutex_lock(&file->port->lock);
    file->wake = wake;
    __atomic_store_n(&file->armed, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&file->port->lock);
}

static void destroy(struct nm_kloop *loop) {
    for (uint32_t i = 0; loop->fds && i < loop->num_fds; i++)
        if (loop->fds[i] >= 0) close(loop->fds[i]);
    if (loop->epoll >= 0) close(loop->epoll);
    if (loop->wakeup >= 0) close(loop->wakeup);
    free(loop->rings);
    free(loop->atok);
    free(loop->ktoa);
    free(loop->fds);
    free(loop->parts);
    free(loop);
}

/* The loop counts no more, and is no more. */
static void strike_off(struct nm_kloop *loop) {
    pthread_mutex_lock(&loops_lock);
    struct nm_kloop **link = &loops;
    while (*link != loop)
        link = &(*link)->next;
    *link = loop->next;
    destroy(loop);
    pthread_cond_broadcast(&loop_ended);
    pthread_mutex_unlock(&loops_lock);
}

/* The file may be released as soon as its last request is answered. */
static void end(struct nm_kloop *loop, int result) {
    set_wake(loop->file, loop->wake_before);
    pthread_mutex_lock(&loops_lock);
    WRITE_ONCE(loop->file->kloop, NULL); /* from now on no STOP waits for us */
    pthread_mutex_unlock(&loops_lock);
    nm_inbox_reply(loop->inbox, loop->start, result);
    for (uint32_t i = 0; i < loop->num_stops; i++)
        nm_inbox_reply(loop->inbox, loop->stops[i], 0);
}

/* Whoever wakes on this CPU, such as the door to answer a sync, runs at once and not when our slice
 * is over: since Linux 6.12 a long one ends for those with shorter ones. */
static void step_back(void) {
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = {.size = sizeof(attributes), .policy = SCHED_BATCH, .runtime = SLICE_NS};
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static void *serve(void *arg) {
    struct nm_kloop *loop = arg;
    pthread_mutex_lock(&loops_lock); /* until the request is held */
    pthread_mutex_unlock(&loops_lock);
    pthread_setname_np(pthread_self(), "kloop");
    prctl(PR_SET_TIMERSLACK, 1000);
    step_back();
    int result = run(loop);
    /* Whatever keeps us from the memory, to the program it is not there. */
    end(loop, result == -EPERM || result == -ESRCH ? -EFAULT : result);
    strike_off(loop);
    return NULL;
}

static bool all_kick(const struct nm_kloop_config *config, uint32_t rings) {
    for (uint32_t i = 0; config->eventfds && i < rings; i++)
        if (config->eventfds[2 * i] < 0) return false;
    return config->eventfds;
}

static struct nm_kloop *create(struct nm_inbox *inbox, struct nm_request *request,
                               const struct nm_kloop_config *config) {
    struct nm_kloop *loop = calloc(1, sizeof(*loop));
    if (!loop) return NULL;
    struct nm_file *file = nm_open_file(request->open);
    uint32_t n = bound_rings(file);
    *loop = (struct nm_kloop){.inbox = inbox,
                              .file = file,
                              .start = request,
                              .pid = request->pid,
                              .uid = request->uid,
                              .sleep_us = config->sleep_us,
                              .kicks = all_kick(config, n),
                              .epoll = epoll_create1(EPOLL_CLOEXEC),
                              .wakeup = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
                              .wake_before = file->wake,
                              .num_rings = n,
                              .num_fds = config->eventfds ? 2 * n : 0,
                              .rings = calloc(n, sizeof(struct ring)),
                              .atok = calloc(n, sizeof(struct nm_csb_atok)),
                              .ktoa = calloc(n, sizeof(struct nm_csb_ktoa)),
                              .fds = calloc(2 * n, sizeof(int)),
                              .parts = calloc(n, sizeof(struct nm_client_part))};
    for (uint32_t i = 0; loop->fds && i < 2 * n; i++)
        loop->fds[i] = -1;
    for (uint32_t i = 0; loop->rings && i < n; i++) {
        struct nm_kring *kring = bound_ring(file, i);
        uint32_t direct =
            kring->dir == NM_TX ? NM_OPT_SYNC_KLOOP_DIRECT_TX : NM_OPT_SYNC_KLOOP_DIRECT_RX;
        loop->rings[i] =
            (struct ring){.kring = kring, .direct = config->mode & direct, .irqfd = -1};
    }
    return loop;
}

static bool complete(const struct nm_kloop *loop) {
    return loop->rings && loop->atok && loop->ktoa && loop->fds && loop->parts;
}

/* Every write is an edge. */
static int watch(struct nm_kloop *loop, int fd) {
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    return epoll_ctl(loop->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

static int take_eventfds(struct nm_kloop *loop, const int32_t *theirs, struct nm_refusal *why) {
    int error = nm_client_eventfds(loop->pid, theirs, loop->num_fds, loop->fds, why);
    for (uint32_t i = 0; i < loop->num_rings && !error; i++) {
        loop->rings[i].irqfd = loop->fds[2 * i + 1];
        if (loop->kicks) error = watch(loop, loop->fds[2 * i]);
    }
    return error;
}

/* Counts the loop, if there may be one more. */
static int admit(struct nm_kloop *loop, struct nm_refusal *why) {
    uint32_t all = 0, of_user = 0, fds = loop->num_fds, fds_of_user = loop->num_fds;
    for (const struct nm_kloop *other = loops; other; other = other->next) {
        all++;
        fds += other->num_fds;
        if (other->uid != loop->uid) continue;
        of_user++;
        fds_of_user += other->num_fds;
    }
    if (all >= NM_KLOOPS_MOST || of_user >= NM_KLOOPS_PER_USER)
        return nm_refuse(why, EBUSY, "%u sync loops run, %u of this user; there may be %d and %d",
                         all, of_user, NM_KLOOPS_MOST, NM_KLOOPS_PER_USER);
    if (fds > NM_KLOOP_FDS_MOST || fds_of_user > NM_KLOOP_FDS_PER_USER)
        return nm_refuse(why, EBUSY,
                         "sync loops would hold %u eventfds, %u of this user; %d and %d they may",
                         fds, fds_of_user, NM_KLOOP_FDS_MOST, NM_KLOOP_FDS_PER_USER);
    loop->next = loops;
    loops = loop;
    return 0;
}

static int start_thread(struct nm_kloop *loop) {
    pthread_attr_t attributes;
    pthread_t thread;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int error = -pthread_create(&thread, &attributes, serve, loop);
    pthread_attr_destroy(&attributes);
    return error;
}

int nm_kloop_start(struct nm_inbox *inbox, struct nm_request *request,
                   const struct nm_kloop_config *config, struct nm_refusal *why) {
    struct nm_file *file = nm_open_file(request->open);
    bool stopped = file->kloop_stop;
    file->kloop_stop = false;
    struct nm_kloop *loop = create(inbox, request, config);
    if (!loop) return -ENOMEM;
    loop->stopped = stopped;
    int error = complete(loop) ? 0 : -ENOMEM;
    if (!error && (loop->epoll < 0 || loop->wakeup < 0)) error = -EMFILE;
    if (!error) error = watch(loop, loop->wakeup);
    pthread_mutex_lock(&loops_lock);
    if (!error) error = admit(loop, why);
    pthread_mutex_unlock(&loops_lock);
    if (error) {
        destroy(loop);
        return error;
    }
    if (config->eventfds) error = take_eventfds(loop, config->eventfds, why);
    if (!error) {
        file->kloop = loop;
        set_wake(file, wake_loop);
        pthread_mutex_lock(&loops_lock);
        error = start_thread(loop);
        if (!error) nm_inbox_hold(inbox, request, cut_loop, loop);
        pthread_mutex_unlock(&loops_lock);
        if (!error) return 0;
        set_wake(file, loop->wake_before);
        file->kloop = NULL;
    }
    strike_off(loop);
    return error;
}

bool nm_kloop_stop(struct nm_inbox *inbox, struct nm_request *request) {
    struct nm_file *file = nm_open_file(request->open);
    pthread_mutex_lock(&loops_lock);
    struct nm_kloop *loop = file->kloop;
    if (loop) {
        loop->stops[loop->num_stops++] = request;
        nm_inbox_hold(inbox, request, NULL, NULL);
        WRITE_ONCE(loop->stopped, true);
        eventfd_write(loop->wakeup, 1);
    } else {
        file->kloop_stop = true;
    }
    pthread_mutex_unlock(&loops_lock);
    return loop;
}

bool nm_kloops_ended(uint32_t milliseconds) {
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    uint64_t nanoseconds = (uint64_t)until.tv_nsec + milliseconds * 1000000ull;
    until.tv_sec += (time_t)(nanoseconds / 1000000000u);
    until.tv_nsec = (long)(nanoseconds % 1000000000u);
    pthread_mutex_lock(&loops_lock);
    while (loops && !pthread_cond_clockwait(&loop_ended, &loops_lock, CLOCK_MONOTONIC, &until)) {
    }
    bool ended = !loops;
    pthread_mutex_unlock(&loops_lock);
    return ended;
}
