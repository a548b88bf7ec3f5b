/* SPDX-License-Identifier: BSD-2-Clause */
/* For backends of other packages: what a backend is (docs/backends.md). */
#include "../../backends/backend.h"
