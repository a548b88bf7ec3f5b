/* SPDX-License-Identifier: BSD-2-Clause */
/* A client's time limits, as tests/support/patience.py has them for the tests. */
#ifndef PATIENCE_H
#define PATIENCE_H

#include <stdlib.h>

/* A time limit as it is written, as this machine needs it: PATIENCE in the environment is the
 * factor. */
static inline int at_most(int milliseconds) {
    const char *patience = getenv("PATIENCE");
    double factor = patience ? atof(patience) : 1;
    return factor > 1 ? (int)(milliseconds * factor) : milliseconds;
}

#endif
