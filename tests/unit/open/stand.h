/* SPDX-License-Identifier: MIT */
#ifndef TEST_OPEN_STAND_H
#define TEST_OPEN_STAND_H

/*
 * A stand for the tests of opening: "t-mem", a protocol whose files are in memory, and "t-fmt", a format whose
 * first 512 bytes are text: "TFMT", backing file, its format, a line each.
 */
#include "block/graph/graph.h"

void stand_register(void); /* both drivers, once */

/** stand_file() - make or replace a file of t-mem with @bytes of zeroes */
void stand_file(const char *name, int64_t bytes);
/** stand_image() - a file with a t-fmt header; NULL: no backing file, no format recorded */
void stand_image(const char *name, const char *backing, const char *backing_format);
bool stand_exists(const char *name);
int64_t stand_length(const char *name);
void stand_clear(void); /* forget all files */

/* What the drivers saw */
extern unsigned stand_open_nodes; /* opened and not closed */
extern unsigned stand_opened;     /* since stand_clear() */
extern unsigned stand_reopened;   /* nodes asked to prepare since stand_clear() */
extern BdrvOpenFlags stand_last_mem_flags;

#endif
