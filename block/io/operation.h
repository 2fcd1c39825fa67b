/* SPDX-License-Identifier: MIT */
#ifndef BDRV_IO_OPERATION_H
#define BDRV_IO_OPERATION_H

/* Who wants to know how far the work of a coroutine has come. */

#include <bdrv/driver.h>

typedef struct BdrvOperation {
    BdrvProgressFunc *progress; /* NULL: nobody */
    void *opaque;
} BdrvOperation;

/**
 * bdrv_operation_set() - what the calling coroutine does from here on is @operation's; NULL: nobody's
 * A driver that tells itself how far it is sets NULL around what its children do of it, and back what was returned.
 * Returns: whose it was before.
 */
const BdrvOperation *coroutine_fn bdrv_operation_set(const BdrvOperation *operation);

/** bdrv_goes_on() - ask @progress (NULL: yes) whether to go on; ECANCELED */
bool bdrv_goes_on(BdrvProgressFunc *progress, void *opaque, int64_t done, int64_t total, GError **errp);

#endif
