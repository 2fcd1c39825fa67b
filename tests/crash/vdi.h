/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_VDI_H
#define TEST_CRASH_VDI_H

/* What a VDI image must be at every moment, from its bytes alone: the oracle of the other format, which shares no code
 * with drivers/vdi. */

#include "tests/crash/oracle.h"

/**
 * vdi_judge() - oracle_judge() of a VDI image: sets is_image, size, fault and leaks, and where the sectors are
 *
 * Faults: a header that contradicts itself or the file; an entry of the map past what the header counts, or past the
 * end of the file; two blocks in one place; a fixed image with a block that has none.
 */
void vdi_judge(Oracle *oracle, const uint8_t *bytes, int64_t length);

/** vdi_sector() - oracle_sector() of a VDI image without fault */
OracleKind vdi_sector(const Oracle *oracle, int64_t n, const uint8_t **data);

#endif
