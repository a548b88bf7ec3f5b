/* SPDX-License-Identifier: BSD-2-Clause */
/* The tc programs that stand between an interface and its host stack, and the calls of bpf(2) that
 * put them there. When which of them stands where is backends/steer.py's. */
#ifndef CUSE_NETMAP_STEER_H
#define CUSE_NETMAP_STEER_H

#include <stdbool.h>
#include <stdint.h>

#include "refusal.h"

/* skb->mark ("nmhs") of a frame on its way between the host stack and its host rings. Set where it
 * comes out of a TAP, is sent to one or is forwarded, cleared before the host stack sees it. */
#define NM_STEER_MARK 0x6e6d6873

enum nm_steer_program {
    NM_STEER_FROM_RINGS,      /* ingress: the host receives only what host TX rings inject */
    NM_STEER_FROM_ALL,        /* ingress: ... that and what the interface receives */
    NM_STEER_TO_NOWHERE,      /* egress: the host's frames are dropped, marked ones it receives */
    NM_STEER_TO_RINGS,        /* egress: the host's frames go to the TAP `index`; marked ones so */
    NM_STEER_TAP_TO_HOST,     /* TAP ingress: the host receives the frame from interface `index` */
    NM_STEER_TAP_ONLY_STEERED /* TAP egress: nothing that the host sends on the TAP itself */
};

/* Loads one of them; returns its descriptor. Refused with the errno of BPF_PROG_LOAD (EPERM: no
 * CAP_BPF and CAP_NET_ADMIN), the reason being the last line of the kernel's log if it has one. */
int nm_steer_load(enum nm_steer_program program, uint32_t index, struct nm_refusal *why);

/* How many tcx programs an interface of this thread's network namespace has in a direction;
 * -EINVAL: the kernel has no tcx (before Linux 6.6); -ENXIO no such interface. */
int nm_steer_count(uint32_t index, bool ingress);

/* Puts a program before all others of an interface of this thread's network namespace. Returns the
 * link, which takes the program away when its last descriptor is closed. Refused as
 * BPF_LINK_CREATE: ENXIO no such interface, ERANGE too many programs. */
int nm_steer_attach(int program, uint32_t index, bool ingress, struct nm_refusal *why);

/* Puts another program in the place of a link's, with no frame in between that meets neither.
 * Refused ENXIO: the interface has gone. */
int nm_steer_replace(int link, int program, struct nm_refusal *why);

/* What an AF_PACKET socket sends on an interface whose NIC rings are bound its host receives. Not
 * past the queueing disciplines (PACKET_QDISC_BYPASS). -errno of setsockopt(2): EPERM. */
int nm_steer_sender(int fd);

/* What an AF_PACKET socket on a steered interface needs: it sees neither what host TX rings inject
 * nor what is sent. Without it a frame that a program forwards between the two goes round for ever.
 * To be called before bind(). -errno of setsockopt(2). */
int nm_steer_packet_socket(int fd);

/* The same for a socket that also sees only what came by one of the interface's `queues` receive
 * queues. first: skb->queue_mapping of what came by queue 0; less than that says nothing. */
int nm_steer_packet_queue(int fd, uint32_t queue, uint32_t queues, uint32_t first);

#endif
