/* SPDX-License-Identifier: BSD-2-Clause */
/* A poll that finds nothing waits a moment before its program is put to sleep, where that has paid
 * off: being woken on another CPU takes longer than what many programs sleep for. How long, is
 * learned for each open file. What is polled, and who wakes, is door.c's. */
#ifndef CUSE_NETMAP_SPIN_H
#define CUSE_NETMAP_SPIN_H

#include <stdbool.h>
#include <stdint.h>

struct nm_spin {
    uint32_t poller;   /* the one thread that has polled the file so far; 0: none, or SEVERAL */
    uint32_t state;    /* of enum spin_state, in spin.c */
    uint32_t refrain;  /* short sleeps that teach nothing */
    uint64_t budget;   /* ns that the next wait may take; 0: none is worth it */
    uint64_t slept_at; /* ns, CLOCK_MONOTONIC; 0: the last poll found something */
};

/* Whether that thread is the only one that has ever polled the file. Nothing else here is for a
 * file that several poll: a wake that one catches may be what another sleeps for. */
bool nm_spin_alone(struct nm_spin *spin, uint32_t tid);
/* Before a poll looks: whether it will wait. From then on the file's wake function must ask
 * nm_spin_caught. */
bool nm_spin_begin(struct nm_spin *spin);
/* After the look, and whether it found something: what the last sleep teaches. */
void nm_spin_learn(struct nm_spin *spin, bool found);
/* Waits for a wake, while nothing else waits for this thread. True: look again. */
bool nm_spin_wait(struct nm_spin *spin, bool (*idle)(void *queue), void *queue);
/* Instead of nm_spin_wait, for a look that found something. True: a wake was caught since. */
bool nm_spin_end(struct nm_spin *spin);
/* The program is about to sleep. */
void nm_spin_sleeps(struct nm_spin *spin);
/* Somebody wakes the file, from any thread: true if a waiting poll has got it. */
bool nm_spin_caught(struct nm_spin *spin);

#endif
