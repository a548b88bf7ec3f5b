/* SPDX-License-Identifier: BSD-2-Clause */
/* What system calls on the device do, one test a name: `calls NAME`. Silent and exit status 0 if
 * all is as netmap has it, else a line for each thing that is not. Port tap0. */
#include "patience.h"

#include <errno.h>
#include <fcntl.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

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
        long value = (long)(call);                                                                 \
        if (value != (long)(wanted)) say(__LINE__, #call, value);                                  \
    } while (0)
#define FAILS(call, number)                                                                        \
    do {                                                                                           \
        errno = 0;                                                                                 \
        long value = (long)(call);                                                                 \
        if (value != -1 || errno != (number)) say(__LINE__, #call, value);                         \
    } while (0)

static int device(int flags) {
    int fd = open(NETMAP_DEVICE_NAME, flags);
    if (fd < 0) {
        say(__LINE__, "open", fd);
        exit(1);
    }
    return fd;
}

static struct nmreq_register body;

static int attempt(int fd, void *where) {
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_name = "tap0",
                                  .nr_body = (uintptr_t)where};
    body = (struct nmreq_register){.nr_mode = NR_REG_ALL_NIC};
    return ioctl(fd, NIOCCTRL, &header);
}

static int registered(void) {
    int fd = device(O_RDWR);
    IS(attempt(fd, &body), 0);
    return fd;
}

static struct netmap_if *mapped(int fd) {
    char *memory = mmap(NULL, body.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        say(__LINE__, "mmap", -1);
        exit(1);
    }
    return NETMAP_IF(memory, body.nr_offset);
}

static int ready(int fd, short events, int milliseconds) {
    struct pollfd wait = {.fd = fd, .events = events};
    return poll(&wait, 1, milliseconds) > 0 ? wait.revents : 0;
}

/* A frame into the ring, to be sent by the next sync. */
static void put(struct netmap_ring *ring) {
    struct netmap_slot *slot = &ring->slot[ring->head];
    memset(NETMAP_BUF(ring, slot->buf_idx), 0x5a, 60);
    slot->len = 60;
    ring->head = ring->cur = nm_ring_next(ring, ring->head);
}

/* ---- what is no ioctl of netmap, or comes too early ------------------------------------------ */

static void unregistered(void) {
    int fd = device(O_RDWR);
    FAILS(ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
    FAILS(ioctl(fd, NIOCRXSYNC, NULL), ENXIO);
    IS(ready(fd, POLLIN, -1), POLLERR);
    IS(ready(fd, POLLOUT, -1), POLLERR);
    IS(ready(fd, 0, -1), POLLERR);
    IS(attempt(fd, &body), 0);
    IS(ioctl(fd, NIOCTXSYNC, NULL), 0);
    FAILS(attempt(fd, &body), EBUSY);
    IS(ioctl(fd, NIOCTXSYNC, NULL), 0);
}

static void unknown(void) {
    char argument[4096] = {0};
    for (int again = 0; again < 2; again++) {
        int fd = again ? registered() : device(O_RDWR);
        struct termios terminal;
        int on = 1;
        FAILS(ioctl(fd, TCGETS, &terminal), EOPNOTSUPP);
        FAILS(ioctl(fd, SIOCGIFADDR, argument), EOPNOTSUPP);
        FAILS(ioctl(fd, _IO('i', 200), NULL), EOPNOTSUPP);
        FAILS(ioctl(fd, _IOWR('i', 200, char[4000]), argument), EOPNOTSUPP);
        FAILS(ioctl(fd, _IO('i', 147), NULL), EOPNOTSUPP);
        IS(isatty(fd), 0);
        /* The kernel answers these itself for every regular file. */
        IS(ioctl(fd, FIONBIO, &on), 0);
        IS(fcntl(fd, F_SETFL, O_RDWR), 0);
    }
}

static void other_calls(void) {
    char data[64] = {0};
    struct stat status;
    int fd = registered();
    FAILS(read(fd, data, sizeof(data)), EINVAL);
    FAILS(write(fd, data, sizeof(data)), EINVAL);
    FAILS(pread(fd, data, sizeof(data), 4096), EINVAL);
    FAILS(pwrite(fd, data, sizeof(data), 4096), EINVAL);
    IS(fstat(fd, &status), 0);
    IS(S_ISREG(status.st_mode) || S_ISCHR(status.st_mode), 1);
    int unheard = S_ISREG(status.st_mode) ? EOPNOTSUPP : ENODEV;
    FAILS(fallocate(fd, 0, 0, 4096), unheard);
    FAILS(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20), unheard);
    lseek(fd, 100, SEEK_SET);
    lseek(fd, 0, SEEK_END);
    lseek(fd, 0, SEEK_DATA);
    fsync(fd);
    fdatasync(fd);
    syncfs(fd);
    IS(fchmod(fd, 0600), 0);
    IS(fstat(fd, &status), 0);
    IS(status.st_mode & 07777, 0600);
    IS(fchown(fd, 1, 2), 0);
    IS(fstat(fd, &status), 0);
    IS(status.st_uid, 1);
    IS(status.st_gid, 2);
    IS(fchown(fd, 0, 0), 0);
    IS(fchmod(fd, 0660), 0);
    IS(ioctl(fd, NIOCRXSYNC, NULL), 0);
}

/* Whatever a program does to the "file", packet memory is as it was. */
static void truncation(void) {
    int fd = registered();
    struct netmap_if *nifp = mapped(fd);
    struct stat status;
    int other = device(O_RDWR | O_TRUNC);
    close(other);
    ftruncate(fd, 0) ? (void)0 : (void)0;
    truncate(NETMAP_DEVICE_NAME, 1) ? (void)0 : (void)0;
    IS(strcmp(nifp->ni_name, "tap0"), 0);
    IS(NETMAP_TXRING(nifp, 0)->num_slots, 1024);
    other = device(O_RDWR | O_TRUNC);
    IS(attempt(other, &body), 0);
    IS(strcmp(mapped(other)->ni_name, "tap0"), 0);
    IS(fstat(fd, &status), 0);
    IS(S_ISCHR(status.st_mode) || status.st_size >= (off_t)body.nr_memsize, 1);
}

static void read_only(void) {
    int fd = device(O_RDONLY);
    IS(attempt(fd, &body), 0);
    char *memory = mmap(NULL, body.nr_memsize, PROT_READ, MAP_SHARED, fd, 0);
    IS(memory != MAP_FAILED, 1);
    IS(strcmp(NETMAP_IF(memory, body.nr_offset)->ni_name, "tap0"), 0);
    IS(ioctl(fd, NIOCTXSYNC, NULL), 0);
    FAILS(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EACCES);
}

/* ---- poll ------------------------------------------------------------------------------------ */

static long milliseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void time_outs(void) {
    int fd = registered();
    struct netmap_if *nifp = mapped(fd);
    struct netmap_ring *rx = NETMAP_RXRING(nifp, 0);
    ioctl(fd, NIOCRXSYNC, NULL);
    rx->head = rx->cur = rx->tail;
    long start = milliseconds();
    IS(ready(fd, POLLIN, 0), 0);
    IS(milliseconds() - start < at_most(50), 1);
    start = milliseconds();
    IS(ready(fd, POLLIN, 100), 0);
    long took = milliseconds() - start;
    IS(took >= 99 && took < at_most(200), 1);
    IS(ready(fd, POLLOUT, -1), POLLOUT);
    IS(ready(fd, POLLIN | POLLOUT, -1), POLLOUT);
    fd_set in, out;
    struct timeval soon = {.tv_usec = 50000};
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(fd, &in);
    FD_SET(fd, &out);
    IS(select(fd + 1, &in, NULL, NULL, &soon), 0);
    FD_SET(fd, &in);
    IS(select(fd + 1, &in, &out, NULL, NULL), 1);
    IS(FD_ISSET(fd, &out) && !FD_ISSET(fd, &in), 1);
}

/* ---- shared descriptors ---------------------------------------------------------------------- */

/* The child of a fork sends on the inherited descriptor and polls it; the parent's ring moves. */
static void after_fork(void) {
    int fd = registered();
    struct netmap_ring *tx = NETMAP_TXRING(mapped(fd), 0);
    uint32_t tail = tx->tail;
    put(tx);
    pid_t child = fork();
    if (child == 0) {
        int failed = ioctl(fd, NIOCTXSYNC, NULL) < 0 || ready(fd, POLLOUT, 1000) != POLLOUT;
        _exit(failed);
    }
    int status;
    waitpid(child, &status, 0);
    IS(status, 0);
    IS(tx->tail, nm_ring_next(tx, tail));
    IS(ioctl(fd, NIOCTXSYNC, NULL), 0); /* the child's end has closed nothing */
}

static void copies(void) {
    int fd = registered(), copy = dup(fd);
    close(fd);
    IS(ioctl(copy, NIOCTXSYNC, NULL), 0);
    IS(ready(copy, POLLOUT, 1000), POLLOUT);
    FAILS(attempt(copy, &body), EBUSY);
    int other = device(O_RDWR);
    FAILS(ioctl(other, NIOCTXSYNC, NULL), ENXIO);
}

static void send_fd(int through, int fd) {
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    *header = (struct cmsghdr){
        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    IS(sendmsg(through, &message, 0), 1);
}

static int receive_fd(int through) {
    char control[CMSG_SPACE(sizeof(int))], byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    int fd = -1;
    IS(recvmsg(through, &message, 0), 1);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

/* A server opens and registers; another process, which never opened the device, maps what it is
 * given, sends, and goes; the next one finds the ring where the first left it. */
static void passed_on(void) {
    int ends[2];
    IS(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    pid_t server = fork();
    if (server == 0) {
        int fd = registered();
        for (int i = 0; i < 2; i++)
            send_fd(ends[1], fd);
        struct nmreq_register granted = body;
        IS(write(ends[1], &granted, sizeof(granted)), sizeof(granted));
        close(fd);
        _exit(wrong);
    }
    int fds[2] = {receive_fd(ends[0]), receive_fd(ends[0])}, status;
    IS(read(ends[0], &body, sizeof(body)), sizeof(body));
    waitpid(server, &status, 0);
    IS(status, 0);
    uint32_t head = 0;
    for (int i = 0; i < 2; i++) {
        pid_t user = fork();
        if (user == 0) {
            struct netmap_ring *tx = NETMAP_TXRING(mapped(fds[i]), 0);
            IS(tx->head, head);
            put(tx);
            IS(ioctl(fds[i], NIOCTXSYNC, NULL), 0);
            IS(ready(fds[i], POLLOUT, 1000), POLLOUT);
            _exit(wrong);
        }
        waitpid(user, &status, 0);
        IS(status, 0);
        head++;
    }
    close(fds[0]);
    IS(ioctl(fds[1], NIOCTXSYNC, NULL), 0);
    IS(NETMAP_TXRING(mapped(fds[1]), 0)->head, 2);
}

static int shared_fd;
static volatile int over;

static void *use_shared(void *argument) {
    long kind = (long)argument;
    while (!over) {
        if (kind % 3 == 0) IS(ioctl(shared_fd, NIOCTXSYNC, NULL), 0);
        if (kind % 3 == 1) IS(ioctl(shared_fd, NIOCRXSYNC, NULL), 0);
        if (kind % 3 == 2) IS(ready(shared_fd, POLLIN | POLLOUT, 10) & POLLERR, 0);
    }
    return NULL;
}

/* One thread moves packets, nine others do nothing but call. */
static void many_threads(void) {
    shared_fd = registered();
    struct netmap_if *nifp = mapped(shared_fd);
    struct netmap_ring *tx = NETMAP_TXRING(nifp, 0), *rx = NETMAP_RXRING(nifp, 0);
    pthread_t threads[9];
    for (long i = 0; i < 9; i++)
        pthread_create(&threads[i], NULL, use_shared, (void *)i);
    long sent = 0, end = milliseconds() + 1000;
    while (milliseconds() < end) {
        while (!nm_ring_empty(tx)) {
            put(tx);
            sent++;
        }
        rx->head = rx->cur = rx->tail;
        IS(ioctl(shared_fd, NIOCTXSYNC, NULL), 0);
    }
    over = 1;
    for (int i = 0; i < 9; i++)
        pthread_join(threads[i], NULL);
    IS(sent > 1000, 1);
    for (int i = 0; i < 1000 && nm_tx_pending(tx); i++) {
        ioctl(shared_fd, NIOCTXSYNC, NULL);
        usleep(1000);
    }
    IS(nm_tx_pending(tx), 0);
}

/* ---- bad addresses --------------------------------------------------------------------------- */

static void *unmap_and_map(void *argument) {
    while (!over) {
        munmap(argument, PAGE);
        mmap(argument, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
             0);
    }
    return NULL;
}

static void addresses(void) {
    int fd = device(O_RDWR);
    char *pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(pages + PAGE, PAGE);
    const struct nmreq_register whole = {.nr_mode = NR_REG_ALL_NIC};
    uintptr_t bad[] = {1,
                       PAGE,
                       (uintptr_t)pages + PAGE,
                       (uintptr_t)pages + PAGE - 8,
                       UINTPTR_MAX,
                       UINTPTR_MAX - 8,
                       UINTPTR_MAX - sizeof(struct nmreq_register) + 1,
                       (uintptr_t)1 << 63,
                       (uintptr_t)1 << 47,
                       0xffffffff81000000u};
    FAILS(attempt(fd, NULL), EINVAL);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct nmreq_header header = {.nr_version = NETMAP_API,
                                      .nr_reqtype = NETMAP_REQ_REGISTER,
                                      .nr_name = "tap0",
                                      .nr_body = (uintptr_t)&whole,
                                      .nr_options = bad[i]};
        FAILS(attempt(fd, (void *)bad[i]), EFAULT);
        FAILS(ioctl(fd, NIOCCTRL, &header), EFAULT);
        FAILS(ioctl(fd, NIOCCTRL, bad[i]), EFAULT);
        FAILS(ioctl(fd, NIOCREGIF, bad[i]), EFAULT);
        FAILS(ioctl(fd, NIOCGINFO, bad[i]), EFAULT);
    }
    /* The kernel of a FUSE file looks at the argument before we can: EFAULT, where netmap has
     * EINVAL. */
    IS(ioctl(fd, NIOCCTRL, NULL), -1);
    IS(ioctl(fd, NIOCREGIF, NULL), -1);
    /* To the last byte of a page is far enough. */
    struct nmreq_register *last = (struct nmreq_register *)(pages + PAGE) - 1;
    *last = whole;
    IS(attempt(fd, last), 0);
    /* These take no argument, whatever it is. */
    IS(ioctl(fd, NIOCTXSYNC, UINTPTR_MAX), 0);
    IS(ioctl(fd, NIOCRXSYNC, 1), 0);
    IS(last->nr_tx_rings, 1);
}

/* A body that cannot be written: the request was carried out all the same, as in netmap. */
static void read_only_body(void) {
    int fd = device(O_RDWR);
    struct nmreq_register *page =
        mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page->nr_mode = NR_REG_ALL_NIC;
    mprotect(page, PAGE, PROT_READ);
    FAILS(attempt(fd, page), EFAULT);
    IS(page->nr_memsize, 0);
    IS(ioctl(fd, NIOCTXSYNC, NULL), 0);
    close(fd);
    fd = registered();
}

static void vanishing(void) {
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, unmap_and_map, page);
    for (int i = 0; i < 500; i++) {
        int fd = device(O_RDWR);
        if (attempt(fd, page) < 0 && errno != EFAULT && errno != EINVAL)
            say(__LINE__, "REGISTER", -1);
        close(fd);
    }
    over = 1;
    pthread_join(thread, NULL);
    IS(ioctl(registered(), NIOCTXSYNC, NULL), 0);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {
    {"unregistered", unregistered}, {"unknown", unknown},     {"other_calls", other_calls},
    {"truncation", truncation},     {"read_only", read_only}, {"time_outs", time_outs},
    {"after_fork", after_fork},     {"copies", copies},       {"passed_on", passed_on},
    {"many_threads", many_threads}, {"addresses", addresses}, {"read_only_body", read_only_body},
    {"vanishing", vanishing}};

int main(int argc, char **argv) {
    for (size_t i = 0; argc == 2 && i < sizeof(tests) / sizeof(tests[0]); i++) {
        if (strcmp(argv[1], tests[i].name) != 0) continue;
        tests[i].run();
        return wrong;
    }
    return 2;
}
