/* SPDX-License-Identifier: BSD-2-Clause */
/* Descriptors of the program whose system call is being answered. */
#ifndef CUSE_NETMAP_CLIENT_FILES_H
#define CUSE_NETMAP_CLIENT_FILES_H

#include <stdint.h>

#include "refusal.h"

/* Duplicates descriptor `fds[i]` of thread `tid` into `ours[i]`, for each i below `count` whose
 * fds[i] is not negative; ours[i] is -1 for the others. All of them must be eventfds: of anything
 * else nobody knows how it behaves when it is written to, or waited for. The caller closes them.
 * EBADF   there is no such descriptor
 * EINVAL  it is something else
 * EPERM   the kernel forbids it to us (no CAP_SYS_PTRACE)
 * else -errno of the system call that failed; none is left open then */
int nm_client_eventfds(uint32_t tid, const int32_t *fds, uint32_t count, int *ours,
                       struct nm_refusal *why);

#endif
