/* SPDX-License-Identifier: BSD-2-Clause */
/* Programs of several ages that behave, each in a thread: they send and receive on a pipe, a switch
 * and interfaces, while monitors of all these come and go, ports leave switches for others and old
 * programs bind their rings anew: monitors SEED STEPS, under ThreadSanitizer. Nothing may race,
 * what anybody sees must be a frame as it was sent, and all memory must come back. */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ages.h"
#include "barrier.h"
#include "events.h"
#include "ports/ports.h"

#define HEADER 14
#define SIZE 256 /* of a buffer */
#define BURST 20

/* Two ends of a pipe, two ports of a switch, an interface, and one that a switch holds. */
enum { PIPE, VALE = PIPE + 2, NIC = VALE + 2, ATTACHED, PORTS };
#define OWNERS ATTACHED
#define MONITORS 3

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail(__LINE__, #condition);                                              \
    } while (0)

static uint64_t seed, steps, shown, rebound;
static struct nm_region *region;
static struct nm_events *events;
static struct nm_port *ports[PORTS];
static struct nm_switch *switches[2];
static struct nm_attachment *attachment;                    /* of ports[ATTACHED] */
static bool ended;                                          /* all programs are */
static pthread_mutex_t control = PTHREAD_MUTEX_INITIALIZER; /* one change at a time */

static void fail(int line, const char *what) {
    fprintf(stderr, "seed %llu: line %d: %s\n", (unsigned long long)seed, line, what);
    abort();
}

static uint32_t below(uint64_t *state, uint32_t limit) { /* xorshift64 */
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (uint32_t)(*state >> 16) % limit;
}

/* ---- frames: to everybody, all bytes the same ------------------------------------------------ */

static void write_frame(char *data, uint32_t len, int stamp) {
    memset(data, 0xff, 6);
    memset(data + 6, 2, HEADER - 6);
    memset(data + HEADER, stamp, len - HEADER);
}

static void check_frame(const char *data, uint32_t len) {
    CHECK(len > HEADER && len <= SIZE);
    for (uint32_t i = HEADER + 1; i < len; i++)
        CHECK(data[i] == data[HEADER]);
}

/* ---- a device that always has a few frames --------------------------------------------------- */

struct queue {
    int fd;
    uint64_t state;
};

static int tx(void *arg, const struct nm_frame *frames, uint32_t count,
              struct nm_ring_stats *stats) {
    (void)arg, (void)stats;
    for (uint32_t i = 0; i < count; i++)
        check_frame(frames[i].data, frames[i].len);
    return (int)count;
}

static int rx(void *arg, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
              struct nm_ring_stats *stats) {
    struct queue *queue = arg;
    (void)per_packet, (void)stats;
    uint32_t some = below(&queue->state, BURST);
    if (some > count) some = count;
    for (uint32_t i = 0; i < some; i++) {
        frames[i].len = (uint16_t)(HEADER + 1 + below(&queue->state, SIZE - HEADER));
        frames[i].more = false;
        write_frame(frames[i].data, frames[i].len, (int)i);
    }
    return (int)some;
}

static int event_fd(void *arg) { return ((struct queue *)arg)->fd; }

static int start(void *arg, struct nm_ring_stats *stats) {
    (void)arg, (void)stats;
    return 0;
}

static void stop(void *arg) { (void)arg; }

static void close_queue(void *arg) {
    close(event_fd(arg));
    free(arg);
}

static const struct nm_backend_ops backend = {.abi = NM_BACKEND_ABI,
                                              .name = "stress",
                                              .to_host = tx,
                                              .tx = tx,
                                              .rx = rx,
                                              .event_fd = event_fd,
                                              .start = start,
                                              .stop = stop,
                                              .close = close_queue};

static struct nm_port *interface(void) {
    struct queue *queue = malloc(sizeof(*queue));
    CHECK(queue);
    *queue = (struct queue){.fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .state = seed + 99};
    void *vector[] = {queue};
    struct nm_port *port;
    CHECK(!nm_nic_create(region, events, "stress", &backend, vector, 1, 64, &port, NULL));
    return port;
}

/* ---- programs -------------------------------------------------------------------------------- */

struct program {
    pthread_t thread;
    uint32_t number;
    uint64_t state, seen;
    struct nm_file file; /* woken by anybody */
    uint64_t wakes;
};

static void wake(struct nm_file *file) {
    struct program *program =
        (struct program *)(void *)((char *)file - offsetof(struct program, file));
    __atomic_fetch_add(&program->wakes, 1, __ATOMIC_RELAXED);
}

static void set_head(struct netmap_ring *ring, uint32_t head) {
    WRITE_ONCE(ring->cur, head);
    store_release(&ring->head, head);
}

static char *buffer_of(const struct netmap_slot *slot) {
    struct nm_buffers buffers = nm_region_buffers(region);
    char *data = nm_buffer(&buffers, slot->buf_idx);
    CHECK(data != buffers.base);
    return data;
}

static void send_some(struct program *program, struct netmap_ring *ring) {
    uint32_t tail = load_acquire(&ring->tail), head = ring->head;
    for (uint32_t n = below(&program->state, BURST); n && head != tail; n--) {
        struct netmap_slot *slot = &ring->slot[head];
        slot->len = (uint16_t)(HEADER + 1 + below(&program->state, SIZE - HEADER));
        write_frame(buffer_of(slot), slot->len, (int)n);
        slot->flags = 0;
        head = head + 1 == ring->num_slots ? 0 : head + 1;
    }
    set_head(ring, head);
}

static void receive_some(struct program *program, struct netmap_ring *ring) {
    uint32_t tail = load_acquire(&ring->tail), head = ring->head;
    for (uint32_t n = below(&program->state, 2 * BURST); n && head != tail; n--) {
        const struct netmap_slot *slot = &ring->slot[head];
        check_frame(buffer_of(slot), slot->len);
        program->seen++;
        head = head + 1 == ring->num_slots ? 0 : head + 1;
    }
    set_head(ring, head);
}

static uint32_t *old_word(const struct nm_old_ring *old, uint32_t offset) {
    return (uint32_t *)(void *)(old->memory + offset);
}

/* A ring with avail and cur: what is sent or received there. */
static void use_old(struct program *program, const struct nm_kring *kring) {
    const struct nm_old_ring *old = &kring->old;
    const struct nm_ring_layout *layout = old->layout;
    uint32_t avail = load_acquire(old_word(old, layout->avail));
    uint32_t cur = *old_word(old, layout->cur);
    for (uint32_t n = below(&program->state, BURST); n && avail; n--, avail--) {
        struct netmap_slot *slot =
            (struct netmap_slot *)(void *)(old->memory + layout->header + cur * layout->slot);
        if (kring->dir == NM_TX) {
            slot->len = (uint16_t)(HEADER + 1 + below(&program->state, SIZE - HEADER));
            write_frame(buffer_of(slot), slot->len, (int)n);
            slot->flags = 0;
        } else {
            check_frame(buffer_of(slot), slot->len);
            program->seen++;
        }
        cur = cur + 1 == kring->num_slots ? 0 : cur + 1;
    }
    WRITE_ONCE(*old_word(old, layout->avail), avail);
    store_release(old_word(old, layout->cur), cur);
}

static void use_rings(struct program *program, bool monitor) {
    struct nm_port *port = program->file.port;
    struct nm_kring *tx = &port->krings[NM_TX][0], *rx = &port->krings[NM_RX][0];
    if (tx->old.layout) {
        use_old(program, tx);
        use_old(program, rx);
        return;
    }
    if (!monitor) send_some(program, tx->ring);
    receive_some(program, rx->ring);
}

static void live(struct program *program, bool monitor) {
    struct nm_file *file = &program->file;
    for (uint32_t n = below(&program->state, 200); n; n--) {
        use_rings(program, monitor);
        if (below(&program->state, 2)) {
            nm_file_poll(file, POLLIN | (monitor ? 0 : POLLOUT), below(&program->state, 2), 0);
        } else {
            nm_file_sync(file, NM_TX, 0);
            nm_file_sync(file, NM_RX, 0);
        }
    }
}

/* The port that the program is to have; NULL: nobody has open what it wants to monitor. */
static struct nm_port *choose(struct program *program, bool monitor) {
    struct nm_port *port = ports[monitor ? below(&program->state, PORTS) : program->number];
    if (!monitor) return port;
    const uint32_t slots[NM_DIRS] = {[NM_RX] = 2 + below(&program->state, 100), [NM_TX] = 2};
    uint64_t flags = (1 + below(&program->state, 7)) * NR_MONITOR_TX;
    return nm_monitor_create(region, port, flags, slots, &port, NULL) ? NULL : port;
}

static void *run(void *arg) {
    struct program *program = arg;
    bool monitor = program->number >= OWNERS;
    for (uint64_t step = 0; step < steps; step++) {
        static const uint32_t apis[] = {0, 3, 5, NM_API_PAGE};
        struct nmreq_register request = {.nr_mode = NR_REG_ALL_NIC};
        pthread_mutex_lock(&control);
        struct nm_port *port = choose(program, monitor);
        if (!monitor) program->file.api = apis[below(&program->state, 4)];
        if (port) CHECK(!nm_file_register(&program->file, port, &request, NULL));
        pthread_mutex_unlock(&control);
        if (!port) continue;
        nm_file_activate(&program->file);
        live(program, monitor);
        pthread_mutex_lock(&control);
        if (below(&program->state, 2)) nm_file_deactivate(&program->file);
        nm_file_unregister(&program->file);
        if (monitor) nm_port_destroy(port);
        pthread_mutex_unlock(&control);
    }
    if (monitor) __atomic_fetch_add(&shown, program->seen, __ATOMIC_RELAXED);
    return NULL;
}

/* ---- switches -------------------------------------------------------------------------------- */

static void attach(struct nm_switch *sw) {
    struct nmreq_register request = {.nr_mode = NR_REG_ALL_NIC};
    CHECK(!nm_attachment_create(ports[ATTACHED], sw, &request, &attachment, NULL));
}

static void join(struct nm_port *vale, struct nm_switch *sw) {
    CHECK(nm_vale_join(vale, sw, NULL) >= 0);
}

/* NIOCREGIF once more, while the program syncs. */
static void rebind(struct program *program) {
    struct nmreq_register request = {.nr_mode = NR_REG_ALL_NIC};
    int error = nm_file_rebind(&program->file, &request, NULL);
    CHECK(!error || error == -EBUSY); /* it is not registered, or no program of old */
    rebound += !error;
}

/* Whoever changes what is on which switch, and which rings programs have, with frames on their way.
 */
static void *rearrange(void *arg) {
    struct program *programs = arg;
    uint64_t state = seed + 7;
    while (!READ_ONCE(ended)) {
        struct nm_switch *sw = switches[!below(&state, 4)];
        struct nm_port *vale = ports[VALE + below(&state, 2)];
        pthread_mutex_lock(&control);
        switch (below(&state, 4)) {
        case 3:
            rebind(&programs[below(&state, OWNERS)]);
            break;
        case 0:
            nm_attachment_destroy(attachment);
            attach(sw);
            break;
        case 1:
            CHECK(!nm_attachment_poll(attachment, 0, below(&state, 2), NULL));
            break;
        default:
            nm_vale_leave(vale);
            join(vale, sw);
        }
        pthread_mutex_unlock(&control);
        usleep(below(&state, 2000));
    }
    return NULL;
}

static void run_all(void) {
    static struct program programs[OWNERS + MONITORS];
    pthread_t operator;
    for (uint32_t i = 0; i < OWNERS + MONITORS; i++)
        programs[i] = (struct program){
            .number = i, .state = (seed + i + 1) * 0x9e3779b97f4a7c15u, .file = {.wake = wake}};
    CHECK(!pthread_create(&operator, NULL, rearrange, programs));
    for (uint32_t i = 0; i < OWNERS + MONITORS; i++) {
        CHECK(!pthread_create(&programs[i].thread, NULL, run, &programs[i]));
    }
    for (uint32_t i = 0; i < OWNERS + MONITORS; i++)
        pthread_join(programs[i].thread, NULL);
    WRITE_ONCE(ended, true);
    pthread_join(operator, NULL);
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    seed = strtoull(argv[1], NULL, 0);
    steps = strtoull(argv[2], NULL, 0);
    const struct nm_pool_request pools[NM_POOLS] = {[NM_POOL_IF] = {1024, 20},
                                                    [NM_POOL_RING] = {256 + 16 * 110, 60},
                                                    [NM_POOL_BUF] = {SIZE, 4000}};
    static const char *const names[2] = {"stress{1", "stress}1"};
    const uint32_t one[NM_DIRS] = {1, 1}, slots[NM_DIRS] = {64, 64};
    CHECK(!nm_region_create(pools, &region, NULL));
    CHECK(!nm_events_create(&events));
    for (int i = 0; i < 2; i++)
        CHECK(!nm_switch_create(&switches[i]));
    CHECK(!nm_pipe_create(region, names, one, slots, &ports[PIPE], NULL));
    for (int i = 0; i < 2; i++) {
        CHECK(!nm_vale_create(region, "vale0:s", one, slots, &ports[VALE + i], NULL));
        join(ports[VALE + i], switches[0]);
    }
    ports[NIC] = interface();
    ports[ATTACHED] = interface();
    attach(switches[0]);
    run_all();
    nm_attachment_destroy(attachment);
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++)
        CHECK(nm_region_pool(region, pool).used == 0);
    for (int i = 0; i < PORTS; i++)
        nm_port_destroy(ports[i]);
    for (int i = 0; i < 2; i++)
        nm_switch_destroy(switches[i]);
    nm_events_destroy(events);
    nm_region_destroy(region);
    printf("seed %llu: %llu frames seen by monitors, %llu times rings bound anew\n",
           (unsigned long long)seed, (unsigned long long)shown, (unsigned long long)rebound);
    return 0;
}
