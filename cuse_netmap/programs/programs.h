/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The programs that netmap-traffic is made of; each is defined in the file of its name.
 */
#ifndef NETMAP_TRAFFIC_PROGRAMS_H
#define NETMAP_TRAFFIC_PROGRAMS_H

#include "common.h"

extern const struct program gen_program;
extern const struct program sink_program;
extern const struct program reflect_program;

#endif /* NETMAP_TRAFFIC_PROGRAMS_H */
