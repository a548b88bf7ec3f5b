/* SPDX-License-Identifier: BSD-2-Clause */
/* The data path of a TAP device: a frame is one read or write, straight from or into the buffers.
 */
#include "backends/tap.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "netmap_abi.h"

#define ETHERNET_HEADER 14
#define FLUSH_MOST 65536 /* frames: more than any device queues; bounds a flush under a flood */

struct tap_queue {
    int fd;
};

void *nm_tap_queue(int fd) {
    struct tap_queue *tap = malloc(sizeof(*tap));
    if (tap) tap->fd = fd;
    return tap;
}

/* What a failed write means: 0 try later; -EIO the device is gone; else the packet is dropped for
 * the reason in *drop. */
static int write_failed(enum nm_drop *drop) {
    switch (errno) {
    case EAGAIN:
        return 0;
    case EBADFD: /* the interface was deleted */
        return -EIO;
    case EIO: /* the interface is down */
        *drop = NM_DROP_DOWN;
        return 1;
    default:
        *drop = NM_DROP_ERROR;
        return 1;
    }
}

static int tap_tx(void *queue, const struct nm_frame *frames, uint32_t count,
                  struct nm_ring_stats *stats) {
    struct tap_queue *tap = queue;
    uint32_t done = 0;
    while (done < count) {
        struct iovec parts[NETMAP_MAX_FRAGS];
        uint32_t n = 0;
        size_t length = 0;
        do {
            parts[n] = (struct iovec){frames[done + n].data, frames[done + n].len};
            length += frames[done + n].len;
        } while (frames[done + n++].more);
        enum nm_drop drop;
        if (length < ETHERNET_HEADER) {
            stats->drops[NM_DROP_SHORT]++;
        } else if ((n == 1 ? write(tap->fd, parts[0].iov_base, length)
                           : writev(tap->fd, parts, (int)n)) >= 0) {
            stats->packets++;
            stats->bytes += length;
        } else {
            int verdict = write_failed(&drop);
            if (verdict < 0) return verdict;
            if (verdict == 0) break;
            stats->drops[drop]++;
        }
        done += n;
    }
    return (int)done;
}

static int tap_rx(void *queue, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
                  struct nm_ring_stats *stats) {
    struct tap_queue *tap = queue;
    uint32_t done = 0, too_long = 0; /* a flood of which must not hold the sync for ever */
    while (count - done >= per_packet && too_long < count) {
        char surplus; /* a byte that arrives here shows that the frame was cut */
        struct iovec parts[NETMAP_MAX_FRAGS + 1];
        size_t room = 0;
        for (uint32_t i = 0; i < per_packet; i++) {
            parts[i] = (struct iovec){frames[done + i].data, frames[done + i].len};
            room += frames[done + i].len;
        }
        parts[per_packet] = (struct iovec){&surplus, 1};
        ssize_t length = readv(tap->fd, parts, (int)per_packet + 1);
        if (length < 0) {
            if (errno == EBADFD) return done ? (int)done : -EIO;
            break;
        }
        if ((size_t)length > room) {
            stats->drops[NM_DROP_LONG]++;
            too_long++;
            continue;
        }
        stats->packets++;
        stats->bytes += (uint64_t)length;
        for (uint32_t i = 0; length > 0; i++, done++) {
            struct nm_frame *frame = &frames[done];
            size_t part = parts[i].iov_len < (size_t)length ? parts[i].iov_len : (size_t)length;
            frame->len = (uint16_t)part;
            length -= (ssize_t)part;
            frame->more = length > 0;
        }
    }
    return (int)done;
}

static int tap_event_fd(void *queue) { return ((struct tap_queue *)queue)->fd; }

/* What the host sends while nobody listens is dropped by the device when its queue is full. */
static int tap_start(void *queue, struct nm_ring_stats *stats) {
    struct tap_queue *tap = queue;
    char byte;
    for (int i = 0; i < FLUSH_MOST && read(tap->fd, &byte, 1) >= 0; i++)
        stats->drops[NM_DROP_STALE]++;
    return 0;
}

static void tap_stop(void *queue) { (void)queue; }

static void tap_close(void *queue) {
    struct tap_queue *tap = queue;
    close(tap->fd);
    free(tap);
}

static const struct nm_backend_ops operations = {.abi = NM_BACKEND_ABI,
                                                 .name = "tap",
                                                 .tx = tap_tx,
                                                 .rx = tap_rx,
                                                 .event_fd = tap_event_fd,
                                                 .start = tap_start,
                                                 .stop = tap_stop,
                                                 .close = tap_close};

const struct nm_backend_ops *nm_tap_backend(void) { return &operations; }
