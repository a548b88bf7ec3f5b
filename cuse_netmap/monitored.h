/* SPDX-License-Identifier: BSD-2-Clause */
/* What a ring shows to those who monitor it. The monitors' own side is ports/monitor.c.
 *
 * A monitored ring is synced as ever, by whoever has it open; what it shows is put at once into
 * rings that others fill (nm_kring.filled). Nothing there is waited for: what finds no room is
 * counted at the monitor.
 *
 * Locks, in the order in which they are taken: the monitor ring's busy flag, that of the ring it
 * monitors, views_lock, the monitor ring's fill_lock. views_lock is not held while a sync may wait
 * for the memory of a program. */
#ifndef CUSE_NETMAP_MONITORED_H
#define CUSE_NETMAP_MONITORED_H

#include "ring_core.h"

/* One ring as one monitor ring sees it. A copying view gets received packets when they arrive and
 * sent ones before they go; a zero-copy view gets slots when their user releases them or they come
 * back, and its own free buffer takes the place of the buffer. Where several views are zero-copy
 * all but one get copies, at the same moment: none depends on what another does. */
struct nm_view {
    struct nm_kring *from; /* NULL: closed */
    struct nm_kring *to;   /* an RX ring */
    bool zero_copy;
    bool ended;           /* closed because nobody has the monitored port open any more */
    struct nm_view *next; /* of the same ring, zero-copy ones first */
};

/* Opens the view with `from`, `to` and `zero_copy` set; `to` exists until it is closed again. It
 * begins with the next sync. Called, as is close, like whatever changes what exists. */
void nm_view_open(struct nm_view *view);
void nm_view_close(struct nm_view *view);

/* In place of the port's own sync. */
int nm_monitored_sync(struct nm_kring *kring, uint32_t head);
/* There is something to receive: monitors are told too, who then sync the ring themselves. */
void nm_monitored_wake(struct nm_kring *kring);
/* What was behind the port has gone, or the last file has left it. */
void nm_monitored_gone(struct nm_port *port);
void nm_monitored_end(struct nm_port *port);

#endif
