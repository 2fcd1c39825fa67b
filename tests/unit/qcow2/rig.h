/* SPDX-License-Identifier: MIT */
#ifndef TEST_QCOW2_RIG_H
#define TEST_QCOW2_RIG_H

/*
 * A qcow2 node on a simulated disk, without graph and backend, and the checks that tests make on it.
 * Everything but rig_image_free() runs in a coroutine.
 */

#include <bdrv/driver.h>

#include <bdrv/simdisk.h>
#include "tests/lib/test-node.h"

/* How an image is made. 0 / NULL: the driver's default. */
typedef struct RigImage {
    const char *disk; /* name of the simdisk; made by rig_create() */
    int64_t size;
    int64_t cluster_size;
    int refcount_bits;
    const char *compat;
    const char *preallocation;
    bool extended_l2;
    const char *data_file; /* name of another simdisk, which is made too and lives until it is forgotten */
    bool data_file_raw;
    const char *encrypt; /* format; the key is TEST_SECRET */
} RigImage;

/* An open node. */
typedef struct Rig {
    BdrvChild *child;   /* to the qcow2 node */
    BdrvChild *backing; /* NULL: none */
} Rig;

/** rig_create() - make disk and image; the caller unrefs the disk */
BdrvSimDisk *coroutine_fn rig_create(const RigImage *image);

/** rig_format() - make the image on a disk that is there, as the disk is set; false with @errp set */
bool coroutine_fn rig_format(const RigImage *image, GError **errp);

/** rig_open() - @options of qcow2, e.g. cache sizes; @backing taken, NULL: none */
Rig coroutine_fn rig_open(const char *disk, const char *options, BdrvChild *backing);
/** rig_backing() - an edge to a raw simdisk of @bytes, all bytes @fill */
BdrvChild *coroutine_fn rig_backing(const char *disk, int64_t bytes, uint8_t fill);
/** rig_close() - drain and close; 0 or the driver's -errno */
int coroutine_fn rig_close(Rig *rig);

int coroutine_fn rig_write(const Rig *rig, int64_t offset, int64_t bytes, uint8_t fill);
int coroutine_fn rig_read(const Rig *rig, int64_t offset, int64_t bytes, uint8_t *buf);
/** rig_assert_filled() - every byte of the range is @fill */
void coroutine_fn rig_assert_filled(const Rig *rig, int64_t offset, int64_t bytes, uint8_t fill);

/** rig_verify() - between two steps, in builds with -Ddebug_invariants=true: the node looks at its own metadata */
void coroutine_fn rig_verify(const Rig *rig);

/** rig_check() - our own check of the image on @disk, opened read-only; fills corruptions and leaks
 * Returns: 0, or -errno if it cannot even be opened or checked. */
int coroutine_fn rig_check(const char *disk, BdrvCheckResult *result);
/** rig_check_format() - the same of an image of another format, which its driver looks at */
int coroutine_fn rig_check_format(const char *format, const char *disk, bool quiet, BdrvCheckResult *result);
/** rig_check_quietly() - the same without telling what is wrong: where something is expected to be */
int coroutine_fn rig_check_quietly(const char *disk, BdrvCheckResult *result);
/** rig_assert_clean() - no corruption, no leak */
void coroutine_fn rig_assert_clean(const char *disk);

#endif
