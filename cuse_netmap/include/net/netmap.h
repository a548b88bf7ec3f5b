/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a netmap program and the server of /dev/netmap agree on, API 14: ioctls, request bodies,
 * options and the shared memory (indices in the program's own: <net/netmap_csb.h>); helpers that
 * work on them are in <net/netmap_user.h>, limits that programs never see in the server.
 *
 * With NETMAP_OLD_API defined it is what programs of an older API knew: 10 to 13 (2014 to 2019) of
 * those structs that looked different then, 1, 2, 3 and 5 (2011 to 2013) by <net/netmap_old.h>.
 *
 * Names, numbers and layouts are those of netmap(4), so that programs compile unchanged. Integers
 * are in the byte order of the machine. Every pointer in a request travels as a uint64_t. Sizes are
 * in bytes unless said otherwise.
 */
#ifndef _NET_NETMAP_H_
#define _NET_NETMAP_H_

#if defined(NETMAP_OLD_API) && NETMAP_OLD_API < 10
#include <net/netmap_old.h>
#else

#include <net/netmap_csb.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/types.h>

/* What a program puts in nr_version, and the versions NIOCCTRL accepted then (else EINVAL). */
#ifndef NETMAP_OLD_API
#define NETMAP_API 14
#elif NETMAP_OLD_API <= 13
#define NETMAP_API NETMAP_OLD_API
#else
#error "NETMAP_OLD_API is 1, 2, 3, 5, or 10 to 13"
#endif
#define NETMAP_MIN_API NETMAP_API
#define NETMAP_MAX_API 15

/* Names: the legacy struct nmreq holds 15 characters and a NUL, the request header 63 and a NUL. */
#define NETMAP_LEGACY_IFNAMSIZ 16
#define NETMAP_REQ_IFNAMSIZ 64

/* Ports whose name begins like this belong to a switch: "vale0:p1" is port p1 of switch vale0. */
#define NM_BDG_NAME "vale"

/* Before fields that programs only read. The server, which writes them, makes it empty. */
#ifndef NETMAP_READONLY
#define NETMAP_READONLY const
#endif

/* ---- shared memory: slots, rings, the interface descriptor ----------------------------------- */

/*
 * One entry of a ring: 16 bytes. A frame takes one slot, or several: then all but the last carry
 * NS_MOREFRAG.
 */
struct netmap_slot {
    uint32_t buf_idx; /* which buffer; 0 and 1 are never given out, 0 says "none" */
    uint16_t len;     /* bytes of the frame in this buffer, without FCS */
    uint16_t flags;   /* NS_* */
    uint64_t ptr;     /* NS_INDIRECT: address of the data; with offsets: where the data begins */
};

/* NS_BUF_CHANGED is set by whoever puts another buf_idx into a slot: the program, which must, or
 * the server where it swaps buffers. The server clears it once it has seen it. */
#define NS_BUF_CHANGED 0x0001
#define NS_REPORT 0x0002   /* TX: give this slot back as soon as it has left */
#define NS_FORWARD 0x0004  /* RX, with NR_FORWARD: when released, pass on to host or NIC */
#define NS_NO_LEARN 0x0008 /* switch: do not learn from this frame; acted upon by nobody */
#define NS_INDIRECT 0x0010 /* switch, TX: the data is at ptr in the sender's memory */
#define NS_MOREFRAG 0x0020 /* the frame goes on in the next slot */
#define NS_TXMON 0x0040    /* copy monitor, RX: the frame was on its way out */

/* Bits 8 to 15: on frames received from a switch, how many slots the frame occupies. */
#define NS_PORT_SHIFT 8
#define NS_PORT_MASK (0xff << NS_PORT_SHIFT)
#define NS_RFRAGS(slot) (((slot)->flags >> NS_PORT_SHIFT) & 0xff)

/* A frame never needs more slots than this. */
#define NETMAP_MAX_FRAGS 64

/* Alignment that keeps a ring's semaphore area and its slots on cache lines of their own. */
#define NM_CACHE_ALIGN 128

/*
 * A ring: 256 bytes, then num_slots slots. Indices run from 0 to num_slots - 1 and wrap.
 *
 * The program owns the slots from head up to, not including, tail. It gives slots back by moving
 * head: on a TX ring that sends the frames in them, on an RX ring it returns buffers that have been
 * read. cur, somewhere from head to tail, says how far the program has looked: poll() wakes when
 * tail moves past it. The server looks at head and cur and writes tail only inside NIOCTXSYNC,
 * NIOCRXSYNC and poll(). An idle TX ring has tail one slot before head (num_slots - 1 slots can be
 * filled), an empty RX ring has tail equal to head.
 */
struct netmap_ring {
    NETMAP_READONLY int64_t buf_ofs;      /* from this ring to buffer 0 */
    NETMAP_READONLY uint32_t num_slots;   /* slots in this ring */
    NETMAP_READONLY uint32_t nr_buf_size; /* bytes in each buffer */
    NETMAP_READONLY uint16_t ringid;      /* number of the ring; host rings follow the NIC's */
    NETMAP_READONLY uint16_t dir;         /* 0 receive, 1 transmit */

    uint32_t head;  /* program: first slot it keeps */
    uint32_t cur;   /* program: wake me when tail passes this */
    uint32_t tail;  /* server: first slot the program may not touch */
    uint32_t flags; /* NR_TIMESTAMP, NR_FORWARD */

    struct timeval ts; /* RX: wall clock at the latest sync */

    uint64_t offset_mask; /* with offsets: the bits of slot->ptr that hold the offset */
    uint64_t buf_align;   /* alignment in bytes that the port's hardware wants; 0 none */

    /* Room for a lock between programs. Objects in a region are aligned to 64 bytes, no more. */
    uint8_t sem[128] __attribute__((aligned(64)));

    struct netmap_slot slot[];
};

/* Ring flags, written by the program. */
#define NR_TIMESTAMP 0x0002 /* keep ts up to date even when the server is told not to */
#define NR_FORWARD 0x0004   /* look at NS_FORWARD in the slots that are released */

/*
 * What one registration sees of a port: 56 bytes (API 10: 40), then one offset for each ring,
 * counted from this struct: NIC TX rings, host TX rings, NIC RX rings, host RX rings. The offset is
 * 0 for every ring the registration has not bound.
 */
struct netmap_if {
    char ni_name[NETMAP_LEGACY_IFNAMSIZ]; /* name of the port, cut to 15 characters */
    NETMAP_READONLY uint32_t ni_version;  /* not written by any server of API 14 */
    NETMAP_READONLY uint32_t ni_flags;    /* NI_* */

    NETMAP_READONLY uint32_t ni_tx_rings; /* NIC rings, host rings not counted */
    NETMAP_READONLY uint32_t ni_rx_rings;

#if NETMAP_API >= 11
    /* First of the extra buffers, 0 none. The first uint32_t in each buffer is the index of the
     * next; 0 ends the list. Programs take from it and add to it; what is on the list at close goes
     * back to the pool. */
    uint32_t ni_bufs_head;
#endif
#if NETMAP_API >= 14
    NETMAP_READONLY uint32_t ni_host_tx_rings; /* at least 1, even for ports that have none */
    NETMAP_READONLY uint32_t ni_host_rx_rings;
#define _NETMAP_HOST_RINGS(nifp, dir) ((nifp)->ni_host_##dir##_rings)
    uint32_t ni_spare1[3];
#else
#define _NETMAP_HOST_RINGS(nifp, dir) 1
    uint32_t ni_spare1[NETMAP_API == 10 ? 2 : 5];
#endif
    NETMAP_READONLY ssize_t ring_ofs[];
};

#define NI_PRIV_MEM 0x1 /* the port's memory is a region of its own */

/* ---- NIOCCTRL: header, options, request bodies ----------------------------------------------- */

/* nr_reqtype: what NIOCCTRL is asked to do, and the body that goes with it. */
enum {
    NETMAP_REQ_REGISTER = 1,      /* nmreq_register: bind a port to this file */
    NETMAP_REQ_PORT_INFO_GET = 2, /* nmreq_port_info_get: its rings, slots and memory */
    NETMAP_REQ_VALE_ATTACH = 3,   /* nmreq_vale_attach: put an interface on a switch */
    NETMAP_REQ_VALE_DETACH = 4,   /* nmreq_vale_detach: take it off again */
    NETMAP_REQ_VALE_LIST = 5,     /* nmreq_vale_list: look up, or walk, the ports of switches */
    NETMAP_REQ_PORT_HDR_SET = 6,  /* nmreq_port_hdr: virtio-net header of a switch port */
    NETMAP_REQ_PORT_HDR_GET = 7,  /* nmreq_port_hdr */
    NETMAP_REQ_VALE_NEWIF = 8,    /* nmreq_vale_newif: make a persistent port */
    NETMAP_REQ_VALE_DELIF = 9,    /* no body: remove a persistent port */
    NETMAP_REQ_VALE_POLLING_ENABLE = 10, /* nmreq_vale_polling: the server polls an attached NIC */
    NETMAP_REQ_VALE_POLLING_DISABLE = 11,
    NETMAP_REQ_POOLS_INFO_GET = 12,   /* nmreq_pools_info: where the pools of a port's memory are */
    NETMAP_REQ_SYNC_KLOOP_START = 13, /* nmreq_sync_kloop_start: sync from inside, until stopped */
    NETMAP_REQ_SYNC_KLOOP_STOP = 14,  /* no body */
    NETMAP_REQ_CSB_ENABLE = 15, /* no body, option CSB: indices move to the program's memory */
};

/* nro_reqtype: kinds of options, the struct of each and the requests it goes with. */
enum {
    NETMAP_REQ_OPT_EXTMEM = 1,              /* nmreq_opt_extmem, REGISTER */
    NETMAP_REQ_OPT_SYNC_KLOOP_EVENTFDS = 2, /* nmreq_opt_sync_kloop_eventfds, SYNC_KLOOP_START */
    NETMAP_REQ_OPT_CSB = 3,                 /* nmreq_opt_csb, REGISTER or CSB_ENABLE */
    NETMAP_REQ_OPT_SYNC_KLOOP_MODE = 4,     /* nmreq_opt_sync_kloop_mode, SYNC_KLOOP_START */
    NETMAP_REQ_OPT_OFFSETS = 5,             /* nmreq_opt_offsets, REGISTER */
    NETMAP_REQ_OPT_MAX                      /* one past the last */
};

/* The argument of NIOCCTRL: 88 bytes. Errors of the header itself: EINVAL (version, nr_reserved not
 * 0, unknown type, a body where none belongs or the reverse), EFAULT, EMSGSIZE (body and options
 * together exceed NETMAP_REQ_MAXSIZE). */
struct nmreq_header {
    uint16_t nr_version;               /* NETMAP_API */
    uint16_t nr_reqtype;               /* NETMAP_REQ_* */
    uint32_t nr_reserved;              /* 0 */
    char nr_name[NETMAP_REQ_IFNAMSIZ]; /* port, without the "netmap:" that programs put before it */
    uint64_t nr_options;               /* address of the first nmreq_option, 0 none */
    uint64_t nr_body;                  /* address of the body, 0 where there is none */
};

/* What every option begins with: 24 bytes. */
struct nmreq_option {
    uint64_t nro_next;    /* address of the next option, 0 the end */
    uint32_t nro_reqtype; /* NETMAP_REQ_OPT_* */
    uint32_t nro_status;  /* out: 0 or an errno; EOPNOTSUPP if nobody looked at the option */
    uint64_t nro_size;    /* whole size of an option of variable size, 0 for others */
};

#define NETMAP_REQ_MAXSIZE 4096

/*
 * REGISTER: 56 bytes (API 13: 48). Counts of 0 ask for the default; the answer holds what the port
 * really has. EBUSY: the file is bound already, or the rings are in exclusive use, or the port
 * belongs to a switch. ENXIO: no such interface. EINVAL: bad mode, ring number or memory id, or
 * frames of the interface's MTU do not fit a buffer. ENOMEM: a pool is used up. EIO: the port has
 * virtio-net headers and NR_ACCEPT_VNET_HDR is missing.
 */
struct nmreq_register {
    uint64_t nr_offset;   /* out: the netmap_if, from the start of the mapping */
    uint64_t nr_memsize;  /* out: length to mmap() */
    uint32_t nr_tx_slots; /* in and out: slots of each ring */
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings; /* in and out: NIC rings */
    uint16_t nr_rx_rings;
#if NETMAP_API >= 14
    uint16_t nr_host_tx_rings; /* in and out: host rings */
    uint16_t nr_host_rx_rings;
#endif
    uint16_t nr_mem_id; /* in and out: region; ports with equal ids can swap buffers */
    uint16_t nr_ringid; /* in: which ring, for the ONE_* modes */
    uint32_t nr_mode;   /* in: NR_REG_* */
#if NETMAP_API >= 13
    uint32_t nr_extra_bufs; /* in and out: buffers wanted, and granted, on the list ni_bufs_head */
#endif
    uint64_t nr_flags; /* in: NR_*; unknown bits are ignored */
#if NETMAP_API < 13
    uint32_t nr_extra_bufs;
#endif
};

/* nr_mode, also the low bits of the legacy nr_flags: which rings are bound. */
enum {
    NR_REG_DEFAULT = 0,     /* legacy only: nr_ringid decides */
    NR_REG_ALL_NIC = 1,     /* all NIC rings */
    NR_REG_SW = 2,          /* all host rings */
    NR_REG_NIC_SW = 3,      /* both */
    NR_REG_ONE_NIC = 4,     /* NIC ring nr_ringid */
    NR_REG_PIPE_MASTER = 5, /* legacy only: pipe nr_ringid of the port, like "{N" in the name */
    NR_REG_PIPE_SLAVE = 6,  /* legacy only: the same with "}N" */
    NR_REG_NULL = 7,        /* no device at all: rings and buffers only */
    NR_REG_ONE_SW = 8,      /* host ring nr_ringid */
};
#define NR_REG_MASK 0xf

/* nr_flags */
#define NR_MONITOR_TX 0x100       /* be a monitor of what the port sends */
#define NR_MONITOR_RX 0x200       /* be a monitor of what the port receives */
#define NR_ZCOPY_MON 0x400        /* be a monitor of both that swaps buffers instead of copying */
#define NR_EXCLUSIVE 0x800        /* nobody else may bind these rings */
#define NR_RX_RINGS_ONLY 0x2000   /* bind no TX rings */
#define NR_TX_RINGS_ONLY 0x4000   /* bind no RX rings */
#define NR_ACCEPT_VNET_HDR 0x8000 /* the program handles a virtio-net header before each frame */
#define NR_DO_RX_POLL 0x10000     /* accepted, without effect */
#define NR_NO_TX_POLL 0x20000     /* only poll() for POLLOUT sends; without this flag any does */

/* PORT_INFO_GET: 32 bytes (API 12, 13: 24). With an empty name only nr_memsize and nr_mem_id are
 * answered. */
struct nmreq_port_info_get {
    uint64_t nr_memsize;
    uint32_t nr_tx_slots;
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
#if NETMAP_API >= 14
    uint16_t nr_host_tx_rings;
    uint16_t nr_host_rx_rings;
    uint16_t nr_mem_id;
    uint16_t pad[3];
#else
    uint16_t nr_mem_id;
    uint16_t pad;
#endif
};

/* VALE_ATTACH: 64 bytes (API 13: 56); reg.nr_mode ALL_NIC, or NIC_SW for the host stack on the
 * switch too. */
struct nmreq_vale_attach {
    struct nmreq_register reg;
    uint32_t port_index; /* out: its place on the switch */
    uint32_t pad1;
};

/* VALE_DETACH: 8 bytes (API 12: 4). */
struct nmreq_vale_detach {
    uint32_t port_index; /* out */
#if NETMAP_API >= 13
    uint32_t pad1;
#endif
};

/* VALE_LIST: 8 bytes. Without a name: the first port from these indices on, its name put into the
 * header; ENOENT at the end. */
struct nmreq_vale_list {
    uint16_t nr_bridge_idx; /* in and out */
    uint16_t pad1;
    uint32_t nr_port_idx; /* in and out */
};

/* PORT_HDR_SET and PORT_HDR_GET: 8 bytes (API 12: 4). */
struct nmreq_port_hdr {
    uint32_t nr_hdr_len; /* 0, 10 or 12; others EINVAL */
#if NETMAP_API >= 13
    uint32_t pad1;
#endif
};

/* VALE_NEWIF: 16 bytes; 0 asks for the default, the answer is what is in effect. */
struct nmreq_vale_newif {
    uint32_t nr_tx_slots;
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
    uint16_t nr_mem_id;
    uint16_t pad1;
};

/* VALE_POLLING_ENABLE and VALE_POLLING_DISABLE: 16 bytes (API 12: 12). */
struct nmreq_vale_polling {
    uint32_t nr_mode; /* NETMAP_POLLING_MODE_* */
    uint32_t nr_first_cpu_id;
    uint32_t nr_num_polling_cpus;
#if NETMAP_API >= 13
    uint32_t pad1;
#endif
};

#define NETMAP_POLLING_MODE_SINGLE_CPU 1 /* one CPU polls all rings */
#define NETMAP_POLLING_MODE_MULTI_CPU 2  /* CPU first + i polls ring i */

/* POOLS_INFO_GET, also in the option EXTMEM: 64 bytes. Three pools of objects of one size each. */
struct nmreq_pools_info {
    uint64_t nr_memsize; /* of the region */
    uint16_t nr_mem_id;
    uint16_t pad1[3];
    uint64_t nr_if_pool_offset; /* from the start of the region */
    uint32_t nr_if_pool_objtotal;
    uint32_t nr_if_pool_objsize;
    uint64_t nr_ring_pool_offset;
    uint32_t nr_ring_pool_objtotal;
    uint32_t nr_ring_pool_objsize;
    uint64_t nr_buf_pool_offset;
    uint32_t nr_buf_pool_objtotal;
    uint32_t nr_buf_pool_objsize;
};

/* SYNC_KLOOP_START: 8 bytes (API 12: 4). Returns when another thread asks the same file for
 * SYNC_KLOOP_STOP. */
struct nmreq_sync_kloop_start {
    uint32_t sleep_us; /* pause between rounds when there are no eventfds, at most 1000000 */
#if NETMAP_API >= 13
    uint32_t pad1;
#endif
};

/* Option CSB: 40 bytes. EINVAL: no NR_EXCLUSIVE, or not aligned. EFAULT: not mapped. */
struct nmreq_opt_csb {
    struct nmreq_option nro_opt;
    uint64_t csb_atok; /* address of an array of nm_csb_atok (<net/netmap_csb.h>) */
    uint64_t csb_ktoa; /* address of an array of nm_csb_ktoa */
};

/* Option SYNC_KLOOP_EVENTFDS: 24 bytes and 8 for each bound ring; nro_size holds the sum. */
struct nmreq_opt_sync_kloop_eventfds {
    struct nmreq_option nro_opt;
    struct {
        int32_t ioeventfd; /* program to server, -1 none */
        int32_t irqfd;     /* server to program, -1 none */
    } eventfds[];
};

/* Option SYNC_KLOOP_MODE: 32 bytes. Work at the moment of a kick, not in the loop; only if all
 * rings have ioeventfds. */
struct nmreq_opt_sync_kloop_mode {
    struct nmreq_option nro_opt;
    uint32_t mode; /* NM_OPT_SYNC_KLOOP_* */
    uint32_t pad1;
};

#define NM_OPT_SYNC_KLOOP_DIRECT_TX 0x1
#define NM_OPT_SYNC_KLOOP_DIRECT_RX 0x2

/* Option EXTMEM: 96 bytes. The program brings the memory; offsets then count from nro_usrptr and
 * nothing is mapped. */
struct nmreq_opt_extmem {
    struct nmreq_option nro_opt;
    uint64_t nro_usrptr;              /* start of the memory */
    struct nmreq_pools_info nro_info; /* in: size and geometry, 0 default; out: what was made */
};

/*
 * Option OFFSETS: 56 bytes. Frames may begin inside their buffer: the low nro_offset_bits bits of
 * slot->ptr say where. EOPNOTSUPP: the port has no offsets. EINVAL: they do not fit. EBUSY: the
 * ring is in use with less.
 */
struct nmreq_opt_offsets {
    struct nmreq_option nro_opt;
    uint64_t nro_max_offset;     /* in: largest offset that will be used; out: the one in effect */
    uint64_t nro_initial_offset; /* what all slots begin with */
    uint32_t nro_offset_bits;    /* width of the offset in slot->ptr; 0 or 64: all of it */
    uint32_t nro_tx_align;       /* TX offsets are multiples of this; 0 no promise */
    uint64_t nro_min_gap; /* bytes to leave alone behind the data, when frames share a buffer */
};

/* ---- the legacy request ---------------------------------------------------------------------- */

/* The argument of NIOCGINFO and NIOCREGIF: 60 bytes. */
struct nmreq {
    char nr_name[NETMAP_LEGACY_IFNAMSIZ];
    uint32_t nr_version;
    uint32_t nr_offset;   /* out, REGIF: the netmap_if, from the start of the mapping */
    uint32_t nr_memsize;  /* out: length to mmap() */
    uint32_t nr_tx_slots; /* in and out */
    uint32_t nr_rx_slots;
    uint16_t nr_tx_rings;
    uint16_t nr_rx_rings;
    uint16_t nr_ringid; /* ring number and the bits below */
    uint16_t nr_cmd;    /* 0, or NETMAP_BDG_* to do something with a switch */
    uint16_t nr_arg1;   /* depends on nr_cmd */
    uint16_t nr_arg2;   /* memory id, as nr_mem_id of nmreq_register */
#if NETMAP_API >= 11
    uint32_t nr_arg3;  /* extra buffers, as nr_extra_bufs */
    uint32_t nr_flags; /* NR_REG_* in the low four bits, above them NR_* */
    uint32_t spare2[1];
#else
    uint32_t spare2[3];
#endif
};

#define NETMAP_RING_MASK 0x0fff  /* nr_ringid: number of the ring */
#define NETMAP_NO_TX_POLL 0x1000 /* as NR_NO_TX_POLL */
#define NETMAP_SW_RING 0x2000    /* with NR_REG_DEFAULT: host rings */
#define NETMAP_HW_RING 0x4000    /* with NR_REG_DEFAULT: the NIC ring of that number */
#define NETMAP_DO_RX_POLL 0x8000 /* as NR_DO_RX_POLL */

/* nr_cmd */
#define NETMAP_BDG_ATTACH 1      /* VALE_ATTACH; nr_arg1 NETMAP_BDG_HOST: the host stack too */
#define NETMAP_BDG_DETACH 2      /* VALE_DETACH */
#define NETMAP_BDG_REGOPS 3      /* inside the kernel only; EINVAL */
#define NETMAP_BDG_LIST 4        /* with GINFO, VALE_LIST: nr_arg1 switch, nr_arg2 port */
#define NETMAP_BDG_VNET_HDR 5    /* PORT_HDR_SET: nr_arg1 length */
#define NETMAP_BDG_NEWIF 6       /* VALE_NEWIF */
#define NETMAP_BDG_DELIF 7       /* VALE_DELIF */
#define NETMAP_PT_HOST_CREATE 8  /* passthrough to virtual machines of old kernels; fails */
#define NETMAP_PT_HOST_DELETE 9  /* the same */
#define NETMAP_BDG_POLLING_ON 10 /* VALE_POLLING_ENABLE: nr_ringid first CPU, nr_arg1 CPUs */
#define NETMAP_BDG_POLLING_OFF 11
#define NETMAP_VNET_HDR_GET 12 /* PORT_HDR_GET: length in nr_arg1 */

#define NETMAP_BDG_OFFSET NETMAP_BDG_VNET_HDR /* what it was called once */
#define NETMAP_BDG_HOST 1

/* The argument of NIOCCONFIG: 272 bytes, for switches with settings of their own; else EINVAL. */
#define NM_IFRDATA_LEN 256
struct nm_ifreq {
    char nifr_name[NETMAP_LEGACY_IFNAMSIZ];
    char data[NM_IFRDATA_LEN];
};

/* ---- ioctls ---------------------------------------------------------------------------------- */

/* Other commands: EOPNOTSUPP. The syncs take no argument and do not block; unregistered: ENXIO. */
#define NIOCGINFO _IOWR('i', 145, struct nmreq)
#define NIOCREGIF _IOWR('i', 146, struct nmreq)
#define NIOCTXSYNC _IO('i', 148)
#define NIOCRXSYNC _IO('i', 149)
#define NIOCCONFIG _IOWR('i', 150, struct nm_ifreq)
#if NETMAP_API >= 12
#define NIOCCTRL _IOWR('i', 151, struct nmreq_header)
#endif

#endif /* NETMAP_OLD_API */

#endif /* _NET_NETMAP_H_ */
