/* SPDX-License-Identifier: BSD-2-Clause */
/* The kinds of port, and how each is made. What a port does when synced is its own file's. */
#ifndef CUSE_NETMAP_PORTS_H
#define CUSE_NETMAP_PORTS_H

#include "backends/backend.h"
#include "events.h"
#include "ring_core.h"

/* A network interface: one hardware ring pair for each queue of a backend. Takes the queues over,
 * also when it fails. mtu is the interface's now (bytes); nm_port_set_mtu follows it.
 * EINVAL: more slots than netmap allows. */
int nm_nic_create(struct nm_region *region, struct nm_events *events, const char *name,
                  const struct nm_backend_ops *backend, void **queues, uint32_t num_queues,
                  uint32_t num_slots, struct nm_port **out, struct nm_refusal *why);

/* A port with nothing behind it, to hold memory: any number of rings, none included. */
int nm_null_create(struct nm_region *region, const char *name, const uint32_t rings[NM_DIRS],
                   const uint32_t slots[NM_DIRS], struct nm_port **out, struct nm_refusal *why);

#endif
