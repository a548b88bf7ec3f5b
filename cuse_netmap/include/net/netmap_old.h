/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What netmap programs of 2011 to 2013 and the server agree on. Define NETMAP_OLD_API before
 * <net/netmap.h>, which then is this instead of today's; everything of <net/netmap_user.h> that
 * there was is here too.
 *
 *   NETMAP_OLD_API 5   API 5, 2013
 *   NETMAP_OLD_API 3   API 3, 2012
 *   NETMAP_OLD_API 2   the header of November 2011, whose version was not looked at
 *   NETMAP_OLD_API 1   the structs as the manual page of 2011 prints them, and its spellings
 *
 * The server tells them apart by the size of struct nmreq, which is part of the ioctl numbers, and
 * by nr_version. Names, numbers and layouts are those of their time. One map, of nr_memsize bytes,
 * serves all descriptors of a program, and may be made before any is registered.
 */
#ifndef _NET_NETMAP_OLD_H_
#define _NET_NETMAP_OLD_H_

#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/types.h>

#define NETMAP_OLD_API_PAGE 1
#define NETMAP_OLD_API_2011 2
#if NETMAP_OLD_API < 1 || NETMAP_OLD_API > 5 || NETMAP_OLD_API == 4
#error "NETMAP_OLD_API is 1, 2, 3, 5, or 10 to 13"
#endif
#if NETMAP_OLD_API >= 3
#define NETMAP_API NETMAP_OLD_API /* for nr_version, which must be this */
#endif

#define NETMAP_OLD_IFNAMSIZ 16

#ifndef NETMAP_DEVICE_NAME
#define NETMAP_DEVICE_NAME "/dev/netmap"
#endif

/* Before fields that programs only read. */
#ifndef NETMAP_READONLY
#define NETMAP_READONLY const
#endif

/* Two names for one field: the header's and the manual page's. */
#if NETMAP_OLD_API == NETMAP_OLD_API_PAGE
#define _NETMAP_ALSO(type, name, other)                                                            \
    union {                                                                                        \
        type name, other;                                                                          \
    }
#else
#define _NETMAP_ALSO(type, name, other) type name
#endif

/* ---- shared memory --------------------------------------------------------------------------- */

/* One packet: 8 bytes, 16 since API 5. */
struct netmap_slot {
    _NETMAP_ALSO(uint32_t, buf_idx, buf_index); /* which buffer; 0 and 1 are never given out */
    uint16_t len;                               /* bytes of the packet */
    uint16_t flags;                             /* NS_* */
#if NETMAP_OLD_API >= 5
    uint64_t ptr; /* NS_INDIRECT: address of the data */
#endif
};

#define NS_BUF_CHANGED 0x0001 /* the program has put another buf_idx here */
#define NS_REPORT 0x0002      /* TX: give this slot back as soon as it has left */
#if NETMAP_OLD_API >= 3
#define NS_FORWARD 0x0004  /* RX, with NR_FORWARD: when released, pass on to host or NIC */
#define NS_NO_LEARN 0x0008 /* switch: do not learn from this frame */
#define NS_PORT_SHIFT 8
#define NS_PORT_MASK (0xff << NS_PORT_SHIFT)
#endif
#if NETMAP_OLD_API >= 5
#define NS_INDIRECT 0x0010 /* switch, TX: the data is at ptr in the sender's memory */
#define NS_MOREFRAG 0x0020 /* the frame goes on in the next slot */
#define NS_RFRAGS(slot) (((slot)->flags >> NS_PORT_SHIFT) & 0xff)
#endif

/*
 * A ring, before its slots. The program owns `avail` slots from `cur` on, and the `reserved` before
 * `cur`. It fills or reads slots, and for each moves cur on and takes one off avail; on an RX ring
 * it may add to reserved those that it keeps for a while. Syncs and poll send or give back what is
 * before cur (less what is reserved), and set avail anew. On TX rings avail is for the program to
 * read: what it leaves there means nothing. On RX rings it must not be more than it was told, but
 * -1, in which a loop over `avail--` ends.
 */
struct netmap_ring {
    NETMAP_READONLY int64_t buf_ofs;    /* from this ring to buffer 0 */
    NETMAP_READONLY uint32_t num_slots; /* slots in this ring */
    uint32_t avail;
    uint32_t cur;
#if NETMAP_OLD_API >= 3
    uint32_t reserved;
#endif
    NETMAP_READONLY uint16_t nr_buf_size; /* bytes in each buffer */
    uint16_t flags;                       /* NR_* */
#if NETMAP_OLD_API > NETMAP_OLD_API_PAGE
    struct timeval ts; /* RX: wall clock at the latest sync */
#endif
    struct netmap_slot slot[];
};

#define NR_TIMESTAMP 0x0002 /* keep ts up to date even when the server is told not to */
#if NETMAP_OLD_API >= 3
#define NR_FORWARD 0x0004 /* look at NS_FORWARD in the slots that are released */
#endif

/*
 * What one descriptor sees of a port, and behind it the offset of each ring from this struct: NIC
 * TX rings, the host's TX ring, NIC RX rings, the host's RX ring. 0 for rings that the descriptor
 * has not bound.
 */
struct netmap_if {
    char ni_name[NETMAP_OLD_IFNAMSIZ];
#if NETMAP_OLD_API == NETMAP_OLD_API_PAGE
    NETMAP_READONLY uint32_t ni_num_queues; /* pairs of NIC rings */
#elif NETMAP_OLD_API == NETMAP_OLD_API_2011
    NETMAP_READONLY uint32_t ni_version;
    NETMAP_READONLY uint32_t ni_num_queues; /* pairs of NIC rings */
    NETMAP_READONLY uint32_t ni_rx_queues;  /* 0: as many */
#else
    NETMAP_READONLY uint32_t ni_version;
#if NETMAP_OLD_API >= 5
    NETMAP_READONLY uint32_t ni_flags; /* NI_* */
#define NI_PRIV_MEM 0x1 /* the port's memory is a region of its own */
#endif
    NETMAP_READONLY uint32_t ni_rx_rings; /* NIC rings */
    NETMAP_READONLY uint32_t ni_tx_rings;
#endif
    NETMAP_READONLY ssize_t ring_ofs[];
};

/* ---- ioctls ---------------------------------------------------------------------------------- */

/* The argument of NIOCGINFO and NIOCREGIF. The answer holds what the port has. */
#if NETMAP_OLD_API == NETMAP_OLD_API_PAGE
struct nmreq { /* 32 bytes */
    _NETMAP_ALSO(char, nr_name[NETMAP_OLD_IFNAMSIZ], nm_name[NETMAP_OLD_IFNAMSIZ]);
    _NETMAP_ALSO(uint32_t, nr_offset, offset);   /* out: the netmap_if in the map */
    _NETMAP_ALSO(uint32_t, nr_memsize, memsize); /* out: length to mmap() */
    _NETMAP_ALSO(uint32_t, nr_numdescs, nr_numslots);
    _NETMAP_ALSO(uint16_t, nr_numqueues, nr_numrings);
    uint16_t nr_ringid; /* which rings, below */
};
#elif NETMAP_OLD_API == NETMAP_OLD_API_2011
struct nmreq { /* 36 bytes */
    char nr_name[NETMAP_OLD_IFNAMSIZ];
    uint32_t nr_version; /* anything */
    uint32_t nr_offset;  /* out: the netmap_if in the map */
    uint32_t nr_memsize; /* out: length to mmap() */
    uint32_t nr_numslots;
    uint16_t nr_numrings;
    uint16_t nr_ringid; /* which rings, below */
};
#else
struct nmreq { /* 60 bytes */
    char nr_name[NETMAP_OLD_IFNAMSIZ];
    uint32_t nr_version; /* NETMAP_API; with another, EINVAL and the server's stands here */
    uint32_t nr_offset;  /* out: the netmap_if in the map */
    uint32_t nr_memsize; /* out: length to mmap() */
    uint32_t nr_tx_slots;
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
    uint16_t nr_ringid; /* which rings, below */
#if NETMAP_OLD_API >= 5
    uint16_t nr_cmd;  /* 0: register */
    uint16_t nr_arg1; /* of nr_cmd */
    uint16_t nr_arg2;
    uint32_t spare2[3];
#else
    uint16_t spare1;
    uint32_t spare2[4];
#endif
};
#endif

#if NETMAP_OLD_API >= 5
#define NETMAP_BDG_ATTACH 1 /* nr_cmd: put an interface on a switch */
#define NETMAP_BDG_DETACH 2
#define NETMAP_BDG_LIST 4      /* of NIOCGINFO: look up, or walk, the ports of switches */
#define NETMAP_BDG_HOST 1      /* nr_arg1 of BDG_ATTACH: with the host's rings */
#define NETMAP_PRIV_MEM 0x8000 /* out, in nr_ringid: as NI_PRIV_MEM; no server of today says so */
#endif

/* nr_ringid: 0 all NIC rings, or one of these; and perhaps NETMAP_NO_TX_POLL. */
#define NETMAP_HW_RING 0x4000    /* the pair of NIC rings of the number in the low bits */
#define NETMAP_SW_RING 0x2000    /* the rings of the host's stack */
#define NETMAP_NO_TX_POLL 0x1000 /* poll sends nothing, but when POLLOUT is asked for */
#define NETMAP_RING_MASK 0x0fff

/* NIOCREGIF on a descriptor that is registered already: other rings of the same port, the netmap_if
 * staying where it is (EBUSY: another port). Else its errors are:
 * ENXIO no such port; EINVAL no such ring, or an interface that is none for netmap; ENOMEM a pool
 * is used up; EBUSY a program of another age has one of the rings */
#define NIOCGINFO _IOWR('i', 145, struct nmreq)
#define NIOCREGIF _IOWR('i', 146, struct nmreq)
#define NIOCUNREGIF _IO('i', 147) /* gives the rings back; ENXIO: there are none */
#define NIOCTXSYNC _IO('i', 148)  /* sends what is before cur on all TX rings */
#define NIOCRXSYNC _IO('i', 149)  /* gives back what is before cur on all RX rings, and receives */

#if NETMAP_OLD_API == NETMAP_OLD_API_PAGE
#define netmap_req nmreq
#define netmap_request nmreq
#define NIOCREG NIOCREGIF
#define NETMAP_TXSYNC NIOCTXSYNC
#define NETMAP_NO_TX_SYNC NETMAP_NO_TX_POLL
#endif

/* ---- from the map to rings and buffers ------------------------------------------------------- */

#define _NETMAP_OFFSET(type, where, offset) ((type)(void *)((char *)(uintptr_t)(where) + (offset)))
#if NETMAP_OLD_API >= 3
#define _NETMAP_TX_ENTRIES(nifp) ((nifp)->ni_tx_rings + 1)
#else
#define _NETMAP_TX_ENTRIES(nifp) ((nifp)->ni_num_queues + 1)
#endif

/* The descriptor's struct: the map and nr_offset. */
#define NETMAP_IF(mapping, offset) _NETMAP_OFFSET(struct netmap_if *, mapping, offset)
/* Ring i; the host's follows the NIC's. */
#define NETMAP_TXRING(nifp, i) _NETMAP_OFFSET(struct netmap_ring *, nifp, (nifp)->ring_ofs[i])
#define NETMAP_RXRING(nifp, i)                                                                     \
    _NETMAP_OFFSET(struct netmap_ring *, nifp, (nifp)->ring_ofs[(i) + _NETMAP_TX_ENTRIES(nifp)])
/* Buffer number index, as a char *, and back. */
#define NETMAP_BUF(ring, index)                                                                    \
    _NETMAP_OFFSET(char *, ring, (ring)->buf_ofs + (int64_t)(index) * (ring)->nr_buf_size)
#define NETMAP_BUF_IDX(ring, buf)                                                                  \
    ((uint32_t)(((char *)(buf) - ((char *)(ring) + (ring)->buf_ofs)) / (ring)->nr_buf_size))

#define NETMAP_RING_NEXT(ring, i) ((i) + 1 == (ring)->num_slots ? 0 : (i) + 1)
#if NETMAP_OLD_API >= 3
#define NETMAP_RING_FIRST_RESERVED(ring)                                                           \
    ((ring)->cur < (ring)->reserved ? (ring)->cur + (ring)->num_slots - (ring)->reserved           \
                                    : (ring)->cur - (ring)->reserved)
#endif
/* Everything that was sent has left. */
#define NETMAP_TX_RING_EMPTY(ring) ((ring)->avail >= (ring)->num_slots - 1)

#endif
