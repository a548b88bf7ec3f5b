/* SPDX-License-Identifier: BSD-2-Clause */
/* Brings memory that another thread exchanges all the time: `extmem_race PORT ROUNDS FILE`. Now it
 * is shared, now private, now gone, now too short, now FILE, which is mapped only to be read.
 * Prints how often REGISTER succeeded; exit status 1 for an errno that is none of those it may get.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/netmap_user.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (1u << 20)

static char *memory;
static int shared, victim;
static atomic_bool over;

static void *exchange(void *arg) {
    (void)arg;
    for (unsigned i = 0; !over; i++) {
        int fixed = MAP_FIXED | (i % 5 == 1 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
        int protection = PROT_READ | (i % 5 == 2 ? 0 : PROT_WRITE);
        int fd = i % 5 == 1 ? -1 : i % 5 == 2 ? victim : shared;
        if (ftruncate(shared, i % 5 == 3 ? SIZE / 2 : SIZE) < 0) abort();
        if (i % 5 == 4)
            munmap(memory, SIZE);
        else if (mmap(memory, SIZE, protection, fixed, fd, 0) == MAP_FAILED)
            abort();
    }
    return NULL;
}

static int attempt(const char *port) {
    int fd = open(NETMAP_DEVICE_NAME, O_RDWR), result = 0;
    if (fd < 0) return errno;
    struct nmreq_opt_extmem option = {.nro_opt.nro_reqtype = NETMAP_REQ_OPT_EXTMEM,
                                      .nro_usrptr = (uintptr_t)memory,
                                      .nro_info.nr_memsize = SIZE,
                                      .nro_info.nr_ring_pool_objsize = 4096,
                                      .nro_info.nr_buf_pool_objtotal = 64};
    struct nmreq_register body = {.nr_mode = NR_REG_ALL_NIC, .nr_tx_slots = 16, .nr_rx_slots = 16};
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_options = (uintptr_t)&option,
                                  .nr_body = (uintptr_t)&body};
    snprintf(header.nr_name, sizeof(header.nr_name), "%s", port);
    if (ioctl(fd, NIOCCTRL, &header) < 0) result = errno;
    ioctl(fd, NIOCTXSYNC, NULL);
    ioctl(fd, NIOCRXSYNC, NULL);
    close(fd);
    return result;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    pthread_t thread;
    int good = 0;
    shared = memfd_create("extmem", 0);
    victim = open(argv[3], O_RDONLY);
    if (shared < 0 || victim < 0 || ftruncate(shared, SIZE) < 0) return 1;
    memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, shared, 0);
    if (memory == MAP_FAILED) return 1;
    pthread_create(&thread, NULL, exchange, NULL);
    for (int round = atoi(argv[2]); round > 0; round--) {
        int error = attempt(argv[1]);
        good += error == 0;
        if (error && error != EFAULT && error != EOPNOTSUPP && error != EINVAL && error != EBUSY &&
            error != EIO) {
            printf("REGISTER: %s\n", strerror(error));
            return 1;
        }
    }
    over = true;
    pthread_join(thread, NULL);
    printf("%d\n", good);
    return 0;
}
