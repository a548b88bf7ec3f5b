/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory that programs brought (the option EXTMEM), mapped into the daemon so that they cannot harm
 * it: whoever owns a file may truncate it, and then touching the map is a SIGBUS. What lies in the
 * memory, region.c knows. */
#ifndef CUSE_NETMAP_EXTMEM_H
#define CUSE_NETMAP_EXTMEM_H

#include <stdbool.h>
#include <stdint.h>

#include "refusal.h"

#define NM_EXTMEM_MOST 256 /* at a time */

/* A part of an open file, in bytes; the file's page size divides both. */
struct nm_extmem_piece {
    int fd;
    uint64_t offset, length;
};

struct nm_extmem;

/* Once, before anything is mapped. From now on SIGBUS has a handler: memory in which one happens is
 * replaced by zeroes that nobody else sees, and broken; any other SIGBUS is whose it was before.
 * Returns an eventfd that is readable when some memory has broken, or -errno. */
int nm_extmem_guard(void);

/* Maps the pieces side by side, readable and writable; their descriptors are not needed any more
 * then.
 * -ENOMEM: NM_EXTMEM_MOST are mapped already, or there is no room; -errno of open files' mmap. */
int nm_extmem_map(const struct nm_extmem_piece *pieces, uint32_t count, struct nm_extmem **out,
                  struct nm_refusal *why);
void nm_extmem_unmap(struct nm_extmem *memory);

char *nm_extmem_base(const struct nm_extmem *memory);
bool nm_extmem_broken(const struct nm_extmem *memory);

#endif
