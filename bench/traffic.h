/* SPDX-License-Identifier: BSD-2-Clause */
/* What the programs that move 60-byte frames share: the frame, how a ring is filled and emptied,
 * and a run that SIGTERM ends. Where the rings come from is each program's own. */
#ifndef BENCH_TRAFFIC_H
#define BENCH_TRAFFIC_H

#include <net/netmap_user.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LENGTH 60
#define SEQUENCE 14 /* where in the frame its number is */

/* To the receiver's address or to everybody, from the sender's, of the type for experiments, which
 * no host's stack takes further. */
static const uint8_t to_receiver[6] = {2, 0, 0, 0, 0, 2},
                     to_all[6] = {255, 255, 255, 255, 255, 255};
static const uint8_t sender_address[6] = {2, 0, 0, 0, 0, 1};

static inline void make_frame(uint8_t frame[LENGTH], const uint8_t to[6], const uint8_t from[6]) {
    memset(frame, 0, LENGTH);
    memcpy(frame, to, 6);
    memcpy(frame + 6, from, 6);
    frame[12] = 0x88, frame[13] = 0xb5;
}

static inline void die(const char *doing) {
    perror(doing);
    exit(1);
}

static inline double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static volatile sig_atomic_t stopped;

static inline void stop(int signal) {
    (void)signal;
    stopped = 1;
}

static inline void run_until_stopped(void) {
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    puts("ready");
    fflush(stdout);
}

/* What has been sent or received. */
struct flow {
    uint64_t frames, sequence, lost;
    double first, last; /* when frames were seen; the first ones say nothing about the rate */
    uint64_t first_frames;
};

static inline void count(struct flow *flow, uint64_t frames) {
    if (!frames) return;
    flow->last = now();
    flow->frames += frames;
    if (flow->first_frames) return;
    flow->first = flow->last;
    flow->first_frames = frames;
}

static inline double rate(const struct flow *flow) {
    double seconds = flow->last - flow->first;
    return seconds > 0 ? (double)(flow->frames - flow->first_frames) / seconds : 0;
}

/* Frames, frames a second, and the numbers that are missing. */
static inline void print_flow(const struct flow *flow) {
    printf("%llu %.0f %llu\n", (unsigned long long)flow->frames, rate(flow),
           (unsigned long long)flow->lost);
}

/* Every buffer of a TX ring gets the frame. */
static inline void prepare(struct netmap_ring *ring, const uint8_t frame[LENGTH]) {
    for (uint32_t i = 0; i < ring->num_slots; i++)
        memcpy(NETMAP_BUF(ring, ring->slot[i].buf_idx), frame, LENGTH);
}

#ifndef NETMAP_OLD_API /* there were no heads and tails */

/* Fills at most a batch of slots; with a frame, writes it and its number into their buffers. */
static inline uint32_t fill(struct netmap_ring *ring, uint32_t batch, struct flow *flow,
                            const uint8_t *frame) {
    uint32_t slot = ring->head, room = nm_ring_space(ring);
    if (room > batch) room = batch;
    for (uint32_t i = 0; i < room; i++, slot = nm_ring_next(ring, slot)) {
        if (frame) {
            char *buffer = NETMAP_BUF(ring, ring->slot[slot].buf_idx);
            memcpy(buffer, frame, LENGTH);
            memcpy(buffer + SEQUENCE, &flow->sequence, sizeof(flow->sequence));
            flow->sequence++;
        }
        ring->slot[slot].len = LENGTH;
        ring->slot[slot].flags = 0;
    }
    ring->head = ring->cur = slot;
    return room;
}

/* Takes at most a batch of frames; with `look`, looks at their numbers. */
static inline uint32_t take(struct netmap_ring *ring, uint32_t batch, struct flow *flow,
                            bool look) {
    uint32_t slot = ring->head, there = nm_ring_space(ring);
    if (there > batch) there = batch;
    for (uint32_t i = 0; i < there; i++, slot = nm_ring_next(ring, slot)) {
        if (!look) continue;
        uint64_t sequence;
        memcpy(&sequence, NETMAP_BUF(ring, ring->slot[slot].buf_idx) + SEQUENCE, sizeof(sequence));
        flow->lost += sequence - flow->sequence;
        flow->sequence = sequence + 1;
    }
    ring->head = ring->cur = slot;
    return there;
}

#endif

#endif
