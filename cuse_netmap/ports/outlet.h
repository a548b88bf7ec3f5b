/* SPDX-License-Identifier: BSD-2-Clause */
/* How the slots of an outlet are filled, one after the other. What goes into them, and whether
 * there is room, is the caller's. */
#ifndef CUSE_NETMAP_OUTLET_H
#define CUSE_NETMAP_OUTLET_H

#include "barrier.h"
#include "ports/switch.h"

/* Where the data of the next slot belongs, and the bytes there are. */
static inline char *nm_outlet_data(const struct nm_outlet *outlet, uint32_t *room) {
    struct nm_kring *kring = outlet->kring;
    const struct nm_buffers *buffers = &kring->port->buffers;
    const struct netmap_slot *slot = &kring->ring->slot[outlet->next];
    char *buffer = nm_buffer(buffers, READ_ONCE(slot->buf_idx));
    if (buffer == buffers->base) kring->stats.bad_slots++;
    uint32_t offset = nm_slot_offset(kring, slot);
    *room = buffers->size - offset;
    return buffer + offset;
}

/* The next slot holds `len` bytes of a packet of `count` slots; `more`: it is not the last. */
static inline void nm_outlet_fill(struct nm_outlet *outlet, uint32_t len, uint32_t count,
                                  bool more) {
    struct nm_kring *kring = outlet->kring;
    struct netmap_slot *slot = &kring->ring->slot[outlet->next];
    WRITE_ONCE(slot->len, (uint16_t)len);
    WRITE_ONCE(slot->flags, (uint16_t)(count << 8 | (more ? NS_MOREFRAG : 0)));
    kring->stats.bytes += len;
    kring->stats.packets += !more;
    outlet->next = nm_kring_next(kring, outlet->next);
    outlet->room--;
}

#endif
