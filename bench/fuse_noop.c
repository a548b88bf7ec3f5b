/* SPDX-License-Identifier: BSD-2-Clause */
/* The least FUSE server whose one file answers every ioctl with success: what a sync would cost if
 * netmap did nothing. Prints "ready", serves until standard input ends.
 *
 *   fuse_noop FILE classic|uring      (FILE exists; the mount covers it) */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "doors/fuse_protocol.h"

#define PAYLOAD 8192
#define DEPTH 4

static int device;
static const char *path;

static void die(const char *doing) {
    perror(doing);
    exit(1);
}

/* The bytes of `out` that answer, or -errno. */
static int answer(const struct fuse_in_header *header, void *out) {
    switch (header->opcode) {
    case FUSE_IOCTL:
        memset(out, 0, sizeof(struct fuse_ioctl_out));
        return sizeof(struct fuse_ioctl_out);
    case FUSE_OPEN: {
        struct nm_fuse_open_out opened = {.open_flags = FOPEN_DIRECT_IO};
        memcpy(out, &opened, sizeof(opened));
        return sizeof(opened);
    }
    case FUSE_GETATTR: {
        struct fuse_attr_out attributes = {
            .attr_valid = 3600, .attr = {.ino = FUSE_ROOT_ID, .mode = S_IFREG | 0600, .nlink = 1}};
        memcpy(out, &attributes, sizeof(attributes));
        return sizeof(attributes);
    }
    case FUSE_FLUSH:
    case FUSE_RELEASE:
        return 0;
    default:
        return -ENOSYS;
    }
}

static void write_answer(uint64_t unique, int result, const void *data) {
    struct fuse_out_header header = {.len = sizeof(header), .unique = unique};
    struct iovec parts[2] = {{&header, sizeof(header)}, {(void *)data, 0}};
    if (result < 0) {
        header.error = result;
    } else {
        header.len += (uint32_t)result;
        parts[1].iov_len = (size_t)result;
    }
    if (writev(device, parts, result > 0 ? 2 : 1) < 0 && errno != ENOENT) die("answering");
}

static void *read_requests(void *unused) {
    static _Thread_local _Alignas(8) char in[FUSE_MIN_READ_BUFFER + PAYLOAD], out[PAYLOAD];
    for (;;) {
        const struct fuse_in_header *header = (const struct fuse_in_header *)in;
        if (read(device, in, sizeof(in)) < 0) {
            if (errno == EINTR || errno == ENOENT) continue;
            return unused; /* unmounted */
        }
        if (header->opcode != FUSE_FORGET && header->opcode != FUSE_INTERRUPT)
            write_answer(header->unique, answer(header, out), out);
    }
}

/* ---- io_uring ------------------------------------------------------------------------------- */

struct entry {
    struct nm_fuse_uring_header header;
    _Alignas(8) char payload[PAYLOAD];
    struct iovec parts[2];
};

static void submit(struct io_uring *ring, uint16_t queue, struct entry *entry, uint32_t operation) {
    struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
    if (!sqe) die("io_uring");
    memset(sqe, 0, 2 * sizeof(*sqe)); /* SQE128 */
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = device;
    sqe->off = operation;
    sqe->user_data = (uint64_t)(uintptr_t)entry;
    struct nm_fuse_uring_command *command = (struct nm_fuse_uring_command *)&sqe->addr3;
    command->queue = queue;
    if (operation == NM_FUSE_URING_REGISTER) {
        sqe->addr = (uint64_t)(uintptr_t)entry->parts;
        sqe->len = 2;
    } else {
        command->commit_id = entry->header.entry.commit_id;
    }
}

static void serve(struct entry *entry) {
    struct fuse_in_header in;
    memcpy(&in, entry->header.in_out, sizeof(in));
    int result = answer(&in, entry->payload);
    uint32_t size = result > 0 ? (uint32_t)result : 0;
    struct fuse_out_header out = {
        .len = sizeof(out) + size, .error = result < 0 ? result : 0, .unique = in.unique};
    memcpy(entry->header.in_out, &out, sizeof(out));
    entry->header.entry.payload_size = size;
}

static void *run_queue(void *number) {
    uint16_t queue = (uint16_t)(uintptr_t)number;
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET(queue, &cpu);
    sched_setaffinity(0, sizeof(cpu), &cpu);

    struct io_uring ring;
    struct io_uring_params params = {.flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER |
                                              IORING_SETUP_DEFER_TASKRUN |
                                              IORING_SETUP_COOP_TASKRUN};
    if (io_uring_queue_init_params(2 * DEPTH, &ring, &params)) die("io_uring");
    struct entry *entries = calloc(DEPTH, sizeof(*entries));
    if (!entries) die("memory");
    for (int i = 0; i < DEPTH; i++) {
        struct entry *entry = &entries[i];
        entry->parts[0] = (struct iovec){&entry->header, sizeof(entry->header)};
        entry->parts[1] = (struct iovec){entry->payload, sizeof(entry->payload)};
        submit(&ring, queue, entry, NM_FUSE_URING_REGISTER);
    }
    while (io_uring_submit_and_wait(&ring, 1) >= 0 || errno == EINTR) {
        struct io_uring_cqe *cqe;
        unsigned head, count = 0;
        io_uring_for_each_cqe(&ring, head, cqe) {
            struct entry *entry = (struct entry *)(uintptr_t)cqe->user_data;
            count++;
            if (cqe->res < 0) return NULL; /* unmounted */
            serve(entry);
            submit(&ring, queue, entry, NM_FUSE_URING_COMMIT_AND_FETCH);
        }
        io_uring_cq_advance(&ring, count);
    }
    return NULL;
}

/* ---- both ----------------------------------------------------------------------------------- */

static void mount_it(void) {
    char options[128];
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (device < 0) die("/dev/fuse");
    snprintf(options, sizeof(options), "fd=%d,rootmode=100600,user_id=0,group_id=0", device);
    if (mount("fuse_noop", path, "fuse", MS_NOSUID | MS_NODEV, options) < 0) die("mount");
}

static void initialise(bool uring) {
    char in[FUSE_MIN_READ_BUFFER];
    if (read(device, in, sizeof(in)) < 0) die("INIT");
    const struct fuse_in_header *header = (const struct fuse_in_header *)in;
    const struct nm_fuse_init_in *init = (const struct nm_fuse_init_in *)(header + 1);
    if (uring && !(init->flags2 & NM_FUSE_OVER_IO_URING2)) {
        fputs("the kernel offers no FUSE over io_uring\n", stderr);
        exit(1);
    }
    struct nm_fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                   .minor = init->minor,
                                   .flags = FUSE_INIT_EXT | FUSE_MAX_PAGES,
                                   .flags2 = uring ? NM_FUSE_OVER_IO_URING2 : 0,
                                   .max_write = 4096,
                                   .max_pages = 1};
    write_answer(header->unique, sizeof(out), &out);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    path = argv[1];
    bool uring = !strcmp(argv[2], "uring");
    mount_it();
    initialise(uring);
    pthread_t thread;
    long cpus = sysconf(uring ? _SC_NPROCESSORS_CONF : _SC_NPROCESSORS_ONLN);
    for (long i = 0; i < cpus; i++) {
        void *number = (void *)(uintptr_t)i;
        if (uring && pthread_create(&thread, NULL, run_queue, number)) die("thread");
    }
    /* As many readers as a server has that answers several callers at a time. */
    for (long i = 0; i < (uring ? 1 : cpus); i++)
        if (pthread_create(&thread, NULL, read_requests, NULL)) die("thread");
    usleep(200000); /* until every queue has registered */
    puts("ready");
    fflush(stdout);
    while (getchar() != EOF)
        ;
    umount2(path, MNT_DETACH | MNT_FORCE);
    return 0;
}
