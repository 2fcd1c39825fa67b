/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_FAULTS_STAND_H
#define BDRV_TEST_FAULTS_STAND_H

/* One image under test, opened as an embedder would, and what is known of its content. */

#include <bdrv/aio.h>
#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>

#include "tests/faults/model.h"

#define KIB INT64_C(1024)
#define DISK_BYTES (256 * KIB)
#define DISK_SHRUNK (DISK_BYTES / 2 + 5 * KIB / 2)
#define DISK_GROWN (288 * KIB)
/* Where the images hold what: value 1, zeroes without and with space of their own, value 2, nothing. */
#define AT_ONES 0
#define AT_ZEROES (16 * KIB)
#define AT_OWN_ZEROES (24 * KIB)
#define AT_TWOS (32 * KIB)
#define AT_NOTHING (64 * KIB)
/* The backing file: value 7 up to its end, which is in nobody's cluster boundary. */
#define BACKING_BYTES (150 * KIB + 512)
#define BACKING_VALUE 7

/* How much of the search there is time for. A row of a table takes part from its level on. */
typedef enum Level {
    LEVEL_LIGHT, /* under sanitizers */
    LEVEL_SHORT,
    LEVEL_FULL,
} Level;

typedef struct FaultImage {
    Level level;
    const char *name;
    const char *driver;  /* "raw", "qcow2" */
    const char *create;  /* options */
    const char *options; /* of the driver when it is opened */
    int64_t cluster_size;
    bool backing;
    bool compressed; /* the ones are */
    bool snapshot;
    bool on_files; /* shall also be tried on real ones */
    bool data_file;  /* on the simdisk "d-data", which the create options name; faults "below" are there */
    bool full_block, full_table; /* the next allocation needs a refcount block, a larger refcount table */
} FaultImage;

/* Where the image's file is. */
typedef struct FaultPlace {
    Level level;
    const char *name;
    const char *options; /* of the file; %PATH% is its name */
    BdrvOpenFlags flags;
    bool sim;    /* on a simdisk, in a deterministic run */
    bool cached; /* in the kernel's page cache: a failed flush lasts until the file is closed */
} FaultPlace;

extern const FaultImage fault_images[];
extern const unsigned fault_image_count;
extern const FaultPlace fault_places[];
extern const unsigned fault_place_count;

typedef struct Stand {
    const FaultImage *image;
    const FaultPlace *place;
    AioSim *sim;
    AioContext *ctx;
    BdrvGraph *graph;
    BdrvSimDisk *disk, *below; /* the file's and the backing file's, if they are simdisks */
    BdrvSimDisk *data;         /* the data file's; NULL: none */
    char *path, *below_path;   /* else of the files */
    BlockBackend *blk;         /* NULL: not open */
    Model *model;
    uint8_t *kept; /* the content that snapshot "x" has; NULL: there was none */
    bool blind; /* looking at the image anew failed: it refuses I/O until that succeeds */
    uint64_t cuts;
    int64_t leaks; /* clusters that the last check found, besides those that the image began with */
    bool without_rings; /* the thread has none yet */
    unsigned fds;       /* open when it began */
} Stand;

/** stand_where() - say in each failure what was being done; @text stays the caller's */
void stand_where(const char *text);
void stand_fail(const char *format, ...) G_GNUC_NORETURN G_GNUC_PRINTF(1, 2);

/** stand_begin() - a fresh copy of the image; not open */
void stand_begin(Stand *stand, const FaultImage *image, const FaultPlace *place, bool without_rings);
/** stand_end() - of a closed image: looks for what was left behind */
void stand_end(Stand *stand);
/** stand_has() - whether the place is there: its engine was built in, and the kernel has it */
bool stand_has(const FaultPlace *place);
/** stand_forget() - what is kept from one to the next */
void stand_forget(void);

/** stand_open() - false with *@error: 0 or -errno */
bool stand_open(Stand *stand, bool writable, int *error);
int stand_close(Stand *stand);
/** stand_create() - make a new image in the place of the old one, which is closed; 0 or -errno */
int stand_create(Stand *stand, const char *preallocation);
/** stand_commit() - the image, which is closed, into its backing file; 0 or -errno */
int stand_commit(Stand *stand);
/** stand_rebase() - the open image onto its backing file by the name @name; NULL: onto none. 0 or -errno */
int stand_rebase(Stand *stand, const char *name);
/** stand_new_content() - what a newly made image reads as; g_free() */
uint8_t *stand_new_content(const Stand *stand);

/** stand_read_all() - g_free() */
uint8_t *stand_read_all(Stand *stand);
/** stand_compare() - what is read is possible, and known from then on */
void stand_compare(Stand *stand);
/** stand_check() - the closed image: no corruption; leaks are counted */
void stand_check(Stand *stand);
/** stand_check_loss() - on a simdisk: no power loss now could leave corruption, or lose what was flushed */
void stand_check_loss(Stand *stand);

/** bitmap_compare() - if "b" can be used it tells of all that differs from what the image began with (bitmap.c)
 * @began: DISK_BYTES; @content: @bytes of it now */
void bitmap_compare(BlockBackend *blk, const uint8_t *began, const uint8_t *content, int64_t bytes);

#endif
