/* SPDX-License-Identifier: MIT */

/* Ready-made opener gates: what images may name. */
#include "block/open/open_int.h"
#include "block/registry/registry.h"

#include <errno.h>
#include <string.h>

bool bdrv_gate_any(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                   GError **errp)
{
    if (!format) {
        *guess = true;
    }
    return true;
}

bool bdrv_gate_local(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                     GError **errp)
{
    g_autofree char *prefix = bdrv_filename_prefix(filename);

    if (prefix && strcmp(prefix, "file") != 0) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "'%s' is not a plain local file name; an image may name only such files here", filename);
        return false;
    }
    if (!format) {
        *guess = true;
    }
    return true;
}
