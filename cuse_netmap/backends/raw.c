/* SPDX-License-Identifier: BSD-2-Clause */
/* AF_PACKET: what arrives is read from a ring that the kernel fills (TPACKET_V2), what is sent goes
 * past the queueing discipline, many frames to a system call. */
#include "backends/raw.h"

#include <endian.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backends/steer.h"
#include "barrier.h"

#define BATCH 256
#define BLOCK (1u << 18)     /* bytes the kernel allocates at a time */
#define GIANTS (4 << 20)     /* bytes of frames too long for the ring that may wait */
#define GIANT_MOST (1 << 18) /* bytes of one: more than any driver makes up */
#define TX_BUFFER (4 << 20)  /* bytes on their way out */
#define LINE 64
#define FRAME_OVERHEAD 128 /* of what the kernel puts before a frame */
#define VNET_HEADER sizeof(struct virtio_net_hdr)
#define VLAN_TAG 4
#define ADDRESSES (2 * ETH_ALEN)

/* A packet in the ring, as the kernel has described it and as far as that can be true. */
struct packet {
    struct virtio_net_hdr header;
    char *data;
    uint32_t len;
    bool cut; /* not all of it is there */
    bool tagged;
    uint8_t tag[VLAN_TAG];
};

/* What one call gives to the kernel. */
struct batch {
    struct mmsghdr messages[BATCH];
    struct iovec parts[BATCH];
};

struct raw_queue {
    struct nm_raw_config config;
    int rx, tx, host; /* sockets */
    bool held_up;     /* the device took no more: `tx` is not writable until it has got on */
    char *ring;       /* blocks of frames */
    size_t ring_size, block_size, frame_size;
    uint32_t num_frames, frames_per_block;
    uint32_t next; /* frame of the ring */
    bool losing;   /* the kernel says that it found the ring full, and has not said how often */
    struct packet packet;          /* there */
    char *giant;                   /* room for a frame that is too long for the ring */
    ssize_t giant_size;            /* of the one that is there; 0: not read yet; -1: it is lost */
    struct batch to_wire, to_host; /* syncs of a TX and of an RX ring may send at once */
};

static bool set(int fd, int level, int option, int value) {
    return !setsockopt(fd, level, option, &value, sizeof(value));
}

/* ---- sending ---------------------------------------------------------------------------------
 */

/* Frames as messages, one to a packet; how many messages. */
static uint32_t compose(struct batch *batch, const struct nm_frame *frames, uint32_t count,
                        uint32_t *used) {
    uint32_t messages = 0, i = 0;
    while (i < count && i < BATCH) {
        uint32_t first = i;
        do {
            batch->parts[i] = (struct iovec){frames[i].data, frames[i].len};
        } while (frames[i++].more && i < BATCH);
        if (frames[i - 1].more) { /* the batch is full in the middle of a packet */
            i = first;
            break;
        }
        batch->messages[messages++].msg_hdr =
            (struct msghdr){.msg_iov = &batch->parts[first], .msg_iovlen = i - first};
    }
    *used = i;
    return messages;
}

static size_t length_of(const struct mmsghdr *message) {
    size_t length = 0;
    for (size_t i = 0; i < message->msg_hdr.msg_iovlen; i++)
        length += message->msg_hdr.msg_iov[i].iov_len;
    return length;
}

static bool has_carrier(const struct raw_queue *raw) {
    struct ifreq request = {.ifr_ifindex = raw->config.ifindex};
    if (ioctl(raw->tx, SIOCGIFNAME, &request) || ioctl(raw->tx, SIOCGIFFLAGS, &request))
        return true;
    return request.ifr_flags & IFF_RUNNING;
}

/* A device that is full says so and no more. But what it holds is what `tx` has sent: once half of
 * that has left, let `tx` be writable, and not before. */
static void hold_up(struct raw_queue *raw) {
    int waiting;
    if (ioctl(raw->tx, SIOCOUTQ, &waiting)) return;
    set(raw->tx, SOL_SOCKET, SO_SNDBUFFORCE, waiting / 2); /* the kernel doubles it */
    raw->held_up = true;
}

static void go_on(struct raw_queue *raw) {
    if (raw->held_up) set(raw->tx, SOL_SOCKET, SO_SNDBUFFORCE, TX_BUFFER);
    raw->held_up = false;
}

/* What a refused packet means: 0 try later; -EIO the device is gone; else it is dropped. */
static int send_failed(const struct raw_queue *raw, struct nm_ring_stats *stats) {
    switch (errno) {
    case EAGAIN:
    case EINTR:
        return 0;
    case ENOBUFS: /* the device's queue is full, or leads nowhere */
        if (has_carrier(raw)) return 0;
        stats->drops[NM_DROP_DOWN]++;
        return 1;
    case ENXIO:
    case ENODEV:
        return -EIO;
    case ENETDOWN:
        stats->drops[NM_DROP_DOWN]++;
        return 1;
    case EMSGSIZE:
        stats->drops[NM_DROP_LONG]++;
        return 1;
    case EINVAL: /* no Ethernet header */
        stats->drops[NM_DROP_SHORT]++;
        return 1;
    default:
        stats->drops[NM_DROP_ERROR]++;
        return 1;
    }
}

static int send_by(const struct raw_queue *raw, int fd, struct batch *batch,
                   const struct nm_frame *frames, uint32_t count, struct nm_ring_stats *stats) {
    uint32_t done = 0;
    while (done < count) {
        uint32_t used, messages = compose(batch, frames + done, count - done, &used), first = 0;
        while (first < messages) {
            int sent = sendmmsg(fd, batch->messages + first, messages - first, MSG_DONTWAIT);
            if (sent > 0) {
                for (int i = 0; i < sent; i++, first++) {
                    stats->packets++;
                    stats->bytes += length_of(&batch->messages[first]);
                    done += (uint32_t)batch->messages[first].msg_hdr.msg_iovlen;
                }
                continue;
            }
            int verdict = send_failed(raw, stats);
            if (verdict < 0) return verdict;
            if (verdict == 0) return (int)done;
            done += (uint32_t)batch->messages[first++].msg_hdr.msg_iovlen;
        }
        if (!used) break;
    }
    return (int)done;
}

static int raw_tx(void *queue, const struct nm_frame *frames, uint32_t count,
                  struct nm_ring_stats *stats) {
    struct raw_queue *raw = queue;
    go_on(raw);
    errno = 0;
    int done = send_by(raw, raw->tx, &raw->to_wire, frames, count, stats);
    if (done >= 0 && (uint32_t)done < count && errno == ENOBUFS) hold_up(raw);
    return done;
}

static int raw_to_host(void *queue, const struct nm_frame *frames, uint32_t count,
                       struct nm_ring_stats *stats) {
    struct raw_queue *raw = queue;
    struct nm_ring_stats sent = {0};
    int done = send_by(raw, raw->host, &raw->to_host, frames, count, &sent);
    for (enum nm_drop drop = 0; drop < NM_DROPS; drop++)
        stats->drops[drop] += sent.drops[drop];
    return done;
}

/* ---- receiving -------------------------------------------------------------------------------
 */

static struct tpacket2_hdr *ring_header(const struct raw_queue *raw) {
    uint32_t block = raw->next / raw->frames_per_block, frame = raw->next % raw->frames_per_block;
    return (struct tpacket2_hdr *)(raw->ring + block * raw->block_size + frame * raw->frame_size);
}

static void release(struct raw_queue *raw) {
    store_release(&ring_header(raw)->tp_status, TP_STATUS_KERNEL);
    raw->next = raw->next + 1 == raw->num_frames ? 0 : raw->next + 1;
    raw->giant_size = 0;
}

/* The frame that the ring has only the beginning of. */
static bool read_giant(struct raw_queue *raw) {
    if (raw->giant_size) return raw->giant_size > 0;
    if (!raw->giant) raw->giant = malloc(GIANT_MOST);
    raw->giant_size =
        raw->giant ? recv(raw->rx, raw->giant, GIANT_MOST, MSG_TRUNC | MSG_DONTWAIT) : -1;
    if (raw->giant_size <= (ssize_t)VNET_HEADER || raw->giant_size > GIANT_MOST)
        raw->giant_size = -1;
    return raw->giant_size > 0;
}

/* The next packet, NULL if there is none. What the kernel says of it is checked like what a program
 * says. */
static struct packet *look(struct raw_queue *raw) {
    struct tpacket2_hdr *header = ring_header(raw);
    uint32_t status = load_acquire(&header->tp_status);
    if (!(status & TP_STATUS_USER)) return NULL;
    raw->losing |= status & TP_STATUS_LOSING;
    struct packet *packet = &raw->packet;
    size_t mac = header->tp_mac, len = header->tp_snaplen;
    *packet = (struct packet){.data = (char *)header + mac, .len = (uint32_t)len};
    packet->cut = len < header->tp_len || mac < VNET_HEADER || mac + len > raw->frame_size;
    if (packet->cut && status & TP_STATUS_COPY && read_giant(raw)) {
        packet->cut = false;
        packet->data = raw->giant + VNET_HEADER;
        packet->len = (uint32_t)(raw->giant_size - (ssize_t)VNET_HEADER);
    }
    if (packet->cut) return packet;
    memcpy(&packet->header, packet->data - VNET_HEADER, VNET_HEADER);
    packet->tagged = status & TP_STATUS_VLAN_VALID && packet->len >= ADDRESSES;
    if (packet->tagged) {
        uint16_t type = status & TP_STATUS_VLAN_TPID_VALID ? header->tp_vlan_tpid : ETH_P_8021Q;
        uint16_t tag[2] = {htobe16(type), htobe16(header->tp_vlan_tci)};
        memcpy(packet->tag, tag, sizeof(packet->tag));
    }
    return packet;
}

static bool is_unfinished(const struct packet *packet) {
    return !packet->cut && (packet->header.gso_type != VIRTIO_NET_HDR_GSO_NONE ||
                            packet->header.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
}

/* The packet as pieces, with its VLAN tag in line; how many. */
static uint32_t split(struct packet *packet, struct iovec pieces[3]) {
    if (!packet->tagged) {
        pieces[0] = (struct iovec){packet->data, packet->len};
        return 1;
    }
    pieces[0] = (struct iovec){packet->data, ADDRESSES};
    pieces[1] = (struct iovec){packet->tag, VLAN_TAG};
    pieces[2] = (struct iovec){packet->data + ADDRESSES, packet->len - ADDRESSES};
    return 3;
}

/* Copies a packet into at most `most` frames; how many it took, 0: it does not fit. */
static uint32_t fill(struct packet *packet, struct nm_frame *frames, uint32_t most) {
    struct iovec pieces[3];
    uint32_t count = split(packet, pieces), used = 0, room = 0, length = 0;
    for (uint32_t i = 0; i < count; i++)
        length += (uint32_t)pieces[i].iov_len;
    for (uint32_t i = 0; i < most && room < length; i++)
        room += frames[i].len;
    if (room < length || !length) return 0;
    uint32_t taken = 0, piece = 0;
    while (length) {
        struct nm_frame *frame = &frames[used++];
        uint32_t size = frame->len < length ? frame->len : length;
        for (uint32_t done = 0; done < size;) {
            uint32_t left = (uint32_t)pieces[piece].iov_len - taken;
            uint32_t some = left < size - done ? left : size - done;
            memcpy(frame->data + done, (char *)pieces[piece].iov_base + taken, some);
            done += some;
            taken += some;
            if (some == left) piece++, taken = 0;
        }
        frame->len = (uint16_t)size;
        length -= size;
        frame->more = length > 0;
    }
    return used;
}

static void count_lost(struct raw_queue *raw, struct nm_ring_stats *stats) {
    struct tpacket_stats lost;
    socklen_t size = sizeof(lost);
    raw->losing = false;
    if (!getsockopt(raw->rx, SOL_PACKET, PACKET_STATISTICS, &lost, &size))
        stats->drops[NM_DROP_FULL] += lost.tp_drops;
}

static int raw_rx(void *queue, struct nm_frame *frames, uint32_t count, uint32_t per_packet,
                  struct nm_ring_stats *stats) {
    struct raw_queue *raw = queue;
    struct packet *packet;
    uint32_t done = 0, dropped = 0; /* of which a flood must not hold the sync for ever */
    while (count - done >= per_packet && dropped < count && (packet = look(raw))) {
        if (is_unfinished(packet)) break;
        uint32_t used = packet->cut ? 0 : fill(packet, frames + done, per_packet);
        release(raw);
        if (!used) {
            stats->drops[NM_DROP_LONG]++;
            dropped++;
            continue;
        }
        stats->packets++;
        for (uint32_t i = 0; i < used; i++)
            stats->bytes += frames[done + i].len;
        done += used;
    }
    if (raw->losing) count_lost(raw, stats);
    return (int)done;
}

static bool raw_unfinished(void *queue, struct nm_unfinished *out) {
    struct packet *packet = look(queue);
    if (!packet || !is_unfinished(packet)) return false;
    out->header = packet->header;
    if (packet->tagged)
        out->header.csum_start = htole16(le16toh(out->header.csum_start) + VLAN_TAG);
    out->count = split(packet, out->pieces);
    return true;
}

static void raw_finished(void *queue) { release(queue); }

static int raw_event_fd(void *queue) { return ((struct raw_queue *)queue)->rx; }

static int raw_tx_event_fd(void *queue) { return ((struct raw_queue *)queue)->tx; }

/* An error is there too when the interface went down; when it is deleted its socket loses it. */
static bool raw_gone(void *queue) {
    struct raw_queue *raw = queue;
    int error;
    socklen_t size = sizeof(error);
    getsockopt(raw->rx, SOL_SOCKET, SO_ERROR, &error, &size);
    getsockopt(raw->tx, SOL_SOCKET, SO_ERROR, &error, &size);
    struct sockaddr_ll address;
    size = sizeof(address);
    return !getsockname(raw->rx, (struct sockaddr *)&address, &size) && address.sll_ifindex <= 0;
}

/* ---- life ------------------------------------------------------------------------------------
 */

static int bind_rx(const struct raw_queue *raw, uint16_t protocol) {
    struct sockaddr_ll address = {.sll_family = AF_PACKET,
                                  .sll_protocol = htobe16(protocol),
                                  .sll_ifindex = raw->config.ifindex};
    return bind(raw->rx, (struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
}

static int raw_start(void *queue, struct nm_ring_stats *stats) {
    struct raw_queue *raw = queue;
    for (uint32_t i = 0; i < raw->num_frames && look(raw); i++) {
        release(raw);
        stats->drops[NM_DROP_STALE]++;
    }
    return bind_rx(raw, ETH_P_ALL);
}

static void raw_stop(void *queue) { bind_rx(queue, 0); }

static void raw_close(void *queue) {
    struct raw_queue *raw = queue;
    if (raw->ring) munmap(raw->ring, raw->ring_size);
    if (raw->rx >= 0) close(raw->rx);
    if (raw->tx >= 0) close(raw->tx);
    if (raw->host >= 0) close(raw->host);
    free(raw->giant);
    free(raw);
}

/* As many frames as are wanted, in blocks that the kernel can find in one piece. */
static bool make_ring(struct raw_queue *raw) {
    raw->frame_size = (raw->config.frame_size + FRAME_OVERHEAD + LINE - 1) / LINE * LINE;
    raw->block_size = BLOCK;
    while (raw->block_size < raw->frame_size)
        raw->block_size *= 2;
    raw->frames_per_block = (uint32_t)(raw->block_size / raw->frame_size);
    uint32_t blocks = (raw->config.frames - 1) / raw->frames_per_block + 1;
    raw->num_frames = blocks * raw->frames_per_block;
    raw->ring_size = blocks * raw->block_size;
    struct tpacket_req request = {.tp_block_size = (uint32_t)raw->block_size,
                                  .tp_block_nr = blocks,
                                  .tp_frame_size = (uint32_t)raw->frame_size,
                                  .tp_frame_nr = raw->num_frames};
    if (setsockopt(raw->rx, SOL_PACKET, PACKET_RX_RING, &request, sizeof(request))) return false;
    void *ring = mmap(NULL, raw->ring_size, PROT_READ | PROT_WRITE, MAP_SHARED, raw->rx, 0);
    if (ring == MAP_FAILED) return false;
    raw->ring = ring;
    return true;
}

/* Each NULL, or what failed, with errno. */
static const char *open_rx(struct raw_queue *raw) {
    raw->rx = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (raw->rx < 0) return "a packet socket";
    errno =
        -nm_steer_packet_queue(raw->rx, raw->config.queue, raw->config.queues, raw->config.first);
    if (errno) return "SO_ATTACH_FILTER";
    if (!set(raw->rx, SOL_PACKET, PACKET_VERSION, TPACKET_V2)) return "PACKET_VERSION";
    if (!set(raw->rx, SOL_PACKET, PACKET_VNET_HDR, 1)) return "PACKET_VNET_HDR";
    if (!set(raw->rx, SOL_PACKET, PACKET_COPY_THRESH, 1)) return "PACKET_COPY_THRESH";
    if (!set(raw->rx, SOL_SOCKET, SO_RCVBUFFORCE, GIANTS)) return "SO_RCVBUFFORCE";
    if (!make_ring(raw)) return "PACKET_RX_RING";
    return bind_rx(raw, 0) ? "bind" : NULL;
}

static const char *open_sender(const struct raw_queue *raw, int *fd) {
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_ifindex = raw->config.ifindex};
    *fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd < 0) return "a packet socket";
    if (!set(*fd, SOL_SOCKET, SO_SNDBUFFORCE, TX_BUFFER)) return "SO_SNDBUFFORCE";
    return bind(*fd, (struct sockaddr *)&address, sizeof(address)) ? "bind" : NULL;
}

static const char *open_tx(struct raw_queue *raw) {
    const char *failed = open_sender(raw, &raw->tx);
    if (failed) return failed;
    return set(raw->tx, SOL_PACKET, PACKET_QDISC_BYPASS, 1) ? NULL : "PACKET_QDISC_BYPASS";
}

static const char *open_host(struct raw_queue *raw) {
    const char *failed = open_sender(raw, &raw->host);
    if (failed) return failed;
    errno = -nm_steer_sender(raw->host);
    return errno ? "SO_MARK" : NULL;
}

int nm_raw_queue_open(const struct nm_raw_config *config, void **out, struct nm_refusal *why) {
    struct raw_queue *raw = calloc(1, sizeof(*raw));
    if (!raw) return nm_refuse(why, ENOMEM, "out of memory");
    raw->config = *config;
    raw->rx = raw->tx = raw->host = -1;
    const char *failed = open_rx(raw);
    if (!failed) failed = open_tx(raw);
    if (!failed) failed = open_host(raw);
    if (failed) {
        int error = errno;
        raw_close(raw);
        const char *mend = error == EPERM ? ": CAP_NET_RAW and CAP_NET_ADMIN are needed" : "";
        return nm_refuse(why, error, "%s: %s%s", failed, strerror(error), mend);
    }
    *out = raw;
    return 0;
}

static const struct nm_backend_ops operations = {.abi = NM_BACKEND_ABI,
                                                 .name = "raw",
                                                 .tx = raw_tx,
                                                 .to_host = raw_to_host,
                                                 .rx = raw_rx,
                                                 .unfinished = raw_unfinished,
                                                 .finished = raw_finished,
                                                 .event_fd = raw_event_fd,
                                                 .tx_event_fd = raw_tx_event_fd,
                                                 .gone = raw_gone,
                                                 .start = raw_start,
                                                 .stop = raw_stop,
                                                 .close = raw_close};

const struct nm_backend_ops *nm_raw_backend(void) { return &operations; }
