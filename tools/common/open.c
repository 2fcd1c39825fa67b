/* SPDX-License-Identifier: MIT */
#include "tools/common/tool.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

BdrvGraph *tool_graph(void)
{
    BdrvGraph *graph = bdrv_graph_new();

    bdrv_graph_set_opener_gate(graph, bdrv_gate_local, NULL);
    tool_give_objects(graph);
    return graph;
}

static bool is_raw(BlockBackend *blk)
{
    return strcmp(blk_driver(blk), "raw") == 0;
}

static void warn_if_raw_was_guessed(BlockBackend *blk, const ToolImage *image)
{
    if (!(image->flags & BDRV_O_RDWR) || !blk_probed(blk) || !is_raw(blk)) {
        return;
    }
    fflush(stdout);
    fprintf(stderr,
            "WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
            "         Automatically detecting the format is dangerous for raw images, write operations on block 0 "
            "will be restricted.\n"
            "         Specify the 'raw' format explicitly to remove the restrictions.\n",
            image->filename);
}

/* The option goes to the protocol node: "aio" if that is what is opened, else "file.aio". */
static void set_aio(BdrvOptions *options, const char *format, const char *aio)
{
    bool is_protocol = format && (strcmp(format, "file") == 0 || strcmp(format, "host_device") == 0);

    bdrv_options_set_string(options, is_protocol ? "aio" : "file.aio", aio);
}

static bool build_options(const ToolImage *image, BdrvOptions **result, GError **errp)
{
    g_autoptr(BdrvOptions) options = NULL;

    if (image->image_opts) {
        options = bdrv_options_parse(image->filename, NULL, errp);
        if (!options) {
            return false;
        }
        if (image->format) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "--image-opts and --format are mutually exclusive");
            return false;
        }
    } else {
        options = bdrv_options_new();
    }
    if (image->extra) {
        bdrv_options_merge(options, NULL, image->extra);
    }
    if (image->format) {
        bdrv_options_set_string(options, "driver", image->format);
    }
    if (image->aio) {
        set_aio(options, bdrv_options_get_string(options, "driver", NULL), image->aio);
    }
    *result = g_steal_pointer(&options);
    return true;
}

char *tool_unknown_format(const char *format)
{
    g_autofree char *names = bdrv_format_names();

    return g_strdup_printf("Unknown file format '%s'; supported formats are: %s", format, names);
}

BlockBackend *tool_open(BdrvGraph *graph, const ToolImage *image, GError **errp)
{
    BdrvOptions *options;
    BlockBackend *blk;

    if (image->format && !bdrv_driver_known(image->format)) {
        g_autofree char *why = tool_unknown_format(image->format);
        g_set_error_literal(errp, BDRV_ERROR, EINVAL, why);
        return NULL;
    }
    if (!build_options(image, &options, errp)) {
        return NULL;
    }
    blk = blk_open(graph, image->image_opts ? NULL : image->filename, options, image->flags, errp);
    if (blk) {
        warn_if_raw_was_guessed(blk, image);
    }
    return blk;
}
