/* SPDX-License-Identifier: BSD-2-Clause */
/* How AF_XDP's sockets, their shared memory and the XDP program come and go; what moves through
 * them is xdp.c's. */
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backends/bpf.h"
#include "backends/steer.h"
#include "backends/xdp_queue.h"

#define CHUNK_MIN 2048 /* XDP_UMEM_MIN_CHUNK_SIZE */
#define PAGE 4096
#define LEAST_RING 1024
/* include/uapi/linux/if_xdp.h; the headers we are built with may be older. */
#ifndef XDP_MAX_TX_SKB_BUDGET
#define XDP_MAX_TX_SKB_BUDGET 9
#endif
#define BUSY_MS 1000 /* that a queue may stay taken after its socket was closed */
#define MOMENT_MS 5

/* ---- the program -----------------------------------------------------------------------------
 */

/* return bpf_redirect_map(&map, ctx->rx_queue_index, XDP_PASS); */
static int load_program(int map, struct nm_refusal *why) {
    const struct nm_bpf_code code = {"nm_to_queues",
                                     6,
                                     {NM_LOAD(BPF_REG_2, struct xdp_md, rx_queue_index),
                                      NM_SET_MAP(BPF_REG_1, map), NM_SET(BPF_REG_3, XDP_PASS),
                                      NM_CALL(BPF_FUNC_redirect_map), NM_RETURN}};
    return nm_bpf_load(BPF_PROG_TYPE_XDP, &code, why);
}

/* The sockets that receive now, by queue. */
static int make_map(uint32_t queues, struct nm_refusal *why) {
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_type = BPF_MAP_TYPE_XSKMAP;
    attr.key_size = sizeof(uint32_t);
    attr.value_size = sizeof(int);
    attr.max_entries = queues;
    strcpy(attr.map_name, "nm_queues");
    int map = nm_bpf(BPF_MAP_CREATE, &attr);
    return map < 0 ? nm_refuse(why, -map, "a BPF map of sockets: %s", strerror(-map)) : map;
}

static int attach(struct nm_xdp_device *device, const struct nm_xdp_config *config,
                  struct nm_refusal *why) {
    device->map = make_map(config->queues, why);
    if (device->map < 0) return device->map;
    int program = load_program(device->map, why);
    if (program < 0) return program;
    bool generic = config->mode == NM_XDP_GENERIC;
    device->link = nm_bpf_attach(program, config->ifindex, BPF_XDP,
                                 generic ? XDP_FLAGS_SKB_MODE : XDP_FLAGS_DRV_MODE);
    close(program);
    if (device->link >= 0) return 0;
    return nm_refuse(why, -device->link, "its driver takes no XDP program%s: %s",
                     generic ? " in generic mode" : "", strerror(-device->link));
}

/* ---- memory ----------------------------------------------------------------------------------
 */

static uint32_t ring_size(uint32_t slots) {
    uint32_t size = LEAST_RING;
    while (size < slots)
        size *= 2;
    return size;
}

static int say_memory(const struct nm_xdp_device *device, int error, struct nm_refusal *why) {
    uint64_t bytes = nm_xdp_address(device, device->limit);
    struct rlimit limit = {0};
    getrlimit(RLIMIT_MEMLOCK, &limit);
    if (error == ENOBUFS)
        return nm_refuse(why, error,
                         "%llu bytes of packet memory cannot be locked: the memlock limit is %llu "
                         "(LimitMEMLOCK=, or CAP_IPC_LOCK)",
                         (unsigned long long)bytes, (unsigned long long)limit.rlim_cur);
    return nm_refuse(why, error, "registering %llu bytes of packet memory for AF_XDP: %s%s",
                     (unsigned long long)bytes, strerror(error),
                     error == EPERM ? ": CAP_NET_RAW is needed" : "");
}

/* A frame of a buffer's size fits a chunk behind the headroom, and never ends in the next buffer.
 */
static int choose_chunk(struct nm_xdp_device *device, struct nm_refusal *why) {
    uint32_t size = device->buffers.size;
    device->chunk = size + NM_XDP_HEADROOM < PAGE ? size + NM_XDP_HEADROOM : PAGE;
    if (device->chunk >= CHUNK_MIN) return 0;
    return nm_refuse(why, EINVAL, "buffers of %u bytes are too small for AF_XDP, which needs %u",
                     size, CHUNK_MIN - NM_XDP_HEADROOM);
}

/* The first queue's socket is that of the memory. */
static int register_memory(struct nm_xdp_device *device, uint32_t size, struct nm_refusal *why) {
    struct xsk_umem_config config = {.fill_size = size,
                                     .comp_size = size,
                                     .frame_size = device->chunk,
                                     .flags = XDP_UMEM_UNALIGNED_CHUNK_FLAG};
    struct nm_xdp_queue *first = &device->queues[0];
    int error =
        xsk_umem__create(&device->umem, device->buffers.base, nm_xdp_address(device, device->limit),
                         &first->fill, &first->comp, &config);
    return error ? say_memory(device, -error, why) : 0;
}

/* ---- sockets ---------------------------------------------------------------------------------
 */

/* The kernel takes a queue back from its driver in a work item behind the close of its socket, and
 * until then nobody else can be bound to it. Whether to try again, with `*waited` 0 at first. */
static bool still_taken(int error, int *waited) {
    const struct timespec moment = {.tv_nsec = MOMENT_MS * 1000000};
    if (error != -EBUSY || *waited >= BUSY_MS) return false;
    nanosleep(&moment, NULL);
    *waited += MOMENT_MS;
    return true;
}

static int bind_queue(struct nm_xdp_queue *queue, const char *name, uint32_t size, uint16_t flags) {
    struct xsk_socket_config config = {.rx_size = size,
                                       .tx_size = size,
                                       .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
                                       .bind_flags = flags};
    int error, waited = 0;
    do {
        error =
            xsk_socket__create_shared(&queue->socket, name, queue->number, queue->device->umem,
                                      &queue->rx, &queue->tx, &queue->fill, &queue->comp, &config);
    } while (still_taken(error, &waited));
    return error;
}

/* Frames that one call sends, 32 unless the kernel can be told otherwise (Linux 6.17). */
static void raise_budget(const struct nm_xdp_queue *queue) {
    setsockopt(xsk_socket__fd(queue->socket), SOL_XDP, XDP_MAX_TX_SKB_BUDGET, &queue->tx.size,
               sizeof(queue->tx.size));
}

static bool is_zero_copy(const struct nm_xdp_queue *queue) {
    struct xdp_options options = {0};
    socklen_t size = sizeof(options);
    int fd = xsk_socket__fd(queue->socket);
    return !getsockopt(fd, SOL_XDP, XDP_OPTIONS, &options, &size) &&
           options.flags & XDP_OPTIONS_ZEROCOPY;
}

/* Made here, in the interface's network namespace. -errno */
static int make_next_user(const struct nm_xdp_device *device) {
    static const int rings[] = {XDP_UMEM_FILL_RING, XDP_UMEM_COMPLETION_RING, XDP_TX_RING};
    const struct xdp_umem_reg memory = {
        .addr = (uintptr_t)device->buffers.base, .len = PAGE, .chunk_size = PAGE};
    const int entries = 2;
    int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0) return -errno;
    bool made = !setsockopt(fd, SOL_XDP, XDP_UMEM_REG, &memory, sizeof(memory));
    for (size_t i = 0; made && i < sizeof(rings) / sizeof(rings[0]); i++)
        made = !setsockopt(fd, SOL_XDP, rings[i], &entries, sizeof(entries));
    if (made) return fd;
    int error = -errno;
    close(fd);
    return error;
}

/* Whether no driver reads or writes a buffer any more, all sockets being closed. */
static bool is_let_go(const struct nm_xdp_device *device) {
    int error, waited = 0;
    for (uint32_t i = 0; i < device->num_queues; i++) {
        const struct sockaddr_xdp address = {.sxdp_family = AF_XDP,
                                             .sxdp_flags = XDP_COPY,
                                             .sxdp_ifindex = device->ifindex,
                                             .sxdp_queue_id = i};
        if (device->queues[i].next_user < 0) continue;
        do {
            error = bind(device->queues[i].next_user, (const struct sockaddr *)&address,
                         sizeof(address))
                        ? -errno
                        : 0;
        } while (still_taken(error, &waited));
        if (error == -EBUSY || error == -ENOMEM) return false; /* else it is free, or has gone */
    }
    return true;
}

static int open_sockets(struct nm_xdp_device *device, const struct nm_xdp_config *config,
                        uint32_t size, struct nm_refusal *why) {
    static const uint16_t flags_of[] = {[NM_XDP_BEST] = 0,
                                        [NM_XDP_ZEROCOPY] = XDP_ZEROCOPY,
                                        [NM_XDP_NATIVE] = XDP_COPY,
                                        [NM_XDP_GENERIC] = XDP_COPY};
    uint16_t flags = XDP_USE_NEED_WAKEUP | flags_of[config->mode];
    /* As drivers want what they read and, with the headroom before it, what they write. */
    bool within_pages = PAGE % device->buffers.size == 0 && device->buffers.size < PAGE;
    if (config->mode == NM_XDP_BEST && !within_pages) flags |= XDP_COPY;
    if (config->mode == NM_XDP_ZEROCOPY && !within_pages)
        return nm_refuse(
            why, EINVAL,
            "buffers of %u bytes and their headroom cross pages: no driver writes there",
            device->buffers.size);
    for (uint32_t i = 0; i < config->queues; i++) {
        struct nm_xdp_queue *queue = &device->queues[i];
        int error = bind_queue(queue, config->name, size, flags);
        if (error)
            return nm_refuse(why, -error, "an AF_XDP socket at queue %u: %s%s", i, strerror(-error),
                             error == -EBUSY ? ": another program has one there" : "");
        device->zero_copy = is_zero_copy(queue);
        if (device->zero_copy) queue->next_user = error = make_next_user(device);
        if (error < 0)
            return nm_refuse(why, -error, "another AF_XDP socket for queue %u: %s", i,
                             strerror(-error));
        raise_budget(queue);
        queue->flights = calloc(size, sizeof(*queue->flights));
        queue->spares = calloc(NM_XDP_SPARES + size, sizeof(*queue->spares));
        if (!queue->flights || !queue->spares) return nm_refuse(why, ENOMEM, "out of memory");
    }
    return 0;
}

static int open_host(struct nm_xdp_device *device, struct nm_refusal *why) {
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = (int)device->ifindex};
    device->host = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int error = device->host < 0 ? -errno : nm_steer_sender(device->host);
    if (!error && bind(device->host, (struct sockaddr *)&address, sizeof(address))) error = -errno;
    if (!error) return 0;
    return nm_refuse(why, -error, "a packet socket for the host: %s%s", strerror(-error),
                     error == -EPERM ? ": CAP_NET_RAW and CAP_NET_ADMIN are needed" : "");
}

/* ---- buffers ---------------------------------------------------------------------------------
 */

static int lend_one(struct nm_xdp_device *device, uint32_t *buffer, struct nm_refusal *why) {
    int64_t index = nm_region_lend(device->region);
    if (index < 0) return nm_refuse(why, ENOMEM, "AF_XDP needs more buffers than are free");
    *buffer = (uint32_t)index;
    if (index < device->limit) return 0;
    nm_region_return(device->region, (uint32_t)index);
    return nm_refuse(why, ENOMEM,
                     "the %u buffers that AF_XDP reaches are all in use: raise xdp_buffers",
                     device->limit);
}

/* As many to be filled as the rings hold, and some to copy into. The pool gives its lowest ones:
 * what is neither is kept aside meanwhile, a chain of places. */
int nm_xdp_lend(void *opaque, struct nm_refusal *why) {
    struct nm_xdp_queue *queue = opaque;
    struct nm_xdp_device *device = queue->device;
    uint32_t wanted = queue->fill.size, filled = 0, slot = 0, aside = 0;
    int error = 0;
    if (nm_region_generation(device->region) != device->generation)
        return nm_refuse(why, EAGAIN, "packet memory was made anew meanwhile");
    xsk_ring_prod__reserve(&queue->fill, wanted, &slot);
    while (!error && (filled < wanted || queue->num_spares < NM_XDP_SPARES)) {
        uint32_t buffer = 0;
        error = lend_one(device, &buffer, why);
        if (error) break;
        if (filled < wanted && nm_xdp_fillable(device, buffer)) {
            device->place[buffer] = NM_XDP_FILLING;
            nm_xdp_fill(queue, slot + filled++, buffer);
        } else if (queue->num_spares < NM_XDP_SPARES) {
            device->place[buffer] = NM_XDP_SPARE;
            queue->spares[queue->num_spares++] = buffer;
        } else {
            device->place[buffer] = aside;
            aside = buffer;
        }
    }
    while (aside) {
        uint32_t buffer = aside;
        aside = device->place[buffer];
        nm_xdp_return(device, buffer);
    }
    if (!error) xsk_ring_prod__submit(&queue->fill, filled);
    return error;
}

static void return_buffers(struct nm_xdp_device *device) {
    for (uint32_t q = 0; q < device->num_queues; q++) {
        struct nm_xdp_queue *queue = &device->queues[q];
        for (; queue->flights && queue->oldest != queue->next; queue->oldest++) {
            uint32_t buffer = queue->flights[queue->oldest & queue->tx.mask].buffer;
            if (buffer) nm_buffer_give(&device->buffers, buffer);
        }
    }
    for (uint32_t buffer = 0; buffer < device->limit; buffer++)
        if (device->place[buffer] != NM_XDP_NOWHERE && device->place[buffer] >= NM_XDP_SPARE_AWAY)
            nm_xdp_return(device, buffer);
}

/* ---- life ------------------------------------------------------------------------------------
 */

static void destroy(struct nm_xdp_device *device) {
    if (device->link >= 0) close(device->link);
    for (uint32_t i = 0; i < device->num_queues; i++)
        if (device->queues[i].socket) xsk_socket__delete(device->queues[i].socket);
    if (device->umem) xsk_umem__delete(device->umem);
    if (device->map >= 0) close(device->map);
    if (device->control >= 0) close(device->control);
    if (device->host >= 0) close(device->host);
    /* Of a driver that keeps buffers nobody gets them any more. */
    if (device->place && is_let_go(device)) return_buffers(device);
    for (uint32_t i = 0; i < device->num_queues; i++) {
        if (device->queues[i].next_user >= 0) close(device->queues[i].next_user);
        free(device->queues[i].flights);
        free(device->queues[i].spares);
    }
    free(device->queues);
    free(device->place);
    free(device);
}

void nm_xdp_close(void *opaque) {
    struct nm_xdp_device *device = ((struct nm_xdp_queue *)opaque)->device;
    if (--device->open_queues == 0) destroy(device);
}

static struct nm_xdp_device *make(const struct nm_xdp_config *config, struct nm_region *region) {
    struct nm_xdp_device *device = calloc(1, sizeof(*device));
    if (!device) return NULL;
    *device = (struct nm_xdp_device){.region = region,
                                     .buffers = nm_region_buffers(region),
                                     .frame_most = config->frame_most,
                                     .generation = nm_region_generation(region),
                                     .generic = config->mode == NM_XDP_GENERIC,
                                     .map = -1,
                                     .link = -1,
                                     .host = -1,
                                     .ifindex = config->ifindex};
    strncpy(device->name, config->name, sizeof(device->name) - 1);
    uint32_t total = device->buffers.total;
    device->limit = config->buffers < total ? config->buffers : total;
    device->control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    device->place = malloc(device->limit * sizeof(*device->place));
    device->queues = calloc(config->queues, sizeof(*device->queues));
    if (device->place) memset(device->place, 0xff, device->limit * sizeof(*device->place));
    if (!device->place || !device->queues || device->control < 0) {
        destroy(device);
        return NULL;
    }
    device->num_queues = config->queues;
    for (uint32_t i = 0; i < config->queues; i++) {
        device->queues[i].device = device;
        device->queues[i].number = i;
        device->queues[i].next_user = -1;
    }
    return device;
}

int nm_xdp_open(const struct nm_xdp_config *config, struct nm_region *region, void **queues,
                struct nm_refusal *why) {
    struct nm_xdp_device *device = make(config, region);
    if (!device) return nm_refuse(why, ENOMEM, "out of memory");
    uint32_t size = ring_size(config->slots);
    int error = choose_chunk(device, why);
    if (!error) error = attach(device, config, why);
    if (!error) error = register_memory(device, size, why);
    if (!error) error = open_sockets(device, config, size, why);
    if (!error) error = open_host(device, why);
    if (error) {
        destroy(device);
        return error;
    }
    device->open_queues = config->queues;
    for (uint32_t i = 0; i < config->queues; i++)
        queues[i] = &device->queues[i];
    return 0;
}
