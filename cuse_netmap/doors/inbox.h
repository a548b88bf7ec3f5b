/* SPDX-License-Identifier: BSD-2-Clause */
/* Where control takes its work from: the ioctls that wait for an answer and the files that wait to
 * be released, whatever door they came by. Sync and poll never come here. */
#ifndef CUSE_NETMAP_INBOX_H
#define CUSE_NETMAP_INBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NM_REQUEST_POLL 0

struct nm_inbox;
struct nm_open;
struct nm_file;

/* An ioctl that waits for control's answer; or a poll, its command NM_REQUEST_POLL, that needs the
 * caller's memory. */
struct nm_request {
    struct nm_open *open;
    uint64_t
        argument; /* the ioctl's third argument, in the caller's address space; poll's events */
    uint32_t command;
    uint32_t pid; /* the calling thread's; somebody else's, perhaps, once it is answered */
    uint32_t uid, gid;
};

/* An ioctl that was refused with EBUSY before control saw it, for the log. */
struct nm_turned_away {
    uint32_t pid, command;
    char program[16]; /* the thread's name: it has its answer and may be gone */
    const char *reason;
};

int nm_inbox_create(struct nm_inbox **out);
/* Takers return -ESHUTDOWN from now on, and what is parked is not answered any more. */
void nm_inbox_shut(struct nm_inbox *inbox);
/* Only when the doors are stopped and no taker is left. */
void nm_inbox_destroy(struct nm_inbox *inbox);

/* Takes the next request, waiting for it: 1; 0 if one was turned away instead, with *turned_away
 * saying which; -ESHUTDOWN. One request of a file is out at a time, and no user may hold all
 * takers. */
int nm_inbox_next(struct nm_inbox *inbox, struct nm_request **out,
                  struct nm_turned_away *turned_away);
/* Has the caller gone, with EINTR? What is not decided yet need not be. */
bool nm_inbox_abandoned(struct nm_inbox *inbox, struct nm_request *request);
/* From now on the caller waits for the answer, which follows at once; false if it has gone, and
 * whatever was done for it is to be undone. */
bool nm_inbox_commit(struct nm_inbox *inbox, struct nm_request *request);
/* Answers a request, if its caller is still there: with 0, with poll's events, or a negative errno.
 */
void nm_inbox_reply(struct nm_inbox *inbox, struct nm_request *request, int result);
/* Keeps a request for an answer that may take for ever: it is in control's hands no more, so that
 * other requests of its file are taken. `cut`, which may be NULL, is called with the inbox locked,
 * from any thread, once nobody needs the answer any more, and again every 50 ms until
 * nm_inbox_reply is called, which must not be long. */
typedef void nm_cut_call(void *arg);
void nm_inbox_hold(struct nm_inbox *inbox, struct nm_request *request, nm_cut_call *cut, void *arg);
/* The engine's answer to a sync or poll whose slots point into the caller's memory, for which this
 * may wait. */
int nm_request_sync(struct nm_inbox *inbox, const struct nm_request *request);

/* The memory of the request's caller, as nm_client_read and nm_client_write; -EINTR once the caller
 * has gone, whose thread id may be somebody else's by then. */
int nm_request_read(struct nm_inbox *inbox, struct nm_request *request, uint64_t address,
                    void *buffer, size_t size);
int nm_request_write(struct nm_inbox *inbox, struct nm_request *request, uint64_t address,
                     const void *buffer, size_t size);

/* Takes the next file to be released, waiting for it: all its system calls have returned. The taker
 * unregisters it and gives it back with nm_open_destroy. 1; -ESHUTDOWN. */
int nm_inbox_next_release(struct nm_inbox *inbox, struct nm_open **out);
void nm_open_destroy(struct nm_open *open);
/* Files that are released but not taken yet. */
uint32_t nm_inbox_releases_queued(struct nm_inbox *inbox);

struct nm_file *nm_open_file(struct nm_open *open);
uint64_t nm_open_id(const struct nm_open *open); /* never used twice */
/* close() was called on one of the file's descriptors a moment ago, and nothing else since: perhaps
 * it was the last. */
bool nm_open_perhaps_closing(const struct nm_open *open);
/* The kernel maps the memory for it; otherwise the program needs the helper. */
bool nm_open_mappable(const struct nm_open *open);

#endif
