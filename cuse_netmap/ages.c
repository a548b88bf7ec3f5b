/* SPDX-License-Identifier: BSD-2-Clause */
/* The table of ages.h. */
#include "ages.h"

#include <stddef.h>

#include "ring_core.h"

#define OF_2011 (NS_BUF_CHANGED | NS_REPORT)
#define OF_API_3 (OF_2011 | NS_FORWARD | NS_NO_LEARN | NS_PORT_MASK)
#define OF_API_5 (OF_API_3 | NS_INDIRECT | NS_MOREFRAG)

static const struct nm_ring_layout page = {.header = 24,
                                           .slot = 8,
                                           .avail = 12,
                                           .cur = 16,
                                           .buf_size = 20,
                                           .flags = 22,
                                           .slot_flags = OF_2011,
                                           .ring_flags = NR_TIMESTAMP};

static const struct nm_ring_layout of_2011 = {.header = 40,
                                              .slot = 8,
                                              .avail = 12,
                                              .cur = 16,
                                              .buf_size = 20,
                                              .flags = 22,
                                              .ts = 24,
                                              .slot_flags = OF_2011,
                                              .ring_flags = NR_TIMESTAMP,
                                              .fixed_buffers = true};

static const struct nm_ring_layout api_3 = {.header = 48,
                                            .slot = 8,
                                            .avail = 12,
                                            .cur = 16,
                                            .reserved = 20,
                                            .buf_size = 24,
                                            .flags = 26,
                                            .ts = 32,
                                            .slot_flags = OF_API_3,
                                            .ring_flags = NR_TIMESTAMP | NR_FORWARD};

static const struct nm_ring_layout api_5 = {.header = 48,
                                            .slot = 16,
                                            .avail = 12,
                                            .cur = 16,
                                            .reserved = 20,
                                            .buf_size = 24,
                                            .flags = 26,
                                            .ts = 32,
                                            .slot_flags = OF_API_5,
                                            .ring_flags = NR_TIMESTAMP | NR_FORWARD};

#define PLACES(tx, rx) {[NM_TX] = (tx), [NM_RX] = (rx)}

static const struct nm_if_layout if_14 = {.ring_ofs = 56,
                                          .rings = PLACES(24, 28),
                                          .host_rings = PLACES(36, 40),
                                          .flags = 20,
                                          .bufs_head = 32};
static const struct nm_if_layout if_11 = {
    .ring_ofs = 56, .rings = PLACES(24, 28), .flags = 20, .bufs_head = 32};
static const struct nm_if_layout if_10 = {.ring_ofs = 40, .rings = PLACES(24, 28), .flags = 20};
static const struct nm_if_layout if_5 = {.ring_ofs = 32, .rings = PLACES(28, 24), .flags = 20};
static const struct nm_if_layout if_3 = {.ring_ofs = 32, .rings = PLACES(24, 20)};
static const struct nm_if_layout if_2011 = {.ring_ofs = 32, .rings = PLACES(20, 20)};
static const struct nm_if_layout if_page = {.ring_ofs = 24, .rings = PLACES(16, 16)};

/* The youngest first. Versions whose structs nobody knows stand there without a netmap_if. */
static const struct nm_age ages[] = {
    {14, NULL, &if_14, false},
    {11, NULL, &if_11, false},
    {10, NULL, &if_10, true},
    {6, NULL, NULL, false},
    {5, &api_5, &if_5, true},
    {4, NULL, NULL, false},
    {3, &api_3, &if_3, true},
    {NM_API_2011, &of_2011, &if_2011, true},
    {NM_API_PAGE, &page, &if_page, true},
};

const struct nm_age *nm_age_of(uint32_t api) {
    if (!api) return &ages[0];
    for (size_t i = 0; i < sizeof(ages) / sizeof(ages[0]); i++)
        if (api >= ages[i].api) return ages[i].nifp ? &ages[i] : NULL;
    return NULL;
}
