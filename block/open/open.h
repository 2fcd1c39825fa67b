/* SPDX-License-Identifier: MIT */
#ifndef BDRV_OPEN_OPEN_H
#define BDRV_OPEN_OPEN_H

/* From options and filenames to a private tree of open nodes. */

#include "block/graph/graph.h"

/* Layers of backing files, and children in children: more is refused. */
#define BDRV_MAX_CHAIN 200
#define BDRV_MAX_NESTING 32

/**
 * bdrv_co_open_tree() - open a node with all its children
 * @filename, @options (taken), @flags: see blk_open(); "driver" absent means probe
 * @require_protocol: the node must be a protocol driver (no format probing): children "file" of formats
 *
 * Steps: filename to options -> driver -> children -> validate -> driver's bdrv_open -> limits,
 * length -> backing file through the opener gate. An option "node-name" that exists as reference
 * ("file=node-name") gives the published node with a new reference.
 * Returns: a private node with one reference, or NULL; nothing is left open then.
 */
BlockDriverState *coroutine_fn bdrv_co_open_tree(BdrvGraph *graph, const char *filename, BdrvOptions *options,
                                                 BdrvOpenFlags flags, bool require_protocol, GError **errp);

/**
 * bdrv_co_reopen() - new flags and options for the root of @edge and the file children that inherit them
 * @options: own keys of the root node, "file.…" for its file; taken, NULL: none
 * @edge gets the rights of a BlockBackend that was opened so. Options given at open stay unless they are given again. Drains, prepares all, commits all or aborts all.
 */
bool coroutine_fn bdrv_co_reopen(BdrvEdge *edge, BdrvOptions *options, BdrvOpenFlags flags, GError **errp);

/** bdrv_full_backing_filename() - a name an image stores, resolved against the image's own directory; caller frees
 * Names with a protocol prefix (json: too) and absolute ones stay as they are. EINVAL if @image_filename is json:{…}. */
char *bdrv_full_backing_filename(const char *image_filename, const char *backing_filename, GError **errp);

/** bdrv_node_full_backing_filename() - the same for a node that has a backing_filename: knows the directory of a
 * json: node by its file */
char *bdrv_node_full_backing_filename(const BlockDriverState *bs, GError **errp);

/** bdrv_node_full_filename() - the same for any @filename that the image of the node stores */
char *bdrv_node_full_filename(const BlockDriverState *bs, const char *filename, GError **errp);

/** bdrv_check_data_filename() - whether an image may name @filename as its data file: a plain local name; EACCES */
bool bdrv_check_data_filename(const char *filename, GError **errp);

/** bdrv_validate_create_options() - "size", what @drv and what the protocol below it (may be NULL) know: types and names */
bool bdrv_validate_create_options(const BlockDriver *drv, const BlockDriver *protocol, BdrvOptions *options,
                                  GError **errp);

/** bdrv_co_create_image() - coroutine form of bdrv_create_image() */
bool coroutine_fn bdrv_co_create_image(BdrvGraph *graph, const char *format, const char *filename,
                                       BdrvOptions *options, GError **errp);

/* ---- for open and reopen ---- */

/* The options that every node takes, taken out of a tree. */
typedef struct BdrvNodeOptions {
    char *node_name;     /* NULL: none given; owned */
    bool auto_read_only; /* if it cannot be opened for writing, open it read-only */
    BdrvDetectZeroes detect_zeroes;
    BdrvOpenFlags flags; /* given flags, changed by read-only, cache.*, discard, force-share */
} BdrvNodeOptions;

/** bdrv_take_node_options() - remove them from @options; @flags are what was inherited or asked for by the caller
 * Fails with EINVAL. @out is then untouched. */
bool bdrv_take_node_options(BdrvOptions *options, BdrvOpenFlags flags, BdrvNodeOptions *out, GError **errp);

/** bdrv_inherited_flags() - what a child in @role is opened with if its options do not say otherwise */
BdrvOpenFlags bdrv_inherited_flags(BdrvChildRole role, BdrvOpenFlags parent_flags);

/** bdrv_validate_open_options() - what is left in @options must be the driver's open_options */
bool bdrv_validate_open_options(const BlockDriver *drv, BdrvOptions *options, GError **errp);

#endif
