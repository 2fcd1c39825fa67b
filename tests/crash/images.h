/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_IMAGES_H
#define TEST_CRASH_IMAGES_H

/* The images that a crash search starts from. */

#include "tests/unit/qcow2/rig.h"

#define CRASH_SIZE (64 * 1024)
#define CRASH_SECTORS (CRASH_SIZE / 512)

typedef struct CrashImage {
    const char *name;
    int64_t cluster_size;
    int refcount_bits;
    bool backing;  /* filled with CRASH_BACKING */
    bool snapshot; /* an internal snapshot shares all clusters */
    int64_t used;  /* clusters up to this host offset are taken (leaked): where tables must grow next */
} CrashImage;

#define CRASH_BACKING 0x22
#define CRASH_BASE 0x11

extern const CrashImage crash_images[];
extern const unsigned crash_image_count;

/** crash_image_make() - on a new simdisk "base"; what the guest reads goes to @content, a byte a sector
 * Part of the disk is written, part zeroed, part left alone. The caller unrefs the disk. */
BdrvSimDisk *coroutine_fn crash_image_make(const CrashImage *image, uint8_t content[CRASH_SECTORS]);

/** crash_image_open() - the image on @disk with its backing file */
Rig coroutine_fn crash_image_open(const CrashImage *image, const char *disk, const char *options);

#endif
