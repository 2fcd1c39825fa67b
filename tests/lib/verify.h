/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_VERIFY_H
#define BDRV_TEST_VERIFY_H

#include <bdrv/bdrv.h>

/**
 * test_verify() - between two steps of a history: let the drivers under @blk look at their own metadata
 * @exact: no cluster may be leaked
 * A contradiction ends the program. Does nothing (and drains nothing) without -Ddebug_invariants=true.
 */
void blocking_fn test_verify(BlockBackend *blk, bool exact);

#endif
