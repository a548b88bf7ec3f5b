/* SPDX-License-Identifier: BSD-2-Clause */
/* Kills, again and again, a child that swaps buffers between two ports and its extra list: each
 * swap is two stores, and the child dies between them sooner or later. */
#include <fcntl.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t state;

static uint64_t next(void) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static struct netmap_if *open_port(const char *name, char **memory, int *fd) {
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC, .nr_extra_bufs = 8};
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", name);
    *fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (*fd < 0 || ioctl(*fd, NIOCCTRL, &header)) _exit(1);
    if (!*memory) *memory = mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (*memory == MAP_FAILED) _exit(1);
    return NETMAP_IF(*memory, body.nr_offset);
}

static void swap(volatile uint32_t *one, volatile uint32_t *other) {
    uint32_t held = *one;
    *one = *other;
    *other = held;
}

static void child(const char *const names[2], int ready) {
    char *memory = NULL;
    struct netmap_if *ports[2];
    int fds[2];
    for (int i = 0; i < 2; i++)
        ports[i] = open_port(names[i], &memory, &fds[i]);
    if (write(ready, "", 1) != 1) _exit(1);
    for (;;) {
        struct netmap_ring *rings[4] = {NETMAP_TXRING(ports[0], 0), NETMAP_RXRING(ports[0], 0),
                                        NETMAP_TXRING(ports[1], 0), NETMAP_RXRING(ports[1], 0)};
        for (int i = 0; i < 100; i++) {
            struct netmap_ring *one = rings[next() % 4], *other = rings[next() % 4];
            struct netmap_slot *slot = &one->slot[next() % one->num_slots];
            if (next() % 4) {
                swap(&slot->buf_idx, &other->slot[next() % other->num_slots].buf_idx);
            } else { /* the first extra buffer takes the slot's place */
                struct netmap_if *nifp = ports[next() % 2];
                uint32_t mine = slot->buf_idx, extra = nifp->ni_bufs_head;
                *(uint32_t *)(void *)NETMAP_BUF(one, mine) =
                    *(uint32_t *)(void *)NETMAP_BUF(one, extra);
                slot->buf_idx = extra;
                nifp->ni_bufs_head = mine;
            }
        }
        int fd = fds[next() % 2];
        struct pollfd poller = {.fd = fd, .events = POLLIN | POLLOUT};
        if (next() % 2)
            ioctl(fd, next() % 2 ? NIOCTXSYNC : NIOCRXSYNC);
        else
            poll(&poller, 1, 0);
    }
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    state = strtoull(argv[3], NULL, 0) + 1;
    for (int round = atoi(argv[4]); round > 0; round--) {
        int ready[2];
        if (pipe2(ready, O_CLOEXEC)) return 1;
        uint64_t wait = next() % 3000;
        bool early = next() % 4 == 0; /* before it is set up, too */
        pid_t pid = fork();
        if (pid == 0) child((const char *[]){argv[1], argv[2]}, ready[1]);
        close(ready[1]);
        char byte;
        if (!early && read(ready[0], &byte, 1) != 1) return 1; /* it could not open its ports */
        close(ready[0]);
        usleep((useconds_t)wait);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    return 0;
}
