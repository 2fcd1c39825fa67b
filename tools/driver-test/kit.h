/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TOOLS_DRIVER_TEST_KIT_H
#define BDRV_TOOLS_DRIVER_TEST_KIT_H

/*
 * What the tests of bdrv-driver-test share. Each runs in a process of its own, in a deterministic run whose
 * seed is the test's, on files in memory (<bdrv/simdisk.h>) below the children of the driver. It returns if
 * all is well, and ends by kit_fail() or kit_skip().
 */

#include <bdrv/bdrv.h>
#include <bdrv/driver.h>
#include <bdrv/simdisk.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KIT_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define KIT_SANITIZED 1
#endif
#endif
#ifndef KIT_SANITIZED
#define KIT_SANITIZED 0
#endif

#define KIT_MOST_CHILDREN 8

/* What the command line says. */
typedef struct Kit {
    char *driver;
    /* Children of the driver that the kit puts a file below; the first one has the image. None of a protocol.
     */
    BdrvChildSpec children[KIT_MOST_CHILDREN];
    unsigned n_children;
    char *filename; /* of a protocol's image */
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

/** kit_find_children() - set kit->children; @names: of those that the driver could do without. Exits if it
 * has none such
 */
void kit_find_children(Kit *kit, char **names);

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
/** kit_hangs() - end the test: this has no end; tells what the coroutines wait for */
G_NORETURN void kit_hangs(const char *format, ...) G_GNUC_PRINTF(1, 2);
/** kit_skip() - end the test: the driver does not offer what it is about */
G_NORETURN void kit_skip(const char *format, ...) G_GNUC_PRINTF(1, 2);

/** kit_need_file() - skip the test if the driver has no file below it: a protocol */
void kit_need_file(const Kit *kit);
/** kit_need_crash_safety() - skip it if nobody claims that the driver is crash safe, or it has no file */
void kit_need_crash_safety(const Kit *kit);

/** kit_watch() - tell what this thread does if the test crashes, or is not at an end after @timeout seconds
 */
void kit_watch(unsigned timeout);
void kit_watch_end(void);
void kit_show_coroutines(void);

/** kit_power_losses_among_many() - the test crash/among-many */
void kit_power_losses_among_many(const Kit *kit);

/* ---- an image, and what it has to read as ---- */

#define KIT_RDWR (BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP)

/* What a child of the driver is: a disk in memory. */
typedef struct KitFile {
    BdrvSimDisk *sim;
    char *filename; /* "simdisk:NAME" */
} KitFile;

typedef struct KitDisk {
    const Kit *kit;
    BdrvGraph *graph;
    KitFile files[KIT_MOST_CHILDREN];             /* of kit->children */
    const char *filenames[KIT_MOST_CHILDREN + 1]; /* theirs: all that an image may name */
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
/** kit_is_filter() - the image is what is in the driver's file */
bool kit_is_filter(const Kit *kit);
/** kit_first_model() - of a new image that was opened: zeroes, or what it reads as if nothing else is
 * promised */
void kit_first_model(KitDisk *disk);
/** kit_disk_blank() - files with nothing in them; kit_disk_like(): and the model of @like */
KitDisk *kit_disk_blank(const Kit *kit);
KitDisk *kit_disk_like(const KitDisk *like);
/** kit_create() - make an image in the files of @disk */
bool kit_create(KitDisk *disk, GError **errp);
/** kit_need_creation() - skip the test if images are not made over files; fail it if none can be */
void kit_need_creation(const Kit *kit);
/** kit_disk_free() - close it; nothing of it may be left open */
void kit_disk_free(KitDisk *disk);
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
/** kit_differ() - the first place from @at on at which they differ, @bytes if there is none */
int64_t kit_differ(const uint8_t *found, const uint8_t *expected, int64_t at, int64_t bytes);
/** kit_compare() - fail for the first byte that is not as expected */
void kit_compare(int64_t offset, const uint8_t *found, const uint8_t *expected, int64_t bytes);
/** kit_expect_sound() - that a check finds no corruption, and no leaks unless @leaks; nothing if there is no
 * check */
void kit_expect_sound(KitDisk *disk, bool leaks);
uint8_t *kit_read_all(KitDisk *disk);

/* ---- its files ---- */

/** kit_backing_byte() - what the backing file has at a place; it ends at kit_backing_bytes() */
uint8_t kit_backing_byte(int64_t at);
int64_t kit_backing_bytes(const Kit *kit);
/** kit_calls() - how many calls of these kinds the files have seen */
uint64_t kit_calls(const KitDisk *disk, unsigned kinds);
/** kit_fail_none() - no call fails any more, nor is there too little space */
void kit_fail_none(KitDisk *disk);
/** kit_set_hook() - call @hook after each call on a file; NULL: none */
void kit_set_hook(KitDisk *disk, BdrvSimHook *hook, void *opaque);

/* What all files have in them at a moment. */
typedef struct KitSaved {
    BdrvSimSaved *files[KIT_MOST_CHILDREN];
} KitSaved;
KitSaved *kit_save(const KitDisk *disk);
void kit_restore(KitDisk *disk, const KitSaved *saved);
void kit_saved_free(KitSaved *saved);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(KitSaved, kit_saved_free)

/* A loss of power: of all files at once. */
typedef struct KitCut {
    BdrvSimCut *files[KIT_MOST_CHILDREN];
} KitCut;
/* What becomes of what was not flushed. */
typedef enum KitFate { KIT_LOST, KIT_KEPT, KIT_MIXED /* by the seed; maybe torn */ } KitFate;
KitCut *kit_cut(const KitDisk *disk);
void kit_cut_free(KitCut *cut);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(KitCut, kit_cut_free)
/** kit_disk_after() - what the power loss leaves, with the model of @like; not opened */
KitDisk *kit_disk_after(const KitDisk *like, const KitCut *cut, KitFate fate, uint64_t seed);

#endif
