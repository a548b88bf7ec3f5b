/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * CSB: the indices of the rings in the program's own memory, and how a program writes and reads
 * them; the option that hands them over is in <net/netmap.h>, which includes this.
 */
#ifndef _NET_NETMAP_CSB_H_
#define _NET_NETMAP_CSB_H_

#include <stdint.h>

/*
 * With it a sync loop and a program work without system calls. Two arrays, 64 bytes an entry,
 * aligned to 64: all bound TX rings, then all bound RX rings. Program to server:
 */
struct nm_csb_atok {
    uint32_t head;
    uint32_t cur;
    uint32_t appl_need_kick; /* not 0: signal irqfd when something changes */
    uint32_t sync_flags;
    uint32_t pad[12];
};

/* Server to program. */
struct nm_csb_ktoa {
    uint32_t hwcur;          /* first slot the server has not taken */
    uint32_t hwtail;         /* what tail would be */
    uint32_t kern_need_kick; /* not 0: write to ioeventfd after moving head */
    uint32_t pad[13];
};

/* Order of stores with stores, loads with loads, stores with later loads. */
#ifndef nm_stst_barrier
#define nm_stst_barrier() __atomic_thread_fence(__ATOMIC_RELEASE)
#define nm_ldld_barrier() __atomic_thread_fence(__ATOMIC_ACQUIRE)
#define nm_stld_barrier() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#endif

/* cur before head, which the server reads first: the cur it sees is then never older than head. */
static inline void nm_sync_kloop_appl_write(struct nm_csb_atok *atok, uint32_t cur, uint32_t head) {
    __atomic_store_n(&atok->cur, cur, __ATOMIC_RELAXED);
    __atomic_store_n(&atok->head, head, __ATOMIC_RELEASE);
}

/* hwtail first: acquiring it makes visible what the server put into the slots before it. */
static inline void nm_sync_kloop_appl_read(struct nm_csb_ktoa *ktoa, uint32_t *hwtail,
                                           uint32_t *hwcur) {
    *hwtail = __atomic_load_n(&ktoa->hwtail, __ATOMIC_ACQUIRE);
    *hwcur = __atomic_load_n(&ktoa->hwcur, __ATOMIC_RELAXED);
}

#endif
