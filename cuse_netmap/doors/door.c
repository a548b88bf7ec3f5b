/* SPDX-License-Identifier: BSD-2-Clause */
/* What is the same behind every door: the open files, and what each operation on them means. How a
 * door comes to be is fuse.c's and cuse.c's; what carries the operations, the transports'. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "barrier.h"
#include "doors/door_internal.h"
#include "doors/inbox.h"

#define CLOSING_NS 400000000ull /* a RELEASE comes that long after its close() at worst */
#define ATTRIBUTES_VALID (365ull * 24 * 3600) /* seconds: they change only through us */

/* ---- files ------------------------------------------------------------------------------------
 */

static void notify_kernel(struct nm_open *open) {
    struct fuse_notify_poll_wakeup_out wakeup = {.kh = READ_ONCE(open->poll_handle)};
    nm_door_write(open->door, 0, FUSE_NOTIFY_POLL, &wakeup, sizeof(wakeup));
}

static void wake_poller(struct nm_file *file) {
    struct nm_open *open = (struct nm_open *)file;
    if (!nm_spin_caught(&open->spin)) notify_kernel(open);
}

static uint64_t last_id; /* of all doors' files */

static struct nm_open *open_create(struct nm_door *door) {
    struct nm_open *open = calloc(1, sizeof(*open));
    if (!open) return NULL;
    open->door = door;
    open->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    open->file.wake = wake_poller;
    pthread_mutex_lock(&door->opens_lock);
    open->next = door->first_open;
    if (open->next) open->next->prev = open;
    door->first_open = open;
    pthread_mutex_unlock(&door->opens_lock);
    return open;
}

void nm_open_destroy(struct nm_open *open) {
    struct nm_door *door = open->door;
    pthread_mutex_lock(&door->opens_lock);
    if (open->prev)
        open->prev->next = open->next;
    else
        door->first_open = open->next;
    if (open->next) open->next->prev = open->prev;
    pthread_mutex_unlock(&door->opens_lock);
    free(open);
}

struct nm_file *nm_open_file(struct nm_open *open) { return &open->file; }

uint64_t nm_open_id(const struct nm_open *open) { return open->id; }

bool nm_open_perhaps_closing(const struct nm_open *open) {
    uint64_t closed_at = READ_ONCE(open->closed_at);
    return closed_at && nm_now_ns() - closed_at < CLOSING_NS;
}

bool nm_open_mappable(const struct nm_open *open) { return open->door->backing_id != 0; }

/* ---- operations -------------------------------------------------------------------------------
 */

static int fill_attributes(struct nm_door *door, struct fuse_attr_out *out) {
    *out = (struct fuse_attr_out){
        .attr_valid = ATTRIBUTES_VALID,
        .attr = {.ino = FUSE_ROOT_ID,
                 .size = nm_region_size(door->region),
                 .mode = S_IFREG | door->mode,
                 .nlink = 1,
                 .uid = door->uid,
                 .gid = door->gid,
                 .blksize = 4096},
    };
    return sizeof(*out);
}

/* chmod and chown as on any device node; a new size or time means nothing, as there. */
static int set_attributes(struct nm_door *door, const struct fuse_setattr_in *in,
                          struct fuse_attr_out *out) {
    if (in->valid & FATTR_MODE) door->mode = in->mode & 07777;
    if (in->valid & FATTR_UID) door->uid = in->uid;
    if (in->valid & FATTR_GID) door->gid = in->gid;
    return fill_attributes(door, out);
}

static int open_file(struct nm_door *door, struct nm_fuse_open_out *out) {
    struct nm_open *open = open_create(door);
    if (!open) return -ENOMEM;
    *out = (struct nm_fuse_open_out){.fh = (uint64_t)(uintptr_t)open};
    /* Read after the file has joined the door's opens: from then on it does not change. */
    if (door->backing_id) {
        /* DIRECT_IO: read and write come to us, to be refused, instead of reaching packet memory.
         */
        out->open_flags = NM_FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO;
        out->backing_id = door->backing_id;
    }
    return sizeof(*out);
}

/* The kernel gives back the handle it was given at open, and to nobody else. */
static struct nm_open *opened(uint64_t handle) { return (struct nm_open *)(uintptr_t)handle; }

static int do_ioctl(struct nm_door *door, const struct nm_incoming *in,
                    struct fuse_ioctl_out *out) {
    const struct fuse_ioctl_in *ioctl_in = in->argument;
    struct nm_open *open = opened(ioctl_in->fh);
    WRITE_ONCE(open->closed_at, 0);
    if (ioctl_in->cmd == NIOCTXSYNC || ioctl_in->cmd == NIOCRXSYNC) {
        int error = nm_file_sync(&open->file, ioctl_in->cmd == NIOCTXSYNC ? NM_TX : NM_RX, 0);
        if (!error) {
            *out = (struct fuse_ioctl_out){0};
            return sizeof(*out);
        }
        /* Control refuses it, so that the log has its line like every other refusal, or calls again
         * where slots point into the caller's memory. */
    }
    return nm_inbox_park(door, in, open);
}

/* Whether this poll may wait for a wake. A second thread that polls the file either sees that, or
 * is seen here. */
static bool may_wait(struct nm_open *open, uint32_t tid) {
    if (!nm_spin_begin(&open->spin)) return false;
    if (nm_spin_alone(&open->spin, tid)) return true;
    if (nm_spin_end(&open->spin)) notify_kernel(open);
    return false;
}

/* For a poll that may sleep: its look, and a second one if it was worth waiting for. */
static int poll_or_wait(struct nm_open *open, const struct nm_incoming *in, uint32_t events) {
    struct nm_spin *spin = &open->spin;
    const struct nm_transport_ops *transport = open->door->transport;
    if (!transport->idle || !nm_spin_alone(spin, in->header->pid))
        return nm_file_poll(&open->file, events, true, 0);
    bool waits = may_wait(open, in->header->pid);
    int revents = nm_file_poll(&open->file, events, true, 0);
    if (waits && revents && nm_spin_end(spin)) notify_kernel(open); /* of what came since */
    nm_spin_learn(spin, revents != 0);
    if (waits && !revents && nm_spin_wait(spin, transport->idle, in->queue))
        revents = nm_file_poll(&open->file, events, true, 0);
    if (!revents) nm_spin_sleeps(spin);
    return revents;
}

static int do_poll(struct nm_door *door, const struct nm_incoming *in, struct fuse_poll_out *out) {
    const struct fuse_poll_in *poll_in = in->argument;
    struct nm_open *open = opened(poll_in->fh);
    WRITE_ONCE(open->closed_at, 0);
    int revents;
    if (poll_in->flags & FUSE_POLL_SCHEDULE_NOTIFY) {
        WRITE_ONCE(open->poll_handle, poll_in->kh);
        revents = poll_or_wait(open, in, poll_in->events);
    } else {
        revents = nm_file_poll(&open->file, poll_in->events, false, 0);
    }
    if (revents < 0) return nm_inbox_park(door, in, open);
    *out = (struct fuse_poll_out){.revents = (uint32_t)revents};
    return sizeof(*out);
}

/* The least an operation's argument must have; what the kernel sends is never shorter. */
static size_t argument_needed(uint32_t opcode) {
    switch (opcode) {
    case FUSE_IOCTL:
        return sizeof(struct fuse_ioctl_in);
    case FUSE_POLL:
        return sizeof(struct fuse_poll_in);
    case FUSE_SETATTR:
        return sizeof(struct fuse_setattr_in);
    case FUSE_RELEASE:
        return sizeof(struct fuse_release_in);
    case FUSE_FLUSH:
        return sizeof(struct fuse_flush_in);
    case FUSE_INTERRUPT:
        return sizeof(struct fuse_interrupt_in);
    default:
        return 0;
    }
}

int nm_door_dispatch(struct nm_door *door, const struct nm_incoming *in, void *out) {
    if (in->argument_size < argument_needed(in->header->opcode)) return -EINVAL;
    switch (in->header->opcode) {
    case FUSE_IOCTL:
        return do_ioctl(door, in, out);
    case FUSE_POLL:
        return do_poll(door, in, out);
    case FUSE_GETATTR:
        return fill_attributes(door, out);
    case FUSE_SETATTR:
        return set_attributes(door, in->argument, out);
    case FUSE_OPEN:
        return open_file(door, out);
    case FUSE_FLUSH:
        WRITE_ONCE(opened(((const struct fuse_flush_in *)in->argument)->fh)->closed_at,
                   nm_now_ns());
        return 0;
    case FUSE_RELEASE:
        nm_inbox_release(door, opened(((const struct fuse_release_in *)in->argument)->fh));
        return 0;
    case FUSE_INTERRUPT:
        nm_inbox_interrupt(door, ((const struct fuse_interrupt_in *)in->argument)->unique);
        return NM_NO_REPLY;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
        return NM_NO_REPLY;
    case FUSE_DESTROY:
        return 0;
    case FUSE_STATFS:
        memset(out, 0, sizeof(struct fuse_statfs_out));
        return sizeof(struct fuse_statfs_out);
    case FUSE_READ:
    case FUSE_WRITE:
    case FUSE_FSYNC:
    case FUSE_LSEEK:
        return -EINVAL; /* netmap's device has none of these */
    case FUSE_FALLOCATE:
        return -EOPNOTSUPP; /* ENOSYS would be as good, but the kernel would remember it */
    default:
        return -ENOSYS;
    }
}

/* ---- life -------------------------------------------------------------------------------------
 */

struct nm_door *nm_door_create(const struct nm_door_kind *kind, struct nm_region *region,
                               struct nm_inbox *inbox) {
    struct nm_door *door = calloc(1, sizeof(*door));
    if (!door) return NULL;
    *door =
        (struct nm_door){.kind = kind, .device = -1, .mount = -1, .region = region, .inbox = inbox};
    pthread_mutex_init(&door->opens_lock, NULL);
    return door;
}

int nm_door_opened(struct nm_door *door, int error, struct nm_door **result) {
    if (error) {
        /* One that cannot be stopped still has threads: better lost than freed under them. */
        if (nm_door_stop(door)) nm_door_destroy(door);
        return error;
    }
    WRITE_ONCE(door->open, true);
    full_barrier();
    if (READ_ONCE(door->lost)) nm_inbox_shut(door->inbox);
    *result = door;
    return 0;
}

void nm_door_lost(struct nm_door *door) {
    WRITE_ONCE(door->lost, true);
    full_barrier();
    /* A door that fails to open leaves the inbox to the others. */
    if (READ_ONCE(door->open)) nm_inbox_shut(door->inbox);
}

/* With the opens of all doors locked. */
static int swap_memory(struct nm_door *const *doors, uint32_t count, struct nm_region *region,
                       struct nm_region *fresh, struct nm_refusal *why) {
    struct nm_door *mapped = NULL; /* at most one door has a backing file */
    for (uint32_t i = 0; i < count; i++)
        if (doors[i]->backing_id) mapped = doors[i];
    if (mapped && mapped->first_open) return nm_refuse(why, EBUSY, "a program has the device open");
    if (!nm_region_unused(region)) return nm_refuse(why, EBUSY, "packet memory is in use");
    int32_t before = mapped ? mapped->backing_id : 0;
    if (mapped) {
        int32_t id = mapped->kind->back(mapped, nm_region_memfd(fresh), why);
        if (id < 0) return id;
        mapped->backing_id = id;
    }
    nm_region_replace(region, fresh);
    nm_ports_follow(region);
    if (mapped) mapped->kind->backed_anew(mapped, before);
    return 0;
}

int nm_doors_resize(struct nm_door *const *doors, uint32_t count, struct nm_region *region,
                    const struct nm_pool_request request[NM_POOLS], struct nm_refusal *why) {
    struct nm_region *fresh;
    int error = nm_region_create(request, &fresh, why);
    if (error) return error;
    for (uint32_t i = 0; i < count; i++)
        pthread_mutex_lock(&doors[i]->opens_lock);
    error = swap_memory(doors, count, region, fresh, why);
    for (uint32_t i = count; i-- > 0;)
        pthread_mutex_unlock(&doors[i]->opens_lock);
    if (error) nm_region_destroy(fresh);
    return error;
}

const char *nm_door_transport(const struct nm_door *door) { return door->transport->name; }

bool nm_door_stop(struct nm_door *door) {
    if (!door->kind->cut(door)) return false;
    if (door->transport) door->transport->stop(door);
    return true;
}

void nm_door_destroy(struct nm_door *door) {
    if (door->transport) door->transport->destroy(door);
    while (door->first_open)
        nm_open_destroy(door->first_open);
    if (door->device >= 0) close(door->device);
    free(door->path);
    pthread_mutex_destroy(&door->opens_lock);
    free(door);
}
