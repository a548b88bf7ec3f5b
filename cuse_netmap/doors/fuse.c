/* SPDX-License-Identifier: BSD-2-Clause */
/* The FUSE door: a filesystem of one file, mounted over a file, and what each operation on it
 * means. Its transports carry the operations (classic.c, uring.c); the inbox holds those that
 * wait. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "barrier.h"
#include "doors/door_internal.h"
#include "doors/inbox.h"

#define ATTRIBUTES_VALID (365ull * 24 * 3600) /* seconds: they change only through us */
#define INIT_TIMEOUT_MS 5000
#define CLOSING_NS 400000000ull /* a RELEASE comes that long after its close() at worst */
#define BACKGROUND 2 /* asynchronous requests (RELEASE) in flight: a quarter of a queue's depth */

/* ---- files ------------------------------------------------------------------------------------
 */

static void wake_poller(struct nm_file *file) {
    struct nm_open *open = (struct nm_open *)file;
    struct fuse_notify_poll_wakeup_out wakeup = {.kh = READ_ONCE(open->poll_handle)};
    nm_door_write(open->door, 0, FUSE_NOTIFY_POLL, &wakeup, sizeof(wakeup));
}

static struct nm_open *open_create(struct nm_door *door) {
    struct nm_open *open = calloc(1, sizeof(*open));
    if (!open) return NULL;
    open->door = door;
    open->file.wake = wake_poller;
    pthread_mutex_lock(&door->opens_lock);
    open->id = ++door->next_id;
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
    /* DIRECT_IO: read and write come to us, to be refused, instead of reaching packet memory. */
    *out = (struct nm_fuse_open_out){.fh = (uint64_t)(uintptr_t)open,
                                     .open_flags = NM_FOPEN_PASSTHROUGH | FOPEN_DIRECT_IO,
                                     .backing_id = door->backing_id};
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
        int error = nm_file_sync(&open->file, ioctl_in->cmd == NIOCTXSYNC ? NM_TX : NM_RX);
        if (!error) {
            *out = (struct fuse_ioctl_out){0};
            return sizeof(*out);
        }
        /* Control refuses it, so that the log has its line like every other refusal. */
    }
    return nm_inbox_park(door, in, open);
}

static int do_poll(const struct fuse_poll_in *in, struct fuse_poll_out *out) {
    struct nm_open *open = opened(in->fh);
    bool schedule = in->flags & FUSE_POLL_SCHEDULE_NOTIFY;
    WRITE_ONCE(open->closed_at, 0);
    if (schedule) WRITE_ONCE(open->poll_handle, in->kh);
    *out = (struct fuse_poll_out){.revents = nm_file_poll(&open->file, in->events, schedule)};
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
        return do_poll(in->argument, out);
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

/* ---- coming up --------------------------------------------------------------------------------
 */

/* A detached mount: it appears at the path only when everything behind it is ready. */
static int make_mount(struct nm_door *door, struct nm_refusal *why) {
    struct {
        const char *key;
        char value[16];
    } options[] = {{"fd", ""}, {"rootmode", ""}, {"user_id", "0"}, {"group_id", "0"}};
    snprintf(options[0].value, sizeof(options[0].value), "%d", door->device);
    snprintf(options[1].value, sizeof(options[1].value), "%o", S_IFREG | door->mode);
    static const char *const flags[] = {"allow_other", "default_permissions"};

    int fs = fsopen("fuse", FSOPEN_CLOEXEC);
    if (fs < 0) return nm_refuse(why, errno, "fsopen(fuse): %s", strerror(errno));
    int error = fsconfig(fs, FSCONFIG_SET_STRING, "source", "cuse-netmap", 0);
    for (size_t i = 0; !error && i < sizeof(options) / sizeof(options[0]); i++)
        error = fsconfig(fs, FSCONFIG_SET_STRING, options[i].key, options[i].value, 0);
    for (size_t i = 0; !error && i < sizeof(flags) / sizeof(flags[0]); i++)
        error = fsconfig(fs, FSCONFIG_SET_FLAG, flags[i], NULL, 0);
    if (!error) error = fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (!error) {
        door->mount = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
        error = door->mount < 0;
    }
    if (error) error = nm_refuse(why, errno, "making the FUSE mount: %s", strerror(errno));
    close(fs);
    return error;
}

/* The kernel's number of the mount that a path leads to, -1 if that cannot be told. The file system
 * is not asked. */
static int mount_id(int folder, const char *path, int flags) {
    struct file_handle handle = {.handle_bytes = 0};
    int id = -1;
    /* EOVERFLOW, there is no room for the handle; the id is all we want. */
    name_to_handle_at(folder, path, &handle, &id, flags);
    return id;
}

static int attach_mount(struct nm_door *door, const char *path, struct nm_refusal *why) {
    door->path = strdup(path);
    if (!door->path) return nm_refuse(why, ENOMEM, "out of memory");
    int id = mount_id(door->mount, "", AT_EMPTY_PATH);
    if (move_mount(door->mount, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        return nm_refuse(why, errno, "mounting on %s: %s", path, strerror(errno));
    door->mount_id = id;
    /* Held open it would keep the file system when somebody unmounts it, and we would not know. */
    close(door->mount);
    door->mount = -1;
    return 0;
}

/* Aborts the connection (every waiting client is freed) and takes the mount away; one that somebody
 * else has already removed is fine. False if something else lies over it: it stays, and with it the
 * connection. */
static bool remove_mount(struct nm_door *door) {
    if (door->mount >= 0) close(door->mount); /* never attached: that ends it */
    door->mount = -1;
    if (door->mount_id < 0) return true;
    int found = mount_id(AT_FDCWD, door->path, 0);
    if (found != door->mount_id) return READ_ONCE(door->lost);
    door->mount_id = -1;
    return umount2(door->path, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
}

static int handshake(struct nm_door *door, enum nm_transport wanted, struct nm_refusal *why) {
    char buffer[FUSE_MIN_READ_BUFFER * 2];
    struct pollfd ready = {.fd = door->device, .events = POLLIN};
    if (poll(&ready, 1, INIT_TIMEOUT_MS) <= 0)
        return nm_refuse(why, ETIMEDOUT, "the kernel did not start the FUSE connection");
    ssize_t size = read(door->device, buffer, sizeof(buffer));
    if (size < 0) return nm_refuse(why, errno, "reading /dev/fuse: %s", strerror(errno));
    const struct fuse_in_header *header = (const struct fuse_in_header *)buffer;
    struct nm_fuse_init_in in = {0};
    size_t given = (size_t)size - sizeof(*header);
    memcpy(&in, header + 1, given < sizeof(in) ? given : sizeof(in));
    if (header->opcode != FUSE_INIT || in.major != FUSE_KERNEL_VERSION)
        return nm_refuse(why, EPROTO, "the kernel speaks FUSE %u, not 7", in.major);

    bool uring = in.flags2 & NM_FUSE_OVER_IO_URING2 && wanted != NM_TRANSPORT_CLASSIC;
    struct nm_fuse_init_out out = {
        .major = FUSE_KERNEL_VERSION,
        .minor = in.minor < NM_FUSE_MINOR_WANTED ? in.minor : NM_FUSE_MINOR_WANTED,
        .max_readahead = in.max_readahead,
        .flags = FUSE_INIT_EXT | FUSE_ATOMIC_O_TRUNC | FUSE_MAX_PAGES,
        .flags2 = NM_FUSE_PASSTHROUGH2 | (uring ? NM_FUSE_OVER_IO_URING2 : 0),
        .max_background = BACKGROUND,
        .congestion_threshold = BACKGROUND,
        .max_write = NM_MAX_WRITE,
        .time_gran = 1,
        .max_pages = 1,
        .max_stack_depth = 1,
    };
    if (!(in.flags2 & NM_FUSE_PASSTHROUGH2))
        return nm_refuse(why, EOPNOTSUPP,
                         "this kernel's FUSE (7.%u) has no passthrough, so programs could not mmap "
                         "the device: Linux 6.9 or later is needed",
                         in.minor);
    if (wanted == NM_TRANSPORT_URING && !uring)
        return nm_refuse(why, EOPNOTSUPP,
                         "this kernel does not offer FUSE over io_uring: it takes Linux 6.14 and "
                         "/sys/module/fuse/parameters/enable_uring set to Y");
    door->minor = out.minor;
    door->transport = uring ? &nm_uring_transport : &nm_classic_transport;
    int error = nm_door_write(door, header->unique, 0, &out, sizeof(out));
    if (error) return nm_refuse(why, -error, "answering FUSE INIT: %s", strerror(-error));

    struct nm_fuse_backing_map map = {.fd = nm_region_memfd(door->region)};
    door->backing_id = ioctl(door->device, NM_FUSE_BACKING_OPEN, &map);
    if (door->backing_id <= 0)
        return nm_refuse(why, errno, "FUSE passthrough to packet memory: %s", strerror(errno));
    return 0;
}

int nm_fuse_door_open(const struct nm_door_config *config, struct nm_region *region,
                      struct nm_inbox *inbox, struct nm_door **result, struct nm_refusal *why) {
    struct nm_door *door = calloc(1, sizeof(*door));
    if (!door) return nm_refuse(why, ENOMEM, "out of memory");
    *door = (struct nm_door){.device = -1,
                             .mount = -1,
                             .mount_id = -1,
                             .region = region,
                             .inbox = inbox,
                             .mode = config->mode,
                             .uid = config->uid,
                             .gid = config->gid};
    pthread_mutex_init(&door->opens_lock, NULL);
    door->device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    int error = door->device < 0 ? nm_refuse(why, errno, "/dev/fuse: %s", strerror(errno)) : 0;
    if (!error) error = make_mount(door, why);
    if (!error) error = handshake(door, config->transport, why);
    if (!error) error = door->transport->start(door, why);
    if (!error) error = attach_mount(door, config->path, why);
    if (error) {
        nm_door_stop(door);
        nm_door_destroy(door);
        return error;
    }
    *result = door;
    return 0;
}

const char *nm_door_transport(const struct nm_door *door) { return door->transport->name; }

bool nm_door_stop(struct nm_door *door) {
    if (!remove_mount(door)) return false;
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
