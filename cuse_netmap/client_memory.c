/* SPDX-License-Identifier: BSD-2-Clause */
/* The memory of clients, by process_vm_readv(2) and process_vm_writev(2). */
#include "client_memory.h"

#include <errno.h>
#include <sys/uio.h>

typedef ssize_t transfer_call(pid_t, const struct iovec *, unsigned long, const struct iovec *,
                              unsigned long, unsigned long);

static int transfer(transfer_call *call, uint32_t pid, uint64_t address, void *buffer,
                    size_t size) {
    if (!pid) return -ESRCH;
    if (!size) return 0;
    struct iovec ours = {buffer, size}, theirs = {(void *)(uintptr_t)address, size};
    ssize_t moved = call((pid_t)pid, &ours, 1, &theirs, 1, 0);
    if (moved < 0) return -errno;
    return (size_t)moved == size ? 0 : -EFAULT;
}

int nm_client_read(uint32_t pid, uint64_t address, void *buffer, size_t size) {
    return transfer(process_vm_readv, pid, address, buffer, size);
}

int nm_client_write(uint32_t pid, uint64_t address, const void *buffer, size_t size) {
    return transfer(process_vm_writev, pid, address, (void *)buffer, size);
}
