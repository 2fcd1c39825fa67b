/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TOOLS_DRIVER_TEST_KIT_H
#define BDRV_TOOLS_DRIVER_TEST_KIT_H

/*
 * What the tests of bdrv-driver-test share. Each runs in a process of its own, in a deterministic run whose
 * seed is the test's, on an image in memory (<bdrv/simdisk.h>). It returns if all is well, and ends by
 * kit_fail() or kit_skip().
 */

#include <bdrv/bdrv.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* What the command line says. */
typedef struct Kit {
    char *driver;
    char **modules;
    char *create;   /* options of creation; NULL: none */
    char *open;     /* options of each opening; NULL: none */
    uint8_t *image; /* bytes of the image that each test begins with; NULL: the driver makes one */
    gsize image_bytes;
    int64_t size; /* of the disk that is made */
    uint64_t seed;
    unsigned rounds;  /* of random operations in a test */
    unsigned stride;  /* one in so many calls is failed */
    unsigned cuts;    /* how many power losses are looked at */
    unsigned timeout; /* seconds for a test */
    bool crash_safe;
} Kit;

/* A test. */
typedef struct KitTest {
    const char *name; /* GROUP/NAME */
    const char *what; /* what is right */
    void (*run)(const Kit *kit);
    bool real_threads; /* not in a deterministic run */
} KitTest;
extern const KitTest table_tests[], conformance_tests[], limits_tests[], concurrency_tests[], faults_tests[],
    hostile_tests[], reopen_tests[], crash_tests[]; /* each ended by a NULL name */

/** kit_note() - what is about to be done; the last ones are shown if the test fails */
void kit_note(const char *format, ...) G_GNUC_PRINTF(1, 2);
/** kit_fail() - end the test: what was expected, and what came */
G_NORETURN void kit_fail(const char *format, ...) G_GNUC_PRINTF(1, 2);
/** kit_skip() - end the test: the driver does not offer what it is about */
G_NORETURN void kit_skip(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* ---- an image, and what it has to read as ---- */

#define KIT_RDWR (BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP)

typedef struct KitDisk {
    const Kit *kit;
    BdrvGraph *graph;
    BdrvSimDisk *sim;  /* the file */
    char *name;        /* of it: "simdisk:NAME" */
    const char *above; /* options of a blkdebug above the driver; NULL: there is none */
    BlockBackend *blk; /* NULL: closed */
    BdrvOpenFlags flags;
    uint8_t *model; /* what the disk reads as, kit_length() bytes */
    int64_t length;
    GRand *rand;
    unsigned number; /* of writes: each has a pattern of its own */
} KitDisk;

/** kit_disk_make() - an image, not opened; NULL with @errp set if its creation fails */
KitDisk *kit_disk_make(const Kit *kit, GError **errp);
/** kit_disk_new() - an image, opened for writing; it reads as zeroes, or as the model says that was read of
 * --image */
KitDisk *kit_disk_new(const Kit *kit);
/** kit_disk_free() - close it; nothing of it may be left open */
void kit_disk_free(KitDisk *disk);
/** kit_disk_on() - another file with the model of @like, not opened; takes @sim and @name */
KitDisk *kit_disk_on(const KitDisk *like, BdrvSimDisk *sim, char *name);
/** kit_sim_name() - a name that no disk has; caller frees */
char *kit_sim_name(void);
/** kit_options() - how to open the driver over the file */
BdrvOptions *kit_options(const KitDisk *disk);
bool kit_try_open(KitDisk *disk, BdrvOpenFlags flags, GError **errp);
void kit_open(KitDisk *disk, BdrvOpenFlags flags);
bool kit_try_close(KitDisk *disk, GError **errp);
void kit_close(KitDisk *disk);
void kit_again(KitDisk *disk); /* close and open */

/** kit_draw() - a number of 0 .. @limit - 1; kit_range(): a range of the disk, of many shapes, maybe at its
 * end */
int64_t kit_draw(KitDisk *disk, int64_t limit);
void kit_range(KitDisk *disk, int64_t *offset, int64_t *bytes);
/** kit_fill() - the pattern of the next write; no byte of it is zero */
void kit_fill(KitDisk *disk, uint8_t *buf, int64_t bytes);

/* Operations that must succeed; the model follows. */
void kit_write(KitDisk *disk, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
void kit_zero(KitDisk *disk, int64_t offset, int64_t bytes, BdrvRequestFlags flags);
void kit_discard(KitDisk *disk, int64_t offset, int64_t bytes);
void kit_flush(KitDisk *disk);
bool kit_resize(KitDisk *disk, int64_t length); /* false: the driver does not resize */
void kit_random(KitDisk *disk, unsigned rounds);
/** kit_expect() - that the range reads as the model; kit_expect_all(): that all does, and the length is right
 */
void kit_expect(KitDisk *disk, int64_t offset, int64_t bytes);
void kit_expect_all(KitDisk *disk);
/** kit_compare() - fail for the first byte that is not as expected */
void kit_compare(int64_t offset, const uint8_t *found, const uint8_t *expected, int64_t bytes);
/** kit_expect_sound() - that a check finds no corruption, and no leaks unless @leaks; nothing if there is no
 * check */
void kit_expect_sound(KitDisk *disk, bool leaks);
uint8_t *kit_read_all(KitDisk *disk);

#endif
