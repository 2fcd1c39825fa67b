/* SPDX-License-Identifier: MIT */
/* Opening: what is taken from an image, what is refused for writing, what writing changes in the header. */

#include "config.h"

#include <errno.h>
#include <string.h>
#include <zlib.h>
#ifdef CONFIG_LIBZSTD
#include <zstd.h>
#endif

#include "tests/unit/qcow2/stand.h"

enum {
    BACKING_OFFSET = 8,
    CRYPT = 32,
    NB_SNAPSHOTS = 60,
    SNAPSHOTS_OFFSET = 64,
    INCOMPATIBLE = 72,
    COMPATIBLE = 80,
    AUTOCLEAR = 88,
    HEADER_LENGTH = 100,
    EXTENSIONS = 112,
};

#define DIRTY 1
#define CORRUPT 2

static char *info_json(const char *name, BdrvOpenFlags flags)
{
    BlockBackend *blk = stand_must_open(name, NULL, flags);
    g_autoptr(BdrvOptions) info = blk_get_specific_info(blk);
    stand_close(blk);
    return bdrv_options_to_json(info, false);
}

static void test_versions(void)
{
    static const struct {
        const char *options;
        const char *info;
    } cases[] = {
        { "size=10M,compat=0.10", "{\"type\": \"qcow2\", \"data\": {\"compat\": \"0.10\", "
                                  "\"compression-type\": \"zlib\", \"refcount-bits\": 16}}" },
        { "size=10M,refcount_bits=1", "{\"type\": \"qcow2\", \"data\": {\"compat\": \"1.1\", "
                                      "\"compression-type\": \"zlib\", \"lazy-refcounts\": false, "
                                      "\"refcount-bits\": 1, \"corrupt\": false, \"extended-l2\": false}}" },
#ifdef CONFIG_LIBZSTD
        { "size=10M,compression_type=zstd",
          "{\"type\": \"qcow2\", \"data\": {\"compat\": \"1.1\", \"compression-type\": \"zstd\", "
          "\"lazy-refcounts\": false, "
          "\"refcount-bits\": 16, \"corrupt\": false, \"extended-l2\": false}}" },
#endif
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        stand_create("o", cases[i].options);
        g_autofree char *json = info_json("o", 0);
        g_assert_cmpstr(json, ==, cases[i].info);
        BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_RDWR);
        BdrvInfo info;
        g_assert_cmpint(blk_length(blk), ==, 10 << 20);
        g_assert_cmpint(blk_get_info(blk, &info), ==, 0);
        g_assert_cmpint(info.cluster_size, ==, 65536);
        g_assert_cmpint(info.vm_state_offset, ==, 512 << 20);
        g_assert_false(info.is_dirty || info.is_corrupt);
        stand_close(blk);
        stand_forget("o");
    }
}

static void expect_refused(const char *name, const char *options, BdrvOpenFlags flags, int code,
                           const char *text)
{
    g_autoptr(GError) error = NULL;
    BlockBackend *blk = stand_open(name, options, flags, &error);
    g_assert_null(blk);
    g_assert_error(error, BDRV_ERROR, code);
    g_assert_true(stand_matches(text, error->message));
}

static void test_dirty(void)
{
    stand_create("o", "size=10M");
    stand_put("o", INCOMPATIBLE, 8, DIRTY);
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    uint8_t buf[512];
    BdrvInfo info;
    g_assert_cmpint(blk_get_info(blk, &info), ==, 0);
    g_assert_true(info.is_dirty);
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    stand_close(blk);
    g_assert_cmphex(stand_get("o", INCOMPATIBLE, 8), ==, DIRTY);
    blk = stand_must_open("o", NULL, BDRV_O_RDWR);
    g_assert_cmpint(blk_get_info(blk, &info), ==, 0);
    g_assert_false(info.is_dirty);
    stand_close(blk);
    g_assert_cmphex(stand_get("o", INCOMPATIBLE, 8), ==, 0);
    stand_forget("o");
}

static void test_corrupt(void)
{
    stand_create("o", "size=10M");
    stand_put("o", INCOMPATIBLE, 8, CORRUPT);
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    BdrvInfo info;
    g_assert_cmpint(blk_get_info(blk, &info), ==, 0);
    g_assert_true(info.is_corrupt);
    stand_close(blk);
    expect_refused("o", NULL, BDRV_O_RDWR, EACCES, "*marked corrupt *");
    g_autofree char *json = info_json("o", BDRV_O_NO_IO);
    g_assert_nonnull(strstr(json, "\"corrupt\": true"));
    stand_forget("o");
}

static void test_lazy_refcounts(void)
{
    stand_create("o", "size=10M");
    stand_put("o", COMPATIBLE, 8, 1 | 1 << 20); /* an unknown compatible bit as well */
    stand_close(stand_must_open("o", NULL, BDRV_O_RDWR));
    g_assert_cmphex(stand_get("o", COMPATIBLE, 8), ==, 1 | 1 << 20);
    g_assert_cmphex(stand_get("o", INCOMPATIBLE, 8), ==, 0);
    g_autofree char *json = info_json("o", 0);
    g_assert_nonnull(strstr(json, "\"lazy-refcounts\": true"));
    stand_forget("o");
}

static void test_autoclear(void)
{
    stand_create("o", "size=10M");
    stand_put("o", AUTOCLEAR, 8, UINT64_C(1) << 40);
    stand_close(stand_must_open("o", NULL, 0));
    g_assert_cmphex(stand_get("o", AUTOCLEAR, 8), ==, UINT64_C(1) << 40);
    stand_close(stand_must_open("o", NULL, BDRV_O_RDWR));
    g_assert_cmphex(stand_get("o", AUTOCLEAR, 8), ==, 0);
    stand_forget("o");
}

/* A header longer than ours: its fields stay when the header is rewritten. */
static void test_unknown_header(void)
{
    stand_create("o", "size=10M");
    stand_put("o", HEADER_LENGTH, 4, 128);
    stand_put("o", 105, 1, 0x5a);
    stand_put("o", 112, 8, UINT64_C(0x1122334455667788));
    stand_put("o", 120, 8, UINT64_C(0x99aabbccddeeff00));
    stand_put("o", 128, 8, UINT64_C(0x1234567800000003)); /* an unknown extension */
    stand_put("o", 136, 8, UINT64_C(0x6162630000000000));
    stand_put("o", 144, 8, 0);
    stand_put("o", AUTOCLEAR, 8, 2);
    stand_close(stand_must_open("o", NULL, BDRV_O_RDWR));
    g_assert_cmphex(stand_get("o", AUTOCLEAR, 8), ==, 0);
    g_assert_cmphex(stand_get("o", 105, 1), ==, 0x5a);
    g_assert_cmphex(stand_get("o", 112, 8), ==, UINT64_C(0x1122334455667788));
    g_assert_cmphex(stand_get("o", 120, 8), ==, UINT64_C(0x99aabbccddeeff00));
    g_assert_cmphex(stand_get("o", 136, 8), ==, UINT64_C(0x6162630000000000));
    stand_forget("o");
}

static void test_backing_name(void)
{
    stand_create("base", "size=10M");
    stand_create("o", "size=10M,backing_file=simdisk:base,backing_fmt=qcow2");
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    BdrvLayer layer;
    g_assert_true(blk_layer(blk, 0, &layer));
    g_assert_cmpstr(layer.backing_filename, ==, "simdisk:base");
    g_assert_cmpstr(layer.backing_format, ==, "qcow2");
    stand_close(blk);
    stand_forget("o");
    stand_forget("base");
}

/* Two bitmaps' worth of extension in place of the feature table, directory in a cluster of its own. */
static void make_bitmap_image(const char *name)
{
    const int64_t directory = 0x40000;
    stand_create("plain", "size=10M");
    stand_copy("plain", name, 0x60000);
    stand_put(name, AUTOCLEAR, 8, 1);
    stand_put(name, EXTENSIONS, 8, UINT64_C(0x2385287500000018));
    stand_put(name, EXTENSIONS + 8, 8, UINT64_C(2) << 32);
    stand_put(name, EXTENSIONS + 16, 8, 64);
    stand_put(name, EXTENSIONS + 24, 8, (uint64_t)directory);
    stand_put(name, EXTENSIONS + 32, 8, 0);
    for (int64_t n = 0; n < 2; n++) {
        stand_put(name, directory + 32 * n, 8, 0x50000);
        stand_put(name, directory + 32 * n + 8, 4, 1);
        stand_put(name, directory + 32 * n + 12, 4, n ? 3 : 0);            /* flags */
        stand_put(name, directory + 32 * n + 16, 4, UINT64_C(0x01100002)); /* type 1, 64 KiB, name of 2 */
        stand_put(name, directory + 32 * n + 24, 2, (uint64_t)(0x6230 + n));
    }
    stand_forget("plain");
}

static void test_bitmaps(void)
{
    make_bitmap_image("o");
    g_autofree char *json = info_json("o", 0);
    g_assert_nonnull(
        strstr(json, "\"bitmaps\": [{\"flags\": [], \"name\": \"b0\", \"granularity\": 65536}, "
                     "{\"flags\": [\"in-use\", \"auto\"], \"name\": \"b1\", \"granularity\": 65536}]"));
    stand_close(stand_must_open("o", NULL, BDRV_O_RDWR));
    /* Without its bit the extension vouches for nothing and does not stand in the way. */
    stand_put("o", AUTOCLEAR, 8, 0);
    stand_close(stand_must_open("o", NULL, BDRV_O_RDWR));
    stand_forget("o");
}

static void test_information_only(void)
{
    static const struct {
        const char *what;
        int64_t offset;
        unsigned width;
        uint64_t value;
        const char *text; /* in the information */
        const char *refusal;
    } cases[] = {
        { "AES", CRYPT, 4, 1, "\"encrypt\": {\"format\": \"aes\"}", "*'encrypt.key-secret' is required*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        stand_create("o", "size=10M");
        stand_put("o", cases[i].offset, cases[i].width, cases[i].value);
        g_autofree char *json = info_json("o", BDRV_O_NO_IO);
        g_test_message("%s", json);
        g_assert_nonnull(strstr(json, cases[i].text));
        expect_refused("o", NULL, 0, ENOKEY, cases[i].refusal);
        BlockBackend *blk = stand_must_open("o", NULL, BDRV_O_NO_IO);
        uint8_t buf[512];
        g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), <, 0);
        stand_close(blk);
        stand_forget("o");
    }
}

static void test_options(void)
{
    static const struct {
        const char *options;
        int code; /* 0: opens */
        const char *text;
    } cases[] = {
        { "l2-cache-size=64k", 0, NULL },
        { "l2-cache-size=0,refcount-cache-size=0", 0, NULL },
        { "cache-size=1M", 0, NULL },
        { "cache-size=0", 0, NULL },
        { "cache-size=1M,l2-cache-size=1M", 0, NULL },
        { "cache-size=1M,refcount-cache-size=512k", 0, NULL },
        { "cache-clean-interval=0", 0, NULL },
        { "cache-clean-interval=4294967295", 0, NULL },
        { "cache-clean-interval=4294967296", EINVAL, "*cache-clean-interval 4294967296 is too big*" },
        { "cache-clean-interval=-1", EINVAL, "*cache-clean-interval -1 is too big*" },
        { "refcount-cache-size=7E", EINVAL, "*refcount cache is too big*" },
        { "cache-size=7E", EINVAL, "*refcount cache is too big*" },
        { "l2-cache-size=-1", EINVAL, "*l2-cache-size*" },
        { "l2-cache-size=8E,refcount-cache-size=7E", EINVAL, "*" },
        { "l2-cache-size=7E,refcount-cache-size=64k", 0, NULL },
        { "l2-cache-entry-size=512", 0, NULL },
        { "l2-cache-entry-size=64k", 0, NULL },
        { "lazy-refcounts=off,overlap-check=cached", 0, NULL },
        { "l2-cache-entry-size=128k", EINVAL,
          "*l2-cache-entry-size 131072 *power of two from 512 to the cluster size 65536*" },
        { "l2-cache-entry-size=256", EINVAL, "*l2-cache-entry-size 256 *" },
        { "l2-cache-entry-size=3k", EINVAL, "*l2-cache-entry-size 3072 *" },
        { "cache-size=1M,l2-cache-size=2M", EINVAL,
          "*l2-cache-size 2097152 is larger than cache-size 1048576*" },
        { "cache-size=1M,refcount-cache-size=2M", EINVAL, "*refcount-cache-size 2097152 is larger*" },
        { "cache-size=1M,l2-cache-size=64k,refcount-cache-size=64k", EINVAL,
          "*may not be set at the same time*" },
        { "lazy-refcounts=on", 0, NULL },
        { "overlap-check=all", 0, NULL },
        { "overlap-check=none,overlap-check.template=none", 0, NULL },
        { "overlap-check=constant,overlap-check.active-l2=on,overlap-check.main-header=off", 0, NULL },
        { "overlap-check=none,overlap-check.template=all", EINVAL,
          "*Conflicting values*'overlap-check' ('none') and 'overlap-check.template' ('all')*" },
        { "overlap-check=some", EINVAL, "*overlap-check*none, constant, cached, all*'some'*" },
        { "overlap-check.template=some", EINVAL, "*overlap-check.template*none, constant, cached, all*'some'*" },
        { "overlap-check.inactive-l2=maybe", EINVAL, "*overlap-check.inactive-l2*" },
        { "overlap-check.some=on", EINVAL, "*overlap-check.some*" },
        { "unheard-of=1", EINVAL, "*unheard-of*" },
    };
    stand_create("o", "size=10M");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].options);
        if (cases[i].code) {
            g_autoptr(GError) error = NULL;
            BlockBackend *blk = stand_open("o", cases[i].options, BDRV_O_RDWR, &error);
            g_assert_null(blk);
            g_assert_true(stand_matches(cases[i].text, error->message));
        } else {
            uint8_t buf[512];
            BlockBackend *blk = stand_must_open("o", cases[i].options, BDRV_O_RDWR);
            g_assert_cmpint(blk_pread(blk, 5 << 20, sizeof(buf), buf, 0), ==, 0);
            stand_close(blk);
        }
    }
    stand_forget("o");
}

static void test_snapshot_list(void)
{
    stand_create("plain", "size=10M");
    stand_copy("plain", "o", 0x60000);
    stand_put("o", NB_SNAPSHOTS, 4, 1);
    stand_put("o", SNAPSHOTS_OFFSET, 8, 0x40000);
    stand_put("o", 0x40000, 8, 0x50000);
    stand_put("o", 0x40008, 4, 1);
    stand_put("o", 0x4000c, 4, 1 << 16 | 4); /* lengths of id and name */
    stand_put("o", 0x40010, 8, UINT64_C(1700000000) << 32 | 5);
    stand_put("o", 0x40018, 8, 123456789);
    stand_put("o", 0x40024, 4, 24);
    stand_put("o", 0x40028, 8, 4096);
    stand_put("o", 0x40030, 8, 10 << 20);
    stand_put("o", 0x40038, 8, 42);
    stand_put("o", 0x40040, 4, 0x37736e61);
    stand_put("o", 0x40044, 1, 'p');
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    BdrvSnapshotInfo *list;
    g_assert_cmpint(blk_list_snapshots(blk, &list), ==, 1);
    g_assert_cmpstr(list[0].id, ==, "7");
    g_assert_cmpstr(list[0].name, ==, "snap");
    g_assert_cmpint(list[0].vm_state_size, ==, 4096);
    g_assert_cmpint(list[0].disk_size, ==, 10 << 20);
    g_assert_cmpint(list[0].date_sec, ==, 1700000000);
    g_assert_cmpint(list[0].date_nsec, ==, 5);
    g_assert_cmpuint(list[0].vm_clock_ns, ==, 123456789);
    g_assert_cmpuint(list[0].icount, ==, 42);
    bdrv_snapshot_list_free(list, 1);
    stand_close(blk);
    stand_forget("o");
    stand_forget("plain");
}

/* Every call that fails while opening makes it fail, and leaves nothing open. */
static void test_failures(void)
{
    stand_create("o", "size=10M");
    stand_put("o", AUTOCLEAR, 8, 8);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("o");
    unsigned refused = 0;
    for (unsigned nth = 1; nth <= 12; nth++) {
        g_autoptr(GError) error = NULL;
        unsigned kinds = BDRV_SIM_READ | BDRV_SIM_WRITE | BDRV_SIM_FLUSH;
        bdrv_simdisk_fail(disk, kinds, nth, 1, EIO);
        BlockBackend *blk = stand_open("o", NULL, BDRV_O_RDWR, &error);
        bdrv_simdisk_fail_none(disk);
        if (blk) {
            blk_close(blk, NULL);
        } else {
            g_assert_error(error, BDRV_ERROR, EIO);
            g_test_message("call %u: %s", nth, error->message);
            refused++;
        }
        stand_put("o", AUTOCLEAR, 8, 8);
    }
    g_assert_cmpuint(refused, >=, 4);
    stand_close(stand_must_open("o", NULL, BDRV_O_RDWR));
    stand_forget("o");
}

static void test_reopen(void)
{
    uint8_t buf[512], read[512];
    GError *error = NULL;
    memset(buf, 0x5c, sizeof(buf));
    stand_create("o", "size=10M");
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    for (unsigned round = 0; round < 3; round++) {
        g_assert_cmpint(blk_pwrite(blk, round * 65536, sizeof(buf), buf, 0), <, 0);
        blk_reopen(blk, NULL, BDRV_O_RDWR, &error);
        g_assert_no_error(error);
        g_assert_cmpint(blk_pwrite(blk, round * 65536, sizeof(buf), buf, 0), ==, 0);
        blk_reopen(blk, NULL, 0, &error);
        g_assert_no_error(error);
        g_assert_cmpint(blk_pread(blk, round * 65536, sizeof(buf), read, 0), ==, 0);
        g_assert_cmpmem(buf, sizeof(buf), read, sizeof(read));
        /* All is in the file: a copy of it checks clean. */
        stand_copy("o", "copy", -1);
        BdrvCheckResult r = { 0 };
        BlockBackend *other = stand_must_open("copy", NULL, BDRV_O_CHECK);
        g_assert_true(blk_check(other, &r, BDRV_FIX_NONE, NULL));
        g_assert_cmpint(r.corruptions + r.leaks, ==, 0);
        g_assert_cmpint(r.allocated_clusters, ==, round + 1);
        stand_close(other);
        stand_forget("copy");
    }
    stand_close(blk);
    stand_forget("o");
}

static void test_reopen_refused(void)
{
    static const struct {
        int64_t offset;
        uint64_t value;
        const char *text;
    } cases[] = {
        { INCOMPATIBLE, DIRTY, "*not closed cleanly*" },
        { INCOMPATIBLE, CORRUPT, "*marked corrupt*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        stand_create("o", "size=10M");
        stand_put("o", cases[i].offset, 8, cases[i].value);
        BlockBackend *blk = stand_must_open("o", NULL, 0);
        g_assert_false(blk_reopen(blk, NULL, BDRV_O_RDWR, &error));
        g_assert_true(stand_matches(cases[i].text, error->message));
        g_assert_true(blk_is_read_only(blk));
        stand_close(blk);
        stand_forget("o");
    }
}

static void test_reopen_autoclear(void)
{
    stand_create("o", "size=10M");
    stand_put("o", AUTOCLEAR, 8, 1 << 5);
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    g_assert_true(blk_reopen(blk, NULL, BDRV_O_RDWR, NULL));
    g_assert_cmphex(stand_get("o", AUTOCLEAR, 8), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, 5, "hello", 0), ==, 0);
    stand_close(blk);
    stand_forget("o");
}

static void test_reopen_autoclear_fails(void)
{
    g_autoptr(GError) error = NULL;
    stand_create("o", "size=10M");
    stand_put("o", AUTOCLEAR, 8, 1 << 5);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("o");
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, 1, EIO);
    g_assert_false(blk_reopen(blk, NULL, BDRV_O_RDWR, &error));
    g_assert_true(stand_matches("*cannot clear the autoclear features 0x20*", error->message));
    bdrv_simdisk_fail_none(disk);
    g_assert_true(blk_is_read_only(blk));
    g_assert_cmpint(blk_pwrite(blk, 0, 5, "hello", 0), <, 0);
    g_assert_cmphex(stand_get("o", AUTOCLEAR, 8), ==, 1 << 5);
    g_assert_true(blk_reopen(blk, NULL, BDRV_O_RDWR, NULL));
    g_assert_cmpint(blk_pwrite(blk, 0, 5, "hello", 0), ==, 0);
    g_assert_cmphex(stand_get("o", AUTOCLEAR, 8), ==, 0);
    stand_close(blk);
    stand_forget("o");
}

/* ---- compressed clusters ---- */

#define CLUSTER 65536

static size_t deflate_cluster(const uint8_t *data, uint8_t *out, size_t room)
{
    z_stream z = { .next_in = (Bytef *)data, .avail_in = CLUSTER, .next_out = out, .avail_out = (uInt)room };
    g_assert_cmpint(deflateInit2(&z, 9, Z_DEFLATED, -12, 9, Z_DEFAULT_STRATEGY), ==, Z_OK);
    g_assert_cmpint(deflate(&z, Z_FINISH), ==, Z_STREAM_END);
    size_t bytes = z.total_out;
    deflateEnd(&z);
    return bytes;
}

static void fill(uint8_t *data, unsigned n)
{
    for (unsigned i = 0; i < CLUSTER; i++) {
        data[i] = (uint8_t)(i / 97 * 13 + n * 7 + (i % 11 == 0 ? i >> 8 : 0));
    }
}

/* Guest clusters 0 .. 2 compressed, one behind the other, the second and third in shared sectors. */
static void make_compressed(const char *name, bool zstd)
{
    const int64_t l2 = 0x40000;
    g_autofree uint8_t *data = g_malloc(CLUSTER);
    g_autofree uint8_t *packed = g_malloc(2 * CLUSTER);
    uint64_t at = 0x50000;
    stand_create("plain", zstd ? "size=10M,compression_type=zstd" : "size=10M");
    stand_copy("plain", name, 0x70000);
    stand_put(name, 0x30000, 8, UINT64_C(1) << 63 | (uint64_t)l2);
    stand_put(name, 0x20000 + 8, 2, 1); /* L2 */
    for (unsigned n = 0; n < 3; n++) {
        fill(data, n);
        size_t bytes;
#ifdef CONFIG_LIBZSTD
        bytes = zstd ? ZSTD_compress(packed, 2 * CLUSTER, data, CLUSTER, 3)
                     : deflate_cluster(data, packed, 2 * CLUSTER);
#else
        bytes = deflate_cluster(data, packed, 2 * CLUSTER);
#endif
        for (size_t i = 0; i < bytes; i++) {
            stand_put(name, (int64_t)(at + i), 1, packed[i]);
        }
        uint64_t more_sectors = (at + bytes - 1) / 512 - at / 512;
        stand_put(name, l2 + 8 * n, 8, UINT64_C(1) << 62 | more_sectors << 54 | at);
        at += bytes;
    }
    stand_put(name, 0x20000 + 10, 2, 3);
    g_assert_cmpuint(at, <, 0x60000);
    stand_forget("plain");
}

static void read_compressed(const char *name)
{
    g_autofree uint8_t *expected = g_malloc(CLUSTER);
    g_autofree uint8_t *buf = g_malloc(CLUSTER);
    BlockBackend *blk = stand_must_open(name, NULL, 0);
    BdrvCheckResult result = { 0 };
    for (unsigned n = 0; n < 3; n++) {
        fill(expected, n);
        g_assert_cmpint(blk_pread(blk, n * CLUSTER, CLUSTER, buf, 0), ==, 0);
        g_assert_cmpmem(buf, CLUSTER, expected, CLUSTER);
    }
    for (unsigned round = 0; round < 300; round++) {
        unsigned n = (unsigned)g_test_rand_int_range(0, 3);
        int offset = g_test_rand_int_range(0, CLUSTER),
            bytes = g_test_rand_int_range(1, CLUSTER - offset + 1);
        fill(expected, n);
        g_assert_cmpint(blk_pread(blk, (int64_t)n * CLUSTER + offset, bytes, buf, 0), ==, 0);
        g_assert_cmpmem(buf, bytes, expected + offset, bytes);
    }
    g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, NULL));
    g_assert_cmpint(result.corruptions + result.leaks, ==, 0);
    g_assert_cmpint(result.compressed_clusters, ==, 3);
    stand_close(blk);
}

static void test_deflate(void)
{
    make_compressed("o", false);
    read_compressed("o");
    stand_forget("o");
}

static void test_zstd(void)
{
#ifdef CONFIG_LIBZSTD
    make_compressed("o", true);
    read_compressed("o");
    stand_forget("o");
#else
    stand_create("o", "size=10M");
    stand_put("o", INCOMPATIBLE, 8, 8);
    stand_put("o", 104, 1, 1);
    expect_refused("o", NULL, 0, ENOTSUP, "*compression_type 1 (zstd)*built without libzstd*");
    stand_forget("o");
#endif
}

/* Whatever the compressed bytes and descriptors are: the right data or an error, and no harm. */
static void test_garbage(void)
{
    for (unsigned zstd = 0; zstd < 2; zstd++) {
#ifndef CONFIG_LIBZSTD
        if (zstd) {
            continue;
        }
#endif
        make_compressed("good", zstd);
        for (unsigned round = 0; round < 150; round++) {
            stand_copy("good", "o", g_test_rand_bit() ? -1 : g_test_rand_int_range(0x50000, 0x52000));
            for (int n = g_test_rand_int_range(1, 4); n > 0; n--) {
                int64_t length = stand_length("o");
                if (g_test_rand_bit()) {
                    int64_t at = 0x50000 + g_test_rand_int_range(0, 0x1800);
                    if (at < length) {
                        stand_put("o", at, 1, (uint64_t)g_test_rand_int_range(0, 256));
                    }
                } else {
                    uint64_t entry = UINT64_C(1) << 62 | (uint64_t)(uint32_t)g_test_rand_int() << 40 |
                                     (uint64_t)g_test_rand_int_range(0, 0x80000);
                    stand_put("o", 0x40000 + 8 * g_test_rand_int_range(0, 3), 8, entry);
                }
            }
            BlockBackend *blk = stand_must_open("o", NULL, 0);
            g_autofree uint8_t *buf = g_malloc(3 * CLUSTER);
            for (unsigned n = 0; n < 3; n++) {
                int ret = blk_pread(blk, n * CLUSTER, CLUSTER, buf, 0);
                g_assert_true(ret == 0 || ret == -EIO);
            }
            blk_close(blk, NULL);
            stand_forget("o");
        }
        stand_forget("good");
    }
}

#define READERS 3

static void *read_again_and_again(void *opaque)
{
    BlockBackend *blk = opaque;
    g_autofree uint8_t *expected = g_malloc(CLUSTER);
    g_autofree uint8_t *buf = g_malloc(CLUSTER);
    for (unsigned round = 0; round < 60; round++) {
        unsigned n = round % 3;
        unsigned offset = round * 1009 % (CLUSTER - 4096);
        fill(expected, n);
        g_assert_cmpint(blk_pread(blk, (int64_t)n * CLUSTER + offset, 4096, buf, 0), ==, 0);
        g_assert_cmpmem(buf, 4096, expected + offset, 4096);
    }
    return NULL;
}

static void test_many_readers(void)
{
    pthread_t threads[READERS];
    make_compressed("o", false);
    BlockBackend *blk = stand_must_open("o", NULL, 0);
    for (unsigned i = 0; i < READERS; i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, read_again_and_again, blk), ==, 0);
    }
    for (unsigned i = 0; i < READERS; i++) {
        pthread_join(threads[i], NULL);
    }
    stand_close(blk);
    stand_forget("o");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/open/both versions tell what they are", test_versions);
    g_test_add_func("/qcow2/open/a dirty image is repaired when opened for writing", test_dirty);
    g_test_add_func("/qcow2/open/a corrupt image opens for reading only", test_corrupt);
    g_test_add_func("/qcow2/open/lazy refcounts and unknown compatible bits are left alone",
                    test_lazy_refcounts);
    g_test_add_func("/qcow2/open/unknown autoclear bits go when the image is writable", test_autoclear);
    g_test_add_func("/qcow2/open/unknown autoclear bits go when it becomes writable", test_reopen_autoclear);
    g_test_add_func("/qcow2/open/if they cannot it becomes read-only again", test_reopen_autoclear_fails);
    g_test_add_func("/qcow2/open/unknown header fields and extensions stay", test_unknown_header);
    g_test_add_func("/qcow2/open/the backing file name is taken from the header", test_backing_name);
    g_test_add_func("/qcow2/open/bitmaps are listed, and forgotten without their bit", test_bitmaps);
    g_test_add_func("/qcow2/open/what is not built can be looked at", test_information_only);
    g_test_add_func("/qcow2/open/options are used or refused", test_options);
    g_test_add_func("/qcow2/open/snapshots are listed", test_snapshot_list);
    g_test_add_func("/qcow2/open/each failing call fails the opening", test_failures);
    g_test_add_func("/qcow2/open/reopening changes between reading and writing", test_reopen);
    g_test_add_func("/qcow2/open/reopening for writing is refused as opening is", test_reopen_refused);
    g_test_add_func("/qcow2/compressed/deflate clusters are read", test_deflate);
    g_test_add_func("/qcow2/compressed/zstd clusters are read, or refused by name", test_zstd);
    g_test_add_func("/qcow2/compressed/threads share the decoded clusters", test_many_readers);
    g_test_add_func("/qcow2/compressed/garbage gives data or an error", test_garbage);
    return g_test_run();
}
