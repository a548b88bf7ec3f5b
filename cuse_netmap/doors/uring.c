/* SPDX-License-Identifier: BSD-2-Clause */
/* The io_uring transport (Linux 6.14): a queue and a thread for every possible CPU, so that a
 * request is served where its caller runs. Only a queue's own thread touches its ring; answers
 * found elsewhere are handed to it. */
#include <errno.h>
#include <liburing.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "barrier.h"
#include "doors/door_internal.h"

/* Entries of a queue. One that holds a request for control is away until the answer, and when none
 * is left the kernel keeps what comes until one is committed: an entry registered later does not
 * fetch what waits already. So there are always more than can be away. */
#define ENTRIES (NM_PARKED_MOST + 8)
#define SUBMISSIONS 32
#define THREAD_STACK (256u << 10)
#define EVENT NULL /* the user_data of the eventfd's completions */

struct uring_entry {
    struct nm_fuse_uring_header header;
    struct iovec parts[2]; /* the header, the payload */
    struct uring_entry *next_answered;
    int result; /* of an answer from elsewhere, as in nm_transport_ops.reply */
    uint32_t answer_size;
};

struct uring_queue {
    struct nm_door *door;
    uint16_t id;
    struct io_uring ring;
    pthread_t thread;
    bool started;
    int event; /* eventfd: `answered` has something, or the queue is to stop */
    uint64_t event_value;
    struct uring_entry *answered; /* pushed by anyone, popped by the queue's thread */
    struct uring_entry *entries;
    char *payloads;     /* apart, as most are never touched */
    unsigned completed; /* completions of this round that have been handled */
    int result;         /* of coming up; set before `up` */
    bool up, ring_ready;
};

struct uring {
    uint32_t num_queues;
    struct uring_queue queues[];
};

static struct io_uring_sqe *submission(struct uring_queue *queue) {
    struct io_uring_sqe *sqe;
    while (!(sqe = io_uring_get_sqe(&queue->ring)))
        io_uring_submit(&queue->ring);
    memset(sqe, 0, 2 * sizeof(*sqe)); /* SQE128 */
    return sqe;
}

static void command(struct uring_queue *queue, struct uring_entry *entry, uint32_t operation,
                    uint64_t commit_id) {
    struct io_uring_sqe *sqe = submission(queue);
    sqe->opcode = IORING_OP_URING_CMD;
    sqe->fd = queue->door->device;
    sqe->off = operation; /* cmd_op, in the union's low half */
    sqe->user_data = (uint64_t)(uintptr_t)entry;
    if (operation == NM_FUSE_URING_REGISTER) {
        sqe->addr = (uint64_t)(uintptr_t)entry->parts;
        sqe->len = 2;
    }
    struct nm_fuse_uring_command *area = (struct nm_fuse_uring_command *)&sqe->addr3;
    area->commit_id = commit_id;
    area->queue = queue->id;
}

static int add_entries(struct uring_queue *queue) {
    queue->entries = calloc(ENTRIES, sizeof(queue->entries[0]));
    queue->payloads = calloc(ENTRIES, NM_PAYLOAD);
    if (!queue->entries || !queue->payloads) return -ENOMEM;
    for (int i = 0; i < ENTRIES; i++) {
        struct uring_entry *entry = &queue->entries[i];
        entry->parts[0] = (struct iovec){&entry->header, sizeof(entry->header)};
        entry->parts[1] = (struct iovec){queue->payloads + (size_t)i * NM_PAYLOAD, NM_PAYLOAD};
        command(queue, entry, NM_FUSE_URING_REGISTER, 0);
    }
    return 0;
}

static void watch_event(struct uring_queue *queue) {
    struct io_uring_sqe *sqe = submission(queue);
    io_uring_prep_read(sqe, queue->event, &queue->event_value, sizeof(queue->event_value), 0);
    sqe->user_data = (uint64_t)(uintptr_t)EVENT;
}

/* Gives the kernel an answer and asks for the next request in one go. */
static void commit(struct uring_queue *queue, struct uring_entry *entry, uint64_t unique, int error,
                   size_t size) {
    struct fuse_out_header *out = (struct fuse_out_header *)entry->header.in_out;
    *out = (struct fuse_out_header){
        .len = (uint32_t)(sizeof(*out) + size), .error = error, .unique = unique};
    entry->header.entry.payload_size = (uint32_t)size;
    command(queue, entry, NM_FUSE_URING_COMMIT_AND_FETCH, entry->header.entry.commit_id);
}

static void serve(struct uring_queue *queue, struct uring_entry *entry) {
    struct fuse_in_header header;
    memcpy(&header, entry->header.in_out, sizeof(header));
    struct nm_incoming in = {.header = &header,
                             .argument = entry->header.op_in,
                             .argument_size = sizeof(entry->header.op_in),
                             .queue = queue,
                             .entry = entry};
    int result = nm_door_dispatch(queue->door, &in, entry->parts[1].iov_base);
    if (result == NM_PARKED) return;
    commit(queue, entry, header.unique, result < 0 ? result : 0, result > 0 ? (size_t)result : 0);
}

static void commit_answered(struct uring_queue *queue) {
    struct uring_entry *entry = __atomic_exchange_n(&queue->answered, NULL, __ATOMIC_ACQUIRE);
    while (entry) {
        struct uring_entry *next = entry->next_answered;
        struct fuse_in_header header;
        memcpy(&header, entry->header.in_out, sizeof(header));
        int answer[NM_ANSWER_MOST / sizeof(int)] = {entry->result};
        memcpy(entry->parts[1].iov_base, answer, sizeof(answer));
        bool good = entry->result >= 0;
        commit(queue, entry, header.unique, good ? 0 : entry->result,
               good ? entry->answer_size : 0);
        entry = next;
    }
}

static void reply(struct nm_door *door, const struct nm_ticket *ticket, int result) {
    if (!ticket->queue) { /* it came by read/write, before the queues were up */
        nm_classic_transport.reply(door, ticket, result);
        return;
    }
    struct uring_queue *queue = ticket->queue;
    struct uring_entry *entry = ticket->entry;
    entry->result = result;
    entry->answer_size = ticket->answer_size;
    entry->next_answered = READ_ONCE(queue->answered);
    while (!__atomic_compare_exchange_n(&queue->answered, &entry->next_answered, entry, true,
                                        __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
    }
    eventfd_write(queue->event, 1);
}

/* Handles what has completed; false once the connection is gone. */
static bool reap(struct uring_queue *queue) {
    struct io_uring_cqe *cqe;
    unsigned head, count = 0;
    bool alive = true;
    io_uring_for_each_cqe(&queue->ring, head, cqe) {
        struct uring_entry *entry = (struct uring_entry *)(uintptr_t)cqe->user_data;
        queue->completed = ++count;
        if (entry == EVENT) {
            commit_answered(queue);
            watch_event(queue);
        } else if (cqe->res < 0) {
            alive = false; /* ENOTCONN: aborted; nothing else is expected, or could be served */
        } else {
            serve(queue, entry);
        }
    }
    io_uring_cq_advance(&queue->ring, count);
    return alive;
}

/* No completion to handle, none about to become one, and no answer that has still to leave. */
static bool idle(void *arg) {
    struct uring_queue *queue = arg;
    return io_uring_cq_ready(&queue->ring) == queue->completed &&
           !(READ_ONCE(*queue->ring.sq.kflags) & IORING_SQ_TASKRUN) &&
           !io_uring_sq_ready(&queue->ring);
}

static int come_up(struct uring_queue *queue) {
    struct io_uring_params params = {
        .flags = IORING_SETUP_SQE128 | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_CQSIZE,
        .cq_entries = 2 * ENTRIES};
    int error = io_uring_queue_init_params(SUBMISSIONS, &queue->ring, &params);
    if (error) return error;
    queue->ring_ready = true;
    error = add_entries(queue);
    if (error) return error;
    watch_event(queue);
    error = io_uring_submit(&queue->ring);
    if (error < 0) return error;
    /* A registration that the kernel accepts completes with the first request; a refusal at once.
     */
    struct io_uring_cqe *cqe;
    return io_uring_peek_cqe(&queue->ring, &cqe) == 0 && cqe->res < 0 ? cqe->res : 0;
}

static void *run(void *arg) {
    struct uring_queue *queue = arg;
    cpu_set_t cpu;
    CPU_ZERO(&cpu);
    CPU_SET(queue->id, &cpu);
    sched_setaffinity(0, sizeof(cpu), &cpu); /* a CPU that is offline has no callers either */
    queue->result = come_up(queue);
    store_release(&queue->up, true);
    if (queue->result) return NULL;
    bool alive = true;
    while (alive) {
        int error = io_uring_submit_and_wait(&queue->ring, 1);
        if (error < 0 && error != -EINTR) break;
        alive = reap(queue);
    }
    nm_door_lost(queue->door);
    return NULL;
}

static int start(struct nm_door *door, struct nm_refusal *why) {
    uint32_t cpus = (uint32_t)sysconf(_SC_NPROCESSORS_CONF);
    struct uring *uring = calloc(1, sizeof(*uring) + cpus * sizeof(uring->queues[0]));
    if (!uring) return nm_refuse(why, ENOMEM, "out of memory");
    door->transport_state = uring;
    uring->num_queues = cpus;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, THREAD_STACK);
    int error = 0;
    for (uint32_t i = 0; i < cpus && !error; i++) {
        struct uring_queue *queue = &uring->queues[i];
        queue->door = door;
        queue->id = (uint16_t)i;
        queue->event = eventfd(0, EFD_CLOEXEC);
        if (queue->event < 0)
            error = errno;
        else
            error = pthread_create(&queue->thread, &attributes, run, queue);
        queue->started = !error;
    }
    pthread_attr_destroy(&attributes);
    /* The kernel uses the queues once every CPU has one; until then all goes by read/write. */
    for (uint32_t i = 0; i < cpus && !error; i++) {
        struct uring_queue *queue = &uring->queues[i];
        while (!load_acquire(&queue->up))
            usleep(100);
        error = -queue->result;
    }
    if (!error) error = -nm_readers_start(door, 1);
    return error ? nm_refuse(why, error, "FUSE over io_uring: %s", strerror(error)) : 0;
}

static void stop(struct nm_door *door) {
    struct uring *uring = door->transport_state;
    nm_readers_stop(door);
    for (uint32_t i = 0; uring && i < uring->num_queues; i++) {
        struct uring_queue *queue = &uring->queues[i];
        if (queue->started) pthread_join(queue->thread, NULL);
        queue->started = false;
    }
}

static void destroy(struct nm_door *door) {
    struct uring *uring = door->transport_state;
    if (!uring) return;
    for (uint32_t i = 0; i < uring->num_queues; i++) {
        struct uring_queue *queue = &uring->queues[i];
        if (queue->ring_ready) io_uring_queue_exit(&queue->ring);
        if (queue->event > 0) close(queue->event);
        free(queue->entries);
        free(queue->payloads);
    }
    free(uring);
    door->transport_state = NULL;
}

const struct nm_transport_ops nm_uring_transport = {.name = "uring",
                                                    .loses_interrupts = true,
                                                    .idle = idle,
                                                    .start = start,
                                                    .stop = stop,
                                                    .destroy = destroy,
                                                    .reply = reply};
