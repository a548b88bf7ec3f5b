/* SPDX-License-Identifier: BSD-2-Clause */
/* The layouts of shared memory that programs of each age know: one table. Nothing here is in use;
 * old_rings.c and netmap_if.c read it (ABI.md section 16). */
#ifndef CUSE_NETMAP_AGES_H
#define CUSE_NETMAP_AGES_H

#include <stdbool.h>
#include <stdint.h>

/* What stands for a version where programs had none (nm_file.api). */
#define NM_API_PAGE 1 /* the structs as the manual page of 2011 prints them */
#define NM_API_2011 2 /* as the header of November 2011 had them */

/* A ring older than head, cur and tail: buf_ofs and num_slots are where they are today, then byte
 * offsets from the ring. Slots begin as they do today and end before or after ptr. */
struct nm_ring_layout {
    uint16_t header; /* bytes before the slots */
    uint16_t slot;   /* bytes of one: 8, or 16 with ptr */
    uint16_t avail, cur, buf_size, flags;
    uint16_t reserved, ts; /* 0: it has none */
    uint16_t slot_flags;   /* those that programs knew */
    uint16_t ring_flags;
    bool fixed_buffers; /* programs take it that a buffer has 2048 bytes */
};

/* A netmap_if: ni_name is where it is today, then byte offsets of what may be missing (0). */
struct nm_if_layout {
    uint16_t ring_ofs; /* where the offsets of rings begin */
    uint16_t rings[2]; /* by direction; the same place for both: pairs, as many as there are */
    uint16_t host_rings[2];
    uint16_t flags, bufs_head;
};

struct nm_age {
    uint32_t api;                      /* from this version on */
    const struct nm_ring_layout *ring; /* NULL: today's */
    const struct nm_if_layout *nifp;
    bool one_region; /* programs map region 1, whatever they register */
};

/* The age of a program of that API version; 0 is today's. NULL: nobody knows how its structs
 * looked. */
const struct nm_age *nm_age_of(uint32_t api);

#endif
