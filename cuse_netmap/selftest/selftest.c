/* SPDX-License-Identifier: BSD-2-Clause */
/* Proves a device from a program's side, on a null port: open, REGISTER, mmap, sync, poll. The
 * daemon runs it before it says that it is ready, in a process of its own because a process must
 * not wait on a file system that it serves. Exit status 0, or 1 with one line on standard output.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/netmap.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SLOTS 8

static int failed(const char *step) {
    printf("%s: %s\n", step, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    alarm(15);
    int fd = open(argv[1], O_RDWR);
    if (fd < 0) return failed("open");

    struct nmreq_register request = {.nr_mode = NR_REG_NULL,
                                     .nr_mem_id = 1,
                                     .nr_tx_rings = 1,
                                     .nr_rx_rings = 1,
                                     .nr_tx_slots = SLOTS,
                                     .nr_rx_slots = SLOTS};
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_name = "selftest",
                                  .nr_body = (uintptr_t)&request};
    if (ioctl(fd, NIOCCTRL, &header) < 0) return failed("REGISTER");
    char *memory = mmap(NULL, request.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return failed("mmap");

    const struct netmap_if *nifp = (const struct netmap_if *)(memory + request.nr_offset);
    const struct netmap_ring *tx =
        (const struct netmap_ring *)((const char *)nifp + nifp->ring_ofs[0]);
    if (strcmp(nifp->ni_name, "null:selftest") != 0 || tx->num_slots != SLOTS) {
        puts("mmap: the memory is not the daemon's");
        return 1;
    }
    if (ioctl(fd, NIOCTXSYNC, NULL) < 0) return failed("NIOCTXSYNC");
    struct pollfd wish = {.fd = fd, .events = POLLOUT};
    if (poll(&wish, 1, 1000) != 1 || wish.revents != POLLOUT) return failed("poll");
    return 0;
}
