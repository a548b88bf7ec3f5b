/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine: ports, their rings, the files that bind them, sync and poll. It knows netmap's rules
 * and nothing of FUSE, of Python, or of where packets come from.
 *
 * Threads. Sync and poll (nm_file_sync, nm_file_poll) may run anywhere at any time. Everything that
 * changes what exists (create, destroy, register, unregister) is called by one thread at a time,
 * which the caller sees to, and unregister of an active file only once no sync or poll of it can be
 * running.
 */
#ifndef CUSE_NETMAP_RING_CORE_H
#define CUSE_NETMAP_RING_CORE_H

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/time.h>

#include "netmap_abi.h"
#include "old_rings.h"
#include "region.h"
#include "stats.h"

/* The direction of a ring, with netmap's own numbers (netmap_ring.dir). */
enum nm_dir { NM_RX = 0, NM_TX = 1, NM_DIRS };

struct nm_port;
struct nm_file;
struct nm_view;

/* What a sync answers when slots point into the memory of the program and the caller did not say
 * whose that is: to be called again with the caller, where waiting for that memory harms nobody. */
#define NM_NEEDS_CALLER (-EAGAIN)
#define NM_NOBODY UINT32_MAX /* a caller whose pointers lead nowhere: the daemon itself */

/* A ring as the engine knows it. Only `ring` is shared with clients; no index, size or offset that
 * the engine relies on is ever read back from there. */
struct nm_kring {
    struct nm_port *port;
    struct netmap_ring *ring; /* NULL while no file binds it */
    uint32_t num_slots;
    uint32_t hwcur;  /* TX: first slot not taken yet. RX: first slot not given back yet */
    uint32_t hwtail; /* first slot that is the engine's; what clients see as tail */
    uint32_t rhead;  /* the client's head as of the last valid sync */
    uint8_t busy;    /* one sync at a time */
    uint8_t dir;
    bool host;
    uint16_t index; /* within its direction; host rings follow the hardware rings */
    uint32_t users, exclusive;
    bool live; /* users have it, and its port has started it; changes while it is locked */
    uint32_t ring_object;
    uint32_t caller; /* during a sync: the thread whose memory slots may point to, or 0 */
    bool waiting;    /* the sync under way may wait for that memory */
    bool wanted;     /* somebody sleeps until nm_kring_wake */
    bool forwarded;  /* the latest sync has put packets into TX rings, which are to be synced */

    /* An RX ring that others fill, from another thread than the one that syncs it: packets are
     * written from `filled` on, which then is stored with release order, up to the slot before
     * hwcur, loaded with acquire order. Several fillers take turns by the lock. */
    uint32_t filled;
    pthread_mutex_t fill_lock;

    /* Of a pipe: the ring of the other direction at the other end, whose slot k is this one's slot
     * k. It exists as long as either of the two is bound. */
    struct nm_kring *partner;
    void *private; /* the port's own, from start to stop */

    struct nm_old_ring old; /* what programs of API 5 and before see instead of `ring` */

    /* The option OFFSETS: a packet begins at (slot->ptr & offset_mask) bytes into its buffer, at
     * most offset_max. 0: at the start. */
    uint64_t offset_mask;
    uint32_t offset_max;

    /* Who monitors it (monitored.h): read and changed with the lock held, but that there is nobody
     * may be seen without. */
    struct nm_view *views;
    pthread_mutex_t views_lock;
    bool views_new; /* the first of them has come since the last sync */
    uint32_t shown;

    struct nm_ring_stats stats;
};

/* What a kind of port does. sync is called with the ring's busy flag held and `head` checked. */
struct nm_port_ops {
    const char *kind;
    bool leaf;     /* a sync of it never leads to another port */
    bool indirect; /* slots with NS_INDIRECT point into the memory of the program */
    bool offsets;  /* packets may begin inside their buffers: the option OFFSETS */
    bool fixed;    /* its rings are started once: a file keeps those that it has */
    /* The first file binds the ring, the last one leaves it. start may refuse (-errno). */
    int (*start)(struct nm_kring *kring, struct nm_refusal *why);
    void (*stop)(struct nm_kring *kring);
    /* TX: take packets from [hwcur, head), move hwcur over what was taken and hwtail over what came
     * back. RX: slots [hwcur, head) are given back, then fill from hwtail on. Publishes nothing:
     * the engine does. -errno goes to POLLERR, never to an ioctl's result, but NM_NEEDS_CALLER. */
    int (*sync)(struct nm_kring *kring, uint32_t head);
    /* Before the sync of an RX ring: slots [hwcur, head) are about to be given back, and packets of
     * them that say NS_FORWARD, or `all`, go on: what came by the wire to the host's stack, what
     * came from there by the first host ring to the hardware TX rings (`down`: only then), by
     * moving head and cur there. Whether it put anything into a TX ring. NULL: there is no host. */
    bool (*forward)(struct nm_kring *kring, uint32_t head, bool all, bool down);
    /* Somebody sleeps: call nm_kring_wake once another sync may get further. With `ready` it is
     * for the next edge: there is something for the client already, which it may take and then
     * sleep without another call. The ring's busy flag is held. */
    void (*arm)(struct nm_kring *kring, bool ready); /* NULL: whoever fills the rings wakes */
    void (*destroy)(struct nm_port *port);
};

#define NM_HOST_RINGS_MAX 16

struct nm_port {
    char name[NETMAP_REQ_IFNAMSIZ];
    struct nm_region *region;
    struct nm_buffers buffers;
    const struct nm_port_ops *ops;
    void *private;
    uint32_t num_rings[NM_DIRS]; /* hardware rings */
    uint32_t num_host[NM_DIRS];  /* host rings; 0 if this kind of port has none */
    uint32_t num_slots[NM_DIRS];
    struct nm_kring *krings[NM_DIRS];
    uint32_t mtu;  /* of the interface behind it; 0 if there is none */
    bool has_host; /* this kind of port has host rings */
    bool attached; /* a switch holds it: nobody else may */
    bool gone;     /* what was behind it has disappeared: sync EIO, poll POLLERR */
    uint32_t files;
    uint32_t monitors;    /* that there have been: gives them numbers */
    pthread_mutex_t lock; /* guards first_file and its chain */
    struct nm_file *first_file;
    struct nm_port *next_port; /* in the region's chain */
};

struct nm_port_config {
    const char *name;
    const struct nm_port_ops *ops;
    void *private;
    uint32_t rings[NM_DIRS], slots[NM_DIRS];
    bool has_host;
};

/* What the option OFFSETS asks for, in bytes and bits (0: all 64), and what became of it. */
struct nm_offsets {
    uint64_t max_offset; /* then: what is in effect, the same or more */
    uint64_t initial_offset;
    uint32_t bits;
    int status; /* the errno with which it was refused; 0: it was not */
};

/* Where a program keeps the indices of its rings, in its own memory: arrays of nm_csb_atok and
 * nm_csb_ktoa, the bound TX rings first, then the bound RX rings (option CSB). */
struct nm_csb {
    uint64_t atok, ktoa; /* 0: it does not, the rings themselves have them */
};

/* One open file of /dev/netmap. The door makes it at open and destroys it after release. */
struct nm_file {
    struct nm_port *port; /* that holds it, from register to unregister */
    bool active;          /* set last, with release order: its rings may be synced */
    uint32_t first[NM_DIRS], last[NM_DIRS]; /* rings bound: [first, last) */
    bool no_tx_poll, exclusive;
    struct nm_offsets *offsets; /* of the register to come or under way; NULL: none */
    uint32_t extra_bufs;
    uint32_t api; /* of the program, set before register: the layouts it knows; 0: today's */
    uint32_t if_object;
    struct netmap_if *nifp;
    struct nm_file *next_file;          /* in the port's chain */
    uint32_t armed;                     /* POLLIN, POLLOUT: somebody wants to be woken for */
    void (*wake)(struct nm_file *file); /* changed with the port's lock held */
    struct nm_csb csb;
    struct nm_kloop *kloop; /* the loop that syncs its rings, as kloop.h says */
    bool kloop_stop;        /* the next one is to end at once */

    /* Programs of API 5 and before may take other rings, or none, while their threads sync: those
     * hold `binding` for reading. From the first such program on, for good. */
    bool changes;
    pthread_rwlock_t binding;
};

int nm_port_create(struct nm_region *region, const struct nm_port_config *config,
                   struct nm_port **out, struct nm_refusal *why);
/* No file may be registered on it any more. */
void nm_port_destroy(struct nm_port *port);
/* All ports of a region look again at where its buffers are; none of them has a ring that is bound.
 */
void nm_ports_follow(struct nm_region *region);
/* The MTU of the interface behind the port, in bytes; looked at when the first file registers. */
void nm_port_set_mtu(struct nm_port *port, uint32_t mtu);
/* What was behind the port has gone: from now on syncs fail, and every sleeper is woken to see it.
 */
void nm_port_gone(struct nm_port *port);

/* The next nm_file_register, which must follow while *offsets is there, is with the option OFFSETS.
 */
void nm_file_want_offsets(struct nm_file *file, struct nm_offsets *offsets);
/* Binds the rings that `request` asks for (mode, ringid, flags, extra buffers, host rings) and
 * completes it with what was given. The name, the version and the memory id are the caller's.
 * EBUSY  the file is bound already, a ring is held exclusively or by a program that sees it in
 *        another layout, or a switch holds the port
 * EINVAL no such mode or ring, nobody knows how that API's structs look, or the MTU does not fit
 *        the buffers, or these do not fit the program
 * EIO    the port is gone
 * what nm_offsets_check says
 * ENOMEM a pool is empty or its objects are too small */
int nm_file_register(struct nm_file *file, struct nm_port *port, struct nmreq_register *request,
                     struct nm_refusal *why);
/* Until then a registered file's syncs and polls find it unregistered, and it may be unregistered
 * although they go on: a program's threads need not wait for REGISTER to return. */
void nm_file_activate(struct nm_file *file);
/* Undoes it, giving back every ring nobody else uses and the extra buffers. No loop may run. */
void nm_file_unregister(struct nm_file *file);
/* What programs of API 5 and before may ask of a registered file (`changes`), whose syncs and polls
 * may go on meanwhile; sleepers wake. Other rings of the same port instead, the netmap_if staying
 * where it is: errors as of register, which leave everything as it was. And the end of all syncs,
 * so that it may be unregistered. */
int nm_file_rebind(struct nm_file *file, struct nmreq_register *request, struct nm_refusal *why);
void nm_file_deactivate(struct nm_file *file);
static inline uint32_t nm_file_rings(const struct nm_file *file, enum nm_dir dir) {
    return file->last[dir] - file->first[dir];
}

/* NIOCTXSYNC, NIOCRXSYNC: 0; -ENXIO not registered; -EBUSY its indices are elsewhere (CSB); -EIO
 * the port is gone; NM_NEEDS_CALLER. The caller is the thread that asks, while it waits for the
 * answer, or 0. */
int nm_file_sync(struct nm_file *file, enum nm_dir dir, uint32_t caller);
/* poll: the events that are true of POLLIN, POLLOUT and POLLERR, or NM_NEEDS_CALLER. With `arm` the
 * file's wake function will be called once if more may be true later. */
int nm_file_poll(struct nm_file *file, uint32_t events, bool arm, uint32_t caller);

/* A ring without a client's indices, for whoever drives it from within the daemon. One at a time:
 * lock waits for a sync that is under way; advance needs the lock and is a sync with these indices,
 * which must be on the ring. It publishes nothing. -EINVAL for head or cur out of bounds, else what
 * the port answers. A monitor may let packets into an RX ring that somebody else drives: its hwtail
 * moves whenever it is not locked. */
void nm_kring_lock(struct nm_kring *kring);
void nm_kring_unlock(struct nm_kring *kring);
int nm_kring_advance(struct nm_kring *kring, uint32_t head, uint32_t cur, uint32_t caller);
bool nm_kring_try_lock(struct nm_kring *kring);
/* What port_ops.forward is about, on the way to a sync: whether rings that say NR_FORWARD, or all,
 * are to, by their `flags`. */
void nm_kring_forward(const struct nm_file *file, struct nm_kring *kring, uint32_t head,
                      uint32_t flags);
/* A client got its ring wrong: slots are made harmless, and if an index that it left is outside the
 * ring, head, cur and tail are the engine's own again. */
void nm_kring_reinitialise(struct nm_kring *kring, uint32_t head, uint32_t cur);
/* Asks for one call of the file's wake function once any of its rings may make progress; to be
 * followed by a look at them. */
void nm_file_arm(struct nm_file *file);

/* Netmap's parameter no_timestamp: with it, only rings that say NR_TIMESTAMP get the time of their
 * latest RX sync. Any thread. */
void nm_set_no_timestamp(bool on);
/* The time, if a ring with these flags is to get it. */
void nm_stamp(uint32_t flags, struct timeval *ts);

/* Netmap's parameter fwd: all that is given back goes on, not only what says NS_FORWARD on rings
 * that say NR_FORWARD. Any thread. */
void nm_set_forward_all(bool on);

/* Called by a port's machinery, from any thread: this ring may make progress. */
void nm_kring_wake(struct nm_kring *kring);

static inline uint32_t nm_kring_next(const struct nm_kring *kring, uint32_t slot) {
    return slot + 1 == kring->num_slots ? 0 : slot + 1;
}

static inline uint32_t nm_kring_prev(const struct nm_kring *kring, uint32_t slot) {
    return slot ? slot - 1 : kring->num_slots - 1;
}

static inline uint32_t nm_kring_back(const struct nm_kring *kring, uint32_t slot, uint32_t slots) {
    return slot >= slots ? slot - slots : slot + kring->num_slots - slots;
}

/* Slots from `from` up to, not including, `to`. */
static inline uint32_t nm_kring_distance(const struct nm_kring *kring, uint32_t from, uint32_t to) {
    return to >= from ? to - from : to + kring->num_slots - from;
}

/* Where in its buffer the packet of a slot begins, in bytes. */
static inline uint32_t nm_slot_offset(const struct nm_kring *kring,
                                      const struct netmap_slot *slot) {
    if (!kring->offset_max) return 0;
    uint64_t offset = __atomic_load_n(&slot->ptr, __ATOMIC_RELAXED) & kring->offset_mask;
    return offset < kring->offset_max ? (uint32_t)offset : kring->offset_max;
}

/* Slots that may be filled: one always stays empty, so that full and empty differ. */
static inline uint32_t nm_kring_room(const struct nm_kring *kring, uint32_t from, uint32_t hwcur) {
    return kring->num_slots - 1 - nm_kring_distance(kring, hwcur, from);
}

/* It is bound, or of a pipe that is bound at its other end. */
static inline bool nm_kring_exists(const struct nm_kring *kring) {
    return kring->users || (kring->partner && kring->partner->users);
}

static inline uint32_t nm_port_total_rings(const struct nm_port *port, enum nm_dir dir) {
    return port->num_rings[dir] + port->num_host[dir];
}

#endif
