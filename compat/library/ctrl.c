/* SPDX-License-Identifier: BSD-2-Clause */
/* NIOCCTRL: the header, the body and the options of a request, checked as netmap checks them. */
#include <errno.h>
#include <string.h>

#include "library.h"

#define OPTIONS_MOST 64 /* of one request: the list may be a loop */

struct request {
    struct open_file *file;
    struct nmreq_header *header;
    char name[NETMAP_REQ_IFNAMSIZ];
    struct nmreq_opt_offsets *offsets; /* the option, if it is given */
};

/* An option's place in the program's memory. */
static struct nmreq_option *option_at(uint64_t address) {
    return (struct nmreq_option *)(uintptr_t)address;
}

/* ---- the requests ------------------------------------------------------------------------------
 */

/* Whatever nobody has handled fails the request, after the fact, as in netmap. */
static int check_handled(const struct request *request) {
    for (struct nmreq_option *option = option_at(request->header->nr_options); option;
         option = option_at(option->nro_next))
        if (option->nro_status == EOPNOTSUPP)
            return refuse(EOPNOTSUPP, "%s: the library has no option of type %u", request->name,
                          option->nro_reqtype);
    return 0;
}

static int ctrl_register(struct request *request, void *body) {
    struct nmreq_register asked = *(struct nmreq_register *)body;
    struct nmreq_opt_offsets *option = request->offsets;
    struct nm_offsets offsets = {0};
    if (asked.nr_mode == NR_REG_DEFAULT)
        return refuse(EINVAL, "%s: there is no register mode 0", request->name);
    if (option)
        offsets = (struct nm_offsets){option->nro_max_offset, option->nro_initial_offset,
                                      option->nro_offset_bits, 0};
    int error = wire_register(request->file, request->name, request->header->nr_version, &asked,
                              option ? &offsets : NULL);
    if (option) {
        option->nro_opt.nro_status = (uint32_t)offsets.status;
        if (!error) option->nro_max_offset = offsets.max_offset;
    }
    if (error) return error;
    error = check_handled(request);
    if (error) {
        pthread_mutex_lock(&netmap.control);
        file_unbind(request->file);
        pthread_mutex_unlock(&netmap.control);
        return error;
    }
    *(struct nmreq_register *)body = asked;
    return 0;
}

static int ctrl_info(struct request *request, void *body) { return port_info(request->name, body); }

static int ctrl_pools(struct request *request, void *body) {
    struct nmreq_pools_info *out = body;
    struct nmreq_port_info_get port = {.nr_mem_id = out->nr_mem_id};
    if (!*request->name) return refuse(ENXIO, "POOLS_INFO_GET: no port is named");
    int error = port_info(request->name, &port);
    if (error) return error;
    struct nm_pool_geometry pools[NM_POOLS];
    for (enum nm_pool pool = 0; pool < NM_POOLS; pool++)
        pools[pool] = nm_region_pool(netmap.region, pool);
    *out = (struct nmreq_pools_info){.nr_memsize = port.nr_memsize,
                                     .nr_mem_id = port.nr_mem_id,
                                     .nr_if_pool_offset = pools[NM_POOL_IF].offset,
                                     .nr_if_pool_objtotal = pools[NM_POOL_IF].objtotal,
                                     .nr_if_pool_objsize = pools[NM_POOL_IF].objsize,
                                     .nr_ring_pool_offset = pools[NM_POOL_RING].offset,
                                     .nr_ring_pool_objtotal = pools[NM_POOL_RING].objtotal,
                                     .nr_ring_pool_objsize = pools[NM_POOL_RING].objsize,
                                     .nr_buf_pool_offset = pools[NM_POOL_BUF].offset,
                                     .nr_buf_pool_objtotal = pools[NM_POOL_BUF].objtotal,
                                     .nr_buf_pool_objsize = pools[NM_POOL_BUF].objsize};
    return 0;
}

static int ctrl_header_get(struct request *request, void *body) {
    struct nmreq_port_info_get port = {0};
    int error = port_info(request->name, &port);
    if (!error) ((struct nmreq_port_hdr *)body)->nr_hdr_len = 0;
    return error;
}

static int ctrl_header_set(struct request *request, void *body) {
    (void)body;
    return refuse(ENXIO, "%s: ports of DPDK have no virtio-net header", request->name);
}

static int ctrl_absent(struct request *request, void *body) {
    (void)body;
    return refuse(EOPNOTSUPP, "%s: the library has no request of type %u", request->name,
                  request->header->nr_reqtype);
}

struct kind {
    bool body;
    int (*answer)(struct request *request, void *body);
};

static const struct kind kinds[] = {
    [NETMAP_REQ_REGISTER] = {true, ctrl_register},
    [NETMAP_REQ_PORT_INFO_GET] = {true, ctrl_info},
    [NETMAP_REQ_VALE_ATTACH] = {true, ctrl_absent},
    [NETMAP_REQ_VALE_DETACH] = {true, ctrl_absent},
    [NETMAP_REQ_VALE_LIST] = {true, ctrl_absent},
    [NETMAP_REQ_PORT_HDR_SET] = {true, ctrl_header_set},
    [NETMAP_REQ_PORT_HDR_GET] = {true, ctrl_header_get},
    [NETMAP_REQ_VALE_NEWIF] = {true, ctrl_absent},
    [NETMAP_REQ_VALE_DELIF] = {false, ctrl_absent},
    [NETMAP_REQ_VALE_POLLING_ENABLE] = {true, ctrl_absent},
    [NETMAP_REQ_VALE_POLLING_DISABLE] = {true, ctrl_absent},
    [NETMAP_REQ_POOLS_INFO_GET] = {true, ctrl_pools},
    [NETMAP_REQ_SYNC_KLOOP_START] = {true, ctrl_absent},
    [NETMAP_REQ_SYNC_KLOOP_STOP] = {false, ctrl_absent},
    [NETMAP_REQ_CSB_ENABLE] = {false, ctrl_absent},
};

/* ---- what carries them -------------------------------------------------------------------------
 */

static const struct kind *kind_of(const struct nmreq_header *header) {
    static const struct kind none;
    uint32_t type = header->nr_reqtype;
    return type < sizeof(kinds) / sizeof(kinds[0]) ? &kinds[type] : &none;
}

static int check_options(struct request *request) {
    uint32_t count = 0, seen = 0;
    for (struct nmreq_option *option = option_at(request->header->nr_options); option;
         option = option_at(option->nro_next)) {
        if (++count > OPTIONS_MOST)
            return refuse(EMSGSIZE, "%s: the options do not end", request->name);
        uint32_t type = option->nro_reqtype;
        if (!type || (type < NETMAP_REQ_OPT_MAX && seen >> type & 1)) {
            option->nro_status = EINVAL;
            return refuse(EINVAL, "%s: an option of type %u is given %s", request->name, type,
                          type ? "twice" : "");
        }
        if (type < NETMAP_REQ_OPT_MAX) seen |= 1u << type;
    }
    bool registers = request->header->nr_reqtype == NETMAP_REQ_REGISTER;
    for (struct nmreq_option *option = option_at(request->header->nr_options); option;
         option = option_at(option->nro_next)) {
        option->nro_status = EOPNOTSUPP;
        if (registers && option->nro_reqtype == NETMAP_REQ_OPT_OFFSETS)
            request->offsets = (struct nmreq_opt_offsets *)option;
    }
    return 0;
}

int request_control(struct open_file *file, void *argument) {
    struct nmreq_header *header = argument;
    if (!header) return refuse(EINVAL, "NIOCCTRL: the argument is NULL");
    if (header->nr_version < NETMAP_MIN_API || header->nr_version > NETMAP_MAX_API)
        return refuse(EINVAL, "NIOCCTRL: API version %u, this is %u", header->nr_version,
                      NETMAP_API);
    uint32_t reserved = header->nr_reserved;
    header->nr_reserved = 0;
    if (reserved) return refuse(EINVAL, "NIOCCTRL: nr_reserved is not 0");
    struct request request = {.file = file, .header = header};
    memcpy(request.name, header->nr_name, sizeof(request.name));
    request.name[sizeof(request.name) - 1] = 0;
    const struct kind *kind = kind_of(header);
    if (kind->body != (header->nr_body != 0))
        return refuse(EINVAL, "NIOCCTRL of type %u: nr_body is %#llx", header->nr_reqtype,
                      (unsigned long long)header->nr_body);
    int error = check_options(&request);
    if (error) return error;
    if (!kind->answer)
        return refuse(EINVAL, "NIOCCTRL: netmap has no request of type %u", header->nr_reqtype);
    return kind->answer(&request, (void *)(uintptr_t)header->nr_body);
}
