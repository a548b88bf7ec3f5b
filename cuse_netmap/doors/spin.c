/* SPDX-License-Identifier: BSD-2-Clause */
/* How long a poll waits before its program sleeps: as KVM's halt polling does, the wait grows while
 * sleeps turn out short and shrinks when they turn out long, to nothing for programs that sleep
 * long.
 */
#include "doors/spin.h"

#include <sched.h>

#include "barrier.h"
#include "doors/door_internal.h"

#define SEVERAL UINT32_MAX
#define FIRST_NS 10000  /* where a wait starts; short sleeps double it */
#define MOST_NS 80000   /* a longer wait costs more than being woken does */
#define REFRAIN 32      /* short sleeps after a wait that could not help */
#define SHORT_NS 150000 /* a sleep that waiting could have spared, the wake-up included */

enum spin_state { QUIET, WAITING, CAUGHT };

static bool change(struct nm_spin *spin, uint32_t from, uint32_t to) {
    return __atomic_compare_exchange_n(&spin->state, &from, to, false, __ATOMIC_SEQ_CST,
                                       __ATOMIC_RELAXED);
}

bool nm_spin_caught(struct nm_spin *spin) { return change(spin, WAITING, CAUGHT); }

bool nm_spin_alone(struct nm_spin *spin, uint32_t tid) {
    if (!tid) return false; /* of another PID namespace: anybody */
    uint32_t known = __atomic_load_n(&spin->poller, __ATOMIC_SEQ_CST);
    if (known == tid) return true;
    if (!known && __atomic_compare_exchange_n(&spin->poller, &known, tid, false, __ATOMIC_SEQ_CST,
                                              __ATOMIC_SEQ_CST))
        return true;
    __atomic_store_n(&spin->poller, SEVERAL, __ATOMIC_SEQ_CST);
    nm_spin_caught(spin); /* one that waits looks again, and then lets everybody be woken */
    return false;
}

bool nm_spin_begin(struct nm_spin *spin) { return spin->budget && change(spin, QUIET, WAITING); }

static void grow(struct nm_spin *spin) {
    uint64_t more = spin->budget ? spin->budget * 2 : FIRST_NS;
    spin->budget = more < MOST_NS ? more : MOST_NS;
}

static void shrink(struct nm_spin *spin) {
    spin->budget = spin->budget / 4 < FIRST_NS ? 0 : spin->budget / 4;
}

/* However short sleeps are, waiting is of no use for a while. */
static void refrain(struct nm_spin *spin) {
    spin->budget = 0;
    spin->refrain = REFRAIN;
}

void nm_spin_learn(struct nm_spin *spin, bool found) {
    if (!spin->slept_at) return;
    bool was_short = found && nm_now_ns() - spin->slept_at < SHORT_NS;
    spin->slept_at = 0;
    if (!was_short)
        shrink(spin);
    else if (spin->refrain)
        spin->refrain--;
    else
        grow(spin);
}

bool nm_spin_end(struct nm_spin *spin) {
    return __atomic_exchange_n(&spin->state, QUIET, __ATOMIC_SEQ_CST) == CAUGHT;
}

bool nm_spin_wait(struct nm_spin *spin, bool (*idle)(void *queue), void *queue) {
    uint64_t until = nm_now_ns() + spin->budget;
    bool alone = true, early = true;
    while (READ_ONCE(spin->state) == WAITING && (alone = idle(queue)) &&
           (early = nm_now_ns() < until))
        sched_yield(); /* whoever is to wake us may have no other CPU */
    if (nm_spin_end(spin)) return true;
    /* Whoever would have waked us needs this CPU for it, or longer than waiting is worth. Else the
     * sleep to come tells. */
    if (!alone || (!early && spin->budget == MOST_NS)) refrain(spin);
    return false;
}

void nm_spin_sleeps(struct nm_spin *spin) { spin->slept_at = nm_now_ns(); }
