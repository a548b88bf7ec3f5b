/* SPDX-License-Identifier: BSD-2-Clause */
/* The calls of bpf(2) that all our programs need. */
#include "backends/bpf.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int nm_bpf(enum bpf_cmd command, union bpf_attr *attr) {
    int result = (int)syscall(SYS_bpf, command, attr, sizeof(*attr));
    if (result >= 0) return result;
    bool gone = errno == ENODEV || errno == ENOLINK; /* not there; not there any more */
    return gone ? -ENXIO : -errno;
}

int nm_bpf_load(enum bpf_prog_type type, const struct nm_bpf_code *code, struct nm_refusal *why) {
    char log[4096] = "";
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = type;
    attr.insns = (uintptr_t)code->insns;
    attr.insn_cnt = code->count;
    attr.license = (uintptr_t)"BSD-2-Clause";
    strcpy(attr.prog_name, code->name);
    int fd = nm_bpf(BPF_PROG_LOAD, &attr);
    if (fd >= 0) return fd;
    attr.log_buf = (uintptr_t)log;
    attr.log_size = sizeof(log);
    attr.log_level = 1;
    int again = nm_bpf(BPF_PROG_LOAD, &attr);
    if (again >= 0) return again;
    size_t end = strlen(log);
    while (end && log[end - 1] == '\n')
        log[--end] = '\0';
    const char *line = strrchr(log, '\n');
    return nm_refuse(why, -fd, "loading the program %s: %s%s%.100s", code->name, strerror(-fd),
                     *log ? ": " : "", line ? line + 1 : log);
}

int nm_bpf_attach(int program, uint32_t index, uint32_t attach_type, uint32_t flags) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.link_create.prog_fd = (uint32_t)program;
    attr.link_create.target_fd = index;
    attr.link_create.attach_type = attach_type;
    attr.link_create.flags = flags;
    return nm_bpf(BPF_LINK_CREATE, &attr);
}
