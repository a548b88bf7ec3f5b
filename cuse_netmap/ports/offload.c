/* SPDX-License-Identifier: BSD-2-Clause */
/* virtio-net headers between ports that differ in them. A receiver with another header gets the
 * packet with its header converted or made up; for one without headers, what the header asks for is
 * done here: a checksum, or segments.
 *
 * A packet is a chain of pieces of memory, and all that is done to it is done by making another
 * chain: without the old header, with the new one, with two bytes replaced. The last chain is laid
 * into slots, which are filled up: how the sender cut its packet into slots says nothing any more.
 *
 * What is in the sender's buffers may change at any moment: whatever is decided upon is read once.
 */
#include "ports/offload.h"

#include <endian.h>
#include <linux/if_ether.h>
#include <linux/virtio_net.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/random.h>

#include "ports/outlet.h"

#define DELIVERED NM_DROPS /* no reason to drop it */

/* Bytes. */
#define FRAME_MOST 1514  /* of a segment between ports of a switch: netmap's mfs */
#define HEADERS_MOST 256 /* of all headers before a payload that is to be cut */
#define IPV4_LEAST 20
#define IPV6_HEADER 40
#define IPV6_FRAGMENT_HEADER 8
#define TCP_LEAST 20
#define UDP_HEADER 8

/* Bits. */
#define IP_MF 0x2000
#define IP_OFFSET 0x1fff
#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80

/* ---- chains ----------------------------------------------------------------------------------
 */

struct piece {
    const char *data;
    uint32_t len;
};

struct chain {
    uint32_t count, length;
    struct piece pieces[NETMAP_MAX_FRAGS + 4]; /* with a header before and a checksum within */
};

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

static void clear(struct chain *chain) { chain->count = chain->length = 0; }

static void append(struct chain *chain, const void *data, uint32_t len) {
    if (len) chain->pieces[chain->count++] = (struct piece){data, len};
    chain->length += len;
}

static void append_part(struct chain *chain, const struct chain *of, uint32_t from, uint32_t len) {
    const struct piece *p = of->pieces;
    for (; len && from >= p->len; p++)
        from -= p->len;
    for (; len; p++) {
        uint32_t some = least(p->len - from, len);
        append(chain, p->data + from, some);
        len -= some;
        from = 0;
    }
}

/* The first bytes, as they are now. */
static void read_start(const struct chain *chain, void *to, uint32_t len) {
    for (const struct piece *p = chain->pieces; len; p++) {
        uint32_t some = least(p->len, len);
        memcpy(to, p->data, some);
        to = (char *)to + some;
        len -= some;
    }
}

/* ---- slots -----------------------------------------------------------------------------------
 */

/* Where packets go. Offsets are looked at once, and the least room counts for all slots. */
struct target {
    struct nm_outlet *outlet;
    uint32_t size; /* bytes that fit into any slot */
};

static struct target target_of(struct nm_outlet *outlet) {
    const struct nm_kring *kring = outlet->kring;
    uint32_t size = least(kring->port->buffers.size, UINT16_MAX), k = outlet->next;
    for (uint32_t i = 0; kring->offset_max && i < outlet->room; i++) {
        uint32_t offset = nm_slot_offset(kring, &kring->ring->slot[k]);
        size = least(size, kring->port->buffers.size - offset);
        k = nm_kring_next(kring, k);
    }
    return (struct target){outlet, size};
}

static uint32_t slots_for(const struct target *to, uint32_t length) {
    return to->size ? (length - 1) / to->size + 1 : UINT32_MAX;
}

/* Puts a packet for which there is room into the outlet. */
static void put(const struct target *to, const struct chain *packet) {
    uint32_t count = slots_for(to, packet->length);
    const struct piece *p = packet->pieces;
    uint32_t taken = 0; /* of *p */
    for (uint32_t left = packet->length; left;) {
        uint32_t room, len = least(left, to->size);
        char *data = nm_outlet_data(to->outlet, &room);
        if (len > room) data -= len - room; /* the offset has grown since: stay inside the buffer */
        for (uint32_t done = 0; done < len;) {
            uint32_t some = least(p->len - taken, len - done);
            memcpy(data + done, p->data + taken, some);
            done += some;
            taken += some;
            if (taken == p->len) p++, taken = 0;
        }
        left -= len;
        nm_outlet_fill(to->outlet, len, count, left);
    }
}

static enum nm_drop deliver(const struct target *to, const struct chain *packet) {
    uint32_t slots = slots_for(to, packet->length);
    if (slots > NETMAP_MAX_FRAGS) return NM_DROP_LONG;
    if (slots > to->outlet->room) return NM_DROP_FULL;
    put(to, packet);
    return DELIVERED;
}

/* ---- Internet checksums: RFC 1071 ------------------------------------------------------------
 */

static uint16_t load16(const uint8_t *from) { return (uint16_t)(from[0] << 8 | from[1]); }

static void store16(uint8_t *to, uint32_t value) {
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static uint32_t load32(const uint8_t *from) {
    return (uint32_t)load16(from) << 16 | load16(from + 2);
}

static void store32(uint8_t *to, uint32_t value) {
    store16(to, value >> 16);
    store16(to + 2, value);
}

static uint32_t fold(uint64_t sum) {
    while (sum >> 16)
        sum = (sum & 0xffff) + (sum >> 16);
    return (uint32_t)sum;
}

/* The sum in network byte order. Summing in the machine's order and swapping the result is the
 * same, and takes four bytes at a time. */
static uint32_t sum_bytes(const void *data, uint32_t len) {
    uint64_t sum = 0;
    uint32_t word;
    for (; len >= sizeof(word); len -= sizeof(word), data = (const char *)data + sizeof(word)) {
        memcpy(&word, data, sizeof(word));
        sum += word;
    }
    word = 0;
    memcpy(&word, data, len);
    return be16toh((uint16_t)fold(sum + word));
}

/* A piece behind an odd number of bytes has its bytes in the other halves of the words. */
static uint64_t sum_chain(const struct chain *chain) {
    uint64_t sum = 0;
    bool odd = false;
    for (uint32_t i = 0; i < chain->count; i++) {
        uint32_t part = sum_bytes(chain->pieces[i].data, chain->pieces[i].len);
        sum += odd ? part << 8 : part;
        odd ^= chain->pieces[i].len & 1;
    }
    return sum;
}

static uint32_t checksum(uint64_t sum) { return ~fold(sum) & 0xffff; }

/* ---- frames that become several --------------------------------------------------------------
 */

struct series {
    uint8_t headers[HEADERS_MOST]; /* of each, but for what differs */
    uint32_t headers_len;
    uint8_t *ip, *transport; /* within them */
    bool v4, tcp;
    uint32_t sequence; /* TCP's */
    uint16_t id;       /* IPv4's */
    uint8_t flags;     /* TCP's */
    /* TCP: its data, in segments. UDP: what IP carries, in fragments. */
    struct chain payload;
    uint32_t step; /* bytes of payload in each but the last */
};

/* The IP header, behind any VLAN tags; NULL if it is not within the `have` bytes. */
static uint8_t *find_ip(uint8_t *headers, uint32_t have, bool *v4) {
    for (uint32_t at = ETH_HLEN; at <= have; at += 4) {
        uint16_t type = load16(headers + at - 2);
        if (type == ETH_P_8021Q || type == ETH_P_8021AD) continue;
        *v4 = type == ETH_P_IP;
        if (type != ETH_P_IP && type != ETH_P_IPV6) return NULL;
        if (at + (*v4 ? IPV4_LEAST : IPV6_HEADER) > have) return NULL;
        return headers[at] >> 4 == (*v4 ? 4 : 6) ? headers + at : NULL;
    }
    return NULL;
}

/* False if the headers are not all there, or not what the virtio-net header says. */
static bool find_headers(struct series *series, uint8_t gso, uint32_t have) {
    uint8_t *ip = series->ip = find_ip(series->headers, have, &series->v4);
    if (!ip) return false;
    if (gso == VIRTIO_NET_HDR_GSO_TCPV4 && !series->v4) return false;
    if (gso == VIRTIO_NET_HDR_GSO_TCPV6 && series->v4) return false;
    series->tcp = gso != VIRTIO_NET_HDR_GSO_UDP;
    uint32_t ip_len = IPV6_HEADER;
    if (series->v4) {
        ip_len = 4 * (ip[0] & 15u);
        bool fragment = load16(ip + 6) & (IP_MF | IP_OFFSET);
        if (ip_len < IPV4_LEAST || fragment) return false;
        series->id = load16(ip + 4);
    }
    if (ip[series->v4 ? 9 : 6] != (series->tcp ? IPPROTO_TCP : IPPROTO_UDP)) return false;

    uint8_t *transport = series->transport = ip + ip_len;
    series->headers_len = (uint32_t)(transport - series->headers);
    if (series->headers_len + (series->tcp ? TCP_LEAST : UDP_HEADER) > have) return false;
    if (!series->tcp) return true;
    uint32_t tcp_len = 4u * (transport[12] >> 4);
    series->headers_len += tcp_len;
    series->sequence = load32(transport + 4);
    series->flags = transport[13];
    return tcp_len >= TCP_LEAST && series->headers_len <= have;
}

/* RFC 8200, 4.5. Its bytes are those of the UDP header, which is part of the payload. */
static void insert_fragment_header(struct series *series) {
    uint8_t *fragment = series->transport;
    memset(fragment, 0, IPV6_FRAGMENT_HEADER);
    fragment[0] = series->ip[6];
    series->ip[6] = IPPROTO_FRAGMENT;
    if (getrandom(fragment + 4, 4, GRND_NONBLOCK) < 0) memset(fragment + 4, 0, 4);
    series->headers_len += IPV6_FRAGMENT_HEADER;
}

static bool begin_series(struct series *series, const struct virtio_net_hdr *header, uint8_t gso,
                         const struct chain *frame, uint32_t frame_most) {
    uint32_t have = least(frame->length, HEADERS_MOST);
    read_start(frame, series->headers, have);
    if (!find_headers(series, gso, have)) return false;
    clear(&series->payload);
    append_part(&series->payload, frame, series->headers_len, frame->length - series->headers_len);
    if (!series->tcp && !series->v4) insert_fragment_header(series);
    /* No longer than the peer of the sender accepts, which may be less than a frame holds. */
    uint32_t wanted = le16toh(header->gso_size);
    if (series->headers_len >= frame_most) return false;
    series->step = least(frame_most - series->headers_len, wanted ? wanted : UINT32_MAX);
    if (series->tcp) return true;
    series->step &= ~7u; /* fragments begin at multiples of 8 */
    uint32_t ip_len = series->v4 ? (uint32_t)(series->transport - series->ip) : 0;
    return series->step && ip_len + series->payload.length <= UINT16_MAX;
}

static void complete_tcp(struct series *series, const struct chain *data, uint32_t done,
                         bool last) {
    uint8_t *tcp = series->transport, flags = series->flags;
    uint32_t tcp_len = (uint32_t)(series->headers + series->headers_len - tcp);
    if (done) flags &= (uint8_t)~TCP_CWR;
    if (!last) flags &= (uint8_t)~(TCP_FIN | TCP_PSH);
    tcp[13] = flags;
    store32(tcp + 4, series->sequence + done);
    store16(tcp + 16, 0);
    uint64_t sum = series->v4 ? sum_bytes(series->ip + 12, 8) : sum_bytes(series->ip + 8, 32);
    sum += IPPROTO_TCP + tcp_len + data->length;
    sum += sum_bytes(tcp, tcp_len) + sum_chain(data);
    store16(tcp + 16, checksum(sum));
}

static void complete_ip(struct series *series, const struct chain *data, uint32_t done, bool last) {
    uint8_t *ip = series->ip;
    uint32_t len = (uint32_t)(series->headers + series->headers_len - ip) + data->length;
    if (!series->v4) {
        store16(ip + 4, len - IPV6_HEADER);
        if (!series->tcp) store16(series->transport + 2, done | !last);
        return;
    }
    store16(ip + 2, len);
    if (series->tcp)
        store16(ip + 4, series->id + done / series->step);
    else
        store16(ip + 6, done / 8 | (last ? 0 : IP_MF));
    store16(ip + 10, 0);
    store16(ip + 10, checksum(sum_bytes(ip, (uint32_t)(series->transport - ip))));
}

static enum nm_drop deliver_series(const struct target *to, struct series *series) {
    uint32_t length = series->payload.length, step = series->step, done = 0;
    uint64_t count = length ? (length - 1) / step + 1 : 1;
    uint32_t longest = slots_for(to, series->headers_len + least(step, length));
    uint32_t rest = length - (uint32_t)(count - 1) * step;
    if (longest > NETMAP_MAX_FRAGS) return NM_DROP_LONG;
    if ((count - 1) * longest + slots_for(to, series->headers_len + rest) > to->outlet->room)
        return NM_DROP_FULL;
    do {
        struct chain data, frame;
        clear(&data);
        append_part(&data, &series->payload, done, least(step, length - done));
        bool last = done + data.length == length;
        complete_ip(series, &data, done, last);
        if (series->tcp) complete_tcp(series, &data, done, last);
        clear(&frame);
        append(&frame, series->headers, series->headers_len);
        append_part(&frame, &data, 0, data.length);
        put(to, &frame);
        done += step;
    } while (done < length);
    return DELIVERED;
}

/* ---- what a header asks for ------------------------------------------------------------------
 */

static bool understood(const struct virtio_net_hdr *header) {
    if (header->flags & ~(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) return false;
    switch (header->gso_type) {
    case VIRTIO_NET_HDR_GSO_NONE:
    case VIRTIO_NET_HDR_GSO_UDP:
    case VIRTIO_NET_HDR_GSO_TCPV4:
    case VIRTIO_NET_HDR_GSO_TCPV6:
    case VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN:
    case VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN:
        return true;
    default:
        return false;
    }
}

/* Makes `to` of the frame with the checksum, kept in `field`, that the header asks for. Its sender
 * has put the sum of the pseudo-header in its place. False if that lies outside the frame. */
static bool add_checksum(const struct chain *frame, const struct virtio_net_hdr *header,
                         uint8_t field[2], struct chain *to) {
    uint32_t start = le16toh(header->csum_start), at = start + le16toh(header->csum_offset);
    if (at + 2 > frame->length) return false;
    clear(to);
    append_part(to, frame, start, frame->length - start);
    uint32_t sum = checksum(sum_chain(to));
    store16(field, sum ? sum : 0xffff); /* RFC 768: 0 says that there is none */

    clear(to);
    append_part(to, frame, 0, at);
    append(to, field, 2);
    append_part(to, frame, at + 2, frame->length - at - 2);
    return true;
}

/* To a receiver without headers. */
static enum nm_drop offload(const struct target *to, const struct virtio_net_hdr *header,
                            const struct chain *frame, uint32_t frame_most) {
    if (!understood(header)) return NM_DROP_BAD;
    uint8_t gso = header->gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN, field[2];
    bool tcp = gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6;
    struct chain complete;
    /* Each TCP segment gets a checksum of its own. */
    if (header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM && !tcp) {
        if (!add_checksum(frame, header, field, &complete)) return NM_DROP_BAD;
        frame = &complete;
    }
    if (gso == VIRTIO_NET_HDR_GSO_NONE) return deliver(to, frame);

    struct series series;
    if (!begin_series(&series, header, gso, frame, frame_most)) return NM_DROP_BAD;
    bool whole = !tcp && series.payload.length <= series.step;
    return whole ? deliver(to, frame) : deliver_series(to, &series);
}

void nm_offload(struct nm_outlet *outlet, const struct nm_fragment *packet, uint32_t from,
                uint32_t to) {
    struct chain sent, received;
    clear(&sent);
    for (uint32_t i = 0; i < packet->count; i++)
        append(&sent, packet[i].data, packet[i].len);

    enum nm_drop drop = NM_DROP_BAD;
    if (sent.length > from) {
        /* The two bytes that a header of 12 has more count buffers: 0, of no use to a program. */
        struct virtio_net_hdr_mrg_rxbuf header = {0};
        read_start(&sent, &header, least(from, sizeof(header.hdr)));
        clear(&received);
        append(&received, &header, to);
        append_part(&received, &sent, from, sent.length - from);
        struct target target = target_of(outlet);
        drop =
            to ? deliver(&target, &received) : offload(&target, &header.hdr, &received, FRAME_MOST);
    }
    if (drop != DELIVERED) outlet->kring->stats.drops[drop]++;
}

enum nm_drop nm_offload_finish(struct nm_outlet *outlet, const struct nm_unfinished *packet,
                               uint32_t frame_most) {
    struct chain frame;
    clear(&frame);
    for (uint32_t i = 0; i < packet->count; i++)
        append(&frame, packet->pieces[i].iov_base, (uint32_t)packet->pieces[i].iov_len);
    if (!frame.length) return NM_DROP_SHORT;
    struct target target = target_of(outlet);
    return offload(&target, &packet->header, &frame, frame_most);
}
