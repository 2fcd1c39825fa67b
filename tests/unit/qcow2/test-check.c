/* SPDX-License-Identifier: MIT */
/* Checking: what each kind of damage counts as. Numbers are those of qemu-img check on the same images. */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/check_kinds.h"
#include "tests/unit/qcow2/stand.h"

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define ZERO UINT64_C(1)

/*
 * The image: 1 MiB, clusters of 4 KiB, preallocated. Cluster 0 header, 1 refcount table, 2 refcount block, 3 L1, 4 L2,
 * 5 .. 260 data in order.
 */
#define CLUSTER 4096
#define REFCOUNT_TABLE (1 * CLUSTER)
#define REFCOUNT_BLOCK (2 * CLUSTER)
#define L1 (3 * CLUSTER)
#define L2 (4 * CLUSTER)
#define DATA (5 * CLUSTER)
#define CLUSTERS 261
#define DATA_CLUSTERS 256

typedef struct Patch {
    int64_t offset;
    unsigned width; /* 0: no more */
    uint64_t value;
} Patch;

static const struct {
    const char *what;
    const char *options; /* NULL: preallocated, 16-bit refcounts */
    Patch patches[4];
    int64_t length; /* cut to; 0: whole */
    int64_t corruptions, leaks, check_errors;
    int64_t end_clusters;
    int64_t allocated, fragmented, compressed;
    const char *text; /* a message that must be there */
} cases[] = {
    { "nothing wrong", NULL, { { 0 } }, 0, 0, 0, 0, CLUSTERS, 256, 0, 0, NULL },
    { "refcount too high", NULL, { { REFCOUNT_BLOCK + 2 * 7, 2, 2 } }, 0, 1, 1, 0, CLUSTERS, 256, 0, 0,
      "Leaked cluster 7 refcount=2 reference=1" },
    { "refcount too low", NULL, { { REFCOUNT_BLOCK + 2 * 7, 2, 0 } }, 0, 2, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR cluster 7 refcount=0 reference=1" },
    { "refcount of the header 0", NULL, { { REFCOUNT_BLOCK, 2, 0 } }, 0, 1, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR cluster 0 refcount=0 reference=1" },
    { "entry gone", NULL, { { L2 + 8 * 9, 8, 0 } }, 0, 0, 1, 0, CLUSTERS, 255, 1, 0,
      "Leaked cluster 14 refcount=1 reference=0" },
    { "entry twice", NULL, { { L2 + 8 * 9, 8, COPIED | DATA } }, 0, 1, 1, 0, CLUSTERS, 256, 2, 0,
      "ERROR cluster 5 refcount=1 reference=2" },
    { "COPIED flag missing", NULL, { { L2, 8, DATA } }, 0, 1, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR OFLAG_COPIED data cluster: l2_entry=5000 refcount=1" },
    { "COPIED flag missing in L1", NULL, { { L1, 8, L2 } }, 0, 1, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR OFLAG_COPIED L2 cluster: l1_index=0 l1_entry=4000 refcount=1" },
    { "zero flag over a cluster is fine", NULL, { { L2, 8, COPIED | ZERO | DATA } }, 0, 0, 0, 0, CLUSTERS, 256, 0, 0, NULL },
    { "plain zero cluster", NULL, { { L2, 8, ZERO } }, 0, 0, 1, 0, CLUSTERS, 255, 0, 0, "Leaked cluster 5 *" },
    { "reserved bits in L2", NULL, { { L2, 8, COPIED | DATA | 2 } }, 0, 1, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR found l2 entry with reserved bits set: 8000000000005002" },
    { "reserved bits in L1", NULL, { { L1, 8, COPIED | L2 | 2 } }, 0, 1, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR found L1 entry with reserved bits set: 8000000000004002" },
    { "data not aligned", NULL, { { L2, 8, COPIED | (DATA + 512) } }, 0, 2, 0, 0, CLUSTERS, 256, 1, 0,
      "ERROR offset=5200: Data cluster is not properly aligned; L2 entry corrupted." },
    { "data far away", NULL, { { L2, 8, COPIED | UINT64_C(1) << 40 } }, 0, 2, 1, 0, CLUSTERS, 256, 1, 0,
      "ERROR: counting reference for region exceeding the end of the file by one cluster or more: offset "
      "0x10000000000 size 0x1000" },
    { "compressed entry over two clusters", NULL, { { L2, 8, COMPRESSED | UINT64_C(1) << 58 | (DATA + CLUSTER - 512) } }, 0,
      1, 0, 0, CLUSTERS, 256, 1, 1, "ERROR cluster 6 refcount=1 reference=2" },
    { "compressed entry with COPIED flag", NULL, { { L2, 8, COPIED | COMPRESSED | DATA } }, 0, 1, 0, 0, CLUSTERS, 256, 1, 1,
      "ERROR: coffset=0x5000: copied flag must never be set for compressed clusters" },
    { "L2 table gone", NULL, { { L1, 8, 0 } }, 0, 0, 257, 0, CLUSTERS, 0, 0, 0, "Leaked cluster 4 *" },
    { "file cut", NULL, { { 0 } }, 259 * CLUSTER, 2, 0, 0, 259, 256, 0, 0, "ERROR: counting reference for region *" },
    { "file cut inside the last cluster", NULL, { { 0 } }, CLUSTERS * CLUSTER - 100, 0, 0, 0, CLUSTERS, 256, 0, 0, NULL },
    { "refcount table entry reserved bits", NULL, { { REFCOUNT_TABLE, 8, REFCOUNT_BLOCK | 1 } }, 0, 1, 1, 0, CLUSTERS, 256,
      0, 0, "ERROR refcount table entry 0 has reserved bits set" },
    { "refcount block gone", NULL, { { REFCOUNT_TABLE, 8, 0 } }, 0, 260 + 257, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR cluster 0 refcount=0 reference=1" },
    { "refcount block not aligned", NULL, { { REFCOUNT_TABLE, 8, REFCOUNT_BLOCK + 512 } }, 0, 1, 0, CLUSTERS, 1, 256, 0, 0,
      "Can't get refcount for cluster 0: Input/output error" },
    { "refcount block at no offset there can be", NULL, { { REFCOUNT_TABLE, 8, UINT64_C(1) << 63 } }, 0, 1, 0, CLUSTERS,
      1, 256, 0, 0, "Can't get refcount for cluster 0: Input/output error" },
    { "refcount block outside", NULL, { { REFCOUNT_TABLE + 8, 8, UINT64_C(1) << 40 } }, 0, 1, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR refcount block 1 is outside image" },
    { "refcount block used twice", NULL, { { REFCOUNT_TABLE + 8, 8, REFCOUNT_BLOCK } }, 0, 2, 0, 0, CLUSTERS, 256, 0, 0,
      "ERROR refcount block 1 refcount=2" },
    { "width of one bit exhausted", "refcount_bits=1", { { L2 + 8, 8, COPIED | DATA } }, 0, 1, 1, 0, CLUSTERS, 256, 2, 0,
      "ERROR: overflow cluster offset=0x5000" },
    { "refcount of 64 bits", "refcount_bits=64", { { REFCOUNT_BLOCK + 8 * 7, 8, UINT64_MAX } }, 0, 1, 1, 0, CLUSTERS, 256, 0,
      0, "Leaked cluster 7 refcount=18446744073709551615 reference=1" },
    { "zero flag in version 2", "compat=0.10", { { L2, 8, COPIED | ZERO | DATA } }, 0, 1, 0, 0, CLUSTERS, 256, 0, 0,
      "*zero flag, which version 2 does not have*" },
};

typedef struct Found {
    const char *pattern;
    bool seen;
    int64_t counts[BDRV_CHECK_ERROR + 1]; /* by severity */
} Found;

static void on_report(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    Found *found = opaque;
    found->seen = found->seen || (found->pattern && g_pattern_match_simple(found->pattern, text));
    found->counts[kind->severity]++;
    g_test_message("  %s: %s", kind->name, text);
}

/* Image "c" with damage @i, made from "good". */
static void prepare(unsigned i)
{
    g_autofree char *options = g_strdup_printf("size=1M,cluster_size=4k,preallocation=metadata%s%s",
                                               cases[i].options ? "," : "", cases[i].options ? cases[i].options : "");
    g_test_message("%s", cases[i].what);
    stand_create("good", options);
    /* Blocks of 64-bit and 1-bit refcounts make the image longer or shorter: put nothing else in the way. */
    stand_copy("good", "c", cases[i].length ? cases[i].length : -1);
    for (unsigned p = 0; p < 4 && cases[i].patches[p].width; p++) {
        stand_put("c", cases[i].patches[p].offset, cases[i].patches[p].width, cases[i].patches[p].value);
    }
}

static void test_damage(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        prepare(i);
        Found found = { .pattern = cases[i].text };
        BdrvCheckResult r = { .report = on_report, .report_opaque = &found };
        GError *error = NULL;
        BlockBackend *blk = stand_must_open("c", NULL, BDRV_O_CHECK);
        g_assert_true(blk_check(blk, &r, BDRV_FIX_NONE, &error));
        g_assert_no_error(error);
        g_assert_cmpint(r.corruptions, ==, cases[i].corruptions);
        g_assert_cmpint(r.leaks, ==, cases[i].leaks);
        g_assert_cmpint(r.check_errors, ==, cases[i].check_errors);
        g_assert_cmpint(found.counts[BDRV_CHECK_CORRUPTION], ==, r.corruptions);
        g_assert_cmpint(found.counts[BDRV_CHECK_LEAK], ==, r.leaks);
        g_assert_cmpint(found.counts[BDRV_CHECK_ERROR], ==, r.check_errors);
        g_assert_cmpint(r.total_clusters, ==, DATA_CLUSTERS);
        g_assert_cmpint(r.image_end_offset, ==, cases[i].end_clusters * CLUSTER);
        g_assert_cmpint(r.allocated_clusters, ==, cases[i].allocated);
        g_assert_cmpint(r.fragmented_clusters, ==, cases[i].fragmented);
        g_assert_cmpint(r.compressed_clusters, ==, cases[i].compressed);
        g_assert_true(found.seen || !cases[i].text);
        stand_close(blk);
        stand_forget("c");
        stand_forget("good");
    }
}

static void test_words(void)
{
    for (int i = 0; i < QCOW2_CHECK_KINDS; i++) {
        const BdrvCheckKind *kind = &qcow2_check_kinds[i].words;

        g_assert_true(kind->name && kind->title && kind->risk && kind->repair);
        g_assert_cmpint(kind->severity == BDRV_CHECK_NOTE, ==, i == QCOW2_CHECK_NOTE);
        g_assert_false(g_str_has_suffix(kind->title, "."));
        g_assert_true(g_str_has_suffix(kind->risk, ".") && g_str_has_suffix(kind->repair, "."));
        for (int other = 0; other < i; other++) {
            g_assert_cmpstr(kind->name, !=, qcow2_check_kinds[other].words.name);
            g_assert_cmpstr(kind->title, !=, qcow2_check_kinds[other].words.title);
        }
    }
}

/* What is found is repaired, and the second check finds nothing. */
static void test_repair(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        prepare(i);
        BdrvCheckResult r = { .report = on_report, .report_opaque = &(Found){ 0 } };
        GError *error = NULL;
        BlockBackend *blk = stand_must_open("c", NULL, BDRV_O_CHECK | BDRV_O_RDWR);
        g_assert_true(blk_check(blk, &r, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS, &error));
        g_assert_no_error(error);
        g_assert_cmpint(r.corruptions_fixed + r.leaks_fixed > 0, ==, cases[i].corruptions + cases[i].leaks > 0);
        for (unsigned round = 0; round < 2; round++) {
            g_assert_cmpint(r.corruptions + r.leaks + r.check_errors, ==, 0);
            g_assert_true(blk_check(blk, &r, BDRV_FIX_NONE, &error));
        }
        stand_close(blk);
        stand_forget("c");
        stand_forget("good");
    }
}

/* A file of 2 PiB with a reference far out: neither memory nor time may follow its length. */
static void test_very_long_file(void)
{
    int64_t far = INT64_C(1) << 48;
    stand_create("good", "size=1M,cluster_size=4k,preallocation=metadata");
    stand_copy("good", "c", INT64_C(1) << 51);
    stand_put("c", L2, 8, COPIED | (uint64_t)far);
    BdrvCheckResult r = { 0 };
    GError *error = NULL;
    BlockBackend *blk = stand_must_open("c", NULL, BDRV_O_CHECK);
    g_assert_true(blk_check(blk, &r, BDRV_FIX_NONE, &error));
    g_assert_no_error(error);
    g_assert_cmpint(r.corruptions, ==, 2);
    g_assert_cmpint(r.leaks, ==, 1);
    g_assert_cmpint(r.image_end_offset, ==, far + CLUSTER);
    stand_close(blk);
    stand_forget("c");
    stand_forget("good");
}

static void test_read_errors(void)
{
    stand_create("c", "size=1M,cluster_size=4k,preallocation=metadata");
    for (unsigned nth = 1; nth <= 12; nth++) {
        BdrvCheckResult r = { 0 };
        g_autoptr(GError) error = NULL;
        BlockBackend *blk = stand_must_open("c", NULL, BDRV_O_CHECK);
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("c");
        uint64_t before = bdrv_simdisk_count(disk, BDRV_SIM_READ);
        bdrv_simdisk_fail(disk, BDRV_SIM_READ, nth, 1, EIO);
        bool ok = blk_check(blk, &r, BDRV_FIX_NONE, &error);
        bool failed = bdrv_simdisk_count(disk, BDRV_SIM_READ) - before >= nth;
        g_assert_true(!failed || !ok || r.check_errors > 0);
        bdrv_simdisk_fail_none(disk);
        stand_close(blk);
    }
    stand_forget("c");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/check/each damage is counted and told", test_damage);
    g_test_add_func("/qcow2/check/every kind of finding is explained", test_words);
    g_test_add_func("/qcow2/check/each damage is repaired", test_repair);
    g_test_add_func("/qcow2/check/a very long sparse file costs nothing", test_very_long_file);
    g_test_add_func("/qcow2/check/what cannot be read is not called good", test_read_errors);
    return g_test_run();
}
