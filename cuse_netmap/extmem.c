/* SPDX-License-Identifier: BSD-2-Clause */
/* Maps of programs' memory, and the handler that keeps their SIGBUS from being ours. */
#include "extmem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "barrier.h"

#define HUGE_PAGE_MOST (1ull << 30)

/* One of a fixed table, which the handler can search whatever the rest of the program is doing. */
struct nm_extmem {
    uintptr_t base; /* 0: free; stored last, with release order */
    uint64_t size;
    bool broken;
    uint64_t whole; /* with the end of the last huge page */
    char *reserved; /* the address space around it */
    uint64_t reserved_size;
};

static struct nm_extmem table[NM_EXTMEM_MOST];
static pthread_mutex_t table_lock = PTHREAD_MUTEX_INITIALIZER;
static int event = -1;
static struct sigaction previous;

/* ---- SIGBUS ----------------------------------------------------------------------------------
 */

static bool replace(uintptr_t base, uint64_t size) {
    return mmap((void *)base, size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

/* All of the memory is replaced, not just the page: every hole of a program's making would split
 * our map in two, and there is a limit to how many maps a process has. */
static bool mend(uintptr_t address) {
    for (uint32_t i = 0; i < NM_EXTMEM_MOST; i++) {
        struct nm_extmem *memory = &table[i];
        uintptr_t base = load_acquire(&memory->base);
        if (!base || address - base >= READ_ONCE(memory->size)) continue;
        if (!replace(base, memory->whole)) return false;
        WRITE_ONCE(memory->broken, true);
        eventfd_write(event, 1);
        return true;
    }
    return false;
}

static void on_sigbus(int number, siginfo_t *info, void *context) {
    (void)context;
    int saved = errno;
    if (info->si_code <= 0 || !mend((uintptr_t)info->si_addr)) {
        sigaction(SIGBUS, &previous,
                  NULL); /* a fault comes again when we return, a kill does not */
        if (info->si_code <= 0) raise(number);
    }
    errno = saved;
}

int nm_extmem_guard(void) {
    if (event >= 0) return event;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) return -errno;
    event = fd;
    struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGBUS, &action, &previous);
    return event;
}

/* ---- maps ------------------------------------------------------------------------------------
 */

/* The largest page of the files: huge pages must lie at multiples of their size. */
static uint64_t alignment(const struct nm_extmem_piece *pieces, uint32_t count) {
    uint64_t most = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint32_t i = 0; i < count; i++) {
        struct stat file;
        if (fstat(pieces[i].fd, &file) < 0) continue;
        uint64_t block = (uint64_t)file.st_blksize;
        if (block > most && block <= HUGE_PAGE_MOST && !(block & (block - 1))) most = block;
    }
    return most;
}

static int map_pieces(struct nm_extmem *memory, const struct nm_extmem_piece *pieces,
                      uint32_t count, char **base, struct nm_refusal *why) {
    uint64_t align = alignment(pieces, count);
    memory->whole = (memory->size + align - 1) & ~(align - 1);
    memory->reserved_size = memory->whole + align;
    memory->reserved = mmap(NULL, memory->reserved_size, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory->reserved == MAP_FAILED)
        return nm_refuse(why, ENOMEM, "no address space for %llu bytes",
                         (unsigned long long)memory->size);
    *base = (char *)(((uintptr_t)memory->reserved + align - 1) & ~(align - 1));
    char *to = *base;
    for (uint32_t i = 0; i < count; i++) {
        const struct nm_extmem_piece *piece = &pieces[i];
        if (mmap(to, piece->length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, piece->fd,
                 (off_t)piece->offset) == MAP_FAILED) {
            int error = errno;
            munmap(memory->reserved, memory->reserved_size);
            return nm_refuse(why, error, "mapping the program's memory: %s", strerror(error));
        }
        to += piece->length;
    }
    madvise(*base, memory->size, MADV_DONTDUMP);
    return 0;
}

int nm_extmem_map(const struct nm_extmem_piece *pieces, uint32_t count, struct nm_extmem **out,
                  struct nm_refusal *why) {
    char *base = NULL;
    pthread_mutex_lock(&table_lock);
    struct nm_extmem *memory = table;
    while (memory < table + NM_EXTMEM_MOST && memory->base)
        memory++;
    int error = 0;
    if (memory == table + NM_EXTMEM_MOST)
        error = nm_refuse(why, ENOMEM, "%d programs' memories are mapped, no more", NM_EXTMEM_MOST);
    if (!error) {
        memory->size = 0;
        memory->broken = false;
        for (uint32_t i = 0; i < count; i++)
            memory->size += pieces[i].length;
        error = map_pieces(memory, pieces, count, &base, why);
    }
    if (!error) {
        store_release(&memory->base, (uintptr_t)base);
        *out = memory;
    }
    pthread_mutex_unlock(&table_lock);
    return error;
}

void nm_extmem_unmap(struct nm_extmem *memory) {
    pthread_mutex_lock(&table_lock);
    store_release(&memory->base, (uintptr_t)0);
    munmap(memory->reserved, memory->reserved_size);
    pthread_mutex_unlock(&table_lock);
}

char *nm_extmem_base(const struct nm_extmem *memory) { return (char *)memory->base; }

bool nm_extmem_broken(const struct nm_extmem *memory) { return READ_ONCE(memory->broken); }
