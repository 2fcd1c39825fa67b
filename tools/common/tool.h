/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TOOLS_TOOL_H
#define BDRV_TOOLS_TOOL_H

/* What bdrv-img and bdrv-io share. */

#include <bdrv/bdrv.h>
#include <stdbool.h>
#include <stdint.h>

/** tool_init() - remember the name the program was called by, for messages; see that the standard streams are open */
void tool_init(const char *argv0);
const char *tool_name(void);

/** tool_error() - "NAME: message" to standard error; standard output is flushed first, so that order is kept */
void tool_error(const char *format, ...) G_GNUC_PRINTF(1, 2);
/** tool_report() - the same for a GError: "NAME: @context: message", or without context if NULL; frees it */
void tool_report(const char *context, GError *error);
void tool_warning(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* Cache mode by name: none, off, writeback, writethrough, directsync, unsafe. False if there is no such mode. */
bool tool_cache_mode(const char *name, BdrvOpenFlags *flags);
#define TOOL_CACHE_FLAGS (BDRV_O_NOCACHE | BDRV_O_NO_FLUSH | BDRV_O_WRITETHROUGH | BDRV_O_DROP_AUTO)

/* "ignore"/"off" or "unmap"/"on" */
bool tool_discard_mode(const char *name, BdrvOpenFlags *flags);

/** tool_size_text() - bytes as bdrv-io prints them: "64 KiB", "1.500 KiB", "40 bytes"; caller frees */
char *tool_size_text(double bytes);

/** tool_parse_prealloc() - "off", "metadata", "falloc" or "full"; prints what is wrong and answers false */
bool tool_parse_prealloc(const char *name, BdrvPrealloc *prealloc);

/** tool_print_specific_info() - "Format specific information:" and a line each, nothing if there is none */
void tool_print_specific_info(const BdrvOptions *info);

/** tool_add_object() - take what --object says, for every graph made later; prints what is wrong, answers false */
bool tool_add_object(const char *text);
bool tool_has_object(const char *id);
void tool_give_objects(BdrvGraph *graph);

/** tool_graph() - a graph that has the objects, and opens local files which images name: bdrv_gate_local() */
BdrvGraph *tool_graph(void);

/* How the command line says what to open. */
typedef struct ToolImage {
    const char *filename;
    const char *format;  /* NULL: probe */
    bool image_opts;     /* @filename is "driver=…,…" */
    BdrvOpenFlags flags;
    const char *aio;     /* NULL: default */
    BdrvOptions *extra;  /* further options, NULL: none; not taken */
} ToolImage;

/**
 * tool_open() - open what the command line says; the usual warning if raw was guessed for writing
 * Returns: NULL with @errp set: "Could not open 'x': …".
 */
BlockBackend *tool_open(BdrvGraph *graph, const ToolImage *image, GError **errp);
/** tool_unknown_format() - that @format is unknown, and which are known; caller frees */
char *tool_unknown_format(const char *format);

#endif
