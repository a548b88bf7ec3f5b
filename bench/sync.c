/* SPDX-License-Identifier: BSD-2-Clause */
/* What a NIOCTXSYNC costs on an idle ring: prints nanoseconds a call, one line a round. With two
 * files the rounds alternate, so that both see the same machine.
 *
 *   sync COUNT ROUNDS netmap FILE | noop FILE ... */
#include <fcntl.h>
#include <net/netmap.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define FILES_MAX 4

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static void die(const char *doing) {
    perror(doing);
    exit(1);
}

/* Binds one idle TX ring that nothing is behind. */
static void bind_null_port(int fd) {
    struct nmreq_register body = {
        .nr_mode = NR_REG_NULL, .nr_mem_id = 1, .nr_tx_rings = 1, .nr_tx_slots = 1024};
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_name = "bench",
                                  .nr_body = (uintptr_t)&body};
    if (ioctl(fd, NIOCCTRL, &header) < 0) die("REGISTER");
}

int main(int argc, char **argv) {
    int fds[FILES_MAX], files = (argc - 3) / 2;
    if (argc < 5 || files > FILES_MAX) return 2;
    long count = atol(argv[1]), rounds = atol(argv[2]);
    for (int i = 0; i < files; i++) {
        fds[i] = open(argv[4 + 2 * i], O_RDWR);
        if (fds[i] < 0) die(argv[4 + 2 * i]);
        if (!strcmp(argv[3 + 2 * i], "netmap")) bind_null_port(fds[i]);
    }
    for (long round = 0; round < rounds; round++)
        for (int i = 0; i < files; i++) {
            double start = now();
            for (long n = 0; n < count; n++)
                if (ioctl(fds[i], NIOCTXSYNC, NULL) < 0) die("NIOCTXSYNC");
            printf("%s %.1f\n", argv[3 + 2 * i], (now() - start) / (double)count);
        }
    return 0;
}
