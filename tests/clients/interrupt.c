/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that are interrupted while others use the same descriptor: `interrupt WHAT`. Silent and
 * exit status 0 if all went as it should; the pages that hold requests up are userfaultfd's. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define PAGE 4096

static int uffd;

static void fail(const char *what) {
    printf("%s: %s\n", what, strerror(errno));
    exit(1);
}

static void on_signal(int number) { (void)number; }

static void open_uffd(void) {
    uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
    if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) < 0) fail("userfaultfd");
}

/* A page whose first reader, or with `mode` WP first writer, sleeps. */
static void *held_page(uint64_t mode) {
    char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct uffdio_register registration = {.range = {.start = (uintptr_t)page, .len = PAGE},
                                           .mode = mode};
    if (mode == UFFDIO_REGISTER_MODE_WP) memset(page, 0, PAGE);
    if (ioctl(uffd, UFFDIO_REGISTER, &registration) < 0) fail("UFFDIO_REGISTER");
    return page;
}

static void write_protect(void *page, uint64_t mode) {
    struct uffdio_writeprotect protect = {.range = {.start = (uintptr_t)page, .len = PAGE},
                                          .mode = mode};
    if (ioctl(uffd, UFFDIO_WRITEPROTECT, &protect) < 0) fail("UFFDIO_WRITEPROTECT");
}

static void wait_for_fault(void) {
    struct uffd_msg message;
    if (read(uffd, &message, sizeof(message)) != sizeof(message)) fail("reading userfaultfd");
}

static int open_device(void) {
    int fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0) fail("open");
    return fd;
}

static int request(int fd, int type, const char *name, void *body) {
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = (uint16_t)type, .nr_body = (uintptr_t)body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", name);
    return ioctl(fd, NIOCCTRL, &header) < 0 ? errno : 0;
}

static int register_port(int fd, const char *name, uint64_t flags) {
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC, .nr_flags = flags};
    return request(fd, NETMAP_REQ_REGISTER, name, &body);
}

struct call {
    int fd, type, result;
    const char *name;
    void *body;
};

static void *in_thread(void *argument) {
    struct call *call = argument;
    call->result = request(call->fd, call->type, call->name, call->body);
    return NULL;
}

/* Makes the call in a thread, interrupts it once it is held up; its result. */
static int interrupted(struct call *call) {
    pthread_t thread;
    pthread_create(&thread, NULL, in_thread, call);
    wait_for_fault();
    pthread_kill(thread, SIGUSR1);
    pthread_join(thread, NULL);
    return call->result;
}

static volatile int over;

static void *sync_and_poll(void *argument) {
    int fd = *(int *)argument;
    while (!over) {
        struct pollfd wait = {.fd = fd, .events = POLLIN | POLLOUT};
        if (ioctl(fd, NIOCTXSYNC, NULL) < 0 && errno != ENXIO) fail("NIOCTXSYNC");
        if (ioctl(fd, NIOCRXSYNC, NULL) < 0 && errno != ENXIO) fail("NIOCRXSYNC");
        poll(&wait, 1, 0);
    }
    return NULL;
}

/* The answer of a PORT_INFO_GET is held up and interrupted: the port stays bound. */
static void question(void) {
    int fd = open_device(), error = register_port(fd, "tap0", 0);
    if (error) fail("REGISTER");
    void *page = held_page(UFFDIO_REGISTER_MODE_WP);
    write_protect(page, UFFDIO_WRITEPROTECT_MODE_WP);
    struct call call = {.fd = fd, .type = NETMAP_REQ_PORT_INFO_GET, .name = "tap0", .body = page};
    error = interrupted(&call);
    if (error != EINTR) printf("PORT_INFO_GET: %s\n", strerror(error));
    write_protect(page, 0);
    usleep(50000);
    if (ioctl(fd, NIOCTXSYNC, NULL) < 0) fail("NIOCTXSYNC of a registered descriptor");
}

/* The answer of a REGISTER is held up and interrupted, threads sync all the while. */
static void register_beside_syncs(void) {
    for (int i = 0; i < 20; i++) {
        int fd = open_device();
        pthread_t threads[2];
        over = 0;
        for (int t = 0; t < 2; t++)
            pthread_create(&threads[t], NULL, sync_and_poll, &fd);
        struct nmreq_register *body = held_page(UFFDIO_REGISTER_MODE_WP);
        body->nr_mode = NR_REG_ALL_NIC;
        body->nr_flags = NR_EXCLUSIVE;
        write_protect(body, UFFDIO_WRITEPROTECT_MODE_WP);
        struct call call = {.fd = fd, .type = NETMAP_REQ_REGISTER, .name = "tap0", .body = body};
        int error = interrupted(&call);
        if (error != EINTR) printf("REGISTER: %s\n", strerror(error));
        write_protect(body, 0);
        usleep(10000);
        over = 1;
        for (int t = 0; t < 2; t++)
            pthread_join(threads[t], NULL);
        /* Undone, so it can be had again; by this very descriptor. */
        error = register_port(fd, "tap0", NR_EXCLUSIVE);
        if (error) printf("REGISTER after EINTR: %s\n", strerror(error));
        close(fd);
    }
}

static void *ask(void *argument) {
    void **given = argument;
    ioctl((int)(intptr_t)given[0], NIOCCTRL, given[1]);
    return NULL;
}

/* A refusal that a close may change waits; when it is given after all, its memory is not there. */
static void unwritable(void) {
    int holder = open_device(), copy = dup(holder), fd = open_device();
    if (register_port(holder, "tap0", NR_EXCLUSIVE)) fail("REGISTER");
    close(copy); /* perhaps closing */
    struct nmreq_header *header = held_page(UFFDIO_REGISTER_MODE_WP);
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC};
    *header = (struct nmreq_header){.nr_version = NETMAP_API,
                                    .nr_reqtype = NETMAP_REQ_REGISTER,
                                    .nr_name = "tap0",
                                    .nr_body = (uintptr_t)&body};
    write_protect(header, UFFDIO_WRITEPROTECT_MODE_WP);
    pthread_t thread;
    pthread_create(&thread, NULL, ask, (void *[]){(void *)(intptr_t)fd, header});
    wait_for_fault();
    puts("written to");
    fflush(stdout);
    pause();
}

/* A timer's signals rain on syncs, polls, requests, opens and closes. */
static void storm(void) {
    struct itimerval rain = {.it_interval = {.tv_usec = 100}, .it_value = {.tv_usec = 100}};
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_signal}, NULL);
    setitimer(ITIMER_REAL, &rain, NULL);
    int interrupted = 0, done = 0;
    for (int i = 0; i < 1000; i++) {
        int fd = open(NETMAP_DEVICE_NAME, O_RDWR);
        if (fd < 0) {
            if (errno != EINTR) fail("open");
            continue;
        }
        int error = register_port(fd, "tap0", NR_EXCLUSIVE);
        if (error && error != EINTR) printf("REGISTER: %s\n", strerror(error));
        interrupted += error == EINTR;
        done += !error;
        for (int n = 0; n < 10 && !error; n++) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            if (ioctl(fd, NIOCTXSYNC, NULL) < 0 && errno != EINTR) fail("NIOCTXSYNC");
            if (poll(&wait, 1, 1) < 0 && errno != EINTR) fail("poll");
        }
        close(fd);
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    if (!done) printf("%d interrupted, none done\n", interrupted);
}

static const struct {
    const char *name;
    void (*run)(void);
} tests[] = {{"question", question},
             {"register", register_beside_syncs},
             {"unwritable", unwritable},
             {"storm", storm}};

int main(int argc, char **argv) {
    sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
    open_uffd();
    for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
        if (argc == 2 && !strcmp(argv[1], tests[i].name)) tests[i].run();
    return 0;
}
