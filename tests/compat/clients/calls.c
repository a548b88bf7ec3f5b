/* SPDX-License-Identifier: BSD-2-Clause */
/* What the calls of libcompat_netmap do, one test a name: `calls NAME [EAL options]`. Silent and
 * exit status 0 if all is as compat_netmap.h has it, else a line for each thing that is not. Port 0
 * is a ring that returns what is sent, ports 1 and 2 are null devices, of which 2 is none of
 * netmap's. */
#define COMPAT_NETMAP_API 14
#include <errno.h>
#include <fcntl.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <rte_malloc.h>

#include "compat_netmap.h"

#define SLOTS 64
#define PAGE 4096

static int wrong;

static void say(int line, const char *what, long value) {
    printf("line %d: %s: %ld, errno %s\n", line, what, value, strerror(errno));
    fflush(stdout);
    wrong = 1;
}

#define IS(call, wanted)                                                                           \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long value_ = (long)(call);                                                                \
        if (value_ != (long)(wanted)) say(__LINE__, #call, value_);                                \
    } while (0)
#define FAILS(call, number)                                                                        \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long value_ = (long)(call);                                                                \
        if (value_ != -1 || errno != (number)) say(__LINE__, #call, value_);                       \
    } while (0)
/* The two of the library's own: a negative errno, and errno too. */
#define REFUSED(call, number)                                                                      \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long value_ = (long)(call);                                                                \
        if (value_ != -(number) || errno != (number)) say(__LINE__, #call, value_);                \
    } while (0)

static struct rte_netmap_conf conf = {
    .socket_id = SOCKET_ID_ANY, .max_rings = 2, .max_slots = 1024, .max_bufsz = 2048};

static struct rte_netmap_port_conf port_conf(void) {
    return (struct rte_netmap_port_conf){.socket_id = SOCKET_ID_ANY,
                                         .nr_tx_rings = 1,
                                         .nr_rx_rings = 1,
                                         .nr_tx_slots = SLOTS,
                                         .nr_rx_slots = SLOTS};
}

static void set_up(void) {
    struct rte_netmap_port_conf one = port_conf();
    IS(rte_netmap_init(&conf), 0);
    IS(rte_netmap_init_port(0, &one), 0);
    IS(rte_netmap_init_port(1, &one), 0);
}

static int device(void) {
    int fd = rte_netmap_open("/dev/netmap", O_RDWR);
    if (fd < 0) {
        say(__LINE__, "open", fd);
        exit(1);
    }
    return fd;
}

static struct nmreq_register body;

static int attempt_as(int fd, const char *name, uint32_t mode, uint64_t flags, uint16_t ringid) {
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", name);
    body = (struct nmreq_register){.nr_mode = mode, .nr_flags = flags, .nr_ringid = ringid};
    return rte_netmap_ioctl(fd, NIOCCTRL, &header);
}

static int attempt(int fd) { return attempt_as(fd, "0", NR_REG_ALL_NIC, 0, 0); }

static int registered(void) {
    int fd = device();
    IS(attempt(fd), 0);
    return fd;
}

static struct netmap_if *mapped(int fd) {
    char *memory =
        rte_netmap_mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        say(__LINE__, "mmap", -1);
        exit(1);
    }
    return NETMAP_IF(memory, body.nr_offset);
}

static short ready(int fd, short events, int milliseconds) {
    struct pollfd wait = {.fd = fd, .events = events};
    return rte_netmap_poll(&wait, 1, milliseconds) > 0 ? wait.revents : 0;
}

static void put(struct netmap_if *nifp, unsigned char mark, uint16_t length) {
    struct netmap_ring *ring = NETMAP_TXRING(nifp, 0);
    struct netmap_slot *slot = &ring->slot[ring->head];
    memset(NETMAP_BUF(ring, slot->buf_idx), mark, length);
    slot->len = length;
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
}

/* The first byte of the next frame, -1: there is none. */
static int take(struct netmap_if *nifp) {
    struct netmap_ring *ring = NETMAP_RXRING(nifp, 0);
    if (nm_ring_empty(ring)) return -1;
    unsigned char mark = *(unsigned char *)NETMAP_BUF(ring, ring->slot[ring->head].buf_idx);
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
    return mark;
}

static long long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000ll + now.tv_nsec / 1000000;
}

/* ---- setting up --------------------------------------------------------------------------------
 */

static void before_init(void) {
    struct rte_netmap_port_conf one = port_conf();
    struct pollfd none = {.fd = -1};
    REFUSED(rte_netmap_init_port(0, &one), ENODEV);
    FAILS(rte_netmap_open("/dev/netmap", O_RDWR), ENODEV);
    FAILS(rte_netmap_close(-1), EBADF);
    FAILS(rte_netmap_ioctl(-1, NIOCTXSYNC, NULL), EBADF);
    FAILS(rte_netmap_mmap(NULL, PAGE, PROT_READ, MAP_SHARED, -1, 0), EBADF);
    IS(rte_netmap_poll(&none, 1, 0), 0);
    set_up();
    IS(rte_netmap_close(registered()), 0);
}

static void init_twice(void) {
    struct rte_netmap_port_conf one = port_conf();
    IS(rte_netmap_init(&conf), 0);
    REFUSED(rte_netmap_init(&conf), EALREADY);
    IS(rte_netmap_init_port(0, &one), 0);
    REFUSED(rte_netmap_init_port(0, &one), EBUSY);
    IS(rte_netmap_close(registered()), 0);
    rte_netmap_cleanup();
}

static void bad_conf(void) {
    struct rte_netmap_conf bad = conf;
    REFUSED(rte_netmap_init(NULL), EINVAL);
    bad.max_rings = 0;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    bad = conf;
    bad.max_slots = 1;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    bad.max_slots = UINT32_MAX;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    bad = conf;
    bad.max_bufsz = 8;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=4096,nonsense=1", 1);
    REFUSED(rte_netmap_init(&conf), EINVAL);
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=many", 1);
    REFUSED(rte_netmap_init(&conf), EINVAL);
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=1000000,buf_size=65536", 1);
    REFUSED(rte_netmap_init(&conf), EINVAL);
    unsetenv("COMPAT_NETMAP_PARAMETERS");
    IS(rte_netmap_init(&conf), 0);
}

static void bad_port(void) {
    struct rte_netmap_port_conf one = port_conf(), bad = one;
    IS(rte_netmap_init(&conf), 0);
    REFUSED(rte_netmap_init_port(0, NULL), EINVAL);
    REFUSED(rte_netmap_init_port(31, &one), ENODEV);
    REFUSED(rte_netmap_init_port(UINT16_MAX, &one), ENODEV);
    bad.nr_tx_rings = 0;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad.nr_tx_rings = 3; /* max_rings is 2 */
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad = one;
    bad.nr_rx_slots = 1025;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad.nr_rx_slots = 0;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad = one;
    struct rte_eth_conf impossible = {.rxmode.offloads = UINT64_MAX};
    bad.eth_conf = &impossible;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    IS(rte_netmap_init_port(0, &one), 0); /* none of that did it any harm */
    IS(rte_netmap_close(registered()), 0);
}

static void taken_port(void) {
    struct rte_netmap_port_conf one = port_conf();
    struct rte_eth_dev_owner owner = {.name = "somebody"};
    IS(rte_netmap_init(&conf), 0);
    IS(rte_eth_dev_owner_new(&owner.id), 0);
    IS(rte_eth_dev_owner_set(0, &owner), 0);
    REFUSED(rte_netmap_init_port(0, &one), EBUSY);
    IS(rte_eth_dev_owner_unset(0, owner.id), 0);
    IS(rte_netmap_init_port(0, &one), 0);
    IS(rte_netmap_init_port(1, &one), 0);
    int first = device(), second = device();
    IS(attempt_as(first, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
    FAILS(attempt(second), EBUSY);
    IS(rte_netmap_close(first), 0);
    IS(attempt_as(second, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static void no_memory(void) {
    struct rte_netmap_port_conf one = port_conf();
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=100", 1);
    IS(rte_netmap_init(&conf), 0);
    one.nr_tx_slots = one.nr_rx_slots = 1024;
    IS(rte_netmap_init_port(1, &one), 0);
    FAILS(attempt_as(device(), "1", NR_REG_ALL_NIC, 0, 0), ENOMEM);
    rte_netmap_cleanup();
    unsetenv("COMPAT_NETMAP_PARAMETERS");
    IS(rte_netmap_init(&conf), 0);
    while (rte_malloc(NULL, 1 << 16, 0)) {
    }
    REFUSED(rte_netmap_init_port(0, &one), ENOMEM);
}

/* ---- names and requests ------------------------------------------------------------------------
 */

static void names(void) {
    static const char *const good[] = {"0",         "netmap:0",        "dpdk0", "netmap:dpdk0",
                                       "net_ring0", "netmap:net_ring0"};
    static const char *const absent[] = {"",   "2",  "31",   "32",   "99999999999",
                                         "0x", "-1", "dpdk", "eth0", "net_null1"};
    set_up();
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int fd = device();
        IS(attempt_as(fd, good[i], NR_REG_ALL_NIC, 0, 0), 0);
        IS(rte_netmap_close(fd), 0);
    }
    int fd = device();
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        FAILS(attempt_as(fd, absent[i], NR_REG_ALL_NIC, 0, 0), ENXIO);
    FAILS(attempt_as(fd, "0{1", NR_REG_ALL_NIC, 0, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "vale0:1", NR_REG_ALL_NIC, 0, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "0", NR_REG_ALL_NIC, NR_MONITOR_RX, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "0", NR_REG_NULL, 0, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "0", NR_REG_DEFAULT, 0, 0), EINVAL);
    FAILS(attempt_as(fd, "0", NR_REG_ONE_NIC, 0, 7), EINVAL);
    IS(attempt(fd), 0);
    FAILS(attempt(fd), EBUSY);
}

static void requests(void) {
    set_up();
    int fd = device();
    struct nmreq_port_info_get info = {0};
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_PORT_INFO_GET,
                                  .nr_name = "0",
                                  .nr_body = (uintptr_t)&info};
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0);
    IS(info.nr_tx_slots, SLOTS);
    IS(info.nr_rx_rings, 1);
    IS(info.nr_mem_id, 1);
    struct nmreq_pools_info pools = {0};
    header.nr_reqtype = NETMAP_REQ_POOLS_INFO_GET;
    header.nr_body = (uintptr_t)&pools;
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0);
    IS(pools.nr_memsize, info.nr_memsize);
    IS(pools.nr_buf_pool_objsize, 2048);
    struct nmreq_port_hdr length = {.nr_hdr_len = 5};
    header.nr_reqtype = NETMAP_REQ_PORT_HDR_GET;
    header.nr_body = (uintptr_t)&length;
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0);
    IS(length.nr_hdr_len, 0);
    header.nr_reqtype = NETMAP_REQ_PORT_HDR_SET;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), ENXIO);
    header.nr_reqtype = NETMAP_REQ_VALE_ATTACH;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EOPNOTSUPP);
    header.nr_reqtype = 77;
    header.nr_body = 0;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL);
    header.nr_reqtype = NETMAP_REQ_PORT_INFO_GET;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL); /* without its body */
    header.nr_body = (uintptr_t)&info;
    header.nr_reserved = 1;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL);
    header.nr_version = 3;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL);
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, NULL), EINVAL);
    FAILS(rte_netmap_ioctl(fd, NIOCREGIF, NULL), EINVAL);
}

static void options(void) {
    set_up();
    int fd = device();
    struct nmreq_option loop = {.nro_reqtype = 100},
                        unknown = {.nro_reqtype = 100, .nro_status = 3};
    loop.nro_next = (uintptr_t)&loop;
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_name = "0",
                                  .nr_options = (uintptr_t)&loop,
                                  .nr_body = (uintptr_t)&body};
    body = (struct nmreq_register){.nr_mode = NR_REG_ALL_NIC};
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EMSGSIZE);
    header.nr_options = (uintptr_t)&unknown;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EOPNOTSUPP);
    IS(unknown.nro_status, EOPNOTSUPP);
    struct nmreq_opt_offsets offsets = {.nro_opt.nro_reqtype = NETMAP_REQ_OPT_OFFSETS,
                                        .nro_max_offset = 128,
                                        .nro_initial_offset = 64};
    header.nr_options = (uintptr_t)&offsets;
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0); /* the refusal left it free */
    IS(offsets.nro_opt.nro_status, 0);
    struct netmap_ring *ring = NETMAP_TXRING(mapped(fd), 0);
    IS(ring->slot[0].ptr, 64);
}

static void wrong_sizes(void) {
    set_up();
    int fd = device();
    char bytes[256] = "0";
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 146, char[56]), bytes), EINVAL);
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 145, char[64]), bytes), EINVAL);
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 151, char[80]), bytes), EINVAL);
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 99, char[80]), bytes), EOPNOTSUPP);
    IS(attempt(fd), 0);
}

static void legacy(void) {
    set_up();
    int fd = device();
    struct nmreq request = {.nr_name = "0", .nr_version = NETMAP_API, .nr_flags = NR_REG_ALL_NIC};
    IS(rte_netmap_ioctl(fd, NIOCGINFO, &request), 0);
    IS(request.nr_rx_slots, SLOTS);
    IS(request.nr_arg2, 1);
    IS(rte_netmap_ioctl(fd, NIOCREGIF, &request), 0);
    FAILS(rte_netmap_ioctl(fd, NIOCREGIF, &request), EBUSY);
    IS(rte_netmap_ioctl(fd, _IO('i', 147), NULL), 0);
    FAILS(rte_netmap_ioctl(fd, _IO('i', 147), NULL), EINVAL);
    FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
    IS(rte_netmap_ioctl(fd, NIOCREGIF, &request), 0);
    request = (struct nmreq){.nr_name = "0", .nr_version = 1};
    FAILS(rte_netmap_ioctl(fd, NIOCGINFO, &request), EINVAL);
    IS(request.nr_version, NETMAP_API);
}

/* ---- memory ------------------------------------------------------------------------------------
 */

static void memory(void) {
    set_up();
    int fd = registered();
    size_t size = body.nr_memsize;
    int prot = PROT_READ | PROT_WRITE;
    FAILS(rte_netmap_mmap(NULL, size + PAGE, prot, MAP_SHARED, fd, 0), EINVAL);
    FAILS(rte_netmap_mmap(NULL, size, prot, MAP_SHARED, fd, PAGE), EINVAL);
    FAILS(rte_netmap_mmap(NULL, PAGE, prot, MAP_SHARED, fd, (off_t)size), EINVAL);
    FAILS(rte_netmap_mmap(NULL, PAGE, prot, MAP_SHARED, fd, -PAGE), EINVAL);
    FAILS(rte_netmap_mmap(NULL, PAGE, prot, MAP_SHARED, fd, 100), EINVAL);
    FAILS(rte_netmap_mmap(NULL, 0, prot, MAP_SHARED, fd, 0), EINVAL);
    FAILS(rte_netmap_mmap(NULL, SIZE_MAX - PAGE, prot, MAP_SHARED, fd, PAGE), EINVAL);
    char *whole = rte_netmap_mmap(NULL, size, prot, MAP_SHARED, fd, 0);
    char *private = rte_netmap_mmap(NULL, size, prot, MAP_PRIVATE, fd, 0);
    char *part = rte_netmap_mmap(NULL, PAGE, prot, MAP_SHARED, fd, (off_t)size - PAGE);
    IS(whole == MAP_FAILED || private == MAP_FAILED || part == MAP_FAILED, 0);
    IS(strcmp(NETMAP_IF(private, body.nr_offset)->ni_name, "dpdk0"), 0);
    private[size - 1] = 'x';
    IS(whole[size - 1], 'x'); /* private is shared */
    IS(part[PAGE - 1], 'x');
    IS(munmap(part, PAGE), 0);
    char *anonymous = rte_netmap_mmap(NULL, PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    IS(anonymous == MAP_FAILED, 0);
}

/* ---- traffic -----------------------------------------------------------------------------------
 */

static void syncs(void) {
    set_up();
    int fd = device();
    FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
    IS(ready(fd, POLLIN, 100), POLLERR);
    IS(attempt(fd), 0);
    struct netmap_if *nifp = mapped(fd);
    for (unsigned round = 0; round < 1000; round++) {
        uint16_t length = (uint16_t)(60 + round * 7 % 1400); /* copied, and pointed at */
        put(nifp, (unsigned char)round, length);
        IS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), 0);
        IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
        struct netmap_ring *ring = NETMAP_RXRING(nifp, 0);
        IS(ring->slot[ring->head].len, length);
        IS(take(nifp), (unsigned char)round);
        IS(take(nifp), -1);
    }
}

static void flags(void) {
    set_up();
    struct netmap_if *nifp = mapped(registered());
    (void)nifp;
    int fd = device();
    IS(attempt(fd), 0);
    nifp = mapped(fd);
    struct netmap_ring *tx = NETMAP_TXRING(nifp, 0), *rx = NETMAP_RXRING(nifp, 0);
    uint32_t sent = tx->slot[0].buf_idx, spare = tx->slot[2].buf_idx;
    put(nifp, 0x11, 1000);
    put(nifp, 0x22, 500);
    tx->slot[0].flags = NS_MOREFRAG;
    tx->slot[1].flags = NS_BUF_CHANGED | NS_REPORT;
    tx->slot[2].buf_idx = tx->slot[1].buf_idx; /* a swap */
    memcpy(NETMAP_BUF(tx, spare), NETMAP_BUF(tx, tx->slot[1].buf_idx), 500);
    tx->slot[1].buf_idx = spare;
    IS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), 0);
    IS(tx->slot[1].flags, 0);
    IS(tx->slot[0].buf_idx, sent);
    IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
    IS(nm_ring_space(rx), 1); /* one frame of 1500 bytes */
    IS(rx->slot[0].len, 1500);
    IS(rx->slot[0].flags & NS_MOREFRAG, 0);
    char *data = NETMAP_BUF(rx, rx->slot[0].buf_idx);
    IS(data[999], 0x11);
    IS(data[1000], 0x22);
}

static void one_ring(void) {
    struct rte_netmap_port_conf two = port_conf();
    IS(rte_netmap_init(&conf), 0);
    two.nr_tx_rings = 2;
    IS(rte_netmap_init_port(1, &two), 0); /* more TX than RX rings, and not as many slots */
    int first = device(), second = device(), both = device();
    IS(attempt_as(first, "1", NR_REG_ONE_NIC, NR_EXCLUSIVE | NR_TX_RINGS_ONLY, 0), 0);
    IS(body.nr_tx_rings, 2);
    IS(body.nr_rx_rings, 1);
    IS(attempt_as(second, "1", NR_REG_ONE_NIC, NR_EXCLUSIVE | NR_TX_RINGS_ONLY, 1), 0);
    struct netmap_if *nifp = mapped(second);
    FAILS(attempt_as(both, "1", NR_REG_ALL_NIC, 0, 0), EBUSY);
    IS(nifp->ring_ofs[0], 0);
    IS(nifp->ring_ofs[1] != 0, 1);
    struct netmap_ring *ring = NETMAP_TXRING(nifp, 1);
    ring->slot[0].len = 60;
    ring->head = ring->cur = 1;
    IS(rte_netmap_ioctl(second, NIOCTXSYNC, NULL), 0);
    IS(ring->tail, 0);
}

static void timeouts(void) {
    set_up();
    int fd = registered(), ends[2];
    struct netmap_if *nifp = mapped(fd);
    IS(pipe(ends), 0);
    long long start = milliseconds();
    IS(ready(fd, POLLIN, 0), 0);
    IS(milliseconds() - start < 100, 1);
    IS(ready(fd, POLLIN, 200), 0);
    IS(milliseconds() - start >= 200, 1);
    IS(ready(fd, POLLOUT, -1), POLLOUT);
    put(nifp, 7, 60);
    IS(ready(fd, POLLIN, -1), POLLIN); /* which sends first */
    IS(take(nifp), 7);
    /* An ordinary descriptor among ours. */
    struct pollfd two[2] = {{.fd = fd, .events = POLLIN}, {.fd = ends[0], .events = POLLIN}};
    start = milliseconds();
    IS(rte_netmap_poll(two, 2, 200), 0);
    IS(milliseconds() - start >= 200, 1);
    IS(write(ends[1], "x", 1), 1);
    IS(rte_netmap_poll(two, 2, -1), 1);
    IS(two[0].revents, 0);
    IS(two[1].revents, POLLIN);
    put(nifp, 8, 60);
    IS(rte_netmap_poll(two, 2, -1), 2);
    struct pollfd ignored[2] = {{.fd = -1, .events = POLLIN, .revents = 7},
                                {.fd = ends[0], .events = POLLIN}};
    IS(rte_netmap_poll(ignored, 2, 0), 1);
    IS(ignored[0].revents, 0);
    struct pollfd closed = {.fd = 999, .events = POLLIN};
    IS(rte_netmap_poll(&closed, 1, 0), 1);
    IS(closed.revents, POLLNVAL);
}

static void *send_later(void *nifp_) {
    usleep(200000);
    put(nifp_, 9, 60);
    return NULL;
}

static void wakes(void) {
    set_up();
    int receiver = device(), sender = device();
    IS(attempt_as(receiver, "0", NR_REG_ALL_NIC, NR_RX_RINGS_ONLY, 0), 0);
    struct netmap_if *in = mapped(receiver);
    IS(attempt_as(sender, "0", NR_REG_ALL_NIC, NR_TX_RINGS_ONLY, 0), 0);
    struct netmap_if *out = mapped(sender);
    pthread_t thread;
    long long start = milliseconds();
    IS(pthread_create(&thread, NULL, send_later, out), 0);
    struct pollfd two[2] = {{.fd = receiver, .events = POLLIN}, {.fd = sender}};
    while (rte_netmap_poll(two, 2, 50) == 0 && milliseconds() - start < 5000) {
    }
    IS(two[0].revents, POLLIN);
    IS(take(in), 9);
    pthread_join(thread, NULL);
}

static void interrupted(int number) { (void)number; }

static void signals(void) {
    set_up();
    int fd = registered();
    struct sigaction action = {.sa_handler = interrupted, .sa_flags = SA_RESTART};
    struct itimerval timer = {.it_value.tv_usec = 100000};
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &timer, NULL);
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    FAILS(rte_netmap_poll(&wait, 1, -1), EINTR);
}

/* ---- descriptors -------------------------------------------------------------------------------
 */

static void several(void) {
    set_up();
    int first = registered(), second = registered();
    struct netmap_if *a = mapped(first), *b = mapped(second);
    put(a, 3, 60);
    IS(rte_netmap_ioctl(second, NIOCTXSYNC, NULL), 0); /* they share rings */
    IS(rte_netmap_ioctl(second, NIOCRXSYNC, NULL), 0);
    IS(take(b), 3);
    IS(rte_netmap_close(first), 0);
    put(b, 4, 60);
    IS(ready(second, POLLIN, 1000), POLLIN);
    IS(take(b), 4);
}

static void dups(void) {
    set_up();
    int fd = registered();
    int copy = dup(fd), high = fcntl(fd, F_DUPFD_CLOEXEC, 100);
    IS(high >= 100, 1);
    IS(fcntl(high, F_GETFD), FD_CLOEXEC);
    IS(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    IS(rte_netmap_close(fd), 0);
    FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), EBADF);
    struct netmap_if *nifp = mapped(copy);
    put(nifp, 5, 60);
    IS(rte_netmap_ioctl(high, NIOCTXSYNC, NULL), 0);
    IS(ready(copy, POLLIN, 1000), POLLIN);
    IS(take(nifp), 5);
    IS(close(copy), 0);
    int other = device();
    FAILS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), EBUSY); /* one is left */
    IS(close(high), 0);
    IS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static void libc_close(void) {
    set_up();
    for (int round = 0; round < 200; round++) {
        int fd = device();
        IS(attempt_as(fd, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
        IS((round & 1 ? close : rte_netmap_close)(fd), 0);
    }
    int null = open("/dev/null", O_RDWR), fd = registered();
    IS(dup2(null, fd), fd); /* another way to close */
    FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), ENOTTY);
    IS(attempt_as(device(), "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static void forks(void) {
    set_up();
    int fd = device();
    IS(attempt_as(fd, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
    struct netmap_if *nifp = mapped(fd);
    int go[2];
    IS(pipe(go), 0);
    pid_t child = fork();
    if (!child) {
        char byte;
        FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
        FAILS(rte_netmap_mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0), ENXIO);
        struct pollfd one = {.fd = fd, .events = POLLIN};
        FAILS(rte_netmap_poll(&one, 1, 0), ENXIO);
        IS(NETMAP_TXRING(nifp, 0)->num_slots, SLOTS); /* what is mapped stays so */
        close(go[1]);
        IS(read(go[0], &byte, 1), 0);
        IS(rte_netmap_close(fd), 0);
        _exit(wrong);
    }
    close(go[0]);
    put(nifp, 6, 60);
    IS(ready(fd, POLLIN, 1000), POLLIN);
    IS(take(nifp), 6);
    IS(rte_netmap_close(fd), 0);
    int other = device();
    FAILS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), EBUSY); /* the child has it */
    close(go[1]);
    int status;
    IS(waitpid(child, &status, 0), child);
    IS(status, 0);
    IS(attempt_as(other, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static int libc_ready(int fd, int milliseconds_) {
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    return poll(&wait, 1, milliseconds_);
}

static void libc_waits(void) {
    set_up();
    int fd = registered(), epoll = epoll_create1(0);
    struct netmap_if *nifp = mapped(fd);
    struct epoll_event event = {.events = EPOLLIN};
    IS(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), 0);
    IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
    IS(libc_ready(fd, 50), 0);
    for (unsigned char round = 0; round < 50; round++) {
        put(nifp, round, 60);
        IS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), 0);
        IS(libc_ready(fd, 2000), 1);
        IS(epoll_wait(epoll, &event, 1, 2000), 1);
        IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
        IS(take(nifp), round);
        IS(libc_ready(fd, 2000), 1); /* until a sync finds nothing */
        IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
        IS(libc_ready(fd, 0), 0);
    }
}

static void others(void) {
    set_up();
    int fd = rte_netmap_open("/tmp", O_RDWR | O_TMPFILE, 0600), copy;
    IS(fd >= 0, 1);
    IS(write(fd, "hello", 5), 5);
    IS(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
    char *memory = rte_netmap_mmap(NULL, 5, PROT_READ, MAP_PRIVATE, fd, 0);
    IS(memory == MAP_FAILED, 0);
    IS(memcmp(memory, "hello", 5), 0);
    IS(rte_netmap_ioctl(fd, FIONREAD, &copy), 0);
    IS(copy, 0);
    IS(rte_netmap_close(fd), 0);
    FAILS(rte_netmap_close(fd), EBADF);
    FAILS(rte_netmap_open(NULL, O_RDWR), EFAULT);
    FAILS(rte_netmap_open("/nonexistent/file", O_RDWR), ENOENT);
}

/* ---- the device --------------------------------------------------------------------------------
 */

static void interface(void) {
    set_up();
    int fd = device();
    struct ifreq request = {.ifr_name = "whatever"};
    FAILS(rte_netmap_ioctl(fd, SIOCGIFFLAGS, &request), EOPNOTSUPP);
    IS(attempt_as(fd, "1", NR_REG_ALL_NIC, 0, 0), 0);
    IS(rte_netmap_ioctl(fd, SIOCGIFFLAGS, &request), 0);
    IS(request.ifr_flags & (IFF_UP | IFF_RUNNING), IFF_UP | IFF_RUNNING);
    IS(rte_netmap_ioctl(fd, SIOCGIFMTU, &request), 0);
    IS(request.ifr_mtu, 1500);
    request.ifr_mtu = 9000;
    FAILS(rte_netmap_ioctl(fd, SIOCSIFMTU, &request), EINVAL);
    struct rte_ether_addr address;
    IS(rte_eth_macaddr_get(1, &address), 0);
    IS(rte_netmap_ioctl(fd, SIOCGIFHWADDR, &request), 0);
    IS(memcmp(request.ifr_hwaddr.sa_data, &address, 6), 0);
    request.ifr_hwaddr.sa_data[5] = 0x33;
    IS(rte_netmap_ioctl(fd, SIOCSIFHWADDR, &request), 0);
    IS(rte_eth_macaddr_get(1, &address), 0);
    IS(address.addr_bytes[5], 0x33);
    FAILS(rte_netmap_ioctl(fd, SIOCGIFINDEX, &request), EOPNOTSUPP);
    FAILS(rte_netmap_ioctl(fd, SIOCGIFADDR, &request), EOPNOTSUPP);
    FAILS(rte_netmap_ioctl(fd, SIOCGIFMTU, NULL), EFAULT);
    struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
    request.ifr_data = (char *)&driver;
    IS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), 0);
    IS(strcmp(driver.driver, "net_null"), 0);
    struct ethtool_value value = {.cmd = ETHTOOL_STSO};
    request.ifr_data = (char *)&value;
    IS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), 0);
    value.data = 1;
    FAILS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), EOPNOTSUPP);
    value.cmd = 0xffff;
    FAILS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), EOPNOTSUPP);
}

static void parameters(void) {
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=8192, buf_size=4096,no_timestamp=1", 1);
    set_up();
    int fd = registered();
    struct netmap_if *nifp = mapped(fd);
    IS(NETMAP_TXRING(nifp, 0)->nr_buf_size, 4096);
    put(nifp, 1, 60);
    IS(ready(fd, POLLIN, 1000), POLLIN);
    IS(NETMAP_RXRING(nifp, 0)->ts.tv_sec, 0);
    NETMAP_RXRING(nifp, 0)->flags = NR_TIMESTAMP;
    IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
    IS(NETMAP_RXRING(nifp, 0)->ts.tv_sec > 0, 1);
}

struct sleeper {
    pthread_t thread;
    int fd;
    short events, revents;
};

static void *sleep_on(void *sleeper_) {
    struct sleeper *sleeper = sleeper_;
    struct pollfd wait = {.fd = sleeper->fd, .events = sleeper->events};
    rte_netmap_poll(&wait, 1, 10000);
    sleeper->revents = wait.revents;
    return NULL;
}

static void sleepers(void) {
    set_up();
    int fd = registered(), copy = dup(fd);
    struct netmap_if *nifp = mapped(fd);
    struct sleeper all[8];
    long long start = milliseconds();
    for (int i = 0; i < 8; i++) {
        all[i] = (struct sleeper){.fd = i & 1 ? fd : copy, .events = POLLIN};
        IS(pthread_create(&all[i].thread, NULL, sleep_on, &all[i]), 0);
    }
    usleep(100000);
    put(nifp, 1, 60);
    IS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), 0);
    for (int i = 0; i < 8; i++) { /* each of them is woken by the one frame */
        pthread_join(all[i].thread, NULL);
        IS(all[i].revents, POLLIN);
    }
    IS(take(nifp), 1);
    IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
    for (int i = 0; i < 8; i++)
        IS(pthread_create(&all[i].thread, NULL, sleep_on, &all[i]), 0);
    usleep(100000);
    IS(rte_netmap_ioctl(fd, _IO('i', 147), NULL), 0); /* nothing is left to sleep for */
    for (int i = 0; i < 8; i++) {
        pthread_join(all[i].thread, NULL);
        IS(all[i].revents, POLLERR);
    }
    IS(milliseconds() - start < 9000, 1);
}

/* ---- threads -----------------------------------------------------------------------------------
 */

static volatile bool enough;

static void *sync_all_the_time(void *fd_) {
    int fd = *(int *)fd_;
    while (!enough) {
        rte_netmap_ioctl(fd, NIOCTXSYNC, NULL);
        rte_netmap_ioctl(fd, NIOCRXSYNC, NULL);
        ready(fd, POLLIN | POLLOUT, 1);
    }
    return NULL;
}

static void threads(void) {
    set_up();
    pthread_t thread[4];
    int fd = device();
    for (int i = 0; i < 4; i++)
        IS(pthread_create(&thread[i], NULL, sync_all_the_time, &fd), 0);
    for (int round = 0; round < 200; round++) {
        struct nmreq request = {
            .nr_name = "0", .nr_version = NETMAP_API, .nr_flags = NR_REG_ALL_NIC};
        IS(rte_netmap_ioctl(fd, NIOCREGIF, &request), 0);
        int other = device();
        IS(attempt(other), 0);
        IS(rte_netmap_close(other), 0);
        IS(rte_netmap_ioctl(fd, _IO('i', 147), NULL), 0);
    }
    enough = true;
    for (int i = 0; i < 4; i++)
        pthread_join(thread[i], NULL);
    IS(attempt_as(device(), "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

#define CASE(name) {#name, name}
static const struct {
    const char *name;
    void (*run)(void);
} cases[] = {CASE(before_init), CASE(init_twice),  CASE(bad_conf),   CASE(bad_port),
             CASE(taken_port),  CASE(no_memory),   CASE(names),      CASE(requests),
             CASE(options),     CASE(wrong_sizes), CASE(legacy),     CASE(memory),
             CASE(syncs),       CASE(flags),       CASE(one_ring),   CASE(timeouts),
             CASE(wakes),       CASE(signals),     CASE(several),    CASE(dups),
             CASE(libc_close),  CASE(forks),       CASE(libc_waits), CASE(others),
             CASE(interface),   CASE(parameters),  CASE(sleepers),   CASE(threads)};

int main(int argc, char **argv) {
    if (argc < 2) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
            puts(cases[i].name);
        return 0;
    }
    if (rte_eal_init(argc - 1, argv + 1) < 0) return 9;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        if (strcmp(cases[i].name, argv[1])) continue;
        cases[i].run();
        rte_netmap_cleanup();
        rte_eal_cleanup();
        return wrong;
    }
    return 2;
}
