/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * An example: counts the frames that arrive at a netmap port until ctrl-C; everything else is left
 * out.
 *
 *   cc -o count count.c
 *   ./count netmap:tap0
 */
#define NETMAP_WITH_LIBS
#include <net/netmap_user.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t stop;
static unsigned long frames, bytes;

static void on_signal(int number) { stop = number; }

static void count(unsigned char *unused, const struct nm_pkthdr *header,
                  const unsigned char *frame) {
    (void)unused;
    (void)frame;
    frames++;
    bytes += header->len;
}

int main(int argc, char **argv) {
    struct nm_desc *port = argc == 2 ? nm_open(argv[1], NULL, 0, NULL) : NULL;
    if (!port) {
        fprintf(stderr, "usage: %s netmap:NAME, with /dev/netmap served\n", argv[0]);
        return 1;
    }
    signal(SIGINT, on_signal);
    while (!stop) {
        struct pollfd file = {.fd = NETMAP_FD(port), .events = POLLIN};
        /* poll() fills the RX rings; a second is the longest a ctrl-C may have to wait. */
        if (poll(&file, 1, 1000) > 0) nm_dispatch(port, 0, count, NULL);
    }
    printf("%lu frames, %lu bytes\n", frames, bytes);
    return nm_close(port);
}
