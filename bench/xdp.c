/* SPDX-License-Identifier: BSD-2-Clause */
/* AF_XDP with nothing between it and the program, one socket at queue 0: what netmap's figures are
 * held against. The program at the interface redirects to the socket and dies with us.
 *
 *   xdp send NAME SECONDS  gen's frames, as many as it between two kicks: "FRAMES SECONDS"
 *   xdp receive NAME       looks at frames as sink does until SIGTERM: "FRAMES", those of others */
#include "../cuse_netmap/programs/frame.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <xdp/xsk.h>

#define RING 1024
#define FRAME 2048
#define LENGTH 60
#define BATCH 512

static const struct frame_addresses addresses = {
    .source_mac = {0x02, 0, 0, 0, 0, 0x01},
    .destination_mac = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
    .source = {{198, 18, 0, 1}, 9},
    .destination = {{198, 18, 0, 2}, 9},
};

static char *memory;
static struct xsk_umem *umem;
static struct xsk_socket *xsk;
static struct xsk_ring_prod fill, tx;
static struct xsk_ring_cons comp, rx;

static volatile sig_atomic_t ended;

static void end(int number) {
    (void)number;
    ended = 1;
}

static void die(const char *doing, int error) {
    fprintf(stderr, "xdp: %s: %s\n", doing, strerror(error));
    exit(1);
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int bpf(enum bpf_cmd command, union bpf_attr *attr, const char *doing) {
    int result = (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
    if (result < 0) die(doing, errno);
    return result;
}

/* return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS), by a link that goes with us. */
static void attach(const char *name) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_type = BPF_MAP_TYPE_XSKMAP;
    attr.key_size = attr.value_size = attr.max_entries = 4;
    int map = bpf(BPF_MAP_CREATE, &attr, "map");
    struct bpf_insn code[] = {
        {BPF_LDX | BPF_W | BPF_MEM, 2, 1, offsetof(struct xdp_md, rx_queue_index), 0},
        {BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, map},
        {0, 0, 0, 0, 0},
        {BPF_ALU64 | BPF_MOV | BPF_K, 3, 0, 0, XDP_PASS},
        {BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_redirect_map},
        {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_XDP;
    attr.insns = (uintptr_t)code;
    attr.insn_cnt = sizeof(code) / sizeof(code[0]);
    attr.license = (uintptr_t)"BSD";
    int program = bpf(BPF_PROG_LOAD, &attr, "program");
    memset(&attr, 0, sizeof(attr));
    attr.link_create.prog_fd = (uint32_t)program;
    attr.link_create.target_fd = if_nametoindex(name);
    attr.link_create.attach_type = BPF_XDP;
    attr.link_create.flags = XDP_FLAGS_DRV_MODE;
    bpf(BPF_LINK_CREATE, &attr, "link");
    int error = xsk_socket__update_xskmap(xsk, map);
    if (error) die("map of sockets", -error);
}

static void open_socket(const char *name) {
    const struct xsk_umem_config umem_config = {
        .fill_size = RING, .comp_size = RING, .frame_size = FRAME};
    const struct xsk_socket_config config = {.rx_size = RING,
                                             .tx_size = RING,
                                             .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
                                             .bind_flags = XDP_USE_NEED_WAKEUP};
    size_t size = 2 * RING * FRAME;
    memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) die("memory", errno);
    int error = xsk_umem__create(&umem, memory, size, &fill, &comp, &umem_config);
    if (error) die("UMEM", -error);
    for (int tries = 0; tries < 40; tries++) { /* a socket that was closed lingers */
        error = xsk_socket__create(&xsk, name, 0, umem, &rx, &tx, &config);
        if (error != -EBUSY) break;
        usleep(10000);
    }
    if (error) die(name, -error);
}

static void kick(void) {
    while (*tx.producer != __atomic_load_n(tx.consumer, __ATOMIC_ACQUIRE))
        if (sendto(xsk_socket__fd(xsk), NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 && errno != EAGAIN &&
            errno != EBUSY && errno != ENOBUFS)
            die("sendto", errno);
}

static int send_frames(double seconds) {
    static struct frame_template frame;
    uint32_t index = 0;
    uint64_t sent = 0;
    frame_prepare(&frame, &addresses, LENGTH, 1);
    double start = now(), last = start;
    for (; last < start + seconds; last = now()) {
        uint32_t done = xsk_ring_cons__peek(&comp, RING, &index);
        if (done) xsk_ring_cons__release(&comp, done);
        uint32_t n = xsk_ring_prod__reserve(&tx, BATCH, &index);
        for (uint32_t i = 0; i < n; i++) {
            uint64_t address = (sent + i) % RING * FRAME;
            frame_write(&frame, sent + i, (uint8_t *)memory + address);
            *xsk_ring_prod__tx_desc(&tx, index + i) =
                (struct xdp_desc){.addr = address, .len = LENGTH};
        }
        xsk_ring_prod__submit(&tx, n);
        kick();
        sent += n;
    }
    printf("%llu %.6f\n", (unsigned long long)sent, last - start);
    return 0;
}

static int receive_frames(const char *name) {
    uint32_t index = 0, slot = 0, stream;
    uint64_t received = 0, ours = 0, sequence;
    xsk_ring_prod__reserve(&fill, RING, &index);
    for (uint32_t i = 0; i < RING; i++)
        *xsk_ring_prod__fill_addr(&fill, index + i) = (uint64_t)i * FRAME;
    xsk_ring_prod__submit(&fill, RING);
    attach(name);
    printf("ready\n");
    fflush(stdout);
    struct pollfd poll_fd = {.fd = xsk_socket__fd(xsk), .events = POLLIN};
    while (!ended) {
        uint32_t n = xsk_ring_cons__peek(&rx, BATCH, &index);
        if (!n) {
            poll(&poll_fd, 1, 100);
            continue;
        }
        xsk_ring_prod__reserve(&fill, n, &slot);
        for (uint32_t i = 0; i < n; i++) {
            const struct xdp_desc *descriptor = xsk_ring_cons__rx_desc(&rx, index + i);
            uint64_t address = descriptor->addr;
            ours += frame_read((uint8_t *)memory + address, descriptor->len, &stream, &sequence);
            *xsk_ring_prod__fill_addr(&fill, slot + i) = address & ~(uint64_t)(FRAME - 1);
        }
        xsk_ring_cons__release(&rx, n);
        xsk_ring_prod__submit(&fill, n);
        received += n;
    }
    printf("%llu %llu\n", (unsigned long long)received, (unsigned long long)(received - ours));
    return 0;
}

int main(int argc, char **argv) {
    signal(SIGTERM, end);
    signal(SIGINT, end);
    if (argc == 4 && !strcmp(argv[1], "send")) {
        open_socket(argv[2]);
        return send_frames(atof(argv[3]));
    }
    if (argc == 3 && !strcmp(argv[1], "receive")) {
        open_socket(argv[2]);
        return receive_frames(argv[2]);
    }
    fprintf(stderr, "usage: xdp send NAME SECONDS | receive NAME\n");
    return 2;
}
