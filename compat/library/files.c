/* SPDX-License-Identifier: BSD-2-Clause */
/* The descriptors of libcompat_netmap: one end of a socket pair is the program's, to dup, pass to
 * fcntl, wait for and close as it likes; the other is ours and tells when the last copy of the
 * first has been closed. What an open file is bound to is decided in requests.c. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "barrier.h"
#include "library.h"

static void put_locked(struct open_file *file) {
    if (--file->references) return;
    file->next = netmap.buried;
    netmap.buried = file;
}

struct open_file *file_get(int fd) {
    struct stat stat;
    if (!READ_ONCE(netmap.open) || fstat(fd, &stat) || !S_ISSOCK(stat.st_mode)) return NULL;
    pthread_mutex_lock(&netmap.table);
    struct open_file *file = netmap.open;
    while (file && (file->inode != stat.st_ino || netmap.device != stat.st_dev))
        file = file->next;
    if (file) file->references++;
    pthread_mutex_unlock(&netmap.table);
    return file;
}

void file_put(struct open_file *file) {
    pthread_mutex_lock(&netmap.table);
    put_locked(file);
    pthread_mutex_unlock(&netmap.table);
}

/* ---- sleepers ---------------------------------------------------------------------------------
 */

static void signal_end(struct open_file *file) {
    if (__atomic_exchange_n(&file->signalled, true, __ATOMIC_SEQ_CST)) return;
    if (send(file->end, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) WRITE_ONCE(file->signalled, false);
}

static void quieten_end(struct open_file *file, int fd) {
    char byte;
    if (__atomic_exchange_n(&file->signalled, false, __ATOMIC_SEQ_CST))
        recv(fd, &byte, 1, MSG_DONTWAIT);
}

void file_wake(struct open_file *file) {
    pthread_mutex_lock(&file->waking);
    for (const struct waiter *waiter = file->waiters; waiter; waiter = waiter->next)
        eventfd_write(waiter->event, 1);
    pthread_mutex_unlock(&file->waking);
    if (READ_ONCE(file->watched)) signal_end(file);
}

/* The engine's: a sync may get further. Called from any thread, with the port's lock held. */
static void wake(struct nm_file *file) { file_wake((struct open_file *)file); }

void file_add_waiter(struct waiter *waiter) {
    pthread_mutex_lock(&waiter->file->waking);
    waiter->next = waiter->file->waiters;
    waiter->file->waiters = waiter;
    pthread_mutex_unlock(&waiter->file->waking);
}

void file_remove_waiter(struct waiter *waiter) {
    pthread_mutex_lock(&waiter->file->waking);
    struct waiter **link = &waiter->file->waiters;
    while (*link != waiter)
        link = &(*link)->next;
    *link = waiter->next;
    pthread_mutex_unlock(&waiter->file->waking);
}

void file_settle(struct open_file *file, int fd, bool found) {
    WRITE_ONCE(file->watched, true);
    if (found) {
        signal_end(file);
        return;
    }
    if (READ_ONCE(file->signalled)) quieten_end(file, fd);
    if (!(READ_ONCE(file->file.armed) & POLLIN)) nm_file_arm(&file->file);
}

/* ---- the end -----------------------------------------------------------------------------------
 */

static bool hung_up(const struct open_file *file) {
    struct pollfd end = {.fd = file->end};
    return poll(&end, 1, 0) == 1 && end.revents & POLLHUP;
}

/* With control held. The table's reference goes, and with the last the file. */
static void end_file(struct open_file *file) {
    if (file->closed) return;
    file->closed = true;
    file_unbind(file);
    pthread_mutex_lock(&netmap.table);
    struct open_file **link = &netmap.open;
    while (*link != file)
        link = &(*link)->next;
    *link = file->next;
    put_locked(file);
    pthread_mutex_unlock(&netmap.table);
}

/* On the events thread, which frees nothing: a watch is not destroyed there. */
static bool end_event(void *argument, uint32_t events) {
    struct open_file *file = argument;
    (void)events;
    pthread_mutex_lock(&netmap.control);
    bool over = file->closed || hung_up(file);
    if (over) end_file(file);
    pthread_mutex_unlock(&netmap.control);
    return !over;
}

void files_reap(void) {
    for (struct open_file *file = netmap.open, *next; file; file = next) {
        next = file->next; /* only control changes the chain */
        if (hung_up(file)) end_file(file);
    }
}

void files_bury(void) {
    pthread_mutex_lock(&netmap.table);
    struct open_file *buried = netmap.buried;
    netmap.buried = NULL;
    pthread_mutex_unlock(&netmap.table);
    while (buried) {
        struct open_file *file = buried;
        buried = file->next;
        nm_watch_destroy(file->watch);
        close(file->end);
        pthread_rwlock_destroy(&file->use);
        pthread_mutex_destroy(&file->waking);
        free(file);
    }
}

void files_end(void) {
    pthread_mutex_lock(&netmap.control);
    while (netmap.open)
        end_file(netmap.open);
    pthread_mutex_unlock(&netmap.control);
    files_bury();
}

/* ---- the beginning -----------------------------------------------------------------------------
 */

static struct open_file *file_create(int end, ino_t inode) {
    struct open_file *file = calloc(1, sizeof(*file));
    if (!file) return NULL;
    *file = (struct open_file){.file.wake = wake, .inode = inode, .end = end, .references = 1};
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    /* Threads that sync all the time must not keep the one out that takes the rings away. */
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&file->use, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    pthread_mutex_init(&file->waking, NULL);
    if (!nm_watch_create(netmap.events, end, end_event, file, &file->watch)) return file;
    pthread_rwlock_destroy(&file->use);
    free(file);
    return NULL;
}

int file_open(int flags) {
    if (!READ_ONCE(netmap.up)) return refuse(ENODEV, "open: rte_netmap_init has not been called");
    int ends[2];
    int type = SOCK_SEQPACKET | (flags & O_CLOEXEC ? SOCK_CLOEXEC : 0) |
               (flags & O_NONBLOCK ? SOCK_NONBLOCK : 0);
    if (socketpair(AF_UNIX, type, 0, ends)) return -errno;
    fcntl(ends[1], F_SETFD, FD_CLOEXEC);
    struct stat stat;
    struct open_file *file = fstat(ends[0], &stat) ? NULL : file_create(ends[1], stat.st_ino);
    if (!file) {
        close(ends[0]);
        close(ends[1]);
        return refuse(ENOMEM, "open: out of memory");
    }
    pthread_mutex_lock(&netmap.control);
    pthread_mutex_lock(&netmap.table);
    netmap.device = stat.st_dev;
    file->next = netmap.open;
    WRITE_ONCE(netmap.open, file);
    pthread_mutex_unlock(&netmap.table);
    pthread_mutex_unlock(&netmap.control);
    return ends[0];
}

/* ---- fork --------------------------------------------------------------------------------------
 */

static void before_fork(void) {
    pthread_mutex_lock(&netmap.control);
    pthread_mutex_lock(&netmap.table);
}

static void after_fork(void) {
    pthread_mutex_unlock(&netmap.table);
    pthread_mutex_unlock(&netmap.control);
}

/* The child has descriptors, which keep the port as anyone's do, but neither DPDK's threads nor
 * ours. It lets go of our ends, so that it sees the end of the program that serves them. */
static void in_child(void) {
    netmap.forked = true;
    for (struct open_file *file = netmap.open; file; file = file->next)
        close(file->end);
    after_fork();
}

int files_prepare(void) { return -pthread_atfork(before_fork, after_fork, in_child); }
