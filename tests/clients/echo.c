/* SPDX-License-Identifier: BSD-2-Clause */
/* A program as anybody writes it with the public header: nm_open, poll, nm_nextpkt, nm_inject.
 * Sends every frame of the given length back, its first byte changed, and ends after so many.
 *
 *   echo netmap:tap0 LENGTH COUNT [begin]    begin: sends a frame before the first has come */
#define NETMAP_WITH_LIBS
#include "patience.h"
#include <net/netmap_user.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    struct nm_desc *port = nm_open(argv[1], NULL, 0, NULL);
    if (!port) {
        perror("nm_open");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    unsigned length = (unsigned)atoi(argv[2]), left = (unsigned)atoi(argv[3]);
    const char zeros[2048] = {0};
    if (argc > 4 && (length > sizeof(zeros) || !nm_inject(port, zeros, length))) return 1;
    while (left) {
        struct pollfd file = {.fd = NETMAP_FD(port), .events = POLLIN};
        if (poll(&file, 1, at_most(5000)) <= 0 || file.revents & POLLERR) {
            fprintf(stderr, "nothing came: %x\n", file.revents);
            return 1;
        }
        struct nm_pkthdr header;
        unsigned char *frame;
        while (left && (frame = nm_nextpkt(port, &header))) {
            unsigned char copy[2048];
            if (header.len != length) continue;
            memcpy(copy, frame, header.len);
            copy[0] = 0x02;
            if (!nm_inject(port, copy, header.len)) return 1;
            left--;
        }
    }
    ioctl(NETMAP_FD(port), NIOCTXSYNC, NULL);
    return nm_close(port);
}
