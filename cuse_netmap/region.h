/* SPDX-License-Identifier: BSD-2-Clause */
/* Packet memory: the three pools (netmap_if objects, rings, buffers) that clients share, in a memfd
 * of ours or in memory that a program brought, and the private books of who holds what. Knows
 * nothing of ports, rings or indices. */
#ifndef CUSE_NETMAP_REGION_H
#define CUSE_NETMAP_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "barrier.h"
#include "extmem.h"
#include "netmap_abi.h"
#include "refusal.h"

enum nm_pool { NM_POOL_IF, NM_POOL_RING, NM_POOL_BUF, NM_POOLS };

/* What is asked for: sizes in bytes (rounded up to 64), and how many (rounded up to whole pages).
 */
struct nm_pool_request {
    uint32_t objsize;
    uint32_t objtotal;
};

/* What there is: offset is that of the pool's first object in the region. */
struct nm_pool_geometry {
    uint64_t offset;
    uint32_t objsize;
    uint32_t objtotal;
    uint32_t used;
};

/* Who a buffer belongs to. Lent ones are a backend's own, which a device may write to at any
 * moment, so a client that names one is refused. One in flight is named by the slot it was sent
 * from, which the client gets back when the device has read it; until then it may be read, but not
 * change hands. */
enum nm_buffer_state { NM_BUFFER_FREE, NM_BUFFER_CLIENT, NM_BUFFER_LENT, NM_BUFFER_IN_FLIGHT };

struct nm_region;
struct nm_port;

/* Makes a sealed, sparse memfd with the pools in the order if, ring, buf and maps it here.
 * -EINVAL: a size or count outside netmap's limits, or 4 GiB and more in all; -errno of the system
 * calls otherwise. */
int nm_region_create(const struct nm_pool_request request[NM_POOLS], struct nm_region **out,
                     struct nm_refusal *why);
/* The same in the first `size` bytes of a program's memory, which the region takes over if it
 * succeeds. Nothing is written there yet. Every pool begins with a page; buffers get what is left.
 * -ENOMEM: the pools are larger than the memory; -EINVAL as above. */
int nm_region_adopt(const struct nm_pool_request request[NM_POOLS], struct nm_extmem *memory,
                    uint64_t size, struct nm_region **out, struct nm_refusal *why);
/* No port may live in it any more. */
void nm_region_destroy(struct nm_region *region);
/* Whether nm_region_create would lay these pools out: 0 or its -EINVAL. */
int nm_region_check_request(const struct nm_pool_request request[NM_POOLS], struct nm_refusal *why);

/* Whether no object of any pool is taken. */
bool nm_region_unused(const struct nm_region *region);
/* Gives an unused region the memory and the pools of `fresh`, which is used up. Whoever remembers
 * something of the old ones (nm_ports_follow, a door's backing file) must ask again. */
void nm_region_replace(struct nm_region *region, struct nm_region *fresh);

int nm_region_memfd(const struct nm_region *region); /* -1: a program's memory, which is */
const struct nm_extmem *nm_region_extmem(const struct nm_region *region); /* this, or NULL */
uint64_t nm_region_size(const struct nm_region *region); /* bytes: a program's nr_memsize */
struct nm_pool_geometry nm_region_pool(const struct nm_region *region, enum nm_pool pool);

/* Another number for every memory that a region ever had. */
uint32_t nm_region_generation(const struct nm_region *region);

/* The head of the chain of ports that live in this region; the chain is ring_core's to keep. */
struct nm_port **nm_region_ports(struct nm_region *region);

/* -ENOMEM, with what was asked for and what there is in *why, unless `count` objects are free. */
int nm_region_check(const struct nm_region *region, enum nm_pool pool, uint64_t count,
                    struct nm_refusal *why);
/* The lowest free object of a pool: its index, or -ENOMEM. */
int64_t nm_region_alloc(struct nm_region *region, enum nm_pool pool);
/* Gives an object back; false (and nothing done) if the index is out of range or already free, or
 * the buffer lent or in flight. */
bool nm_region_free(struct nm_region *region, enum nm_pool pool, uint32_t index);

void *nm_region_object(const struct nm_region *region, enum nm_pool pool, uint32_t index);
uint64_t nm_region_offset(const struct nm_region *region, enum nm_pool pool, uint32_t index);

/* The hot path's view of the buffer pool, copied by value so that no pointer is chased per slot. */
struct nm_buffers {
    char *base;
    uint8_t *state; /* enum nm_buffer_state, one byte a buffer */
    uint32_t size;  /* bytes of one buffer */
    uint32_t total;
};
struct nm_buffers nm_region_buffers(const struct nm_region *region);

static inline enum nm_buffer_state nm_buffer_state(const struct nm_buffers *buffers,
                                                   uint32_t index) {
    if (index < NETMAP_BUF_FIRST || index >= buffers->total) return NM_BUFFER_FREE;
    return load_acquire(&buffers->state[index]);
}

/* The buffer a slot names, or buffer 0 (whose contents mean nothing) for an index no client may
 * use. To read from, buffers in flight may do too: several slots may name one that is sent more
 * than once. */
static inline char *nm_buffer_or(const struct nm_buffers *buffers, uint32_t index,
                                 bool in_flight_too) {
    enum nm_buffer_state state = nm_buffer_state(buffers, index);
    bool usable = state == NM_BUFFER_CLIENT || (in_flight_too && state == NM_BUFFER_IN_FLIGHT);
    return buffers->base + (usable ? (size_t)index * buffers->size : 0);
}

static inline char *nm_buffer(const struct nm_buffers *buffers, uint32_t index) {
    return nm_buffer_or(buffers, index, false);
}

/* A client's buffer becomes `state`, unless somebody else was faster or it is none. */
static inline bool nm_buffer_take(const struct nm_buffers *buffers, uint32_t index,
                                  enum nm_buffer_state state) {
    uint8_t client = NM_BUFFER_CLIENT;
    if (nm_buffer_state(buffers, index) != NM_BUFFER_CLIENT) return false;
    return __atomic_compare_exchange_n(&buffers->state[index], &client, (uint8_t)state, false,
                                       __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* What was taken is a client's again. */
static inline void nm_buffer_give(const struct nm_buffers *buffers, uint32_t index) {
    store_release(&buffers->state[index], (uint8_t)NM_BUFFER_CLIENT);
}

/* Buffers that a backend has for its own, besides those that slots have: as many as are lent, less
 * those returned. Which ones it has changes with every buffer that it swaps for a client's. */
int64_t nm_region_lend(struct nm_region *region); /* the lowest free buffer; -ENOMEM */
void nm_region_return(struct nm_region *region, uint32_t index);
/* One in flight is the backend's own from now on; its slot has lost it. */
void nm_region_keep(struct nm_region *region, uint32_t index);

/* A cleared bitmap of one bit a buffer, the region's own: the next call clears it again. */
uint64_t *nm_region_blank_bitmap(struct nm_region *region);

/* Buffers taken from the pool less what live rings, extra buffer lists and backends account for are
 * lost: a client was killed between the two halves of a swap, or wrote nonsense. `owed` is what
 * live rings and lists account for, `visible` (a bit a buffer) what they actually name; what is
 * lent is known here. Lost buffers are reclaimed as soon as it is certain which they are: when
 * everything owed is visible. Returns how many. */
uint32_t nm_region_reclaim(struct nm_region *region, uint64_t owed, uint64_t *visible);

#endif
