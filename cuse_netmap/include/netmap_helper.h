/* SPDX-License-Identifier: BSD-2-Clause */
/* What the preloaded helper and the daemon say to each other: an ioctl for a token, then a unix
 * socket where the token buys the memory. Not part of netmap's ABI; programs need none of it. */
#ifndef NETMAP_HELPER_H
#define NETMAP_HELPER_H

#include <stdint.h>
#include <sys/ioctl.h>

#define NETMAP_HELPER_TOKEN_SIZE 16

/* Fills in a token that is good once, and the daemon's socket. EINVAL: the descriptor is not
 * registered; any other failure: it is not one of ours. */
struct netmap_helper_token {
    uint8_t token[NETMAP_HELPER_TOKEN_SIZE];
    char socket[108]; /* a path, NUL-terminated */
};
#define NIOCHELPERTOKEN _IOR('i', 0xf0, struct netmap_helper_token)

/* The helper sends the token's bytes; the daemon answers with this and, as SCM_RIGHTS, the memory.
 * It closes the connection without an answer for any other token. */
struct netmap_helper_memory {
    uint64_t size; /* bytes that may be mapped */
};

#endif
