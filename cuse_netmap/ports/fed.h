/* SPDX-License-Identifier: BSD-2-Clause */
/* RX rings that others fill (nm_kring.filled): the receiver's sync of them. */
#ifndef CUSE_NETMAP_FED_H
#define CUSE_NETMAP_FED_H

#include "barrier.h"
#include "ring_core.h"

/* Gives [hwcur, head) back to whoever fills, and shows what has been filled meanwhile. */
static inline void nm_fed_rxsync(struct nm_kring *kring, uint32_t head) {
    for (uint32_t k = kring->hwcur; k != head; k = nm_kring_next(kring, k)) {
        struct netmap_slot *slot = &kring->ring->slot[k];
        uint16_t flags = READ_ONCE(slot->flags);
        if (flags & NS_BUF_CHANGED) WRITE_ONCE(slot->flags, (uint16_t)(flags & ~NS_BUF_CHANGED));
    }
    store_release(&kring->hwcur, head);
    kring->hwtail = load_acquire(&kring->filled);
}

#endif
