/* SPDX-License-Identifier: MIT */
#ifndef BDRV_OPEN_INT_H
#define BDRV_OPEN_INT_H

/* Shared by the files of block/open only. */

#include "block/open/open.h"

/* One call of bdrv_co_open_tree(), all its nodes. */
typedef struct BdrvOpening {
    BdrvGraph *graph;
    unsigned nesting;    /* children in children, now */
    unsigned layers;     /* backing files opened so far */
    bool uses_published; /* some node below was there before: it may be drained and edited by others meanwhile */
} BdrvOpening;

/* What one node is opened from. */
typedef struct BdrvOpenSource {
    const char *filename; /* NULL: options say it all */
    BdrvOptions *options; /* owned by the source; consumed key by key */
    BdrvOpenFlags flags;
    bool require_protocol;
    bool may_probe; /* false: an image names it, and the opener's gate did not allow guessing */
} BdrvOpenSource;

/* What the options of a node say of its backing file. */
typedef struct BdrvBackingOptions {
    BdrvOptions *below; /* "backing.…"; owned; NULL: the driver has no backing files */
    char *reference;    /* backing=node-name; owned */
    bool none;          /* backing=null, or empty, as dotted keys have no null */
} BdrvBackingOptions;

void bdrv_backing_options_clear(BdrvBackingOptions *backing);

/* ---- open.c ---- */

/** bdrv_open_chain() - a node with children and backing files; @source->options is freed */
BlockDriverState *coroutine_fn bdrv_open_chain(BdrvOpening *opening, BdrvOpenSource *source, GError **errp);

/**
 * bdrv_open_layer() - a node with its children but without its backing file
 * @backing: set on success; cleared by the caller
 */
BlockDriverState *coroutine_fn bdrv_open_layer(BdrvOpening *opening, BdrvOpenSource *source,
                                               BdrvBackingOptions *backing, GError **errp);

/** bdrv_open_reference() - published node @name with a new reference; ENOENT */
BlockDriverState *bdrv_open_reference(BdrvOpening *opening, const char *key, const char *name, GError **errp);

/* ---- backing.c ---- */

/** bdrv_take_backing_options() - "backing" and "backing.…" out of @options */
bool bdrv_take_backing_options(BdrvOptions *options, BdrvBackingOptions *backing, GError **errp);

/**
 * bdrv_open_backing() - the next layer of a chain, or none
 * @layers: the nodes above, the last one is whose backing file is wanted
 * @given: what the options of that one say; taken
 * @next: set to the node, NULL if there is none
 * @next_given: the same for the layer after; empty for a referenced node
 */
bool coroutine_fn bdrv_open_backing(BdrvOpening *opening, const GPtrArray *layers, BdrvBackingOptions *given,
                                    BlockDriverState **next, BdrvBackingOptions *next_given, GError **errp);

/* ---- data_file.c ---- */

/** bdrv_open_data_file() - open what @bs->data_filename names as its child "data-file", unless there is one already */
bool coroutine_fn bdrv_open_data_file(BdrvOpening *opening, BlockDriverState *bs, GError **errp);

/* ---- filename.c ---- */

/** bdrv_is_protocol() - opens files or the like by itself: takes a filename */
bool bdrv_is_protocol(const BlockDriver *drv);

/** bdrv_expand_json_filename() - "json:{…}" in @source becomes options, below those given; else nothing happens */
bool bdrv_expand_json_filename(BdrvOpenSource *source, GError **errp);

/** bdrv_filename_to_options() - what protocol driver @drv makes of @filename, without overriding @options */
bool bdrv_filename_to_options(const BlockDriver *drv, const char *filename, BdrvOptions *options, GError **errp);

#endif
