/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_STATES_H
#define TEST_CRASH_STATES_H

/* From a cut to the images that a power loss may leave: subsets of the log, sizes and data apart, and one torn
 * request. The order is always the same, so that a state has a number. */

#include <bdrv/simdisk.h>

/** states_each() - call @visit with the choices of each state; stops when it returns false
 * @all_up_to: with so many unflushed requests or fewer, every subset; beyond: prefixes, single losses,
 * single survivals and 32 random subsets of a fixed seed */
void states_each(const BdrvSimCut *cut, unsigned all_up_to, bool (*visit)(void *opaque, const BdrvSimChoice *choices),
                 void *opaque);

/** states_each_pair() - the same for two disks that lose their power together
 * @second: NULL: there is none. Its choices follow those of @first. */
void states_each_pair(const BdrvSimCut *first, const BdrvSimCut *second, unsigned all_up_to,
                      bool (*visit)(void *opaque, const BdrvSimChoice *choices), void *opaque);

#endif
