/* SPDX-License-Identifier: BSD-2-Clause */
/* Why something was refused, in words for the operator; the errno travels separately. */
#ifndef CUSE_NETMAP_REFUSAL_H
#define CUSE_NETMAP_REFUSAL_H

#include <stdarg.h>
#include <stdio.h>

struct nm_refusal {
    char text[224];
};

/* Fills *why (which may be NULL) and returns -error, so that a refusal is one statement. */
__attribute__((format(printf, 3, 4))) static inline int nm_refuse(struct nm_refusal *why, int error,
                                                                  const char *format, ...) {
    if (why) {
        va_list args;
        va_start(args, format);
        vsnprintf(why->text, sizeof(why->text), format, args);
        va_end(args);
    }
    return -error;
}

#endif
