/* SPDX-License-Identifier: BSD-2-Clause */
/* The engine without the door: what flow.c does in processes and through /dev/netmap, here done by
 * one thread that sends a batch, lets every receiver take it, and calls the engine's sync itself.
 * Prints for the sender and then each receiver frames, frames a second and missing numbers.
 *
 *   engine pipe|vale|broadcast BATCH SECONDS RECEIVERS */
#include <errno.h>

#include "ports/ports.h"
#include "traffic.h"

#define SLOTS 1024
#define RECEIVERS_MOST 16

struct end {
    struct nm_file file;
    struct flow flow;
};

static uint32_t batch;
static uint8_t frame[LENGTH];
static struct end sender, receivers[RECEIVERS_MOST];

static void check(int result, const char *doing) {
    if (result >= 0) return;
    errno = -result;
    die(doing);
}

static struct netmap_ring *ring_of(struct end *end, enum nm_dir dir) {
    return end->file.port->krings[dir][0].ring;
}

static void bind_rings(struct end *end, struct nm_port *port) {
    struct nmreq_register request = {.nr_mode = NR_REG_ALL_NIC};
    check(nm_file_register(&end->file, port, &request, NULL), "register");
    nm_file_activate(&end->file);
}

static void send_batch(void) {
    count(&sender.flow, fill(ring_of(&sender, NM_TX), batch, &sender.flow, NULL));
    nm_file_sync(&sender.file, NM_TX, 0);
}

/* The second sync gives the slots back. */
static void receive_batch(struct end *receiver) {
    nm_file_sync(&receiver->file, NM_RX, 0);
    count(&receiver->flow, take(ring_of(receiver, NM_RX), batch, &receiver->flow, false));
    nm_file_sync(&receiver->file, NM_RX, 0);
}

static struct nm_region *make_region(void) {
    const struct nm_pool_request pools[NM_POOLS] = {[NM_POOL_IF] = {1024, 2 * RECEIVERS_MOST},
                                                    [NM_POOL_RING] = {36864, 4 * RECEIVERS_MOST},
                                                    [NM_POOL_BUF] = {2048, 64 * SLOTS}};
    struct nm_region *region;
    check(nm_region_create(pools, &region, NULL), "region");
    return region;
}

static void make_pipe(struct nm_region *region) {
    static const uint32_t rings[NM_DIRS] = {1, 1}, slots[NM_DIRS] = {SLOTS, SLOTS};
    static const char *const names[2] = {"bench{1", "bench}1"};
    struct nm_port *ends[2];
    check(nm_pipe_create(region, names, rings, slots, ends, NULL), "pipe");
    bind_rings(&sender, ends[0]);
    bind_rings(&receivers[0], ends[1]);
}

static void plug(struct nm_region *region, struct nm_switch *sw, struct end *end) {
    static const uint32_t rings[NM_DIRS] = {1, 1}, slots[NM_DIRS] = {SLOTS, SLOTS};
    struct nm_port *port;
    check(nm_vale_create(region, "vale0:bench", rings, slots, &port, NULL), "port");
    check(nm_vale_join(port, sw, NULL), "switch");
    bind_rings(end, port);
}

static void make_switch(struct nm_region *region, int receiving) {
    struct nm_switch *sw;
    check(nm_switch_create(&sw), "switch");
    plug(region, sw, &sender);
    for (int i = 0; i < receiving; i++)
        plug(region, sw, &receivers[i]);
    uint8_t announcement[LENGTH];
    make_frame(announcement, to_all, to_receiver);
    prepare(ring_of(&receivers[0], NM_TX), announcement);
    fill(ring_of(&receivers[0], NM_TX), 1, &receivers[0].flow, NULL);
    check(nm_file_sync(&receivers[0].file, NM_TX, 0), "announcement");
}

int main(int argc, char **argv) {
    if (argc != 5) return 2;
    int receiving = atoi(argv[4]);
    if (receiving < 1 || receiving > RECEIVERS_MOST) return 2;
    batch = (uint32_t)atol(argv[2]);
    make_frame(frame, !strcmp(argv[1], "broadcast") ? to_all : to_receiver, sender_address);
    struct nm_region *region = make_region();
    if (!strcmp(argv[1], "pipe"))
        make_pipe(region);
    else
        make_switch(region, receiving);
    prepare(ring_of(&sender, NM_TX), frame);
    for (double end = now() + atof(argv[3]); now() < end;) {
        send_batch();
        for (int i = 0; i < receiving; i++)
            receive_batch(&receivers[i]);
    }
    print_flow(&sender.flow);
    for (int i = 0; i < receiving; i++)
        print_flow(&receivers[i].flow);
    return 0;
}
