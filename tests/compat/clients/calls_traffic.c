/* SPDX-License-Identifier: BSD-2-Clause */
/* Memory, frames, and who is woken by them. */
#include "calls.h"

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

static const struct call_case cases[] = {CASE(memory),   CASE(syncs), CASE(flags),   CASE(one_ring),
                                         CASE(timeouts), CASE(wakes), CASE(signals), CASE(sleepers),
                                         CASE(threads),  {0}};

int main(int argc, char **argv) { return run_case(cases, argc, argv); }
