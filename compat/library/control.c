/* SPDX-License-Identifier: BSD-2-Clause */
/* The calls of compat_netmap.h but for poll: what belongs to libc goes there, the rest to the part
 * that knows. */

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "barrier.h"
#include "dpdk/eal.h"
#include "library.h"

#define DEVICE "/dev/netmap"

struct library netmap = {.control = PTHREAD_MUTEX_INITIALIZER, .table = PTHREAD_MUTEX_INITIALIZER};

/* ---- life --------------------------------------------------------------------------------------
 */

static int set_up(const struct rte_netmap_conf *conf) {
    static bool prepared; /* pthread_atfork cannot be undone */
    struct nm_refusal why = {0};
    if (netmap.forked)
        return refuse(ENXIO, "rte_netmap_init: DPDK's threads stayed with the parent process");
    if (netmap.up) return refuse(EALREADY, "rte_netmap_init has been called already");
    int error = parameters_read(conf, &netmap.parameters);
    if (error) return error;
    error = nm_region_create(netmap.parameters.pools, &netmap.region, &why);
    if (error)
        return refuse(-error, "rte_netmap_init: %s", *why.text ? why.text : strerror(-error));
    error = nm_events_create(&netmap.events);
    if (!error && !prepared) error = files_prepare();
    if (error) {
        nm_events_destroy(netmap.events);
        nm_region_destroy(netmap.region);
        netmap.events = NULL;
        return refuse(-error, "rte_netmap_init: %s", strerror(-error));
    }
    prepared = true;
    nm_eal_adopt();
    nm_set_no_timestamp(netmap.parameters.no_timestamp);
    WRITE_ONCE(netmap.up, true);
    return 0;
}

/* The two calls of our own tell their errno both ways. */
static int told(int error) {
    if (error) errno = -error;
    return error;
}

int rte_netmap_init(const struct rte_netmap_conf *conf) {
    pthread_mutex_lock(&netmap.control);
    int error = set_up(conf);
    pthread_mutex_unlock(&netmap.control);
    return told(error);
}

static int set_up_port(uint16_t id, const struct rte_netmap_port_conf *conf) {
    if (!netmap.up)
        return refuse(ENODEV, "rte_netmap_init_port(%u): rte_netmap_init has not been called", id);
    if (!rte_eth_dev_is_valid_port(id))
        return refuse(ENODEV, "rte_netmap_init_port(%u): DPDK has no such port", id);
    if (netmap.wires[id].ready)
        return refuse(EBUSY, "rte_netmap_init_port(%u): it is one of netmap already", id);
    netmap.wires[id] = (struct wire){.id = id};
    return ethernet_configure(&netmap.wires[id], conf);
}

int rte_netmap_init_port(uint16_t portid, const struct rte_netmap_port_conf *conf) {
    pthread_mutex_lock(&netmap.control);
    int error = set_up_port(portid, conf);
    pthread_mutex_unlock(&netmap.control);
    return told(error);
}

void rte_netmap_cleanup(void) {
    if (!netmap.up || netmap.forked) return;
    files_end();
    WRITE_ONCE(netmap.up, false);
    for (uint16_t id = 0; id < RTE_MAX_ETHPORTS; id++)
        if (netmap.wires[id].ready) ethernet_close(&netmap.wires[id]);
    nm_events_destroy(netmap.events);
    nm_region_destroy(netmap.region);
    netmap.events = NULL;
    netmap.region = NULL;
}

/* ---- open and close ----------------------------------------------------------------------------
 */

int rte_netmap_open(const char *pathname, int flags, ...) {
    if (!pathname) return answer(-EFAULT);
    if (strncmp(pathname, DEVICE, sizeof(DEVICE) - 1)) {
        va_list arguments;
        va_start(arguments, flags);
        bool creates = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
        mode_t mode = creates ? va_arg(arguments, mode_t) : 0;
        va_end(arguments);
        return open(pathname, flags, mode);
    }
    files_bury();
    return answer(file_open(flags));
}

int rte_netmap_close(int fd) {
    struct open_file *file = file_get(fd);
    int result = close(fd);
    if (!file) return result;
    /* Where it was the last of the descriptors its port is free when we return. */
    pthread_mutex_lock(&netmap.control);
    if (!netmap.forked) files_reap();
    pthread_mutex_unlock(&netmap.control);
    file_put(file);
    if (!netmap.forked) files_bury();
    return result;
}

/* ---- mmap --------------------------------------------------------------------------------------
 */

/* A private copy of rings would show nothing: whoever asks for one means what everybody means. */
static int shared(int flags) { return (flags & ~MAP_TYPE) | MAP_SHARED; }

static int check_map(size_t length, off_t offset) {
    uint64_t size = nm_region_size(netmap.region), start = (uint64_t)offset;
    if (offset < 0 || start > size || length > size - start)
        return refuse(EINVAL, "mmap: %zu bytes from %lld on, the memory has %llu", length,
                      (long long)offset, (unsigned long long)size);
    return 0;
}

void *rte_netmap_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset) {
    struct open_file *file = flags & MAP_ANONYMOUS ? NULL : file_get(fd);
    if (!file) return mmap(addr, length, prot, flags, fd, offset);
    int error = netmap.forked ? -ENXIO : check_map(length, offset);
    void *memory = MAP_FAILED;
    if (error)
        errno = -error;
    else
        memory = mmap(addr, length, prot, shared(flags), nm_region_memfd(netmap.region), offset);
    file_put(file);
    return memory;
}

/* ---- ioctl -------------------------------------------------------------------------------------
 */

/* Moves whenever a sync finds something. */
static uint32_t received(const struct nm_file *file) {
    uint32_t sum = 0;
    for (uint32_t i = file->first[NM_RX]; file->port && i < file->last[NM_RX]; i++)
        sum += READ_ONCE(file->port->krings[NM_RX][i].hwtail);
    return sum;
}

static int sync_file(struct open_file *file, int fd, enum nm_dir dir) {
    pthread_rwlock_rdlock(&file->use);
    uint32_t before = received(&file->file);
    int error = nm_file_sync(&file->file, dir, 0);
    if (!error && dir == NM_RX) file_settle(file, fd, received(&file->file) != before);
    pthread_rwlock_unlock(&file->use);
    return error;
}

static int unregister(struct open_file *file) {
    pthread_mutex_lock(&netmap.control);
    int error = file->wire ? 0 : refuse(EINVAL, "NIOCUNREGIF: the descriptor is not registered");
    file_unbind(file);
    pthread_mutex_unlock(&netmap.control);
    return error;
}

static int device(struct open_file *file, unsigned long command, void *argument) {
    pthread_mutex_lock(&netmap.control);
    int error =
        file->wire
            ? device_ioctl(file->wire, command, argument)
            : refuse(EOPNOTSUPP, "ioctl %#lx: the descriptor is not registered on a port", command);
    pthread_mutex_unlock(&netmap.control);
    return error;
}

/* A command whose number is one of netmap's and whose struct has another size. */
static bool misshapen(unsigned long command) {
    static const unsigned long known[] = {NIOCGINFO, NIOCREGIF, NIOCCTRL};
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (_IOC_TYPE(command) == _IOC_TYPE(known[i]) && _IOC_NR(command) == _IOC_NR(known[i]))
            return true;
    return false;
}

static int file_ioctl(struct open_file *file, int fd, unsigned long command, void *argument) {
    switch ((uint32_t)command) {
    case NIOCTXSYNC:
        return sync_file(file, fd, NM_TX);
    case NIOCRXSYNC:
        return sync_file(file, fd, NM_RX);
    case NIOCREGIF:
        return request_register(file, argument);
    case NIOCGINFO:
        return request_info(file, argument);
    case NIOCCTRL:
        return request_control(file, argument);
    case NIOCUNREGIF:
        return unregister(file);
    case NIOCCONFIG:
        return refuse(EINVAL, "NIOCCONFIG: the library has no switches");
    default:
        if (misshapen(command))
            return refuse(EINVAL, "ioctl %#lx: its struct has %u bytes, not those of netmap",
                          command, _IOC_SIZE((unsigned)command));
        return device(file, command, argument);
    }
}

int rte_netmap_ioctl(int fd, unsigned long request, ...) {
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    struct open_file *file = file_get(fd);
    if (!file) return ioctl(fd, request, argument);
    int result = netmap.forked ? -ENXIO : file_ioctl(file, fd, request, argument);
    file_put(file);
    return answer(result);
}
