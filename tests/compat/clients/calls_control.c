/* SPDX-License-Identifier: BSD-2-Clause */
/* Setting up, names, requests, the ioctls of network devices, and parameters. */
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <rte_malloc.h>

#include "calls.h"

/* ---- setting up --------------------------------------------------------------------------------
 */

static void before_init(void) {
    struct rte_netmap_port_conf one = port_conf();
    struct pollfd none = {.fd = -1};
    REFUSED(rte_netmap_init_port(0, &one), ENODEV);
    FAILS(rte_netmap_open("/dev/netmap", O_RDWR), ENODEV);
    FAILS(rte_netmap_close(-1), EBADF);
    FAILS(rte_netmap_ioctl(-1, NIOCTXSYNC, NULL), EBADF);
    FAILS(rte_netmap_mmap(NULL, PAGE, PROT_READ, MAP_SHARED, -1, 0), EBADF);
    IS(rte_netmap_poll(&none, 1, 0), 0);
    set_up();
    IS(rte_netmap_close(registered()), 0);
}

static void init_twice(void) {
    struct rte_netmap_port_conf one = port_conf();
    IS(rte_netmap_init(&conf), 0);
    REFUSED(rte_netmap_init(&conf), EALREADY);
    IS(rte_netmap_init_port(0, &one), 0);
    REFUSED(rte_netmap_init_port(0, &one), EBUSY);
    IS(rte_netmap_close(registered()), 0);
    rte_netmap_cleanup();
}

static void bad_conf(void) {
    struct rte_netmap_conf bad = conf;
    REFUSED(rte_netmap_init(NULL), EINVAL);
    bad.max_rings = 0;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    bad = conf;
    bad.max_slots = 1;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    bad.max_slots = UINT32_MAX;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    bad = conf;
    bad.max_bufsz = 8;
    REFUSED(rte_netmap_init(&bad), EINVAL);
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=4096,nonsense=1", 1);
    REFUSED(rte_netmap_init(&conf), EINVAL);
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=many", 1);
    REFUSED(rte_netmap_init(&conf), EINVAL);
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=1000000,buf_size=65536", 1);
    REFUSED(rte_netmap_init(&conf), EINVAL);
    unsetenv("COMPAT_NETMAP_PARAMETERS");
    IS(rte_netmap_init(&conf), 0);
}

static void bad_port(void) {
    struct rte_netmap_port_conf one = port_conf(), bad = one;
    IS(rte_netmap_init(&conf), 0);
    REFUSED(rte_netmap_init_port(0, NULL), EINVAL);
    REFUSED(rte_netmap_init_port(31, &one), ENODEV);
    REFUSED(rte_netmap_init_port(UINT16_MAX, &one), ENODEV);
    bad.nr_tx_rings = 0;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad.nr_tx_rings = 3; /* max_rings is 2 */
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad = one;
    bad.nr_rx_slots = 1025;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad.nr_rx_slots = 0;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    bad = one;
    struct rte_eth_conf impossible = {.rxmode.offloads = UINT64_MAX};
    bad.eth_conf = &impossible;
    REFUSED(rte_netmap_init_port(0, &bad), EINVAL);
    IS(rte_netmap_init_port(0, &one), 0); /* none of that did it any harm */
    IS(rte_netmap_close(registered()), 0);
}

static void taken_port(void) {
    struct rte_netmap_port_conf one = port_conf();
    struct rte_eth_dev_owner owner = {.name = "somebody"};
    IS(rte_netmap_init(&conf), 0);
    IS(rte_eth_dev_owner_new(&owner.id), 0);
    IS(rte_eth_dev_owner_set(0, &owner), 0);
    REFUSED(rte_netmap_init_port(0, &one), EBUSY);
    IS(rte_eth_dev_owner_unset(0, owner.id), 0);
    IS(rte_netmap_init_port(0, &one), 0);
    IS(rte_netmap_init_port(1, &one), 0);
    int first = device(), second = device();
    IS(attempt_as(first, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
    FAILS(attempt(second), EBUSY);
    IS(rte_netmap_close(first), 0);
    IS(attempt_as(second, "0", NR_REG_ALL_NIC, NR_EXCLUSIVE, 0), 0);
}

static void no_memory(void) {
    struct rte_netmap_port_conf one = port_conf();
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=100", 1);
    IS(rte_netmap_init(&conf), 0);
    one.nr_tx_slots = one.nr_rx_slots = 1024;
    IS(rte_netmap_init_port(1, &one), 0);
    FAILS(attempt_as(device(), "1", NR_REG_ALL_NIC, 0, 0), ENOMEM);
    rte_netmap_cleanup();
    unsetenv("COMPAT_NETMAP_PARAMETERS");
    IS(rte_netmap_init(&conf), 0);
    while (rte_malloc(NULL, 1 << 16, 0)) {
    }
    REFUSED(rte_netmap_init_port(0, &one), ENOMEM);
}

/* ---- names and requests ------------------------------------------------------------------------
 */

static void names(void) {
    static const char *const good[] = {"0",         "netmap:0",        "dpdk0", "netmap:dpdk0",
                                       "net_ring0", "netmap:net_ring0"};
    static const char *const absent[] = {"",   "2",  "31",   "32",   "99999999999",
                                         "0x", "-1", "dpdk", "eth0", "net_null1"};
    set_up();
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        int fd = device();
        IS(attempt_as(fd, good[i], NR_REG_ALL_NIC, 0, 0), 0);
        IS(rte_netmap_close(fd), 0);
    }
    int fd = device();
    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        FAILS(attempt_as(fd, absent[i], NR_REG_ALL_NIC, 0, 0), ENXIO);
    FAILS(attempt_as(fd, "0{1", NR_REG_ALL_NIC, 0, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "vale0:1", NR_REG_ALL_NIC, 0, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "0", NR_REG_ALL_NIC, NR_MONITOR_RX, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "0", NR_REG_NULL, 0, 0), EOPNOTSUPP);
    FAILS(attempt_as(fd, "0", NR_REG_DEFAULT, 0, 0), EINVAL);
    FAILS(attempt_as(fd, "0", NR_REG_ONE_NIC, 0, 7), EINVAL);
    IS(attempt(fd), 0);
    FAILS(attempt(fd), EBUSY);
}

static void requests(void) {
    set_up();
    int fd = device();
    struct nmreq_port_info_get info = {0};
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_PORT_INFO_GET,
                                  .nr_name = "0",
                                  .nr_body = (uintptr_t)&info};
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0);
    IS(info.nr_tx_slots, SLOTS);
    IS(info.nr_rx_rings, 1);
    IS(info.nr_mem_id, 1);
    struct nmreq_pools_info pools = {0};
    header.nr_reqtype = NETMAP_REQ_POOLS_INFO_GET;
    header.nr_body = (uintptr_t)&pools;
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0);
    IS(pools.nr_memsize, info.nr_memsize);
    IS(pools.nr_buf_pool_objsize, 2048);
    struct nmreq_port_hdr length = {.nr_hdr_len = 5};
    header.nr_reqtype = NETMAP_REQ_PORT_HDR_GET;
    header.nr_body = (uintptr_t)&length;
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0);
    IS(length.nr_hdr_len, 0);
    header.nr_reqtype = NETMAP_REQ_PORT_HDR_SET;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), ENXIO);
    header.nr_reqtype = NETMAP_REQ_VALE_ATTACH;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EOPNOTSUPP);
    header.nr_reqtype = 77;
    header.nr_body = 0;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL);
    header.nr_reqtype = NETMAP_REQ_PORT_INFO_GET;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL); /* without its body */
    header.nr_body = (uintptr_t)&info;
    header.nr_reserved = 1;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL);
    header.nr_version = 3;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EINVAL);
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, NULL), EINVAL);
    FAILS(rte_netmap_ioctl(fd, NIOCREGIF, NULL), EINVAL);
}

static void options(void) {
    set_up();
    int fd = device();
    struct nmreq_option loop = {.nro_reqtype = 100},
                        unknown = {.nro_reqtype = 100, .nro_status = 3};
    loop.nro_next = (uintptr_t)&loop;
    struct nmreq_header header = {.nr_version = NETMAP_API,
                                  .nr_reqtype = NETMAP_REQ_REGISTER,
                                  .nr_name = "0",
                                  .nr_options = (uintptr_t)&loop,
                                  .nr_body = (uintptr_t)&body};
    body = (struct nmreq_register){.nr_mode = NR_REG_ALL_NIC};
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EMSGSIZE);
    header.nr_options = (uintptr_t)&unknown;
    FAILS(rte_netmap_ioctl(fd, NIOCCTRL, &header), EOPNOTSUPP);
    IS(unknown.nro_status, EOPNOTSUPP);
    struct nmreq_opt_offsets offsets = {.nro_opt.nro_reqtype = NETMAP_REQ_OPT_OFFSETS,
                                        .nro_max_offset = 128,
                                        .nro_initial_offset = 64};
    header.nr_options = (uintptr_t)&offsets;
    IS(rte_netmap_ioctl(fd, NIOCCTRL, &header), 0); /* the refusal left it free */
    IS(offsets.nro_opt.nro_status, 0);
    struct netmap_ring *ring = NETMAP_TXRING(mapped(fd), 0);
    IS(ring->slot[0].ptr, 64);
}

static void wrong_sizes(void) {
    set_up();
    int fd = device();
    char bytes[256] = "0";
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 146, char[56]), bytes), EINVAL);
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 145, char[64]), bytes), EINVAL);
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 151, char[80]), bytes), EINVAL);
    FAILS(rte_netmap_ioctl(fd, _IOWR('i', 99, char[80]), bytes), EOPNOTSUPP);
    IS(attempt(fd), 0);
}

static void legacy(void) {
    set_up();
    int fd = device();
    struct nmreq request = {.nr_name = "0", .nr_version = NETMAP_API, .nr_flags = NR_REG_ALL_NIC};
    IS(rte_netmap_ioctl(fd, NIOCGINFO, &request), 0);
    IS(request.nr_rx_slots, SLOTS);
    IS(request.nr_arg2, 1);
    IS(rte_netmap_ioctl(fd, NIOCREGIF, &request), 0);
    FAILS(rte_netmap_ioctl(fd, NIOCREGIF, &request), EBUSY);
    IS(rte_netmap_ioctl(fd, _IO('i', 147), NULL), 0);
    FAILS(rte_netmap_ioctl(fd, _IO('i', 147), NULL), EINVAL);
    FAILS(rte_netmap_ioctl(fd, NIOCTXSYNC, NULL), ENXIO);
    IS(rte_netmap_ioctl(fd, NIOCREGIF, &request), 0);
    request = (struct nmreq){.nr_name = "0", .nr_version = 1};
    FAILS(rte_netmap_ioctl(fd, NIOCGINFO, &request), EINVAL);
    IS(request.nr_version, NETMAP_API);
}

/* ---- the device --------------------------------------------------------------------------------
 */

static void interface(void) {
    set_up();
    int fd = device();
    struct ifreq request = {.ifr_name = "whatever"};
    FAILS(rte_netmap_ioctl(fd, SIOCGIFFLAGS, &request), EOPNOTSUPP);
    IS(attempt_as(fd, "1", NR_REG_ALL_NIC, 0, 0), 0);
    IS(rte_netmap_ioctl(fd, SIOCGIFFLAGS, &request), 0);
    IS(request.ifr_flags & (IFF_UP | IFF_RUNNING), IFF_UP | IFF_RUNNING);
    IS(rte_netmap_ioctl(fd, SIOCGIFMTU, &request), 0);
    IS(request.ifr_mtu, 1500);
    request.ifr_mtu = 9000;
    FAILS(rte_netmap_ioctl(fd, SIOCSIFMTU, &request), EINVAL);
    struct rte_ether_addr address;
    IS(rte_eth_macaddr_get(1, &address), 0);
    IS(rte_netmap_ioctl(fd, SIOCGIFHWADDR, &request), 0);
    IS(memcmp(request.ifr_hwaddr.sa_data, &address, 6), 0);
    request.ifr_hwaddr.sa_data[5] = 0x33;
    IS(rte_netmap_ioctl(fd, SIOCSIFHWADDR, &request), 0);
    IS(rte_eth_macaddr_get(1, &address), 0);
    IS(address.addr_bytes[5], 0x33);
    FAILS(rte_netmap_ioctl(fd, SIOCGIFINDEX, &request), EOPNOTSUPP);
    FAILS(rte_netmap_ioctl(fd, SIOCGIFADDR, &request), EOPNOTSUPP);
    FAILS(rte_netmap_ioctl(fd, SIOCGIFMTU, NULL), EFAULT);
    struct ethtool_drvinfo driver = {.cmd = ETHTOOL_GDRVINFO};
    request.ifr_data = (char *)&driver;
    IS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), 0);
    IS(strcmp(driver.driver, "net_null"), 0);
    struct ethtool_value value = {.cmd = ETHTOOL_STSO};
    request.ifr_data = (char *)&value;
    IS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), 0);
    value.data = 1;
    FAILS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), EOPNOTSUPP);
    value.cmd = 0xffff;
    FAILS(rte_netmap_ioctl(fd, SIOCETHTOOL, &request), EOPNOTSUPP);
}

static void parameters(void) {
    setenv("COMPAT_NETMAP_PARAMETERS", "buf_num=8192, buf_size=4096,no_timestamp=1", 1);
    set_up();
    int fd = registered();
    struct netmap_if *nifp = mapped(fd);
    IS(NETMAP_TXRING(nifp, 0)->nr_buf_size, 4096);
    put(nifp, 1, 60);
    IS(ready(fd, POLLIN, 1000), POLLIN);
    IS(NETMAP_RXRING(nifp, 0)->ts.tv_sec, 0);
    NETMAP_RXRING(nifp, 0)->flags = NR_TIMESTAMP;
    IS(rte_netmap_ioctl(fd, NIOCRXSYNC, NULL), 0);
    IS(NETMAP_RXRING(nifp, 0)->ts.tv_sec > 0, 1);
}

static const struct call_case cases[] = {CASE(before_init), CASE(init_twice),
                                         CASE(bad_conf),    CASE(bad_port),
                                         CASE(taken_port),  CASE(no_memory),
                                         CASE(names),       CASE(requests),
                                         CASE(options),     CASE(wrong_sizes),
                                         CASE(legacy),      CASE(interface),
                                         CASE(parameters),  {0}};

int main(int argc, char **argv) { return run_case(cases, argc, argv); }
