/* SPDX-License-Identifier: BSD-2-Clause */
/* The FUSE door: a filesystem of one file, mounted over a file, whose memory the kernel maps by
 * passthrough. What the operations on it mean is door.c's. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "barrier.h"
#include "doors/door_internal.h"

#define INIT_TIMEOUT_MS 5000
#define BACKGROUND 2 /* asynchronous requests (RELEASE) in flight: a quarter of a queue's depth */

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
static bool cut(struct nm_door *door) {
    if (door->mount >= 0) close(door->mount); /* never attached: that ends it */
    door->mount = -1;
    if (door->mount_id < 0) return true;
    int found = mount_id(AT_FDCWD, door->path, 0);
    if (found != door->mount_id) return READ_ONCE(door->lost);
    door->mount_id = -1;
    return umount2(door->path, MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) == 0;
}

static int32_t back(struct nm_door *door, int memfd, struct nm_refusal *why) {
    struct nm_fuse_backing_map map = {.fd = memfd};
    int32_t id = ioctl(door->device, NM_FUSE_BACKING_OPEN, &map);
    if (id > 0) return id;
    return nm_refuse(why, errno, "FUSE passthrough to packet memory: %s", strerror(errno));
}

/* The kernel remembers the file's size until it is told (offset -1: but no pages). */
static void backed_anew(struct nm_door *door, int32_t old) {
    struct fuse_notify_inval_inode_out changed = {.ino = FUSE_ROOT_ID, .off = -1};
    ioctl(door->device, NM_FUSE_BACKING_CLOSE, &old);
    nm_door_write(door, 0, FUSE_NOTIFY_INVAL_INODE, &changed, sizeof(changed));
}

static const struct nm_door_kind fuse_kind = {.cut = cut, .back = back, .backed_anew = backed_anew};

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

    int32_t id = back(door, nm_region_memfd(door->region), why);
    if (id < 0) return id;
    door->backing_id = id;
    return 0;
}

int nm_fuse_door_open(const struct nm_door_config *config, struct nm_region *region,
                      struct nm_inbox *inbox, struct nm_door **result, struct nm_refusal *why) {
    struct nm_door *door = nm_door_create(&fuse_kind, region, inbox);
    if (!door) return nm_refuse(why, ENOMEM, "out of memory");
    door->mode = config->mode;
    door->uid = config->uid;
    door->gid = config->gid;
    door->device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    int error = door->device < 0 ? nm_refuse(why, errno, "/dev/fuse: %s", strerror(errno)) : 0;
    if (!error) error = make_mount(door, why);
    if (!error) error = handshake(door, config->transport, why);
    if (!error) error = door->transport->start(door, why);
    if (!error) error = attach_mount(door, config->path, why);
    return nm_door_opened(door, error, result);
}
