/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sink: receives and counts frames on all RX rings of a port, and finds gaps in what gen sent; how
 * a frame of gen looks is in frame.c.
 */
#include "frame.h"
#include "programs.h"

#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>

static uint64_t count;
static double timeout;

static const struct option_entry options[] = {
    {'n', "count", "COUNT", read_count, &count, "end after so many frames, 0 never (0)"},
    {'t', "timeout", "SECONDS", read_seconds, &timeout,
     "end after so long without a frame, 0 never (0); before COUNT: status 1"},
    {0},
};

/* Runs of gen that are told apart at the same time; frames of more are counted, but not looked at
 * for gaps. */
#define STREAMS_MAX 64

struct stream {
    uint32_t id;
    uint64_t lowest, highest; /* sequence numbers seen */
    uint64_t received;
    uint64_t reordered; /* arrived after a higher number */
};

struct sequences {
    struct stream streams[STREAMS_MAX];
    uint32_t used;
    uint32_t latest; /* most frames belong to the stream of the one before */
};

struct totals {
    struct traffic traffic;
    struct sequences sequences;
};

static struct stream *find_stream(struct sequences *sequences, uint32_t id, uint64_t sequence) {
    if (sequences->used > 0 && sequences->streams[sequences->latest].id == id)
        return &sequences->streams[sequences->latest];
    for (uint32_t i = 0; i < sequences->used; i++)
        if (sequences->streams[i].id == id) {
            sequences->latest = i;
            return &sequences->streams[i];
        }
    if (sequences->used == STREAMS_MAX) return NULL;
    sequences->latest = sequences->used++;
    sequences->streams[sequences->latest] =
        (struct stream){.id = id, .lowest = sequence, .highest = sequence};
    return &sequences->streams[sequences->latest];
}

static void note_frame(struct sequences *sequences, const uint8_t *bytes, size_t length) {
    struct stream *stream;
    uint64_t sequence;
    uint32_t id;
    if (!frame_read(bytes, length, &id, &sequence)) return;
    stream = find_stream(sequences, id, sequence);
    if (!stream) return;
    stream->received++;
    if (sequence < stream->highest) stream->reordered++;
    if (sequence < stream->lowest) stream->lowest = sequence;
    if (sequence > stream->highest) stream->highest = sequence;
}

/* Frames missing between the lowest and the highest number of each stream; duplicates can hide
 * some. */
static void sum_streams(const struct sequences *sequences, uint64_t *lost, uint64_t *reordered) {
    *lost = *reordered = 0;
    for (uint32_t i = 0; i < sequences->used; i++) {
        const struct stream *stream = &sequences->streams[i];
        uint64_t sent = stream->highest - stream->lowest + 1;
        *lost += sent > stream->received ? sent - stream->received : 0;
        *reordered += stream->reordered;
    }
}

/* Takes all frames that are there, but no more than asked for: the rest stays for whoever comes
 * next. */
static uint64_t receive(struct nm_desc *port, struct totals *totals, double now) {
    struct netmap_ring *ring;
    uint64_t packets = 0, bytes = 0;
    for (uint32_t i = port->first_rx_ring; (ring = rx_ring(port, &i)); i++) {
        uint32_t head = ring->head, tail = ring->tail;
        bool begins = true; /* a frame, and not the next slot of one */
        while (head != tail && (count == 0 || totals->traffic.packets + packets < count)) {
            const struct netmap_slot *slot = &ring->slot[head];
            if (begins)
                note_frame(&totals->sequences, (const uint8_t *)NETMAP_BUF(ring, slot->buf_idx),
                           slot->len);
            begins = !(slot->flags & NS_MOREFRAG);
            packets += begins;
            bytes += slot->len;
            head = nm_ring_next(ring, head);
        }
        ring->head = ring->cur = head;
    }
    traffic_add(&totals->traffic, packets, bytes, now);
    return packets;
}

static int run(struct nm_desc *port) {
    static struct totals totals;
    uint32_t first = port->first_rx_ring;
    double start = now_seconds(), now = start, quiet_since = start;
    uint64_t lost, reordered;
    bool well = true, timed_out = false;

    if (!rx_ring(port, &first)) {
        complain("no RX ring is open; leave out /T");
        return EXIT_USAGE;
    }
    while (!stop_requests() && (count == 0 || totals.traffic.packets < count)) {
        double until = timeout > 0 ? quiet_since + timeout : now + 1;
        if (!wait_for(port, POLLIN, until)) {
            well = false;
            break;
        }
        now = now_seconds();
        if (receive(port, &totals, now) > 0) quiet_since = now;
        traffic_report(&totals.traffic, now);
        timed_out = timeout > 0 && now - quiet_since >= timeout;
        if (timed_out) break;
    }
    /* Give the last slots back: on a pipe the sender waits for them. */
    if (well) ioctl(port->fd, NIOCRXSYNC);

    traffic_total(&totals.traffic, "received");
    sum_streams(&totals.sequences, &lost, &reordered);
    printf(", %llu lost, %llu reordered\n", (unsigned long long)lost,
           (unsigned long long)reordered);
    if (timed_out && count > 0) {
        complain("%llu of %llu frames came before the time was over; is the sender running?",
                 (unsigned long long)totals.traffic.packets, (unsigned long long)count);
        return EXIT_RUNTIME;
    }
    return well ? EXIT_OK : EXIT_RUNTIME;
}

const struct program sink_program = {
    .name = "sink",
    .summary = "receives and counts frames, looks for gaps in those of gen",
    .options = options,
    .run = run,
};
