/* SPDX-License-Identifier: BSD-2-Clause */
/* A TAP with nothing between it and the program: what netmap's figures are held against; and the
 * host's end of either.
 *
 *   wire write NAME COUNT                 makes a TAP, writes frames to it: frames a second
 *   wire read NAME                        makes a TAP, reads until standard input ends: frames
 *   wire wake tap:NAME|netmap:NAME COUNT  from the host's send to the program's return from poll
 *                                         with the frame in hand: microseconds, one line each
 *   wire flood NAME SECONDS               sends on an interface as fast as it goes: frames sent */
#include "../cuse_netmap/programs/frame.h"

#define NETMAP_WITH_LIBS
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LENGTH 60
#define BATCH 32

static const struct frame_addresses addresses = {
    .source_mac = {0x02, 0, 0, 0, 0, 0x01},
    .destination_mac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
    .source = {{198, 18, 0, 1}, 9},
    .destination = {{198, 18, 0, 2}, 9},
};
static uint8_t frame[LENGTH]; /* the very frame that gen sends */

static void die(const char *doing) {
    perror(doing);
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int make_tap(const char *name) {
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
    int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    int control = socket(AF_INET, SOCK_DGRAM, 0);
    snprintf(request.ifr_name, IFNAMSIZ, "%s", name);
    if (tap < 0 || ioctl(tap, TUNSETIFF, &request) < 0) die("/dev/net/tun");
    request.ifr_flags = IFF_UP;
    if (ioctl(control, SIOCSIFFLAGS, &request) < 0) die("up");
    close(control);
    return tap;
}

static int host_socket(const char *name) {
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_ifindex = (int)if_nametoindex(name)};
    int host = socket(AF_PACKET, SOCK_RAW, 0);
    if (host < 0 || !address.sll_ifindex ||
        bind(host, (struct sockaddr *)&address, sizeof(address)) < 0)
        die(name);
    return host;
}

static int write_frames(const char *name, long count) {
    int tap = make_tap(name);
    double start = now();
    for (long n = 0; n < count; n++)
        if (write(tap, frame, LENGTH) != LENGTH) die("write");
    printf("%.0f\n", (double)count / (now() - start));
    return 0;
}

static int read_frames(const char *name) {
    char buffer[2048], byte;
    long frames = 0;
    struct pollfd files[2] = {{make_tap(name), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};
    puts("ready");
    fflush(stdout);
    while (poll(files, 2, -1) > 0) {
        while (read(files[0].fd, buffer, sizeof(buffer)) > 0)
            frames++;
        if (files[1].revents && read(STDIN_FILENO, &byte, 1) == 0) break;
    }
    printf("%ld\n", frames);
    return 0;
}

static int flood(const char *name, double seconds) {
    int host = host_socket(name), one = 1;
    setsockopt(host, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof(one));
    struct iovec part = {frame, LENGTH};
    struct mmsghdr messages[BATCH];
    for (int i = 0; i < BATCH; i++)
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
    double end = now() + seconds;
    long sent = 0;
    while (now() < end) {
        int done = sendmmsg(host, messages, BATCH, 0);
        if (done > 0) sent += done;
    }
    printf("%ld\n", sent);
    return 0;
}

/* ---- wake-up -------------------------------------------------------------------------------- */

struct sender {
    int host;
    long count;
    _Atomic double sent; /* when; 0: the frame before has been seen */
};

static void *send_slowly(void *arg) {
    struct sender *sender = arg;
    for (long n = 0; n < sender->count; n++) {
        usleep(1000); /* by then the other side sleeps in poll */
        while (atomic_load(&sender->sent) != 0)
            usleep(100);
        atomic_store(&sender->sent, now());
        if (send(sender->host, frame, LENGTH, 0) < 0) die("send");
    }
    return NULL;
}

static bool take_tap(int fd) {
    char buffer[2048];
    bool any = false;
    while (read(fd, buffer, sizeof(buffer)) > 0)
        any |= !memcmp(buffer + 6, addresses.source_mac, 6);
    return any;
}

static bool take_netmap(struct nm_desc *port) {
    struct nm_pkthdr header;
    unsigned char *data;
    bool any = false;
    while ((data = nm_nextpkt(port, &header)))
        any |= !memcmp(data + 6, addresses.source_mac, 6);
    return any;
}

static int wake(const char *port_name, long count) {
    const char *name = strchr(port_name, ':') + 1;
    struct nm_desc *port = NULL;
    struct sender sender = {.count = count};
    struct pollfd file = {.events = POLLIN};
    if (!strncmp(port_name, "tap:", 4)) {
        file.fd = make_tap(name);
    } else {
        port = nm_open(port_name, NULL, 0, NULL);
        if (!port) die(port_name);
        file.fd = NETMAP_FD(port);
    }
    sender.host = host_socket(name);
    pthread_t thread;
    if (pthread_create(&thread, NULL, send_slowly, &sender)) die("thread");
    for (long seen = 0; seen < count;) {
        if (poll(&file, 1, 5000) <= 0) die("poll");
        if (!(port ? take_netmap(port) : take_tap(file.fd))) continue;
        printf("%.2f\n", (now() - atomic_load(&sender.sent)) * 1e6);
        atomic_store(&sender.sent, 0);
        seen++;
    }
    pthread_join(thread, NULL);
    return 0;
}

int main(int argc, char **argv) {
    static struct frame_template template;
    frame_prepare(&template, &addresses, LENGTH, 1);
    frame_write(&template, 0, frame);
    const char *what = argc > 2 ? argv[1] : "";
    if (argc == 3 && !strcmp(what, "read")) return read_frames(argv[2]);
    if (argc != 4) return 2;
    if (!strcmp(what, "write")) return write_frames(argv[2], atol(argv[3]));
    if (!strcmp(what, "wake")) return wake(argv[2], atol(argv[3]));
    if (!strcmp(what, "flood")) return flood(argv[2], atof(argv[3]));
    return 2;
}
