/* SPDX-License-Identifier: BSD-2-Clause */
/* Drives the real engine and all its kinds of ports with random requests, syncs and polls while
 * random words are written all over what programs share: engine SEED STEPS. Nothing may go out of
 * bounds, and when the last file is gone everything must have come back. */
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "ages.h"
#include "events.h"
#include "monitored.h"
#include "ports/ports.h"

#define FILES 12
#define INTERFACES 2
#define PIPE_ENDS 4
#define VALE_PORTS 3
#define PORTS (INTERFACES + PIPE_ENDS + VALE_PORTS)
#define LIFE 2000 /* steps between two moments at which nothing is registered */
#define BUFFERS 6000
#define BUFFER_SIZE 128

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) fail(__LINE__, #condition);                                              \
    } while (0)

static uint64_t state;
static uint64_t seed, step, bound, sent, monitored, rebound, old;
static struct nm_region *region;
static struct nm_events *events;
static struct nm_port *ports[PORTS]; /* interfaces, then ends of pipes, then VALE ports */
static struct nm_port **const vale = ports + INTERFACES + PIPE_ENDS;
static struct nm_switch *sw;
static struct nm_file files[FILES];
static bool own_port[FILES]; /* a null port or a monitor, which goes with the file */

static void fail(int line, const char *what) {
    fprintf(stderr, "seed %llu, step %llu: line %d: %s\n", (unsigned long long)seed,
            (unsigned long long)step, line, what);
    abort();
}

static uint32_t below(uint32_t limit) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 16) % limit;
}

static uint32_t odd(void) {
    switch (below(4)) {
    case 0:
        return below(0xffffffff);
    case 1:
        return below(2) ? 0xffffffff : 1u << 31;
    case 2:
        return below(64);
    default:
        return below(BUFFERS + 2);
    }
}

/* ---- a backend that takes and gives what it likes ------------------------------------------- */

static void check_frame(const struct nm_frame *frame) {
    struct nm_buffers buffers = nm_region_buffers(region);
    CHECK(frame->data >= buffers.base);
    size_t at = (size_t)(frame->data - buffers.base);
    CHECK(at <= (size_t)buffers.size * buffers.total);
    if (frame->len) CHECK(at % buffers.size + frame->len <= buffers.size);
}

static int tx(void *queue, const struct nm_frame *frames, uint32_t count,
              struct nm_ring_stats *stats) {
    (void)queue;
    uint32_t most = below(4) ? count : below(count + 1), whole = 0, chain = 0;
    for (uint32_t i = 0; i < count; i++) {
        check_frame(&frames[i]);
        CHECK(++chain <= NETMAP_MAX_FRAGS);
        if (frames[i].more) continue;
        chain = 0;
        if (i < most) whole = i + 1;
        stats->packets++;
        sent++;
    }
    CHECK(chain == 0);
    return (int)whole;
}

static int rx(void *queue, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
              struct nm_ring_stats *stats) {
    (void)queue;
    uint32_t done = 0;
    for (uint32_t i = 0; i < count; i++)
        check_frame(&frames[i]);
    while (count - done >= per_packet && below(8)) {
        for (uint32_t parts = 1 + below(per_packet); parts; parts--, done++) {
            frames[done].len = (uint16_t)below(frames[done].len + 1u);
            frames[done].more = parts > 1;
            memset(frames[done].data, (int)done, frames[done].len);
        }
        stats->packets++;
    }
    return (int)done;
}

static int event_fd(void *queue) { return *(int *)queue; }

static int start(void *queue, struct nm_ring_stats *stats) {
    (void)queue, (void)stats;
    return 0;
}

static void stop(void *queue) { (void)queue; }

static void close_queue(void *queue) {
    close(*(int *)queue);
    free(queue);
}

static const struct nm_backend_ops backend = {.abi = NM_BACKEND_ABI,
                                              .name = "fuzz",
                                              .to_host = tx,
                                              .tx = tx,
                                              .rx = rx,
                                              .event_fd = event_fd,
                                              .start = start,
                                              .stop = stop,
                                              .close = close_queue};

static struct nm_port *interface(uint32_t queues, uint32_t slots) {
    void *vector[4];
    for (uint32_t i = 0; i < queues; i++) {
        int *fd = malloc(sizeof(*fd));
        CHECK(fd);
        *fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        vector[i] = fd;
    }
    struct nm_port *port;
    CHECK(!nm_nic_create(region, events, "fuzz", &backend, vector, queues, slots, &port, NULL));
    return port;
}

static void make_pipe(struct nm_port *ends[2], uint32_t tx, uint32_t rx, uint32_t slots) {
    static const char *const names[2] = {"fuzz{1", "fuzz}1"};
    const uint32_t rings[NM_DIRS] = {[NM_TX] = tx, [NM_RX] = rx};
    const uint32_t two[NM_DIRS] = {[NM_TX] = slots, [NM_RX] = slots / 2};
    CHECK(!nm_pipe_create(region, names, rings, two, ends, NULL));
}

static struct nm_port *vale_port(uint32_t rings, uint32_t slots) {
    struct nm_port *port;
    const uint32_t both[NM_DIRS] = {rings, rings}, same[NM_DIRS] = {slots, slots};
    CHECK(!nm_vale_create(region, "vale0:f", both, same, &port, NULL));
    return port;
}

static void make_ports(void) {
    ports[0] = interface(1, 130);
    ports[1] = interface(3, 64);
    make_pipe(&ports[INTERFACES], 1, 1, 64);
    make_pipe(&ports[INTERFACES + 2], 2, 1, 40);
    CHECK(!nm_switch_create(&sw));
    for (uint32_t i = 0; i < VALE_PORTS; i++) {
        vale[i] = vale_port(1 + i % 2, 100 - 20 * i);
        CHECK(nm_vale_join(vale[i], sw, NULL) >= 0);
    }
}

static void destroy_ports(void) {
    for (int i = 0; i < PORTS; i++)
        nm_port_destroy(ports[i]);
    nm_switch_destroy(sw);
}

/* ---- what programs do ----------------------------------------------------------------------- */

static void wake(struct nm_file *file) { CHECK(file >= files && file < files + FILES); }

static void do_register(uint32_t number) {
    struct nmreq_register request = {
        .nr_mode = below(8) ? below(2) ? NR_REG_ALL_NIC : below(9) : below(0xffffffff),
        .nr_ringid = (uint16_t)(below(4) ? below(5) : below(0x10000)),
        .nr_host_tx_rings = (uint16_t)(below(4) ? below(4) : below(0x10000)),
        .nr_host_rx_rings = (uint16_t)below(20),
        .nr_extra_bufs = below(32) ? below(40) : below(0xffffffff),
        .nr_flags = (below(8) ? 0 : NR_EXCLUSIVE) | (below(4) ? 0 : NR_RX_RINGS_ONLY) |
                    (below(4) ? 0 : NR_TX_RINGS_ONLY) | (below(2) ? 0 : NR_NO_TX_POLL),
    };
    struct nm_refusal why;
    struct nm_port *port = ports[below(PORTS)];
    bool own = !files[number].port && (request.nr_mode == NR_REG_NULL || !below(3));
    if (own && request.nr_mode != NR_REG_NULL) {
        uint32_t slots[NM_DIRS] = {below(2) ? 0 : below(200), below(4) ? 0 : below(0xffffffff)};
        uint64_t flags = (1 + below(7)) * NR_MONITOR_TX;
        struct nm_port *any = files[below(FILES)].port;
        if (nm_monitor_create(region, any ? any : port, flags, slots, &port, &why)) return;
    } else if (own) {
        uint32_t rings[NM_DIRS] = {below(8) ? below(4) : below(0x10000), below(4)};
        uint32_t slots[NM_DIRS] = {below(8) ? below(64) : below(0xffffffff), below(64)};
        if (nm_null_create(region, "null", rings, slots, &port, &why)) return;
    } else {
        nm_port_set_mtu(port, below(300));
    }
    struct nm_offsets offsets = {.max_offset = below(8) ? below(BUFFER_SIZE + 1) : odd(),
                                 .initial_offset = below(8) ? below(100) : odd(),
                                 .bits = below(8) ? below(20) : odd()};
    static const uint32_t apis[] = {0, 0, 0, 3, 3, 5, 5, NM_API_PAGE, 10, NM_API_2011};
    uint32_t api = below(32) ? apis[below(10)] : odd();
    if (files[number].port && below(2)) {
        if (!nm_file_rebind(&files[number], &request, &why)) rebound++;
        return;
    }
    if (!files[number].port) files[number].api = api;
    if (!below(3)) nm_file_want_offsets(&files[number], &offsets);
    int error = nm_file_register(&files[number], port, &request, &why);
    if (own && error) nm_port_destroy(port);
    if (error) return;
    own_port[number] = own;
    if (below(8)) nm_file_activate(&files[number]); /* else its program never learns of it */
}

static void do_unregister(uint32_t number) {
    struct nm_port *port = files[number].port;
    if (below(2)) nm_file_deactivate(&files[number]); /* as NIOCUNREGIF does */
    if (port && own_port[number]) monitored += port->krings[NM_RX][0].stats.packets;
    nm_file_unregister(&files[number]);
    if (port && own_port[number]) nm_port_destroy(port);
    own_port[number] = false;
}

static void move_vale(void) {
    struct nm_port *port = vale[below(VALE_PORTS)];
    nm_vale_leave(port);
    if (below(4)) CHECK(nm_vale_join(port, sw, NULL) >= 0);
}

/* Any word of the first two pools, or the first of a buffer, which links lists. */
static void scribble_anywhere(void) {
    enum nm_pool pool = below(3);
    struct nm_pool_geometry g = nm_region_pool(region, pool);
    char *object = nm_region_object(region, pool, below(g.objtotal));
    if (pool != NM_POOL_BUF) object += 4 * below(g.objsize / 4);
    *(uint32_t *)(void *)object = odd();
}

/* Some ring of a file; NULL if it has none in the direction that chance wanted. */
static struct nm_kring *some_ring(struct nm_file *file) {
    enum nm_dir dir = below(2);
    if (!file->port || file->first[dir] == file->last[dir]) return NULL;
    return &file->port->krings[dir][file->first[dir] + below(file->last[dir] - file->first[dir])];
}

/* A slot as the program sees it; of 8 bytes if there is no ptr. */
static struct netmap_slot *slot_of(const struct nm_kring *kring, uint32_t k) {
    const struct nm_ring_layout *layout = kring->old.layout;
    if (!layout) return &kring->ring->slot[k];
    return (struct netmap_slot *)(void *)(kring->old.memory + layout->header + k * layout->slot);
}

static uint32_t *old_word(const struct nm_kring *kring, uint32_t offset) {
    return (uint32_t *)(void *)(kring->old.memory + offset);
}

/* avail, cur or reserved of an old ring becomes wrong, often just so. */
static void spoil_old(struct nm_kring *kring) {
    const struct nm_ring_layout *layout = kring->old.layout;
    const uint16_t places[] = {layout->avail, layout->cur, layout->reserved};
    uint32_t place = places[below(3)], value = below(2) ? kring->num_slots - 1 + below(3) : odd();
    if (place) *old_word(kring, place) = below(4) ? value : UINT32_MAX - below(3);
}

/* An index of a file's ring becomes wrong, often just so. */
static void spoil(struct nm_file *file) {
    struct nm_kring *kring = some_ring(file);
    if (!kring) return;
    if (kring->old.layout && below(8)) {
        spoil_old(kring);
        return;
    }
    uint32_t *indices[] = {&kring->ring->head, &kring->ring->cur, &kring->ring->tail};
    uint32_t value = below(2) ? kring->num_slots - 1 + below(3) : odd();
    *indices[below(3)] = value;
    if (below(2)) *indices[below(3)] = value;
}

/* What a program writes to its own rings, mostly right. */
static void play(struct nm_file *file) {
    struct nm_kring *kring = some_ring(file);
    if (!kring) return;
    struct netmap_ring *ring = kring->ring;
    uint32_t room = nm_kring_distance(kring, kring->rhead, kring->hwtail);
    uint32_t moved = below(room + 1), head = (kring->rhead + moved) % kring->num_slots;
    const struct nm_ring_layout *layout = kring->old.layout;
    if (layout) {
        *old_word(kring, layout->cur) = head;
        *old_word(kring, layout->avail) = below(4) ? room - moved : UINT32_MAX;
        if (layout->reserved) *old_word(kring, layout->reserved) = below(moved + 1);
        *(uint16_t *)(void *)(kring->old.memory + layout->flags) = below(2) ? NR_FORWARD : 0;
        old++;
    } else {
        ring->head = head;
        ring->cur = below(4) ? head : kring->hwtail;
    }
    bool chained = !below(3);
    for (uint32_t i = below(2 * kring->num_slots); i > 0; i--) {
        struct netmap_slot *slot = slot_of(kring, below(kring->num_slots));
        slot->len = (uint16_t)below(200);
        if (!below(64)) slot->buf_idx = below(2) ? BUFFERS + below(2) : odd();
        slot->flags = chained ? NS_MOREFRAG | NS_BUF_CHANGED : 0;
        if (!below(16)) slot->flags |= NS_INDIRECT;
        if (!layout || layout->slot == sizeof(*slot))
            slot->ptr = below(2) ? below(2 * BUFFER_SIZE) : (uintptr_t)files;
    }
}

/* Two slots of any rings, or a slot and a list, change buffers; sometimes only by half. */
static void swap(void) {
    struct netmap_slot *slots[2];
    for (int i = 0; i < 2; i++) {
        const struct nm_kring *kring = some_ring(&files[below(FILES)]);
        if (!kring) return;
        slots[i] = slot_of(kring, below(kring->num_slots));
    }
    uint32_t held = slots[0]->buf_idx;
    slots[0]->buf_idx = slots[1]->buf_idx;
    if (below(8)) slots[1]->buf_idx = held;
}

/* ---- what must hold ------------------------------------------------------------------------- */

static void check_rings(const struct nm_port *port) {
    for (enum nm_dir dir = 0; dir < NM_DIRS && !port->files; dir++)
        CHECK(port->num_host[dir] == port->has_host);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = 0; i < nm_port_total_rings(port, dir); i++) {
            const struct nm_kring *kring = &port->krings[dir][i];
            CHECK(kring->exclusive <= kring->users);
            CHECK(kring->ring || !kring->users);
            CHECK(!kring->ring || kring->users || (kring->partner && kring->partner->users));
            CHECK(kring->live == (kring->users > 0));
            CHECK(port->files || !kring->views);
            CHECK(!kring->busy);
            CHECK(kring->users || !kring->old.layout);
            CHECK(!kring->old.layout || kring->old.tail < kring->num_slots);
            if (!kring->ring) continue;
            bound++;
            CHECK(kring->hwcur < kring->num_slots && kring->hwtail < kring->num_slots &&
                  kring->rhead < kring->num_slots && kring->filled < kring->num_slots &&
                  kring->shown < kring->num_slots);
        }
    }
}

static void check_all(void) {
    for (int i = 0; i < PORTS; i++)
        check_rings(ports[i]);
    for (int i = 0; i < FILES; i++)
        if (own_port[i]) check_rings(files[i].port);
}

static void check_nothing_held(void) {
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++)
        CHECK(nm_region_pool(region, pool).used == 0);
}

/* As an operator may while nobody holds anything. No smaller, so that ports still fit. */
static void make_region_anew(const struct nm_pool_request least[NM_POOLS]) {
    struct nm_pool_request pools[NM_POOLS];
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++) {
        pools[pool] = least[pool];
        pools[pool].objtotal += below(20);
        if (pool != NM_POOL_BUF) pools[pool].objsize += 64 * below(3);
    }
    struct nm_region *fresh;
    CHECK(nm_region_unused(region));
    CHECK(!nm_region_create(pools, &fresh, NULL));
    nm_region_replace(region, fresh);
    nm_ports_follow(region);
    CHECK(nm_region_pool(region, NM_POOL_BUF).objtotal >= pools[NM_POOL_BUF].objtotal);
}

/* Whose memory slots may point to: to be asked again with the caller, ours, or nobody's. */
static uint32_t caller(void) {
    const uint32_t callers[] = {0, (uint32_t)getpid(), NM_NOBODY};
    return callers[below(3)];
}

static void one_step(void) {
    uint32_t number = below(FILES);
    struct nm_file *file = &files[number];
    switch (below(16)) {
    case 0:
        do_register(number);
        break;
    case 1:
        if (!below(4)) do_unregister(number);
        if (!below(64)) move_vale();
        break;
    case 2:
    case 3:
    case 4:
        play(file);
        if (below(2)) nm_file_poll(file, POLLIN | POLLOUT, below(2), caller());
        break;
    case 5:
    case 6:
        for (uint32_t i = below(100); i > 0; i--)
            scribble_anywhere();
        break;
    case 7:
        swap();
        break;
    case 8:
        spoil(file);
        if (file->port && file->nifp && below(2)) file->nifp->ni_bufs_head = odd();
        break;
    case 9:
    case 10:
    case 11:
        nm_file_poll(file, below(0x10000), below(2), caller());
        break;
    default:
        nm_file_sync(file, below(2), caller());
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    seed = strtoull(argv[1], NULL, 0);
    state = seed * 0x9e3779b97f4a7c15u + 1;
    uint64_t steps = strtoull(argv[2], NULL, 0);
    const struct nm_pool_request pools[NM_POOLS] = {[NM_POOL_IF] = {1024, FILES - 1},
                                                    [NM_POOL_RING] = {256 + 16 * 130, 60},
                                                    [NM_POOL_BUF] = {BUFFER_SIZE, BUFFERS}};
    CHECK(!nm_region_create(pools, &region, NULL));
    CHECK(!nm_events_create(&events));
    make_ports();
    for (int i = 0; i < FILES; i++)
        files[i].wake = wake;
    for (step = 1; step <= steps; step++) {
        one_step();
        check_all();
        if (step % LIFE && step != steps) continue;
        for (uint32_t i = 0; i < FILES; i++)
            do_unregister(i);
        check_nothing_held();
        make_region_anew(pools);
    }
    destroy_ports();
    nm_events_destroy(events);
    nm_region_destroy(region);
    printf("seed %llu: %.1f rings bound on average, %llu frames sent, %llu seen by monitors, "
           "%llu changes of rings, %llu moves on old ones\n",
           (unsigned long long)seed, (double)bound / (double)steps, (unsigned long long)sent,
           (unsigned long long)monitored, (unsigned long long)rebound, (unsigned long long)old);
    return 0;
}
