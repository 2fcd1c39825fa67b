/* SPDX-License-Identifier: MIT */

/* Filenames: into options when a node is opened, and out of them when one is shown. */
#include "block/open/open_int.h"
#include "block/registry/registry.h"
#include "block/util/options_tree.h"

#include <errno.h>
#include <string.h>

static bool is_json(const char *filename)
{
    return g_str_has_prefix(filename, "json:");
}

bool bdrv_is_protocol(const BlockDriver *drv)
{
    return drv->protocol_name || drv->bdrv_probe_device || !drv->children;
}

/* ---- in ---- */

/* Set what @from has and @into has not: as a leaf, or anything below or above it. */
static void merge_absent(BdrvOptions *into, const BdrvOptions *from)
{
    for (unsigned i = 0; i < bdrv_options_count(from); i++) {
        const char *key;

        bdrv_options_nth(from, i, &key, NULL, NULL);
        if (!bdrv_options_has(into, key)) {
            bdrv_options_copy_leaf(into, key, from, key);
        }
    }
}

bool bdrv_expand_json_filename(BdrvOpenSource *source, GError **errp)
{
    g_autoptr(BdrvOptions) json = NULL;

    if (!source->filename || !is_json(source->filename)) {
        return true;
    }
    json = bdrv_options_parse_json(source->filename + strlen("json:"), errp);
    if (!json) {
        return false;
    }
    merge_absent(source->options, json);
    source->filename = NULL;
    return true;
}

bool bdrv_filename_to_options(const BlockDriver *drv, const char *filename, BdrvOptions *options, GError **errp)
{
    g_autoptr(BdrvOptions) parsed = bdrv_options_new();
    size_t skip = 0;

    if (drv->bdrv_parse_filename) {
        if (!drv->bdrv_parse_filename(filename, parsed, errp)) {
            return false;
        }
    } else {
        g_autofree char *prefix = bdrv_filename_prefix(filename);

        if (prefix && drv->protocol_name && strcmp(prefix, drv->protocol_name) == 0) {
            skip = strlen(prefix) + 1;
        }
        bdrv_options_set_string(parsed, "filename", filename + skip);
    }
    if (bdrv_options_has(options, "filename")) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the file is named twice: as '%s' and by the option 'filename'",
                    filename);
        return false;
    }
    merge_absent(options, parsed);
    return true;
}

/* ---- names that images store ---- */

static bool stays_as_it_is(const char *filename)
{
    g_autofree char *prefix = bdrv_filename_prefix(filename);

    return prefix || filename[0] == '/';
}

char *bdrv_full_backing_filename(const char *image_filename, const char *backing_filename, GError **errp)
{
    const char *slash, *base;
    g_autofree char *prefix = NULL;

    if (stays_as_it_is(backing_filename)) {
        return g_strdup(backing_filename);
    }
    if (is_json(image_filename)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the relative file name '%s' has no directory to start from: the image is known only as %s; name "
                    "the file by an option",
                    backing_filename, image_filename);
        return NULL;
    }
    prefix = bdrv_filename_prefix(image_filename);
    base = image_filename + (prefix ? strlen(prefix) + 1 : 0);
    slash = strrchr(base, '/');
    base = slash ? slash + 1 : base;
    return g_strdup_printf("%.*s%s", (int)(base - image_filename), image_filename, backing_filename);
}

char *bdrv_node_full_filename(const BlockDriverState *bs, const char *filename, GError **errp)
{
    const BlockDriverState *named = bs;

    while (named->file) { /* the names of those above may have more in front, or be json:{…} */
        named = named->file->bs;
    }
    return bdrv_full_backing_filename(named->filename, filename, errp);
}

char *bdrv_node_full_backing_filename(const BlockDriverState *bs, GError **errp)
{
    return bdrv_node_full_filename(bs, bs->backing_filename, errp);
}

/* ---- out ---- */

static bool is_strong(const BlockDriver *drv, const char *key)
{
    return !drv->strong_options || g_strv_contains(drv->strong_options, key);
}

static bool is_open_option(const BlockDriver *drv, const char *key)
{
    for (const BdrvOptionSpec *spec = drv->open_options; spec && spec->name; spec++) {
        if (bdrv_option_covers(spec, key)) {
            return true;
        }
    }
    return false;
}

/* Copy the options of the node that decide what is seen in it; how many besides "filename". */
static unsigned copy_strong(const BlockDriverState *bs, BdrvOptions *into)
{
    const BdrvOptions *own = bdrv_node(bs)->options;
    unsigned copied = 0;

    for (unsigned i = 0; own && i < bdrv_options_count(own); i++) {
        const char *key;

        bdrv_options_nth(own, i, &key, NULL, NULL);
        if (is_open_option(bs->drv, key) && is_strong(bs->drv, key)) {
            bdrv_options_copy_leaf(into, key, own, key);
            copied += strcmp(key, "filename") != 0;
        }
    }
    return copied;
}

/* The user said what the child is. */
static bool is_given(const BlockDriverState *bs, const char *child)
{
    const BdrvOptions *given = bdrv_node(bs)->explicit_options;
    size_t length = strlen(child);

    for (unsigned i = 0; given && i < bdrv_options_count(given); i++) {
        const char *key;

        bdrv_options_nth(given, i, &key, NULL, NULL);
        if (strncmp(key, child, length) == 0 && (key[length] == '\0' || key[length] == '.')) {
            return true;
        }
    }
    return false;
}

/* In place of what the image says. */
static bool backing_is_overridden(const BlockDriverState *bs)
{
    if ((bs->open_flags & BDRV_O_NO_BACKING) || (!bs->backing && !bs->backing_filename)) {
        return false;
    }
    return is_given(bs, "backing");
}

static bool is_shown(const BlockDriverState *bs, const BdrvEdge *edge)
{
    if (&edge->child == bs->data_file) {
        return is_given(bs, "data-file"); /* else the image names it */
    }
    return edge->child.role != BDRV_CHILD_COW || backing_is_overridden(bs);
}

/* Options that open the same node again, as JSON: dictionaries for the children, dotted keys for all else. */
static void append_reopening_options(GString *json, const BlockDriverState *bs)
{
    const GPtrArray *children = bdrv_node(bs)->children;
    g_autoptr(BdrvOptions) own = bdrv_options_new();

    bdrv_options_set_string(own, "driver", bs->drv->format_name);
    copy_strong(bs, own);
    g_string_append_c(json, '{');
    bdrv_options_append_flat_json(json, own);
    for (unsigned i = 0; i < children->len; i++) {
        const BdrvEdge *edge = children->pdata[i];

        if (is_shown(bs, edge)) {
            g_string_append_printf(json, ", \"%s\": ", edge->child.name);
            append_reopening_options(json, edge->child.bs);
        }
    }
    if (!bs->backing && backing_is_overridden(bs)) {
        g_string_append(json, ", \"backing\": null");
    }
    g_string_append_c(json, '}');
}

/* A protocol's "filename" so that it is no "prefix:…"; NULL if it has none. */
static char *own_filename(const BlockDriverState *bs)
{
    const char *filename = bdrv_options_get_string(bdrv_node(bs)->options, "filename", NULL);
    g_autofree char *prefix = filename ? bdrv_filename_prefix(filename) : NULL;

    return prefix && bs->drv->bdrv_probe_device ? g_strconcat("./", filename, NULL) : g_strdup(filename);
}

/*
 * The plain name that opens the same node, NULL if there is none: a protocol's own filename, or that
 * of the protocol just below a format, if no option changes what is seen.
 */
static char *plain_filename(const BlockDriverState *bs)
{
    const GPtrArray *children = bdrv_node(bs)->children;
    g_autoptr(BdrvOptions) strong = bdrv_options_new();

    if (copy_strong(bs, strong) > 0 || backing_is_overridden(bs)) {
        return NULL;
    }
    if (children->len == 0) {
        return own_filename(bs);
    }
    for (unsigned i = 0; i < children->len; i++) {
        const BdrvEdge *edge = children->pdata[i];

        if (&edge->child != bs->file && is_shown(bs, edge)) {
            return NULL;
        }
    }
    if (!bs->file || !bdrv_is_protocol(bs->file->bs->drv) || is_json(bs->file->bs->filename)) {
        return NULL;
    }
    return g_strdup(bs->file->bs->filename);
}

static char *compose_filename(BlockDriverState *bs)
{
    char *filename = bs->drv->bdrv_refresh_filename ? bs->drv->bdrv_refresh_filename(bs) : NULL;

    if (!filename) {
        filename = plain_filename(bs);
    }
    if (filename) {
        return filename;
    }
    GString *json = g_string_new("json:");
    append_reopening_options(json, bs);
    return g_string_free(json, false);
}

void bdrv_refresh_node_filename(BlockDriverState *bs)
{
    bdrv_node_set_names(bs, NULL, compose_filename(bs));
}
