/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ABI as the daemon relies on it: proof that <net/netmap.h> has the layouts of netmap(4), and
 * the limits and default geometry that programs never see; what programs do see is in
 * <net/netmap.h> alone.
 */
#ifndef NETMAP_ABI_H
#define NETMAP_ABI_H

/* The server writes what programs only read. */
#ifdef _NET_NETMAP_H_
#error "include netmap_abi.h instead of, or before, <net/netmap.h>"
#endif
#define NETMAP_READONLY
#include <net/netmap.h>
#include <stddef.h>

/* The unregister ioctl of API 5 and before; today closing the file is the only way. */
#define NIOCUNREGIF _IO('i', 147)

/* ---- requests -------------------------------------------------------------------------------- */

/* Body and options of one request: together at most NETMAP_REQ_MAXSIZE bytes; with the bookkeeping
 * that a kernel keeps beside them, this much. More is EMSGSIZE. */
#define NETMAP_REQ_BUFFER_SIZE                                                                     \
    ((2 + NETMAP_REQ_OPT_MAX) * 8 + NETMAP_REQ_MAXSIZE + NETMAP_REQ_OPT_MAX * 8)

/* The largest body of any request. */
#define NETMAP_REQ_BODY_MAX 64

/* Lengths of the virtio-net header that a port may have. */
#define NETMAP_VNET_HDR_NONE 0
#define NETMAP_VNET_HDR_SHORT 10
#define NETMAP_VNET_HDR_MERGEABLE 12

#define NETMAP_KLOOP_SLEEP_MAX_US 1000000
#define NETMAP_KLOOP_KICK_WAIT_MAX_MS 3000

#define NETMAP_CSB_ALIGN 64

/* ---- ports ----------------------------------------------------------------------------------- */

#define NETMAP_DEFAULT_SLOTS 1024
#define NETMAP_SLOTS_MIN 3 /* what a driver reports below this is not believed */

#define NETMAP_VALE_MAX_SWITCHES 8 /* parameter max_bridges */
#define NETMAP_VALE_MAX_PORTS 254
#define NETMAP_VALE_PORT_BROADCAST 254
#define NETMAP_VALE_PORT_NONE 255
#define NETMAP_VALE_MAX_RINGS 16
#define NETMAP_VALE_MAX_SLOTS 4096
#define NETMAP_VALE_PORT_NAME_MAX 16 /* from the ':' on, the ':' counted */
#define NETMAP_VALE_BATCH 1024       /* parameter bridge_batch */
#define NETMAP_VALE_HASH_ENTRIES 1024
#define NETMAP_VALE_SEGMENT_SIZE 1514 /* of GSO frames for ports without the header */

#define NETMAP_PIPE_MAX_RINGS 256
#define NETMAP_PIPE_MAX_SLOTS 4096
#define NETMAP_PIPE_MAX_PER_PORT 64

#define NETMAP_MONITOR_MAX_SLOTS 4096

/* Frames shorter than an Ethernet header are dropped on switches and when forwarded. */
#define NETMAP_FRAME_MIN 14

/* Above this MTU a port cannot split frames over buffers: REGISTER is EINVAL. */
#define NETMAP_RX_MTU_SPLIT_MAX 32768

/* netmap_ring.dir: the reverse of what the oldest documentation says, and what all kernels do. */
#define NETMAP_RING_DIR_RX 0
#define NETMAP_RING_DIR_TX 1

/* ---- memory ---------------------------------------------------------------------------------- */

/*
 * A region is three pools, in this order and without gaps: netmap_if objects, rings, buffers. An
 * object's size is rounded up to NETMAP_POOL_OBJECT_ALIGN, a pool's number of objects up to whole
 * clusters (the fewest objects that fill whole pages of NETMAP_POOL_PAGE_SIZE).
 */
#define NETMAP_POOL_OBJECT_ALIGN 64
#define NETMAP_POOL_PAGE_SIZE 4096

#define NETMAP_REGION_GLOBAL_ID 1
#define NETMAP_REGION_ID_MAX 65535

/* Region 1; parameters if_num, if_size and so on. */
#define NETMAP_GLOBAL_IF_COUNT 100
#define NETMAP_GLOBAL_IF_SIZE 1024
#define NETMAP_GLOBAL_RING_COUNT 200
#define NETMAP_GLOBAL_RING_SIZE 36864
#define NETMAP_GLOBAL_BUF_COUNT 163840
#define NETMAP_GLOBAL_BUF_SIZE 2048
#define NETMAP_GLOBAL_MEMSIZE 343019520

/* Private regions never have less than this; parameters priv_if_num and so on. Extmem starts from
 * it as well. */
#define NETMAP_PRIVATE_IF_COUNT 2
#define NETMAP_PRIVATE_IF_SIZE 1024
#define NETMAP_PRIVATE_RING_COUNT 4
#define NETMAP_PRIVATE_RING_SIZE 20480
#define NETMAP_PRIVATE_BUF_COUNT 4098
#define NETMAP_PRIVATE_BUF_SIZE 2048

/* What the defaults come to for a switch port of one ring of 1024 slots, and for a copy monitor. */
#define NETMAP_VALE_DEFAULT_IF_COUNT 12
#define NETMAP_VALE_DEFAULT_RING_COUNT 20
#define NETMAP_VALE_DEFAULT_BUF_COUNT 20482
#define NETMAP_VALE_DEFAULT_MEMSIZE 42369024
#define NETMAP_MONITOR_DEFAULT_IF_COUNT 4
#define NETMAP_MONITOR_DEFAULT_MEMSIZE 8478720

/* What a pool may be asked to be, object sizes in bytes; outside of it EINVAL. */
#define NETMAP_IF_SIZE_MIN 56
#define NETMAP_IF_SIZE_MAX 4096
#define NETMAP_IF_COUNT_MIN 10 /* region 1; private regions 1 to 100 */
#define NETMAP_IF_COUNT_MAX 10000
#define NETMAP_PRIVATE_IF_COUNT_MIN 1
#define NETMAP_PRIVATE_IF_COUNT_MAX 100
#define NETMAP_RING_SIZE_MIN 256
#define NETMAP_RING_SIZE_MAX 131072
#define NETMAP_RING_COUNT_MIN 2
#define NETMAP_RING_COUNT_MAX 1024
#define NETMAP_BUF_SIZE_MIN 64
#define NETMAP_BUF_SIZE_MAX 65536
#define NETMAP_BUF_COUNT_MIN 4
#define NETMAP_BUF_COUNT_MAX 1000000

/* Buffers below this index are never given out. */
#define NETMAP_BUF_FIRST 2

/* Bytes of a ring object with that many slots, of a netmap_if with that many rings, and slots that
 * fit a ring object. */
#define NETMAP_RING_BYTES(slots)                                                                   \
    (sizeof(struct netmap_ring) + (size_t)(slots) * sizeof(struct netmap_slot))
#define NETMAP_IF_BYTES(rings) (sizeof(struct netmap_if) + (size_t)(rings) * sizeof(ssize_t))
#define NETMAP_RING_SLOTS(bytes)                                                                   \
    (((size_t)(bytes) - sizeof(struct netmap_ring)) / sizeof(struct netmap_slot))

/* ---- proof ----------------------------------------------------------------------------------- */

/* ring_ofs[] and struct timeval have these layouts on 64-bit machines only; so does the daemon. */
_Static_assert(sizeof(void *) == 8, "the daemon is for 64-bit machines");
_Static_assert(sizeof(ssize_t) == 8 && sizeof(struct timeval) == 16, "64-bit types");

#define NETMAP_ASSERT_SIZE(type, size)                                                             \
    _Static_assert(sizeof(struct type) == (size), "size of struct " #type)
#define NETMAP_ASSERT_FIELD(type, field, offset, size)                                             \
    _Static_assert(offsetof(struct type, field) == (offset) &&                                     \
                       sizeof(((struct type *)0)->field) == (size),                                \
                   "place of " #type "." #field)
#define NETMAP_ASSERT_ARRAY(type, field, offset, element)                                          \
    _Static_assert(offsetof(struct type, field) == (offset) &&                                     \
                       sizeof(((struct type *)0)->field[0]) == (element),                          \
                   "place of " #type "." #field)

_Static_assert(NIOCGINFO == 0xc03c6991, "NIOCGINFO");
_Static_assert(NIOCREGIF == 0xc03c6992, "NIOCREGIF");
_Static_assert(NIOCUNREGIF == 0x00006993, "NIOCUNREGIF");
_Static_assert(NIOCTXSYNC == 0x00006994, "NIOCTXSYNC");
_Static_assert(NIOCRXSYNC == 0x00006995, "NIOCRXSYNC");
_Static_assert(NIOCCONFIG == 0xc1106996, "NIOCCONFIG");
_Static_assert(NIOCCTRL == 0xc0586997, "NIOCCTRL");

NETMAP_ASSERT_SIZE(nmreq, 60);
_Static_assert(_Alignof(struct nmreq) == 4, "alignment of struct nmreq");
NETMAP_ASSERT_FIELD(nmreq, nr_name, 0, 16);
NETMAP_ASSERT_FIELD(nmreq, nr_version, 16, 4);
NETMAP_ASSERT_FIELD(nmreq, nr_offset, 20, 4);
NETMAP_ASSERT_FIELD(nmreq, nr_memsize, 24, 4);
NETMAP_ASSERT_FIELD(nmreq, nr_tx_slots, 28, 4);
NETMAP_ASSERT_FIELD(nmreq, nr_rx_slots, 32, 4);
NETMAP_ASSERT_FIELD(nmreq, nr_tx_rings, 36, 2);
NETMAP_ASSERT_FIELD(nmreq, nr_rx_rings, 38, 2);
NETMAP_ASSERT_FIELD(nmreq, nr_ringid, 40, 2);
NETMAP_ASSERT_FIELD(nmreq, nr_cmd, 42, 2);
NETMAP_ASSERT_FIELD(nmreq, nr_arg1, 44, 2);
NETMAP_ASSERT_FIELD(nmreq, nr_arg2, 46, 2);
NETMAP_ASSERT_FIELD(nmreq, nr_arg3, 48, 4);
NETMAP_ASSERT_FIELD(nmreq, nr_flags, 52, 4);
NETMAP_ASSERT_FIELD(nmreq, spare2, 56, 4);

NETMAP_ASSERT_SIZE(nmreq_header, 88);
NETMAP_ASSERT_FIELD(nmreq_header, nr_version, 0, 2);
NETMAP_ASSERT_FIELD(nmreq_header, nr_reqtype, 2, 2);
NETMAP_ASSERT_FIELD(nmreq_header, nr_reserved, 4, 4);
NETMAP_ASSERT_FIELD(nmreq_header, nr_name, 8, 64);
NETMAP_ASSERT_FIELD(nmreq_header, nr_options, 72, 8);
NETMAP_ASSERT_FIELD(nmreq_header, nr_body, 80, 8);

NETMAP_ASSERT_SIZE(nmreq_option, 24);
NETMAP_ASSERT_FIELD(nmreq_option, nro_next, 0, 8);
NETMAP_ASSERT_FIELD(nmreq_option, nro_reqtype, 8, 4);
NETMAP_ASSERT_FIELD(nmreq_option, nro_status, 12, 4);
NETMAP_ASSERT_FIELD(nmreq_option, nro_size, 16, 8);

NETMAP_ASSERT_SIZE(nmreq_register, 56);
NETMAP_ASSERT_FIELD(nmreq_register, nr_offset, 0, 8);
NETMAP_ASSERT_FIELD(nmreq_register, nr_memsize, 8, 8);
NETMAP_ASSERT_FIELD(nmreq_register, nr_tx_slots, 16, 4);
NETMAP_ASSERT_FIELD(nmreq_register, nr_rx_slots, 20, 4);
NETMAP_ASSERT_FIELD(nmreq_register, nr_tx_rings, 24, 2);
NETMAP_ASSERT_FIELD(nmreq_register, nr_rx_rings, 26, 2);
NETMAP_ASSERT_FIELD(nmreq_register, nr_host_tx_rings, 28, 2);
NETMAP_ASSERT_FIELD(nmreq_register, nr_host_rx_rings, 30, 2);
NETMAP_ASSERT_FIELD(nmreq_register, nr_mem_id, 32, 2);
NETMAP_ASSERT_FIELD(nmreq_register, nr_ringid, 34, 2);
NETMAP_ASSERT_FIELD(nmreq_register, nr_mode, 36, 4);
NETMAP_ASSERT_FIELD(nmreq_register, nr_extra_bufs, 40, 4);
NETMAP_ASSERT_FIELD(nmreq_register, nr_flags, 48, 8);

NETMAP_ASSERT_SIZE(nmreq_port_info_get, 32);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_memsize, 0, 8);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_tx_slots, 8, 4);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_rx_slots, 12, 4);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_tx_rings, 16, 2);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_rx_rings, 18, 2);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_host_tx_rings, 20, 2);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_host_rx_rings, 22, 2);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, nr_mem_id, 24, 2);
NETMAP_ASSERT_FIELD(nmreq_port_info_get, pad, 26, 6);

NETMAP_ASSERT_SIZE(nmreq_vale_attach, 64);
NETMAP_ASSERT_FIELD(nmreq_vale_attach, reg, 0, 56);
NETMAP_ASSERT_FIELD(nmreq_vale_attach, port_index, 56, 4);

NETMAP_ASSERT_SIZE(nmreq_vale_detach, 8);
NETMAP_ASSERT_FIELD(nmreq_vale_detach, port_index, 0, 4);

NETMAP_ASSERT_SIZE(nmreq_vale_list, 8);
NETMAP_ASSERT_FIELD(nmreq_vale_list, nr_bridge_idx, 0, 2);
NETMAP_ASSERT_FIELD(nmreq_vale_list, nr_port_idx, 4, 4);

NETMAP_ASSERT_SIZE(nmreq_port_hdr, 8);
NETMAP_ASSERT_FIELD(nmreq_port_hdr, nr_hdr_len, 0, 4);

NETMAP_ASSERT_SIZE(nmreq_vale_newif, 16);
NETMAP_ASSERT_FIELD(nmreq_vale_newif, nr_tx_slots, 0, 4);
NETMAP_ASSERT_FIELD(nmreq_vale_newif, nr_rx_slots, 4, 4);
NETMAP_ASSERT_FIELD(nmreq_vale_newif, nr_tx_rings, 8, 2);
NETMAP_ASSERT_FIELD(nmreq_vale_newif, nr_rx_rings, 10, 2);
NETMAP_ASSERT_FIELD(nmreq_vale_newif, nr_mem_id, 12, 2);

NETMAP_ASSERT_SIZE(nmreq_vale_polling, 16);
NETMAP_ASSERT_FIELD(nmreq_vale_polling, nr_mode, 0, 4);
NETMAP_ASSERT_FIELD(nmreq_vale_polling, nr_first_cpu_id, 4, 4);
NETMAP_ASSERT_FIELD(nmreq_vale_polling, nr_num_polling_cpus, 8, 4);

NETMAP_ASSERT_SIZE(nmreq_pools_info, 64);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_memsize, 0, 8);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_mem_id, 8, 2);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_if_pool_offset, 16, 8);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_if_pool_objtotal, 24, 4);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_if_pool_objsize, 28, 4);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_ring_pool_offset, 32, 8);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_ring_pool_objtotal, 40, 4);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_ring_pool_objsize, 44, 4);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_buf_pool_offset, 48, 8);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_buf_pool_objtotal, 56, 4);
NETMAP_ASSERT_FIELD(nmreq_pools_info, nr_buf_pool_objsize, 60, 4);

NETMAP_ASSERT_SIZE(nmreq_sync_kloop_start, 8);
NETMAP_ASSERT_FIELD(nmreq_sync_kloop_start, sleep_us, 0, 4);

NETMAP_ASSERT_SIZE(nm_csb_atok, 64);
NETMAP_ASSERT_FIELD(nm_csb_atok, head, 0, 4);
NETMAP_ASSERT_FIELD(nm_csb_atok, cur, 4, 4);
NETMAP_ASSERT_FIELD(nm_csb_atok, appl_need_kick, 8, 4);
NETMAP_ASSERT_FIELD(nm_csb_atok, sync_flags, 12, 4);

NETMAP_ASSERT_SIZE(nm_csb_ktoa, 64);
NETMAP_ASSERT_FIELD(nm_csb_ktoa, hwcur, 0, 4);
NETMAP_ASSERT_FIELD(nm_csb_ktoa, hwtail, 4, 4);
NETMAP_ASSERT_FIELD(nm_csb_ktoa, kern_need_kick, 8, 4);

NETMAP_ASSERT_SIZE(nmreq_opt_sync_kloop_eventfds, 24);
NETMAP_ASSERT_FIELD(nmreq_opt_sync_kloop_eventfds, nro_opt, 0, 24);
NETMAP_ASSERT_ARRAY(nmreq_opt_sync_kloop_eventfds, eventfds, 24, 8);
NETMAP_ASSERT_FIELD(nmreq_opt_sync_kloop_eventfds, eventfds[0].ioeventfd, 24, 4);
NETMAP_ASSERT_FIELD(nmreq_opt_sync_kloop_eventfds, eventfds[0].irqfd, 28, 4);

NETMAP_ASSERT_SIZE(nmreq_opt_sync_kloop_mode, 32);
NETMAP_ASSERT_FIELD(nmreq_opt_sync_kloop_mode, nro_opt, 0, 24);
NETMAP_ASSERT_FIELD(nmreq_opt_sync_kloop_mode, mode, 24, 4);

NETMAP_ASSERT_SIZE(nmreq_opt_extmem, 96);
NETMAP_ASSERT_FIELD(nmreq_opt_extmem, nro_opt, 0, 24);
NETMAP_ASSERT_FIELD(nmreq_opt_extmem, nro_usrptr, 24, 8);
NETMAP_ASSERT_FIELD(nmreq_opt_extmem, nro_info, 32, 64);

NETMAP_ASSERT_SIZE(nmreq_opt_csb, 40);
NETMAP_ASSERT_FIELD(nmreq_opt_csb, nro_opt, 0, 24);
NETMAP_ASSERT_FIELD(nmreq_opt_csb, csb_atok, 24, 8);
NETMAP_ASSERT_FIELD(nmreq_opt_csb, csb_ktoa, 32, 8);

NETMAP_ASSERT_SIZE(nmreq_opt_offsets, 56);
NETMAP_ASSERT_FIELD(nmreq_opt_offsets, nro_opt, 0, 24);
NETMAP_ASSERT_FIELD(nmreq_opt_offsets, nro_max_offset, 24, 8);
NETMAP_ASSERT_FIELD(nmreq_opt_offsets, nro_initial_offset, 32, 8);
NETMAP_ASSERT_FIELD(nmreq_opt_offsets, nro_offset_bits, 40, 4);
NETMAP_ASSERT_FIELD(nmreq_opt_offsets, nro_tx_align, 44, 4);
NETMAP_ASSERT_FIELD(nmreq_opt_offsets, nro_min_gap, 48, 8);

NETMAP_ASSERT_SIZE(nm_ifreq, 272);
NETMAP_ASSERT_FIELD(nm_ifreq, nifr_name, 0, 16);
NETMAP_ASSERT_FIELD(nm_ifreq, data, 16, 256);

NETMAP_ASSERT_SIZE(netmap_slot, 16);
NETMAP_ASSERT_FIELD(netmap_slot, buf_idx, 0, 4);
NETMAP_ASSERT_FIELD(netmap_slot, len, 4, 2);
NETMAP_ASSERT_FIELD(netmap_slot, flags, 6, 2);
NETMAP_ASSERT_FIELD(netmap_slot, ptr, 8, 8);

NETMAP_ASSERT_SIZE(netmap_ring, 256);
NETMAP_ASSERT_FIELD(netmap_ring, buf_ofs, 0, 8);
NETMAP_ASSERT_FIELD(netmap_ring, num_slots, 8, 4);
NETMAP_ASSERT_FIELD(netmap_ring, nr_buf_size, 12, 4);
NETMAP_ASSERT_FIELD(netmap_ring, ringid, 16, 2);
NETMAP_ASSERT_FIELD(netmap_ring, dir, 18, 2);
NETMAP_ASSERT_FIELD(netmap_ring, head, 20, 4);
NETMAP_ASSERT_FIELD(netmap_ring, cur, 24, 4);
NETMAP_ASSERT_FIELD(netmap_ring, tail, 28, 4);
NETMAP_ASSERT_FIELD(netmap_ring, flags, 32, 4);
NETMAP_ASSERT_FIELD(netmap_ring, ts, 40, 16);
NETMAP_ASSERT_FIELD(netmap_ring, offset_mask, 56, 8);
NETMAP_ASSERT_FIELD(netmap_ring, buf_align, 64, 8);
NETMAP_ASSERT_FIELD(netmap_ring, sem, 128, 128);
NETMAP_ASSERT_ARRAY(netmap_ring, slot, 256, 16);

NETMAP_ASSERT_SIZE(netmap_if, 56);
NETMAP_ASSERT_FIELD(netmap_if, ni_name, 0, 16);
NETMAP_ASSERT_FIELD(netmap_if, ni_version, 16, 4);
NETMAP_ASSERT_FIELD(netmap_if, ni_flags, 20, 4);
NETMAP_ASSERT_FIELD(netmap_if, ni_tx_rings, 24, 4);
NETMAP_ASSERT_FIELD(netmap_if, ni_rx_rings, 28, 4);
NETMAP_ASSERT_FIELD(netmap_if, ni_bufs_head, 32, 4);
NETMAP_ASSERT_FIELD(netmap_if, ni_host_tx_rings, 36, 4);
NETMAP_ASSERT_FIELD(netmap_if, ni_host_rx_rings, 40, 4);
NETMAP_ASSERT_FIELD(netmap_if, ni_spare1, 44, 12);
NETMAP_ASSERT_ARRAY(netmap_if, ring_ofs, 56, 8);

_Static_assert(NETMAP_API == 14 && NETMAP_MIN_API == 14 && NETMAP_MAX_API == 15, "versions");
_Static_assert(NETMAP_REQ_CSB_ENABLE == 15 && NETMAP_REQ_OPT_MAX == 6, "request and option types");
_Static_assert(NETMAP_REQ_BUFFER_SIZE == 4208, "request buffer");
_Static_assert(sizeof(struct nmreq_vale_attach) == NETMAP_REQ_BODY_MAX &&
                   sizeof(struct nmreq_pools_info) == NETMAP_REQ_BODY_MAX,
               "largest bodies");
_Static_assert(NETMAP_GLOBAL_MEMSIZE == NETMAP_GLOBAL_IF_COUNT * NETMAP_GLOBAL_IF_SIZE +
                                            NETMAP_GLOBAL_RING_COUNT * NETMAP_GLOBAL_RING_SIZE +
                                            NETMAP_GLOBAL_BUF_COUNT * NETMAP_GLOBAL_BUF_SIZE,
               "region 1 is its pools");
_Static_assert(NETMAP_VALE_DEFAULT_MEMSIZE ==
                   NETMAP_VALE_DEFAULT_IF_COUNT * NETMAP_PRIVATE_IF_SIZE +
                       NETMAP_VALE_DEFAULT_RING_COUNT * NETMAP_PRIVATE_RING_SIZE +
                       NETMAP_VALE_DEFAULT_BUF_COUNT * NETMAP_PRIVATE_BUF_SIZE,
               "a switch port's region is its pools");
_Static_assert(NETMAP_MONITOR_DEFAULT_MEMSIZE ==
                   NETMAP_MONITOR_DEFAULT_IF_COUNT * NETMAP_PRIVATE_IF_SIZE +
                       NETMAP_PRIVATE_RING_COUNT * NETMAP_PRIVATE_RING_SIZE +
                       NETMAP_PRIVATE_BUF_COUNT * NETMAP_PRIVATE_BUF_SIZE,
               "a monitor's region is its pools");
_Static_assert(sizeof(struct netmap_if) == NETMAP_IF_SIZE_MIN &&
                   sizeof(struct netmap_ring) == NETMAP_RING_SIZE_MIN,
               "smallest objects");
_Static_assert(NETMAP_RING_SLOTS(NETMAP_GLOBAL_RING_SIZE) == 2288, "slots of a global ring");

#undef NETMAP_ASSERT_SIZE
#undef NETMAP_ASSERT_FIELD
#undef NETMAP_ASSERT_ARRAY

#endif /* NETMAP_ABI_H */
