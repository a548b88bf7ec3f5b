/* SPDX-License-Identifier: BSD-2-Clause */
/* Small programs for the kernel as bytecode, and bpf(2) without libbpf, whose release in Debian 12
 * knows no tcx. What the programs do is steer.c's and xdp_open.c's. */
#ifndef CUSE_NETMAP_BPF_H
#define CUSE_NETMAP_BPF_H

#include <linux/bpf.h>
#include <stdint.h>

#include "refusal.h"

/* One instruction each. R0 holds the verdict and what a call gives, R1 the context and a call's
 * first argument, R2 a call's second, R3 its third. */
#define NM_INSN(code_, dst_, src_, off_, imm_)                                                     \
    ((struct bpf_insn){                                                                            \
        .code = (code_), .dst_reg = (dst_), .src_reg = (src_), .off = (off_), .imm = (imm_)})
#define NM_SET(reg, value) NM_INSN(BPF_ALU64 | BPF_MOV | BPF_K, reg, 0, 0, value)
#define NM_LOAD(reg, context, field)                                                               \
    NM_INSN(BPF_LDX | BPF_W | BPF_MEM, reg, BPF_REG_1, offsetof(context, field), 0)
#define NM_SKIP_IF_NOT(reg, value, count) NM_INSN(BPF_JMP | BPF_JNE | BPF_K, reg, 0, count, value)
#define NM_CALL(function) NM_INSN(BPF_JMP | BPF_CALL, 0, 0, 0, function)
#define NM_RETURN NM_INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0)
/* Two instructions: the address of a map, by its descriptor. */
#define NM_SET_MAP(reg, map)                                                                       \
    NM_INSN(BPF_LD | BPF_DW | BPF_IMM, reg, BPF_PSEUDO_MAP_FD, 0, map), NM_INSN(0, 0, 0, 0, 0)

#define NM_MOST_INSNS 12

struct nm_bpf_code {
    const char *name; /* as bpftool shows it */
    uint32_t count;
    struct bpf_insn insns[NM_MOST_INSNS];
};

/* What bpf(2) answers, or -errno; -ENXIO: the interface is not there, or not any more. */
int nm_bpf(enum bpf_cmd command, union bpf_attr *attr);

/* Loads a program; returns its descriptor. Refused with the errno of BPF_PROG_LOAD (EPERM: no
 * CAP_BPF and CAP_NET_ADMIN), the reason being the last line of the kernel's log if it has one. */
int nm_bpf_load(enum bpf_prog_type type, const struct nm_bpf_code *code, struct nm_refusal *why);

/* Puts a program at an interface of this thread's network namespace (BPF_LINK_CREATE). Returns the
 * link, which takes the program away when its last descriptor is closed; -errno. */
int nm_bpf_attach(int program, uint32_t index, uint32_t attach_type, uint32_t flags);

#endif
