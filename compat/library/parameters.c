/* SPDX-License-Identifier: BSD-2-Clause */
/* Where libcompat_netmap's parameters come from: rte_netmap_conf, then COMPAT_NETMAP_PARAMETERS. */
#include "parameters.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

#define ENVIRONMENT "COMPAT_NETMAP_PARAMETERS"
#define SPARE_BUFFERS 4096              /* for programs that ask for extra ones */
#define SPARE_FILES 64                  /* netmap_if objects: descriptors beyond one a port */
#define BUFFER_MEMORY_MOST (3ull << 30) /* bytes: netmap's memory stays below 4 GiB */
/* The rings of a program of API 3 stand beside those of today. */
#define GENERATIONS 2

struct place {
    const char *name;
    size_t offset;
};

#define POOL(pool, field)                                                                          \
    (offsetof(struct parameters, pools[pool]) + offsetof(struct nm_pool_request, field))

static const struct place places[] = {
    {"if_num", POOL(NM_POOL_IF, objtotal)},
    {"if_size", POOL(NM_POOL_IF, objsize)},
    {"ring_num", POOL(NM_POOL_RING, objtotal)},
    {"ring_size", POOL(NM_POOL_RING, objsize)},
    {"buf_num", POOL(NM_POOL_BUF, objtotal)},
    {"buf_size", POOL(NM_POOL_BUF, objsize)},
    {"no_timestamp", offsetof(struct parameters, no_timestamp)},
    {"copy_below", offsetof(struct parameters, copy_below)},
    {"poll_spin", offsetof(struct parameters, poll_spin)},
    {"poll_sleep", offsetof(struct parameters, poll_sleep)},
};

static int set(struct parameters *out, const char *assignment) {
    size_t name = strcspn(assignment, "=");
    char *end;
    errno = 0;
    unsigned long value = assignment[name] ? strtoul(assignment + name + 1, &end, 10) : 0;
    bool number =
        assignment[name] && assignment[name + 1] >= '0' && assignment[name + 1] <= '9' && !*end;
    if (!number || errno || value > UINT32_MAX)
        return refuse(EINVAL, "%s: '%s' is no NAME=NUMBER", ENVIRONMENT, assignment);
    for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
        if (strlen(places[i].name) != name || strncmp(places[i].name, assignment, name)) continue;
        *(uint32_t *)((char *)out + places[i].offset) = (uint32_t)value;
        return 0;
    }
    return refuse(EINVAL, "%s: there is no parameter '%.*s'", ENVIRONMENT, (int)name, assignment);
}

static int read_environment(struct parameters *out) {
    const char *given = getenv(ENVIRONMENT);
    if (!given) return 0;
    char *copy = strdup(given), *rest = copy, *assignment;
    if (!copy) return refuse(ENOMEM, "out of memory");
    int error = 0;
    while (!error && (assignment = strsep(&rest, ", ")))
        if (*assignment) error = set(out, assignment);
    free(copy);
    return error;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

int parameters_read(const struct rte_netmap_conf *conf, struct parameters *out) {
    if (!conf) return refuse(EINVAL, "rte_netmap_init: conf is NULL");
    if (!conf->max_rings || conf->max_rings > RTE_MAX_QUEUES_PER_PORT)
        return refuse(EINVAL, "rte_netmap_init: max_rings is %u, it may be 1 to %u",
                      conf->max_rings, RTE_MAX_QUEUES_PER_PORT);
    if (conf->max_slots < 2 || conf->max_slots > NETMAP_RING_SLOTS(NETMAP_RING_SIZE_MAX))
        return refuse(EINVAL, "rte_netmap_init: max_slots is %u, it may be 2 to %zu",
                      conf->max_slots, NETMAP_RING_SLOTS(NETMAP_RING_SIZE_MAX));
    if (conf->max_bufsz < NETMAP_BUF_SIZE_MIN)
        return refuse(EINVAL, "rte_netmap_init: max_bufsz is %u, it is at least %u",
                      conf->max_bufsz, NETMAP_BUF_SIZE_MIN);
    /* A file's rings are those of the hardware and one of the host, in each direction. Memory that
     * nobody uses is never there, so there may be enough for every port that DPDK could have. */
    uint64_t rings = 2 * ((uint64_t)conf->max_rings + 1) * RTE_MAX_ETHPORTS;
    uint64_t buffers =
        least(rings * conf->max_slots + SPARE_BUFFERS, BUFFER_MEMORY_MOST / conf->max_bufsz);
    uint32_t entries = 2 * (conf->max_rings + NM_HOST_RINGS_MAX);
    *out = (struct parameters){
        .max_rings = conf->max_rings,
        .max_slots = conf->max_slots,
        .socket_id = conf->socket_id,
        .pools = {[NM_POOL_IF] = {(uint32_t)least(NETMAP_IF_BYTES(entries), NETMAP_IF_SIZE_MAX),
                                  RTE_MAX_ETHPORTS + SPARE_FILES},
                  [NM_POOL_RING] = {(uint32_t)NETMAP_RING_BYTES(conf->max_slots),
                                    (uint32_t)least(rings * GENERATIONS, NETMAP_RING_COUNT_MAX)},
                  [NM_POOL_BUF] = {conf->max_bufsz,
                                   (uint32_t)least(buffers, NETMAP_BUF_COUNT_MAX)}},
        .copy_below = 512,
        .poll_spin = 20,
        .poll_sleep = 200,
    };
    return read_environment(out);
}
