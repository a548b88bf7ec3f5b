/* SPDX-License-Identifier: BSD-2-Clause */
/* The tc programs as bytecode, each under the words it says. */
#include "backends/steer.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "backends/bpf.h"

/* include/uapi/linux/bpf.h of Linux 6.6; the headers we are built with may be older. */
#define TCX_INGRESS 46
#define TCX_EGRESS 47
#define F_BEFORE (1U << 3)

/* Verdicts, the same for tcx and for cls_bpf in direct-action mode. */
#define NEXT (-1) /* TC_ACT_UNSPEC: whoever is next decides */
#define DROP 2    /* TC_ACT_SHOT */

#define LOAD_MARK(reg) NM_LOAD(reg, struct __sk_buff, mark)
#define LOAD_INTERFACE(reg) NM_LOAD(reg, struct __sk_buff, ifindex)
#define STORE_MARK(reg)                                                                            \
    NM_INSN(BPF_STX | BPF_W | BPF_MEM, BPF_REG_1, reg, offsetof(struct __sk_buff, mark), 0)

/* `skb` is the context as the program was given it. */

/* return bpf_redirect(skb->ifindex, BPF_F_INGRESS); */
#define TURN_ROUND                                                                                 \
    LOAD_INTERFACE(BPF_REG_1), NM_SET(BPF_REG_2, BPF_F_INGRESS), NM_CALL(BPF_FUNC_redirect),       \
        NM_RETURN

/* if (skb->mark == MARK) { skb->mark = 0; return NEXT; } return others; */
static struct nm_bpf_code let_in(const char *name, int others) {
    return (struct nm_bpf_code){name,
                                7,
                                {LOAD_MARK(BPF_REG_2), NM_SET(BPF_REG_0, others),
                                 NM_SKIP_IF_NOT(BPF_REG_2, NM_STEER_MARK, 3), NM_SET(BPF_REG_2, 0),
                                 STORE_MARK(BPF_REG_2), NM_SET(BPF_REG_0, NEXT), NM_RETURN}};
}

/* if (skb->mark == MARK) turn round; return DROP; */
static struct nm_bpf_code to_nowhere(const char *name) {
    return (struct nm_bpf_code){name,
                                8,
                                {LOAD_MARK(BPF_REG_2), NM_SKIP_IF_NOT(BPF_REG_2, NM_STEER_MARK, 4),
                                 TURN_ROUND, NM_SET(BPF_REG_0, DROP), NM_RETURN}};
}

/* if (skb->mark == MARK) turn round; skb->mark = MARK; return bpf_redirect(index, 0); */
static struct nm_bpf_code to_rings(const char *name, uint32_t index) {
    return (struct nm_bpf_code){name,
                                12,
                                {LOAD_MARK(BPF_REG_2), NM_SKIP_IF_NOT(BPF_REG_2, NM_STEER_MARK, 4),
                                 TURN_ROUND, NM_SET(BPF_REG_2, NM_STEER_MARK),
                                 STORE_MARK(BPF_REG_2), NM_SET(BPF_REG_1, (int32_t)index),
                                 NM_SET(BPF_REG_2, 0), NM_CALL(BPF_FUNC_redirect), NM_RETURN}};
}

/* skb->mark = MARK; return bpf_redirect(index, BPF_F_INGRESS); */
static struct nm_bpf_code inject(const char *name, uint32_t index) {
    return (struct nm_bpf_code){
        name,
        6,
        {NM_SET(BPF_REG_2, NM_STEER_MARK), STORE_MARK(BPF_REG_2), NM_SET(BPF_REG_1, (int32_t)index),
         NM_SET(BPF_REG_2, BPF_F_INGRESS), NM_CALL(BPF_FUNC_redirect), NM_RETURN}};
}

/* if (skb->mark == MARK) return NEXT; return DROP; */
static struct nm_bpf_code only_marked(const char *name) {
    return (struct nm_bpf_code){name,
                                5,
                                {LOAD_MARK(BPF_REG_2), NM_SET(BPF_REG_0, DROP),
                                 NM_SKIP_IF_NOT(BPF_REG_2, NM_STEER_MARK, 1),
                                 NM_SET(BPF_REG_0, NEXT), NM_RETURN}};
}

static struct nm_bpf_code code_of(enum nm_steer_program program, uint32_t index) {
    switch (program) {
    case NM_STEER_FROM_RINGS:
        return let_in("nm_from_rings", DROP);
    case NM_STEER_FROM_ALL:
        return let_in("nm_from_all", NEXT);
    case NM_STEER_TO_RINGS:
        return to_rings("nm_to_rings", index);
    case NM_STEER_TAP_TO_HOST:
        return inject("nm_tap_to_host", index);
    case NM_STEER_TAP_ONLY_STEERED:
        return only_marked("nm_tap_steered");
    case NM_STEER_TO_NOWHERE:
        break;
    }
    return to_nowhere("nm_to_nowhere");
}

int nm_steer_load(enum nm_steer_program program, uint32_t index, struct nm_refusal *why) {
    struct nm_bpf_code code = code_of(program, index);
    return nm_bpf_load(BPF_PROG_TYPE_SCHED_CLS, &code, why);
}

int nm_steer_count(uint32_t index, bool ingress) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = index;
    attr.query.attach_type = ingress ? TCX_INGRESS : TCX_EGRESS;
    int result = nm_bpf(BPF_PROG_QUERY, &attr);
    return result < 0 ? result : (int)attr.query.prog_cnt;
}

int nm_steer_attach(int program, uint32_t index, bool ingress, struct nm_refusal *why) {
    int link = nm_bpf_attach(program, index, ingress ? TCX_INGRESS : TCX_EGRESS, F_BEFORE);
    if (link < 0)
        return nm_refuse(why, -link, "a tc program on %s: %s", ingress ? "ingress" : "egress",
                         strerror(-link));
    return link;
}

int nm_steer_replace(int link, int program, struct nm_refusal *why) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.link_update.link_fd = (uint32_t)link;
    attr.link_update.new_prog_fd = (uint32_t)program;
    int result = nm_bpf(BPF_LINK_UPDATE, &attr);
    return result < 0 ? nm_refuse(why, -result, "another tc program: %s", strerror(-result)) : 0;
}

int nm_steer_sender(int fd) {
    uint32_t mark = NM_STEER_MARK;
    return setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)) ? -errno : 0;
}

static int listen_to(int fd, struct sock_filter *code, size_t count) {
    struct sock_fprog filter = {(unsigned short)count, code};
    int one = 1;
    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter)) ||
        setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)))
        return -errno;
    return 0;
}

int nm_steer_packet_socket(int fd) {
    /* return skb->mark == MARK ? 0 : all of it; */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_MARK)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NM_STEER_MARK, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX)};
    return listen_to(fd, code, sizeof(code) / sizeof(code[0]));
}

int nm_steer_packet_queue(int fd, uint32_t queue, uint32_t queues, uint32_t first) {
    /* if (skb->mark == MARK) return 0;
     * number = max(skb->queue_mapping, first) - first;
     * return number % queues == queue ? all of it : 0; */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_MARK)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NM_STEER_MARK, 7, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)(SKF_AD_OFF + SKF_AD_QUEUE)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, first, 1, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_IMM, first),
        BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, first),
        BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, queues),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, queue, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0)};
    return listen_to(fd, code, sizeof(code) / sizeof(code[0]));
}
