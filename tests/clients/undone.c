/* SPDX-License-Identifier: BSD-2-Clause */
/* Registers with an option that nobody supports, which binds the rings and gives them back, while
 * other threads sync and poll the same file. */
#include <errno.h>
#include <fcntl.h>
#include <net/netmap_user.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

static int fd;
static atomic_bool over;

static void *sync_all(void *arg) {
    (void)arg;
    for (unsigned i = 0; !over; i++) {
        struct pollfd ready = {.fd = fd, .events = POLLIN | POLLOUT};
        if (i % 3)
            ioctl(fd, i % 2 ? NIOCTXSYNC : NIOCRXSYNC);
        else
            poll(&ready, 1, 0);
    }
    return NULL;
}

static void *sleep_for_long(void *arg) {
    (void)arg;
    while (!over) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        poll(&ready, 1, 1000);
    }
    return NULL;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    pthread_t threads[3];
    fd = open(NETMAP_DEVICE_NAME, O_RDWR);
    if (fd < 0) return 1;
    for (int i = 0; i < 3; i++)
        pthread_create(&threads[i], NULL, i < 2 ? sync_all : sleep_for_long, NULL);
    for (int round = atoi(argv[2]); round > 0; round--) {
        struct nmreq_option option = {.nro_reqtype = 99};
        struct nmreq_register body = {.nr_mode = NR_REG_NIC_SW, .nr_extra_bufs = 10};
        struct nmreq_header header = {.nr_version = NETMAP_API,
                                      .nr_reqtype = NETMAP_REQ_REGISTER,
                                      .nr_options = (uintptr_t)&option,
                                      .nr_body = (uintptr_t)&body};
        snprintf(header.nr_name, sizeof(header.nr_name), "%s", argv[1]);
        if (ioctl(fd, NIOCCTRL, &header) == 0 || errno != EOPNOTSUPP) return 1;
    }
    over = true;
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    return 0;
}
