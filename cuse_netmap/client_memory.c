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

#define PARTS 64 /* moved by one system call */

void nm_client_read_parts(uint32_t pid, struct nm_client_part *parts, uint32_t count) {
    for (uint32_t done = 0; done < count;) {
        struct iovec ours[PARTS], theirs[PARTS];
        uint32_t n = count - done < PARTS ? count - done : PARTS;
        for (uint32_t i = 0; i < n; i++) {
            const struct nm_client_part *part = &parts[done + i];
            ours[i] = (struct iovec){part->buffer, part->size};
            theirs[i] = (struct iovec){(void *)(uintptr_t)part->address, part->size};
        }
        ssize_t moved = pid ? process_vm_readv((pid_t)pid, ours, n, theirs, n, 0) : -1;
        size_t left = moved < 0 ? 0 : (size_t)moved;
        uint32_t good = 0; /* it stops at the first that cannot be read */
        while (good < n && parts[done + good].size <= left) {
            left -= parts[done + good].size;
            parts[done + good++].good = true;
        }
        if (good < n) parts[done + good++].good = false;
        done += good;
    }
}

int nm_client_write_parts(uint32_t pid, const struct nm_client_part *parts, uint32_t count) {
    if (!pid) return -ESRCH;
    for (uint32_t done = 0; done < count;) {
        struct iovec ours[PARTS], theirs[PARTS];
        uint32_t n = count - done < PARTS ? count - done : PARTS;
        size_t size = 0;
        for (uint32_t i = 0; i < n; i++, done++) {
            const struct nm_client_part *part = &parts[done];
            ours[i] = (struct iovec){part->buffer, part->size};
            theirs[i] = (struct iovec){(void *)(uintptr_t)part->address, part->size};
            size += part->size;
        }
        ssize_t moved = process_vm_writev((pid_t)pid, ours, n, theirs, n, 0);
        if (moved < 0) return -errno;
        if ((size_t)moved != size) return -EFAULT;
    }
    return 0;
}

int nm_client_write(uint32_t pid, uint64_t address, const void *buffer, size_t size) {
    return transfer(process_vm_writev, pid, address, (void *)buffer, size);
}
