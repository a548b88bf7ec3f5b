/* SPDX-License-Identifier: BSD-2-Clause */
/* The first step of porting without touching a line: included before anything else (gcc -include),
 * it makes open, close, ioctl, mmap and poll of a netmap program those of compat_netmap.h, which
 * pass on what is not netmap's. */
#ifndef COMPAT_NETMAP_REDIRECT_H
#define COMPAT_NETMAP_REDIRECT_H

/* Whoever declares them or uses them as they are comes first. */
#include <fcntl.h>
#include <poll.h>
#include <rte_ethdev.h>
#include <rte_mempool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define open(...) rte_netmap_open(__VA_ARGS__)
#define close(fd) rte_netmap_close(fd)
#define ioctl(...) rte_netmap_ioctl(__VA_ARGS__)
#define mmap(...) rte_netmap_mmap(__VA_ARGS__)
#define poll(...) rte_netmap_poll(__VA_ARGS__)

#include "compat_netmap.h"

#endif
