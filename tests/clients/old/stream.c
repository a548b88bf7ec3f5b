/* SPDX-License-Identifier: BSD-2-Clause */
/* ../stream.c as it would have been written in 2011 to 2019, compiled for one age (NETMAP_OLD_API):
 * `stream send|receive [OPTIONS] PORT`. Says and ends as that does.
 *
 *   -n COUNT     frames, then end
 *   -f FIRST     the number of the first frame sent
 *   -l LENGTH    bytes of each frame (60)
 *   -b MOST      frames before each sync (random, 256 at most); 0: all there is room for, as the
 *                manual page does it where there is avail, in a loop over `avail--`
 *   -d, -s MAC   destination (ff:ff:ff:ff:ff:ff) and source (02:00:00:00:00:01)
 *   -p           poll() instead of ioctls
 *   -e           select() instead of ioctls
 *   -x           change buffers between slots before they are sent
 *   -k SLOTS     keep so many received slots for a while (reserved; API 3 and 5)
 *   -r RINGID    nr_ringid (0: all rings)
 *   -i RING      the ring that is used (0) */
#include <errno.h>
#include <poll.h>
#include <sys/select.h>
#include <unistd.h>

#include "../numbered.h"
#include "port.h"

static struct {
    uint64_t count, first;
    uint32_t most, keep, ring;
    uint16_t ringid;
    bool poll, select, swap, sends;
    const char *port;
} wanted = {.most = 256};
static int fd;
static struct netmap_ring *ring;

static void open_port(void) {
    fd = open_device();
    struct netmap_if *nifp = bind_port(fd, wanted.port, wanted.ringid);
    ring = wanted.sends ? NETMAP_TXRING(nifp, wanted.ring) : NETMAP_RXRING(nifp, wanted.ring);
}

static void sync_now(void) {
    struct pollfd wait = {.fd = fd, .events = wanted.sends ? POLLOUT : POLLIN};
    int result;
    if (wanted.poll) {
        result = poll(&wait, 1, 20);
    } else if (wanted.select) {
        fd_set set;
        struct timeval most = {.tv_usec = 20000};
        FD_ZERO(&set);
        FD_SET(fd, &set);
        result =
            select(fd + 1, wanted.sends ? NULL : &set, wanted.sends ? &set : NULL, NULL, &most);
    } else {
        result = ioctl(fd, wanted.sends ? NIOCTXSYNC : NIOCRXSYNC, NULL);
    }
    if (result < 0 && errno != EINTR) fail("sync");
}

/* Two slots that the program owns change buffers. */
static void swap(struct netmap_slot *slot, struct netmap_slot *other) {
    uint32_t held = slot->buf_idx;
    slot->buf_idx = other->buf_idx;
    other->buf_idx = held;
    slot->flags = other->flags = NS_BUF_CHANGED;
}

static bool wants_more(void) { return !wanted.count || frames < wanted.count; }

static void put(void) {
    struct netmap_slot *slot = &ring->slot[ring->cur];
    slot->flags = 0;
    if (wanted.swap && space(ring) > 1) swap(slot, &ring->slot[after(ring, ring->cur)]);
    last = wanted.first + frames++;
    fill(NETMAP_BUF(ring, slot->buf_idx), last);
    slot->len = (uint16_t)shape.length;
}

static void send_all(void) {
#if NETMAP_OLD_API < 10
    while (ring->avail-- > 0 && wants_more()) {
        put();
        ring->cur = NETMAP_RING_NEXT(ring, ring->cur);
    }
#else
    for (; space(ring) && wants_more(); advance(ring))
        put();
#endif
}

static void send_some(void) {
    uint32_t burst = wanted.most ? (uint32_t)(next() % wanted.most) + 1 : 0;
    if (!wanted.most) send_all();
    for (; burst && space(ring) && wants_more(); burst--, advance(ring))
        put();
    sync_now();
}

static void look_at(uint32_t k) {
    const struct netmap_slot *slot = &ring->slot[k];
    note(NETMAP_BUF(ring, slot->buf_idx), slot->len);
}

static void receive_some(void) {
    sync_now();
    for (; space(ring) && wants_more(); advance(ring)) {
#if NETMAP_OLD_API >= 3 && NETMAP_OLD_API < 10
        /* What is kept is looked at when it is given back. */
        if (ring->reserved < wanted.keep) {
            ring->reserved++;
            continue;
        }
        look_at(NETMAP_RING_FIRST_RESERVED(ring));
#else
        look_at(ring->cur);
#endif
    }
}

static void drain(void) {
    uint64_t before;
    do {
        before = frames;
        receive_some();
    } while (frames != before);
#if NETMAP_OLD_API >= 3 && NETMAP_OLD_API < 10
    for (; ring->reserved; ring->reserved--)
        look_at(NETMAP_RING_FIRST_RESERVED(ring));
#endif
}

static bool told_to_end(void) {
    struct pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&wait, 1, 0) && read(STDIN_FILENO, (char[16]){0}, 16) <= 0;
}

static void parse_mac(const char *text, unsigned char mac[6]) {
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
               &mac[5]) != 6)
        exit(2);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    wanted.sends = !strcmp(argv[1], "send");
    int option;
    argv++, argc--;
    while ((option = getopt(argc, argv, "n:f:l:b:d:s:k:r:i:pex")) != -1) {
        switch (option) {
        case 'n':
            wanted.count = strtoull(optarg, NULL, 0);
            break;
        case 'f':
            wanted.first = strtoull(optarg, NULL, 0);
            break;
        case 'l':
            shape.length = (uint32_t)atoi(optarg);
            break;
        case 'b':
            wanted.most = (uint32_t)atoi(optarg);
            break;
        case 'd':
            parse_mac(optarg, shape.to);
            break;
        case 's':
            parse_mac(optarg, shape.from);
            break;
        case 'k':
            wanted.keep = (uint32_t)atoi(optarg);
            break;
        case 'r':
            wanted.ringid = (uint16_t)strtoul(optarg, NULL, 0);
            break;
        case 'i':
            wanted.ring = (uint32_t)atoi(optarg);
            break;
        case 'p':
            wanted.poll = true;
            break;
        case 'e':
            wanted.select = true;
            break;
        case 'x':
            wanted.swap = true;
            break;
        default:
            return 2;
        }
    }
    wanted.port = argv[optind];
    if (!wanted.port || shape.length < HEADER || shape.length > 2048) return 2;
    open_port();
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    first = wanted.first;
    for (uint32_t round = 1; wants_more(); round++) {
        if (round % 16 == 0 && told_to_end()) break;
        if (wanted.sends)
            send_some();
        else
            receive_some();
    }
    if (wanted.sends)
        ioctl(fd, NIOCTXSYNC, NULL);
    else
        drain();
    report(wanted.sends);
    if (wanted.sends) /* what it sent stays in the rings as long as somebody has them */
        while (read(STDIN_FILENO, (char[16]){0}, 16) > 0) {
        }
    return 0;
}
