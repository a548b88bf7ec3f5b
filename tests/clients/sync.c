/* SPDX-License-Identifier: BSD-2-Clause */
/* Syncs a port: `sync PORT COUNT [CPU]`. PORT "null" is a null port of one ring pair. Prints the
 * mean nanoseconds of a NIOCTXSYNC; exit status 1 with a line for what failed. */
#include <errno.h>
#include <fcntl.h>
#include <net/netmap_user.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int failed(const char *step) {
    printf("%s: %s\n", step, strerror(errno));
    return 1;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    if (argc > 3) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(atoi(argv[3]), &set);
        if (sched_setaffinity(0, sizeof(set), &set) < 0) return failed("sched_setaffinity");
    }
    int fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0) return failed("open");
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC};
    if (!strcmp(argv[1], "null"))
        body = (struct nmreq_register){.nr_mode = NR_REG_NULL,
                                       .nr_mem_id = 1,
                                       .nr_tx_rings = 1,
                                       .nr_rx_rings = 1,
                                       .nr_tx_slots = 8,
                                       .nr_rx_slots = 8};
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", argv[1]);
    if (ioctl(fd, NIOCCTRL, &header) < 0) return failed("REGISTER");
    char *memory = mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) return failed("mmap");
    const struct netmap_if *nifp = NETMAP_IF(memory, body.nr_offset);
    if (nifp->ni_tx_rings != body.nr_tx_rings || !NETMAP_TXRING(nifp, 0)->num_slots) {
        puts("the map does not show the port");
        return 1;
    }
    struct timespec start, end;
    long count = atol(argv[2]);
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (long i = 0; i < count; i++)
        if (ioctl(fd, NIOCTXSYNC, NULL) < 0) return failed("NIOCTXSYNC");
    clock_gettime(CLOCK_MONOTONIC, &end);
    double ns = (double)(end.tv_sec - start.tv_sec) * 1e9 + (double)(end.tv_nsec - start.tv_nsec);
    printf("%.0f\n", count ? ns / (double)count : 0);
    return 0;
}
