/* SPDX-License-Identifier: MIT */
/* What a node derives from its children: limits and the name it is shown under. */
#include "block/graph/graph_int.h"

#include <limits.h>
#include <string.h>

static int64_t min_limit(int64_t a, int64_t b)
{
    return a == 0 ? b : b == 0 ? a : MIN(a, b);
}

static void merge_limits(BdrvLimits *into, const BdrvLimits *from, bool shown)
{
    into->mem_alignment = MAX(into->mem_alignment, from->mem_alignment);
    into->opt_transfer = MAX(into->opt_transfer, from->opt_transfer);
    if (!shown) {
        return; /* the request layer splits and pads again at the child */
    }
    into->request_alignment = MAX(into->request_alignment, from->request_alignment);
    into->max_iov = (uint32_t)min_limit(into->max_iov, from->max_iov);
    into->max_transfer = min_limit(into->max_transfer, from->max_transfer);
    into->pwrite_zeroes_alignment = MAX(into->pwrite_zeroes_alignment, from->pwrite_zeroes_alignment);
    into->max_pwrite_zeroes = min_limit(into->max_pwrite_zeroes, from->max_pwrite_zeroes);
    into->pdiscard_alignment = MAX(into->pdiscard_alignment, from->pdiscard_alignment);
    into->max_pdiscard = min_limit(into->max_pdiscard, from->max_pdiscard);
}

void bdrv_refresh_node_limits(BlockDriverState *bs)
{
    const BdrvNode *node = bdrv_node(bs);
    BdrvLimits limits = { .request_alignment = 1, .mem_alignment = 1 };

    for (unsigned i = 0; i < node->children->len; i++) {
        const BdrvEdge *edge = node->children->pdata[i];

        merge_limits(&limits, &edge->child.bs->limits, edge->child.role == BDRV_CHILD_FILTERED);
    }
    bs->limits = limits;
    if (bs->drv->bdrv_refresh_limits) {
        bs->drv->bdrv_refresh_limits(bs);
    }
    bs->limits.request_alignment = MAX(bs->limits.request_alignment, 1);
    bs->limits.mem_alignment = MAX(bs->limits.mem_alignment, 1);
    if (bs->limits.max_iov == 0 || bs->limits.max_iov > IOV_MAX) {
        bs->limits.max_iov = IOV_MAX;
    }
}

/* Options that every node has and that say nothing about what is shown. */
static bool option_matters(const char *key)
{
    static const char *const common[] = { "driver",      "node-name", "read-only", "auto-read-only",
                                          "force-share", "discard",   "file",      "backing", "detect-zeroes" };

    for (unsigned i = 0; i < G_N_ELEMENTS(common); i++) {
        if (g_str_equal(key, common[i])) {
            return false;
        }
    }
    return !g_str_has_prefix(key, "cache.") && !g_str_has_prefix(key, "file.") && !g_str_has_prefix(key, "backing.");
}

static bool is_strong(const BlockDriver *drv, const char *key)
{
    if (!drv->strong_options) {
        return option_matters(key);
    }
    for (const char *const *name = drv->strong_options; *name; name++) {
        if (g_str_equal(*name, key)) {
            return true;
        }
    }
    return false;
}

static bool node_has_options(const BdrvNode *node)
{
    for (unsigned i = 0; i < bdrv_options_count(node->options); i++) {
        const char *key;

        bdrv_options_nth(node->options, i, &key, NULL, NULL);
        if (is_strong(node->bs.drv, key)) {
            return true;
        }
    }
    return false;
}

static char *json_filename(const BdrvNode *node)
{
    g_autoptr(BdrvOptions) options = bdrv_options_copy(node->explicit_options);
    g_autofree char *json = NULL;

    bdrv_options_set_string(options, "driver", node->bs.drv->format_name);
    if (node->bs.file && !bdrv_options_has(options, "file") && !bdrv_options_has(options, "file.driver")) {
        const BlockDriverState *file = node->bs.file->bs;

        bdrv_options_set_string(options, "file.driver", file->drv->format_name);
        bdrv_options_set_string(options, "file.filename", file->filename);
    }
    json = bdrv_options_to_json(options, false);
    return g_strconcat("json:", json, NULL);
}

void bdrv_refresh_node_filename(BlockDriverState *bs)
{
    BdrvNode *node = bdrv_node(bs);
    char *filename = NULL;

    if (bs->drv->bdrv_refresh_filename) {
        filename = bs->drv->bdrv_refresh_filename(bs);
    }
    if (!filename && bs->file && !(node->options && node_has_options(node))) {
        filename = g_strdup(bs->file->bs->filename);
    }
    if (!filename && (bs->file || bs->filename[0] == '\0')) {
        filename = json_filename(node);
    }
    if (filename) {
        g_free(bs->filename);
        bs->filename = filename;
    }
}
