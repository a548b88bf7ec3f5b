/* SPDX-License-Identifier: BSD-2-Clause */
/* How ports come and go, and how a file comes to hold rings of one: netmap's REGISTER from the
 * point where the port is known. What happens to bound rings afterwards is ring_core.c's. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "ages.h"
#include "barrier.h"
#include "monitored.h"
#include "netmap_if.h"
#include "offsets.h"
#include "reclaim.h"
#include "ring_core.h"

static const char *const dir_name[NM_DIRS] = {"RX", "TX"};

int nm_port_create(struct nm_region *region, const struct nm_port_config *config,
                   struct nm_port **out, struct nm_refusal *why) {
    uint32_t least = config->rings[NM_RX] + config->rings[NM_TX] + 2; /* a host ring each way */
    int error = nm_if_check_size(region, least, why);
    if (error) return error;
    struct nm_port *port = calloc(1, sizeof(*port));
    if (!port) return nm_refuse(why, ENOMEM, "out of memory");
    snprintf(port->name, sizeof(port->name), "%s", config->name);
    port->region = region;
    port->buffers = nm_region_buffers(region);
    port->ops = config->ops;
    port->private = config->private;
    port->has_host = config->has_host;
    pthread_mutex_init(&port->lock, NULL);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        uint32_t capacity = config->rings[dir] + (config->has_host ? NM_HOST_RINGS_MAX : 0);
        port->num_rings[dir] = config->rings[dir];
        port->num_host[dir] = config->has_host;
        port->num_slots[dir] = config->slots[dir];
        port->krings[dir] = calloc(capacity ? capacity : 1, sizeof(struct nm_kring));
        if (!port->krings[dir]) {
            free(port->krings[NM_RX]);
            free(port);
            return nm_refuse(why, ENOMEM, "out of memory");
        }
        for (uint32_t i = 0; i < capacity; i++) {
            struct nm_kring *kring = &port->krings[dir][i];
            kring->port = port;
            kring->dir = (uint8_t)dir;
            kring->index = (uint16_t)i;
            kring->host = i >= config->rings[dir];
            kring->num_slots = config->slots[dir];
            pthread_mutex_init(&kring->fill_lock, NULL);
            pthread_mutex_init(&kring->views_lock, NULL);
        }
    }
    port->next_port = *nm_region_ports(region);
    *nm_region_ports(region) = port;
    *out = port;
    return 0;
}

void nm_port_destroy(struct nm_port *port) {
    if (!port) return;
    struct nm_port **link = nm_region_ports(port->region);
    while (*link != port)
        link = &(*link)->next_port;
    *link = port->next_port;
    if (port->ops->destroy) port->ops->destroy(port);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++)
        free(port->krings[dir]);
    pthread_mutex_destroy(&port->lock);
    free(port);
}

void nm_ports_follow(struct nm_region *region) {
    for (struct nm_port *port = *nm_region_ports(region); port; port = port->next_port)
        port->buffers = nm_region_buffers(region);
}

void nm_port_set_mtu(struct nm_port *port, uint32_t mtu) { WRITE_ONCE(port->mtu, mtu); }

/* ---- which rings ------------------------------------------------------------------------------
 */

static int one_ring(const struct nm_port *port, enum nm_dir dir, bool host, uint32_t id,
                    struct nm_file *file, struct nm_refusal *why) {
    const uint32_t *count = host ? port->num_host : port->num_rings;
    uint32_t most = count[NM_TX] > count[NM_RX] ? count[NM_TX] : count[NM_RX];
    if (id >= most)
        return nm_refuse(why, EINVAL, "ring %u asked for, %s has %u %s rings", id, port->name, most,
                         host ? "host" : "hardware");
    uint32_t base = host ? port->num_rings[dir] : 0;
    file->first[dir] = base + (id < count[dir] ? id : 0);
    file->last[dir] = file->first[dir] + (count[dir] ? 1 : 0);
    return 0;
}

static int ring_range(const struct nm_port *port, const struct nmreq_register *request,
                      struct nm_file *file, struct nm_refusal *why) {
    static const uint64_t excluded[NM_DIRS] = {NR_TX_RINGS_ONLY, NR_RX_RINGS_ONLY};
    uint32_t mode = request->nr_mode;
    bool wants_host = mode == NR_REG_SW || mode == NR_REG_NIC_SW || mode == NR_REG_ONE_SW;
    if (wants_host && !port->has_host)
        return nm_refuse(why, EINVAL, "%s has no host rings", port->name);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        uint32_t rings = port->num_rings[dir], all = nm_port_total_rings(port, dir);
        int error = 0;
        file->first[dir] = 0;
        file->last[dir] = 0;
        switch (mode) {
        case NR_REG_ALL_NIC:
        case NR_REG_NULL:
            file->last[dir] = rings;
            break;
        case NR_REG_SW:
            file->first[dir] = rings;
            file->last[dir] = all;
            break;
        case NR_REG_NIC_SW:
            file->last[dir] = all;
            break;
        case NR_REG_ONE_NIC:
        case NR_REG_ONE_SW:
            error = one_ring(port, dir, mode == NR_REG_ONE_SW, request->nr_ringid, file, why);
            break;
        default:
            error = nm_refuse(why, EINVAL, "there is no register mode %u", mode);
        }
        if (error) return error;
        if (request->nr_flags & excluded[dir]) file->last[dir] = file->first[dir];
    }
    return 0;
}

static int check_exclusive(const struct nm_port *port, const struct nm_file *file,
                           struct nm_refusal *why) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            const struct nm_kring *kring = &port->krings[dir][i];
            if (kring->exclusive)
                return nm_refuse(why, EBUSY, "another program holds %s ring %u of %s exclusively",
                                 dir_name[dir], i, port->name);
            if (file->exclusive && kring->users)
                return nm_refuse(why, EBUSY,
                                 "asked for exclusively, but %s ring %u of %s has %u user(s)",
                                 dir_name[dir], i, port->name, kring->users);
        }
    }
    return 0;
}

/* A ring has one layout at a time: that of the programs that have it. */
static int check_layout(const struct nm_port *port, const struct nm_file *file,
                        struct nm_refusal *why) {
    const struct nm_age *age = nm_age_of(file->api);
    const struct nm_ring_layout *layout = age->ring;
    uint32_t size = port->buffers.size;
    if (age->one_region && nm_region_extmem(port->region))
        return nm_refuse(why, EINVAL, "%s lives in memory that programs of that age cannot map",
                         port->name);
    if (layout && (size > UINT16_MAX || (layout->fixed_buffers && size != 2048)))
        return nm_refuse(why, EINVAL, "programs of that age know no buffers of %u bytes", size);
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            const struct nm_kring *kring = &port->krings[dir][i];
            if (kring->users && kring->old.layout != layout)
                return nm_refuse(why, EBUSY, "%s ring %u of %s is held by a program of another age",
                                 dir_name[dir], i, port->name);
        }
    }
    return 0;
}

/* A frame of the interface must fit into one buffer, as netmap wants it. */
static int check_mtu(const struct nm_port *port, const struct nm_file *file,
                     struct nm_refusal *why) {
    if (file->first[NM_RX] == file->last[NM_RX] || port->mtu <= port->buffers.size) return 0;
    return nm_refuse(why, EINVAL,
                     "the MTU of %s is %u, a buffer has %u bytes: lower the MTU or raise buf_size",
                     port->name, port->mtu, port->buffers.size);
}

/* ---- rings ------------------------------------------------------------------------------------
 */

/* Everything the file is going to take must be there before it takes any. */
static int check_memory(const struct nm_port *port, const struct nm_file *file,
                        struct nm_refusal *why) {
    uint32_t ring_size = nm_region_pool(port->region, NM_POOL_RING).objsize;
    bool old = nm_age_of(file->api)->ring;
    uint64_t rings = 0, slots = 0;
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        uint64_t needed = NETMAP_RING_BYTES((uint64_t)port->num_slots[dir]);
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            const struct nm_kring *kring = &port->krings[dir][i];
            if (!kring->users && old) rings++;
            if (nm_kring_exists(kring)) continue;
            if (needed > ring_size)
                return nm_refuse(why, ENOMEM,
                                 "a ring of %u slots takes %llu bytes, ring_size is %u",
                                 port->num_slots[dir], (unsigned long long)needed, ring_size);
            rings += kring->partner ? 2 : 1; /* both ends, over the same buffers */
            slots += port->num_slots[dir];
        }
    }
    uint32_t entries = nm_if_entries(port, NM_TX) + nm_if_entries(port, NM_RX);
    int error = nm_if_check_size(port->region, entries, why);
    if (!error) error = nm_region_check(port->region, NM_POOL_RING, rings, why);
    if (!error) error = nm_region_check(port->region, NM_POOL_BUF, slots, why);
    if (!error) error = nm_region_check(port->region, NM_POOL_IF, 1, why);
    return error;
}

/* The ring's memory, in netmap's initial state but for the slots. */
static void create_ring(struct nm_kring *kring) {
    struct nm_region *region = kring->port->region;
    uint32_t object = (uint32_t)nm_region_alloc(region, NM_POOL_RING);
    struct netmap_ring *ring = nm_region_object(region, NM_POOL_RING, object);
    memset(ring, 0, nm_region_pool(region, NM_POOL_RING).objsize);
    kring->ring = ring;
    kring->ring_object = object;
    kring->hwcur = kring->rhead = kring->filled = kring->shown = 0;
    kring->hwtail = kring->dir == NM_TX ? kring->num_slots - 1 : 0;
    kring->offset_mask = kring->offset_max = 0;
    ring->buf_ofs = (int64_t)(nm_region_offset(region, NM_POOL_BUF, 0) -
                              nm_region_offset(region, NM_POOL_RING, object));
    ring->num_slots = kring->num_slots;
    ring->nr_buf_size = kring->port->buffers.size;
    ring->ringid = kring->index;
    ring->dir = kring->dir;
    ring->tail = kring->hwtail;
}

static void fill_slots(struct nm_kring *kring) {
    for (uint32_t i = 0; i < kring->num_slots; i++) {
        struct netmap_slot *slot = &kring->ring->slot[i];
        slot->buf_idx = (uint32_t)nm_region_alloc(kring->port->region, NM_POOL_BUF);
        slot->len = (uint16_t)kring->port->buffers.size;
    }
}

/* The two rings of a pipe's direction come and go together, and share their buffers: a slot that
 * the receiver has is as good as gone at the sender. */
static void create_rings(struct nm_kring *kring) {
    create_ring(kring);
    fill_slots(kring);
    if (!kring->partner) return;
    create_ring(kring->partner);
    memcpy(kring->partner->ring->slot, kring->ring->slot,
           kring->num_slots * sizeof(struct netmap_slot));
}

/* Monitors may sync a live ring that is not theirs; nobody else can be at it here. */
static void set_live(struct nm_kring *kring, bool live) {
    nm_kring_lock(kring);
    kring->live = live;
    nm_kring_unlock(kring);
}

/* Drops the file's claim on its rings; those nobody else holds are stopped. Their memory is given
 * back only after the census, in which they no longer count. */
static void leave_rings(struct nm_port *port, const struct nm_file *file) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            struct nm_kring *kring = &port->krings[dir][i];
            kring->exclusive -= file->exclusive;
            if (--kring->users) continue;
            set_live(kring, false);
            if (port->ops->stop) port->ops->stop(kring);
            nm_old_ring_close(kring);
        }
    }
}

/* ---- register and unregister ------------------------------------------------------------------
 */

static int acquire_ring(struct nm_kring *kring, const struct nm_file *file,
                        struct nm_refusal *why) {
    if (!nm_kring_exists(kring))
        create_rings(kring->dir == NM_RX && kring->partner ? kring->partner : kring);
    nm_offsets_apply(kring, file->offsets);
    if (!kring->users) {
        const struct nm_ring_layout *layout = nm_age_of(file->api)->ring;
        if (layout) nm_old_ring_open(kring, layout);
        int error = kring->port->ops->start ? kring->port->ops->start(kring, why) : 0;
        if (error) {
            nm_old_ring_close(kring);
            struct nm_census census = nm_census_take(kring->port->region);
            if (!nm_kring_exists(kring)) nm_give_back_ring(kring, &census);
            return error;
        }
        set_live(kring, true);
    }
    kring->users++;
    kring->exclusive += file->exclusive;
    return 0;
}

static int acquire_rings(struct nm_port *port, struct nm_file *file, struct nm_refusal *why) {
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        for (uint32_t i = file->first[dir]; i < file->last[dir]; i++) {
            int error = acquire_ring(&port->krings[dir][i], file, why);
            if (!error) continue;
            /* What this file holds so far is all that is to be undone. */
            file->last[dir] = i;
            for (enum nm_dir later = dir + 1; later < NM_DIRS; later++)
                file->last[later] = file->first[later];
            return error;
        }
    }
    return 0;
}

/* How many host rings a port has is decided by the first file, and forgotten with the last. */
static void settle_host_rings(struct nm_port *port) {
    if (port->files) return;
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++)
        port->num_host[dir] = port->has_host;
}

static void let_go(struct nm_port *port, struct nm_file *file) {
    leave_rings(port, file);
    if (port->files == 1) nm_monitored_end(port);
    struct nm_census census = nm_census_take(port->region);
    nm_give_back_rings(port, file, &census);
    if (file->nifp) nm_give_back_extra(port, file, &census);
    nm_region_reclaim(port->region, census.owed, census.visible);
    if (file->nifp) nm_region_free(port->region, NM_POOL_IF, file->if_object);
    port->files--;
    settle_host_rings(port);
    file->nifp = NULL;
}

static uint32_t host_rings(const struct nm_port *port, uint32_t wanted) {
    if (!port->has_host) return 0;
    if (!wanted) return 1;
    return wanted < NM_HOST_RINGS_MAX ? wanted : NM_HOST_RINGS_MAX;
}

void nm_file_want_offsets(struct nm_file *file, struct nm_offsets *offsets) {
    file->offsets = offsets;
}

/* What a request is told. */
static void complete(const struct nm_file *file, const struct nm_port *port,
                     struct nmreq_register *request) {
    request->nr_offset = nm_region_offset(port->region, NM_POOL_IF, file->if_object);
    request->nr_memsize = nm_region_size(port->region);
    request->nr_tx_slots = port->num_slots[NM_TX];
    request->nr_rx_slots = port->num_slots[NM_RX];
    request->nr_tx_rings = (uint16_t)port->num_rings[NM_TX];
    request->nr_rx_rings = (uint16_t)port->num_rings[NM_RX];
    request->nr_host_tx_rings = (uint16_t)port->num_host[NM_TX];
    request->nr_host_rx_rings = (uint16_t)port->num_host[NM_RX];
    request->nr_extra_bufs = file->extra_bufs;
}

/* Before anybody can sync. Whoever wants to change rings must not wait for ever for those who do.
 */
static void may_change(struct nm_file *file) {
    pthread_rwlockattr_t attributes;
    if (file->changes || !nm_age_of(file->api)->ring) return;
    pthread_rwlockattr_init(&attributes);
    pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&file->binding, &attributes);
    pthread_rwlockattr_destroy(&attributes);
    file->changes = true;
}

static int bind_rings(struct nm_file *file, struct nm_port *port, struct nmreq_register *request,
                      struct nm_refusal *why) {
    const struct nm_age *age = nm_age_of(file->api);
    if (file->port) return nm_refuse(why, EBUSY, "this descriptor is bound to a port already");
    if (!age) return nm_refuse(why, EINVAL, "the structs of API %u are not known", file->api);
    if (port->gone) return nm_refuse(why, EIO, "%s has disappeared", port->name);
    if (port->attached) return nm_refuse(why, EBUSY, "%s is attached to a VALE switch", port->name);
    if (!port->files) {
        port->num_host[NM_TX] = host_rings(port, request->nr_host_tx_rings);
        port->num_host[NM_RX] = host_rings(port, request->nr_host_rx_rings);
    }
    file->exclusive = request->nr_flags & NR_EXCLUSIVE && !age->ring; /* there was no such thing */
    file->no_tx_poll = request->nr_flags & NR_NO_TX_POLL;
    file->extra_bufs = 0;
    file->nifp = NULL;
    int error = ring_range(port, request, file, why);
    if (!error && !port->files) error = check_mtu(port, file, why);
    if (!error) error = check_exclusive(port, file, why);
    if (!error) error = check_layout(port, file, why);
    if (!error) error = check_memory(port, file, why);
    if (!error) error = nm_offsets_check(file, port, why);
    if (error) {
        settle_host_rings(port);
        return error;
    }
    port->files++;
    error = acquire_rings(port, file, why);
    if (error) {
        let_go(port, file);
        return error;
    }
    nm_if_create(port, file, request->nr_extra_bufs);
    may_change(file);
    complete(file, port, request);

    file->port = port;
    pthread_mutex_lock(&port->lock);
    file->next_file = port->first_file;
    port->first_file = file;
    pthread_mutex_unlock(&port->lock);
    nm_offsets_answer(file);
    return 0;
}

int nm_file_register(struct nm_file *file, struct nm_port *port, struct nmreq_register *request,
                     struct nm_refusal *why) {
    int error = bind_rings(file, port, request, why);
    file->offsets = NULL;
    return error;
}

void nm_file_activate(struct nm_file *file) {
    if (file->port) store_release(&file->active, true);
}

void nm_file_unregister(struct nm_file *file) {
    struct nm_port *port = file->port;
    if (!port) return;
    pthread_mutex_lock(&port->lock);
    struct nm_file **link = &port->first_file;
    while (*link != file)
        link = &(*link)->next_file;
    *link = file->next_file;
    pthread_mutex_unlock(&port->lock);
    let_go(port, file);
    file->port = NULL;
    file->active = false;
    file->csb = (struct nm_csb){0};
    file->kloop_stop = false;
}

/* A sleeper finds out what has become of its file by asking again. */
static void wake_sleepers(struct nm_file *file) {
    if (__atomic_exchange_n(&file->armed, 0, __ATOMIC_SEQ_CST)) file->wake(file);
}

void nm_file_deactivate(struct nm_file *file) {
    if (!file->changes) return;
    pthread_rwlock_wrlock(&file->binding);
    store_release(&file->active, false);
    pthread_rwlock_unlock(&file->binding);
    wake_sleepers(file);
}

/* The rings that `next` says, none of which may fail any more once it holds them, instead of the
 * file's. */
static void change_rings(struct nm_file *file, const struct nm_file *next) {
    struct nm_port *port = file->port;
    leave_rings(port, file);
    struct nm_census census = nm_census_take(port->region);
    nm_give_back_rings(port, file, &census);
    pthread_mutex_lock(&port->lock); /* those who wake look at whose rings these are */
    for (enum nm_dir dir = 0; dir < NM_DIRS; dir++) {
        file->first[dir] = next->first[dir];
        file->last[dir] = next->last[dir];
    }
    pthread_mutex_unlock(&port->lock);
    file->no_tx_poll = next->no_tx_poll;
    nm_if_show_rings(port, file);
}

static int take_other_rings(struct nm_file *file, struct nmreq_register *request,
                            struct nm_refusal *why) {
    struct nm_port *port = file->port;
    struct nm_file next = {.api = file->api, .no_tx_poll = request->nr_flags & NR_NO_TX_POLL};
    if (port->gone) return nm_refuse(why, EIO, "%s has disappeared", port->name);
    int error = ring_range(port, request, &next, why);
    if (!error) error = check_mtu(port, &next, why);
    if (!error) error = check_exclusive(port, &next, why);
    if (!error) error = check_layout(port, &next, why);
    if (!error) error = check_memory(port, &next, why);
    if (error) return error;
    error = acquire_rings(port, &next, why);
    if (error) {
        leave_rings(port, &next);
        struct nm_census census = nm_census_take(port->region);
        nm_give_back_rings(port, &next, &census);
        return error;
    }
    change_rings(file, &next);
    complete(file, port, request);
    return 0;
}

int nm_file_rebind(struct nm_file *file, struct nmreq_register *request, struct nm_refusal *why) {
    if (!file->port || !file->changes || !nm_age_of(file->api)->ring || file->port->ops->fixed)
        return nm_refuse(why, EBUSY, "the rings of this descriptor cannot be changed");
    pthread_rwlock_wrlock(&file->binding);
    int error = take_other_rings(file, request, why);
    pthread_rwlock_unlock(&file->binding);
    if (!error) wake_sleepers(file);
    return error;
}
