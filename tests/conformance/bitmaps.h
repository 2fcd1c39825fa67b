/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_CONFORMANCE_BITMAPS_H
#define BDRV_TEST_CONFORMANCE_BITMAPS_H

/* Stacks of an image with an enabled dirty bitmap. */

#include "tests/lib/conformance.h"

/** conformance_add_bitmap() - an enabled bitmap "b" of sectors, at the end of a setup: the image is all zeroes */
void conformance_add_bitmap(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir);

/** conformance_bitmap_setup() - conformance_file_setup(), and that */
void conformance_bitmap_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                              uint8_t *content);

/** conformance_check_bitmap() - as conformance_check_image(), and the bitmap tells of all that is not zero */
void conformance_check_bitmap(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir);

#endif
