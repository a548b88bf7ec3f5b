/* SPDX-License-Identifier: BSD-2-Clause */
/* The CUSE door: a character device made through /dev/cuse, which speaks the same protocol as FUSE.
 * It has no mmap, from 2009 to today: programs map through the helper (preload/). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "doors/door_internal.h"

#define PATH_ROOM 128
#define INIT_TIMEOUT_MS 5000
#define NODE_WAIT_US 10000
#define NODE_WAITS 500
#define MINOR 11 /* ioctl and poll with notification are all we need */

static int attribute(const struct nm_door *door, const char *name, char path[PATH_ROOM]) {
    return snprintf(path, PATH_ROOM, "/sys/class/cuse/%s/%s", door->name, name);
}

/* Ends the connection: whoever waits is freed, and reads of /dev/cuse return. */
static bool cut(struct nm_door *door) {
    char path[PATH_ROOM];
    if (!door->registered) return true; /* a device of that name, if there is one, is not ours */
    attribute(door, "abort", path);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT; /* gone already */
    bool done = write(fd, "1", 1) == 1;
    close(fd);
    return done;
}

static const struct nm_door_kind cuse_kind = {.cut = cut};

static int read_init(struct nm_door *door, uint64_t *unique, struct nm_refusal *why) {
    char buffer[FUSE_MIN_READ_BUFFER];
    struct pollfd ready = {.fd = door->device, .events = POLLIN};
    if (poll(&ready, 1, INIT_TIMEOUT_MS) <= 0)
        return nm_refuse(why, ETIMEDOUT, "the kernel did not start the CUSE connection");
    ssize_t size = read(door->device, buffer, sizeof(buffer));
    if (size < 0) return nm_refuse(why, errno, "reading /dev/cuse: %s", strerror(errno));
    const struct fuse_in_header *header = (const struct fuse_in_header *)buffer;
    const struct cuse_init_in *in = (const struct cuse_init_in *)(header + 1);
    if (header->opcode != CUSE_INIT || in->major != FUSE_KERNEL_VERSION || in->minor < MINOR)
        return nm_refuse(why, EPROTO, "the kernel speaks CUSE %u.%u, not 7.%u", in->major,
                         in->minor, MINOR);
    *unique = header->unique;
    return 0;
}

/* The answer's second part, after cuse_init_out: what the device is called. */
static int answer_init(struct nm_door *door, uint64_t unique, struct nm_refusal *why) {
    struct {
        struct cuse_init_out out;
        char info[NM_DOOR_NAME + sizeof("DEVNAME=")];
    } answer = {.out = {.major = FUSE_KERNEL_VERSION,
                        .minor = FUSE_KERNEL_MINOR_VERSION,
                        .flags = CUSE_UNRESTRICTED_IOCTL,
                        .max_read = NM_MAX_WRITE,
                        .max_write = NM_MAX_WRITE}};
    int length = snprintf(answer.info, sizeof(answer.info), "DEVNAME=%s", door->name);
    size_t size = offsetof(typeof(answer), info) + (size_t)length + 1;
    int error = nm_door_write(door, unique, 0, &answer, size);
    if (error) return nm_refuse(why, -error, "answering CUSE INIT: %s", strerror(-error));
    /* The kernel makes the device inside that write; where it cannot it ends the connection. */
    struct pollfd state = {.fd = door->device};
    if (poll(&state, 1, 0) == 1 && state.revents & POLLERR)
        return nm_refuse(why, EEXIST, "the kernel did not make the device %s: is the name taken?",
                         door->name);
    door->registered = true;
    return 0;
}

/* devtmpfs makes the node a moment after the device. */
static int await_device(struct nm_door *door, struct nm_refusal *why) {
    char path[PATH_ROOM], node[PATH_ROOM];
    struct stat status;
    attribute(door, "abort", path);
    snprintf(node, sizeof(node), "/dev/%s", door->name);
    for (int i = 0; i < NODE_WAITS; i++) {
        if (access(path, F_OK) == 0 && stat(node, &status) == 0 && S_ISCHR(status.st_mode))
            return 0;
        usleep(NODE_WAIT_US);
    }
    return nm_refuse(why, ENOENT, "no node %s appeared: is /dev a devtmpfs?", node);
}

int nm_cuse_door_open(const char *name, struct nm_region *region, struct nm_inbox *inbox,
                      struct nm_door **result, struct nm_refusal *why) {
    struct nm_door *door = nm_door_create(&cuse_kind, region, inbox);
    if (!door) return nm_refuse(why, ENOMEM, "out of memory");
    uint64_t unique;
    snprintf(door->name, sizeof(door->name), "%s", name);
    door->transport = &nm_classic_transport;
    door->device = open("/dev/cuse", O_RDWR | O_CLOEXEC);
    int error = door->device < 0 ? nm_refuse(why, errno, "/dev/cuse: %s", strerror(errno)) : 0;
    if (!error) error = read_init(door, &unique, why);
    if (!error) error = answer_init(door, unique, why);
    if (!error) error = await_device(door, why);
    if (!error) error = door->transport->start(door, why);
    return nm_door_opened(door, error, result);
}
