/* SPDX-License-Identifier: MIT */
/* Repair: what it keeps, what it may write when, and that power may fail at any moment of it. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/crash/states.h"
#include "tests/unit/qcow2/stand.h"

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)
#define FIX_ALL (BDRV_FIX_LEAKS | BDRV_FIX_ERRORS)
#define INCOMPATIBLE 72
#define DIRTY 1
#define CORRUPT 2

/*
 * The image: 32 KiB, clusters of 512 bytes, preallocated. Cluster 0 header, 1 refcount table, 2 refcount block, 3 L1,
 * 4 L2, 5 .. 68 data in order; guest cluster n is full of the byte n + 1.
 */
#define CLUSTER 512
#define REFCOUNT_TABLE (1 * CLUSTER)
#define REFCOUNT_BLOCK (2 * CLUSTER)
#define L1 (3 * CLUSTER)
#define L2 (4 * CLUSTER)
#define DATA (5 * CLUSTER)
#define GUEST_CLUSTERS 64

typedef struct Patch {
    int64_t offset;
    unsigned width; /* 0: no more */
    uint64_t value;
} Patch;

typedef struct Damage {
    const char *what;
    const char *options; /* of creation, more than the usual; NULL: none */
    Patch patches[4];
    int lost;   /* guest cluster that the damage took; -1: none, -2: all */
    int same;   /* guest cluster that reads as guest cluster 0 does; 0: none */
} Damage;

static const Damage damages[] = {
    { "leak", NULL, { { REFCOUNT_BLOCK + 2 * 7, 2, 2 } }, -1, 0 },
    { "count too low", NULL, { { REFCOUNT_BLOCK + 2 * 7, 2, 0 }, { REFCOUNT_BLOCK + 2 * 9, 2, 3 } }, -1, 0 },
    { "COPIED missing", NULL, { { L2, 8, DATA }, { L1, 8, L2 } }, -1, 0 },
    { "cluster with two owners", NULL, { { L2 + 72, 8, COPIED | DATA } }, -1, 9 },
    { "cluster with two owners, refcount of one bit", "refcount_bits=1", { { L2 + 72, 8, COPIED | DATA } }, -1, 9 },
    { "entry far away", NULL, { { L2 + 72, 8, COPIED | UINT64_C(1) << 40 } }, 9, 0 },
    { "reserved bits", NULL, { { L1, 8, COPIED | L2 | 2 }, { L2 + 8, 8, COPIED | (DATA + CLUSTER) | 2 } }, -1, 0 },
    { "L2 table far away", NULL, { { L1, 8, COPIED | UINT64_C(1) << 40 } }, -2, 0 },
    { "data where the L1 table is", NULL, { { L2 + 72, 8, COPIED | L1 } }, 9, 0 },
    { "data where the L2 table is", NULL, { { L2 + 72, 8, COPIED | L2 } }, 9, 0 },
    { "data where the refcount block is", NULL, { { L2 + 72, 8, COPIED | REFCOUNT_BLOCK } }, 9, 0 },
    { "compressed data where the header is", NULL, { { L2 + 72, 8, COMPRESSED | 64 } }, 9, 0 },
    { "refcount block gone", NULL, { { REFCOUNT_TABLE, 8, 0 } }, -1, 0 },
    { "refcount block used twice", NULL, { { REFCOUNT_TABLE + 8, 8, REFCOUNT_BLOCK } }, -1, 0 },
    { "refcount table elsewhere", NULL, { { 48, 8, DATA } }, -1, 0 },
    { "refcount table without end", NULL, { { 56, 4, UINT32_MAX } }, -1, 0 },
    { "dirty, counts behind", NULL, { { INCOMPATIBLE, 8, DIRTY }, { REFCOUNT_BLOCK + 2 * 7, 4, 0 } }, -1, 0 },
    { "version 2", "compat=0.10", { { L2 + 72, 8, COPIED | UINT64_C(1) << 40 }, { REFCOUNT_BLOCK, 2, 0 } }, 9, 0 },
};

static void make(const char *name, const Damage *d)
{
    g_autofree char *options = g_strdup_printf("size=32k,cluster_size=512,preallocation=metadata%s%s",
                                               d->options ? "," : "", d->options ? d->options : "");
    stand_create("whole", options);
    BlockBackend *blk = stand_must_open("whole", NULL, BDRV_O_RDWR);
    for (int n = 0; n < GUEST_CLUSTERS; n++) {
        uint8_t buf[CLUSTER];
        memset(buf, n + 1, sizeof(buf));
        g_assert_cmpint(blk_pwrite(blk, n * CLUSTER, CLUSTER, buf, 0), ==, 0);
    }
    stand_close(blk);
    stand_copy("whole", name, -1);
    stand_forget("whole");
    for (unsigned i = 0; i < G_N_ELEMENTS(d->patches) && d->patches[i].width; i++) {
        stand_put(name, d->patches[i].offset, d->patches[i].width, d->patches[i].value);
    }
}

static void assert_data(const char *name, const Damage *d)
{
    BlockBackend *blk = stand_must_open(name, NULL, 0);
    for (int n = 0; n < GUEST_CLUSTERS; n++) {
        uint8_t buf[CLUSTER], expected[CLUSTER];
        int ret = blk_pread(blk, n * CLUSTER, CLUSTER, buf, 0);
        if (d->lost == -2 || n == d->lost) {
            continue;
        }
        g_assert_cmpint(ret, ==, 0);
        memset(expected, d->same && n == d->same ? 1 : n + 1, sizeof(expected));
        g_assert_cmpmem(buf, CLUSTER, expected, CLUSTER);
    }
    stand_close(blk);
}

static BdrvCheckResult check(const char *name, BdrvCheckFix fix)
{
    BdrvCheckResult r = { 0 };
    GError *error = NULL;
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_CHECK | (fix ? BDRV_O_RDWR : 0));
    g_assert_true(blk_check(blk, &r, fix, &error));
    g_assert_no_error(error);
    stand_close(blk);
    return r;
}

static void assert_clean(const char *name)
{
    BdrvCheckResult r = check(name, BDRV_FIX_NONE);
    g_assert_cmpint(r.corruptions, ==, 0);
    g_assert_cmpint(r.leaks, ==, 0);
    g_assert_cmpint(r.check_errors, ==, 0);
}

static void test_repaired(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(damages); i++) {
        g_test_message("%s", damages[i].what);
        make("r", &damages[i]);
        BdrvCheckResult r = check("r", FIX_ALL);
        g_assert_cmpint(r.corruptions + r.leaks + r.check_errors, ==, 0);
        assert_clean("r");
        assert_data("r", &damages[i]);
        if (stand_get("r", 4, 4) >= 3) {
            g_assert_cmphex(stand_get("r", INCOMPATIBLE, 8) & (DIRTY | CORRUPT), ==, 0);
        }
        stand_forget("r");
    }
}

/* ---- power loss ---- */

static void cut_here(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    GPtrArray *cuts = opaque;
    if (request->kind != BDRV_SIM_READ) {
        g_ptr_array_add(cuts, bdrv_simdisk_cut(disk));
    }
}

/* The search in tests/crash takes them all. */
#define STATES_OF_A_CUT 8

typedef struct Crash {
    const Damage *damage;
    BdrvSimCut *cut;
    unsigned unsafe; /* findings in the damaged image that make it lose data */
    unsigned here;   /* states of this cut so far */
    bool opens; /* the damaged image can be read before it is repaired */
    uint64_t states;
} Crash;

/* Missing COPIED flags and leaks are safe. */
static void note_unsafe(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    *(unsigned *)opaque += kind->severity == BDRV_CHECK_CORRUPTION && !g_str_has_prefix(text, "ERROR OFLAG_COPIED");
}

static unsigned count_unsafe(const char *name)
{
    unsigned count = 0;
    BdrvCheckResult r = { .report = note_unsafe, .report_opaque = &count };
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_CHECK);
    g_assert_true(blk_check(blk, &r, BDRV_FIX_NONE, NULL));
    stand_close(blk);
    return count;
}

static bool visit_state(void *opaque, const BdrvSimChoice *choices)
{
    Crash *crash = opaque;
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(crash->cut, choices, "cut");
    g_assert_nonnull(left);
    crash->states++;
    g_assert_cmpuint(count_unsafe("cut"), <=, crash->unsafe);
    if (crash->opens) {
        assert_data("cut", crash->damage);
    }
    BdrvCheckResult r = check("cut", FIX_ALL);
    g_assert_cmpint(r.corruptions + r.leaks + r.check_errors, ==, 0);
    assert_clean("cut");
    assert_data("cut", crash->damage);
    return ++crash->here < STATES_OF_A_CUT;
}

/* @failing: this read of the repair fails; 0: none. Returns: false if there are not so many. */
static bool crash_inside(const Damage *damage, BdrvCheckFix fix, unsigned failing)
{
    Crash crash = { .damage = damage };
    g_autoptr(GPtrArray) cuts = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_simcut_unref);
    make("r", damage);
    BlockBackend *blk = stand_open("r", NULL, 0, NULL);
    crash.opens = blk != NULL;
    crash.unsafe = count_unsafe("r");
    if (blk) {
        stand_close(blk);
    }
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("r");
    BdrvCheckResult r = { 0 };
    blk = stand_must_open("r", NULL, BDRV_O_CHECK | BDRV_O_RDWR);
    bdrv_simdisk_set_hook(disk, cut_here, cuts);
    uint64_t before = bdrv_simdisk_count(disk, BDRV_SIM_READ);
    if (failing) {
        bdrv_simdisk_fail(disk, BDRV_SIM_READ, failing, 1, EIO);
    }
    blk_check(blk, &r, fix, NULL); /* leaks alone may be refused */
    bool failed = bdrv_simdisk_count(disk, BDRV_SIM_READ) - before >= failing;
    bdrv_simdisk_fail_none(disk);
    stand_close(blk);
    bdrv_simdisk_set_hook(disk, NULL, NULL);
    for (unsigned i = 0; i < cuts->len; i++) {
        crash.cut = cuts->pdata[i];
        crash.here = 0;
        states_each(crash.cut, 4, visit_state, &crash);
    }
    g_test_message("%s, %s, read %u fails: %u cuts, %" PRIu64 " states", damage->what,
                   fix == FIX_ALL ? "all" : "leaks", failing, cuts->len, crash.states);
    stand_forget("r");
    return failed;
}

static void test_power_loss(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(damages); i++) {
        crash_inside(&damages[i], FIX_ALL, 0);
        crash_inside(&damages[i], BDRV_FIX_LEAKS, 0);
    }
}

/* What a read error hides is still there: it may not be written over. */
static void test_power_loss_after_read_errors(void)
{
    static const unsigned chosen[] = { 1, 5 };
    for (unsigned i = 0; i < G_N_ELEMENTS(chosen); i++) {
        /* The first reads are those of the analysis. */
        for (unsigned nth = 1; nth <= 8; nth++) {
            g_assert_true(crash_inside(&damages[chosen[i]], FIX_ALL, nth));
        }
    }
}

/* ---- when and how it writes ---- */

typedef struct FirstWrite {
    uint64_t reads, reads_before; /* all so far; before the first write */
    bool written;
} FirstWrite;

static void note_first_write(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    FirstWrite *first = opaque;
    first->reads += request->kind == BDRV_SIM_READ;
    if (!(request->kind & (BDRV_SIM_READ | BDRV_SIM_FLUSH)) && !first->written) {
        first->written = true;
        first->reads_before = first->reads;
    }
}

static void test_analysis_first(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(damages); i++) {
        FirstWrite checked = { 0 }, repaired = { 0 };
        make("r", &damages[i]);
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("r");
        bdrv_simdisk_set_hook(disk, note_first_write, &checked);
        check("r", BDRV_FIX_NONE);
        bdrv_simdisk_set_hook(disk, note_first_write, &repaired);
        check("r", FIX_ALL);
        bdrv_simdisk_set_hook(disk, NULL, NULL);
        g_assert_false(checked.written);
        g_assert_true(repaired.written);
        g_assert_cmpuint(repaired.reads_before, >=, checked.reads);
        stand_forget("r");
    }
}

static void test_unread(void)
{
    /* The read of the L2 table fails: what it refers to is not known, so nothing may be freed. */
    make("r", &damages[0]);
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("r");
    bool seen = false;
    for (unsigned nth = 1; nth < 30; nth++) {
        BdrvCheckResult r = { 0 };
        BlockBackend *blk = stand_must_open("r", NULL, BDRV_O_CHECK | BDRV_O_RDWR);
        uint64_t writes = bdrv_simdisk_count(disk, BDRV_SIM_WRITE);
        bdrv_simdisk_fail(disk, BDRV_SIM_READ, nth, 1, EIO);
        bool ok = blk_check(blk, &r, FIX_ALL, NULL);
        bdrv_simdisk_fail_none(disk);
        if (!ok) {
            seen = true;
        }
        g_assert_true(ok || bdrv_simdisk_count(disk, BDRV_SIM_WRITE) == writes || nth > 8);
        stand_close(blk);
        assert_data("r", &damages[0]);
        stand_put("r", REFCOUNT_BLOCK + 2 * 7, 2, 2);
    }
    g_assert_true(seen);
    stand_forget("r");
}

static void test_failing_writes(void)
{
    static const unsigned kinds[] = { BDRV_SIM_WRITE, BDRV_SIM_FLUSH };
    for (unsigned i = 0; i < G_N_ELEMENTS(damages); i++) {
        for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
            bool failed = true;
            for (unsigned nth = 1; failed; nth++) {
                make("r", &damages[i]);
                g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_find("r");
                BdrvCheckResult r = { 0 };
                BlockBackend *blk = stand_must_open("r", NULL, BDRV_O_CHECK | BDRV_O_RDWR);
                uint64_t before = bdrv_simdisk_count(disk, kinds[k]);
                bdrv_simdisk_fail(disk, kinds[k], nth, 1, EIO);
                bool ok = blk_check(blk, &r, FIX_ALL, NULL);
                failed = bdrv_simdisk_count(disk, kinds[k]) - before >= nth;
                g_assert_true(!failed || !ok);
                bdrv_simdisk_fail_none(disk);
                blk_close(blk, NULL);
                check("r", FIX_ALL);
                assert_clean("r");
                assert_data("r", &damages[i]);
                stand_forget("r");
            }
        }
    }
}

/* ---- serving nodes, bits of the header ---- */

static void test_serving(void)
{
    static const unsigned served[] = { 0, 1, 2, 3, 4, 8, 9 };
    for (unsigned i = 0; i < G_N_ELEMENTS(served); i++) {
        Damage after = damages[served[i]];
        BdrvCheckResult r = { 0 };
        GError *error = NULL;
        uint8_t buf[2 * CLUSTER];
        g_test_message("%s", after.what);
        make("r", &after);
        BlockBackend *blk = stand_must_open("r", "l2-cache-size=4k", BDRV_O_RDWR);
        g_assert_cmpint(blk_pread(blk, 0, CLUSTER, buf, 0), ==, 0);
        g_assert_true(blk_check(blk, &r, FIX_ALL, &error));
        g_assert_no_error(error);
        g_assert_cmpint(r.corruptions + r.leaks, ==, 0);
        g_assert_cmpint(r.corruptions_fixed + r.leaks_fixed, >, 0);
        memset(buf, 1, CLUSTER);
        memset(buf + CLUSTER, 10, CLUSTER);
        g_assert_cmpint(blk_pwrite(blk, 0, CLUSTER, buf, 0), ==, 0);
        g_assert_cmpint(blk_pwrite(blk, 9 * CLUSTER, CLUSTER, buf + CLUSTER, 0), ==, 0);
        g_assert_cmpint(blk_flush(blk), ==, 0);
        stand_close(blk);
        after.lost = -1;
        after.same = 0;
        assert_clean("r");
        assert_data("r", &after);
        stand_forget("r");
    }
}

static void test_dirty(void)
{
    const Damage *d = &damages[16];
    make("r", d);
    assert_data("r", d); /* reading is fine, and repairs nothing */
    g_assert_cmphex(stand_get("r", INCOMPATIBLE, 8), ==, DIRTY);
    BlockBackend *blk = stand_must_open("r", NULL, BDRV_O_RDWR);
    g_assert_cmphex(stand_get("r", INCOMPATIBLE, 8), ==, 0);
    stand_close(blk);
    assert_clean("r");
    assert_data("r", d);
    stand_put("r", INCOMPATIBLE, 8, DIRTY);
    stand_put("r", REFCOUNT_TABLE, 8, 0); /* a block that was never linked */
    stand_close(stand_must_open("r", NULL, BDRV_O_RDWR));
    assert_clean("r");
    assert_data("r", d);
    stand_put("r", INCOMPATIBLE, 8, DIRTY);
    stand_put("r", L2 + 72, 8, COPIED | UINT64_C(1) << 40);
    g_autoptr(GError) error = NULL;
    g_assert_null(stand_open("r", NULL, BDRV_O_RDWR, &error));
    g_assert_true(stand_matches("*more than its refcounts is damaged*check -r all*", error->message));
    g_assert_cmphex(stand_get("r", L2 + 72, 8), ==, COPIED | UINT64_C(1) << 40);
    stand_forget("r");
}

static void test_corrupt(void)
{
    make("r", &damages[3]);
    stand_put("r", INCOMPATIBLE, 8, CORRUPT);
    g_assert_null(stand_open("r", NULL, BDRV_O_RDWR, NULL));
    check("r", BDRV_FIX_LEAKS);
    g_assert_cmphex(stand_get("r", INCOMPATIBLE, 8), ==, CORRUPT);
    check("r", FIX_ALL);
    g_assert_cmphex(stand_get("r", INCOMPATIBLE, 8), ==, 0);
    stand_close(stand_must_open("r", NULL, BDRV_O_RDWR));
    stand_forget("r");
}

static void test_read_only(void)
{
    BdrvCheckResult r = { .leaks = 77 };
    g_autoptr(GError) error = NULL;
    make("r", &damages[0]);
    BlockBackend *blk = stand_must_open("r", NULL, BDRV_O_CHECK);
    g_assert_false(blk_check(blk, &r, FIX_ALL, &error));
    g_assert_error(error, BDRV_ERROR, EROFS);
    g_assert_cmpint(r.leaks, ==, 77);
    stand_close(blk);
    stand_forget("r");
}

/* Data 2^48 bytes out in a file of 2 PiB, where no refcount table of these clusters reaches: it is brought back. */
static void test_far_data(void)
{
    int64_t far = INT64_C(1) << 48;
    stand_create("near", "size=1M,cluster_size=4k,preallocation=metadata");
    stand_copy("near", "r", INT64_C(1) << 51);
    stand_put("r", 4 * 4096, 8, COPIED | (uint64_t)far);
    stand_put("r", far, 8, 0x0102030405060708);
    check("r", FIX_ALL);
    assert_clean("r");
    uint8_t buf[8];
    BlockBackend *blk = stand_must_open("r", NULL, 0);
    g_assert_cmpint(blk_pread(blk, 0, sizeof(buf), buf, 0), ==, 0);
    g_assert_cmphex(buf[0], ==, 1);
    g_assert_cmphex(buf[7], ==, 8);
    stand_close(blk);
    stand_forget("near");
    stand_forget("r");
}

/* Each of many entries leads to a range of its own: counting them all would take a cluster each. */
static void test_scattered(void)
{
    enum { ENTRIES = 8192 };
    BdrvCheckResult r = { 0 };
    stand_create("near", "size=512M,cluster_size=64k,preallocation=metadata");
    uint64_t l1 = stand_get("near", 40, 8), l2 = stand_get("near", (int64_t)l1, 8) & ~COPIED;
    stand_copy("near", "r", INT64_C(1) << 51);
    for (uint64_t i = 0; i < ENTRIES; i++) {
        stand_put("r", (int64_t)(l2 + 8 * i), 8, COPIED | (i + 1) << 34);
    }
    g_autoptr(GError) error = NULL;
    BlockBackend *blk = stand_must_open("r", NULL, BDRV_O_CHECK);
    g_assert_false(blk_check(blk, &r, BDRV_FIX_NONE, &error));
    g_assert_error(error, BDRV_ERROR, ENOMEM);
    stand_close(blk);
    stand_forget("near");
    stand_forget("r");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/repair/each damage is repaired and other data is kept", test_repaired);
    g_test_add_func("/qcow2/repair/power loss leaves what can be repaired to the same data", test_power_loss);
    g_test_add_func("/qcow2/repair/power loss after a read error is no worse", test_power_loss_after_read_errors);
    g_test_add_func("/qcow2/repair/nothing is written before the analysis is complete", test_analysis_first);
    g_test_add_func("/qcow2/repair/nothing is written if a table cannot be read", test_unread);
    g_test_add_func("/qcow2/repair/a failing write is told and can be tried again", test_failing_writes);
    g_test_add_func("/qcow2/repair/the node goes on serving", test_serving);
    g_test_add_func("/qcow2/repair/a dirty image is repaired when opened for writing", test_dirty);
    g_test_add_func("/qcow2/repair/the corrupt bit goes when the image is clean", test_corrupt);
    g_test_add_func("/qcow2/repair/a read-only image is refused", test_read_only);
    g_test_add_func("/qcow2/repair/data where no refcount can be is moved", test_far_data);
    g_test_add_func("/qcow2/repair/memory is bounded whatever an image refers to", test_scattered);
    return g_test_run();
}
