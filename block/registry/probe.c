/* SPDX-License-Identifier: MIT */

/* Guessing the format of an image from its first bytes: the driver with the highest score. */
#include "block/registry/registry.h"

#include <errno.h>
#include <string.h>

#include <bdrv/bdrv.h>

/* Of a driver that takes any file. */
#define RAW_SCORE 1

int bdrv_call_probe(const BlockDriver *drv, const uint8_t *buf, size_t size, const char *filename)
{
    return drv->bdrv_probe ? drv->bdrv_probe(buf, size, filename ? filename : "") : 0;
}

char *bdrv_format_names(void)
{
    GString *names = g_string_new(NULL);
    const char *name;

    for (unsigned n = 0; (name = bdrv_driver_nth(n)) != NULL; n++) {
        const BlockDriver *drv = bdrv_find_format(name);

        if (drv->bdrv_probe) {
            g_string_append_printf(names, "%s%s", names->len ? " " : "", name);
        }
    }
    return g_string_free(names, FALSE);
}

/* In alphabetical order, so that the answer does not depend on who registered first. */
const BlockDriver *bdrv_probe_format(const uint8_t *buf, size_t size, const char *filename, GError **errp)
{
    const BlockDriver *best = NULL, *equal = NULL;
    int best_score = 0;
    const char *name;

    for (unsigned n = 0; (name = bdrv_driver_nth(n)) != NULL; n++) {
        const BlockDriver *drv = bdrv_find_format(name);
        int score = bdrv_call_probe(drv, buf, size, filename);

        if (score > best_score) {
            best = drv;
            best_score = score;
            equal = NULL;
        } else if (score == best_score && score > RAW_SCORE) {
            equal = drv;
        }
    }
    const char *foreign = best_score <= RAW_SCORE ? bdrv_foreign_format(buf, size) : NULL;
    if (foreign) {
        g_autofree char *names = bdrv_format_names();
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "it is an image of format '%s', which is not supported; supported formats are: %s (driver=raw takes "
                    "it as it lies there)", foreign, names);
        return NULL;
    }
    if (!best) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "no driver recognises the format; name it with driver=");
        return NULL;
    }
    if (equal) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the content looks like '%s' and like '%s' (both score %d); name the right one with driver=",
                    best->format_name, equal->format_name, best_score);
        return NULL;
    }
    return best;
}
