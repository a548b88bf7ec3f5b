/* SPDX-License-Identifier: BSD-2-Clause */
/* Monitors: ports that see what crosses the rings of another. What they are shown, and when, is
 * monitored.c's; here is the port they have for themselves. */
#include <errno.h>
#include <stdlib.h>

#include "monitored.h"
#include "ports/fed.h"
#include "ports/ports.h"

#define SLOTS_MOST 4096

struct monitor {
    struct nm_port *parent; /* looked at only while rings are bound for the first time */
    bool of[NM_DIRS];       /* the directions that it monitors */
    bool zero_copy;
    struct nm_view views[][NM_DIRS]; /* by RX ring, and the direction of the ring it sees */
};

/* The ring of that direction which an RX ring of the monitor sees: the one with its number, among
 * the hardware rings or among the host rings; NULL if there is none. */
static struct nm_kring *counterpart(const struct nm_kring *kring, enum nm_dir dir) {
    const struct nm_port *port = kring->port;
    const struct nm_port *parent = ((struct monitor *)port->private)->parent;
    uint32_t hardware = parent->num_rings[dir];
    if (!kring->host) return kring->index < hardware ? &parent->krings[dir][kring->index] : NULL;
    uint32_t number = kring->index - port->num_rings[NM_RX];
    return number < parent->num_host[dir] ? &parent->krings[dir][hardware + number] : NULL;
}

static int monitor_start(struct nm_kring *kring, struct nm_refusal *why) {
    (void)why;
    struct monitor *monitor = kring->port->private;
    if (kring->dir == NM_TX) return 0;
    kring->private = monitor->views[kring->index];
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        struct nm_view *view = &monitor->views[kring->index][dir];
        struct nm_kring *from = monitor->of[dir] ? counterpart(kring, dir) : NULL;
        *view = (struct nm_view){.from = from, .to = kring, .zero_copy = monitor->zero_copy};
        if (from) nm_view_open(view);
    }
    return 0;
}

static void monitor_stop(struct nm_kring *kring) {
    if (kring->dir == NM_TX) return;
    struct nm_view *views = kring->private;
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++)
        nm_view_close(&views[dir]);
}

/* The ring whose packets come to us only when somebody syncs it, which its own user may not be
 * doing; NULL if there is none, or nothing of it would fit. */
static struct nm_kring *source(const struct nm_kring *kring) {
    const struct nm_view *view = &((struct nm_view *)kring->private)[NM_RX];
    bool room = nm_kring_room(kring, load_acquire(&kring->filled), kring->hwcur);
    return room && !view->zero_copy ? view->from : NULL;
}

/* Lets packets in that nobody has asked for yet; its user's slots and indices stay as they are. */
static void receive(const struct nm_kring *kring) {
    struct nm_kring *from = source(kring);
    if (!from) return;
    if (READ_ONCE(kring->wanted)) {
        /* First the wish, then the look, as everywhere; so the look must not be left out. */
        WRITE_ONCE(from->wanted, true);
        full_barrier();
        nm_kring_lock(from);
    } else if (!nm_kring_try_lock(from)) {
        return; /* whoever is at it shows us what there is */
    }
    uint32_t tail = from->hwtail;
    if (from->live) nm_kring_advance(from, from->hwcur, from->hwcur, NM_NOBODY);
    bool some = from->hwtail != tail;
    nm_kring_unlock(from);
    /* Its own sleepers wait for what we have just taken off the wire. */
    if (some) nm_kring_wake(from);
}

static int monitor_sync(struct nm_kring *kring, uint32_t head) {
    if (kring->dir == NM_TX) return -EIO; /* monitors have nothing to say */
    const struct nm_view *views = kring->private;
    nm_fed_rxsync(kring, head);
    if (views[NM_RX].ended || views[NM_TX].ended) return -EIO;
    receive(kring);
    kring->hwtail = load_acquire(&kring->filled);
    return 0;
}

static void monitor_arm(struct nm_kring *kring, bool ready) {
    (void)ready;
    struct nm_kring *from = kring->dir == NM_RX ? source(kring) : NULL;
    if (!from) return;
    nm_kring_lock(from);
    if (from->live && from->port->ops->arm) from->port->ops->arm(from, false);
    nm_kring_unlock(from);
}

static void monitor_destroy(struct nm_port *port) { free(port->private); }

static const struct nm_port_ops copying_ops = {.kind = "monitor",
                                               .offsets = true,
                                               .fixed = true,
                                               .start = monitor_start,
                                               .stop = monitor_stop,
                                               .sync = monitor_sync,
                                               .arm = monitor_arm,
                                               .destroy = monitor_destroy};

static const struct nm_port_ops zero_copy_ops = {.kind = "zero-copy monitor",
                                                 .fixed = true,
                                                 .start = monitor_start,
                                                 .stop = monitor_stop,
                                                 .sync = monitor_sync,
                                                 .destroy = monitor_destroy};

/* As many as the monitored rings have unless something else is asked for, within what is possible.
 */
static uint32_t bound_slots(const struct nm_region *region, uint32_t wanted, uint32_t parents) {
    uint32_t ring_size = nm_region_pool(region, NM_POOL_RING).objsize;
    uint32_t most = (ring_size - NETMAP_RING_BYTES(0u)) / sizeof(struct netmap_slot);
    uint32_t slots = wanted ? wanted : parents;
    if (most > SLOTS_MOST) most = SLOTS_MOST;
    if (slots > most) slots = most;
    return slots < 2 ? 2 : slots;
}

int nm_monitor_create(struct nm_region *region, struct nm_port *parent, uint64_t flags,
                      const uint32_t slots[NM_DIRS], struct nm_port **out, struct nm_refusal *why) {
    if (parent->ops == &copying_ops || parent->ops == &zero_copy_ops)
        return nm_refuse(why, EINVAL, "%s is a monitor itself", parent->name);
    if (!parent->files) return nm_refuse(why, EINVAL, "nobody has %s open", parent->name);
    uint32_t rx = parent->num_rings[NM_RX], tx = parent->num_rings[NM_TX], most = rx > tx ? rx : tx;
    uint32_t total = most + (parent->has_host ? NM_HOST_RINGS_MAX : 0);
    struct monitor *monitor = calloc(1, sizeof(*monitor) + total * sizeof(monitor->views[0]));
    if (!monitor) return nm_refuse(why, ENOMEM, "out of memory");
    monitor->parent = parent;
    monitor->zero_copy = flags & NR_ZCOPY_MON;
    if (monitor->zero_copy) region = parent->region;
    monitor->of[NM_RX] = flags & (NR_MONITOR_RX | NR_ZCOPY_MON);
    monitor->of[NM_TX] = flags & (NR_MONITOR_TX | NR_ZCOPY_MON);
    char name[NETMAP_REQ_IFNAMSIZ + 16];
    snprintf(name, sizeof(name), "%s/%s%s%s#%u", parent->name, monitor->zero_copy ? "z" : "",
             monitor->of[NM_RX] ? "r" : "", monitor->of[NM_TX] ? "t" : "", parent->monitors++);
    struct nm_port_config config = {.name = name,
                                    .ops = monitor->zero_copy ? &zero_copy_ops : &copying_ops,
                                    .private = monitor,
                                    .rings = {[NM_RX] = most, [NM_TX] = 1},
                                    .has_host = parent->has_host};
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++)
        config.slots[dir] = bound_slots(region, slots[dir], parent->num_slots[dir]);
    int error = nm_port_create(region, &config, out, why);
    if (error) free(monitor);
    return error;
}
