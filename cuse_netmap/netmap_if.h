/* SPDX-License-Identifier: BSD-2-Clause */
/* The netmap_if of a registered file, in the layout of its program's age: where its rings are, and
 * its list of extra buffers. */
#ifndef CUSE_NETMAP_NETMAP_IF_H
#define CUSE_NETMAP_NETMAP_IF_H

#include "ring_core.h"

/* -ENOMEM: objects of the pool have no room for so many rings. */
int nm_if_check_size(const struct nm_region *region, uint32_t rings, struct nm_refusal *why);
/* The rings of a direction that it counts, those of the host included: one at least. */
uint32_t nm_if_entries(const struct nm_port *port, enum nm_dir dir);

/* The file has its rings; an object of the pool is free. Gives it as many of `extra` buffers as
 * there are, if its program knows of such. */
void nm_if_create(struct nm_port *port, struct nm_file *file, uint32_t extra);
/* The file has other rings. */
void nm_if_show_rings(const struct nm_port *port, const struct nm_file *file);

#endif
