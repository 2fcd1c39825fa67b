/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_REDUCE_H
#define TEST_CRASH_REDUCE_H

#include "tests/crash/search.h"

/**
 * crash_reduce() - make what was found in @history small
 * Operations, starting together, delays and the failing call go as long as anything is found without them. What is left
 * replaces search->finding and search->replay; nothing can be left out of it any more, one thing at a time.
 */
void crash_reduce(Search *search, const CrashHistory *history);

#endif
