/* SPDX-License-Identifier: BSD-2-Clause */
/* Packet sockets with nothing between them and the program: what interfaces by `raw` are held
 * against.
 *
 *   packet send NAME SECONDS     sendmmsg() past the queueing discipline: "FRAMES SECONDS"
 *   packet receive NAME          a TPACKET_V2 ring until SIGTERM: "FRAMES", those it lost */
#include "../cuse_netmap/programs/frame.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LENGTH 60
#define BATCH 256
#define BLOCK (1u << 18)
#define FRAME 2048
#define FRAMES 1024

static const struct frame_addresses addresses = {
    .source_mac = {0x02, 0, 0, 0, 0, 0x01},
    .destination_mac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
    .source = {{198, 18, 0, 1}, 9},
    .destination = {{198, 18, 0, 2}, 9},
};
static volatile sig_atomic_t ended;

static void end(int number) {
    (void)number;
    ended = 1;
}

static void die(const char *doing) {
    perror(doing);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void set(int fd, int option, int value) {
    if (setsockopt(fd, SOL_PACKET, option, &value, sizeof(value))) die("setsockopt");
}

static int packet_socket(void) {
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    if (fd < 0) die("socket");
    return fd;
}

static void bind_to(int fd, const char *name, uint16_t protocol) {
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htons(protocol),
                                  .sll_ifindex = (int)if_nametoindex(name)};
    if (bind(fd, (struct sockaddr *)&address, sizeof(address))) die(name);
}

static int send_frames(const char *name, double seconds) {
    static uint8_t frames[BATCH][LENGTH];
    static struct iovec parts[BATCH];
    static struct mmsghdr messages[BATCH];
    struct frame_template frame;
    int fd = packet_socket();
    set(fd, PACKET_QDISC_BYPASS, 1);
    bind_to(fd, name, 0);
    frame_prepare(&frame, &addresses, LENGTH, 0);
    for (int i = 0; i < BATCH; i++) {
        parts[i] = (struct iovec){frames[i], LENGTH};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &parts[i], .msg_iovlen = 1};
    }
    double start = now(), last = start;
    uint64_t sent = 0;
    while (last < start + seconds && !ended) {
        for (uint32_t i = 0; i < BATCH; i++)
            frame_write(&frame, sent + i, frames[i]);
        for (int done = 0; done < BATCH;) {
            int some = sendmmsg(fd, messages + done, (unsigned)(BATCH - done), 0);
            if (some < 0 && errno != ENOBUFS) die("sendmmsg");
            if (some > 0) done += some;
        }
        sent += BATCH;
        last = now();
    }
    printf("%llu %.6f\n", (unsigned long long)sent, last - start);
    return 0;
}

static uint64_t take(char *ring, uint32_t *next, uint32_t per_block) {
    uint64_t frames = 0;
    static char copy[FRAME];
    for (;; frames++) {
        struct tpacket2_hdr *header =
            (struct tpacket2_hdr *)(ring + *next / per_block * BLOCK + *next % per_block * FRAME);
        if (!(__atomic_load_n(&header->tp_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER)) break;
        memcpy(copy, (char *)header + header->tp_mac, header->tp_snaplen); /* for the program */
        __atomic_store_n(&header->tp_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        *next = (*next + 1) % FRAMES;
    }
    return frames;
}

static int receive(const char *name) {
    uint32_t per_block = BLOCK / FRAME, next = 0;
    struct tpacket_req request = {BLOCK, FRAMES / per_block, FRAME, FRAMES};
    int fd = packet_socket();
    set(fd, PACKET_VERSION, TPACKET_V2);
    set(fd, PACKET_IGNORE_OUTGOING, 1);
    if (setsockopt(fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request))) die("ring");
    char *ring =
        mmap(NULL, (size_t)BLOCK * request.tp_block_nr, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (ring == MAP_FAILED) die("mmap");
    bind_to(fd, name, ETH_P_ALL);
    puts("ready");
    fflush(stdout);
    uint64_t frames = 0;
    while (!ended) {
        uint64_t some = take(ring, &next, per_block);
        frames += some;
        struct pollfd file = {fd, POLLIN, 0};
        if (!some && poll(&file, 1, 100) < 0 && errno != EINTR) die("poll");
    }
    struct tpacket_stats lost;
    socklen_t size = sizeof(lost);
    if (getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &lost, &size)) die("statistics");
    printf("%llu %u\n", (unsigned long long)frames, lost.tp_drops);
    return 0;
}

int main(int argc, char **argv) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    if (argc == 4 && !strcmp(argv[1], "send")) return send_frames(argv[2], atof(argv[3]));
    if (argc == 3 && !strcmp(argv[1], "receive")) return receive(argv[2]);
    return 2;
}
