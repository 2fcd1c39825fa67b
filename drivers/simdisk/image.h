/* SPDX-License-Identifier: MIT */
#ifndef BDRV_SIMDISK_IMAGE_H
#define BDRV_SIMDISK_IMAGE_H

/*
 * Sparse images that share pages. An image is a radix tree of 4 KiB pages; inner nodes and pages have
 * reference counts and are copied when they are changed and not the image's alone. Copying an image is
 * taking one reference. Not locked: the owner of an image is alone with it; counts are atomic because
 * several images share nodes.
 */

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define SIM_PAGE 4096
#define SIM_LENGTH_MAX ((int64_t)1 << 52) /* what the tree can address */

typedef struct SimNode SimNode;

typedef struct SimImage {
    SimNode *root;
    int64_t pages; /* allocated */
} SimImage;

SimImage sim_image_copy(const SimImage *image);
void sim_image_clear(SimImage *image);
void sim_image_read(const SimImage *image, int64_t offset, void *buf, int64_t bytes);
void sim_image_write(SimImage *image, int64_t offset, const void *buf, int64_t bytes);
/* Whole pages are given back. */
void sim_image_zero(SimImage *image, int64_t offset, int64_t bytes);
/* How many bytes from @offset on (at most @bytes) are all in allocated pages, or all not. */
int64_t sim_image_run(const SimImage *image, int64_t offset, int64_t bytes, bool *allocated);
/* Pages that a write would have to allocate. */
int64_t sim_image_missing_pages(const SimImage *image, int64_t offset, int64_t bytes);

#endif
