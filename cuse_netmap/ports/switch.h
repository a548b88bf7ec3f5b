/* SPDX-License-Identifier: BSD-2-Clause */
/* A switch as its ports see it: the places on it, and how packets get from one to the others. */
#ifndef CUSE_NETMAP_SWITCH_H
#define CUSE_NETMAP_SWITCH_H

#include "ports/ports.h"

/* One ring of a place, open to be filled: slots [next, next + room) of it are the filler's. */
struct nm_outlet {
    struct nm_kring *kring;
    uint32_t next, room;
};

struct nm_place;
struct nm_place_ops {
    /* Opens a ring, which no other filler has until end; false if nobody receives there. */
    bool (*begin)(struct nm_place *place, uint32_t ring, struct nm_outlet *outlet);
    /* The slots before outlet->next are filled; `some`: there are new ones. */
    void (*end)(struct nm_place *place, struct nm_outlet *outlet, bool some);
};

/* What is plugged into a switch. Its owner fills in ops, rings and header. */
struct nm_place {
    const struct nm_place_ops *ops;
    uint32_t rings;       /* that receive; 0: none does */
    uint32_t header;      /* bytes of the virtio-net header before each packet */
    struct nm_switch *sw; /* NULL: on none */
    uint32_t index;
    uint64_t last_learned; /* the address that was learned from it last */
};

/* What is on which switch changes only while no packet is on its way: forwarding holds the topology
 * still, changing it waits for that. A thread may hold it more than once. Whoever holds it may take
 * locks of rings; nobody may wait for it with one of an outlet's held. */
void nm_topology_hold(void);
void nm_topology_release(void);
void nm_topology_change(void);
void nm_topology_changed(void);

/* With the topology to change: plugs a place in, at the index returned, or -ENOMEM; and out. */
int nm_switch_plug(struct nm_switch *sw, struct nm_place *place);
void nm_switch_unplug(struct nm_place *place);

/* What one forwarding ring works with; one thread at a time. */
struct nm_forward;
struct nm_forward *nm_forward_create(void); /* NULL: no memory */
void nm_forward_destroy(struct nm_forward *forward);

/* Forwards the packets in slots [*from, to) of a ring of the source; *from moves over what has been
 * dealt with, which is all of it unless NM_NEEDS_CALLER is answered. Without a switch they vanish.
 */
int nm_switch_forward(struct nm_place *source, struct nm_forward *forward, struct nm_kring *kring,
                      uint32_t *from, uint32_t to);

#endif
