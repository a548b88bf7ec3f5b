/* SPDX-License-Identifier: BSD-2-Clause */
/* A door: how system calls on the device get in. Sync and poll are answered here by the engine;
 * every other ioctl, and every release, goes to the inbox. */
#ifndef CUSE_NETMAP_DOOR_H
#define CUSE_NETMAP_DOOR_H

#include <stdint.h>

#include "refusal.h"
#include "region.h"

struct nm_door;
struct nm_inbox;

enum nm_transport { NM_TRANSPORT_AUTO, NM_TRANSPORT_URING, NM_TRANSPORT_CLASSIC };

struct nm_door_config {
    const char *path;  /* an existing file, or a device's node, that the mount covers */
    uint32_t mode;     /* permission bits of the device */
    uint32_t uid, gid; /* its owner */
    enum nm_transport transport;
};

/* Mounts the one-file filesystem and starts serving it.
 * EOPNOTSUPP: this kernel has no passthrough, or not the transport asked for; else -errno of the
 * system call that failed, with *why saying which. */
int nm_fuse_door_open(const struct nm_door_config *config, struct nm_region *region,
                      struct nm_inbox *inbox, struct nm_door **out, struct nm_refusal *why);
/* Makes the character device /dev/NAME (1 to 31 characters), which cannot be mapped.
 * ENOENT: no /dev/cuse; EEXIST: the name is taken; else -errno of the system call that failed. */
int nm_cuse_door_open(const char *name, struct nm_region *region, struct nm_inbox *inbox,
                      struct nm_door **out, struct nm_refusal *why);
/* Takes the device away, ends every system call with ECONNABORTED and joins the threads. A door
 * that somebody else takes away shuts the inbox. The opens stay valid until nm_door_destroy. False
 * if something else is mounted over ours: then the threads go on until the process ends, and
 * nothing of the door may be destroyed. */
bool nm_door_stop(struct nm_door *door);
void nm_door_destroy(struct nm_door *door);
/* Remakes packet memory behind all doors that serve it. The caller is the one that registers and
 * releases files (ring_core.h).
 * EBUSY: a ring is in use, or a program has a door open whose memory the kernel maps: all opens of
 * a file must agree on what is behind it. EINVAL, and whatever system calls say: nothing is
 * changed.
 */
int nm_doors_resize(struct nm_door *const *doors, uint32_t count, struct nm_region *region,
                    const struct nm_pool_request request[NM_POOLS], struct nm_refusal *why);
const char *nm_door_transport(const struct nm_door *door); /* "uring" or "classic" */

#endif
