/* SPDX-License-Identifier: BSD-2-Clause */
/* The null backend's data path: takes every frame at once and never has one. */
#include "backends/null.h"

#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct null_queue {
    int event; /* never readable */
};

void *nm_null_queue(void) {
    struct null_queue *null = malloc(sizeof(*null));
    if (!null) return NULL;
    null->event = eventfd(0, EFD_CLOEXEC);
    if (null->event >= 0) return null;
    free(null);
    return NULL;
}

static int null_tx(void *queue, const struct nm_frame *frames, uint32_t count,
                   struct nm_ring_stats *stats) {
    (void)queue;
    for (uint32_t i = 0; i < count; i++) {
        stats->packets += !frames[i].more;
        stats->bytes += frames[i].len;
    }
    return (int)count;
}

static int null_rx(void *queue, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
                   struct nm_ring_stats *stats) {
    (void)queue, (void)frames, (void)count, (void)per_packet, (void)stats;
    return 0;
}

static int null_event_fd(void *queue) { return ((struct null_queue *)queue)->event; }

static int null_start(void *queue, struct nm_ring_stats *stats) {
    (void)queue, (void)stats;
    return 0;
}

static void null_stop(void *queue) { (void)queue; }

static void null_close(void *queue) {
    close(((struct null_queue *)queue)->event);
    free(queue);
}

static const struct nm_backend_ops operations = {.abi = NM_BACKEND_ABI,
                                                 .name = "null",
                                                 .tx = null_tx,
                                                 .rx = null_rx,
                                                 .event_fd = null_event_fd,
                                                 .start = null_start,
                                                 .stop = null_stop,
                                                 .close = null_close};

const struct nm_backend_ops *nm_null_backend(void) { return &operations; }
