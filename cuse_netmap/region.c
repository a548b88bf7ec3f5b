/* SPDX-License-Identifier: BSD-2-Clause */
/* Packet memory: a memfd or what a program brought, its three pools and their bitmaps. What a ring
 * or a slot is, ring_core knows. */
#include "region.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barrier.h"

#define PAGE 4096u
#define WORD_BITS 64u

struct pool {
    struct nm_pool_geometry geometry;
    uint64_t *taken; /* a bit an object */
    uint32_t hint;   /* no free object below this index */
};

struct nm_region {
    int memfd;                /* -1: */
    struct nm_extmem *extmem; /* a program's memory */
    char *base;
    uint64_t size;
    struct pool pools[NM_POOLS];
    uint8_t *buffer_state;
    uint32_t generation;
    uint32_t lent;    /* buffers that backends account for */
    uint64_t *bitmap; /* scratch of the census */
    struct nm_port *first_port;
};

static const char *const pool_name[NM_POOLS] = {"netmap_if", "ring", "buffer"};

static const struct {
    uint32_t min_size, max_size, max_total;
} limits[NM_POOLS] = {
    [NM_POOL_IF] = {NETMAP_IF_SIZE_MIN, NETMAP_IF_SIZE_MAX, NETMAP_IF_COUNT_MAX},
    [NM_POOL_RING] = {NETMAP_RING_SIZE_MIN, NETMAP_RING_SIZE_MAX, NETMAP_RING_COUNT_MAX},
    [NM_POOL_BUF] = {NETMAP_BUF_SIZE_MIN, NETMAP_BUF_SIZE_MAX, NETMAP_BUF_COUNT_MAX},
};

static uint32_t words(uint32_t bits) { return (bits + WORD_BITS - 1) / WORD_BITS; }

static uint64_t round_up(uint64_t bytes, uint64_t unit) { return (bytes + unit - 1) / unit * unit; }

static int check_request(const struct nm_pool_request *request, enum nm_pool pool, uint32_t least,
                         uint32_t most, struct nm_refusal *why) {
    if (request->objsize < limits[pool].min_size || request->objsize > limits[pool].max_size)
        return nm_refuse(why, EINVAL, "%s size %u is not within %u to %u bytes", pool_name[pool],
                         request->objsize, limits[pool].min_size, limits[pool].max_size);
    if (request->objtotal < least || request->objtotal > most)
        return nm_refuse(why, EINVAL, "%s count %u is not within %u to %u", pool_name[pool],
                         request->objtotal, least, most);
    return 0;
}

/* A pool grows by clusters, the smallest number of objects that fills whole pages. */
static int lay_out(struct nm_pool_geometry *g, const struct nm_pool_request *request,
                   enum nm_pool pool, struct nm_refusal *why) {
    int error = check_request(request, pool, 2, limits[pool].max_total, why);
    if (error) return error;
    uint32_t size = (request->objsize + 63) & ~63u;
    uint32_t per_cluster = 1;
    while ((per_cluster * size) % PAGE)
        per_cluster++;
    uint32_t clusters = (request->objtotal + per_cluster - 1) / per_cluster;
    g->objsize = size;
    g->objtotal = clusters * per_cluster;
    return 0;
}

/* The pools of a memory of `size` bytes: each begins with a page, what is left is buffers. */
static int lay_out_within(struct nm_region *region, const struct nm_pool_request *request,
                          uint64_t size, struct nm_refusal *why) {
    static const struct {
        uint32_t least, most;
    } count[NM_POOLS] = {
        [NM_POOL_IF] = {NETMAP_PRIVATE_IF_COUNT_MIN, NETMAP_PRIVATE_IF_COUNT_MAX},
        [NM_POOL_RING] = {NETMAP_RING_COUNT_MIN, NETMAP_RING_COUNT_MAX},
        [NM_POOL_BUF] = {NETMAP_BUF_COUNT_MIN, NETMAP_BUF_COUNT_MAX},
    };
    uint64_t asked = 0, offset = 0;
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++)
        asked += (uint64_t)request[pool].objsize * request[pool].objtotal;
    if (asked > size)
        return nm_refuse(why, ENOMEM, "the pools take %llu bytes, the program's memory has %llu",
                         (unsigned long long)asked, (unsigned long long)size);
    uint64_t room = round_up(size, PAGE); /* maps have whole pages */
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++) {
        int error = check_request(&request[pool], pool, count[pool].least, count[pool].most, why);
        if (error) return error;
        struct nm_pool_geometry *g = &region->pools[pool].geometry;
        *g = (struct nm_pool_geometry){.offset = round_up(offset, PAGE),
                                       .objsize = (uint32_t)round_up(request[pool].objsize, 64),
                                       .objtotal = request[pool].objtotal};
        uint64_t fit = g->offset < room ? (room - g->offset) / g->objsize : 0;
        if (pool == NM_POOL_BUF) /* the rounding may cost some */
            g->objtotal = (uint32_t)(fit < count[pool].most ? fit : count[pool].most);
        if (g->objtotal > fit || g->objtotal < count[pool].least)
            return nm_refuse(why, ENOMEM, "the program's memory has no room for %u of %s",
                             request[pool].objtotal, pool_name[pool]);
        offset = g->offset + (uint64_t)g->objsize * g->objtotal;
    }
    region->size = round_up(offset, PAGE);
    return 0;
}

static int map_memory(struct nm_region *region, struct nm_refusal *why) {
    region->memfd = memfd_create("netmap", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (region->memfd < 0) return nm_refuse(why, errno, "memfd_create: %s", strerror(errno));
    if (ftruncate(region->memfd, (off_t)region->size) < 0 ||
        fcntl(region->memfd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return nm_refuse(why, errno, "sizing packet memory: %s", strerror(errno));
    void *base = mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED, region->memfd, 0);
    if (base == MAP_FAILED)
        return nm_refuse(why, errno, "mapping %llu bytes of packet memory: %s",
                         (unsigned long long)region->size, strerror(errno));
    region->base = base;
    madvise(base, region->size, MADV_DONTDUMP);
    return 0;
}

/* The pools one after the other, and the bytes they take in all. */
static int lay_out_pools(const struct nm_pool_request request[NM_POOLS],
                         struct nm_pool_geometry geometry[NM_POOLS], uint64_t *size,
                         struct nm_refusal *why) {
    *size = 0;
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++) {
        int error = lay_out(&geometry[pool], &request[pool], pool, why);
        if (error) return error;
        geometry[pool].offset = *size;
        *size += (uint64_t)geometry[pool].objsize * geometry[pool].objtotal;
    }
    if (*size <= UINT32_MAX) return 0;
    return nm_refuse(why, EINVAL, "the pools take %llu bytes in all; the limit is 4 GiB",
                     (unsigned long long)*size);
}

int nm_region_check_request(const struct nm_pool_request request[NM_POOLS],
                            struct nm_refusal *why) {
    struct nm_pool_geometry geometry[NM_POOLS];
    uint64_t size;
    return lay_out_pools(request, geometry, &size, why);
}

static int open_books(struct nm_region *region, struct nm_refusal *why) {
    bool good = true;
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++) {
        struct pool *p = &region->pools[pool];
        p->taken = calloc(words(p->geometry.objtotal), sizeof(*p->taken));
        good &= p->taken != NULL;
    }
    uint32_t buffers = region->pools[NM_POOL_BUF].geometry.objtotal;
    region->buffer_state = calloc(buffers, 1);
    region->bitmap = calloc(words(buffers), sizeof(*region->bitmap));
    if (!good || !region->buffer_state || !region->bitmap)
        return nm_refuse(why, ENOMEM, "out of memory");
    region->pools[NM_POOL_BUF].taken[0] = (1u << NETMAP_BUF_FIRST) - 1;
    region->pools[NM_POOL_BUF].hint = NETMAP_BUF_FIRST;
    static uint32_t generations;
    region->generation = __atomic_add_fetch(&generations, 1, __ATOMIC_RELAXED);
    return 0;
}

int nm_region_create(const struct nm_pool_request request[NM_POOLS], struct nm_region **out,
                     struct nm_refusal *why) {
    struct nm_pool_geometry geometry[NM_POOLS] = {0};
    uint64_t size;
    int error = lay_out_pools(request, geometry, &size, why);
    if (error) return error;
    struct nm_region *region = calloc(1, sizeof(*region));
    if (!region) return nm_refuse(why, ENOMEM, "out of memory");
    region->memfd = -1;
    region->size = size;
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++)
        region->pools[pool].geometry = geometry[pool];
    error = open_books(region, why);
    if (!error) error = map_memory(region, why);
    if (error) {
        nm_region_destroy(region);
        return error;
    }
    *out = region;
    return 0;
}

int nm_region_adopt(const struct nm_pool_request request[NM_POOLS], struct nm_extmem *memory,
                    uint64_t size, struct nm_region **out, struct nm_refusal *why) {
    struct nm_region *region = calloc(1, sizeof(*region));
    if (!region) return nm_refuse(why, ENOMEM, "out of memory");
    region->memfd = -1;
    int error = lay_out_within(region, request, size, why);
    if (!error) error = open_books(region, why);
    if (error) {
        nm_region_destroy(region);
        return error;
    }
    region->extmem = memory;
    region->base = nm_extmem_base(memory);
    *out = region;
    return 0;
}

bool nm_region_unused(const struct nm_region *region) {
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++)
        if (region->pools[pool].geometry.used) return false;
    return true;
}

void nm_region_replace(struct nm_region *region, struct nm_region *fresh) {
    struct nm_region old = *region;
    struct nm_port *first_port = old.first_port;
    *region = *fresh;
    region->first_port = first_port;
    *fresh = old;
    nm_region_destroy(fresh);
}

void nm_region_destroy(struct nm_region *region) {
    if (!region) return;
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++)
        free(region->pools[pool].taken);
    free(region->buffer_state);
    free(region->bitmap);
    if (region->extmem)
        nm_extmem_unmap(region->extmem);
    else if (region->base)
        munmap(region->base, region->size);
    if (region->memfd >= 0) close(region->memfd);
    free(region);
}

uint32_t nm_region_generation(const struct nm_region *region) {
    return READ_ONCE(region->generation);
}

int nm_region_memfd(const struct nm_region *region) { return region->memfd; }

const struct nm_extmem *nm_region_extmem(const struct nm_region *region) { return region->extmem; }

uint64_t nm_region_size(const struct nm_region *region) { return READ_ONCE(region->size); }

struct nm_port **nm_region_ports(struct nm_region *region) { return &region->first_port; }

struct nm_pool_geometry nm_region_pool(const struct nm_region *region, enum nm_pool pool) {
    return region->pools[pool].geometry;
}

static uint32_t available(enum nm_pool pool, const struct nm_pool_geometry *g) {
    return g->objtotal - (pool == NM_POOL_BUF ? NETMAP_BUF_FIRST : 0);
}

int nm_region_check(const struct nm_region *region, enum nm_pool pool, uint64_t count,
                    struct nm_refusal *why) {
    const struct nm_pool_geometry *g = &region->pools[pool].geometry;
    uint32_t most = available(pool, g);
    if (count <= most - g->used) return 0;
    return nm_refuse(why, ENOMEM,
                     "the %s pool is short: %llu of %u bytes asked for, %u of %u are free",
                     pool_name[pool], (unsigned long long)count, g->objsize, most - g->used, most);
}

/* The lowest free object; of a buffer, whose it is from the first moment on. */
static int64_t alloc_as(struct nm_region *region, enum nm_pool pool, enum nm_buffer_state state) {
    struct pool *p = &region->pools[pool];
    uint32_t total = p->geometry.objtotal;
    for (uint32_t w = p->hint / WORD_BITS; w < words(total); w++) {
        if (p->taken[w] == UINT64_MAX) continue;
        uint32_t index = w * WORD_BITS + (uint32_t)__builtin_ctzll(~p->taken[w]);
        if (index >= total) break;
        p->taken[w] |= 1ull << (index % WORD_BITS);
        p->hint = index + 1;
        p->geometry.used++;
        if (pool == NM_POOL_BUF) store_release(&region->buffer_state[index], (uint8_t)state);
        return index;
    }
    p->hint = total;
    return -ENOMEM;
}

int64_t nm_region_alloc(struct nm_region *region, enum nm_pool pool) {
    return alloc_as(region, pool, NM_BUFFER_CLIENT);
}

bool nm_region_free(struct nm_region *region, enum nm_pool pool, uint32_t index) {
    struct pool *p = &region->pools[pool];
    if (index >= p->geometry.objtotal) return false;
    if (pool == NM_POOL_BUF && index < NETMAP_BUF_FIRST) return false;
    uint64_t bit = 1ull << (index % WORD_BITS);
    if (!(p->taken[index / WORD_BITS] & bit)) return false;
    struct nm_buffers buffers = nm_region_buffers(region);
    if (pool == NM_POOL_BUF && !nm_buffer_take(&buffers, index, NM_BUFFER_FREE)) return false;
    p->taken[index / WORD_BITS] &= ~bit;
    p->geometry.used--;
    if (index < p->hint) p->hint = index;
    return true;
}

int64_t nm_region_lend(struct nm_region *region) {
    int64_t index = alloc_as(region, NM_POOL_BUF, NM_BUFFER_LENT);
    if (index < 0) return index;
    region->lent++;
    return index;
}

void nm_region_return(struct nm_region *region, uint32_t index) {
    store_release(&region->buffer_state[index], (uint8_t)NM_BUFFER_CLIENT);
    nm_region_free(region, NM_POOL_BUF, index);
    region->lent--;
}

void nm_region_keep(struct nm_region *region, uint32_t index) {
    store_release(&region->buffer_state[index], (uint8_t)NM_BUFFER_LENT);
    region->lent++;
}

uint64_t nm_region_offset(const struct nm_region *region, enum nm_pool pool, uint32_t index) {
    const struct nm_pool_geometry *g = &region->pools[pool].geometry;
    return g->offset + (uint64_t)index * g->objsize;
}

void *nm_region_object(const struct nm_region *region, enum nm_pool pool, uint32_t index) {
    return region->base + nm_region_offset(region, pool, index);
}

struct nm_buffers nm_region_buffers(const struct nm_region *region) {
    const struct nm_pool_geometry *g = &region->pools[NM_POOL_BUF].geometry;
    return (struct nm_buffers){.base = region->base + g->offset,
                               .state = region->buffer_state,
                               .size = g->objsize,
                               .total = g->objtotal};
}

uint64_t *nm_region_blank_bitmap(struct nm_region *region) {
    uint32_t total = region->pools[NM_POOL_BUF].geometry.objtotal;
    return memset(region->bitmap, 0, words(total) * sizeof(*region->bitmap));
}

/* A slot whose buffer is in flight may name another one by now. */
static void see_away(const struct nm_region *region, uint64_t *visible) {
    uint32_t total = region->pools[NM_POOL_BUF].geometry.objtotal;
    for (uint32_t index = NETMAP_BUF_FIRST; index < total; index++) {
        enum nm_buffer_state state = READ_ONCE(region->buffer_state[index]);
        if (state == NM_BUFFER_LENT || state == NM_BUFFER_IN_FLIGHT)
            visible[index / WORD_BITS] |= 1ull << (index % WORD_BITS);
    }
}

uint32_t nm_region_reclaim(struct nm_region *region, uint64_t owed, uint64_t *visible) {
    struct pool *p = &region->pools[NM_POOL_BUF];
    owed += region->lent;
    if (p->geometry.used <= owed) return 0;
    if (region->lent) see_away(region, visible);
    uint32_t total = p->geometry.objtotal;
    uint64_t hidden = 0;
    for (uint32_t w = 0; w < words(total); w++)
        hidden += (uint64_t)__builtin_popcountll(p->taken[w] & ~visible[w]);
    hidden -= NETMAP_BUF_FIRST;
    if (hidden != p->geometry.used - owed) return 0;
    uint32_t reclaimed = 0;
    for (uint32_t index = NETMAP_BUF_FIRST; index < total; index++) {
        bool seen = visible[index / WORD_BITS] >> (index % WORD_BITS) & 1;
        if (!seen && region->buffer_state[index] == NM_BUFFER_CLIENT)
            reclaimed += nm_region_free(region, NM_POOL_BUF, index);
    }
    return reclaimed;
}
