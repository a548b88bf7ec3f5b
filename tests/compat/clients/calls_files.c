/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors: of one port, duplicated, inherited, closed by libc, and not ours. */
#include "calls.h"

static void several(void) {
    set_up();
    int first = registered(), second = registered();
    struct netmap_if *a = mapped(first), *b = mapped(second);
    put(a, 3, 60);
    IS(rte_netmap_ioctl(second, NIOCTXSYNC, NULL), 0); /* they share rings */
    IS(rte_netmap_ioctl(second, NIOCRXSYNC, NULL), 0);
    IS(take(b), 3);
    IS(rte_netmap_close(first), 0);
    put(b, 4, 60);
    IS(ready(second, POLLIN, 1000), POLLIN);
    IS(take(b), 4);
}

static void dups(void) {
    set_up();
    int fd = registered();
    int copy = dup(fd), high = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    IS(high >= 100, 1);
    IS(fcntl(high, F_GETFD), FD_CLOEXEC);
    IS(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    IS(rte_netmap_close(fd), 0);
    FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), EBADF);
    struct netmap_if *nifp = mapped(copy);
    put(nifp, 5, 60);
    IS(rte_netmap_ioctl(high, NIOCTXSYNC, NULL), 0);
    IS(ready(copy, POLLIN, 1000), POLLIN);
    IS(take(nifp), 5);
    IS(close(copy), 0);
    int other = device();
    FAILS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), EBUSY); /* one is left */
    IS(close(high), 0);
    IS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static void libc_close(void) {
    set_up();
    for (int round = 0; round < 200; round++) {
        int fd = device();
        IS(attempt_as(fd, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
        IS((round & 1 ? close : rte_netmap_close)(fd), 0);
    }
    int null = open("/dev/null", O_RDWR), fd = registered();
    IS(dup2(null, fd), fd); /* another way to close */
    FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), ENOTTY);
    IS(attempt_as(device(), "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static void forks(void) {
    set_up();
    int fd = device();
    IS(attempt_as(fd, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
    struct netmap_if *nifp = mapped(fd);
    int go[2];
    IS(pipe(go), 0);
    pid_t child = fork();
    if (!child) {
        char byte;
        FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
        FAILS(rte_netmap_mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0), ENXIO);
        struct pollfd one = {.fd = fd, .events = POLLIN};
        FAILS(rte_netmap_poll(&one, 1, 0), ENXIO);
        IS(NETMAP_TXRING(nifp, 0)->num_slots, SLOTS); /* what is mapped stays so */
        close(go[1]);
        IS(read(go[0], &byte, 1), 0);
        IS(rte_netmap_close(fd), 0);
        _exit(wrong);
    }
    close(go[0]);
    put(nifp, 6, 60);
    IS(ready(fd, POLLIN, 1000), POLLIN);
    IS(take(nifp), 6);
    IS(rte_netmap_close(fd), 0);
    int other = device();
    FAILS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), EBUSY); /* the child has it */
    close(go[1]);
    int status;
    IS(waitpid(child, &status, 0), child);
    IS(status, 0);
    IS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static int libc_ready(int fd, int milliseconds_) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, milliseconds_);
}

static void libc_waits(void) {
    set_up();
    int fd = registered(), epoll = epoll_create1(0);
    struct netmap_if *nifp = mapped(fd);
    struct epoll_event event = {.events = EPOLLIN};
    IS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
    IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
    IS(libc_ready(fd, 50), 0);
    for (unsigned char round = 0; round < 50; round++) {
        put(nifp, round, 60);
        IS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), 0);
        IS(libc_ready(fd, 2000), 1);
        IS(epoll_wait(epoll, &event, 1, 2000), 1);
        IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
        IS(take(nifp), round);
        IS(libc_ready(fd, 2000), 1); /* until a sync finds nothing */
        IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
        IS(libc_ready(fd, 0), 0);
    }
}

static void others(void) {
    set_up();
    int fd = rte_netmap_open("/tmp", O_RDWR | O_TMPFILE, 0600), copy;
    IS(fd >= 0, 1);
    IS(write(fd, "hello", 5), 5);
    IS(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    char *memory = rte_netmap_mmap(NULL, 5, PROT_READ, MAP_PRIVATE, fd, 0);
    IS(memory == MAP_FAILED, 0);
    IS(memcmp(memory, "hello", 5), 0);
    IS(rte_netmap_ioctl(fd, FIONREAD, &copy), 0);
    IS(copy, 0);
    IS(rte_netmap_close(fd), 0);
    FAILS(rte_netmap_close(fd), EBADF);
    FAILS(rte_netmap_open(NULL, O_RDWR), EFAULT);
    FAILS(rte_netmap_open("/nonexistent/file", O_RDWR), ENOENT);
}

static const struct call_case cases[] = {
    CASE(several), CASE(dups), CASE(libc_close), CASE(forks), CASE(libc_waits), CASE(others), {0}};

int main(int argc, char **argv) { return run_case(cases, argc, argv); }
