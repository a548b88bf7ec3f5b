/* SPDX-License-Identifier: BSD-2-Clause */
/* A wire whose two ends are the same: what a queue is given it gives back. */
#include <cuse_netmap/backend.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define LONGEST 9216 /* bytes of a packet */

struct packet {
    uint32_t len;
    char data[LONGEST];
};

struct queue {
    pthread_mutex_t lock;
    int event; /* readable while packets wait */
    uint32_t limit, first, count;
    struct packet packets[];
};

void *loopback_queue(unsigned limit) {
    struct queue *queue = calloc(1, sizeof(*queue) + limit * sizeof(queue->packets[0]));
    if (!queue) return NULL;
    pthread_mutex_init(&queue->lock, NULL);
    queue->limit = limit;
    queue->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->event >= 0) return queue;
    free(queue);
    return NULL;
}

/* Copies a packet to the end of the queue; frames it has. */
static uint32_t take(struct queue *queue, const struct nm_frame *frames,
                     struct nm_ring_stats *stats) {
    struct packet *packet = &queue->packets[(queue->first + queue->count) % queue->limit];
    uint32_t n = 0, len = 0;
    do {
        if (queue->count < queue->limit && len + frames[n].len <= LONGEST)
            memcpy(packet->data + len, frames[n].data, frames[n].len);
        len += frames[n].len;
    } while (frames[n++].more);
    if (len > LONGEST) {
        stats->drops[NM_DROP_LONG]++;
    } else if (queue->count == queue->limit) {
        stats->drops[NM_DROP_FULL]++;
    } else {
        packet->len = len;
        if (!queue->count++) eventfd_write(queue->event, 1);
        stats->packets++;
        stats->bytes += len;
    }
    return n;
}

static int loopback_tx(void *arg, const struct nm_frame *frames, uint32_t count,
                       struct nm_ring_stats *stats) {
    struct queue *queue = arg;
    uint32_t done = 0;
    pthread_mutex_lock(&queue->lock);
    while (done < count)
        done += take(queue, frames + done, stats);
    pthread_mutex_unlock(&queue->lock);
    return (int)done;
}

/* Copies the first packet into at most `most` frames; how many it took, 0: it does not fit. */
static uint32_t give(const struct packet *packet, struct nm_frame *frames, uint32_t most) {
    uint32_t n = 0, done = 0;
    while (done < packet->len) {
        if (n == most) return 0;
        uint32_t left = packet->len - done;
        uint16_t size = left < frames[n].len ? (uint16_t)left : frames[n].len;
        memcpy(frames[n].data, packet->data + done, size);
        done += size;
        frames[n].len = size;
        frames[n++].more = done < packet->len;
    }
    return n;
}

static int loopback_rx(void *arg, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
                       struct nm_ring_stats *stats) {
    struct queue *queue = arg;
    uint32_t done = 0;
    pthread_mutex_lock(&queue->lock);
    while (queue->count && count - done >= per_packet) {
        const struct packet *packet = &queue->packets[queue->first];
        uint32_t used = give(packet, frames + done, per_packet);
        if (used) {
            stats->packets++;
            stats->bytes += packet->len;
        } else {
            stats->drops[NM_DROP_LONG]++;
        }
        done += used;
        queue->first = (queue->first + 1) % queue->limit;
        eventfd_t event;
        if (!--queue->count) eventfd_read(queue->event, &event);
    }
    pthread_mutex_unlock(&queue->lock);
    return (int)done;
}

static int loopback_event_fd(void *arg) { return ((struct queue *)arg)->event; }

/* What was sent before anybody listened is not received. */
static int loopback_start(void *arg, struct nm_ring_stats *stats) {
    struct queue *queue = arg;
    pthread_mutex_lock(&queue->lock);
    stats->drops[NM_DROP_STALE] += queue->count;
    eventfd_t event;
    if (queue->count) eventfd_read(queue->event, &event);
    queue->count = 0;
    pthread_mutex_unlock(&queue->lock);
    return 0;
}

static void loopback_stop(void *arg) { (void)arg; }

static void loopback_close(void *arg) {
    struct queue *queue = arg;
    close(queue->event);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

static const struct nm_backend_ops operations = {.abi = NM_BACKEND_ABI,
                                                 .name = "loopback",
                                                 .tx = loopback_tx,
                                                 .rx = loopback_rx,
                                                 .event_fd = loopback_event_fd,
                                                 .start = loopback_start,
                                                 .stop = loopback_stop,
                                                 .close = loopback_close};

static struct nm_backend_ops old;

/* stale: as if it had been compiled with another backend.h. */
const void *loopback_backend(int stale) {
    if (!stale) return &operations;
    old = operations;
    old.abi--;
    return &old;
}
