/* SPDX-License-Identifier: MIT */
/*
 * Malformed images: good ones of our own making with bytes patched or cut off. Each must give an error
 * that names what is wrong, read-only and read-write; no way of opening may do harm, with random damage
 * too. The whole program must stay in little memory.
 */

#include <errno.h>
#include <string.h>
#include <sys/resource.h>

#include "block/coroutine/sanitizer.h"
#include "tests/unit/qcow2/stand.h"

/* Byte offsets of header fields */
enum {
    BACKING_OFFSET = 8,
    BACKING_SIZE = 16,
    CLUSTER_BITS = 20,
    SIZE = 24,
    CRYPT = 32,
    L1_SIZE = 36,
    L1_OFFSET = 40,
    RT_OFFSET = 48,
    RT_CLUSTERS = 56,
    NB_SNAPSHOTS = 60,
    SNAPSHOTS_OFFSET = 64,
    INCOMPATIBLE = 72,
    AUTOCLEAR = 88,
    REFCOUNT_ORDER = 96,
    HEADER_LENGTH = 100,
    COMPRESSION = 104,
    EXTENSIONS = 112,
};

/* Where our images of 64 KiB clusters have things */
#define CLUSTER 0x10000
#define REFCOUNT_TABLE 0x10000
#define REFCOUNT_BLOCK 0x20000
#define L1_TABLE 0x30000
#define SNAPSHOT_TABLE 0x40000
#define SNAPSHOT_L1 0x50000

typedef struct Patch {
    int64_t offset;
    unsigned width; /* 0: no more */
    uint64_t value;
} Patch;

/* The images to patch: see make_bases(). */
#define V3 "v3"
#define V2 "v2"
#define SMALL "small"
#define BACKING "backing"
#define SNAPSHOT "snapshot"
#define FULL "full"

static const struct {
    const char *what, *base;
    Patch patches[4];
    int64_t length; /* cut to; 0: whole */
    int code;
    const char *text;
} cases[] = {
    /* truncated */
    { "one byte", V3, { { 0 } }, 1, EINVAL, "*1 bytes are too short for a qcow2 header*" },
    { "cut in the version 2 header", V2, { { 0 } }, 71, EINVAL, "*71 bytes are too short*" },
    { "cut in the version 3 header", V3, { { 0 } }, 103, EINVAL, "*ends after 103 bytes*at least 104*" },
    { "cut after the header", V3, { { 0 } }, 512, EINVAL, "*L1 table of 8 bytes at offset 196608 *past the end*" },
    { "cut in the L1 table", V3, { { 0 } }, L1_TABLE + 4, EINVAL, "*L1 table *past the end of the image file*" },
    { "cut in the snapshot table", SNAPSHOT, { { 0 } }, SNAPSHOT_TABLE + 30, EINVAL,
      "*snapshot 1 of 1: the snapshot table ends inside an entry: 30 bytes remain of 40*" },

    /* version, lengths */
    { "version 0", V3, { { 4, 4, 0 } }, 0, ENOTSUP, "*version 0 is not supported*" },
    { "version 4", V3, { { 4, 4, 4 } }, 0, ENOTSUP, "*version 4 is not supported; versions 2 and 3 are*" },
    { "version of all ones", V3, { { 4, 4, 0xffffffff } }, 0, ENOTSUP, "*version 4294967295 is not supported*" },
    { "not qcow2", V3, { { 0, 4, 0x514649fa } }, 0, EINVAL, "*not in qcow2 format*" },
    { "header_length 0", V3, { { HEADER_LENGTH, 4, 0 } }, 0, EINVAL, "*header_length 0 is too short*" },
    { "header_length 96", V3, { { HEADER_LENGTH, 4, 96 } }, 0, EINVAL, "*header_length 96 is too short*" },
    { "header_length 108", V3, { { HEADER_LENGTH, 4, 108 } }, 0, EINVAL, "*header_length 108 *multiple of 8*" },
    { "header_length past the cluster", V3, { { HEADER_LENGTH, 4, CLUSTER + 8 } }, 0, EINVAL,
      "*header_length 65544 is larger than the header cluster (65536 bytes)*" },
    { "header_length 4 GiB", V3, { { HEADER_LENGTH, 4, 0xfffffff8 } }, 0, EINVAL, "*header_length 4294967288 *" },
    { "header_length past a small cluster", SMALL, { { HEADER_LENGTH, 4, 520 } }, 0, EINVAL,
      "*header_length 520 is larger than the header cluster (512 bytes)*" },

    /* features */
    { "unknown incompatible bit without a name", V3, { { INCOMPATIBLE, 8, 1 << 5 } }, 0, ENOTSUP,
      "*unsupported qcow2 feature(s): bit 5;*" },
    { "unknown incompatible bits, one with a name", V3,
      { { INCOMPATIBLE, 8, UINT64_C(1) << 63 | 1 << 7 }, { EXTENSIONS + 8, 2, 7 }, { EXTENSIONS + 10, 4, 0x776f7700 } },
      0, ENOTSUP, "*unsupported qcow2 feature(s): 'wow' (bit 7), bit 63;*" },
    { "unknown incompatible bit, no feature table", V3, { { INCOMPATIBLE, 8, 1 << 9 }, { EXTENSIONS, 8, 0 } }, 0,
      ENOTSUP, "*unsupported qcow2 feature(s): bit 9;*" },
    { "unknown incompatible bit, damaged feature table", V3,
      { { INCOMPATIBLE, 8, 1 << 9 }, { EXTENSIONS + 4, 4, 0xffffffff } }, 0, ENOTSUP, "*feature(s): bit 9;*" },
    { "unknown incompatible bit and cluster_bits 63", V3, { { INCOMPATIBLE, 8, 1 << 9 }, { CLUSTER_BITS, 4, 63 } }, 0,
      ENOTSUP, "*feature(s): bit 9;*" },
    { "an external data file without a name", V3, { { INCOMPATIBLE, 8, 1 << 2 } }, 0, EINVAL,
      "*'data-file' is required for this image*" },
    { "an external data file named json:", V3,
      { { INCOMPATIBLE, 8, 1 << 2 }, { EXTENSIONS, 8, UINT64_C(0x4441544100000005) },
        { EXTENSIONS + 8, 8, UINT64_C(0x6a736f6e3a000000) } }, 0, EACCES,
      "*data file name 'json:' is not that of a local file*" },
    { "an external data file named by another protocol", V3,
      { { INCOMPATIBLE, 8, 1 << 2 }, { EXTENSIONS, 8, UINT64_C(0x4441544100000005) },
        { EXTENSIONS + 8, 8, UINT64_C(0x6e62643a78000000) } }, 0, EACCES,
      "*data file name 'nbd:x' is not that of a local file*" },
    { "an external data file that is not there", V3,
      { { INCOMPATIBLE, 8, 1 << 2 }, { EXTENSIONS, 8, UINT64_C(0x4441544100000005) },
        { EXTENSIONS + 8, 8, UINT64_C(0x6162636465000000) } }, 0, ENOENT, "*could not open its data file*abcde*" },
    { "extended L2 entries in small clusters", V3, { { INCOMPATIBLE, 8, 1 << 4 }, { CLUSTER_BITS, 4, 13 } }, 0, EINVAL,
      "*cluster_bits 13 is out of range; 14 to 21 are supported with extended L2 entries*" },
    { "extended L2 entries, an L1 table that is too small for them", V3,
      { { INCOMPATIBLE, 8, 1 << 4 }, { SIZE, 8, UINT64_C(512) << 20 } }, 0, EINVAL,
      "*L1 table has 1 entries; a disk of 536870912 bytes needs 2*" },
    { "compression type without its bit", V3, { { COMPRESSION, 1, 1 } }, 0, EINVAL,
      "*compression_type 1 contradicts*bit (clear)*" },
    { "compression bit without a type", V3, { { INCOMPATIBLE, 8, 1 << 3 } }, 0, EINVAL,
      "*compression_type 0 contradicts*bit (set)*" },
    { "compression type 2", V3, { { INCOMPATIBLE, 8, 1 << 3 }, { COMPRESSION, 1, 2 } }, 0, ENOTSUP,
      "*compression_type 2 is unknown*" },
    { "bitmaps bit without extension", V3, { { AUTOCLEAR, 8, 1 } }, 0, EINVAL, "*no bitmaps extension*" },

    /* numbers out of range */
    { "refcount_order 7", V3, { { REFCOUNT_ORDER, 4, 7 } }, 0, EINVAL, "*refcount_order 7 is larger than 6*" },
    { "refcount_order of all ones", V3, { { REFCOUNT_ORDER, 4, 0xffffffff } }, 0, EINVAL, "*refcount_order 4294967295*" },
    { "cluster_bits 0", V3, { { CLUSTER_BITS, 4, 0 } }, 0, EINVAL, "*cluster_bits 0 is out of range; 9 to 21*" },
    { "cluster_bits 8", V3, { { CLUSTER_BITS, 4, 8 } }, 0, EINVAL, "*cluster_bits 8 is out of range*" },
    { "cluster_bits 22", V3, { { CLUSTER_BITS, 4, 22 } }, 0, EINVAL, "*cluster_bits 22 is out of range*" },
    { "cluster_bits 63", V3, { { CLUSTER_BITS, 4, 63 } }, 0, EINVAL, "*cluster_bits 63 is out of range*" },
    { "cluster_bits of all ones", V2, { { CLUSTER_BITS, 4, 0xffffffff } }, 0, EINVAL, "*cluster_bits 4294967295 *" },
    { "AES", V3, { { CRYPT, 4, 1 } }, 0, ENOKEY, "*'encrypt.key-secret' is required*" },
    { "LUKS without its header", V3, { { CRYPT, 4, 2 } }, 0, EINVAL, "*crypt_method 2*" },
    { "unknown encryption", V3, { { CRYPT, 4, 3 } }, 0, EINVAL, "*crypt_method 3 is unknown*" },
    { "size 8 EiB", V3, { { SIZE, 8, UINT64_C(1) << 63 } }, 0, EFBIG, "*9223372036854775808 bytes is larger*" },
    { "size of all ones", V3, { { SIZE, 8, UINT64_MAX } }, 0, EFBIG, "*18446744073709551615 bytes*" },
    { "size no L1 table can hold", V3, { { SIZE, 8, INT64_MAX } }, 0, EFBIG, "*needs *L1 table entries; at most 4194304*" },
    { "size the L1 table is too small for", V3, { { SIZE, 8, UINT64_C(1) << 30 } }, 0, EINVAL,
      "*L1 table has 1 entries; a disk of 1073741824 bytes needs 2*" },

    /* L1 table */
    { "l1_size 0", V3, { { L1_SIZE, 4, 0 } }, 0, EINVAL, "*L1 table has 0 entries*needs 1*" },
    { "l1_size too large", V3, { { L1_SIZE, 4, 4194305 } }, 0, EFBIG, "*4194305 entries; at most 4194304*" },
    { "l1_size of all ones", V3, { { L1_SIZE, 4, 0xffffffff } }, 0, EFBIG, "*4294967295 entries*" },
    { "l1_size past the end", V3, { { L1_SIZE, 4, 4194304 } }, 0, EINVAL, "*L1 table of 33554432 bytes*past the end*" },
    { "L1 table on the header", V3, { { L1_OFFSET, 8, 0 } }, 0, EINVAL, "*L1 table offset 0 is the image header*" },
    { "L1 table not aligned", V3, { { L1_OFFSET, 8, 66048 } }, 0, EINVAL,
      "*L1 table offset 66048 is not a multiple of the cluster size 65536; run 'bdrv-img check'" },
    { "L1 table past the end", V3, { { L1_OFFSET, 8, UINT64_C(1) << 40 } }, 0, EINVAL, "*L1 table *past the end*" },
    { "L1 table at the last cluster there can be", V3, { { L1_OFFSET, 8, UINT64_MAX - CLUSTER + 1 } }, 0, EINVAL,
      "*L1 table *past the end*" },
    { "L1 table on the refcount table", V3, { { L1_OFFSET, 8, REFCOUNT_TABLE } }, 0, EINVAL,
      "*L1 table (8 bytes at offset 65536) overlaps refcount table*" },
    { "L1 table reaching into the refcount table", V3, { { L1_SIZE, 4, 20000 }, { RT_OFFSET, 8, L1_TABLE + CLUSTER } },
      0x80000, EINVAL, "*overlaps*" },

    /* refcount table */
    { "no refcount table", V3, { { RT_CLUSTERS, 4, 0 } }, 0, EINVAL, "*refcount_table_clusters is 0*" },
    { "refcount table too large", V3, { { RT_CLUSTERS, 4, 129 } }, 0, EFBIG, "*129 clusters; at most 128*" },
    { "refcount table of all ones", V3, { { RT_CLUSTERS, 4, 0xffffffff } }, 0, EFBIG, "*4294967295 clusters*" },
    { "refcount table past the end", V3, { { RT_CLUSTERS, 4, 100 } }, 0, EINVAL, "*refcount table of 6553600 bytes*" },
    { "refcount table on the header", V3, { { RT_OFFSET, 8, 0 } }, 0, EINVAL, "*refcount table offset 0 *header*" },
    { "refcount table not aligned", V2, { { RT_OFFSET, 8, 0x10008 } }, 0, EINVAL,
      "*refcount table offset 65544 is not a multiple*" },
    { "refcount table far away", V3, { { RT_OFFSET, 8, UINT64_C(1) << 63 } }, 0, EINVAL, "*refcount table*past the end*" },
    { "refcount table on the L1 table", V3, { { RT_OFFSET, 8, L1_TABLE } }, 0x80000, EINVAL, "*overlaps*" },

    /* extensions */
    { "extension longer than the cluster", V3, { { EXTENSIONS, 8, UINT64_C(0x1234567800010000) } }, 0, EINVAL,
      "*extension 0x12345678 at byte 112 claims 65536 bytes of data; only 65416 remain*" },
    { "extension of 4 GiB", V3, { { EXTENSIONS + 4, 4, 0xffffffff } }, 0, EINVAL, "*claims 4294967295 bytes*" },
    { "end of the extensions longer than the cluster", V3, { { EXTENSIONS, 8, 65536 } }, 0, EINVAL,
      "*extension 0x00000000 at byte 112 claims 65536 bytes of data; only 65416 remain*" },
    { "backing format twice", BACKING, { { EXTENSIONS + 16, 8, UINT64_C(0xe2792aca00000003) } }, 0, EINVAL, "*twice*" },
    { "data file name of 2000 bytes", V3, { { EXTENSIONS, 8, UINT64_C(0x44415441000007d0) } }, 0, EINVAL,
      "*string of 2000 bytes; at most 1023*" },
    { "data file name without its feature bit", V3,
      { { EXTENSIONS, 8, UINT64_C(0x4441544100000004) }, { EXTENSIONS + 8, 4, 0x64617461 } }, 0, EINVAL,
      "*names the data file 'data' but *feature bit is not set*" },
    { "bitmaps extension too short", V3, { { AUTOCLEAR, 8, 1 }, { EXTENSIONS, 8, UINT64_C(0x2385287500000010) } }, 0,
      EINVAL, "*bitmaps extension has 16 bytes; it must have 24*" },
    { "bitmaps extension too long, and out of date", V3, { { EXTENSIONS, 8, UINT64_C(0x2385287500000020) } }, 0,
      EINVAL, "*bitmaps extension has 32 bytes; it must have 24*" },
    { "no bitmaps in the extension", V3,
      { { AUTOCLEAR, 8, 1 }, { EXTENSIONS, 8, UINT64_C(0x2385287500000018) }, { EXTENSIONS + 8, 8, 0 } }, 0, EINVAL,
      "*counts 0 bitmaps*" },
    { "bitmap directory too small", V3,
      { { AUTOCLEAR, 8, 1 }, { EXTENSIONS, 8, UINT64_C(0x2385287500000018) },
        { EXTENSIONS + 8, 8, UINT64_C(0xffff) << 32 }, { EXTENSIONS + 16, 8, 24 } }, 0, EINVAL,
      "*bitmap directory has 24 bytes; 65535 bitmaps need 1572840*" },
    { "bitmap directory past the end", V3,
      { { AUTOCLEAR, 8, 1 }, { EXTENSIONS, 8, UINT64_C(0x2385287500000018) },
        { EXTENSIONS + 8, 8, UINT64_C(1) << 32 }, { EXTENSIONS + 16, 8, 0x100000 } }, 0, EINVAL,
      "*bitmap directory *" },
    { "encryption extension without encryption", V3, { { EXTENSIONS, 8, UINT64_C(0x0537be7700000010) } }, 0, EINVAL,
      "*crypt_method 0 contradicts*" },

    /* backing file name */
    { "backing name in the header", BACKING, { { BACKING_OFFSET, 8, 80 } }, 0, EINVAL,
      "*backing file name (*) is not inside the header cluster*" },
    { "backing name past the header cluster", BACKING, { { BACKING_OFFSET, 8, CLUSTER } }, 0, EINVAL,
      "*is not inside the header cluster*" },
    { "backing name crossing the header cluster", BACKING, { { BACKING_OFFSET, 8, CLUSTER - 4 } }, 0, EINVAL,
      "*is not inside the header cluster*" },
    { "backing name far away", BACKING, { { BACKING_OFFSET, 8, UINT64_MAX } }, 0, EINVAL, "*18446744073709551615*" },
    { "backing name of 1024 bytes", BACKING, { { BACKING_SIZE, 4, 1024 } }, 0, EINVAL,
      "*backing_file_size 1024 is larger than 1023*" },
    { "backing name of all ones", BACKING, { { BACKING_SIZE, 4, 0xffffffff } }, 0, EINVAL, "*backing_file_size *" },

    /* snapshots */
    { "65537 snapshots", V3, { { NB_SNAPSHOTS, 4, 65537 } }, 0, EINVAL, "*65537 snapshots; at most 65536*" },
    { "snapshots of all ones", V3, { { NB_SNAPSHOTS, 4, 0xffffffff } }, 0, EINVAL, "*4294967295 snapshots*" },
    { "snapshot table on the header", V3, { { NB_SNAPSHOTS, 4, 1 } }, 0, EINVAL, "*snapshot table offset 0 is the*" },
    { "snapshot table not aligned", SNAPSHOT, { { SNAPSHOTS_OFFSET, 8, SNAPSHOT_TABLE + 8 } }, 0, EINVAL,
      "*snapshot table offset 262152 is not a multiple*" },
    { "snapshot table past the end", SNAPSHOT, { { SNAPSHOTS_OFFSET, 8, UINT64_C(1) << 50 } }, 0, EINVAL,
      "*snapshot table offset * is past the end*" },
    { "snapshot table at the last cluster there can be", SNAPSHOT, { { SNAPSHOTS_OFFSET, 8, UINT64_MAX - CLUSTER + 1 } },
      0, EINVAL, "*snapshot table offset * is past the end*" },
    { "snapshot table on the L1 table", SNAPSHOT, { { L1_OFFSET, 8, SNAPSHOT_TABLE } }, 0, EINVAL, "*overlaps*" },
    { "more snapshots than the table has", SNAPSHOT, { { NB_SNAPSHOTS, 4, 2 } }, 0, EINVAL,
      "*snapshot 2 of 2: *0 bytes of extra data; version 3 needs at least 16*" },
    { "65536 snapshots in a table of one", SNAPSHOT, { { NB_SNAPSHOTS, 4, 65536 } }, 0, EINVAL, "*snapshot 2 of 65536*" },
    { "snapshot with too much extra data", SNAPSHOT, { { SNAPSHOT_TABLE + 36, 4, 1025 } }, 0, EINVAL,
      "*1025 bytes of extra data; at most 1024*" },
    { "snapshot with 4 GiB of extra data", SNAPSHOT, { { SNAPSHOT_TABLE + 36, 4, 0xffffffff } }, 0, EINVAL,
      "*4294967295 bytes of extra data*" },
    { "snapshot with a long name at the end", SNAPSHOT, { { SNAPSHOT_TABLE + 14, 2, 0xffff } }, SNAPSHOT_TABLE + 1000,
      EINVAL, "*ends inside an entry: 1000 bytes remain of *" },
    { "snapshot L1 table not aligned", SNAPSHOT, { { SNAPSHOT_TABLE, 8, SNAPSHOT_L1 + 512 } }, 0, EINVAL,
      "*snapshot 1: L1 table offset 328192 is not a multiple*" },
    { "snapshot L1 table past the end", SNAPSHOT, { { SNAPSHOT_TABLE, 8, UINT64_C(1) << 60 } }, 0, EINVAL,
      "*snapshot 1: L1 table*past the end*" },
    { "snapshot L1 table too large", SNAPSHOT, { { SNAPSHOT_TABLE + 8, 4, 0xffffffff } }, 0, EFBIG,
      "*snapshot 1: L1 table has 4294967295 entries*" },
    { "snapshot L1 table on the header", SNAPSHOT, { { SNAPSHOT_TABLE, 8, 0 } }, 0, EINVAL,
      "*snapshot 1: L1 table offset 0 is the image header*" },
    { "snapshot L1 table on the refcount table", SNAPSHOT, { { SNAPSHOT_TABLE, 8, REFCOUNT_TABLE } }, 0, EINVAL,
      "*snapshot 1: L1 table *overlaps refcount table*" },
};

static void make_snapshot_image(void)
{
    stand_copy(V3, SNAPSHOT, 0x60000);
    stand_put(SNAPSHOT, NB_SNAPSHOTS, 4, 1);
    stand_put(SNAPSHOT, SNAPSHOTS_OFFSET, 8, SNAPSHOT_TABLE);
    stand_put(SNAPSHOT, SNAPSHOT_TABLE, 8, SNAPSHOT_L1);
    stand_put(SNAPSHOT, SNAPSHOT_TABLE + 8, 4, 1);   /* l1_size */
    stand_put(SNAPSHOT, SNAPSHOT_TABLE + 12, 4, 1 << 16 | 1); /* lengths of id and name */
    stand_put(SNAPSHOT, SNAPSHOT_TABLE + 36, 4, 16); /* extra data */
    stand_put(SNAPSHOT, SNAPSHOT_TABLE + 48, 8, 10 << 20);
    stand_put(SNAPSHOT, SNAPSHOT_TABLE + 56, 2, 0x3161);
    /* Refcounts of table and L1 */
    stand_put(SNAPSHOT, 0x20000 + 8, 4, 0x00010001);
}

static void make_bases(void)
{
    stand_create(V3, "size=10M");
    stand_create(V2, "size=10M,compat=0.10");
    stand_create(SMALL, "size=1M,cluster_size=512");
    stand_create(FULL, "size=1M,cluster_size=4k,preallocation=metadata");
    stand_create(BACKING, "size=10M,backing_file=simdisk:v3,backing_fmt=qcow2");
    make_snapshot_image();
}

static void apply(const char *name, const Patch *patches)
{
    for (unsigned i = 0; i < 4 && patches[i].width; i++) {
        stand_put(name, patches[i].offset, patches[i].width, patches[i].value);
    }
}

/* Whatever the tables say: data or an error. */
static void use(BlockBackend *blk)
{
    g_autofree uint8_t *buf = g_malloc0(200 << 10);
    int64_t length = blk_length(blk);
    for (unsigned i = 0; i < 6 && length > (200 << 10); i++) {
        int64_t offset = (int64_t)((uint64_t)(uint32_t)g_test_rand_int() * 7919 % (uint64_t)(length - (200 << 10)));
        offset = i < 3 ? offset % (2 << 20) : offset;
        blk_pread(blk, offset, g_test_rand_int_range(1, 200 << 10), buf, 0);
        blk_pwrite(blk, offset, g_test_rand_int_range(1, 100 << 10), buf, 0);
        if (g_test_rand_bit()) {
            blk_pwrite_zeroes(blk, offset, 100 << 10, BDRV_REQ_MAY_UNMAP);
        } else {
            blk_pdiscard(blk, offset, 100 << 10);
        }
    }
    blk_flush(blk);
}

static void open_and_check(const char *name, BdrvOpenFlags flags)
{
    g_autoptr(GError) error = NULL;
    BlockBackend *blk = stand_open(name, NULL, flags | BDRV_O_NO_BACKING, &error);
    g_assert_true((blk == NULL) == (error != NULL));
    if (blk && (flags & BDRV_O_CHECK)) {
        BdrvCheckResult result = { 0 };
        blk_check(blk, &result, BDRV_FIX_NONE, &error);
    }
    if (blk && !(flags & BDRV_O_CHECK)) {
        use(blk);
    }
    if (blk) {
        blk_close(blk, NULL);
    }
}

static void test_bases_open(void)
{
    static const char *const bases[] = { V3, V2, SMALL, BACKING, SNAPSHOT };
    for (unsigned i = 0; i < G_N_ELEMENTS(bases); i++) {
        BdrvCheckResult result = { 0 };
        GError *error = NULL;
        BlockBackend *blk = stand_must_open(bases[i], NULL, BDRV_O_CHECK | BDRV_O_NO_BACKING);
        g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, &error));
        g_assert_no_error(error);
        g_assert_cmpint(result.corruptions, ==, 0);
        g_assert_cmpint(result.leaks, ==, 0);
        stand_close(blk);
    }
}

static void test_refused(void)
{
    static const BdrvOpenFlags modes[] = { 0, BDRV_O_RDWR };
    unsigned failed = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        for (unsigned m = 0; m < G_N_ELEMENTS(modes); m++) {
            g_autoptr(GError) error = NULL;
            stand_copy(cases[i].base, "patched", cases[i].length ? cases[i].length : -1);
            apply("patched", cases[i].patches);
            BlockBackend *blk = stand_open("patched", NULL, modes[m], &error);
            if (blk) {
                g_test_message("%s: opened", cases[i].what);
                blk_close(blk, NULL);
                failed++;
                continue;
            }
            g_test_message("%s: %s", cases[i].what, error->message);
            failed += cases[i].text && !stand_matches(cases[i].text, error->message);
            failed += bdrv_error_code(error) != cases[i].code;
            stand_forget("patched");
        }
    }
    g_assert_cmpuint(failed, ==, 0);
}

static void test_other_ways(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        stand_copy(cases[i].base, "patched", cases[i].length ? cases[i].length : -1);
        apply("patched", cases[i].patches);
        open_and_check("patched", BDRV_O_NO_IO);
        open_and_check("patched", BDRV_O_CHECK);
        stand_forget("patched");
    }
}

/* Numbers that are likely to get past one check and fall into the next. */
static uint64_t random_value(void)
{
    static const uint64_t nice[] = { 0, 1, 2, 7, 8, 9, 16, 21, 0x10000, 0x20000, 0x30000, 0x40000, 0x50000, 0xffff,
                                     0xffffffff, UINT64_C(1) << 56, UINT64_C(1) << 62, UINT64_C(1) << 63, UINT64_MAX };
    uint64_t value = nice[(unsigned)g_test_rand_int_range(0, G_N_ELEMENTS(nice))];
    switch (g_test_rand_int_range(0, 4)) {
    case 0:
        return value + (uint64_t)g_test_rand_int_range(-9, 9);
    case 1:
        return (uint64_t)(uint32_t)g_test_rand_int() << g_test_rand_int_range(0, 40);
    default:
        return value;
    }
}

static void test_random_damage(void)
{
    static const char *const bases[] = { V3, V2, SMALL, BACKING, SNAPSHOT, FULL };
    static const BdrvOpenFlags modes[] = { 0, BDRV_O_RDWR, BDRV_O_NO_IO, BDRV_O_CHECK, BDRV_O_CHECK | BDRV_O_RDWR };
    for (unsigned round = 0; round < 600; round++) {
        const char *base = bases[(unsigned)g_test_rand_int_range(0, G_N_ELEMENTS(bases))];
        int64_t length = stand_length(base);
        stand_copy(base, "damaged", g_test_rand_int_range(0, 4) ? -1 : g_test_rand_int_range(0, (int32_t)length));
        length = stand_length("damaged");
        for (int n = g_test_rand_int_range(1, 5); n > 0 && length > 200; n--) {
            static const unsigned widths[] = { 1, 2, 4, 8 };
            unsigned width = widths[(unsigned)g_test_rand_int_range(0, 4)];
            int64_t area = g_test_rand_int_range(0, 3) ? 160 : length - 8;
            int64_t at = g_test_rand_int_range(4, (int32_t)MIN(area, length - 8));
            if (g_test_rand_bit() && g_str_equal(base, FULL)) { /* refcounts, L1, L2 */
                at = 4096 * g_test_rand_int_range(1, 5) + 8 * g_test_rand_int_range(0, 40);
            } else if (g_test_rand_bit() && length > 0x40000) { /* tables */
                at = (g_test_rand_int_range(1, (int32_t)(length >> 16))) * 0x10000 + 4 * g_test_rand_int_range(0, 16);
            }
            if (at + 8 <= length) {
                stand_put("damaged", at, width, random_value());
            }
        }
        open_and_check("damaged", modes[(unsigned)g_test_rand_int_range(0, G_N_ELEMENTS(modes))]);
        stand_forget("damaged");
    }
}

/* Neither a block nor an empty entry: the allocator must not look for one for ever. */
static void test_reserved_refcount_entry(void)
{
    uint8_t buf[512] = { 1 };
    stand_copy(V3, "damaged", -1);
    stand_put("damaged", REFCOUNT_TABLE, 8, 7);
    BlockBackend *blk = stand_must_open("damaged", NULL, BDRV_O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, 0, sizeof(buf), buf, 0), ==, -EIO);
    blk_close(blk, NULL);
    g_assert_cmphex(stand_get("damaged", INCOMPATIBLE, 8), ==, 2); /* marked corrupt */
    stand_forget("damaged");
}

/* Guest data in the first cluster, then the image is damaged and something is written where there was nothing. */
static int write_to_damaged(int64_t offset, unsigned width, uint64_t value)
{
    stand_create("damaged", "size=1M");
    uint8_t buf[CLUSTER], wanted[CLUSTER];
    memset(wanted, 0xda, CLUSTER);
    BlockBackend *blk = stand_must_open("damaged", NULL, BDRV_O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, 0, CLUSTER, wanted, 0), ==, 0);
    stand_close(blk);

    stand_put("damaged", offset, width, value);
    blk = stand_must_open("damaged", NULL, BDRV_O_RDWR);
    memset(buf, 0x0e, CLUSTER);
    int ret = blk_pwrite(blk, 2 * CLUSTER, CLUSTER, buf, 0);
    ret = ret < 0 ? ret : blk_flush(blk);
    g_assert_cmpint(blk_pread(blk, 0, CLUSTER, buf, 0), ==, 0);
    if (ret < 0) {
        g_autofree char *text = blk_explain(blk);
        g_assert_true(stand_matches("*marked corrupt*metadata lies at or behind host offset 0x*no refcount*", text));
        g_assert_cmpmem(buf, CLUSTER, wanted, CLUSTER);
        g_assert_cmphex(stand_get("damaged", INCOMPATIBLE, 8), ==, 2); /* marked corrupt */
    }
    blk_close(blk, NULL);
    stand_forget("damaged");
    return ret;
}

static void test_lost_refcount_block(void)
{
    g_assert_cmpint(write_to_damaged(REFCOUNT_TABLE, 8, 0), ==, -EIO);
}

static void test_uncounted_metadata(void)
{
    g_assert_cmpint(write_to_damaged(REFCOUNT_BLOCK, 8, 0), ==, -EIO); /* header, refcount table and block, L1 table */
    g_assert_cmpint(write_to_damaged(REFCOUNT_ORDER, 4, 0), ==, -EIO); /* counts of 16 bits are read as some of 1 bit */
}

/* Nobody looks for the owners of a cluster that has no count: but a build that checks invariants goes on, too. */
static void test_uncounted_data(void)
{
    g_assert_cmpint(write_to_damaged(REFCOUNT_BLOCK + 5 * 2, 2, 0), ==, 0);
}

static void test_memory(void)
{
#if defined(CO_ASAN) || defined(CO_TSAN)
    g_test_skip("sanitisers need memory of their own");
#else
    struct rusage usage;
    g_assert_cmpint(getrusage(RUSAGE_SELF, &usage), ==, 0);
    g_test_message("%ld KiB", usage.ru_maxrss);
    g_assert_cmpint(usage.ru_maxrss, <, 64 << 10);
#endif
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    make_bases();
    g_test_add_func("/qcow2/malformed/the images to be damaged are good", test_bases_open);
    g_test_add_func("/qcow2/malformed/each is refused by field and value", test_refused);
    g_test_add_func("/qcow2/malformed/opening for information or check does no harm", test_other_ways);
    g_test_add_func("/qcow2/malformed/random damage does no harm", test_random_damage);
    g_test_add_func("/qcow2/malformed/a refcount table entry of reserved bits stops writing",
                    test_reserved_refcount_entry);
    g_test_add_func("/qcow2/malformed/a lost refcount block stops writing", test_lost_refcount_block);
    g_test_add_func("/qcow2/malformed/metadata without refcounts stops writing", test_uncounted_metadata);
    g_test_add_func("/qcow2/malformed/data without a refcount is an image like others", test_uncounted_data);
    g_test_add_func("/qcow2/malformed/all of it stays below 64 MiB", test_memory);
    return g_test_run();
}
