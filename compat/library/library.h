/* SPDX-License-Identifier: BSD-2-Clause */
/* What the parts of libcompat_netmap share: the ports, the open files, and who may touch them when.
 *
 * Locks. `control` is held by whatever changes what exists (a port, a registration); `table` for a
 * moment, to find a file by its descriptor. A sync or poll holds its file's `use` for reading; it
 * is held for writing, with control, to take the file's rings away. `waking` guards a file's
 * sleepers. Order: control, use, table, waking. Watches are destroyed with none of them held, since
 * the events thread takes control.
 */
#ifndef COMPAT_NETMAP_LIBRARY_H
#define COMPAT_NETMAP_LIBRARY_H

#include <pthread.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "dpdk/port.h"
#include "events.h"
#include "parameters.h"
#include "ports/ports.h"
#include "ring_core.h"

/* Behind today's netmap, which the engine speaks. */
#define COMPAT_NETMAP_NO_SHIMS
#include "compat_netmap.h"

#define GLOBAL_MEM_ID 1

/* A port of DPDK that rte_netmap_init_port has been given. */
struct wire {
    uint16_t id;
    bool ready; /* it is configured */
    struct nm_dpdk_set_up set_up;
    uint16_t rx_descriptors;
    uint32_t slots[NM_DIRS];
    struct rte_mempool *own_pool;
    struct nm_dpdk_port *device; /* NULL: it has not been registered yet, nor started */
    struct nm_port *port;        /* the same */
    bool has_host;               /* its host rings lead to a TAP device */
};

/* What rte_netmap_open made, however many descriptors name it. */
struct open_file {
    struct nm_file file; /* first: the engine's wake is called with it */
    ino_t inode;       /* of the program's end of the socket pair, which tells descriptors apart */
    int end;           /* ours, which hangs up when the last of the program's is closed */
    struct wire *wire; /* that it is registered on */
    struct nm_watch *watch;
    pthread_rwlock_t use;
    uint32_t references; /* with table held: one of the table's, one of each call under way */
    bool closed;         /* with control held */
    bool watched;        /* libc may be waiting for the program's end to become readable */
    bool signalled;      /* it is */
    pthread_mutex_t waking;
    struct waiter *waiters; /* with waking held */
    struct open_file *next;
};

/* A thread that sleeps in rte_netmap_poll, as one of the files sees it that it waits for. */
struct waiter {
    struct open_file *file;
    int event; /* its eventfd */
    struct waiter *next;
};

struct library {
    pthread_mutex_t control, table;
    bool up;
    bool forked; /* this is a child of the program that has the ports */
    struct parameters parameters;
    struct nm_region *region;
    struct nm_events *events;
    struct wire wires[RTE_MAX_ETHPORTS];
    dev_t device;             /* of every descriptor's inode */
    struct open_file *open;   /* table */
    struct open_file *buried; /* table: to be freed by whoever may destroy watches */
};
extern struct library netmap;

/* ---- log.c ----------------------------------------------------------------------------------- */

/* One line to DPDK's log, at most ten a second; returns -error. */
__attribute__((format(printf, 2, 3))) int refuse(int error, const char *format, ...);
__attribute__((format(printf, 1, 2))) void tell(const char *format, ...);
/* For a call that answers as libc does: result, or -1 with errno for a negative errno. */
int answer(int result);

/* ---- files.c --------------------------------------------------------------------------------- */

/* The file behind a descriptor, until file_put; NULL if it is none of ours. */
struct open_file *file_get(int fd);
void file_put(struct open_file *file);
int file_open(int flags);
/* With control held: takes the file's rings away, and what nobody uses any more. */
void file_unbind(struct open_file *file);
/* With control held: files whose last descriptor has been closed give back what they hold. */
void files_reap(void);
/* Without it: frees what was closed. */
void files_bury(void);
void files_end(void);
int files_prepare(void);
/* Whoever sleeps on the file looks again: threads in rte_netmap_poll, and those in libc's poll. */
void file_wake(struct open_file *file);
/* From when to when the waiter is told. */
void file_add_waiter(struct waiter *waiter);
void file_remove_waiter(struct waiter *waiter);
/* After an RX sync, with use held: the program's end stays readable while syncs find something, and
 * becomes so once another one may. */
void file_settle(struct open_file *file, int fd, bool found);

/* ---- requests.c, control.c, device.c --------------------------------------------------------- */

/* NIOCREGIF, NIOCGINFO and NIOCCTRL, argument and all: 0 or -errno. */
int request_register(struct open_file *file, void *argument);
int request_info(struct open_file *file, void *argument);
int request_control(struct open_file *file, void *argument);

/* Of the port of that name, or with an empty name of the memory only. Without control. */
int port_info(const char *name, struct nmreq_port_info_get *info);

/* The wire of that name: its number, with or without netmap: or dpdk before it, or DPDK's name of
 * it. -ENXIO */
int wire_find(const char *name, struct wire **out);
/* With control held: binds the file, as nm_file_register says. `api` is the program's. */
int wire_register(struct open_file *file, const char *name, uint32_t api,
                  struct nmreq_register *request, struct nm_offsets *offsets);

/* An ioctl of network devices on the wire: 0 or -errno, -EOPNOTSUPP for those it has not. */
int device_ioctl(struct wire *wire, unsigned long command, void *argument);

/* ---- ethernet.c, host.c ---------------------------------------------------------------------- */

int ethernet_configure(struct wire *wire, const struct rte_netmap_port_conf *conf);
int ethernet_start(struct wire *wire);
void ethernet_close(struct wire *wire);

/* Host rings: a TAP device dpdkN with the wire's address and MTU. With control held, before one is
 * bound. */
int host_open(struct wire *wire);

#endif
