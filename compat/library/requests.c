/* SPDX-License-Identifier: BSD-2-Clause */
/* NIOCREGIF, NIOCGINFO and NIOCCTRL: what a program may ask about its ports, and how its structs
 * say it. The memory is the program's own, as the caller is: a bad pointer is the program's fault,
 * as with any function. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "library.h"

#define API_OF_LEGACY_FLAGS 11 /* nr_arg3 and nr_flags, and a meaning of nr_arg2, since then */
#define API_OLDEST 3
#define API_CTRL_OLDEST 14

static bool wants_host(uint32_t mode) {
    return mode == NR_REG_SW || mode == NR_REG_NIC_SW || mode == NR_REG_ONE_SW;
}

/* ---- names and ports ---------------------------------------------------------------------------
 */

static const char *without(const char *name, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(name, prefix, length) ? name : name + length;
}

static bool parse_number(const char *text, uint16_t *out) {
    unsigned number = 0;
    const char *digit = text;
    for (; *digit >= '0' && *digit <= '9' && number < RTE_MAX_ETHPORTS; digit++)
        number = number * 10 + (unsigned)(*digit - '0');
    if (digit == text || *digit || number >= RTE_MAX_ETHPORTS) return false;
    *out = (uint16_t)number;
    return true;
}

int wire_find(const char *name, struct wire **out) {
    const char *bare = without(name, "netmap:");
    uint16_t id;
    if (bare[strcspn(bare, "{}")] || !strncmp(bare, "vale", 4))
        return refuse(EOPNOTSUPP, "%s: the library has no pipes and no switches", name);
    if (!parse_number(bare, &id) && !parse_number(without(bare, "dpdk"), &id) &&
        rte_eth_dev_get_port_by_name(bare, &id))
        return refuse(ENXIO, "%s: DPDK has no port of that name or number", name);
    if (!netmap.wires[id].ready)
        return refuse(ENXIO, "%s: rte_netmap_init_port has not been called for port %u", name, id);
    *out = &netmap.wires[id];
    return 0;
}

static int check_region(uint32_t id) {
    if (id <= GLOBAL_MEM_ID) return 0;
    return refuse(EINVAL, "there is no memory region %u, all ports share region %u", id,
                  GLOBAL_MEM_ID);
}

static int bind_wire(struct open_file *file, struct wire *wire, uint32_t api,
                     struct nmreq_register *request, struct nm_offsets *offsets) {
    if (file->closed) return -EBADF;
    int error = ethernet_start(wire);
    if (!error && wants_host(request->nr_mode)) error = host_open(wire);
    if (error) return error;
    struct nm_refusal why = {0};
    uint16_t mtu = 0;
    /* Programs of API 5 and before may ask for other rings of the port that they have. */
    bool again = file->wire == wire && file->file.changes;
    if (!wire->port->files && !rte_eth_dev_get_mtu(wire->id, &mtu))
        nm_port_set_mtu(wire->port, mtu);
    if (!file->wire) file->file.api = api;
    if (offsets) nm_file_want_offsets(&file->file, offsets);
    error = again ? nm_file_rebind(&file->file, request, &why)
                  : nm_file_register(&file->file, wire->port, request, &why);
    if (error) return refuse(-error, "port %u: %s", wire->id, why.text);
    file->wire = wire;
    request->nr_mem_id = GLOBAL_MEM_ID;
    nm_file_activate(&file->file);
    return 0;
}

int wire_register(struct open_file *file, const char *name, uint32_t api,
                  struct nmreq_register *request, struct nm_offsets *offsets) {
    struct wire *wire;
    if (request->nr_flags & (NR_MONITOR_RX | NR_MONITOR_TX | NR_ZCOPY_MON) ||
        request->nr_mode == NR_REG_NULL)
        return refuse(EOPNOTSUPP, "%s: the library has no monitors and no null ports", name);
    pthread_mutex_lock(&netmap.control);
    files_reap();
    int error = wire_find(name, &wire);
    if (!error) error = check_region(request->nr_mem_id);
    if (!error) error = bind_wire(file, wire, api, request, offsets);
    pthread_mutex_unlock(&netmap.control);
    files_bury();
    return error;
}

void file_unbind(struct open_file *file) {
    if (!file->wire) return;
    pthread_rwlock_wrlock(&file->use);
    nm_file_unregister(&file->file);
    file->wire = NULL;
    pthread_rwlock_unlock(&file->use);
    file_wake(file); /* there is nothing to sleep for any more */
}

int port_info(const char *name, struct nmreq_port_info_get *info) {
    struct wire *wire = NULL;
    pthread_mutex_lock(&netmap.control);
    int error = *name ? wire_find(name, &wire) : 0;
    if (!error) error = check_region(info->nr_mem_id);
    if (!error) {
        *info = (struct nmreq_port_info_get){.nr_memsize = nm_region_size(netmap.region),
                                             .nr_mem_id = GLOBAL_MEM_ID};
        if (wire) {
            info->nr_tx_slots = wire->slots[NM_TX];
            info->nr_rx_slots = wire->slots[NM_RX];
            info->nr_tx_rings = wire->set_up.tx_queues;
            info->nr_rx_rings = wire->set_up.rx_queues;
            info->nr_host_tx_rings = (uint16_t)(wire->port ? wire->port->num_host[NM_TX] : 1);
            info->nr_host_rx_rings = (uint16_t)(wire->port ? wire->port->num_host[NM_RX] : 1);
        }
    }
    pthread_mutex_unlock(&netmap.control);
    return error;
}

/* ---- legacy ------------------------------------------------------------------------------------
 */

/* The version, or -EINVAL with ours in the request, as netmap of that time did. */
static int check_version(struct nmreq *request) {
    if (request->nr_version >= API_OLDEST) return 0;
    uint32_t version = request->nr_version;
    request->nr_version = NETMAP_API;
    return refuse(EINVAL, "API version %u, this is %u", version, NETMAP_API);
}

static bool has_flags(const struct nmreq *request) {
    return request->nr_version >= API_OF_LEGACY_FLAGS;
}

/* Fields that the program's version did not have hold whatever its stack held. */
static int check_command(const struct nmreq *request) {
    if (!has_flags(request) || !request->nr_cmd) return 0;
    return refuse(EOPNOTSUPP, "nr_cmd %u: the library has no switches", request->nr_cmd);
}

static uint32_t legacy_mode(const struct nmreq *request) {
    uint32_t mode = has_flags(request) ? request->nr_flags & NR_REG_MASK : NR_REG_DEFAULT;
    if (mode != NR_REG_DEFAULT) return mode;
    if (request->nr_ringid & NETMAP_SW_RING) return NR_REG_SW;
    return request->nr_ringid & NETMAP_HW_RING ? NR_REG_ONE_NIC : NR_REG_ALL_NIC;
}

static void legacy_name(const struct nmreq *request, char name[NETMAP_LEGACY_IFNAMSIZ]) {
    memcpy(name, request->nr_name, NETMAP_LEGACY_IFNAMSIZ);
    name[NETMAP_LEGACY_IFNAMSIZ - 1] = 0;
}

int request_register(struct open_file *file, void *argument) {
    struct nmreq *request = argument;
    char name[NETMAP_LEGACY_IFNAMSIZ];
    int error = request ? check_version(request) : -EINVAL;
    if (!error) error = check_command(request);
    if (error) return error;
    legacy_name(request, name);
    struct nmreq_register asked = {.nr_mode = legacy_mode(request),
                                   .nr_ringid = request->nr_ringid & NETMAP_RING_MASK};
    if (has_flags(request)) {
        asked.nr_flags = request->nr_flags & ~(uint32_t)NR_REG_MASK;
        asked.nr_mem_id = request->nr_arg2;
        asked.nr_extra_bufs = request->nr_arg3;
    }
    if (request->nr_ringid & NETMAP_NO_TX_POLL) asked.nr_flags |= NR_NO_TX_POLL;
    if (asked.nr_mode == NR_REG_PIPE_MASTER || asked.nr_mode == NR_REG_PIPE_SLAVE)
        return refuse(EOPNOTSUPP, "%s: the library has no pipes", name);
    error = wire_register(file, name, request->nr_version, &asked, NULL);
    if (error) return error;
    request->nr_offset = (uint32_t)asked.nr_offset;
    request->nr_memsize = (uint32_t)asked.nr_memsize;
    request->nr_tx_slots = asked.nr_tx_slots;
    request->nr_rx_slots = asked.nr_rx_slots;
    request->nr_tx_rings = asked.nr_tx_rings;
    request->nr_rx_rings = asked.nr_rx_rings;
    if (has_flags(request)) {
        request->nr_arg2 = asked.nr_mem_id;
        request->nr_arg3 = asked.nr_extra_bufs;
    }
    return 0;
}

int request_info(struct open_file *file, void *argument) {
    struct nmreq *request = argument;
    char name[NETMAP_LEGACY_IFNAMSIZ];
    (void)file;
    int error = request ? check_version(request) : -EINVAL;
    if (!error) error = check_command(request);
    if (error) return error;
    legacy_name(request, name);
    struct nmreq_port_info_get info = {.nr_mem_id = has_flags(request) ? request->nr_arg2 : 0};
    error = port_info(name, &info);
    if (error) return error;
    request->nr_memsize = (uint32_t)info.nr_memsize;
    request->nr_tx_slots = info.nr_tx_slots;
    request->nr_rx_slots = info.nr_rx_slots;
    request->nr_tx_rings = info.nr_tx_rings;
    request->nr_rx_rings = info.nr_rx_rings;
    if (has_flags(request)) request->nr_arg2 = info.nr_mem_id;
    return 0;
}
