/* SPDX-License-Identifier: BSD-2-Clause */
/* Keeps a port in a sync loop until it is killed: `kloop WHAT PORT [DEVICE]`. Says "looping" once
 * the loop runs, and "errno N" when it has ended, with EINTR by a SIGUSR1.
 *   busy   no pause between rounds
 *   kicks  an ioeventfd and an irqfd for each ring, appl_need_kick on
 *   full   as kicks, but its irqfds are full: whoever signals one waits for room
 *   stuck  the loop is caught in a page of ours that never comes */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <net/netmap_user.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define RINGS 2 /* ports with one ring each way */

static int fd;
static const char *port;
static struct nm_csb_atok *atok;
static struct nm_csb_ktoa *ktoa;
static struct {
    struct nmreq_option header;
    int32_t pairs[RINGS][2];
} eventfds;

static void fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void on_signal(int number) { (void)number; }

static int request(int type, void *body, void *options) {
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = (uint16_t)type,
                                  .nr_body = (uintptr_t)body,
                                  .nr_options = (uintptr_t)options};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", port);
    return ioctl(fd, NIOCCTRL, &header) < 0 ? errno : 0;
}

static int csb(int type, void *body) {
    struct nmreq_opt_csb option = {.nro_opt = {.nro_reqtype = NETMAP_REQ_OPT_CSB},
                                   .csb_atok = (uintptr_t)atok,
                                   .csb_ktoa = (uintptr_t)ktoa};
    return request(type, body, &option);
}

static void *loop(void *options) {
    struct nmreq_sync_kloop_start body = {.sleep_us = 0};
    printf("errno %d\n", request(NETMAP_REQ_SYNC_KLOOP_START, &body, options));
    return NULL;
}

static void start(void *options) {
    pthread_t thread;
    pthread_create(&thread, NULL, loop, options);
    while (csb(NETMAP_REQ_CSB_ENABLE, NULL) != EBUSY)
        usleep(1000);
}

static void busy(void) { start(NULL); }

static void with_eventfds(uint64_t count) {
    eventfds.header.nro_reqtype = NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS;
    eventfds.header.nro_size = sizeof(eventfds);
    for (int i = 0; i < RINGS; i++) {
        eventfds.pairs[i][0] = eventfd(0, 0);
        eventfds.pairs[i][1] = eventfd(0, 0);
        eventfd_write(eventfds.pairs[i][1], count);
    }
    start(&eventfds);
}

static void kicks(void) { with_eventfds(0); }

static void full(void) {
    with_eventfds(UINT64_MAX - 1);
    __atomic_store_n(&atok[0].cur, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&atok[0].head, 1, __ATOMIC_RELEASE);
    eventfd_write(eventfds.pairs[0][0], 1);
    while (__atomic_load_n(&ktoa[0].hwcur, __ATOMIC_ACQUIRE) != 1)
        usleep(1000);
}

static void stuck(void) {
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register registration = {.range = {.start = (uintptr_t)atok, .len = PAGE},
                                           .mode = UFFDIO_REGISTER_MODE_MISSING};
    struct uffd_msg message;
    start(NULL);
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) fail("userfaultfd");
    if (ioctl(uffd, UFFDIO_REGISTER, &registration) < 0) fail("UFFDIO_REGISTER");
    if (madvise(atok, PAGE, MADV_DONTNEED) < 0) fail("madvise");
    if (read(uffd, &message, sizeof(message)) != sizeof(message)) fail("reading userfaultfd");
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {{"busy", busy}, {"kicks", kicks}, {"full", full}, {"stuck", stuck}};

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
    setvbuf(stdout, NULL, _IOLBF, 0);
    port = argv[2];
    atok = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ktoa = (void *)((char *)atok + PAGE);
    fd = open(argc > 3 ? argv[3] : NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0) fail("open");
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC, .nr_flags = NR_EXCLUSIVE};
    errno = csb(NETMAP_REQ_REGISTER, &body);
    if (errno) fail("REGISTER");
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        if (!strcmp(argv[1], tests[i].name)) tests[i].run();
    puts("looping");
    for (;;)
        pause();
}
