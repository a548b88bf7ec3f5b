/* SPDX-License-Identifier: BSD-2-Clause */
/* Sends or receives numbered frames as fast as it can: `stream send|receive [OPTIONS] PORT`. Says
 * "ready" once it has the port; then, at its end, "frames N", "first N", "last N", and of a
 * receiver "gaps N" (numbers that never came), "repeats N" (numbers that came late or twice) and
 * "bad N" (frames that are not what was sent). Ends after COUNT frames, or with its standard input.
 *
 *   -n COUNT     frames, then end
 *   -f FIRST     the number of the first frame sent
 *   -l LENGTH    bytes of each frame (60)
 *   -m SLOTS     of each frame (1), the bytes split evenly
 *   -b MOST      frames before each sync (random, 256 at most)
 *   -d, -s MAC   destination (ff:ff:ff:ff:ff:ff) and source (02:00:00:00:00:01)
 *   -p           poll() instead of ioctls
 *   -x           swap every buffer with an extra one
 *   -u UID       as that user, of no group but its own
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "numbered.h"

static struct {
    uint64_t count, first;
    uint32_t slots, most;
    bool poll, swap, sends;
    const char *port;
} wanted = {.slots = 1, .most = 256};
static int fd;
static struct netmap_if *nifp;
static struct netmap_ring *ring;
static int fail(const char *what) {
    perror(what);
    exit(2);
}

static void parse_mac(const char *text, unsigned char mac[6]) {
    if (sscanf(text, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2], &mac[3], &mac[4],
               &mac[5]) != 6)
        exit(2);
}

static void open_port(void) {
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC, .nr_extra_bufs = wanted.swap};
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    body.nr_flags = wanted.sends ? NR_TX_RINGS_ONLY : NR_RX_RINGS_ONLY;
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", wanted.port);
    fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0) fail("open");
    if (ioctl(fd, NIOCCTRL, &header)) fail("REGISTER");
    char *memory = mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) fail("mmap");
    nifp = NETMAP_IF(memory, body.nr_offset);
    ring = wanted.sends ? NETMAP_TXRING(nifp, 0) : NETMAP_RXRING(nifp, 0);
    if (wanted.swap && body.nr_extra_bufs != 1) exit(2);
}

static void swap(struct netmap_slot *slot) {
    uint32_t held = slot->buf_idx;
    slot->buf_idx = nifp->ni_bufs_head;
    slot->flags |= NS_BUF_CHANGED;
    nifp->ni_bufs_head = held;
    *(uint32_t *)(void *)NETMAP_BUF(ring, held) = 0; /* the end of the list */
}

static void sync_now(void) {
    struct pollfd wait = {.fd = fd, .events = wanted.sends ? POLLOUT : POLLIN};
    if (wanted.poll ? poll(&wait, 1, 20) < 0
                    : ioctl(fd, wanted.sends ? NIOCTXSYNC : NIOCRXSYNC) < 0)
        if (errno != EINTR) fail("sync");
}

static void send_some(void) {
    static char frame[LONGEST];
    uint32_t burst = (uint32_t)(next() % wanted.most) + 1, each = shape.length / wanted.slots;
    while (burst-- && nm_ring_space(ring) >= wanted.slots &&
           (!wanted.count || frames < wanted.count)) {
        uint32_t head = ring->head;
        last = wanted.first + frames;
        fill(frame, last);
        for (uint32_t i = 0; i < wanted.slots; i++) {
            struct netmap_slot *slot = &ring->slot[head];
            bool more = i + 1 < wanted.slots;
            uint32_t length = more ? each : shape.length - each * i;
            slot->flags = more ? NS_MOREFRAG : 0;
            if (wanted.swap) swap(slot);
            slot->len = (uint16_t)length;
            memcpy(NETMAP_BUF(ring, slot->buf_idx), frame + each * i, length);
            head = nm_ring_next(ring, head);
        }
        ring->cur = head;
        ring->head = head;
        frames++;
    }
    sync_now();
}

static void receive_some(void) {
    static char frame[LONGEST];
    static uint32_t length;
    sync_now();
    for (uint32_t left = nm_ring_space(ring); left; left--) {
        struct netmap_slot *slot = &ring->slot[ring->head];
        uint32_t size = slot->len;
        if (length + size > LONGEST || size > ring->nr_buf_size) {
            bad++;
            length = size = 0;
        }
        memcpy(frame + length, NETMAP_BUF(ring, slot->buf_idx), size);
        length += size;
        if (!(slot->flags & NS_MOREFRAG)) {
            note(frame, length);
            length = 0;
        }
        if (wanted.swap) swap(slot);
        ring->cur = ring->head = nm_ring_next(ring, ring->head);
    }
}

static bool told_to_end(void) {
    struct pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN};
    return poll(&wait, 1, 0) && read(STDIN_FILENO, (char[16]){0}, 16) <= 0;
}

/* What has been sent but not looked at: an end of the input is not meant to lose it. */
static void drain(void) {
    uint64_t before;
    do {
        before = frames;
        receive_some();
    } while (frames != before);
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    wanted.sends = !strcmp(argv[1], "send");
    int option, uid = -1;
    argv++, argc--;
    while ((option = getopt(argc, argv, "n:f:l:m:b:d:s:pxu:")) != -1) {
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
        case 'm':
            wanted.slots = (uint32_t)atoi(optarg);
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
        case 'p':
            wanted.poll = true;
            break;
        case 'x':
            wanted.swap = true;
            break;
        case 'u':
            uid = atoi(optarg);
            break;
        default:
            return 2;
        }
    }
    wanted.port = argv[optind];
    if (shape.length < HEADER || shape.length > LONGEST) return 2;
    if (uid >= 0 && (setgroups(0, NULL) || setgid((gid_t)uid) || setuid((uid_t)uid)))
        fail("setuid");
    open_port();
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    first = wanted.first;
    for (uint32_t round = 1; !wanted.count || frames < wanted.count; round++) {
        if (round % 16 == 0 && told_to_end()) break;
        if (wanted.sends)
            send_some();
        else
            receive_some();
    }
    if (!wanted.sends) drain();
    if (wanted.sends) sync_now();
    report(wanted.sends);
    if (wanted.sends) /* what it sent stays in the rings as long as somebody has them */
        while (read(STDIN_FILENO, (char[16]){0}, 16) > 0) {
        }
    return 0;
}
