/* SPDX-License-Identifier: BSD-2-Clause */
/* The descriptors of clients, by pidfd_getfd(2). */
#include "client_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define THREAD O_EXCL /* PIDFD_THREAD */

/* The process that a thread belongs to; 0 if it cannot be told. */
static int process_of(uint32_t tid) {
    char path[32], line[64];
    int process = 0;
    snprintf(path, sizeof(path), "/proc/%u/status", tid);
    FILE *status = fopen(path, "re");
    if (!status) return 0;
    while (!process && fgets(line, sizeof(line), status))
        sscanf(line, "Tgid: %d", &process);
    fclose(status);
    return process;
}

/* Threads may have descriptors of their own. Before Linux 6.9 only processes can be opened, and the
 * table of the first thread has to do. */
static int open_thread(uint32_t tid) {
    int fd = (int)syscall(SYS_pidfd_open, tid, THREAD);
    if (fd < 0 && errno == EINVAL) fd = (int)syscall(SYS_pidfd_open, process_of(tid), 0);
    return fd;
}

static bool is_eventfd(int fd) {
    static const char eventfd[] = "anon_inode:[eventfd]"; /* a file's name begins with '/' */
    char path[32], target[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    ssize_t length = readlink(path, target, sizeof(target));
    return length == sizeof(eventfd) - 1 && !memcmp(target, eventfd, sizeof(eventfd) - 1);
}

/* A descriptor of ours, or -errno. */
static int duplicate(int thread, int32_t fd, struct nm_refusal *why) {
    int ours = (int)syscall(SYS_pidfd_getfd, thread, fd, 0);
    if (ours < 0)
        return nm_refuse(why, errno, "descriptor %d of the program: %s", fd, strerror(errno));
    if (is_eventfd(ours)) return ours;
    close(ours);
    return nm_refuse(why, EINVAL, "descriptor %d of the program is no eventfd", fd);
}

int nm_client_eventfds(uint32_t tid, const int32_t *fds, uint32_t count, int *ours,
                       struct nm_refusal *why) {
    int thread = open_thread(tid);
    if (thread < 0) return nm_refuse(why, errno, "opening thread %u: %s", tid, strerror(errno));
    int error = 0;
    for (uint32_t i = 0; i < count; i++)
        ours[i] = -1;
    for (uint32_t i = 0; i < count && !error; i++) {
        if (fds[i] < 0) continue;
        int fd = duplicate(thread, fds[i], why);
        if (fd < 0)
            error = fd;
        else
            ours[i] = fd;
    }
    close(thread);
    for (uint32_t i = 0; error && i < count; i++) {
        if (ours[i] >= 0) close(ours[i]);
        ours[i] = -1;
    }
    return error;
}
