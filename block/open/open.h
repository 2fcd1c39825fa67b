/* SPDX-License-Identifier: MIT */
#ifndef BDRV_OPEN_OPEN_H
#define BDRV_OPEN_OPEN_H

/* From options and filenames to a private tree of open nodes. */

#include "block/graph/graph.h"

/**
 * bdrv_co_open_tree() - open a node with all its children
 * @filename, @options (taken), @flags: see blk_open(); "driver" absent means probe
 * @require_protocol: the node must be a protocol driver (no format probing): children "file" of formats
 *
 * Steps: filename to options -> driver -> validate -> children -> driver's bdrv_open -> limits,
 * length -> backing file through the opener gate. An option "node-name" that exists as reference
 * ("file=node-name") gives the published node with a new reference.
 * Returns: a private node with one reference, or NULL; nothing is left open then.
 */
BlockDriverState *coroutine_fn bdrv_co_open_tree(BdrvGraph *graph, const char *filename, BdrvOptions *options,
                                                 BdrvOpenFlags flags, bool require_protocol, GError **errp);

/**
 * bdrv_co_reopen() - new flags and options for the root of @edge and the file children that inherit them
 * @options: own keys of the root node, "file.…" for its file; taken, NULL: none
 * @used: rights that @edge needs from then on
 * Options given at open stay unless they are given again. Drains, prepares all, commits all or aborts all.
 */
bool coroutine_fn bdrv_co_reopen(BdrvEdge *edge, BdrvOptions *options, BdrvOpenFlags flags, unsigned used,
                                 GError **errp);

/** bdrv_full_backing_filename() - a name an image stores, resolved against the image's own directory; caller frees */
char *bdrv_full_backing_filename(const char *image_filename, const char *backing_filename, GError **errp);

/** bdrv_co_create_image() - coroutine form of bdrv_create_image() */
bool coroutine_fn bdrv_co_create_image(BdrvGraph *graph, const char *format, const char *filename,
                                       BdrvOptions *options, GError **errp);

#endif
