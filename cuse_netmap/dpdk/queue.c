/* SPDX-License-Identifier: BSD-2-Clause */
/* Bursts of frames to and from a DPDK queue. Long frames are sent from where they are, as external
 * buffers of mbufs; short ones are cheaper to copy. */
#include "dpdk/queue.h"

#include <errno.h>
#include <rte_ethdev.h>
#include <rte_memcpy.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "barrier.h"
#include "dpdk/eal.h"
#include "dpdk/poller.h"

#define ETHERNET_HEADER 14

/* ---- sending ----------------------------------------------------------------------------------
 */

/* Called by whoever frees the mbuf, on any thread. */
static void land(void *data, void *opaque) {
    (void)data;
    struct nm_flight *flight = opaque;
    store_release(&flight->landed, true);
}

static bool in_memory(const struct nm_dpdk_queue *queue, const struct nm_frame *frame) {
    const struct nm_dpdk_memory *memory = queue->memory;
    return frame->data >= memory->base && frame->data < memory->base + memory->length;
}

static bool may_point(const struct nm_dpdk_queue *queue, const struct nm_frame *frame) {
    return frame->len >= queue->copy_below && in_memory(queue, frame);
}

static uint32_t free_flights(const struct nm_dpdk_queue *queue) {
    return queue->num_flights - (queue->starting - queue->landing);
}

/* Sent from where it is; the device and we are in one address space (nm_dpdk_set_memory). */
static void point(struct nm_dpdk_queue *queue, struct rte_mbuf *mbuf, const struct nm_frame *frame,
                  uint64_t number) {
    struct nm_flight *flight = &queue->flights[queue->starting++ & (queue->num_flights - 1)];
    flight->number = number;
    flight->landed = false;
    flight->shared.free_cb = land;
    flight->shared.fcb_opaque = flight;
    rte_mbuf_ext_refcnt_set(&flight->shared, 1);
    rte_pktmbuf_attach_extbuf(mbuf, frame->data, (rte_iova_t)(uintptr_t)frame->data, frame->len,
                              &flight->shared);
    mbuf->data_len = frame->len;
}

static void copy(struct rte_mbuf *mbuf, const struct nm_frame *frame) {
    rte_memcpy(rte_pktmbuf_mtod_offset(mbuf, char *, mbuf->data_len), frame->data, frame->len);
    mbuf->data_len = (uint16_t)(mbuf->data_len + frame->len);
}

/* How many frames the packet has, and its bytes. */
static uint32_t measure(const struct nm_frame *frames, uint32_t *length) {
    uint32_t count = 0;
    *length = 0;
    do {
        *length += frames[count].len;
    } while (frames[count++].more);
    return count;
}

/* A burst under way: the mbufs that are there for it, from which the packets are made. */
struct burst {
    struct rte_mbuf *spare[NM_DPDK_BURST], *packets[NM_DPDK_BURST];
    uint32_t frames[NM_DPDK_BURST], bytes[NM_DPDK_BURST]; /* of each packet */
    uint32_t flights[NM_DPDK_BURST];                      /* `starting` before it */
    uint32_t spares, used, count;
};

/* The packet as mbufs: one for each frame, or one for all where they are short or the device takes
 * no chains. NULL: there are too few mbufs or flights left. */
static struct rte_mbuf *compose(struct nm_dpdk_queue *queue, struct burst *burst,
                                const struct nm_frame *frames, uint32_t count, uint32_t length) {
    bool together = length <= queue->room && (!queue->chains || length < queue->copy_below);
    if (burst->used + (together ? 1 : count) > burst->spares) return NULL;
    if (length > queue->room && free_flights(queue) < count) return NULL;
    struct rte_mbuf *head = NULL, *last = NULL;
    uint16_t segments = 0;
    for (uint32_t i = 0; i < count; i++) {
        const struct nm_frame *frame = &frames[i];
        if (!frame->len) continue;
        if (!last || !together) {
            struct rte_mbuf *mbuf = burst->spare[burst->used++];
            rte_pktmbuf_reset(mbuf);
            if (last) last->next = mbuf;
            if (!head) head = mbuf;
            last = mbuf;
            segments++;
        }
        if (!together && may_point(queue, frame) && free_flights(queue))
            point(queue, last, frame, queue->taken + i);
        else
            copy(last, frame);
    }
    head->pkt_len = length;
    head->nb_segs = segments;
    return head;
}

/* Why a packet cannot be sent at all; NM_DROPS: it can. */
static enum nm_drop unfit(const struct nm_dpdk_queue *queue, const struct nm_frame *frames,
                          uint32_t count, uint32_t length) {
    if (length < ETHERNET_HEADER) return NM_DROP_SHORT;
    if (length > READ_ONCE(queue->longest) || count > NM_DPDK_BURST) return NM_DROP_LONG;
    if (length <= queue->room) return NM_DROPS;
    if (count > 1 && !queue->chains) return NM_DROP_LONG;
    for (uint32_t i = 0; i < count; i++)
        if (frames[i].len > queue->room && !may_point(queue, &frames[i])) return NM_DROP_LONG;
    return NM_DROPS;
}

/* Packets up to the first that is unfit or does not fit in the burst; how many frames. */
static uint32_t load(struct nm_dpdk_queue *queue, struct burst *burst,
                     const struct nm_frame *frames, uint32_t count) {
    uint32_t done = 0;
    burst->used = burst->count = 0;
    while (done < count && burst->count < NM_DPDK_BURST) {
        uint32_t length, n = measure(frames + done, &length), before = queue->starting;
        if (unfit(queue, frames + done, n, length) != NM_DROPS) break;
        struct rte_mbuf *packet = compose(queue, burst, frames + done, n, length);
        if (!packet) break;
        burst->packets[burst->count] = packet;
        burst->frames[burst->count] = n;
        burst->bytes[burst->count] = length;
        burst->flights[burst->count++] = before;
        queue->taken += n;
        done += n;
    }
    return done;
}

/* Gives the mbufs back of what the device did not take. */
static void unload(struct nm_dpdk_queue *queue, struct burst *burst, uint32_t sent) {
    for (uint32_t i = sent; i < burst->count; i++)
        queue->taken -= burst->frames[i];
    if (sent < burst->count) {
        rte_pktmbuf_free_bulk(burst->packets + sent, burst->count - sent);
        queue->starting = burst->flights[sent];
    }
    if (burst->used < burst->spares)
        rte_mempool_put_bulk(queue->pool, (void **)(burst->spare + burst->used),
                             burst->spares - burst->used);
}

/* Frames that are whole packets and short, as most are: the same in fewer steps. How many, up to
 * the first that is not so, and their bytes. */
static uint32_t load_short(const struct nm_dpdk_queue *queue, struct burst *burst,
                           const struct nm_frame *frames, uint32_t *bytes) {
    uint32_t limit = RTE_MIN(READ_ONCE(queue->longest), queue->room) + 1, i = 0;
    if (limit > queue->copy_below) limit = queue->copy_below;
    *bytes = 0;
    for (; i < burst->spares; i++) {
        const struct nm_frame *frame = &frames[i];
        struct rte_mbuf *mbuf = burst->spare[i];
        if (frame->more || frame->len < ETHERNET_HEADER || frame->len >= limit) break;
        /* Of an mbuf that has been free the rest is as it must be. */
        mbuf->data_off = RTE_PKTMBUF_HEADROOM;
        mbuf->port = RTE_MBUF_PORT_INVALID;
        mbuf->ol_flags = 0;
        mbuf->pkt_len = mbuf->data_len = frame->len;
        rte_memcpy(rte_pktmbuf_mtod(mbuf, char *), frame->data, frame->len);
        *bytes += frame->len;
    }
    return i;
}

/* Sends such frames as there are at the start; how many. `*full`: the device took less. */
static uint32_t send_short(struct nm_dpdk_queue *queue, struct burst *burst,
                           const struct nm_frame *frames, struct nm_ring_stats *stats, bool *full) {
    uint32_t bytes, count = load_short(queue, burst, frames, &bytes);
    if (!count) return 0;
    uint32_t sent = rte_eth_tx_burst(queue->number, queue->index, burst->spare, (uint16_t)count);
    if (sent < burst->spares)
        rte_mempool_put_bulk(queue->pool, (void **)(burst->spare + sent), burst->spares - sent);
    for (uint32_t i = sent; i < count; i++)
        bytes -= frames[i].len;
    stats->bytes += bytes;
    stats->packets += sent;
    queue->taken += sent;
    *full = sent < count;
    return sent;
}

/* Sends packets from the start; how many frames. */
static uint32_t send_any(struct nm_dpdk_queue *queue, struct burst *burst,
                         const struct nm_frame *frames, uint32_t count, struct nm_ring_stats *stats,
                         bool *full) {
    load(queue, burst, frames, count);
    uint32_t done = 0, sent = rte_eth_tx_burst(queue->number, queue->index, burst->packets,
                                               (uint16_t)burst->count);
    unload(queue, burst, sent);
    for (uint32_t i = 0; i < sent; i++) {
        stats->bytes += burst->bytes[i];
        done += burst->frames[i];
    }
    stats->packets += sent;
    *full = sent < burst->count || !burst->count;
    return done;
}

static int dpdk_tx(void *arg, const struct nm_frame *frames, uint32_t count,
                   struct nm_ring_stats *stats) {
    struct nm_dpdk_queue *queue = arg;
    struct burst burst;
    uint32_t done = 0;
    bool full = false;
    nm_eal_enter();
    while (done < count && !full) {
        const struct nm_frame *next = frames + done;
        uint32_t length, n = measure(next, &length);
        enum nm_drop drop = unfit(queue, next, n, length);
        if (drop != NM_DROPS) {
            stats->drops[drop]++;
            queue->taken += n;
            done += n;
            continue;
        }
        burst.spares = RTE_MIN(count - done, (uint32_t)NM_DPDK_BURST);
        if (rte_mempool_get_bulk(queue->pool, (void **)burst.spare, burst.spares)) break;
        n = send_short(queue, &burst, next, stats, &full);
        done += n ? n : full ? 0 : send_any(queue, &burst, next, count - done, stats, &full);
    }
    if (done) WRITE_ONCE(queue->pause[NM_TX], 0);
    return (int)done;
}

/* How many of the latest frames are not back: flights land in any order, frames in theirs. */
static uint32_t in_flight(struct nm_dpdk_queue *queue) {
    for (; queue->landing != queue->starting; queue->landing++) {
        struct nm_flight *oldest = &queue->flights[queue->landing & (queue->num_flights - 1)];
        if (!load_acquire(&oldest->landed)) return (uint32_t)(queue->taken - oldest->number);
    }
    return 0;
}

uint32_t nm_dpdk_in_flight(struct nm_dpdk_queue *queue) {
    if (in_flight(queue)) /* where the device can, it looks */
        rte_eth_tx_done_cleanup(queue->number, queue->index, 0);
    return in_flight(queue);
}

static int dpdk_in_flight(void *queue) { return (int)nm_dpdk_in_flight(queue); }

/* ---- receiving --------------------------------------------------------------------------------
 */

/* With the lock: whether there is a packet. */
static bool look(struct nm_dpdk_queue *queue) {
    if (queue->next < queue->end) return true;
    queue->next = 0;
    queue->end = rte_eth_rx_burst(queue->number, queue->index, queue->waiting, NM_DPDK_BURST);
    return queue->end > 0;
}

bool nm_dpdk_look(struct nm_dpdk_queue *queue) {
    /* Whoever has the lock looks just now. */
    if (pthread_mutex_trylock(&queue->lock)) return false;
    bool found = look(queue);
    pthread_mutex_unlock(&queue->lock);
    return found;
}

/* Copies a packet into at most `most` frames; how many it took, 0: it does not fit. */
static uint32_t fill(const struct rte_mbuf *packet, struct nm_frame *frames, uint32_t most) {
    uint32_t length = packet->pkt_len, room = 0, used = 0, from = 0;
    for (uint32_t i = 0; i < most && room < length; i++)
        room += frames[i].len;
    if (room < length || !length) return 0;
    while (from < length) {
        struct nm_frame *frame = &frames[used++];
        uint32_t size = frame->len < length - from ? frame->len : length - from;
        /* Where it lies in one piece it has not been copied. */
        const char *data = rte_pktmbuf_read(packet, from, size, frame->data);
        if (!data) return 0;
        if (data != frame->data) memcpy(frame->data, data, size);
        from += size;
        frame->len = (uint16_t)size;
        frame->more = from < length;
    }
    return used;
}

static int dpdk_rx(void *arg, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
                   struct nm_ring_stats *stats) {
    struct nm_dpdk_queue *queue = arg;
    struct rte_mbuf *spent[NM_DPDK_BURST];
    uint32_t done = 0, dropped = 0, count_spent = 0; /* a flood must not hold the sync for ever */
    nm_eal_enter();
    pthread_mutex_lock(&queue->lock);
    while (count - done >= per_packet && dropped < count && look(queue)) {
        struct rte_mbuf *packet = queue->waiting[queue->next++];
        uint32_t used = fill(packet, frames + done, per_packet);
        if (used) {
            stats->packets++;
            stats->bytes += packet->pkt_len;
        } else {
            stats->drops[NM_DROP_LONG]++;
            dropped++;
        }
        done += used;
        spent[count_spent++] = packet;
        if (count_spent == NM_DPDK_BURST) {
            rte_pktmbuf_free_bulk(spent, count_spent);
            count_spent = 0;
        }
    }
    if (done) WRITE_ONCE(queue->pause[NM_RX], 0);
    pthread_mutex_unlock(&queue->lock);
    if (count_spent) rte_pktmbuf_free_bulk(spent, count_spent);
    return (int)done;
}

/* What has come before is nobody's; a device that fills faster is not emptied for ever. */
static int dpdk_start(void *arg, struct nm_ring_stats *stats) {
    struct nm_dpdk_queue *queue = arg;
    pthread_mutex_lock(&queue->lock);
    for (uint32_t round = 0; round < 1024 && look(queue); round++) {
        uint32_t stale = queue->end - queue->next;
        stats->drops[NM_DROP_STALE] += stale;
        rte_pktmbuf_free_bulk(queue->waiting + queue->next, stale);
        queue->next = queue->end;
    }
    pthread_mutex_unlock(&queue->lock);
    return 0;
}

static void dpdk_stop(void *queue) { (void)queue; }

/* ---- life -------------------------------------------------------------------------------------
 */

static int dpdk_listen(void *queue, nm_watch_call *call, void *arg) {
    return nm_poller_add(queue, call, arg);
}

static void dpdk_arm(void *queue, uint32_t events) { nm_poller_arm(queue, events); }

static void stop_device(void *queue) { rte_eth_dev_stop(((struct nm_dpdk_queue *)queue)->number); }

/* Its memory is the port's. */
static void dpdk_close(void *arg) {
    struct nm_dpdk_queue *queue = arg;
    nm_poller_remove(queue);
    if (--*queue->open == 0) nm_eal_in_turn(queue->number, stop_device, queue);
}

int nm_dpdk_queue_init(struct nm_dpdk_queue *queue, uint32_t descriptors) {
    pthread_mutex_init(&queue->lock, NULL);
    queue->num_flights = rte_align32pow2(2 * descriptors);
    queue->flights = calloc(queue->num_flights, sizeof(queue->flights[0]));
    return queue->flights ? 0 : -ENOMEM;
}

void nm_dpdk_queue_fini(struct nm_dpdk_queue *queue) {
    if (!queue->flights) return;
    if (queue->next < queue->end)
        rte_pktmbuf_free_bulk(queue->waiting + queue->next, queue->end - queue->next);
    /* A device that vanished with frames in it never says so; whoever still has one writes there.
     */
    if (!in_flight(queue)) free(queue->flights);
    pthread_mutex_destroy(&queue->lock);
}

static const struct nm_backend_ops operations = {.abi = NM_BACKEND_ABI,
                                                 .name = "dpdk",
                                                 .tx = dpdk_tx,
                                                 .in_flight = dpdk_in_flight,
                                                 .rx = dpdk_rx,
                                                 .listen = dpdk_listen,
                                                 .arm = dpdk_arm,
                                                 .start = dpdk_start,
                                                 .stop = dpdk_stop,
                                                 .close = dpdk_close};

const struct nm_backend_ops *nm_dpdk_backend(void) { return &operations; }
