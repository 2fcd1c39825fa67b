/* SPDX-License-Identifier: MIT */
#include <bdrv/error.h>
#include <errno.h>

G_DEFINE_QUARK(bdrv-error-quark, bdrv_error)

int bdrv_error_code(const GError *error)
{
    return error->domain == BDRV_ERROR ? error->code : EIO;
}

void bdrv_error_prefix(GError **errp, const char *name)
{
    if (errp && *errp && *name) {
        g_prefix_error(errp, "%s: ", name);
    }
}
