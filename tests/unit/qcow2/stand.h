/* SPDX-License-Identifier: MIT */
#ifndef TEST_QCOW2_STAND_H
#define TEST_QCOW2_STAND_H

/* Images in memory, made by our own create, patched byte by byte and opened through the whole stack. */

#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>

/** stand_graph() - one graph for the program; its gate allows what tests need */
BdrvGraph *stand_graph(void);

/** stand_create() - make the image "simdisk:@name"; @options: "size=10M,…". Must work. */
void stand_create(const char *name, const char *options);
/** stand_create_error() - the message of a creation that must fail; caller frees */
char *stand_create_error(const char *name, const char *options, int *code);

/** stand_copy() - a copy of image @from under @name, cut or extended to @length bytes (-1: as it is) */
void stand_copy(const char *from, const char *name, int64_t length);
void stand_forget(const char *name);
int64_t stand_length(const char *name);

/** stand_put() - a big-endian number of @width bytes (1, 2, 4, 8) */
void stand_put(const char *name, int64_t offset, unsigned width, uint64_t value);
uint64_t stand_get(const char *name, int64_t offset, unsigned width);

/** stand_open() - with driver=qcow2 and @options (NULL: none); NULL with @errp set */
BlockBackend *stand_open(const char *name, const char *options, BdrvOpenFlags flags, GError **errp);
/** stand_must_open() - an error fails the test */
BlockBackend *stand_must_open(const char *name, const char *options, BdrvOpenFlags flags);
void stand_close(BlockBackend *blk);

/** stand_matches() - whether @text matches @pattern (* and ?); if not, both are printed */
bool stand_matches(const char *pattern, const char *text);

#endif
