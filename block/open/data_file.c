/* SPDX-License-Identifier: MIT */

/*
 * The data file that an image names, opened after the image as its backing file is: the opener's gate is asked first.
 * It is bytes without a format, and the image writes to it, so it can only be a plain local name: what the user wants
 * to have opened otherwise is said by the options data-file.….
 */
#include "block/open/open_int.h"
#include "block/registry/registry.h"

#include <errno.h>
#include <string.h>

bool bdrv_check_data_filename(const char *filename, GError **errp)
{
    g_autofree char *prefix = bdrv_filename_prefix(filename);

    if (!*filename || (prefix && strcmp(prefix, "file") != 0)) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "data file name '%s' is not that of a local file; an image may only name such files, others are "
                    "opened by the options data-file.driver=… and so on",
                    filename);
        return false;
    }
    return true;
}

static BlockDriverState *coroutine_fn open_named(BdrvOpening *opening, BlockDriverState *bs, GError **errp)
{
    g_autofree char *filename = NULL;
    BdrvOpenSource source = {
        .flags = bdrv_inherited_flags(BDRV_CHILD_DATA, bs->open_flags),
        .require_protocol = true,
    };
    bool guess; /* there is nothing to guess */

    if (!bdrv_check_data_filename(bs->data_filename, errp)) {
        return NULL;
    }
    filename = bdrv_node_full_filename(bs, bs->data_filename, errp);
    if (!filename || !bdrv_graph_ask_gate(opening->graph, bs, filename, "raw", &guess, errp)) {
        return NULL;
    }
    source.filename = filename;
    source.options = bdrv_options_new();
    return bdrv_open_chain(opening, &source, errp);
}

bool coroutine_fn bdrv_open_data_file(BdrvOpening *opening, BlockDriverState *bs, GError **errp)
{
    BlockDriverState *file;
    GError *error = NULL;

    if (!bs->data_filename || bs->data_file || (bs->open_flags & BDRV_O_NO_IO)) {
        return true;
    }
    file = open_named(opening, bs, &error);
    if (file && !bdrv_node_attach(bs, "data-file", BDRV_CHILD_DATA, file, &error)) {
        bdrv_co_node_unref(file);
        file = NULL;
    }
    if (!file) {
        g_prefix_error(&error, "could not open its data file: ");
        g_propagate_error(errp, error);
    }
    return file != NULL;
}
