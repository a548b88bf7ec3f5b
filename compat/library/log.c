/* SPDX-License-Identifier: BSD-2-Clause */
/* What libcompat_netmap says, through DPDK's log; and how its calls answer. */
#include <errno.h>
#include <rte_log.h>
#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "barrier.h"
#include "library.h"

#define LINES_A_SECOND 10

RTE_LOG_REGISTER(compat_netmap_log, lib.compat_netmap, INFO)

/* A program may be refused the same thing again and again. */
static bool may_speak(void) {
    static uint64_t budget; /* the second, and the lines in it */
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    uint64_t second = (uint64_t)now.tv_sec << 8, before = READ_ONCE(budget), after;
    do
        after = (before & ~255ull) == second ? before + 1 : second + 1;
    while ((after & 255) <= LINES_A_SECOND &&
           !__atomic_compare_exchange_n(&budget, &before, after, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
    return (after & 255) <= LINES_A_SECOND;
}

static void say(uint32_t level, const char *text) {
    rte_log(level, (uint32_t)compat_netmap_log, "netmap: %s\n", text);
}

int refuse(int error, const char *format, ...) {
    char text[256];
    va_list arguments;
    if (!may_speak()) return -error;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    say(RTE_LOG_ERR, text);
    return -error;
}

void tell(const char *format, ...) {
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    say(RTE_LOG_INFO, text);
}

int answer(int result) {
    if (result >= 0) return result;
    errno = -result;
    return -1;
}
