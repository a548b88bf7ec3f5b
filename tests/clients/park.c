/* SPDX-License-Identifier: BSD-2-Clause */
/* Requests that wait for as long as one likes: each has its body in a page that userfaultfd holds
 * back, so whoever reads the body sleeps. Says "fault" for every reader that sleeps, "errno N" for
 * every request that returns. A line on standard input supplies the pages; its end ends all.
 *
 * usage: park [-f FILES] [-t THREADS of each file] [-c CPU] [-u UID] [-p PORT] [-x] [-i]
 *   -x register exclusively   -i install a handler for SIGUSR1 that interrupts
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/userfaultfd.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PAGE 4096
#define MOST 256

static int files = 1, threads = 1, cpu = -1, exclusive;
static const char *port = "tap0";
static char *pages;
static int fds[MOST];

static void say(const char *what, int number) {
    char line[64];
    int n = snprintf(line, sizeof(line), number < 0 ? "%s\n" : "%s %d\n", what, number);
    if (write(STDOUT_FILENO, line, (size_t)n) != n) exit(2);
}

static int fail(const char *what) {
    perror(what);
    exit(2);
}

static void on_signal(int number) { (void)number; }

static int hold_pages(int count) {
    int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (uffd < 0) fail("userfaultfd");
    struct uffdio_api api = {.api = UFFD_API};
    if (ioctl(uffd, UFFDIO_API, &api) < 0) fail("UFFDIO_API");
    pages = mmap(NULL, (size_t)count * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                 -1, 0);
    struct uffdio_register registration = {
        .range = {.start = (uintptr_t)pages, .len = (size_t)count * PAGE},
        .mode = UFFDIO_REGISTER_MODE_MISSING};
    if (ioctl(uffd, UFFDIO_REGISTER, &registration) < 0) fail("UFFDIO_REGISTER");
    return uffd;
}

static void supply(int uffd, int count) {
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC,
                                  .nr_flags = exclusive ? NR_EXCLUSIVE : 0};
    _Alignas(PAGE) static char page[PAGE];
    memcpy(page, &body, sizeof(body));
    for (int i = 0; i < count; i++) {
        struct uffdio_copy copy = {
            .dst = (uintptr_t)pages + (size_t)i * PAGE, .src = (uintptr_t)page, .len = PAGE};
        ioctl(uffd, UFFDIO_COPY, &copy);
    }
}

static void *request(void *argument) {
    int number = (int)(intptr_t)argument;
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_body = (uintptr_t)pages + (size_t)number * PAGE};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", port);
    int result = ioctl(fds[number / threads], NIOCCTRL, &header);
    say("errno", result < 0 ? errno : 0);
    return NULL;
}

int main(int argc, char **argv) {
    int option, uid = -1;
    while ((option = getopt(argc, argv, "f:t:c:u:p:xi")) != -1) {
        switch (option) {
        case 'f':
            files = atoi(optarg);
            break;
        case 't':
            threads = atoi(optarg);
            break;
        case 'c':
            cpu = atoi(optarg);
            break;
        case 'u':
            uid = atoi(optarg);
            break;
        case 'p':
            port = optarg;
            break;
        case 'x':
            exclusive = 1;
            break;
        case 'i':
            sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
            break;
        default:
            return 2;
        }
    }
    if (files * threads > MOST) return 2;
    if (cpu >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(cpu, &set);
        if (sched_setaffinity(0, sizeof(set), &set) < 0) fail("sched_setaffinity");
    }
    int count = files * threads, uffd = hold_pages(count);
    if (uid >= 0 && (setgroups(0, NULL) < 0 || setgid((gid_t)uid) < 0 || setuid((uid_t)uid) < 0))
        fail("setuid");
    for (int i = 0; i < files; i++)
        if ((fds[i] = open(NETMAP_DEVICE_NAME, O_RDWR)) < 0) fail("open");
    for (int i = 0; i < count; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, request, (void *)(intptr_t)i)) fail("pthread_create");
    }
    for (;;) {
        struct pollfd wait[] = {{.fd = uffd, .events = POLLIN}, {.fd = 0, .events = POLLIN}};
        if (poll(wait, 2, -1) < 0) continue;
        if (wait[0].revents) {
            struct uffd_msg message;
            if (read(uffd, &message, sizeof(message)) == sizeof(message)) say("fault", -1);
        }
        if (wait[1].revents) {
            char line[16];
            if (read(STDIN_FILENO, line, sizeof(line)) <= 0) return 0;
            supply(uffd, count);
        }
    }
}
