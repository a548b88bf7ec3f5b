/* SPDX-License-Identifier: BSD-2-Clause */
/* The classic transport: threads that read requests from /dev/fuse and write the answers there.
 * Where io_uring carries the requests, one such thread still serves what it cannot carry (FORGET,
 * INTERRUPT, and whatever arrives before the queues are up). */
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "doors/door_internal.h"

#define READERS_MAX 64

struct nm_readers {
    uint32_t count;
    pthread_t threads[READERS_MAX];
};

int nm_door_write(struct nm_door *door, uint64_t unique, int error, const void *data, size_t size) {
    struct fuse_out_header header = {
        .len = (uint32_t)(sizeof(header) + size), .error = error, .unique = unique};
    struct iovec parts[2] = {{&header, sizeof(header)}, {(void *)data, size}};
    /* A request that the kernel has given up on is answered with ENOENT: nothing to mend. */
    return writev(door->device, parts, size ? 2 : 1) < 0 ? -errno : 0;
}

static void serve(struct nm_door *door, const char *buffer, size_t size, void *out) {
    struct nm_incoming in = {.header = (const struct fuse_in_header *)buffer,
                             .argument = buffer + sizeof(struct fuse_in_header),
                             .argument_size = size - sizeof(struct fuse_in_header)};
    int result = nm_door_dispatch(door, &in, out);
    if (result == NM_PARKED || result == NM_NO_REPLY) return;
    nm_door_write(door, in.header->unique, result < 0 ? result : 0, out,
                  result > 0 ? (size_t)result : 0);
}

static void *read_requests(void *arg) {
    struct nm_door *door = arg;
    _Alignas(8) char buffer[FUSE_MIN_READ_BUFFER + NM_PAYLOAD];
    _Alignas(8) char out[NM_PAYLOAD];
    for (;;) {
        ssize_t size = read(door->device, buffer, sizeof(buffer));
        if (size >= (ssize_t)sizeof(struct fuse_in_header)) {
            serve(door, buffer, (size_t)size, out);
        } else if (size < 0 && errno != EINTR && errno != EAGAIN && errno != ENOENT) {
            nm_door_lost(door); /* ENODEV: unmounted or aborted, by us or by others */
            return NULL;
        }
    }
}

int nm_readers_start(struct nm_door *door, uint32_t threads) {
    door->readers = calloc(1, sizeof(*door->readers));
    if (!door->readers) return -ENOMEM;
    if (threads > READERS_MAX) threads = READERS_MAX;
    for (uint32_t i = 0; i < threads; i++) {
        int error = pthread_create(&door->readers->threads[i], NULL, read_requests, door);
        if (error) return -error;
        door->readers->count++;
    }
    return 0;
}

void nm_readers_stop(struct nm_door *door) {
    if (!door->readers) return;
    for (uint32_t i = 0; i < door->readers->count; i++)
        pthread_join(door->readers->threads[i], NULL);
    free(door->readers);
    door->readers = NULL;
}

static int start(struct nm_door *door, struct nm_refusal *why) {
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int error = nm_readers_start(door, (uint32_t)(cpus > 1 ? cpus : 2));
    return error ? nm_refuse(why, -error, "starting the readers: %s", strerror(-error)) : 0;
}

static void destroy(struct nm_door *door) { (void)door; }

static void reply(struct nm_door *door, const struct nm_ticket *ticket, int result) {
    int answer[NM_ANSWER_MOST / sizeof(int)] = {result};
    nm_door_write(door, ticket->unique, result < 0 ? result : 0, answer,
                  result < 0 ? 0 : ticket->answer_size);
}

const struct nm_transport_ops nm_classic_transport = {
    .name = "classic", .start = start, .stop = nm_readers_stop, .destroy = destroy, .reply = reply};
