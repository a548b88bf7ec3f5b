/* SPDX-License-Identifier: BSD-2-Clause */
/* The traffic generator of the manual page of 2011 written out, with the page's own spellings and
 * its loop without end but for COUNT: `page send COUNT PORT`; and the receiver that goes with it:
 * `page receive COUNT PORT`. Says "ready"; then "sent N", or "LENGTH BYTES" of each packet in hex.
 * Ends with its standard input. */
#include <fcntl.h>
#include <net/netmap.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH 60

static struct netmap_if *nifp;
static struct netmap_ring *ring;
static struct netmap_request nmr;
static struct pollfd fds;

static void prepare(char *buf, unsigned number) {
    memset(buf, 0, LENGTH);
    memset(buf, 0xff, 6);
    memcpy(buf + 6, "\2\0\0\0\0\1", 6);
    memcpy(buf + 12, "\x88\xb5", 2);
    memcpy(buf + 14, &number, sizeof(number));
}

static void generate(unsigned count) {
    unsigned sent = 0;
    for (ring = NETMAP_TXRING(nifp, 0); sent < count;) {
        poll(&fds, 1, -1);
        while (ring->avail-- > 0 && sent < count) {
            unsigned i = ring->cur;
            prepare(NETMAP_BUF(ring, ring->slot[i].buf_index), sent++);
            ring->slot[i].len = LENGTH;
            ring->cur = NETMAP_RING_NEXT(ring, i);
        }
    }
    poll(&fds, 1, -1); /* which sends the last ones */
    printf("sent %u\n", sent);
}

static void receive(unsigned count) {
    for (ring = NETMAP_RXRING(nifp, 0); count;) {
        poll(&fds, 1, -1);
        for (; ring->avail > 0 && count; ring->avail--) {
            struct netmap_slot *slot = &ring->slot[ring->cur];
            const unsigned char *buf = (void *)NETMAP_BUF(ring, slot->buf_index);
            printf("%u ", slot->len);
            for (unsigned i = 0; i < slot->len; i++)
                printf("%02x", buf[i]);
            puts("");
            ring->cur = NETMAP_RING_NEXT(ring, ring->cur);
            count--;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int sends = !strcmp(argv[1], "send"), fd = open("/dev/netmap", O_RDWR);
    unsigned count = (unsigned)atoi(argv[2]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    memset(&nmr, 0, sizeof(nmr));
    snprintf(nmr.nm_name, sizeof(nmr.nm_name), "%s", argv[3]);
    if (ioctl(fd, NIOCREG, &nmr)) return 1;
    void *p = mmap(NULL, nmr.memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) return 1;
    nifp = NETMAP_IF(p, nmr.offset);
    fds.fd = fd;
    fds.events = sends ? POLLOUT : POLLIN;
    puts("ready");
    if (sends)
        generate(count);
    else
        receive(count);
    while (read(STDIN_FILENO, (char[16]){0}, 16) > 0) {
    }
    return 0;
}
