/* SPDX-License-Identifier: MIT */
#ifndef TEST_CRASH_IMAGES_H
#define TEST_CRASH_IMAGES_H

/* The images that a crash search starts from, and what their sectors hold. */

#include "tests/crash/model.h"
#include "tests/unit/qcow2/rig.h"

#define CRASH_SIZE (64 * 1024)
#define CRASH_BACKING_BYTES (80 * 1024) /* more than the image shows */
#define CRASH_OLD_SIZE (32 * 1024)      /* of the image that another one is made over */

#define CRASH_SHRUNK_SIZE (20 * 1024 + 512)

#define CRASH_BASE 0x11
#define CRASH_BACKING 0x22
#define CRASH_GARBAGE 0xff /* a sector that holds none of the patterns, or another sector's */

/* Sizes that a disk may have, as values of the model's cell. */
enum { SIZE_NO_IMAGE, SIZE_BASE, SIZE_GROWN, SIZE_LARGE, SIZE_OLD, SIZE_SHRUNK, SIZE_UNKNOWN };

typedef enum CrashStart {
    START_READY,      /* there is an image */
    START_EMPTY_FILE, /* the first operation creates it */
    START_OLD_IMAGE,  /* the same, over another image */
} CrashStart;

typedef struct CrashImage {
    const char *name;
    bool vdi;             /* not qcow2; of the rest only size, options and start count */
    bool fixed;           /* a VDI image whose blocks all have a place */
    int64_t cluster_size; /* of VDI: of its blocks */
    int refcount_bits;
    const char *compat;        /* NULL: version 3 */
    const char *preallocation; /* NULL: none */
    const char *options;       /* of every open, NULL: none */
    int64_t missing;           /* bytes that the size is short of CRASH_SIZE */
    bool backing;              /* CRASH_BACKING_BYTES filled with CRASH_BACKING */
    bool snapshot;             /* an internal snapshot shares all clusters */
    bool compressed;           /* some clusters are */
    bool extended_l2;          /* subclusters of a 32nd of a cluster */
    bool data_file;            /* the guest's data is on a disk of its own, "DISK-data" */
    bool data_file_raw;        /* and that is the guest's disk byte for byte */
    bool bitmap;               /* an enabled bitmap "b" of sectors, empty to begin with */
    const char *encrypt;       /* format, NULL: none; the key is the first of the test_secrets that opens it */
    int64_t used; /* clusters up to this host offset are taken (leaked): where tables must grow next */
    CrashStart start;
    bool slow;     /* its states take milliseconds to open: less of it in the short form */
    bool searched; /* by searches only: the short form has one like it */
} CrashImage;

extern const CrashImage crash_images[];
extern const unsigned crash_image_count;

static inline int64_t crash_image_size(const CrashImage *image)
{
    return CRASH_SIZE - image->missing;
}

/** crash_size_bytes() - what a SIZE_ value means */
int64_t crash_size_bytes(const CrashImage *image, unsigned size);

/** crash_base_value() - what guest sector @n holds to begin with */
uint8_t crash_base_value(const CrashImage *image, int64_t n);

/** crash_fill() - the pattern of @value into guest sectors from the one at @offset on; 0: zeroes */
void crash_fill(uint8_t *buf, int64_t offset, int64_t bytes, uint8_t value);
/** crash_value() - the value whose pattern sector @n holds, or CRASH_GARBAGE */
uint8_t crash_value(const uint8_t sector[512], int64_t n);

/** crash_image_make() - on a new simdisk "base", backing file on "backing"; what the model starts from goes to
 * @cells. The caller unrefs both disks. That of a data file is there until it is forgotten. */
BdrvSimDisk *coroutine_fn crash_image_make(const CrashImage *image, uint8_t cells[MODEL_CELLS], BdrvSimDisk **backing);

/** crash_image_format() - rig_format(), of VDI with the disk, the size, the clusters' size, and fixed if preallocated */
bool coroutine_fn crash_image_format(const CrashImage *image, const RigImage *how, GError **errp);

/** crash_image_check() - our own check, read-only, of an image of this format */
int coroutine_fn crash_image_check(const CrashImage *image, const char *disk, bool quiet, BdrvCheckResult *result);

/** crash_data_disk() - the name of the disk with the data of the image on @disk; caller frees */
char *crash_data_disk(const char *disk);

static inline bool crash_has_keys(const CrashImage *image)
{
    return g_strcmp0(image->encrypt, "luks") == 0;
}

/** crash_image_open() - the image on @disk with its backing file and its data file; false if it cannot be opened, which
 * is printed unless @quiet */
bool coroutine_fn crash_image_open(const CrashImage *image, const char *disk, bool quiet, Rig *rig);
/** crash_image_open_by() - the same with one of the test_secrets */
bool coroutine_fn crash_image_open_by(const CrashImage *image, const char *disk, unsigned secret, bool quiet, Rig *rig);

#endif
