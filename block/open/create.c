/* SPDX-License-Identifier: MIT */

/*
 * Creating an image: the protocol makes an empty file, then the format writes itself into it through
 * a node that is never opened and only carries the edge to the file.
 */
#include "block/open/open_int.h"

#include "block/io/io.h"
#include "block/registry/registry.h"
#include "block/util/options_tree.h"

#include <errno.h>
#include <string.h>

static const BdrvOptionSpec size_spec[] = {
    { "size", BDRV_OPTION_SIZE, "Virtual disk size" },
    { NULL },
};
static const BdrvOptionSpec no_specs[] = { { NULL } };

typedef struct Creation {
    BdrvGraph *graph;
    const BlockDriver *drv;      /* the format */
    const BlockDriver *protocol; /* of the file */
    const char *filename;        /* as given */
    char *path;                  /* without the protocol's prefix; owned */
    BdrvOptions *options;        /* validated; owned */
} Creation;

static bool has_spec(const BdrvOptionSpec *specs, const char *key)
{
    for (; specs && specs->name; specs++) {
        if (strcmp(specs->name, key) == 0) {
            return true;
        }
    }
    return false;
}

/* Does the protocol alone make the image: it is the format, or the format (raw) adds nothing to the file? */
static bool protocol_makes_all(const Creation *creation)
{
    return creation->drv == creation->protocol || !creation->drv->bdrv_create;
}

static bool find_drivers(Creation *creation, const char *format, GError **errp)
{
    creation->drv = bdrv_find_format(format);
    if (!creation->drv) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "unknown format '%s'", format);
        return false;
    }
    creation->protocol = bdrv_is_protocol(creation->drv) ? creation->drv
                                                         : bdrv_find_protocol(creation->filename, errp);
    if (!creation->protocol) {
        return false;
    }
    if (creation->drv != creation->protocol && !bdrv_driver_can_create(format)) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "format driver '%s' cannot create images", format);
        return false;
    }
    if (!creation->protocol->bdrv_create) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "protocol driver '%s' cannot create files",
                    creation->protocol->format_name);
        return false;
    }
    return true;
}

bool bdrv_validate_create_options(const BlockDriver *drv, const BlockDriver *protocol, BdrvOptions *options,
                                  GError **errp)
{
    const BdrvOptionSpec *const tables[] = {
        size_spec,
        drv->create_options ? drv->create_options : no_specs,
        protocol && protocol->create_options ? protocol->create_options : no_specs,
        NULL,
    };
    g_autofree char *what = g_strdup_printf("creation of format '%s'", drv->format_name);

    return bdrv_options_validate(options, tables, what, errp);
}

/* The path below the prefix, as opening finds it. */
static bool find_path(Creation *creation, GError **errp)
{
    g_autoptr(BdrvOptions) parsed = bdrv_options_new();

    if (!bdrv_filename_to_options(creation->protocol, creation->filename, parsed, errp)) {
        return false;
    }
    creation->path = g_strdup(bdrv_options_get_string(parsed, "filename", creation->filename));
    return true;
}

/* Options for the protocol: its own that the format does not claim, and the size of an empty file. */
static BdrvOptions *protocol_options(const Creation *creation)
{
    BdrvOptions *options = bdrv_options_new();

    bdrv_options_set_int(options, "size", 0);
    for (unsigned i = 0; i < bdrv_options_count(creation->options); i++) {
        const char *key;

        bdrv_options_nth(creation->options, i, &key, NULL, NULL);
        if (has_spec(creation->protocol->create_options, key) && !has_spec(creation->drv->create_options, key)) {
            bdrv_options_copy_leaf(options, key, creation->options, key);
        }
    }
    return options;
}

static BdrvOptions *format_options(const Creation *creation)
{
    BdrvOptions *options = bdrv_options_new();

    for (unsigned i = 0; i < bdrv_options_count(creation->options); i++) {
        const char *key;

        bdrv_options_nth(creation->options, i, &key, NULL, NULL);
        if (strcmp(key, "size") == 0 || has_spec(creation->drv->create_options, key)) {
            bdrv_options_copy_leaf(options, key, creation->options, key);
        }
    }
    return options;
}

static BlockDriverState *coroutine_fn open_file(const Creation *creation, BdrvOpenFlags flags, GError **errp)
{
    BdrvOptions *options = bdrv_options_new();

    bdrv_options_set_string(options, "driver", creation->protocol->format_name);
    return bdrv_co_open_tree(creation->graph, creation->filename, options, flags, true, errp);
}

/* Only a file that was not there before may be deleted when creating fails. In doubt it was there. */
static bool coroutine_fn file_exists(const Creation *creation)
{
    g_autoptr(GError) error = NULL;
    BlockDriverState *bs = open_file(creation, BDRV_O_FORCE_SHARE | BDRV_O_NO_IO, &error);

    if (bs) {
        bdrv_co_node_unref(bs);
        return true;
    }
    return bdrv_error_code(error) != ENOENT;
}

/* @parent: an unopened node of the format; what bdrv_create gets is its child "file". */
static bool coroutine_fn create_in_child(const Creation *creation, BlockDriverState *parent, BlockDriverState *file,
                                         GError **errp)
{
    g_autoptr(BdrvOptions) options = format_options(creation);
    int ret;

    bdrv_node_set_mode(parent, BDRV_O_RDWR | BDRV_O_RESIZE, false);
    if (!bdrv_node_attach(parent, "file", BDRV_CHILD_PROTOCOL, file, errp)) {
        bdrv_co_node_unref(file);
        return false;
    }
    if (!creation->drv->bdrv_create(creation->filename, parent->file, options, errp)) {
        return false;
    }
    ret = bdrv_co_flush(parent->file);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "could not flush the new image: %s", g_strerror(-ret));
    }
    return ret >= 0;
}

static bool coroutine_fn write_format(const Creation *creation, GError **errp)
{
    BlockDriverState *file = open_file(creation, BDRV_O_RDWR | BDRV_O_RESIZE, errp);
    BlockDriverState *parent;
    bool ok;
    int ret;

    if (!file) {
        return false;
    }
    parent = bdrv_node_new(creation->graph, creation->drv);
    ok = create_in_child(creation, parent, file, errp);
    ret = bdrv_co_node_unref(parent);
    if (ok && ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "could not close the new image: %s", g_strerror(-ret));
        ok = false;
    }
    return ok;
}

/* The protocol makes an empty file: there is nothing to preallocate in it before the format is there. */
static bool check_preallocation(const Creation *creation, GError **errp)
{
    const char *mode = bdrv_options_get_string(creation->options, "preallocation", "off");

    if (strcmp(mode, "off") == 0 || has_spec(creation->drv->create_options, "preallocation")) {
        return true;
    }
    g_set_error(errp, BDRV_ERROR, ENOTSUP, "format '%s' does not support preallocation=%s; leave it out or say off",
                creation->drv->format_name, mode);
    return false;
}

static bool coroutine_fn create_both(const Creation *creation, GError **errp)
{
    g_autoptr(BdrvOptions) options = protocol_options(creation);
    bool existed = file_exists(creation);

    if (!check_preallocation(creation, errp)) {
        return false;
    }
    if (!creation->protocol->bdrv_create(creation->path, NULL, options, errp)) {
        return false;
    }
    if (write_format(creation, errp)) {
        return true;
    }
    if (!existed && creation->protocol->bdrv_delete_file) {
        creation->protocol->bdrv_delete_file(creation->path, NULL);
    }
    return false;
}

static bool coroutine_fn create(Creation *creation, const char *format, GError **errp)
{
    if (!find_drivers(creation, format, errp) || !find_path(creation, errp) || !bdrv_validate_create_options(creation->drv, creation->protocol, creation->options, errp)) {
        return false;
    }
    if (protocol_makes_all(creation)) {
        return creation->protocol->bdrv_create(creation->path, NULL, creation->options, errp);
    }
    return create_both(creation, errp);
}

bool coroutine_fn bdrv_co_create_image(BdrvGraph *graph, const char *format, const char *filename,
                                       BdrvOptions *options, GError **errp)
{
    Creation creation = {
        .graph = graph, .filename = filename, .options = options ? options : bdrv_options_new()
    };
    GError *error = NULL;
    bool ok = create(&creation, format, &error);

    if (!ok) {
        if (!g_str_has_prefix(error->message, filename)) {
            bdrv_error_prefix(&error, filename);
        }
        g_propagate_error(errp, error);
    }
    bdrv_options_free(creation.options);
    g_free(creation.path);
    return ok;
}
