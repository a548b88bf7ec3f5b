/* SPDX-License-Identifier: BSD-2-Clause */
/* Holds a port inside one kind of call until that fails: `hold poll|epoll|sync PORT`. Says "ready"
 * before it, then "errno N" (or "revents N"), then "map OK" if the mapping can still be read and
 * written; then waits for the end of standard input. */
#include <errno.h>
#include <fcntl.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static void in_sync(int fd) {
    int error = 0;
    while (!error)
        if (ioctl(fd, NIOCRXSYNC, NULL) < 0) error = errno;
    printf("errno %d\n", error);
}

static void in_poll(int fd) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    do {
        poll(&wait, 1, -1);
    } while (!(wait.revents & ~POLLIN));
    printf("revents %d\n", wait.revents);
}

static void in_epoll(int fd) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0) fail("epoll_ctl");
    do {
        epoll_wait(epoll, &event, 1, -1);
    } while (!(event.events & ~(uint32_t)EPOLLIN));
    printf("revents %u\n", event.events);
}

static const struct {
    const char *name;
    void (*wait)(int fd);
} calls[] = {{"sync", in_sync}, {"poll", in_poll}, {"epoll", in_epoll}};

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0) fail("open");
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC};
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", argv[2]);
    if (ioctl(fd, NIOCCTRL, &header) < 0) fail("REGISTER");
    char *memory = mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) fail("mmap");
    struct netmap_if *nifp = NETMAP_IF(memory, body.nr_offset);
    struct netmap_ring *ring = NETMAP_TXRING(nifp, 0);
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (!strcmp(calls[i].name, argv[1])) calls[i].wait(fd);
    char *data = NETMAP_BUF(ring, ring->slot[1].buf_idx);
    memcpy(data, "still here", 11);
    puts(!strcmp(nifp->ni_name, argv[2]) && !strcmp(data, "still here") ? "map OK" : "map lost");
    while (read(STDIN_FILENO, (char[16]){0}, 16) > 0) {
    }
    return 0;
}
