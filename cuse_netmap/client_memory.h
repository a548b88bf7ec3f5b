/* SPDX-License-Identifier: BSD-2-Clause */
/* Reading and writing the memory of the program whose system call is being answered. */
#ifndef CUSE_NETMAP_CLIENT_MEMORY_H
#define CUSE_NETMAP_CLIENT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* All `size` bytes or an error: -EFAULT; -EPERM if the kernel forbids us to (process_vm_readv(2):
 * Yama's ptrace_scope 3, or no CAP_SYS_PTRACE); -ESRCH if the thread is in no namespace we see, or
 * gone. May sleep for as long as the program keeps its own page faults from being served. */
int nm_client_read(uint32_t pid, uint64_t address, void *buffer, size_t size);
int nm_client_write(uint32_t pid, uint64_t address, const void *buffer, size_t size);

/* A piece of a client's memory, and where to. */
struct nm_client_part {
    uint64_t address;
    void *buffer;
    uint32_t size; /* bytes */
    bool good;     /* all of it has been read */
};
/* Reads what can be read of `count` pieces, and says of each whether it could. */
void nm_client_read_parts(uint32_t pid, struct nm_client_part *parts, uint32_t count);
/* Writes all of `count` pieces, one after the other; errors as nm_client_write. */
int nm_client_write_parts(uint32_t pid, const struct nm_client_part *parts, uint32_t count);

#endif
