/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_STACKS_H
#define BDRV_TEST_CONFORMANCE_STACKS_H

#include "tests/lib/conformance.h"

/* Tables that end with a NULL name. */
extern const ConformanceStack conformance_stacks[], race_stacks[];

/** conformance_find_stack() - in both tables; NULL if there is none */
const ConformanceStack *conformance_find_stack(const char *name);

#endif
