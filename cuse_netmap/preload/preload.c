/* SPDX-License-Identifier: BSD-2-Clause */
/* The helper of the CUSE door: a preloaded library that lets mmap work on a descriptor of a CUSE
 * device, which the kernel cannot map. It acts only when the kernel has said ENODEV and the
 * descriptor turns out to be a cuse-netmap daemon's; everything else a program does is untouched.
 */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "netmap_helper.h"

#define PATIENCE_S 5

/* SYS_mmap takes these six arguments, and off_t is the same for mmap and mmap64. */
_Static_assert(sizeof(long) == 8 && sizeof(off_t) == 8, "64-bit only");

/* The kernel's own mmap: no other library's in between, and no lookup that could allocate. */
static void *map(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, offset);
}

static int connect_to(const char *path) {
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    memcpy(name.sun_path, path, strnlen(path, sizeof(name.sun_path) - 1));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0) return fd;
    close(fd);
    return -1;
}

/* Receives the memory's descriptor and size; -1 if the daemon gives none. */
static int receive_memory(int fd, struct netmap_helper_memory *memory) {
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec part = {memory, sizeof(*memory)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) != (ssize_t)sizeof(*memory)) return -1;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int received;
    if (!header || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int)))
        return -1;
    memcpy(&received, CMSG_DATA(header), sizeof(received));
    return received;
}

static int fetch_memory(const struct netmap_helper_token *token,
                        struct netmap_helper_memory *memory) {
    int connection = connect_to(token->socket), received = -1;
    if (connection < 0) return -1;
    if (send(connection, token->token, sizeof(token->token), MSG_NOSIGNAL) ==
        (ssize_t)sizeof(token->token))
        received = receive_memory(connection, memory);
    close(connection);
    return received;
}

/* A program with more rights than its caller, or fewer system calls than we need, is left alone.
 * Asking may itself be a call too many, so it is asked only where there is much to suspect. */
static bool restricted(void) {
    return getauxval(AT_SECURE) || prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 0;
}

/* Is it the descriptor of a CUSE device, and may we help? Others are not asked anything. */
static bool to_help(int fd) {
    struct stat status;
    char path[64], subsystem[PATH_MAX];
    if (fstat(fd, &status) < 0 || !S_ISCHR(status.st_mode) || restricted()) return false;
    snprintf(path, sizeof(path), "/sys/dev/char/%u:%u/subsystem", major(status.st_rdev),
             minor(status.st_rdev));
    ssize_t length = readlink(path, subsystem, sizeof(subsystem) - 1);
    if (length <= 0) return false;
    subsystem[length] = 0;
    const char *name = strrchr(subsystem, '/');
    return name && strcmp(name, "/cuse") == 0;
}

/* mmap of a device of ours; MAP_FAILED with errno as netmap has it, or ENODEV untouched. */
static void *map_device(void *address, size_t length, int protection, int flags, int fd,
                        off_t offset) {
    struct netmap_helper_token token;
    struct netmap_helper_memory memory;
    if (ioctl(fd, NIOCHELPERTOKEN, &token) < 0) {
        if (errno != EINVAL) errno = ENODEV;
        return MAP_FAILED;
    }
    int fetched = fetch_memory(&token, &memory);
    if (fetched < 0) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    void *mapped = MAP_FAILED;
    if (offset < 0 || (uint64_t)offset > memory.size || length > memory.size - (uint64_t)offset)
        errno = EINVAL;
    else
        mapped = map(address, length, protection, flags, fetched, offset);
    int error = errno;
    close(fetched);
    errno = error;
    return mapped;
}

/* Two names for one function: off_t has 64 bits here. */
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset) {
    int before_call = errno;
    void *mapped = map(address, length, protection, flags, fd, offset);
    if (mapped != MAP_FAILED || errno != ENODEV) return mapped;
    if (!to_help(fd)) {
        errno = ENODEV;
        return mapped;
    }
    /* mmap is not interrupted by signals, so what stands in for it must not be either. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    mapped = map_device(address, length, protection, flags, fd, offset);
    int error = mapped == MAP_FAILED ? errno : before_call;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = error;
    return mapped;
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t offset)
    __attribute__((alias("mmap")));
