/* SPDX-License-Identifier: MIT */
#include "block/util/sized.h"

#include <bdrv/iov.h>
#include <errno.h>
#include <string.h>

bool bdrv_sized_in(void *ours, size_t our_size, const void *theirs, size_t their_size, const char *type, GError **errp)
{
    size_t common = MIN(our_size, their_size);

    if (their_size > common && !bdrv_buffer_is_zero((const uint8_t *)theirs + common, their_size - common)) {
        g_set_error(errp, BDRV_ERROR, E2BIG,
                    "%s of %zu bytes has fields set that this libbdrv does not know: it has %zu; use a later libbdrv",
                    type, their_size, our_size);
        return false;
    }
    memcpy(ours, theirs, common);
    memset((uint8_t *)ours + common, 0, our_size - common);
    return true;
}

void bdrv_sized_out(void *theirs, size_t their_size, const void *ours, size_t our_size)
{
    size_t common = MIN(our_size, their_size);

    memcpy(theirs, ours, common);
    memset((uint8_t *)theirs + common, 0, their_size - common);
}
