/* SPDX-License-Identifier: BSD-2-Clause */
/* The kinds of port, and how each is made. What a port does when synced is its own file's. */
#ifndef CUSE_NETMAP_PORTS_H
#define CUSE_NETMAP_PORTS_H

#include "backends/backend.h"
#include "events.h"
#include "ring_core.h"

/* A network interface: one hardware ring pair for each queue of a backend. Takes the queues over,
 * also when it fails. nm_port_set_mtu says the interface's MTU.
 * EINVAL: more slots than netmap allows; the backend was compiled with another version of
 * backend.h, and its queues are left alone. */
int nm_nic_create(struct nm_region *region, struct nm_events *events, const char *name,
                  const struct nm_backend_ops *backend, void **queues, uint32_t num_queues,
                  uint32_t num_slots, struct nm_port **out, struct nm_refusal *why);

/* Another backend behind the hardware rings, bound or not, with as many queues, which it takes
 * over; when it fails the port is gone. What the one before had received and nobody had taken is
 * lost. */
int nm_nic_set_wire(struct nm_port *port, const struct nm_backend_ops *backend, void **queues,
                    uint32_t num_queues, struct nm_refusal *why);

/* The same as nm_nic_create with as many rings, and slots in them, as is said of each direction; no
 * ring is without a queue. */
int nm_nic_create_sized(struct nm_region *region, struct nm_events *events, const char *name,
                        const struct nm_backend_ops *backend, void **queues, uint32_t num_queues,
                        const uint32_t rings[NM_DIRS], const uint32_t slots[NM_DIRS],
                        struct nm_port **out, struct nm_refusal *why);

/* What stands behind the interface's host rings: a queue for each, which it takes over, also when
 * it fails; none: nothing. While no host ring is bound. */
int nm_nic_set_host(struct nm_port *port, const struct nm_backend_ops *backend, void **queues,
                    uint32_t num_queues, struct nm_refusal *why);

/* A port with nothing behind it, to hold memory: any number of rings, none included. */
int nm_null_create(struct nm_region *region, const char *name, const uint32_t rings[NM_DIRS],
                   const uint32_t slots[NM_DIRS], struct nm_port **out, struct nm_refusal *why);

/* Both ends of a pipe, master and slave; rings and slots are the master's, the slave's are the same
 * the other way round. TX ring i of one end is RX ring i of the other. Buffers change hands,
 * nothing is copied, nothing is lost. Neither end may be destroyed while the other has files, and
 * nothing of the pipe may be used once one is. */
int nm_pipe_create(struct nm_region *region, const char *const names[2],
                   const uint32_t rings[NM_DIRS], const uint32_t slots[NM_DIRS],
                   struct nm_port *ends[2], struct nm_refusal *why);

/* A port that sees what crosses `parent`, which must be open (EINVAL), until that is closed by its
 * last file; then its syncs fail. `flags` are those of the request: NR_MONITOR_RX, NR_MONITOR_TX,
 * or NR_ZCOPY_MON for both without copying, which is possible in the parent's region only and
 * therefore done there. Slots 0: as many as the parent's. It is for one file, to be registered at
 * once. */
int nm_monitor_create(struct nm_region *region, struct nm_port *parent, uint64_t flags,
                      const uint32_t slots[NM_DIRS], struct nm_port **out, struct nm_refusal *why);

/* ---- VALE ------------------------------------------------------------------------------------ */

#define NM_SWITCH_PORTS 254 /* places on a switch */
#define NM_LEARNED 1024     /* addresses it remembers */

struct nm_switch;
int nm_switch_create(struct nm_switch **out); /* -ENOMEM */
/* Nothing may be on it any more. */
void nm_switch_destroy(struct nm_switch *sw);

/* Which port an address was last seen at: as many as are known, at most NM_LEARNED; how many. */
struct nm_learned {
    uint8_t address[6];
    uint16_t port;
};
uint32_t nm_switch_learned(struct nm_switch *sw, struct nm_learned *out);

/* How many slots are forwarded at once, 1 to 1024: netmap's parameter bridge_batch. */
void nm_switch_set_batch(uint32_t slots);

/* A VALE port, on no switch yet: what is sent there vanishes. */
int nm_vale_create(struct nm_region *region, const char *name, const uint32_t rings[NM_DIRS],
                   const uint32_t slots[NM_DIRS], struct nm_port **out, struct nm_refusal *why);
/* Puts it on a switch: its place, 0 to 253. ENOMEM: the switch is full. Programs that have the port
 * open do not notice. */
int nm_vale_join(struct nm_port *vale, struct nm_switch *sw, struct nm_refusal *why);
void nm_vale_leave(struct nm_port *vale);
/* Bytes of the virtio-net header before each packet: 0, 10 or 12. */
void nm_vale_set_header(struct nm_port *vale, uint32_t bytes);
uint32_t nm_vale_header(const struct nm_port *vale);

/* A port of any other kind, or a VALE port that is on a switch already, on a switch: what it
 * receives is forwarded, what is forwarded to it is sent. The request says which rings: all
 * hardware rings, or the host rings too, which become a port of their own.
 * EBUSY: the port has files. Else as nm_file_register. */
struct nm_attachment;
int nm_attachment_create(struct nm_port *below, struct nm_switch *sw,
                         struct nmreq_register *request, struct nm_attachment **out,
                         struct nm_refusal *why);
void nm_attachment_destroy(struct nm_attachment *attachment);
/* Its place on the switch, and that of the host rings; -1: none. */
int nm_attachment_place(const struct nm_attachment *attachment, bool host);
/* Instead of sleeping until something arrives, threads on `cpus` CPUs from `first` on look for it
 * all the time; cpus 0: sleep again. -errno of starting the threads. */
int nm_attachment_poll(struct nm_attachment *attachment, uint32_t first, uint32_t cpus,
                       struct nm_refusal *why);

#endif
