/* SPDX-License-Identifier: BSD-2-Clause */
/* DPDK's environment (EAL), of which a process has one: started once, its words made ours, and the
 * threads that use it. Needs libdpdk; knows nothing of ports, and like all here, nothing of Python.
 */
#ifndef CUSE_NETMAP_DPDK_EAL_H
#define CUSE_NETMAP_DPDK_EAL_H

#include <stdbool.h>
#include <stdint.h>

#include "refusal.h"

/* Starts the EAL with these options (no program name before them) in a process that goes on as it
 * was: signals, affinity and files stay what they are. One lcore that may run on any of our CPUs,
 * no telemetry, nothing shared with other processes, unless the options say otherwise. A second
 * call is 0 and changes nothing.
 * -EINVAL an option is not understood, or ends the program (-h); -EALREADY an earlier start failed
 * in a way that DPDK cannot repeat; else what DPDK says. */
int nm_eal_start(uint32_t count, const char *const options[], struct nm_refusal *why);
/* The program has started the EAL itself, and will stop it. */
void nm_eal_adopt(void);
/* When no port is left; there is no second start. */
void nm_eal_stop(void);

/* The DPDK log from nm_eal_start on: a pipe of lines, each with a first byte that is its level,
 * '1' (emergency) to '8' (debug). Ends with nm_eal_stop. */
int nm_eal_log(void);
/* What DPDK said last that was no mere notice, since the last nm_eal_listen; "" if nothing. */
void nm_eal_listen(void);
void nm_eal_last_words(char *text, uint32_t size);
/* What this thread makes DPDK say is of no interest to anybody, until it is again. */
void nm_eal_mute(bool mute);
/* *why and -errno of a failed call of DPDK's: `result` is what it returned, -1 or -errno, or 0 if
 * only rte_errno says; its last words complete the sentence. */
__attribute__((format(printf, 3, 4))) int nm_eal_refuse(struct nm_refusal *why, int result,
                                                        const char *format, ...);

/* Whether a device is DPDK's own, of no bus of the machine's; false also for one that has gone. */
bool nm_eal_is_virtual(uint16_t device);
/* Does this to a device, which is how it is stopped and closed. To a virtual one in the EAL's
 * interrupt thread, where their drivers hear of events and take no lock: one that is stopped
 * elsewhere while its peer hangs up can be torn down twice (net_memif). To others at once: they may
 * wait for that thread themselves (net_ena, net_ice_dcf). */
void nm_eal_in_turn(uint16_t device, void (*function)(void *arg), void *arg);

/* Called before a thread's packets, of which it will have more: memory pools then keep a cache for
 * it, whose mbufs nobody else gets. */
void nm_eal_enter(void);

#endif
