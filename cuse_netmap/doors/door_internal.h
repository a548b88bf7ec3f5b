/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of a door share: the dispatcher (door.c), the two kinds (fuse.c,
 * cuse.c), the inbox and the two transports (classic.c, uring.c). Not for anyone else. */
#ifndef CUSE_NETMAP_DOOR_INTERNAL_H
#define CUSE_NETMAP_DOOR_INTERNAL_H

#include <pthread.h>
#include <stddef.h>

#include "doors/door.h"
#include "doors/fuse_protocol.h"
#include "doors/spin.h"
#include "ring_core.h"

/* The largest argument or answer we exchange; the kernel wants room for 8 KiB and one page. */
#define NM_PAYLOAD 8192
#define NM_MAX_WRITE 4096

struct nm_open {
    struct nm_file file;
    struct nm_door *door;
    uint64_t id;
    uint64_t poll_handle;
    struct nm_spin spin;
    uint64_t closed_at;   /* ns, CLOCK_MONOTONIC: a close() that nothing has followed; 0: none */
    uint32_t parked;      /* requests of this file that wait */
    bool taken;           /* one of them is with control */
    struct nm_open *next; /* in the door's list of all opens */
    struct nm_open *prev;
    struct nm_open *next_release;
};

uint64_t nm_now_ns(void); /* CLOCK_MONOTONIC */

/* A request on its way in, wherever it came from. Valid only during the dispatch. */
struct nm_incoming {
    const struct fuse_in_header *header;
    const void *argument; /* the operation's own struct */
    size_t argument_size;
    void *queue, *entry; /* the transport's, for the ticket */
};

/* dispatch's answer when there will be one later, through the transport's reply. */
#define NM_PARKED (-0x10000)
/* dispatch's answer when the protocol wants none. */
#define NM_NO_REPLY (-0x10001)

/* The way back for a parked request's answer. */
struct nm_ticket {
    uint64_t unique;
    void *queue, *entry;
    uint32_t answer_size; /* bytes of a good answer: a word, then zeros */
};
#define NM_ANSWER_MOST sizeof(struct fuse_ioctl_out)

struct nm_transport_ops {
    const char *name;
    bool loses_interrupts; /* the kernel does not always tell of a caller's signal */
    /* Whether nothing but the request under way waits for the thread of a queue, which then may
     * take its time. NULL: that cannot be told. */
    bool (*idle)(void *queue);
    /* Starts serving; INIT is done. -errno. */
    int (*start)(struct nm_door *door, struct nm_refusal *why);
    /* Joins the threads; the connection is aborted already. Also after a start that failed. */
    void (*stop)(struct nm_door *door);
    void (*destroy)(struct nm_door *door);
    /* Answers a parked request (the answer's word, or -errno), from any thread. */
    void (*reply)(struct nm_door *door, const struct nm_ticket *ticket, int result);
};

extern const struct nm_transport_ops nm_uring_transport, nm_classic_transport;

/* What differs between FUSE and CUSE once a door is open. */
struct nm_door_kind {
    /* Ends the connection: waiting system calls fail, the transport's reads return ENODEV. False if
     * that cannot be done. */
    bool (*cut)(struct nm_door *door);
    /* Registers another file for the kernel to map: its id, > 0, or -errno. NULL: the kernel maps
     * nothing. */
    int32_t (*back)(struct nm_door *door, int memfd, struct nm_refusal *why);
    /* The file behind the door is another one by now: the id it had is done with. */
    void (*backed_anew)(struct nm_door *door, int32_t old);
};

#define NM_DOOR_NAME 32

struct nm_door {
    const struct nm_door_kind *kind;
    int device;              /* /dev/fuse or /dev/cuse */
    int mount;               /* FUSE: the mount until it is attached, then -1 */
    int mount_id;            /* the kernel's number of the attached mount; -1: none */
    char *path;              /* where it is attached */
    char name[NM_DOOR_NAME]; /* CUSE: of the device */
    struct nm_region *region;
    int32_t backing_id; /* 0: no passthrough */
    uint32_t mode, uid, gid;
    uint32_t minor;                           /* protocol in use */
    bool open;                                /* the door is complete */
    bool registered;                          /* CUSE: the kernel has made the device */
    bool lost;                                /* the connection was ended, by us or by others */
    const struct nm_transport_ops *transport; /* of all but what only read/write can carry */
    void *transport_state;
    struct nm_inbox *inbox;
    pthread_mutex_t opens_lock;
    struct nm_open *first_open;
    struct nm_readers *readers;
};

/* door.c. NULL: no memory. */
struct nm_door *nm_door_create(const struct nm_door_kind *kind, struct nm_region *region,
                               struct nm_inbox *inbox);
/* The end of opening: a door that failed (error: -errno) is taken down again. */
int nm_door_opened(struct nm_door *door, int error, struct nm_door **result);
/* The connection has ended, by us or by others: from a transport's thread. */
void nm_door_lost(struct nm_door *door);
/* The bytes of `out` (room for NM_PAYLOAD) that answer, or -errno, NM_PARKED, NM_NO_REPLY.
 */
int nm_door_dispatch(struct nm_door *door, const struct nm_incoming *in, void *out);

#define NM_PARKED_MOST 248 /* by all users together; the transports have room for them */

/* inbox.c, the doors' side: NM_PARKED, or -EBUSY (too many of this file wait), -ENOMEM, -ENODEV. */
int nm_inbox_park(struct nm_door *door, const struct nm_incoming *in, struct nm_open *open);
void nm_inbox_interrupt(struct nm_door *door, uint64_t unique);
void nm_inbox_release(struct nm_door *door, struct nm_open *open);

/* classic.c: threads that read /dev/fuse. */
int nm_readers_start(struct nm_door *door, uint32_t threads);
void nm_readers_stop(struct nm_door *door);
/* Writes one message to the kernel: an answer, or (unique 0) a notification; -errno. */
int nm_door_write(struct nm_door *door, uint64_t unique, int error, const void *data, size_t size);

#endif
