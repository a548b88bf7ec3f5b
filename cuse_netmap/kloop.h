/* SPDX-License-Identifier: BSD-2-Clause */
/* Rings whose indices a program keeps in its own memory (CSB), and the loops that sync them from
 * inside, a thread each. Whether a program may is decided before; requests of one file come one at
 * a time, as the inbox gives them out. */
#ifndef CUSE_NETMAP_KLOOP_H
#define CUSE_NETMAP_KLOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "doors/inbox.h"
#include "refusal.h"

/* The file of the request, which is registered and has no loop, keeps its indices there from now
 * on: both arrays, one entry for each bound ring, are read, written and filled with what the rings
 * have. Errors as nm_request_read. */
int nm_csb_enable(struct nm_inbox *inbox, struct nm_request *request, uint64_t atok, uint64_t ktoa);

/* Loops that there may be, of one user and in all, and descriptors of eventfds that they hold. */
#define NM_KLOOPS_PER_USER 16
#define NM_KLOOPS_MOST 64
#define NM_KLOOP_FDS_PER_USER 128
#define NM_KLOOP_FDS_MOST 512

struct nm_kloop_config {
    uint32_t sleep_us;       /* between rounds, unless every ring has an ioeventfd; 0: none */
    uint32_t mode;           /* NM_OPT_SYNC_KLOOP_DIRECT_*: kicks and interrupts for every change */
    const int32_t *eventfds; /* the program's, ioeventfd and irqfd of each bound ring; or NULL */
};

/* Starts the loop of a file that has a CSB and no loop yet. On success the request is held until
 * the loop has ended, which answers it:
 * 0       stopped
 * EINTR   the caller was interrupted
 * EFAULT  the arrays are there no more; or as nm_client_read
 * EIO     the port is gone
 * EBUSY at once: there are too many loops; EBADF, EINVAL: no eventfds; else -errno of a call. */
int nm_kloop_start(struct nm_inbox *inbox, struct nm_request *request,
                   const struct nm_kloop_config *config, struct nm_refusal *why);
/* Ends the loop of the request's file: true if the request is answered (0) once it has ended. Where
 * there is none the next one will end at once. */
bool nm_kloop_stop(struct nm_inbox *inbox, struct nm_request *request);

/* Waits until no loop is left, for so long at most: are there none? */
bool nm_kloops_ended(uint32_t milliseconds);

#endif
