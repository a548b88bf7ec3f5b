/* SPDX-License-Identifier: BSD-2-Clause */
/* The parts of the FUSE protocol that kernel headers of Debian 12 (7.38) do not have yet, under
 * names of ours so that newer headers do not clash. Source: include/uapi/linux/fuse.h, Linux 6.9
 * for passthrough, 6.14 for io_uring. */
#ifndef CUSE_NETMAP_FUSE_PROTOCOL_H
#define CUSE_NETMAP_FUSE_PROTOCOL_H

#include <linux/fuse.h>
#include <stdint.h>
#include <sys/ioctl.h>

#define NM_FUSE_MINOR_PASSTHROUGH 40
#define NM_FUSE_MINOR_WANTED 42

#define NM_FOPEN_PASSTHROUGH (1u << 7)

/* Bits 37 and 41 of the INIT flags; flags2 holds the upper half. */
#define NM_FUSE_PASSTHROUGH2 (1u << (37 - 32))
#define NM_FUSE_OVER_IO_URING2 (1u << (41 - 32))

struct nm_fuse_init_in {
    uint32_t major, minor, max_readahead, flags, flags2, unused[11];
};

struct nm_fuse_init_out {
    uint32_t major, minor, max_readahead, flags;
    uint16_t max_background, congestion_threshold;
    uint32_t max_write, time_gran;
    uint16_t max_pages, map_alignment;
    uint32_t flags2, max_stack_depth;
    uint32_t unused[6];
};
_Static_assert(sizeof(struct nm_fuse_init_out) == 64, "fuse_init_out");

struct nm_fuse_open_out {
    uint64_t fh;
    uint32_t open_flags;
    int32_t backing_id;
};
_Static_assert(sizeof(struct nm_fuse_open_out) == sizeof(struct fuse_open_out), "fuse_open_out");

struct nm_fuse_backing_map {
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};
#define NM_FUSE_BACKING_OPEN _IOW(FUSE_DEV_IOC_MAGIC, 1, struct nm_fuse_backing_map)
#define NM_FUSE_BACKING_CLOSE _IOW(FUSE_DEV_IOC_MAGIC, 2, uint32_t)

/* One entry of an io_uring queue: a header the kernel and we share, and a payload beside it. */
struct nm_fuse_uring_entry {
    uint64_t flags, commit_id;
    uint32_t payload_size, padding;
    uint64_t reserved;
};
struct nm_fuse_uring_header {
    char in_out[128]; /* fuse_in_header from the kernel, fuse_out_header to it */
    char op_in[128];  /* the operation's own argument */
    struct nm_fuse_uring_entry entry;
};
/* In the command area of a 128-byte submission. */
struct nm_fuse_uring_command {
    uint64_t flags, commit_id;
    uint16_t queue;
    uint8_t padding[6];
};
enum { NM_FUSE_URING_REGISTER = 1, NM_FUSE_URING_COMMIT_AND_FETCH = 2 };

#endif
