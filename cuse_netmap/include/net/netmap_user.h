/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Helpers for netmap programs, header only: how to find rings and buffers in the mapping and, with
 * NETMAP_WITH_LIBS defined, a descriptor that opens a port by name; what kernel and program share
 * is in <net/netmap.h>, how names are read in <net/netmap_name.h>.
 *
 * With NETMAP_OLD_API defined there is what programs of that age had, the library from API 11 on.
 *
 * A port by hand: open /dev/netmap, NIOCREGIF (or NIOCCTRL), mmap nr_memsize bytes,
 * NETMAP_IF(memory, nr_offset), then NETMAP_TXRING and NETMAP_RXRING. With the library:
 * nm_open("netmap:eth0", NULL, 0, NULL).
 */
#ifndef _NET_NETMAP_USER_H_
#define _NET_NETMAP_USER_H_

/* Programs also count on this header for some of these. */
#include <ctype.h>
#include <net/if.h>
#include <net/netmap.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#ifndef _NET_NETMAP_OLD_H_ /* where all there was in 2011 to 2013 is */

#ifndef likely
#define likely(x) __builtin_expect(!!(x), 1)
#endif
#ifndef unlikely
#define unlikely(x) __builtin_expect(!!(x), 0)
#endif

#ifndef NETMAP_DEVICE_NAME
#define NETMAP_DEVICE_NAME "/dev/netmap"
#endif

/* ---- from the mapping to rings and buffers --------------------------------------------------- */

/* An object of the given type, offset bytes from where. */
#define _NETMAP_OFFSET(type, where, offset) ((type)(void *)((char *)(uintptr_t)(where) + (offset)))

/* The descriptor of the port: mapping and nr_offset. */
#define NETMAP_IF(mapping, offset) _NETMAP_OFFSET(struct netmap_if *, mapping, offset)

/* Ring i, NIC rings first, then host rings. Rings that are not bound have no place in memory. */
#define NETMAP_TXRING(nifp, i) _NETMAP_OFFSET(struct netmap_ring *, nifp, (nifp)->ring_ofs[i])
#define NETMAP_RXRING(nifp, i)                                                                     \
    _NETMAP_OFFSET(struct netmap_ring *, nifp,                                                     \
                   (nifp)->ring_ofs[(i) + (nifp)->ni_tx_rings + _NETMAP_HOST_RINGS(nifp, tx)])

/* Buffer number index, as a char *, and back from an address inside a buffer to its number. */
#define NETMAP_BUF(ring, index)                                                                    \
    _NETMAP_OFFSET(char *, ring, (ring)->buf_ofs + (int64_t)(index) * (ring)->nr_buf_size)
#define NETMAP_BUF_IDX(ring, buf)                                                                  \
    ((uint32_t)(((char *)(buf) - ((char *)(ring) + (ring)->buf_ofs)) / (ring)->nr_buf_size))

/* With the option OFFSETS: offset of a slot, where its data is, and how to set the offset. */
#define NETMAP_ROFFSET(ring, slot) ((slot)->ptr & (ring)->offset_mask)
#define NETMAP_BUF_OFFSET(ring, slot)                                                              \
    (NETMAP_BUF(ring, (slot)->buf_idx) + NETMAP_ROFFSET(ring, slot))
#define NETMAP_WOFFSET(ring, slot, offset)                                                         \
    ((slot)->ptr = ((slot)->ptr & ~(ring)->offset_mask) | ((offset) & (ring)->offset_mask))

/* The slot after slot i. */
static inline uint32_t nm_ring_next(struct netmap_ring *ring, uint32_t i) {
    return unlikely(i + 1 == ring->num_slots) ? 0 : i + 1;
}

/* Slots that are the program's: frames to read on an RX ring, slots to fill on a TX ring. */
static inline uint32_t nm_ring_space(struct netmap_ring *ring) {
    uint32_t head = ring->head, tail = ring->tail;
    return tail >= head ? tail - head : tail + ring->num_slots - head;
}

static inline int nm_ring_empty(struct netmap_ring *ring) { return ring->head == ring->tail; }

/* Are there frames in this TX ring that have not left? Of use after a sync, which moves tail. */
static inline int nm_tx_pending(struct netmap_ring *ring) {
    return nm_ring_next(ring, ring->tail) != ring->head;
}

/* Copies a frame of length bytes; the areas must not overlap. */
static inline void nm_pkt_copy(const void *source, void *destination, int length) {
    if (length > 0) memcpy(destination, source, (size_t)length);
}

/* ---- messages -------------------------------------------------------------------------------- */

/* D() prints a line to stderr, with time and place; RD() at most so many a second; ND() nothing. */
#if defined(__GNUC__)
__attribute__((format(printf, 3, 4)))
#endif
static inline void nm_debug_print(const char *function, int line, const char *format, ...) {
    struct timeval now;
    va_list arguments;
    gettimeofday(&now, NULL);
    fprintf(stderr, "%03d.%06d %s [%d] ", (int)(now.tv_sec % 1000), (int)now.tv_usec, function,
            line);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

static inline int nm_debug_allowed(int per_second, long *second, int *printed) {
    struct timeval now;
    gettimeofday(&now, NULL);
    if (*second != (long)now.tv_sec) {
        *second = (long)now.tv_sec;
        *printed = 0;
    }
    return (*printed)++ < per_second;
}

#ifndef D
#define D(...) nm_debug_print(__func__, __LINE__, __VA_ARGS__)
#endif
#ifndef ND
#define ND(...)                                                                                    \
    do {                                                                                           \
    } while (0)
#endif
#ifndef RD
#define RD(per_second, ...)                                                                        \
    do {                                                                                           \
        static long nm_debug_second;                                                               \
        static int nm_debug_printed;                                                               \
        if (nm_debug_allowed(per_second, &nm_debug_second, &nm_debug_printed))                     \
            nm_debug_print(__func__, __LINE__, __VA_ARGS__);                                       \
    } while (0)
#endif

#endif /* _NET_NETMAP_OLD_H_ */

#endif /* _NET_NETMAP_USER_H_ */

/* ---- the library ----------------------------------------------------------------------------- */

/* Behind a guard of its own: a header may have included this one before, without the library. It
 * asks by nr_flags, which came with API 11. */
#if defined(NETMAP_WITH_LIBS) && !defined(_NET_NETMAP_USER_LIBS_) &&                               \
    !defined(_NET_NETMAP_OLD_H_) && NETMAP_API >= 11
#define _NET_NETMAP_USER_LIBS_

#include <errno.h>
#include <fcntl.h>
#include <net/netmap_name.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* A received frame, as nm_dispatch() and nm_nextpkt() hand it out. */
struct nm_pkthdr {
    struct timeval ts; /* the ring's time stamp */
    uint32_t caplen;   /* bytes at buf */
    uint32_t len;      /* bytes of the frame; more than caplen if it goes on in a distant buffer */
    uint64_t flags;    /* NM_MORE_PKTS: nm_dispatch() has another frame ready */
    struct nm_desc *d;
    struct netmap_slot *slot; /* first slot of the frame */
    uint8_t *buf;
};

#define NM_MORE_PKTS 1

struct nm_stat {
    unsigned int ps_recv;
    unsigned int ps_drop;
    unsigned int ps_ifdrop;
};

#define NM_ERRBUF_SIZE 512

/* An open port. Everything may be read; who changes a field answers for what follows. */
struct nm_desc {
    struct nm_desc *self; /* points here if this is a descriptor */
    int fd;
    void *mem;
    uint64_t memsize;
    int done_mmap; /* the mapping is ours to undo */
    struct netmap_if *nifp;
    uint16_t first_tx_ring, last_tx_ring, cur_tx_ring;
    uint16_t first_rx_ring, last_rx_ring, cur_rx_ring;
    struct nmreq req; /* the request, as answered */
    struct nm_pkthdr hdr;

    struct netmap_ring *some_ring; /* any bound ring, for NETMAP_BUF */
    void *buf_start;
    void *buf_end;

    /* Not looked at here; for those who wrap the descriptor in an interface of their own. */
    int snaplen;
    int promisc;
    int to_ms;
    char *errbuf;
    uint32_t if_flags;
    uint32_t if_reqcap;
    uint32_t if_curcap;
    struct nm_stat st;
    char msg[NM_ERRBUF_SIZE];
};

#define P2NMD(p) ((const struct nm_desc *)(const void *)(p))
#define IS_NETMAP_DESC(d) ((d) && P2NMD(d)->self == P2NMD(d))
#define NETMAP_FD(d) (P2NMD(d)->fd)

typedef void (*nm_cb_t)(unsigned char *arg, const struct nm_pkthdr *header,
                        const unsigned char *frame);

/* Flags of nm_open(); NETMAP_NO_TX_POLL and NETMAP_DO_RX_POLL may be or'ed in as well. */
enum {
    NM_OPEN_NO_MMAP = 0x040000,  /* map nothing; with a parent, still share the parent's mapping */
    NM_OPEN_IFNAME = 0x080000,   /* name, ring and flags from the parent, not from the string */
    NM_OPEN_ARG1 = 0x100000,     /* nr_arg1 from the parent */
    NM_OPEN_ARG2 = 0x200000,     /* nr_arg2 (memory id) from the parent */
    NM_OPEN_ARG3 = 0x400000,     /* nr_arg3 (extra buffers) from the parent */
    NM_OPEN_RING_CFG = 0x800000, /* numbers of rings and slots from the parent */
};

/*
 * Puts what a name says (<net/netmap_name.h>) into d->req. Returns 0, or -1 with errno EINVAL and
 * the reason in error, which is NULL or has room for MAXERRMSG characters.
 */
#define MAXERRMSG NM_NAME_ERROR_SIZE
static inline int nm_parse(const char *name, struct nm_desc *d, char *error) {
    return nm_parse_name(name, &d->req, error);
}

/* The rings of one direction that the request binds, of so many NIC and host rings. */
static inline void nm_ring_range(const struct nmreq *req, uint16_t rings, uint32_t hosts,
                                 uint16_t *first, uint16_t *last) {
    uint16_t ring = req->nr_ringid & NETMAP_RING_MASK;
    uint32_t end = rings;
    *first = 0;
    switch (req->nr_flags & NR_REG_MASK) {
    case NR_REG_NIC_SW:
        end = rings + hosts;
        break;
    case NR_REG_SW:
        *first = rings;
        end = rings + hosts;
        break;
    case NR_REG_ONE_NIC: /* the direction with fewer rings takes ring 0 */
        *first = ring < rings ? ring : 0;
        end = *first + 1U;
        break;
    case NR_REG_ONE_SW:
        *first = (uint16_t)(rings + (ring < hosts ? ring : 0));
        end = *first + 1U;
        break;
    default: /* pipes too: all of their rings are bound */
        break;
    }
    *last = (uint16_t)(end ? end - 1 : 0);
}

static inline void nm_find_rings(struct nm_desc *d) {
    const struct netmap_if *nifp = d->nifp;
    nm_ring_range(&d->req, d->req.nr_tx_rings, nifp ? _NETMAP_HOST_RINGS(nifp, tx) : 1,
                  &d->first_tx_ring, &d->last_tx_ring);
    nm_ring_range(&d->req, d->req.nr_rx_rings, nifp ? _NETMAP_HOST_RINGS(nifp, rx) : 1,
                  &d->first_rx_ring, &d->last_rx_ring);
    d->cur_tx_ring = d->first_tx_ring;
    d->cur_rx_ring = d->first_rx_ring;
}

/* A ring of the port, NULL if it is not bound: offset 0 leads back to the netmap_if. */
static inline struct netmap_ring *nm_bound_txring(const struct nm_desc *d, uint32_t i) {
    struct netmap_ring *ring = NETMAP_TXRING(d->nifp, i);
    return (void *)ring == (void *)d->nifp ? NULL : ring;
}

static inline struct netmap_ring *nm_bound_rxring(const struct nm_desc *d, uint32_t i) {
    struct netmap_ring *ring = NETMAP_RXRING(d->nifp, i);
    return (void *)ring == (void *)d->nifp ? NULL : ring;
}

/*
 * Maps the memory of an open port, or shares the parent's mapping when both are in one region, and
 * fills in the fields that depend on it. nm_open() has done it unless told not to. Returns 0 or an
 * errno.
 */
static inline int nm_mmap(struct nm_desc *d, const struct nm_desc *parent) {
    if (d->mem) return 0;
    if (IS_NETMAP_DESC(parent) && parent->mem && parent->req.nr_arg2 == d->req.nr_arg2) {
        d->mem = parent->mem;
        d->memsize = parent->memsize;
    } else {
        void *mem = mmap(NULL, d->req.nr_memsize, PROT_READ | PROT_WRITE, MAP_SHARED, d->fd, 0);
        if (mem == MAP_FAILED) return errno ? errno : EINVAL;
        d->mem = mem;
        d->memsize = d->req.nr_memsize;
        d->done_mmap = 1;
    }
    d->nifp = NETMAP_IF(d->mem, d->req.nr_offset);
    nm_find_rings(d);
    d->some_ring = nm_bound_rxring(d, d->first_rx_ring);
    if (!d->some_ring) d->some_ring = nm_bound_txring(d, d->first_tx_ring);
    if (d->some_ring) {
        d->buf_start = NETMAP_BUF(d->some_ring, 0);
        d->buf_end = (char *)d->mem + d->memsize;
    }
    return 0;
}

/* Closes the port and frees the descriptor. Returns 0, or EINVAL if d is no descriptor. */
static inline int nm_close(struct nm_desc *d) {
    if (!IS_NETMAP_DESC(d)) return EINVAL;
    if (d->done_mmap && d->mem) munmap(d->mem, d->memsize);
    if (d->fd >= 0) close(d->fd);
    memset(d, 0, sizeof(*d));
    free(d);
    return 0;
}

/*
 * Opens a port. req, if any, is where the request starts from (slots, rings, nr_arg*, flags);
 * parent lends its mapping when it has the same memory id, and the values that flags ask for.
 * Returns NULL with errno set: that of open(), of NIOCREGIF (see nmreq_register) or of mmap();
 * EINVAL for a name that cannot be read; 0 if the name is none of netmap's.
 */
static inline struct nm_desc *nm_open(const char *name, const struct nmreq *req, uint64_t flags,
                                      const struct nm_desc *parent) {
    char error[MAXERRMSG] = "";
    struct nm_desc *d;
    int failure;

    if (strncmp(name, "netmap:", 7) != 0 && strncmp(name, NM_BDG_NAME, 4) != 0) {
        errno = 0;
        return NULL;
    }
    d = (struct nm_desc *)calloc(1, sizeof(*d));
    if (!d) {
        errno = ENOMEM;
        return NULL;
    }
    d->self = d;
    d->hdr.d = d;
    d->fd = -1;
    if (!IS_NETMAP_DESC(parent)) parent = NULL;
    if (req) d->req = *req;
    if (parent) {
        if (flags & NM_OPEN_ARG1) d->req.nr_arg1 = parent->req.nr_arg1;
        if (flags & NM_OPEN_ARG2) d->req.nr_arg2 = parent->req.nr_arg2;
        if (flags & NM_OPEN_ARG3) d->req.nr_arg3 = parent->req.nr_arg3;
        if (flags & NM_OPEN_RING_CFG) {
            d->req.nr_tx_slots = parent->req.nr_tx_slots;
            d->req.nr_rx_slots = parent->req.nr_rx_slots;
            d->req.nr_tx_rings = parent->req.nr_tx_rings;
            d->req.nr_rx_rings = parent->req.nr_rx_rings;
        }
        if (flags & NM_OPEN_IFNAME) {
            memcpy(d->req.nr_name, parent->req.nr_name, sizeof(d->req.nr_name));
            d->req.nr_ringid = parent->req.nr_ringid;
            d->req.nr_flags = parent->req.nr_flags;
        }
    }
    if (!(flags & NM_OPEN_IFNAME) && nm_parse(name, d, error)) {
        D("%s: %s", name, error);
        goto fail;
    }
    d->req.nr_version = NETMAP_API;
    d->req.nr_cmd = 0;
    d->req.nr_ringid &= NETMAP_RING_MASK;
    d->req.nr_ringid |= (uint16_t)(flags & (NETMAP_NO_TX_POLL | NETMAP_DO_RX_POLL));

    d->fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (d->fd < 0 || ioctl(d->fd, NIOCREGIF, &d->req)) goto fail;
    nm_find_rings(d);
    if (parent || !(flags & NM_OPEN_NO_MMAP)) {
        errno = nm_mmap(d, parent);
        if (errno) goto fail;
    }
    return d;
fail:
    failure = errno;
    nm_close(d);
    errno = failure;
    return NULL;
}

/*
 * Queues a frame of size bytes, on the first TX ring with room, starting from the one used last.
 * Returns size, or 0 if no ring had room. The frame leaves with the next NIOCTXSYNC or poll().
 */
static inline int nm_inject(struct nm_desc *d, const void *frame, size_t size) {
    uint32_t rings = (uint32_t)(d->last_tx_ring - d->first_tx_ring) + 1, i;
    const char *data = (const char *)frame;
    for (i = 0; i < rings; i++) {
        uint32_t number = d->cur_tx_ring + i, slot, length;
        struct netmap_ring *ring;
        size_t left = size;
        if (number > d->last_tx_ring) number -= rings;
        ring = nm_bound_txring(d, number);
        if (!ring || size == 0 || (size - 1) / ring->nr_buf_size >= nm_ring_space(ring)) continue;
        for (slot = ring->head; left > 0; slot = nm_ring_next(ring, slot)) {
            length = left > ring->nr_buf_size ? ring->nr_buf_size : (uint32_t)left;
            memcpy(NETMAP_BUF(ring, ring->slot[slot].buf_idx), data + (size - left), length);
            left -= length;
            ring->slot[slot].len = (uint16_t)length;
            /* The program may have put another buffer here: that word must reach the server. */
            ring->slot[slot].flags = (uint16_t)((ring->slot[slot].flags & NS_BUF_CHANGED) |
                                                (left > 0 ? NS_MOREFRAG : 0));
        }
        ring->head = ring->cur = slot;
        d->cur_tx_ring = (uint16_t)number;
        return (int)size;
    }
    return 0;
}

/* The next RX ring with a frame, starting from the one used last; NULL if all are empty. */
static inline struct netmap_ring *nm_next_rxring(struct nm_desc *d) {
    uint32_t rings = (uint32_t)(d->last_rx_ring - d->first_rx_ring) + 1, i;
    for (i = 0; i < rings; i++) {
        uint32_t number = d->cur_rx_ring + i;
        struct netmap_ring *ring;
        if (number > d->last_rx_ring) number -= rings;
        ring = nm_bound_rxring(d, number);
        if (ring && !nm_ring_empty(ring)) {
            d->cur_rx_ring = (uint16_t)number;
            return ring;
        }
    }
    return NULL;
}

/*
 * Describes the frame at the ring's head and returns the slot after it. Buffers of one frame that
 * follow each other in memory are handed out as one piece; a frame whose buffers are scattered has
 * caplen < len, its slots tell the rest.
 */
static inline uint32_t nm_read_frame(struct netmap_ring *ring, struct nm_pkthdr *header) {
    uint32_t i = ring->head, next = nm_ring_next(ring, i);
    struct netmap_slot *slot = &ring->slot[i];
    char *end = NETMAP_BUF(ring, slot->buf_idx) + slot->len;
    header->ts = ring->ts;
    header->slot = slot;
    header->buf = (uint8_t *)NETMAP_BUF(ring, slot->buf_idx);
    header->len = header->caplen = slot->len;
    while ((ring->slot[i].flags & NS_MOREFRAG) && next != ring->tail) {
        i = next;
        slot = &ring->slot[i];
        if (header->caplen == header->len && NETMAP_BUF(ring, slot->buf_idx) == end) {
            header->caplen += slot->len;
            end += slot->len;
        }
        header->len += slot->len;
        next = nm_ring_next(ring, i);
    }
    return next;
}

/*
 * Calls callback for each received frame, at most count of them (0 or less: all that are there),
 * and returns how many. Receives nothing by itself: poll() or NIOCRXSYNC first. Frames are valid
 * inside the callback.
 */
static inline int nm_dispatch(struct nm_desc *d, int count, nm_cb_t callback, unsigned char *arg) {
    struct netmap_ring *ring = nm_next_rxring(d), *following;
    int done = 0;
    d->hdr.d = d;
    while (ring && (count <= 0 || done < count)) {
        uint32_t head = ring->head, next = nm_read_frame(ring, &d->hdr);
        /* To learn whether another frame is ready, step over this one and back: the callback may
         * sync, and a frame that is handed back then must not be in use any more. */
        ring->head = next;
        following = nm_next_rxring(d);
        ring->head = head;
        d->hdr.flags = following && done + 1 != count ? NM_MORE_PKTS : 0;
        callback(arg, &d->hdr, d->hdr.buf);
        ring->head = ring->cur = next;
        ring = following;
        done++;
    }
    return done;
}

/*
 * The next received frame, described in *header, or NULL. Receives nothing by itself. The frame is
 * valid until the next poll() or NIOCRXSYNC, which give its slot back.
 */
static inline uint8_t *nm_nextpkt(struct nm_desc *d, struct nm_pkthdr *header) {
    struct netmap_ring *ring = nm_next_rxring(d);
    if (!ring) return NULL;
    header->d = d;
    header->flags = 0;
    ring->head = ring->cur = nm_read_frame(ring, header);
    return header->buf;
}

#endif /* NETMAP_WITH_LIBS */
