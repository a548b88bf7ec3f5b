/* SPDX-License-Identifier: BSD-2-Clause */
/* A program with fewer system calls, or more rights, than others: `restricted PATH [few|none]` maps
 * a file and prints "secure S preloaded P: " (is it privileged, is the helper there) and "mapped"
 * or the error's name.
 *
 *   few   from then on whatever the helper does with a device of ours ends the program
 *   none  from then on nothing but mmap, fstat, write and the end is allowed
 *
 * PATH "socket" is a socket. A netmap device is registered first, on a null port. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <net/netmap_user.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof(*(array)))

static const int FEW[] = {
    SYS_socket,   SYS_connect, SYS_ioctl, SYS_readlinkat, SYS_rt_sigprocmask,
#ifdef SYS_readlink
    SYS_readlink,
#endif
};
static const int NONE[] = {SYS_mmap, SYS_fstat, SYS_newfstatat, SYS_write, SYS_exit_group};

/* These calls get `listed`, all others `other`. */
static void restrict_to(const int *calls, size_t count, uint32_t listed, uint32_t other) {
    struct sock_filter program[64] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
    unsigned short length = 1;
    for (size_t i = 0; i < count; i++) {
        program[length++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)calls[i], 0, 1);
        program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, listed);
    }
    program[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, other);
    struct sock_fprog filter = {.len = length, .filter = program};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("seccomp");
        exit(2);
    }
}

static int preloaded(void) {
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    while (maps && fgets(line, sizeof(line), maps))
        found |= strstr(line, "libnetmap-helper.so") != NULL;
    return found;
}

static int opened(const char *path) {
    int pair[2];
    if (!strcmp(path, "socket")) return socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0 ? -1 : *pair;
    return open(path, O_RDWR);
}

int main(int argc, char **argv) {
    if (argc < 2) return 2;
    const char *how = argc > 2 ? argv[2] : "";
    int fd = opened(argv[1]);
    if (fd < 0) {
        perror(argv[1]);
        return 2;
    }
    struct nmreq_register body = {.nr_mode = NR_REG_NULL,
                                  .nr_mem_id = 1,
                                  .nr_tx_rings = 1,
                                  .nr_rx_rings = 1,
                                  .nr_tx_slots = 8,
                                  .nr_rx_slots = 8};
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_name = "restricted",
                                  .nr_body = (uintptr_t)&body};
    if (!strcmp(argv[1], NETMAP_DEVICE_NAME) && ioctl(fd, NIOCCTRL, &header) < 0) {
        perror("REGISTER");
        return 2;
    }
    char said[128];
    int length = snprintf(said, sizeof(said), "secure %d preloaded %d: ", getauxval(AT_SECURE) != 0,
                          preloaded());
    if (!strcmp(how, "few"))
        restrict_to(FEW, LENGTH(FEW), SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ALLOW);
    if (!strcmp(how, "none"))
        restrict_to(NONE, LENGTH(NONE), SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS);
    const void *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    const char *result = map != MAP_FAILED ? "mapped" : strerrorname_np(errno);
    length += snprintf(said + length, sizeof(said) - (size_t)length, "%s\n", result);
    if (write(STDOUT_FILENO, said, (size_t)length) != length) return 1;
    _exit(0);
}
