/* SPDX-License-Identifier: MIT */

/*
 * The next layer of a backing chain: from the options "backing", or from the name that the image
 * stores, after the opener's gate has agreed to it.
 */
#include "block/open/open_int.h"
#include "block/registry/registry.h"
#include "block/util/options_tree.h"

#include <errno.h>
#include <string.h>

void bdrv_backing_options_clear(BdrvBackingOptions *backing)
{
    bdrv_options_free(backing->below);
    g_free(backing->reference);
    *backing = (BdrvBackingOptions){ 0 };
}

bool bdrv_take_backing_options(BdrvOptions *options, BdrvBackingOptions *backing, GError **errp)
{
    const char *value = bdrv_options_get_string(options, "backing", NULL);
    bool given = bdrv_options_has(options, "backing");
    g_autoptr(BdrvOptions) below = NULL;

    if (given && !value && !bdrv_options_is_null(options, "backing")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "'backing' must be a node-name, null, or have options of its own");
        return false;
    }
    below = bdrv_options_take_subtree(options, "backing");
    if (given && bdrv_options_count(below) > 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "'backing' is given as a value and by options of its own");
        return false;
    }
    backing->below = g_steal_pointer(&below);
    backing->none = given && !(value && *value);
    backing->reference = backing->none ? NULL : g_strdup(value);
    bdrv_options_remove(options, "backing");
    return true;
}

/* Do the options say what to open, so that the name in the image does not matter? */
static bool names_a_file(const BdrvOptions *options)
{
    const char *driver = bdrv_options_get_string(options, "driver", NULL);
    const BlockDriver *drv = driver ? bdrv_find_format(driver) : NULL;

    for (unsigned i = 0; i < bdrv_options_count(options); i++) {
        const char *key;

        bdrv_options_nth(options, i, &key, NULL, NULL);
        if (strcmp(key, "file") == 0 || strcmp(key, "filename") == 0 || strcmp(key, "file.filename") == 0 ||
            strcmp(key, "file.driver") == 0) {
            return true;
        }
    }
    return drv && !drv->children;
}

/* Names that differ only in "./", "x/../" or repeated slashes are equal. */
static bool same_file(const char *a, const char *b)
{
    g_autofree char *full_a = g_canonicalize_filename(a, NULL);
    g_autofree char *full_b = g_canonicalize_filename(b, NULL);

    return strcmp(full_a, full_b) == 0;
}

static bool check_loop(const GPtrArray *layers, const char *filename, GError **errp)
{
    for (unsigned i = 0; i < layers->len; i++) {
        const BlockDriverState *above = layers->pdata[i];

        if (same_file(above->filename, filename)) {
            g_set_error(errp, BDRV_ERROR, ELOOP, "the backing chain is an infinite loop: '%s' is above itself",
                        filename);
            return false;
        }
    }
    return true;
}

/* Fill @source from the name and format that the image stores. *@filename is for the caller to free. */
static bool source_from_image(BdrvOpening *opening, const GPtrArray *layers, BdrvOpenSource *source, char **filename,
                              GError **errp)
{
    const BlockDriverState *bs = layers->pdata[layers->len - 1];
    const char *format = bdrv_options_get_string(source->options, "driver", bs->backing_format);
    bool guess = false;

    *filename = bdrv_node_full_backing_filename(bs, errp);
    if (!*filename || !check_loop(layers, *filename, errp) ||
        !bdrv_graph_ask_gate(opening->graph, bs, *filename, format, &guess, errp)) {
        return false;
    }
    if (format) {
        bdrv_options_set_string(source->options, "driver", format);
    }
    source->filename = *filename;
    source->may_probe = guess;
    return true;
}

static bool coroutine_fn open_source(BdrvOpening *opening, const GPtrArray *layers, BdrvOpenSource *source,
                                     BlockDriverState **next, BdrvBackingOptions *next_given, GError **errp)
{
    const BlockDriverState *bs = layers->pdata[layers->len - 1];
    g_autofree char *filename = NULL;

    if (++opening->layers > BDRV_MAX_CHAIN) {
        g_set_error(errp, BDRV_ERROR, ELOOP, "the backing chain has more than %d files", BDRV_MAX_CHAIN);
        return false;
    }
    if (!names_a_file(source->options)) {
        if (bs->backing_filename) {
            if (!source_from_image(opening, layers, source, &filename, errp)) {
                return false;
            }
        } else if (bdrv_options_count(source->options) == 0) {
            return true; /* it has none */
        }
    } else if (bs->backing_format && !bdrv_options_has(source->options, "driver") &&
               !bdrv_options_has(source->options, "filename")) {
        bdrv_options_set_string(source->options, "driver", bs->backing_format);
    }
    *next = bdrv_open_layer(opening, source, next_given, errp);
    return *next != NULL;
}

bool coroutine_fn bdrv_open_backing(BdrvOpening *opening, const GPtrArray *layers, BdrvBackingOptions *given,
                                    BlockDriverState **next, BdrvBackingOptions *next_given, GError **errp)
{
    const BlockDriverState *bs = layers->pdata[layers->len - 1];
    BdrvOpenSource source = {
        .options = g_steal_pointer(&given->below),
        .flags = bdrv_inherited_flags(BDRV_CHILD_COW, bs->open_flags),
        .may_probe = true,
    };
    GError *error = NULL;
    bool ok = true;

    *next = NULL;
    if (given->reference && !(bs->open_flags & BDRV_O_NO_BACKING)) {
        *next = bdrv_open_reference(opening, "backing", given->reference, &error);
        ok = *next != NULL;
    } else if (!given->none && !(bs->open_flags & BDRV_O_NO_BACKING)) {
        ok = open_source(opening, layers, &source, next, next_given, &error);
    }
    if (!ok) {
        g_prefix_error(&error, "could not open the backing file of '%s': ", bs->filename);
        g_propagate_error(errp, error);
    }
    bdrv_options_free(source.options);
    bdrv_backing_options_clear(given);
    return ok;
}
