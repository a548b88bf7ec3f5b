/* SPDX-License-Identifier: BSD-2-Clause */
/* The requests that wait for control and the files that wait to be released. Nothing here looks at
 * what a request asks. */
#include "doors/inbox.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "barrier.h"
#include "client_memory.h"
#include "doors/door_internal.h"

#define INTERRUPT_GRACE_NS                                                                         \
    50000000ull             /* an interrupted caller is let go after this, decided or not */
#define LOOK_NS 50000000ull /* between looks for signals that the kernel has not told of */
#define PARKED_PER_FILE 4
#define PARKED_PER_USER 128
#define TURNED_AWAY_MAX 32 /* remembered for the log, which takes no more at once either */
#define TAKEN_MAX 16       /* what control can have in hand */
#define TAKEN_PER_USER 12  /* one user's slow memory stops nobody else */
#define EARLY_MAX 64       /* interrupts remembered that came before their requests */

struct parked {
    struct nm_request request; /* first: what control sees */
    struct nm_ticket ticket;
    bool arms;        /* a poll that wants to be woken */
    bool taken;       /* control has it, and will reply */
    bool committed;   /* control replies at once: too late for an interrupt */
    bool answered;    /* its caller was interrupted and has its answer already */
    bool held;        /* taken, but not in control's hands */
    nm_cut_call *cut; /* of a held one: asks for the answer */
    void *cut_arg;
    uint64_t deadline; /* ns, CLOCK_MONOTONIC, by which it must be answered; 0: none */
    struct parked *next, *prev;
};

struct nm_inbox {
    pthread_mutex_t lock;
    pthread_cond_t new_request, new_release, new_deadline;
    pthread_t reaper;
    bool stopping;
    struct parked *first, *last;     /* every parked request, oldest first */
    struct parked *taken[TAKEN_MAX]; /* those that control has; NULL for a free place */
    uint32_t num_parked;
    struct nm_turned_away turned_away[TURNED_AWAY_MAX];
    uint32_t num_turned_away;
    struct nm_open *first_release, *last_release;
    uint32_t releases_queued;
    struct {
        const struct nm_door *door;
        uint64_t unique;
    } early[EARLY_MAX];
    uint32_t next_early;
};

uint64_t nm_now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct timespec at_ns(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

/* ---- parking ----------------------------------------------------------------------------------
 */

static void append(struct nm_inbox *inbox, struct parked *parked) {
    parked->prev = inbox->last;
    if (inbox->last)
        inbox->last->next = parked;
    else
        inbox->first = parked;
    inbox->last = parked;
    inbox->num_parked++;
    parked->request.open->parked++;
}

static void forget(struct nm_inbox *inbox, struct parked *parked) {
    if (parked->prev)
        parked->prev->next = parked->next;
    else
        inbox->first = parked->next;
    if (parked->next)
        parked->next->prev = parked->prev;
    else
        inbox->last = parked->prev;
    inbox->num_parked--;
    parked->request.open->parked--;
    free(parked);
}

static bool interrupted_early(struct nm_inbox *inbox, const struct nm_door *door, uint64_t unique) {
    for (int i = 0; i < EARLY_MAX; i++) {
        if (inbox->early[i].unique != unique || inbox->early[i].door != door) continue;
        inbox->early[i].unique = 0;
        return true;
    }
    return false;
}

/* A file's beginning as a string; the empty one if it cannot be read. */
static void read_file(const char *path, char *text, size_t room) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, room - 1);
    if (fd >= 0) close(fd);
    text[size > 0 ? size : 0] = 0;
}

/* Why one more request may not wait; NULL if it may. */
static const char *full(const struct nm_inbox *inbox, const struct nm_request *request) {
    uint32_t of_user = 0;
    if (request->open->parked >= PARKED_PER_FILE)
        return "too many requests of this descriptor wait already";
    if (inbox->num_parked >= NM_PARKED_MOST) return "too many requests wait already";
    for (const struct parked *p = inbox->first; p; p = p->next)
        of_user += p->request.uid == request->uid;
    return of_user >= PARKED_PER_USER ? "too many requests of this user wait already" : NULL;
}

static void turn_away(struct nm_inbox *inbox, const struct nm_request *request,
                      const char *reason) {
    if (inbox->num_turned_away == TURNED_AWAY_MAX) return;
    struct nm_turned_away *away = &inbox->turned_away[inbox->num_turned_away++];
    *away =
        (struct nm_turned_away){.pid = request->pid, .command = request->command, .reason = reason};
    char path[32];
    snprintf(path, sizeof(path), "/proc/%u/comm", request->pid);
    read_file(path, away->program, sizeof(away->program));
    away->program[strcspn(away->program, "\n")] = 0;
    pthread_cond_signal(&inbox->new_request);
}

int nm_inbox_park(struct nm_door *door, const struct nm_incoming *in, struct nm_open *open) {
    struct nm_inbox *inbox = door->inbox;
    struct parked *parked = calloc(1, sizeof(*parked));
    if (!parked) return -ENOMEM;
    parked->request = (struct nm_request){
        .open = open, .pid = in->header->pid, .uid = in->header->uid, .gid = in->header->gid};
    parked->ticket =
        (struct nm_ticket){.unique = in->header->unique, .queue = in->queue, .entry = in->entry};
    if (in->header->opcode == FUSE_POLL) {
        const struct fuse_poll_in *poll_in = in->argument;
        parked->request.command = NM_REQUEST_POLL;
        parked->request.argument = poll_in->events;
        parked->arms = poll_in->flags & FUSE_POLL_SCHEDULE_NOTIFY;
        parked->ticket.answer_size = sizeof(struct fuse_poll_out);
    } else {
        const struct fuse_ioctl_in *ioctl_in = in->argument;
        parked->request.command = ioctl_in->cmd;
        parked->request.argument = ioctl_in->arg;
        parked->ticket.answer_size = sizeof(struct fuse_ioctl_out);
    }
    int result = NM_PARKED;
    pthread_mutex_lock(&inbox->lock);
    const char *reason = full(inbox, &parked->request);
    if (inbox->stopping) {
        result = -ENODEV;
    } else if (reason) {
        turn_away(inbox, &parked->request, reason);
        result = -EBUSY;
    } else {
        append(inbox, parked);
        if (interrupted_early(inbox, door, parked->ticket.unique))
            parked->deadline = nm_now_ns() + INTERRUPT_GRACE_NS;
        /* The reaper sleeps while nobody waits. */
        if (parked->deadline || inbox->num_parked == 1) pthread_cond_signal(&inbox->new_deadline);
        pthread_cond_signal(&inbox->new_request);
    }
    pthread_mutex_unlock(&inbox->lock);
    if (result != NM_PARKED) free(parked);
    return result;
}

/* ---- control's side ---------------------------------------------------------------------------
 */

/* The place among the taken for one more of this user's; NULL if there is none. */
static struct parked **free_place(struct nm_inbox *inbox, uint32_t uid) {
    struct parked **place = NULL;
    uint32_t of_user = 0;
    for (int i = 0; i < TAKEN_MAX; i++) {
        if (!inbox->taken[i])
            place = &inbox->taken[i];
        else
            of_user += inbox->taken[i]->request.uid == uid;
    }
    return of_user < TAKEN_PER_USER ? place : NULL;
}

static struct parked *take(struct nm_inbox *inbox) {
    for (struct parked *parked = inbox->first; parked; parked = parked->next) {
        if (parked->taken || parked->request.open->taken) continue;
        struct parked **place = free_place(inbox, parked->request.uid);
        if (!place) continue;
        *place = parked;
        parked->taken = parked->request.open->taken = true;
        return parked;
    }
    return NULL;
}

int nm_inbox_next(struct nm_inbox *inbox, struct nm_request **out,
                  struct nm_turned_away *turned_away) {
    struct parked *parked = NULL;
    pthread_mutex_lock(&inbox->lock);
    while (!inbox->stopping && !inbox->num_turned_away && !(parked = take(inbox)))
        pthread_cond_wait(&inbox->new_request, &inbox->lock);
    int result = inbox->stopping ? -ESHUTDOWN : parked ? 1 : 0;
    if (result == 0) *turned_away = inbox->turned_away[--inbox->num_turned_away];
    pthread_mutex_unlock(&inbox->lock);
    if (parked) *out = &parked->request;
    return result;
}

bool nm_inbox_abandoned(struct nm_inbox *inbox, struct nm_request *request) {
    pthread_mutex_lock(&inbox->lock);
    bool abandoned = ((struct parked *)request)->answered || inbox->stopping;
    pthread_mutex_unlock(&inbox->lock);
    return abandoned;
}

/* The thread id of a caller that has its answer may be another program's by now. While the answer
 * is due the kernel keeps the caller, even a killed one. */
int nm_request_read(struct nm_inbox *inbox, struct nm_request *request, uint64_t address,
                    void *buffer, size_t size) {
    if (nm_inbox_abandoned(inbox, request)) return -EINTR;
    return nm_client_read(request->pid, address, buffer, size);
}

int nm_request_write(struct nm_inbox *inbox, struct nm_request *request, uint64_t address,
                     const void *buffer, size_t size) {
    if (nm_inbox_abandoned(inbox, request)) return -EINTR;
    return nm_client_write(request->pid, address, buffer, size);
}

bool nm_inbox_commit(struct nm_inbox *inbox, struct nm_request *request) {
    struct parked *parked = (struct parked *)request;
    pthread_mutex_lock(&inbox->lock);
    parked->committed = !parked->answered && !inbox->stopping;
    pthread_mutex_unlock(&inbox->lock);
    return parked->committed;
}

/* The next request of this file, or of this user, may go now. */
static void out_of_hands(struct nm_inbox *inbox, struct parked *parked) {
    parked->request.open->taken = false;
    for (int i = 0; i < TAKEN_MAX; i++)
        if (inbox->taken[i] == parked) inbox->taken[i] = NULL;
    pthread_cond_signal(&inbox->new_request);
}

static void cut(const struct parked *parked) {
    if (parked->cut) parked->cut(parked->cut_arg);
}

void nm_inbox_hold(struct nm_inbox *inbox, struct nm_request *request, nm_cut_call *call,
                   void *arg) {
    struct parked *parked = (struct parked *)request;
    pthread_mutex_lock(&inbox->lock);
    out_of_hands(inbox, parked);
    parked->held = true;
    parked->cut = call;
    parked->cut_arg = arg;
    if (parked->deadline || inbox->stopping) cut(parked);
    pthread_mutex_unlock(&inbox->lock);
}

void nm_inbox_reply(struct nm_inbox *inbox, struct nm_request *request, int result) {
    struct parked *parked = (struct parked *)request;
    struct nm_door *door = request->open->door;
    pthread_mutex_lock(&inbox->lock);
    struct nm_ticket ticket = parked->ticket;
    bool wanted = !parked->answered && !inbox->stopping;
    if (!parked->held) out_of_hands(inbox, parked);
    forget(inbox, parked);
    if (inbox->first_release) pthread_cond_signal(&inbox->new_release);
    pthread_mutex_unlock(&inbox->lock);
    if (wanted) door->transport->reply(door, &ticket, result);
}

int nm_request_sync(struct nm_inbox *inbox, const struct nm_request *request) {
    const struct parked *parked = (const struct parked *)request;
    struct nm_file *file = &request->open->file;
    if (nm_inbox_abandoned(inbox, (struct nm_request *)request)) return -EINTR;
    if (request->command == NM_REQUEST_POLL)
        return nm_file_poll(file, (uint32_t)request->argument, parked->arms, request->pid);
    return nm_file_sync(file, request->command == NIOCTXSYNC ? NM_TX : NM_RX, request->pid);
}

/* ---- releases ---------------------------------------------------------------------------------
 */

void nm_inbox_release(struct nm_door *door, struct nm_open *open) {
    struct nm_inbox *inbox = door->inbox;
    WRITE_ONCE(open->closed_at, nm_now_ns()); /* not every last close has sent a FLUSH */
    pthread_mutex_lock(&inbox->lock);
    open->next_release = NULL;
    if (inbox->last_release)
        inbox->last_release->next_release = open;
    else
        inbox->first_release = open;
    inbox->last_release = open;
    inbox->releases_queued++;
    pthread_cond_signal(&inbox->new_release);
    pthread_mutex_unlock(&inbox->lock);
}

/* The oldest release, but for files of which control still has a request: one whose caller was
 * interrupted, answered and killed meanwhile. */
static struct nm_open *take_release(struct nm_inbox *inbox) {
    struct nm_open *before = NULL, *open = inbox->first_release;
    while (open && open->parked) {
        before = open;
        open = open->next_release;
    }
    if (!open) return NULL;
    if (before)
        before->next_release = open->next_release;
    else
        inbox->first_release = open->next_release;
    if (inbox->last_release == open) inbox->last_release = before;
    inbox->releases_queued--;
    return open;
}

int nm_inbox_next_release(struct nm_inbox *inbox, struct nm_open **out) {
    struct nm_open *open = NULL;
    pthread_mutex_lock(&inbox->lock);
    while (!inbox->stopping && !(open = take_release(inbox)))
        pthread_cond_wait(&inbox->new_release, &inbox->lock);
    pthread_mutex_unlock(&inbox->lock);
    if (!open) return -ESHUTDOWN;
    *out = open;
    return 1;
}

uint32_t nm_inbox_releases_queued(struct nm_inbox *inbox) {
    pthread_mutex_lock(&inbox->lock);
    uint32_t queued = inbox->releases_queued;
    pthread_mutex_unlock(&inbox->lock);
    return queued;
}

/* ---- interrupts -------------------------------------------------------------------------------
 */

/* Gives a request its deadline; false if it is not here. */
static bool interrupt(struct nm_inbox *inbox, const struct nm_door *door, uint64_t unique) {
    struct parked *parked = inbox->first;
    while (parked && (parked->ticket.unique != unique || parked->request.open->door != door))
        parked = parked->next;
    if (!parked) return false;
    if (!parked->deadline) {
        parked->deadline = nm_now_ns() + INTERRUPT_GRACE_NS;
        pthread_cond_signal(&inbox->new_deadline);
        cut(parked);
    }
    return true;
}

void nm_inbox_interrupt(struct nm_door *door, uint64_t unique) {
    struct nm_inbox *inbox = door->inbox;
    pthread_mutex_lock(&inbox->lock);
    if (!interrupt(inbox, door, unique)) {
        /* It came by another way than the request and may have been faster. */
        uint32_t place = inbox->next_early++ % EARLY_MAX;
        inbox->early[place].door = door;
        inbox->early[place].unique = unique;
    }
    pthread_mutex_unlock(&inbox->lock);
}

/* Has the thread a signal of its own to handle? A killed process has one for each thread. */
static bool signalled(uint32_t tid) {
    char path[32], text[4096];
    snprintf(path, sizeof(path), "/proc/%u/status", tid);
    read_file(path, text, sizeof(text));
    const char *pending = strstr(text, "\nSigPnd:"), *blocked = strstr(text, "\nSigBlk:");
    if (!pending || !blocked) return false;
    return strtoull(pending + strlen("\nSigPnd:"), NULL, 16) &
           ~strtoull(blocked + strlen("\nSigBlk:"), NULL, 16);
}

/* Over io_uring the kernel forgets the INTERRUPT of a caller that is signalled while its request is
 * being handed over (fuse_uring_prepare_send does not look for it, as fuse_dev_do_read does), and
 * even a killed caller waits for the answer. Called and returns with the lock held. */
static void look_for_signals(struct nm_inbox *inbox) {
    struct {
        const struct nm_door *door;
        uint64_t unique;
        uint32_t tid;
    } waiting[NM_PARKED_MOST];
    int n = 0;
    for (const struct parked *p = inbox->first; p; p = p->next) {
        const struct nm_door *door = p->request.open->door;
        if (p->deadline || p->committed || !door->transport->loses_interrupts) continue;
        waiting[n].door = door;
        waiting[n].unique = p->ticket.unique;
        waiting[n++].tid = p->request.pid;
    }
    pthread_mutex_unlock(&inbox->lock);
    for (int i = 0; i < n; i++)
        if (!signalled(waiting[i].tid)) waiting[i].unique = 0;
    pthread_mutex_lock(&inbox->lock);
    for (int i = 0; i < n; i++)
        if (waiting[i].unique) interrupt(inbox, waiting[i].door, waiting[i].unique);
}

/* A request whose time is over, which needs its answer from us; else NULL, and when the next is. */
static struct parked *expired(struct nm_inbox *inbox, uint64_t *next) {
    uint64_t now = nm_now_ns();
    *next = UINT64_MAX;
    for (struct parked *parked = inbox->first; parked; parked = parked->next) {
        if (!parked->deadline || parked->answered || parked->committed) continue;
        if (parked->deadline <= now) return parked;
        if (parked->deadline < *next) *next = parked->deadline;
    }
    return NULL;
}

/* Whoever holds them may have been where the first call was of no use. */
static void cut_again(struct nm_inbox *inbox) {
    for (const struct parked *parked = inbox->first; parked; parked = parked->next)
        if (parked->deadline) cut(parked);
}

static void *reap(void *arg) {
    struct nm_inbox *inbox = arg;
    uint64_t look = nm_now_ns() + LOOK_NS;
    pthread_mutex_lock(&inbox->lock);
    while (!inbox->stopping) {
        uint64_t next;
        struct parked *parked = expired(inbox, &next);
        if (parked) {
            struct nm_door *door = parked->request.open->door;
            struct nm_ticket ticket = parked->ticket;
            if (parked->taken)
                parked->answered = true; /* control learns it when it replies */
            else
                forget(inbox, parked);
            pthread_mutex_unlock(&inbox->lock);
            door->transport->reply(door, &ticket, -EINTR);
            pthread_mutex_lock(&inbox->lock);
        } else if (!inbox->first) {
            pthread_cond_wait(&inbox->new_deadline, &inbox->lock);
        } else if (nm_now_ns() >= look) {
            look_for_signals(inbox);
            cut_again(inbox);
            look = nm_now_ns() + LOOK_NS;
        } else {
            struct timespec at = at_ns(next < look ? next : look);
            pthread_cond_timedwait(&inbox->new_deadline, &inbox->lock, &at);
        }
    }
    pthread_mutex_unlock(&inbox->lock);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------
 */

int nm_inbox_create(struct nm_inbox **out) {
    struct nm_inbox *inbox = calloc(1, sizeof(*inbox));
    if (!inbox) return -ENOMEM;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&inbox->lock, NULL);
    pthread_cond_init(&inbox->new_request, &monotonic);
    pthread_cond_init(&inbox->new_release, &monotonic);
    pthread_cond_init(&inbox->new_deadline, &monotonic);
    pthread_condattr_destroy(&monotonic);
    int error = pthread_create(&inbox->reaper, NULL, reap, inbox);
    if (error) {
        free(inbox);
        return -error;
    }
    *out = inbox;
    return 0;
}

void nm_inbox_shut(struct nm_inbox *inbox) {
    pthread_mutex_lock(&inbox->lock);
    inbox->stopping = true;
    for (const struct parked *parked = inbox->first; parked; parked = parked->next)
        cut(parked);
    pthread_cond_broadcast(&inbox->new_request);
    pthread_cond_broadcast(&inbox->new_release);
    pthread_cond_broadcast(&inbox->new_deadline);
    pthread_mutex_unlock(&inbox->lock);
}

void nm_inbox_destroy(struct nm_inbox *inbox) {
    nm_inbox_shut(inbox);
    pthread_join(inbox->reaper, NULL);
    while (inbox->first)
        forget(inbox, inbox->first);
    pthread_cond_destroy(&inbox->new_request);
    pthread_cond_destroy(&inbox->new_release);
    pthread_cond_destroy(&inbox->new_deadline);
    pthread_mutex_destroy(&inbox->lock);
    free(inbox);
}
