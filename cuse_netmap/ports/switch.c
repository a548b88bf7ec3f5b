/* SPDX-License-Identifier: BSD-2-Clause */
/* The VALE switch: learns where addresses are, and copies each packet to whom it concerns. Looked
 * up once for a batch and destination; each receiver is woken once. */
#include "ports/switch.h"

#include <stdlib.h>
#include <string.h>

#include "barrier.h"
#include "client_memory.h"
#include "ports/offload.h"
#include "ports/outlet.h"

#define BATCH_MOST 1024
#define ETHERNET_HEADER 14
#define LINE 64 /* bytes of a cache line, the unit of copying */
#define NONE UINT16_MAX

struct nm_switch {
    struct nm_place *places[NM_SWITCH_PORTS];
    /* The places in use, then the free ones, last freed first. */
    uint8_t order[NM_SWITCH_PORTS];
    uint32_t used;
    /* An address (48 bits) with the place it was seen at, plus one (16 bits); 0: nothing. Written
     * by any forwarding thread, as one word. */
    uint64_t learned[NM_LEARNED];
};

/* Packets for one place, linked in the order in which they were sent. */
struct queue {
    uint16_t first, last;
};

struct nm_forward {
    struct nm_fragment fragments[BATCH_MOST + NETMAP_MAX_FRAGS];
    uint32_t count;
    uint16_t next[BATCH_MOST + NETMAP_MAX_FRAGS]; /* by a packet's first fragment */
    struct queue unicast[NM_SWITCH_PORTS], broadcast;
    uint8_t touched[NM_SWITCH_PORTS]; /* the places with a unicast queue */
    uint32_t num_touched;
    struct indirect *indirect; /* NULL until a slot is */
};

/* Slots that point into the sender's memory, and room for what is there. */
struct indirect {
    struct nm_client_part parts[BATCH_MOST + NETMAP_MAX_FRAGS];
    uint16_t fragment[BATCH_MOST + NETMAP_MAX_FRAGS];
    uint32_t count;
    char *data;
};

static uint32_t batch_size = BATCH_MOST;

void nm_switch_set_batch(uint32_t slots) { WRITE_ONCE(batch_size, slots); }

/* ---- topology --------------------------------------------------------------------------------
 */

static pthread_rwlock_t topology = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;
static __thread uint32_t holds;

void nm_topology_hold(void) {
    if (holds++ == 0) pthread_rwlock_rdlock(&topology);
}

void nm_topology_release(void) {
    if (--holds == 0) pthread_rwlock_unlock(&topology);
}

void nm_topology_change(void) { pthread_rwlock_wrlock(&topology); }

void nm_topology_changed(void) { pthread_rwlock_unlock(&topology); }

int nm_switch_create(struct nm_switch **out) {
    struct nm_switch *sw = calloc(1, sizeof(*sw));
    if (!sw) return -ENOMEM;
    for (uint32_t i = 0; i < NM_SWITCH_PORTS; i++)
        sw->order[i] = (uint8_t)i;
    *out = sw;
    return 0;
}

void nm_switch_destroy(struct nm_switch *sw) { free(sw); }

int nm_switch_plug(struct nm_switch *sw, struct nm_place *place) {
    if (sw->used == NM_SWITCH_PORTS) return -ENOMEM;
    place->index = sw->order[sw->used++];
    place->last_learned = 0;
    sw->places[place->index] = place;
    place->sw = sw;
    return (int)place->index;
}

void nm_switch_unplug(struct nm_place *place) {
    struct nm_switch *sw = place->sw;
    if (!sw) return;
    uint32_t i = 0;
    while (sw->order[i] != place->index)
        i++;
    sw->order[i] = sw->order[--sw->used];
    sw->order[sw->used] = (uint8_t)place->index;
    sw->places[place->index] = NULL;
    place->sw = NULL;
    /* Whoever gets the place next is somebody else. */
    for (uint32_t h = 0; h < NM_LEARNED; h++)
        if ((sw->learned[h] & UINT16_MAX) == place->index + 1) sw->learned[h] = 0;
}

/* ---- addresses -------------------------------------------------------------------------------
 */

static uint64_t load_address(const char *bytes) {
    uint64_t address = 0;
    memcpy(&address, bytes, 6);
    return address;
}

static bool is_group(uint64_t address) { return address & 1; }

static uint64_t *entry_of(struct nm_switch *sw, uint64_t address) {
    return &sw->learned[(address * 0x9E3779B97F4A7C15u) >> 54];
}

static void learn(struct nm_place *source, uint64_t address) {
    if (is_group(address) || address == source->last_learned) return;
    source->last_learned = address;
    WRITE_ONCE(*entry_of(source->sw, address), address << 16 | (source->index + 1));
}

/* The place an address was seen at, or NULL. */
static struct nm_place *look_up(struct nm_switch *sw, uint64_t address) {
    uint64_t entry = READ_ONCE(*entry_of(sw, address));
    return entry >> 16 == address && entry ? sw->places[(entry & UINT16_MAX) - 1] : NULL;
}

uint32_t nm_switch_learned(struct nm_switch *sw, struct nm_learned *out) {
    uint32_t count = 0;
    for (uint32_t h = 0; h < NM_LEARNED; h++) {
        uint64_t entry = READ_ONCE(sw->learned[h]);
        if (!entry) continue;
        uint64_t address = entry >> 16;
        memcpy(out[count].address, &address, 6);
        out[count++].port = (uint16_t)((entry & UINT16_MAX) - 1);
    }
    return count;
}

/* ---- what is sent ----------------------------------------------------------------------------
 */

struct nm_forward *nm_forward_create(void) {
    struct nm_forward *forward = calloc(1, sizeof(*forward));
    if (!forward) return NULL;
    forward->broadcast = (struct queue){NONE, NONE};
    for (uint32_t i = 0; i < NM_SWITCH_PORTS; i++)
        forward->unicast[i] = (struct queue){NONE, NONE};
    return forward;
}

void nm_forward_destroy(struct nm_forward *forward) {
    if (!forward) return;
    if (forward->indirect) free(forward->indirect->data);
    free(forward->indirect);
    free(forward);
}

/* Notes a slot that points into the sender's memory; false if there is no room for what is there.
 */
static bool note_indirect(struct nm_forward *forward, uint32_t fragment, uint64_t address,
                          uint32_t size) {
    if (!forward->indirect) {
        struct indirect *indirect = calloc(1, sizeof(*indirect));
        size_t most = (size_t)(BATCH_MOST + NETMAP_MAX_FRAGS) * size;
        if (indirect) indirect->data = aligned_alloc(LINE, most);
        if (!indirect || !indirect->data) {
            free(indirect);
            return false;
        }
        forward->indirect = indirect;
    }
    struct indirect *indirect = forward->indirect;
    struct nm_fragment *f = &forward->fragments[fragment];
    f->data = indirect->data + (size_t)indirect->count * size;
    indirect->fragment[indirect->count] = (uint16_t)fragment;
    indirect->parts[indirect->count++] =
        (struct nm_client_part){.address = address, .buffer = f->data, .size = f->len};
    return true;
}

/* Reads the next slot of a packet; false if it cannot be sent. */
static bool gather_slot(struct nm_forward *forward, struct nm_kring *kring, uint32_t k,
                        bool *more) {
    const struct nm_buffers *buffers = &kring->port->buffers;
    struct netmap_slot *slot = &kring->ring->slot[k];
    uint32_t index = READ_ONCE(slot->buf_idx), len = READ_ONCE(slot->len);
    uint16_t flags = READ_ONCE(slot->flags);
    if (flags & NS_BUF_CHANGED) WRITE_ONCE(slot->flags, (uint16_t)(flags & ~NS_BUF_CHANGED));
    *more = flags & NS_MOREFRAG;
    uint32_t fragment = forward->count++;
    struct nm_fragment *f = &forward->fragments[fragment];
    if (flags & NS_INDIRECT) {
        f->len = len <= buffers->size ? len : 0;
        return note_indirect(forward, fragment, READ_ONCE(slot->ptr), buffers->size);
    }
    uint32_t offset = nm_slot_offset(kring, slot);
    char *data = nm_buffer(buffers, index);
    if (data == buffers->base) kring->stats.bad_slots++;
    f->data = data + offset;
    f->len = len <= buffers->size - offset ? len : 0;
    return true;
}

/* How far a gathering has come. */
struct mark {
    uint32_t count, indirect;
};

static struct mark mark_here(const struct nm_forward *forward) {
    return (struct mark){forward->count, forward->indirect ? forward->indirect->count : 0};
}

static void go_back(struct nm_forward *forward, struct mark mark) {
    forward->count = mark.count;
    if (forward->indirect) forward->indirect->count = mark.indirect;
}

/* Collects whole packets from slot `k` on, about a batch of them; returns the slot behind the last.
 * A chain of slots that is cut short by `to`, or longer than netmap allows, is dropped. */
static uint32_t gather(struct nm_forward *forward, struct nm_kring *kring, uint32_t k,
                       uint32_t to) {
    uint32_t batch = READ_ONCE(batch_size);
    struct mark mark = {0};
    go_back(forward, mark);
    while (k != to && forward->count < batch) {
        bool good = true, more = true;
        mark = mark_here(forward);
        while (more && k != to) {
            if (forward->count - mark.count == NETMAP_MAX_FRAGS) {
                good = false;
                go_back(forward, mark);
            }
            good &= gather_slot(forward, kring, k, &more);
            k = nm_kring_next(kring, k);
        }
        kring->stats.packets++;
        if (good && !more) {
            forward->fragments[mark.count].count = (uint8_t)(forward->count - mark.count);
        } else {
            go_back(forward, mark);
            kring->stats.drops[NM_DROP_BAD]++;
        }
    }
    return k;
}

/* Has any slot of these a pointer that we have not been told whose it is? */
static bool needs_caller(const struct nm_kring *kring, uint32_t from, uint32_t to) {
    for (uint32_t k = from; k != to; k = nm_kring_next(kring, k))
        if (READ_ONCE(kring->ring->slot[k].flags) & NS_INDIRECT) return true;
    return false;
}

/* Fetches what indirect slots point to; a pointer into nowhere makes an empty packet. */
static void fetch(struct nm_forward *forward, struct nm_kring *kring) {
    struct indirect *indirect = forward->indirect;
    if (!indirect || !indirect->count) return;
    nm_client_read_parts(kring->caller, indirect->parts, indirect->count);
    for (uint32_t i = 0; i < indirect->count; i++)
        if (!indirect->parts[i].good) forward->fragments[indirect->fragment[i]].len = 0;
}

/* ---- to whom ---------------------------------------------------------------------------------
 */

static void append(struct nm_forward *forward, struct queue *queue, uint16_t packet) {
    forward->next[packet] = NONE;
    if (queue->first == NONE)
        queue->first = packet;
    else
        forward->next[queue->last] = packet;
    queue->last = packet;
}

/* The Ethernet header of a packet, behind the virtio-net header of its sender; NULL if it has none.
 */
static const char *ethernet(const struct nm_fragment *f, uint32_t header) {
    if (f->len == header && f->count > 1) {
        f++;
        header = 0;
    }
    return f->len >= header + ETHERNET_HEADER ? f->data + header : NULL;
}

static void distribute(struct nm_place *source, struct nm_forward *forward,
                       struct nm_ring_stats *stats) {
    uint64_t last_address = 0; /* a burst often goes to one address */
    struct nm_place *last_place = NULL;
    for (uint32_t i = 0; i < forward->count; i += forward->fragments[i].count) {
        const struct nm_fragment *packet = &forward->fragments[i];
        for (uint32_t n = 0; n < packet->count; n++)
            stats->bytes += packet[n].len;
        const char *start = ethernet(packet, source->header);
        if (!start) {
            stats->drops[NM_DROP_SHORT]++;
            continue;
        }
        uint64_t to = load_address(start);
        learn(source, load_address(start + 6));
        if (to != last_address) {
            last_address = to;
            last_place = is_group(to) ? NULL : look_up(source->sw, to);
        }
        if (!last_place) {
            append(forward, &forward->broadcast, (uint16_t)i);
        } else if (last_place == source) {
            stats->drops[NM_DROP_NOWHERE]++;
        } else {
            struct queue *queue = &forward->unicast[last_place->index];
            if (queue->first == NONE)
                forward->touched[forward->num_touched++] = (uint8_t)last_place->index;
            append(forward, queue, (uint16_t)i);
        }
    }
}

/* ---- delivery --------------------------------------------------------------------------------
 */

/* Both lie in buffers that are whole lines long: what follows the packet may be copied too. A
 * program that lies may have named the same buffer twice. */
static void copy(char *to, const char *from, uint32_t len) {
    if (len > 8 * LINE || ((uintptr_t)to | (uintptr_t)from) % LINE) {
        memmove(to, from, len);
        return;
    }
    for (uint32_t done = 0; done < len; done += LINE)
        memcpy(to + done, from + done, LINE);
}

/* Puts a packet into the outlet as it is: a slot for each fragment. */
static void put(struct nm_outlet *outlet, const struct nm_fragment *packet) {
    for (uint32_t n = 0; n < packet->count; n++) {
        uint32_t room, len = packet[n].len;
        char *data = nm_outlet_data(outlet, &room);
        if (len > room) len = room; /* the slot's offset has moved since it was seen */
        copy(data, packet[n].data, len);
        nm_outlet_fill(outlet, len, packet->count, n + 1u < packet->count);
    }
}

/* Every fragment fits into the buffer that it would go to. */
static bool fits(const struct nm_outlet *outlet, const struct nm_fragment *packet) {
    const struct nm_kring *kring = outlet->kring;
    uint32_t k = outlet->next;
    for (uint32_t n = 0; n < packet->count; n++, k = nm_kring_next(kring, k)) {
        uint32_t offset = nm_slot_offset(kring, &kring->ring->slot[k]);
        if (packet[n].len > kring->port->buffers.size - offset) return false;
    }
    return true;
}

static void deliver_packet(const struct nm_place *source, const struct nm_place *place,
                           struct nm_outlet *outlet, const struct nm_fragment *packet) {
    struct nm_kring *kring = outlet->kring;
    if (source->header != place->header)
        nm_offload(outlet, packet, source->header, place->header);
    else if (!fits(outlet, packet))
        kring->stats.drops[NM_DROP_LONG]++;
    else if (packet->count > outlet->room)
        kring->stats.drops[NM_DROP_FULL]++;
    else
        put(outlet, packet);
}

static uint32_t length_of(const struct nm_forward *forward, uint16_t packet) {
    uint32_t length = 0;
    for (; packet != NONE; packet = forward->next[packet])
        length++;
    return length;
}

/* Two queues for one ring of one place, in the order in which their packets were sent. False if
 * nobody receives there. */
static bool deliver(const struct nm_place *source, struct nm_place *place, uint32_t ring,
                    struct nm_forward *forward, uint16_t a, uint16_t b) {
    struct nm_outlet outlet;
    if (!place->rings || !place->ops->begin(place, ring % place->rings, &outlet)) return false;
    uint32_t before = outlet.next;
    while (a != NONE || b != NONE) {
        uint16_t *from = a < b ? &a : &b;
        deliver_packet(source, place, &outlet, &forward->fragments[*from]);
        *from = forward->next[*from];
    }
    place->ops->end(place, &outlet, outlet.next != before);
    return true;
}

static void deliver_unicast(const struct nm_place *source, uint32_t ring,
                            struct nm_forward *forward, struct nm_ring_stats *stats) {
    for (uint32_t i = 0; i < forward->num_touched; i++) {
        struct nm_place *place = source->sw->places[forward->touched[i]];
        struct queue *queue = &forward->unicast[place->index];
        /* Broadcast goes to ring 0; where both do, they stay in order. */
        bool together = place->rings && ring % place->rings == 0;
        uint16_t with = together ? forward->broadcast.first : NONE;
        if (!deliver(source, place, ring, forward, queue->first, with))
            stats->drops[NM_DROP_NOWHERE] += length_of(forward, queue->first);
    }
}

static void deliver_broadcast(const struct nm_place *source, uint32_t ring,
                              struct nm_forward *forward, struct nm_ring_stats *stats) {
    const struct nm_switch *sw = source->sw;
    uint32_t receivers = 0;
    if (forward->broadcast.first == NONE) return;
    for (uint32_t i = 0; i < sw->used; i++) {
        struct nm_place *place = sw->places[sw->order[i]];
        if (place == source) continue;
        bool done = forward->unicast[place->index].first != NONE && place->rings &&
                    ring % place->rings == 0;
        receivers += done || deliver(source, place, 0, forward, forward->broadcast.first, NONE);
    }
    if (!receivers) stats->drops[NM_DROP_NOWHERE] += length_of(forward, forward->broadcast.first);
}

static void deliver_all(const struct nm_place *source, uint32_t ring, struct nm_forward *forward,
                        struct nm_ring_stats *stats) {
    deliver_unicast(source, ring, forward, stats);
    deliver_broadcast(source, ring, forward, stats);
    for (uint32_t i = 0; i < forward->num_touched; i++)
        forward->unicast[forward->touched[i]] = (struct queue){NONE, NONE};
    forward->num_touched = 0;
    forward->broadcast = (struct queue){NONE, NONE};
}

int nm_switch_forward(struct nm_place *source, struct nm_forward *forward, struct nm_kring *kring,
                      uint32_t *from, uint32_t to) {
    if (!kring->caller && needs_caller(kring, *from, to)) return NM_NEEDS_CALLER;
    while (*from != to) {
        uint32_t next = gather(forward, kring, *from, to);
        fetch(forward, kring); /* may wait, which nobody else has to: the topology is not held */
        nm_topology_hold();
        if (source->sw) {
            distribute(source, forward, &kring->stats);
            deliver_all(source, kring->index, forward, &kring->stats);
        } else {
            for (uint32_t i = 0; i < forward->count; i += forward->fragments[i].count)
                kring->stats.drops[NM_DROP_SINK]++;
        }
        nm_topology_release();
        *from = next;
    }
    return 0;
}
