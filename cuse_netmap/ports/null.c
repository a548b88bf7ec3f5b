/* SPDX-License-Identifier: BSD-2-Clause */
/* The null port: syncs change nothing. Programs open it to hold a region or extra buffers. */
#include <errno.h>

#include "ports/ports.h"

static int sync_nothing(struct nm_kring *kring, uint32_t head) {
    if (kring->dir == NM_RX) kring->hwcur = head;
    return 0;
}

static const struct nm_port_ops null_ops = {.kind = "null", .offsets = true, .sync = sync_nothing};

int nm_null_create(struct nm_region *region, const char *name, const uint32_t rings[NM_DIRS],
                   const uint32_t slots[NM_DIRS], struct nm_port **out, struct nm_refusal *why) {
    struct nm_port_config config = {.name = name, .ops = &null_ops};
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        config.rings[dir] = rings[dir];
        config.slots[dir] = slots[dir];
        if (rings[dir] && slots[dir] < 2)
            return nm_refuse(why, EINVAL, "a ring needs 2 slots or more, %u were asked for",
                             slots[dir]);
    }
    return nm_port_create(region, &config, out, why);
}
