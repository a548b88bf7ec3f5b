/* SPDX-License-Identifier: BSD-2-Clause */
/* AF_XDP's data path. A TX slot's buffer becomes a descriptor and is in flight until the kernel
 * completes it; a buffer with a received frame changes places with the RX slot's own, which is to
 * be received into next. What the kernel says of buffers is checked like what a program says. */
#include "backends/xdp.h"

#include <errno.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "backends/bpf.h"
#include "backends/xdp_queue.h"
#include "barrier.h"

#define ETHERNET 14
#define LOOK_MS 100 /* between two looks at the kernel's counters */
#define SETTLE_MS 10
#define CONTINUES 1 /* XDP_PKT_CONTD, which the headers of Linux 6.1 do not have */

/* ---- sending ---------------------------------------------------------------------------------
 */

static struct nm_xdp_flight *flight(const struct nm_xdp_queue *queue, uint32_t place) {
    return &queue->flights[place & queue->tx.mask];
}

static void completed(struct nm_xdp_queue *queue, uint64_t address) {
    struct nm_xdp_device *device = queue->device;
    uint64_t buffer = address / device->buffers.size;
    if (buffer >= device->limit) return;
    uint32_t place = device->place[buffer];
    if (place == NM_XDP_SPARE_AWAY) {
        device->place[buffer] = NM_XDP_SPARE;
        queue->spares[queue->num_spares++] = (uint32_t)buffer;
    } else if (place <= queue->tx.mask && queue->flights[place].buffer == buffer) {
        device->place[buffer] = NM_XDP_NOWHERE;
        queue->flights[place].done = true;
    } else {
        return;
    }
    queue->away--;
}

/* What the kernel has done with goes back. */
static void reap(struct nm_xdp_queue *queue) {
    uint32_t first = 0, count = xsk_ring_cons__peek(&queue->comp, queue->comp.size, &first);
    for (uint32_t i = 0; i < count; i++)
        completed(queue, READ_ONCE(*xsk_ring_cons__comp_addr(&queue->comp, first + i)));
    if (count) xsk_ring_cons__release(&queue->comp, count);
    for (; queue->oldest != queue->next && flight(queue, queue->oldest)->done; queue->oldest++) {
        struct nm_xdp_flight *oldest = flight(queue, queue->oldest);
        if (oldest->buffer) nm_buffer_give(&queue->device->buffers, oldest->buffer);
        *oldest = (struct nm_xdp_flight){0};
    }
}

/* Descriptors that the kernel has not looked at. */
static uint32_t unsent(const struct nm_xdp_queue *queue) {
    return *queue->tx.producer - load_acquire(queue->tx.consumer);
}

/* Has the kernel send what there is. In copy mode it does so in the call, a limited number a time.
 * -EIO once the device is gone. */
static int kick(struct nm_xdp_queue *queue) {
    uint32_t left;
    bool zero_copy = queue->device->zero_copy;
    while ((left = unsent(queue)) && !(zero_copy && !xsk_ring_prod__needs_wakeup(&queue->tx))) {
        int fd = xsk_socket__fd(queue->socket);
        int error = sendto(fd, NULL, 0, MSG_DONTWAIT, NULL, 0) < 0 ? errno : 0;
        if (error == ENXIO || error == ENODEV) return -EIO;
        if (error == ENETDOWN || error == ENOBUFS) return 0;
        if (zero_copy || unsent(queue) == left) return 0;
    }
    return 0;
}

static bool is_up(struct nm_xdp_device *device) {
    struct ifreq request;
    memcpy(request.ifr_name, device->name, sizeof(request.ifr_name));
    if (ioctl(device->control, SIOCGIFFLAGS, &request)) {
        request.ifr_ifindex = (int)device->ifindex; /* it has another name by now */
        if (ioctl(device->control, SIOCGIFNAME, &request)) return true;
        memcpy(device->name, request.ifr_name, sizeof(device->name));
        if (ioctl(device->control, SIOCGIFFLAGS, &request)) return true;
    }
    return (request.ifr_flags & (IFF_UP | IFF_RUNNING)) == (IFF_UP | IFF_RUNNING);
}

static void describe(struct nm_xdp_queue *queue, uint64_t address, uint32_t len) {
    uint32_t slot = 0;
    xsk_ring_prod__reserve(&queue->tx, 1, &slot);
    *xsk_ring_prod__tx_desc(&queue->tx, slot) = (struct xdp_desc){.addr = address, .len = len};
    queue->away++;
}

/* Whether the frame goes out from where it is. */
static bool send_buffer(struct nm_xdp_queue *queue, const struct nm_frame *frame,
                        struct nm_xdp_flight *taken) {
    struct nm_xdp_device *device = queue->device;
    if (!frame->buffer || frame->buffer >= device->limit ||
        !nm_buffer_take(&device->buffers, frame->buffer, NM_BUFFER_IN_FLIGHT))
        return false;
    device->place[frame->buffer] = queue->next & queue->tx.mask;
    *taken = (struct nm_xdp_flight){.buffer = frame->buffer};
    describe(queue, (uint64_t)(frame->data - device->buffers.base), frame->len);
    return true;
}

/* Buffers that the kernel cannot reach, that are on their way already, or that are several. */
static bool send_copy(struct nm_xdp_queue *queue, const struct nm_frame *frames, uint32_t count,
                      uint32_t len) {
    if (!queue->num_spares) return false;
    struct nm_xdp_device *device = queue->device;
    uint32_t buffer = queue->spares[--queue->num_spares];
    char *to = device->buffers.base + nm_xdp_address(device, buffer);
    for (uint32_t i = 0; i < count; i++) {
        memcpy(to, frames[i].data, frames[i].len);
        to += frames[i].len;
    }
    device->place[buffer] = NM_XDP_SPARE_AWAY;
    describe(queue, nm_xdp_address(device, buffer), len);
    return true;
}

static enum nm_drop why_not(const struct nm_xdp_device *device, uint32_t len, bool up) {
    if (len < ETHERNET) return NM_DROP_SHORT;
    uint32_t room = device->chunk - NM_XDP_HEADROOM;
    if (len > READ_ONCE(device->frame_most) || len > room) return NM_DROP_LONG;
    return up ? NM_DROPS : NM_DROP_DOWN;
}

/* Takes a packet of `count` frames, a place for each; false if there is no room for it yet. */
static bool take(struct nm_xdp_queue *queue, const struct nm_frame *frames, uint32_t count, bool up,
                 struct nm_ring_stats *stats) {
    uint32_t len = 0;
    for (uint32_t i = 0; i < count; i++)
        len += frames[i].len;
    uint32_t places = queue->tx.size - (queue->next - queue->oldest);
    if (places < count || queue->away >= queue->comp.size || !xsk_prod_nb_free(&queue->tx, 1))
        return false;
    enum nm_drop drop = why_not(queue->device, len, up);
    if (drop != NM_DROPS) {
        stats->drops[drop]++;
    } else {
        struct nm_xdp_flight *first = flight(queue, queue->next);
        if (!(count == 1 && send_buffer(queue, frames, first)) &&
            !send_copy(queue, frames, count, len))
            return false;
        stats->packets++;
        stats->bytes += len;
    }
    for (uint32_t i = 0; i < count; i++, queue->next++) {
        struct nm_xdp_flight *taken = flight(queue, queue->next);
        taken->done = !taken->buffer;
    }
    return true;
}

static int xdp_tx(void *opaque, const struct nm_frame *frames, uint32_t count,
                  struct nm_ring_stats *stats) {
    struct nm_xdp_queue *queue = opaque;
    bool up = is_up(queue->device);
    uint32_t done = 0, before = queue->tx.cached_prod;
    reap(queue);
    while (done < count) {
        uint32_t frames_of_packet = 1;
        while (frames[done + frames_of_packet - 1].more)
            frames_of_packet++;
        if (!take(queue, frames + done, frames_of_packet, up, stats)) break;
        done += frames_of_packet;
    }
    uint32_t described = queue->tx.cached_prod - before;
    if (described) xsk_ring_prod__submit(&queue->tx, described);
    int error = kick(queue);
    return error ? error : (int)done;
}

static uint32_t xdp_held(void *opaque) {
    struct nm_xdp_queue *queue = opaque;
    if (queue->away) kick(queue);
    reap(queue);
    return queue->next - queue->oldest;
}

/* Frames that take the ordinary way out turn round there (steer.h). In generic mode XDP would have
 * them again. */
static int xdp_to_host(void *opaque, const struct nm_frame *frames, uint32_t count,
                       struct nm_ring_stats *stats) {
    const struct nm_xdp_device *device = ((struct nm_xdp_queue *)opaque)->device;
    struct iovec parts[NETMAP_MAX_FRAGS];
    uint32_t done = 0;
    while (done < count) {
        uint32_t n = 0;
        do {
            const struct nm_frame *frame = &frames[done + n];
            parts[n] = (struct iovec){frame->data, frame->len};
        } while (frames[done + n++].more && n < NETMAP_MAX_FRAGS);
        const struct msghdr message = {.msg_iov = parts, .msg_iovlen = n};
        if (device->generic) {
            stats->drops[NM_DROP_NOWHERE]++;
        } else if (sendmsg(device->host, &message, MSG_DONTWAIT) < 0) {
            if (errno == EAGAIN || errno == ENOBUFS) break;
            stats->drops[errno == EINVAL     ? NM_DROP_SHORT
                         : errno == EMSGSIZE ? NM_DROP_LONG
                                             : NM_DROP_ERROR]++;
        }
        done += n;
    }
    return (int)done;
}

static uint64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A device that does not let go of a buffer keeps it: it becomes one to copy into. */
static void xdp_settle(void *opaque) {
    struct nm_xdp_queue *queue = opaque;
    while (queue->num_spares > NM_XDP_SPARES) /* that were kept at another time */
        nm_xdp_return(queue->device, queue->spares[--queue->num_spares]);
    uint64_t deadline = now_ms() + SETTLE_MS;
    while (xdp_held(queue) > 0 && now_ms() < deadline)
        usleep(1000);
    for (; queue->oldest != queue->next; queue->oldest++) {
        struct nm_xdp_flight *oldest = flight(queue, queue->oldest);
        if (oldest->buffer && oldest->done) nm_buffer_give(&queue->device->buffers, oldest->buffer);
        if (oldest->buffer && !oldest->done) {
            nm_region_keep(queue->device->region, oldest->buffer);
            queue->device->place[oldest->buffer] = NM_XDP_SPARE_AWAY;
        }
        *oldest = (struct nm_xdp_flight){0};
    }
}

/* ---- receiving -------------------------------------------------------------------------------
 */

/* A frame as the kernel describes it, if that can be true. */
struct received {
    uint32_t buffer; /* one that was there to be filled; 0: it was not */
    uint32_t len;    /* bytes */
    char *data;      /* NULL: not all of the packet is there */
};

static struct received look(const struct nm_xdp_queue *queue, const struct xdp_desc *descriptor) {
    const struct nm_xdp_device *device = queue->device;
    uint64_t address = READ_ONCE(descriptor->addr);
    uint32_t len = READ_ONCE(descriptor->len), options = READ_ONCE(descriptor->options);
    uint64_t chunk = xsk_umem__extract_addr(address), offset = xsk_umem__extract_offset(address);
    uint64_t buffer = (chunk + NM_XDP_HEADROOM) / device->buffers.size;
    if ((chunk + NM_XDP_HEADROOM) % device->buffers.size || buffer < NETMAP_BUF_FIRST ||
        buffer >= device->limit || device->place[buffer] != NM_XDP_FILLING)
        return (struct received){0};
    struct received received = {.buffer = (uint32_t)buffer, .len = len};
    if (offset + len <= device->chunk && !(options & CONTINUES))
        received.data = device->buffers.base + chunk + offset;
    return received;
}

/* Puts a frame into a slot's; false if it does not fit. *spare is what can be filled next. */
static bool deliver(struct nm_xdp_queue *queue, const struct received *received,
                    struct nm_frame *frame, uint32_t *spare) {
    struct nm_xdp_device *device = queue->device;
    *spare = received->buffer;
    if (!received->data || received->len > frame->len) return false;
    char *start = device->buffers.base + nm_xdp_address(device, received->buffer);
    frame->len = (uint16_t)received->len;
    if (received->data == start && nm_xdp_fillable(device, frame->buffer) &&
        nm_buffer_take(&device->buffers, frame->buffer, NM_BUFFER_LENT)) {
        *spare = frame->buffer;
        device->place[*spare] = NM_XDP_FILLING;
        device->place[received->buffer] = NM_XDP_NOWHERE;
        frame->buffer = received->buffer;
        frame->swapped = true;
        nm_buffer_give(&device->buffers, received->buffer);
    } else {
        memmove(frame->data, received->data, received->len);
    }
    return true;
}

/* Takes up to `count` frames off the ring, or all of a batch if there is nowhere to put them. */
static uint32_t receive(struct nm_xdp_queue *queue, struct nm_frame *frames, uint32_t count,
                        struct nm_ring_stats *stats, enum nm_drop drop) {
    uint32_t first = 0, slot = 0, done = 0, filled = 0;
    count = xsk_ring_cons__peek(&queue->rx, count, &first);
    uint32_t reserved = count ? xsk_ring_prod__reserve(&queue->fill, count, &slot) : 0;
    for (uint32_t i = 0; i < count; i++) {
        struct received received = look(queue, xsk_ring_cons__rx_desc(&queue->rx, first + i));
        if (!received.buffer) {
            stats->drops[NM_DROP_ERROR]++;
            continue;
        }
        uint32_t spare = received.buffer;
        if (frames && deliver(queue, &received, &frames[done], &spare)) {
            stats->packets++;
            stats->bytes += frames[done++].len;
        } else {
            stats->drops[drop]++;
        }
        if (reserved) nm_xdp_fill(queue, slot + filled++, spare);
    }
    if (count) xsk_ring_cons__release(&queue->rx, count);
    if (filled) xsk_ring_prod__submit(&queue->fill, filled);
    queue->fill.cached_prod -=
        reserved - filled; /* what the kernel has invented gives nothing back */
    if (filled && xsk_ring_prod__needs_wakeup(&queue->fill))
        recvfrom(xsk_socket__fd(queue->socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
    return done;
}

/* The kernel counts what it had no room for. */
static void count_lost(struct nm_xdp_queue *queue, bool at_once) {
    uint64_t now = now_ms();
    if (!at_once && now - queue->looked < LOOK_MS) return;
    queue->looked = now;
    struct xdp_statistics found, seen = queue->seen;
    socklen_t size = sizeof(found);
    int fd = xsk_socket__fd(queue->socket);
    if (!queue->stats || getsockopt(fd, SOL_XDP, XDP_STATISTICS, &found, &size)) return;
    uint64_t unfilled = found.rx_fill_ring_empty_descs - seen.rx_fill_ring_empty_descs;
    uint64_t lost = found.rx_dropped - seen.rx_dropped; /* among them the unfilled */
    queue->stats->drops[NM_DROP_FULL] += unfilled + found.rx_ring_full - seen.rx_ring_full;
    queue->stats->drops[NM_DROP_LONG] += lost > unfilled ? lost - unfilled : 0;
    queue->seen = found;
}

static int xdp_rx(void *opaque, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
                  struct nm_ring_stats *stats) {
    (void)per_packet; /* the kernel drops what is longer than a buffer */
    struct nm_xdp_queue *queue = opaque;
    uint32_t done = receive(queue, frames, count, stats, NM_DROP_LONG);
    if (!done) count_lost(queue, false);
    return (int)done;
}

static int set_receiver(const struct nm_xdp_queue *queue, bool on) {
    uint32_t key = queue->number;
    int fd = xsk_socket__fd(queue->socket);
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.map_fd = (uint32_t)queue->device->map;
    attr.key = (uintptr_t)&key;
    if (on) attr.value = (uintptr_t)&fd;
    return nm_bpf(on ? BPF_MAP_UPDATE_ELEM : BPF_MAP_DELETE_ELEM, &attr);
}

static int xdp_start(void *opaque, struct nm_ring_stats *stats) {
    struct nm_xdp_queue *queue = opaque;
    receive(queue, NULL, queue->rx.size, stats, NM_DROP_STALE);
    queue->stats = stats;
    return set_receiver(queue, true);
}

static void xdp_stop(void *opaque) {
    set_receiver(opaque, false);
    count_lost(opaque, true);
}

/* ---- events ----------------------------------------------------------------------------------
 */

static int xdp_event_fd(void *opaque) {
    return xsk_socket__fd(((struct nm_xdp_queue *)opaque)->socket);
}

static bool xdp_gone(void *opaque) {
    const struct nm_xdp_device *device = ((struct nm_xdp_queue *)opaque)->device;
    struct ifreq request = {.ifr_ifindex = (int)device->ifindex};
    return ioctl(device->control, SIOCGIFNAME, &request) != 0;
}

bool nm_xdp_zero_copy(const void *queue) {
    return ((const struct nm_xdp_queue *)queue)->device->zero_copy;
}

void nm_xdp_set_frame_most(void *queue, uint32_t bytes) {
    WRITE_ONCE(((struct nm_xdp_queue *)queue)->device->frame_most, bytes);
}

static const struct nm_backend_ops operations = {.abi = NM_BACKEND_ABI,
                                                 .name = "xdp",
                                                 .tx = xdp_tx,
                                                 .to_host = xdp_to_host,
                                                 .rx = xdp_rx,
                                                 .event_fd = xdp_event_fd,
                                                 .gone = xdp_gone,
                                                 .start = xdp_start,
                                                 .stop = xdp_stop,
                                                 .close = nm_xdp_close,
                                                 .lend = nm_xdp_lend,
                                                 .held = xdp_held,
                                                 .settle = xdp_settle};

const struct nm_backend_ops *nm_xdp_backend(void) { return &operations; }
