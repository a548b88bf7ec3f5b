/* SPDX-License-Identifier: BSD-2-Clause */
/* The requests that wait for control and the files that wait to be released. Nothing here looks at
 * what a request asks. */
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
#define TAKEN_PER_USER 12 /* of control's 16 takers: one user's slow memory stops nobody else */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static struct timespec at_ns(uint64_t ns) {
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u),
                             .tv_nsec = (long)(ns % 1000000000u)};
}

void nm_requests_create(struct nm_door *door) {
    struct nm_requests *requests = &door->requests;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&requests->lock, NULL);
    pthread_cond_init(&requests->new_request, &monotonic);
    pthread_cond_init(&requests->new_release, &monotonic);
    pthread_cond_init(&requests->new_deadline, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* ---- parking ----------------------------------------------------------------------------------
 */

static void append(struct nm_requests *requests, struct nm_parked *parked) {
    parked->prev = requests->last;
    if (requests->last)
        requests->last->next = parked;
    else
        requests->first = parked;
    requests->last = parked;
    requests->num_parked++;
    parked->request.open->parked++;
}

static void forget(struct nm_requests *requests, struct nm_parked *parked) {
    if (parked->prev)
        parked->prev->next = parked->next;
    else
        requests->first = parked->next;
    if (parked->next)
        parked->next->prev = parked->prev;
    else
        requests->last = parked->prev;
    requests->num_parked--;
    parked->request.open->parked--;
    free(parked);
}

static bool interrupted_early(struct nm_requests *requests, uint64_t unique) {
    for (int i = 0; i < NM_INTERRUPTS_REMEMBERED; i++) {
        if (requests->early_interrupts[i] != unique) continue;
        requests->early_interrupts[i] = 0;
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
static const char *full(const struct nm_requests *requests, const struct nm_request *request) {
    uint32_t of_user = 0;
    if (request->open->parked >= PARKED_PER_FILE)
        return "too many requests of this descriptor wait already";
    if (requests->num_parked >= NM_PARKED_MOST) return "too many requests wait already";
    for (const struct nm_parked *p = requests->first; p; p = p->next)
        of_user += p->request.uid == request->uid;
    return of_user >= PARKED_PER_USER ? "too many requests of this user wait already" : NULL;
}

static void turn_away(struct nm_requests *requests, const struct nm_request *request,
                      const char *reason) {
    if (requests->num_turned_away == NM_TURNED_AWAY_REMEMBERED) return;
    struct nm_turned_away *away = &requests->turned_away[requests->num_turned_away++];
    *away =
        (struct nm_turned_away){.pid = request->pid, .command = request->command, .reason = reason};
    char path[32];
    snprintf(path, sizeof(path), "/proc/%u/comm", request->pid);
    read_file(path, away->program, sizeof(away->program));
    away->program[strcspn(away->program, "\n")] = 0;
    pthread_cond_signal(&requests->new_request);
}

int nm_requests_park(struct nm_door *door, const struct nm_incoming *in, struct nm_open *open) {
    struct nm_requests *requests = &door->requests;
    const struct fuse_ioctl_in *ioctl_in = in->argument;
    struct nm_parked *parked = calloc(1, sizeof(*parked));
    if (!parked) return -ENOMEM;
    parked->request = (struct nm_request){.open = open,
                                          .argument = ioctl_in->arg,
                                          .command = ioctl_in->cmd,
                                          .pid = in->header->pid,
                                          .uid = in->header->uid,
                                          .gid = in->header->gid};
    parked->ticket =
        (struct nm_ticket){.unique = in->header->unique, .queue = in->queue, .entry = in->entry};
    int result = NM_PARKED;
    pthread_mutex_lock(&requests->lock);
    const char *reason = full(requests, &parked->request);
    if (requests->stopping) {
        result = -ENODEV;
    } else if (reason) {
        turn_away(requests, &parked->request, reason);
        result = -EBUSY;
    } else {
        append(requests, parked);
        if (interrupted_early(requests, parked->ticket.unique))
            parked->deadline = now_ns() + INTERRUPT_GRACE_NS;
        /* The reaper sleeps while nobody waits. */
        if (parked->deadline || requests->num_parked == 1)
            pthread_cond_signal(&requests->new_deadline);
        pthread_cond_signal(&requests->new_request);
    }
    pthread_mutex_unlock(&requests->lock);
    if (result != NM_PARKED) free(parked);
    return result;
}

/* ---- control's side ---------------------------------------------------------------------------
 */

static bool may_take(const struct nm_requests *requests, const struct nm_parked *candidate) {
    uint32_t of_user = 0;
    if (candidate->taken || candidate->request.open->taken) return false;
    for (const struct nm_parked *p = requests->first; p; p = p->next)
        of_user += p->taken && p->request.uid == candidate->request.uid;
    return of_user < TAKEN_PER_USER;
}

static struct nm_parked *take(struct nm_requests *requests) {
    for (struct nm_parked *parked = requests->first; parked; parked = parked->next) {
        if (!may_take(requests, parked)) continue;
        parked->taken = parked->request.open->taken = true;
        return parked;
    }
    return NULL;
}

int nm_door_next(struct nm_door *door, struct nm_request **out,
                 struct nm_turned_away *turned_away) {
    struct nm_requests *requests = &door->requests;
    struct nm_parked *parked = NULL;
    pthread_mutex_lock(&requests->lock);
    while (!requests->stopping && !requests->num_turned_away && !(parked = take(requests)))
        pthread_cond_wait(&requests->new_request, &requests->lock);
    int result = requests->stopping ? -ESHUTDOWN : parked ? 1 : 0;
    if (result == 0) *turned_away = requests->turned_away[--requests->num_turned_away];
    pthread_mutex_unlock(&requests->lock);
    if (parked) *out = &parked->request;
    return result;
}

bool nm_door_abandoned(struct nm_door *door, struct nm_request *request) {
    pthread_mutex_lock(&door->requests.lock);
    bool abandoned = ((struct nm_parked *)request)->answered || door->requests.stopping;
    pthread_mutex_unlock(&door->requests.lock);
    return abandoned;
}

/* The thread id of a caller that has its answer may be another program's by now. While the answer
 * is due the kernel keeps the caller, even a killed one. */
int nm_request_read(struct nm_door *door, struct nm_request *request, uint64_t address,
                    void *buffer, size_t size) {
    if (nm_door_abandoned(door, request)) return -EINTR;
    return nm_client_read(request->pid, address, buffer, size);
}

int nm_request_write(struct nm_door *door, struct nm_request *request, uint64_t address,
                     const void *buffer, size_t size) {
    if (nm_door_abandoned(door, request)) return -EINTR;
    return nm_client_write(request->pid, address, buffer, size);
}

bool nm_door_commit(struct nm_door *door, struct nm_request *request) {
    struct nm_parked *parked = (struct nm_parked *)request;
    pthread_mutex_lock(&door->requests.lock);
    parked->committed = !parked->answered && !door->requests.stopping;
    pthread_mutex_unlock(&door->requests.lock);
    return parked->committed;
}

void nm_door_reply(struct nm_door *door, struct nm_request *request, int error) {
    struct nm_requests *requests = &door->requests;
    struct nm_parked *parked = (struct nm_parked *)request;
    pthread_mutex_lock(&requests->lock);
    struct nm_ticket ticket = parked->ticket;
    bool wanted = !parked->answered && !requests->stopping;
    request->open->taken = false;
    forget(requests, parked);
    /* The next request of this file, or of this user, may go now; or the file itself. */
    pthread_cond_signal(&requests->new_request);
    if (requests->first_release) pthread_cond_signal(&requests->new_release);
    pthread_mutex_unlock(&requests->lock);
    if (wanted) door->transport->reply(door, &ticket, error);
}

/* ---- releases ---------------------------------------------------------------------------------
 */

void nm_requests_release(struct nm_door *door, struct nm_open *open) {
    struct nm_requests *requests = &door->requests;
    WRITE_ONCE(open->perhaps_closing, true); /* not every last close has sent a FLUSH */
    pthread_mutex_lock(&requests->lock);
    struct nm_open **end = &requests->first_release;
    while (*end)
        end = &(*end)->next_release;
    *end = open;
    requests->releases_queued++;
    pthread_cond_signal(&requests->new_release);
    pthread_mutex_unlock(&requests->lock);
}

/* The oldest release, but for files of which control still has a request: one whose caller was
 * interrupted, answered and killed meanwhile. */
static struct nm_open *take_release(struct nm_requests *requests) {
    struct nm_open **link = &requests->first_release;
    while (*link && (*link)->parked)
        link = &(*link)->next_release;
    struct nm_open *open = *link;
    if (open) {
        *link = open->next_release;
        requests->releases_queued--;
    }
    return open;
}

int nm_door_next_release(struct nm_door *door, struct nm_open **out) {
    struct nm_requests *requests = &door->requests;
    struct nm_open *open = NULL;
    pthread_mutex_lock(&requests->lock);
    while (!requests->stopping && !(open = take_release(requests)))
        pthread_cond_wait(&requests->new_release, &requests->lock);
    pthread_mutex_unlock(&requests->lock);
    if (!open) return -ESHUTDOWN;
    *out = open;
    return 1;
}

uint32_t nm_door_releases_queued(struct nm_door *door) {
    pthread_mutex_lock(&door->requests.lock);
    uint32_t queued = door->requests.releases_queued;
    pthread_mutex_unlock(&door->requests.lock);
    return queued;
}

/* ---- interrupts -------------------------------------------------------------------------------
 */

/* Sets a request's deadline; false if it is not here. */
static bool interrupt(struct nm_requests *requests, uint64_t unique) {
    struct nm_parked *parked = requests->first;
    while (parked && parked->ticket.unique != unique)
        parked = parked->next;
    if (!parked) return false;
    if (!parked->deadline) {
        parked->deadline = now_ns() + INTERRUPT_GRACE_NS;
        pthread_cond_signal(&requests->new_deadline);
    }
    return true;
}

void nm_requests_interrupt(struct nm_door *door, uint64_t unique) {
    struct nm_requests *requests = &door->requests;
    pthread_mutex_lock(&requests->lock);
    /* It came by another way than the request and may have been faster. */
    if (!interrupt(requests, unique))
        requests->early_interrupts[requests->next_early++ % NM_INTERRUPTS_REMEMBERED] = unique;
    pthread_mutex_unlock(&requests->lock);
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
static void look_for_signals(struct nm_requests *requests) {
    struct {
        uint64_t unique;
        uint32_t tid;
    } waiting[NM_PARKED_MOST];
    int n = 0;
    for (const struct nm_parked *p = requests->first; p; p = p->next) {
        if (p->deadline || p->committed) continue;
        waiting[n].unique = p->ticket.unique;
        waiting[n++].tid = p->request.pid;
    }
    pthread_mutex_unlock(&requests->lock);
    for (int i = 0; i < n; i++)
        if (!signalled(waiting[i].tid)) waiting[i].unique = 0;
    pthread_mutex_lock(&requests->lock);
    for (int i = 0; i < n; i++)
        if (waiting[i].unique) interrupt(requests, waiting[i].unique);
}

/* Answers one request whose time is over, if there is one; else says when the next is. */
static bool reap_one(struct nm_requests *requests, struct nm_ticket *ticket, uint64_t *next) {
    uint64_t now = now_ns();
    *next = UINT64_MAX;
    for (struct nm_parked *parked = requests->first; parked; parked = parked->next) {
        if (!parked->deadline || parked->answered || parked->committed) continue;
        if (parked->deadline > now) {
            if (parked->deadline < *next) *next = parked->deadline;
            continue;
        }
        *ticket = parked->ticket;
        if (parked->taken)
            parked->answered = true; /* control learns it when it replies */
        else
            forget(requests, parked);
        return true;
    }
    return false;
}

static void *reap(void *arg) {
    struct nm_door *door = arg;
    struct nm_requests *requests = &door->requests;
    uint64_t look = now_ns() + LOOK_NS;
    pthread_mutex_lock(&requests->lock);
    while (!requests->stopping) {
        struct nm_ticket ticket;
        uint64_t next;
        if (door->transport->loses_interrupts && now_ns() >= look) {
            look_for_signals(requests);
            look = now_ns() + LOOK_NS;
            continue;
        }
        if (reap_one(requests, &ticket, &next)) {
            pthread_mutex_unlock(&requests->lock);
            door->transport->reply(door, &ticket, -EINTR);
            pthread_mutex_lock(&requests->lock);
            continue;
        }
        if (door->transport->loses_interrupts && requests->first && look < next) next = look;
        if (next == UINT64_MAX) {
            pthread_cond_wait(&requests->new_deadline, &requests->lock);
        } else {
            struct timespec at = at_ns(next);
            pthread_cond_timedwait(&requests->new_deadline, &requests->lock, &at);
        }
    }
    pthread_mutex_unlock(&requests->lock);
    return NULL;
}

/* ---- life -------------------------------------------------------------------------------------
 */

int nm_requests_start(struct nm_door *door) {
    int error = pthread_create(&door->requests.reaper, NULL, reap, door);
    door->requests.started = !error;
    return -error;
}

void nm_requests_shut(struct nm_door *door) {
    struct nm_requests *requests = &door->requests;
    pthread_mutex_lock(&requests->lock);
    requests->stopping = true;
    pthread_cond_broadcast(&requests->new_request);
    pthread_cond_broadcast(&requests->new_release);
    pthread_cond_broadcast(&requests->new_deadline);
    pthread_mutex_unlock(&requests->lock);
}

void nm_requests_stop(struct nm_door *door) {
    nm_requests_shut(door);
    if (door->requests.started) pthread_join(door->requests.reaper, NULL);
    door->requests.started = false;
}

void nm_requests_destroy(struct nm_door *door) {
    struct nm_requests *requests = &door->requests;
    while (requests->first)
        forget(requests, requests->first);
    pthread_cond_destroy(&requests->new_request);
    pthread_cond_destroy(&requests->new_release);
    pthread_cond_destroy(&requests->new_deadline);
    pthread_mutex_destroy(&requests->lock);
}
