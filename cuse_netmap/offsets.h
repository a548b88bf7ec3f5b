/* SPDX-License-Identifier: BSD-2-Clause */
/* The option OFFSETS: which rings take it, and how slots begin with it. Where it is honoured, ports
 * ask nm_slot_offset. */
#ifndef CUSE_NETMAP_OFFSETS_H
#define CUSE_NETMAP_OFFSETS_H

#include "ring_core.h"

/* May the file have the offsets that it wants on the rings it is about to bind? 0, also if it wants
 * none; -errno, which is their status too:
 * EOPNOTSUPP the kind of port has no offsets
 * EINVAL     more bits than there are, or an offset that fits neither them nor a buffer
 * EBUSY      a ring is in use with a smaller largest offset, or fewer bits */
int nm_offsets_check(const struct nm_file *file, const struct nm_port *port,
                     struct nm_refusal *why);

/* A ring that exists is about to get a user, who wants these offsets, or NULL for none. The first
 * user's ring begins with them; what waits there already, in a pipe, is moved to where it will be
 * looked for. */
void nm_offsets_apply(struct nm_kring *kring, const struct nm_offsets *wanted);

/* The file's rings are bound: what is in effect on all of them goes back to who asked. */
void nm_offsets_answer(struct nm_file *file);

#endif
