/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_ATTEMPT_H
#define TEST_CRASH_ATTEMPT_H

/*
 * What is being tried, noted where it outlives the process: an assertion of the driver that fails ends the search with
 * SIGABRT, and is a finding like any other. The handler executes the program anew with the history and --aborted; there
 * each candidate of the reducer runs in a child process.
 */

#include "tests/crash/search.h"

/** attempt_guard() - from now on an abort in a history executes the program anew; there it ends a child only */
void attempt_guard(void);

/** attempt_begin() - @history is run now */
void attempt_begin(const CrashImage *image, const CrashHistory *history);
/** attempt_at() - this state of this cut of it is judged now */
void attempt_at(unsigned cut, int state);
void attempt_end(void);

/**
 * attempt_dies() - run a history in a child process
 * @cut, @state: where it dies; -1: in the history itself
 * Returns: the signal that it dies of, 0: it does not.
 */
int attempt_dies(Search *search, const CrashHistory *history, int *cut, int *state);

#endif
