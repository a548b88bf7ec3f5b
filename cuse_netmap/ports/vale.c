/* SPDX-License-Identifier: BSD-2-Clause */
/* VALE ports: what a program sends goes to the switch, which fills the RX rings. */
#include <stdlib.h>

#include "ports/fed.h"
#include "ports/switch.h"

struct vale {
    struct nm_place place; /* first: ops get it */
    struct nm_port *port;
};

static struct vale *vale_of(const struct nm_port *port) { return port->private; }

/* ---- as seen from the switch ------------------------------------------------------------------
 */

static bool begin(struct nm_place *place, uint32_t ring, struct nm_outlet *outlet) {
    struct nm_kring *kring = &((struct vale *)place)->port->krings[NM_RX][ring];
    if (!kring->private) return false; /* nobody has it open */
    pthread_mutex_lock(&kring->fill_lock);
    *outlet = (struct nm_outlet){
        .kring = kring,
        .next = kring->filled,
        .room = nm_kring_room(kring, kring->filled, load_acquire(&kring->hwcur)),
    };
    return true;
}

static void end(struct nm_place *place, struct nm_outlet *outlet, bool some) {
    (void)place;
    store_release(&outlet->kring->filled, outlet->next);
    pthread_mutex_unlock(&outlet->kring->fill_lock);
    if (some) nm_kring_wake(outlet->kring);
}

static const struct nm_place_ops place_ops = {.begin = begin, .end = end};

/* ---- as seen from programs --------------------------------------------------------------------
 */

static int vale_start(struct nm_kring *kring, struct nm_refusal *why) {
    void *private = kring;
    if (kring->dir == NM_TX && !(private = nm_forward_create()))
        return nm_refuse(why, ENOMEM, "out of memory");
    nm_topology_change();
    kring->private = private;
    nm_topology_changed();
    return 0;
}

static void vale_stop(struct nm_kring *kring) {
    void *private = kring->private;
    nm_topology_change();
    kring->private = NULL;
    nm_topology_changed();
    if (kring->dir == NM_TX) nm_forward_destroy(private);
}

static int vale_sync(struct nm_kring *kring, uint32_t head) {
    if (kring->dir == NM_RX) {
        nm_fed_rxsync(kring, head);
        return 0;
    }
    struct vale *vale = vale_of(kring->port);
    uint32_t hwcur = kring->hwcur;
    int error = nm_switch_forward(&vale->place, kring->private, kring, &hwcur, head);
    WRITE_ONCE(kring->hwcur, hwcur);
    kring->hwtail = nm_kring_prev(kring, hwcur);
    return error;
}

static void vale_destroy(struct nm_port *port) {
    nm_vale_leave(port);
    free(vale_of(port));
}

static const struct nm_port_ops vale_ops = {.kind = "vale",
                                            .indirect = true,
                                            .offsets = true,
                                            .start = vale_start,
                                            .stop = vale_stop,
                                            .sync = vale_sync,
                                            .destroy = vale_destroy};

int nm_vale_create(struct nm_region *region, const char *name, const uint32_t rings[NM_DIRS],
                   const uint32_t slots[NM_DIRS], struct nm_port **out, struct nm_refusal *why) {
    struct vale *vale = calloc(1, sizeof(*vale));
    if (!vale) return nm_refuse(why, ENOMEM, "out of memory");
    struct nm_port_config config = {.name = name, .ops = &vale_ops, .private = vale};
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        config.rings[dir] = rings[dir];
        config.slots[dir] = slots[dir];
    }
    int error = nm_port_create(region, &config, out, why);
    if (error) {
        free(vale);
        return error;
    }
    vale->port = *out;
    vale->place = (struct nm_place){.ops = &place_ops, .rings = rings[NM_RX]};
    return 0;
}

int nm_vale_join(struct nm_port *port, struct nm_switch *sw, struct nm_refusal *why) {
    nm_topology_change();
    int place = nm_switch_plug(sw, &vale_of(port)->place);
    nm_topology_changed();
    if (place >= 0) return place;
    return nm_refuse(why, -place, "the switch has %d ports, no more fit", NM_SWITCH_PORTS);
}

void nm_vale_leave(struct nm_port *port) {
    nm_topology_change();
    nm_switch_unplug(&vale_of(port)->place);
    nm_topology_changed();
}

void nm_vale_set_header(struct nm_port *port, uint32_t bytes) {
    nm_topology_change();
    vale_of(port)->place.header = bytes;
    nm_topology_changed();
}

uint32_t nm_vale_header(const struct nm_port *port) { return vale_of(port)->place.header; }
