/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers a port exclusively, closes, and does so again at once: `reopen COUNT HOW`. HOW is who
 * closes before the next one opens: "same" the same thread, "exit" a process that exits without
 * closing, "kill" a process that is killed, "cpus" the same thread on the next CPU, "thread" a
 * thread that ends, "dup" a copy of the descriptor (the first was closed before), "map" a process
 * that keeps its map open until after the close. Says "EBUSY N of COUNT" if any open failed, and
 * exits with 1. */
#include <errno.h>
#include <fcntl.h>
#include <net/netmap_user.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

static int exclusive(void) {
    int fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC, .nr_flags = NR_EXCLUSIVE};
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_name = "tap0",
                                  .nr_body = (uintptr_t)&body};
    if (fd < 0 || ioctl(fd, NIOCCTRL, &header) < 0) {
        if (errno != EBUSY) {
            perror("REGISTER");
            exit(2);
        }
        failures++;
    }
    return fd;
}

static void same(void) { close(exclusive()); }

static void by_copy(void) {
    int fd = exclusive(), copy = dup(fd);
    close(fd);
    close(copy);
}

static void with_map(void) {
    int fd = exclusive();
    char *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    munmap(map, 4096);
}

static void on_next_cpu(void) {
    static long next;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)(next++ % sysconf(_SC_NPROCESSORS_ONLN)), &set);
    int fd = exclusive();
    sched_setaffinity(0, sizeof(set), &set);
    close(fd);
}

static void *thread(void *unused) {
    same();
    return unused;
}

static void by_thread(void) {
    pthread_t id;
    pthread_create(&id, NULL, thread, NULL);
    pthread_join(id, NULL);
}

static void in_child(int kill_it) {
    int ready[2], status;
    if (pipe(ready) < 0) exit(2);
    pid_t child = fork();
    if (child == 0) {
        exclusive();
        if (write(ready[1], &failures, sizeof(failures)) < 0) _exit(2);
        if (!kill_it) _exit(0);
        pause();
    }
    if (read(ready[0], &failures, sizeof(failures)) != sizeof(failures)) exit(2);
    if (kill_it) kill(child, SIGKILL);
    waitpid(child, &status, 0);
    close(ready[0]);
    close(ready[1]);
}

static void by_exit(void) { in_child(0); }
static void by_kill(void) { in_child(1); }

static const struct {
    const char *name;
    void (*once)(void);
} ways[] = {{"same", same},   {"exit", by_exit},     {"kill", by_kill}, {"cpus", on_next_cpu},
            {"dup", by_copy}, {"thread", by_thread}, {"map", with_map}};

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int count = atoi(argv[1]);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        if (!strcmp(ways[i].name, argv[2]))
            for (int n = 0; n < count; n++)
                ways[i].once();
    if (failures) printf("EBUSY %d of %d\n", failures, count);
    return failures > 0;
}
