/* SPDX-License-Identifier: BSD-2-Clause */
/* Calls and names of older DPDKs that programs with netmap inside used and DPDK has since renamed
 * or removed, for compat_netmap.h; docs/porting-dpdk.md lists them, and those that need the program
 * changed. None is defined where DPDK has it, and none with COMPAT_NETMAP_NO_SHIMS. */
#ifndef COMPAT_NETMAP_SHIMS_H
#define COMPAT_NETMAP_SHIMS_H

#include <rte_eal.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <rte_version.h>

/* rte_eal_init looks for devices itself since DPDK 1.8 (drivers) and 17.08 (PCI). */
#define rte_pmd_init_all() (0)
#define rte_eal_pci_probe() (0)
#ifndef RTE_BUS_PCI_H
#define rte_pci_probe() (0)
#endif

#if RTE_VERSION >= RTE_VERSION_NUM(18, 8, 0, 0)
#define rte_eth_dev_count() rte_eth_dev_count_avail()
#endif

#if RTE_VERSION >= RTE_VERSION_NUM(17, 5, 0, 0)
#define rte_set_log_level(level) rte_log_set_global_level(level)
#define rte_get_log_level() rte_log_get_global_level()
#endif

#if RTE_VERSION >= RTE_VERSION_NUM(20, 11, 0, 0)
#ifndef SKIP_MASTER
#define rte_get_master_lcore rte_get_main_lcore
#define SKIP_MASTER SKIP_MAIN
#define CALL_MASTER CALL_MAIN
#define RTE_LCORE_FOREACH_SLAVE RTE_LCORE_FOREACH_WORKER
#endif
#endif

#if RTE_VERSION >= RTE_VERSION_NUM(21, 11, 0, 0)
#ifndef ETH_MQ_TX_NONE
#define ETH_MQ_RX_NONE RTE_ETH_MQ_RX_NONE
#define ETH_MQ_RX_RSS RTE_ETH_MQ_RX_RSS
#define ETH_MQ_TX_NONE RTE_ETH_MQ_TX_NONE
#define ETH_LINK_UP RTE_ETH_LINK_UP
#define ETH_LINK_DOWN RTE_ETH_LINK_DOWN
#define ETH_LINK_FULL_DUPLEX RTE_ETH_LINK_FULL_DUPLEX
#define ETH_LINK_HALF_DUPLEX RTE_ETH_LINK_HALF_DUPLEX
#define ETH_RSS_IP RTE_ETH_RSS_IP
#define DEV_TX_OFFLOAD_MBUF_FAST_FREE RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE
#define DEV_TX_OFFLOAD_MULTI_SEGS RTE_ETH_TX_OFFLOAD_MULTI_SEGS
#define DEV_RX_OFFLOAD_SCATTER RTE_ETH_RX_OFFLOAD_SCATTER
#define DEV_RX_OFFLOAD_VLAN_STRIP RTE_ETH_RX_OFFLOAD_VLAN_STRIP
#endif
#endif

#endif
