/* SPDX-License-Identifier: BSD-2-Clause */
/* A door: how system calls on the device get in. Sync and poll are answered here by the engine;
 * every other ioctl, and every release, is handed to control, which takes them with nm_door_next
 * and nm_door_next_release. */
#ifndef CUSE_NETMAP_DOOR_H
#define CUSE_NETMAP_DOOR_H

#include <stdbool.h>
#include <stdint.h>

#include "refusal.h"
#include "region.h"

struct nm_door;
struct nm_open;
struct nm_file;

enum nm_transport { NM_TRANSPORT_AUTO, NM_TRANSPORT_URING, NM_TRANSPORT_CLASSIC };

struct nm_door_config {
    const char *path;  /* an existing regular file that the mount covers */
    uint32_t mode;     /* permission bits of the device */
    uint32_t uid, gid; /* its owner */
    enum nm_transport transport;
};

/* An ioctl that waits for control's answer. */
struct nm_request {
    struct nm_open *open;
    uint64_t argument; /* the ioctl's third argument, in the caller's address space */
    uint32_t command;
    uint32_t pid; /* the calling thread's; somebody else's, perhaps, once it is answered */
    uint32_t uid, gid;
};

/* An ioctl that was refused at the door, for the log. */
struct nm_turned_away {
    uint32_t pid, command;
    char program[16]; /* the thread's name: it has its answer and may be gone */
    const char *reason;
};

/* Mounts the one-file filesystem and starts serving it.
 * EOPNOTSUPP: this kernel has no passthrough, or not the transport asked for; else -errno of the
 * system call that failed, with *why saying which. */
int nm_fuse_door_open(const struct nm_door_config *config, struct nm_region *region,
                      struct nm_door **out, struct nm_refusal *why);
/* Unmounts, ends every request with ENODEV and joins the threads; control's takers return. The
 * opens stay valid until nm_door_destroy. False if something else is mounted over ours: then the
 * threads go on until the process ends, and nothing of the door may be destroyed. */
bool nm_door_stop(struct nm_door *door);
void nm_door_destroy(struct nm_door *door);
const char *nm_door_transport(const struct nm_door *door); /* "uring" or "classic" */

/* Takes the next request, waiting for it: 1; 0 if one was turned away instead, with *turned_away
 * saying which; -ESHUTDOWN. One request of a file is out at a time, and no user may hold all
 * takers. */
int nm_door_next(struct nm_door *door, struct nm_request **out, struct nm_turned_away *turned_away);
/* Has the caller gone, with EINTR? What is not decided yet need not be. */
bool nm_door_abandoned(struct nm_door *door, struct nm_request *request);
/* Moves bytes of the caller's memory, sleeping as long as its pages make us. -EFAULT; -EPERM the
 * kernel forbids it; -ESRCH the caller is out of our sight; -EINTR it has gone. */
int nm_request_read(struct nm_door *door, struct nm_request *request, uint64_t address,
                    void *buffer, size_t size);
int nm_request_write(struct nm_door *door, struct nm_request *request, uint64_t address,
                     const void *buffer, size_t size);
/* From now on the caller waits for the answer, which follows at once; false if it has gone, and
 * whatever was done for it is to be undone. */
bool nm_door_commit(struct nm_door *door, struct nm_request *request);
/* Answers a request, if its caller is still there: error is 0 or a negative errno. */
void nm_door_reply(struct nm_door *door, struct nm_request *request, int error);

/* Takes the next file to be released, waiting for it: all its system calls have returned. The taker
 * unregisters it and gives it back with nm_open_destroy. 1; -ESHUTDOWN. */
int nm_door_next_release(struct nm_door *door, struct nm_open **out);
void nm_open_destroy(struct nm_open *open);
/* Files that are released but not taken yet. */
uint32_t nm_door_releases_queued(struct nm_door *door);

struct nm_file *nm_open_file(struct nm_open *open);
uint64_t nm_open_id(const struct nm_open *open); /* never used twice */
/* close() was called on one of the file's descriptors, and nothing else since: perhaps the last. */
bool nm_open_perhaps_closing(const struct nm_open *open);

#endif
