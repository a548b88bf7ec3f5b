/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory-ordering words of the engine: every access to memory that a client may change at the
 * same time goes through these; nothing else lives here. */
#ifndef CUSE_NETMAP_BARRIER_H
#define CUSE_NETMAP_BARRIER_H

/* A plain, single, untorn access: the compiler may neither repeat nor split it. */
#define READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELAXED)

/* What was written before a store_release is seen by whoever load_acquires its value. */
#define load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)

/* Orders a store before a later load of another location (arming a waiter, then looking again). */
#define full_barrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)

#endif
