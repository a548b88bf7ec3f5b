/* SPDX-License-Identifier: BSD-2-Clause */
/* A port and its rings, as a program of any age (NETMAP_OLD_API) opens and walks them. */
#ifndef PORT_H
#define PORT_H

#include <fcntl.h>
#include <net/netmap.h>
#include <net/netmap_user.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static char *memory; /* one map serves all descriptors */

static inline int fail(const char *what) {
    perror(what);
    exit(2);
}

static inline void map(int fd, uint64_t length) {
    if (memory) return;
    memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) fail("mmap");
}

#if NETMAP_OLD_API >= 12

/* By NIOCCTRL; ringid is that of an nmreq. */
static inline struct netmap_if *bind_port(int fd, const char *port, uint16_t ringid) {
    struct nmreq_register body = {.nr_ringid = ringid & NETMAP_RING_MASK,
                                  .nr_mode = ringid & NETMAP_SW_RING   ? NR_REG_SW
                                             : ringid & NETMAP_HW_RING ? NR_REG_ONE_NIC
                                                                       : NR_REG_ALL_NIC};
    struct nmreq_header header = {
        .nr_version = NETMAP_API, .nr_reqtype = NETMAP_REQ_REGISTER, .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", port);
    if (ioctl(fd, NIOCCTRL, &header)) fail("REGISTER");
    map(fd, body.nr_memsize);
    return NETMAP_IF(memory, body.nr_offset);
}

#else

static inline void name(struct nmreq *request, const char *port) {
    memset(request, 0, sizeof(*request));
    snprintf(request->nr_name, sizeof(request->nr_name), "%s", port);
#ifdef NETMAP_API
    request->nr_version = NETMAP_API;
#endif
}

static inline struct netmap_if *bind_port(int fd, const char *port, uint16_t ringid) {
    struct nmreq request;
#if NETMAP_OLD_API < 10 /* as pkt-gen did it: how much memory there is, the map, then the port */
    name(&request, "");
    if (ioctl(fd, NIOCGINFO, &request)) fail("NIOCGINFO");
    map(fd, request.nr_memsize);
#endif
    name(&request, port);
    request.nr_ringid = ringid;
    if (ioctl(fd, NIOCREGIF, &request)) fail("NIOCREGIF");
    map(fd, request.nr_memsize);
    return NETMAP_IF(memory, request.nr_offset);
}

#endif

static inline int open_device(void) {
    int fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    return fd < 0 ? fail("open") : fd;
}

/* Slots that are the program's, from ring->cur on; and giving one of them back. */
#if NETMAP_OLD_API >= 10
static inline uint32_t space(struct netmap_ring *ring) { return nm_ring_space(ring); }
static inline uint32_t after(struct netmap_ring *ring, uint32_t k) { return nm_ring_next(ring, k); }
static inline void advance(struct netmap_ring *ring) {
    ring->head = ring->cur = nm_ring_next(ring, ring->cur);
}
#else
static inline uint32_t space(struct netmap_ring *ring) { return ring->avail; }
static inline uint32_t after(struct netmap_ring *ring, uint32_t k) {
    return NETMAP_RING_NEXT(ring, k);
}
static inline void advance(struct netmap_ring *ring) {
    ring->cur = NETMAP_RING_NEXT(ring, ring->cur);
    ring->avail--;
}
#endif

#endif
