/* SPDX-License-Identifier: BSD-2-Clause */
/* A port of another kind on a switch: the daemon itself has it open, forwards what its RX rings
 * receive and sends what the switch puts into its TX rings. Head and cur of these rings are kept in
 * the daemon; those in shared memory are never looked at. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "barrier.h"
#include "ports/switch.h"

#define POLLERS_MOST 64
#define ROUNDS 16     /* at one ring before the next has its turn */
#define IDLE_NS 50000 /* a polling thread that found nothing looks again after this */

/* The hardware rings, or the host rings, as one port of the switch. */
struct end {
    struct nm_place place; /* first: ops get it */
    struct nm_attachment *attachment;
    uint32_t first[NM_DIRS], count[NM_DIRS]; /* of below's rings */
};

enum { HARDWARE, HOST, ENDS };

struct poller {
    struct nm_attachment *attachment;
    pthread_t thread;
    uint32_t first; /* of the RX rings it looks after; then every stride-th */
    int cpu;        /* -1: any, and it sleeps while there is nothing to do */
};

struct nm_attachment {
    struct nm_file file; /* first: wake gets it */
    struct nm_port *below;
    struct end ends[ENDS];
    struct nm_forward **forward; /* by RX ring */
    uint32_t *forwarded;         /* by RX ring: the slots up to here may be given back */
    uint32_t *limit;             /* by TX ring: the slots from `filled` to here are the switch's */
    pthread_mutex_t lock;        /* guards what follows */
    pthread_cond_t work;
    bool woken, stop;
    struct poller pollers[POLLERS_MOST];
    uint32_t num_pollers;
};

/* ---- towards the port -------------------------------------------------------------------------
 */

static void wake(struct nm_file *file) {
    struct nm_attachment *attachment = (struct nm_attachment *)file;
    pthread_mutex_lock(&attachment->lock);
    attachment->woken = true;
    pthread_cond_signal(&attachment->work);
    pthread_mutex_unlock(&attachment->lock);
}

/* Sends what has been filled; the ring's lock is held. True if all of it has gone. */
static bool send_filled(struct nm_attachment *attachment, struct nm_kring *kring) {
    uint32_t filled = load_acquire(&kring->filled);
    nm_kring_advance(kring, filled, filled, NM_NOBODY);
    store_release(&attachment->limit[kring->index], kring->hwtail);
    return kring->hwcur == filled;
}

static bool begin(struct nm_place *place, uint32_t ring, struct nm_outlet *outlet) {
    struct end *end = (struct end *)place;
    struct nm_kring *kring = &end->attachment->below->krings[NM_TX][end->first[NM_TX] + ring];
    pthread_mutex_lock(&kring->fill_lock);
    uint32_t limit = load_acquire(&end->attachment->limit[kring->index]);
    *outlet = (struct nm_outlet){.kring = kring,
                                 .next = kring->filled,
                                 .room = nm_kring_distance(kring, kring->filled, limit)};
    return true;
}

static void end_filling(struct nm_place *place, struct nm_outlet *outlet, bool some) {
    struct nm_attachment *attachment = ((struct end *)place)->attachment;
    struct nm_kring *kring = outlet->kring;
    store_release(&kring->filled, outlet->next);
    pthread_mutex_unlock(&kring->fill_lock);
    if (!some) return;
    /* At once where that leads nowhere else; what leads into another switch, and back perhaps, is
     * left to our own thread, as is what the device does not take now. */
    bool sent = false;
    if (attachment->below->ops->leaf && nm_kring_try_lock(kring)) {
        sent = send_filled(attachment, kring);
        nm_kring_unlock(kring);
    }
    if (!sent) wake(&attachment->file);
}

static const struct nm_place_ops place_ops = {.begin = begin, .end = end_filling};

/* ---- from the port ----------------------------------------------------------------------------
 */

static struct end *end_of(struct nm_attachment *attachment, const struct nm_kring *kring) {
    return &attachment->ends[kring->host ? HOST : HARDWARE];
}

/* Forwards what an RX ring has; true if it had anything. */
static bool receive(struct nm_attachment *attachment, struct nm_kring *kring) {
    uint32_t *done = &attachment->forwarded[kring->index];
    bool some = false;
    nm_kring_lock(kring);
    for (int round = 0; round < ROUNDS; round++) {
        if (nm_kring_advance(kring, *done, *done, NM_NOBODY)) break;
        uint32_t to = kring->hwtail;
        if (*done == to) break;
        nm_switch_forward(&end_of(attachment, kring)->place, attachment->forward[kring->index],
                          kring, done, to);
        some = true;
    }
    nm_kring_unlock(kring);
    return some;
}

static void send_pending(struct nm_attachment *attachment, struct nm_kring *kring) {
    nm_topology_hold(); /* first, as everywhere: the sync may lead into a switch */
    nm_kring_lock(kring);
    /* Also for what was taken earlier and comes back only now: it is room again. */
    uint32_t filled = load_acquire(&kring->filled);
    bool all_back = attachment->limit[kring->index] == nm_kring_prev(kring, filled);
    if (kring->hwcur != filled || !all_back) send_filled(attachment, kring);
    nm_kring_unlock(kring);
    nm_topology_release();
}

/* One look at some of the RX rings, and all TX rings; true if anything was received. */
static bool look(struct nm_attachment *attachment, uint32_t first, uint32_t stride) {
    struct nm_port *below = attachment->below;
    const struct nm_file *file = &attachment->file;
    bool some = false;
    if (READ_ONCE(below->gone)) return false;
    for (uint32_t i = file->first[NM_TX]; i < file->last[NM_TX]; i++)
        send_pending(attachment, &below->krings[NM_TX][i]);
    for (uint32_t i = file->first[NM_RX] + first; i < file->last[NM_RX]; i += stride)
        some |= receive(attachment, &below->krings[NM_RX][i]);
    return some;
}

static void sleep_until_woken(struct nm_attachment *attachment) {
    pthread_mutex_lock(&attachment->lock);
    while (!attachment->woken && !attachment->stop)
        pthread_cond_wait(&attachment->work, &attachment->lock);
    attachment->woken = false;
    pthread_mutex_unlock(&attachment->lock);
}

static void *run(void *arg) {
    struct poller *poller = arg;
    struct nm_attachment *attachment = poller->attachment;
    if (poller->cpu >= 0) {
        cpu_set_t cpu;
        CPU_ZERO(&cpu);
        CPU_SET((uint32_t)poller->cpu, &cpu);
        pthread_setaffinity_np(pthread_self(), sizeof(cpu), &cpu);
    }
    while (!READ_ONCE(attachment->stop)) {
        if (look(attachment, poller->first, attachment->num_pollers)) continue;
        if (poller->cpu >= 0) {
            nanosleep(&(struct timespec){.tv_nsec = IDLE_NS}, NULL);
            continue;
        }
        nm_file_arm(&attachment->file);
        if (!look(attachment, poller->first, attachment->num_pollers))
            sleep_until_woken(attachment);
    }
    return NULL;
}

/* ---- threads ----------------------------------------------------------------------------------
 */

static void stop_threads(struct nm_attachment *attachment) {
    pthread_mutex_lock(&attachment->lock);
    WRITE_ONCE(attachment->stop, true);
    pthread_cond_broadcast(&attachment->work);
    pthread_mutex_unlock(&attachment->lock);
    for (uint32_t i = 0; i < attachment->num_pollers; i++)
        pthread_join(attachment->pollers[i].thread, NULL);
    attachment->num_pollers = 0;
    attachment->stop = false;
}

static int start_threads(struct nm_attachment *attachment, uint32_t count, int cpu) {
    attachment->num_pollers = count;
    for (uint32_t i = 0; i < count; i++) {
        struct poller *poller = &attachment->pollers[i];
        *poller = (struct poller){
            .attachment = attachment, .first = i, .cpu = cpu < 0 ? -1 : cpu + (int)i};
        int error = pthread_create(&poller->thread, NULL, run, poller);
        if (!error) continue;
        attachment->num_pollers = i;
        stop_threads(attachment);
        return -error;
    }
    return 0;
}

int nm_attachment_poll(struct nm_attachment *attachment, uint32_t first, uint32_t cpus,
                       struct nm_refusal *why) {
    if (cpus > POLLERS_MOST)
        return nm_refuse(why, EINVAL, "%u threads asked for, %d are the most", cpus, POLLERS_MOST);
    stop_threads(attachment);
    int error = cpus ? start_threads(attachment, cpus, (int)first) : 0;
    if (!cpus || error) start_threads(attachment, 1, -1);
    return error ? nm_refuse(why, -error, "starting the polling threads: %s", strerror(-error)) : 0;
}

/* ---- life -------------------------------------------------------------------------------------
 */

static int plug(struct nm_attachment *attachment, struct nm_switch *sw, struct nm_refusal *why) {
    int result = 0;
    nm_topology_change();
    for (int e = 0; e < ENDS && result >= 0; e++) {
        struct end *end = &attachment->ends[e];
        if (end->count[NM_RX] || end->count[NM_TX]) result = nm_switch_plug(sw, &end->place);
    }
    if (result < 0)
        for (int e = 0; e < ENDS; e++)
            nm_switch_unplug(&attachment->ends[e].place);
    nm_topology_changed();
    if (result >= 0) return 0;
    return nm_refuse(why, -result, "the switch has %d ports, no more fit", NM_SWITCH_PORTS);
}

static int allocate(struct nm_attachment *attachment) {
    struct nm_port *below = attachment->below;
    struct nm_file *file = &attachment->file;
    uint32_t rx = nm_port_total_rings(below, NM_RX), tx = nm_port_total_rings(below, NM_TX);
    attachment->forward = calloc(rx + 1, sizeof(struct nm_forward *));
    attachment->forwarded = calloc(rx + 1, sizeof(uint32_t));
    attachment->limit = calloc(tx + 1, sizeof(uint32_t));
    if (!attachment->forward || !attachment->forwarded || !attachment->limit) return -ENOMEM;
    for (uint32_t i = file->first[NM_RX]; i < file->last[NM_RX]; i++) {
        attachment->forwarded[i] = below->krings[NM_RX][i].hwcur;
        if (!(attachment->forward[i] = nm_forward_create())) return -ENOMEM;
    }
    for (uint32_t i = file->first[NM_TX]; i < file->last[NM_TX]; i++)
        attachment->limit[i] = below->krings[NM_TX][i].hwtail;
    for (int e = 0; e < ENDS; e++) {
        struct end *end = &attachment->ends[e];
        *end = (struct end){.attachment = attachment, .place.ops = &place_ops};
        for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
            uint32_t hardware = below->num_rings[dir], most = e == HOST ? UINT32_MAX : hardware;
            uint32_t from = e == HOST ? hardware : 0;
            end->first[dir] = from > file->first[dir] ? from : file->first[dir];
            uint32_t last = most < file->last[dir] ? most : file->last[dir];
            end->count[dir] = last > end->first[dir] ? last - end->first[dir] : 0;
        }
        end->place.rings = end->count[NM_TX];
    }
    return 0;
}

static void discard(struct nm_attachment *attachment) {
    struct nm_port *below = attachment->below;
    uint32_t rx = nm_port_total_rings(below, NM_RX);
    for (uint32_t i = 0; attachment->forward && i < rx; i++)
        nm_forward_destroy(attachment->forward[i]);
    below->attached = false;
    nm_file_unregister(&attachment->file);
    free(attachment->forward);
    free(attachment->forwarded);
    free(attachment->limit);
    pthread_cond_destroy(&attachment->work);
    pthread_mutex_destroy(&attachment->lock);
    free(attachment);
}

int nm_attachment_create(struct nm_port *below, struct nm_switch *sw,
                         struct nmreq_register *request, struct nm_attachment **out,
                         struct nm_refusal *why) {
    if (below->files) return nm_refuse(why, EBUSY, "%s has %u user(s)", below->name, below->files);
    struct nm_attachment *attachment = calloc(1, sizeof(*attachment));
    if (!attachment) return nm_refuse(why, ENOMEM, "out of memory");
    attachment->below = below;
    attachment->file.wake = wake;
    pthread_mutex_init(&attachment->lock, NULL);
    pthread_cond_init(&attachment->work, NULL);
    int error = nm_file_register(&attachment->file, below, request, why);
    if (error) {
        discard(attachment);
        return error;
    }
    below->attached = true;
    if (allocate(attachment)) {
        error = nm_refuse(why, ENOMEM, "out of memory");
    } else {
        error = plug(attachment, sw, why);
        if (!error) {
            error = start_threads(attachment, 1, -1);
            if (error) nm_refuse(why, -error, "starting a thread: %s", strerror(-error));
        }
    }
    if (error) {
        nm_attachment_destroy(attachment);
        return error;
    }
    *out = attachment;
    return 0;
}

void nm_attachment_destroy(struct nm_attachment *attachment) {
    nm_topology_change();
    for (int e = 0; e < ENDS; e++)
        nm_switch_unplug(&attachment->ends[e].place);
    nm_topology_changed();
    stop_threads(attachment);
    discard(attachment);
}

int nm_attachment_place(const struct nm_attachment *attachment, bool host) {
    const struct nm_place *place = &attachment->ends[host ? HOST : HARDWARE].place;
    return place->sw ? (int)place->index : -1;
}
