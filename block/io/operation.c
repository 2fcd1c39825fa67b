/* SPDX-License-Identifier: MIT */
/* What takes long tells how far it has come, through whatever drivers it goes. */

#include "block/io/operation.h"
#include "block/coroutine/coroutine_int.h"

#include <errno.h>
#include <inttypes.h>

const BdrvOperation *coroutine_fn bdrv_operation_set(const BdrvOperation *operation)
{
    const BdrvOperation *before = co_current_operation();

    co_set_operation(operation);
    return before;
}

bool bdrv_goes_on(BdrvProgressFunc *progress, void *opaque, int64_t done, int64_t total, GError **errp)
{
    if (!progress || progress(opaque, done, total)) {
        return true;
    }
    g_set_error(errp, BDRV_ERROR, ECANCELED, "cancelled at %" PRId64 " of %" PRId64 " bytes", done, total);
    return false;
}

bool coroutine_fn bdrv_co_goes_on(int64_t done, int64_t total, GError **errp)
{
    const BdrvOperation *operation = co_current_operation();

    return !operation || bdrv_goes_on(operation->progress, operation->opaque, done, total, errp);
}
