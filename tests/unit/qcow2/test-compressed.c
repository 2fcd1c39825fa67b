/* SPDX-License-Identifier: MIT */
/* Compressed writes of one image: what they take, how they are packed, and what becomes of packed clusters. */

#include <errno.h>
#include <string.h>

#include "config.h"
#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/surgery.h"

#define K 1024

static const RigImage image = { .disk = "d", .size = 1024 * K, .cluster_size = 64 * K };
static const RigImage small = { .disk = "d", .size = 64 * K, .cluster_size = 512 };

/* ---- content that takes a known part of its size ---- */

/* @noise bytes of each 100 are random, the rest repeats. */
static void fill(uint8_t *buf, int64_t bytes, unsigned noise, uint64_t seed)
{
    for (int64_t i = 0; i < bytes; i++) {
        buf[i] = i % 100 < noise ? (uint8_t)(test_random(&seed) >> 20) : (uint8_t)(i / 100);
    }
}

static int coroutine_fn write_noise(const Rig *rig, int64_t offset, int64_t bytes, unsigned noise, uint64_t seed,
                                    BdrvRequestFlags flags)
{
    g_autofree uint8_t *buf = g_malloc((gsize)bytes);
    fill(buf, bytes, noise, seed);
    return bdrv_co_pwrite(rig->child, offset, bytes, buf, flags | BDRV_REQ_COMPRESSED);
}

static void coroutine_fn assert_noise(const Rig *rig, int64_t offset, int64_t bytes, unsigned noise, uint64_t seed)
{
    g_autofree uint8_t *want = g_malloc((gsize)bytes), *have = g_malloc((gsize)bytes);
    fill(want, bytes, noise, seed);
    g_assert_cmpint(rig_read(rig, offset, bytes, have), ==, 0);
    g_assert_true(memcmp(want, have, (size_t)bytes) == 0);
}

static int coroutine_fn compress(const Rig *rig, int64_t offset, int64_t bytes, uint8_t byte)
{
    g_autofree uint8_t *buf = g_malloc((gsize)bytes);
    memset(buf, byte, (size_t)bytes);
    return bdrv_co_pwrite(rig->child, offset, bytes, buf, BDRV_REQ_COMPRESSED);
}

static Qcow2L2Entry coroutine_fn entry_at(const Rig *rig, int64_t offset)
{
    Qcow2RawEntry raw;
    g_assert_cmpint(qcow2_l2_read(rig->child->bs, (uint64_t)offset, &raw, 1), ==, 1);
    return qcow2_l2_entry_decode(raw, &qcow2_state(rig->child->bs)->geometry);
}

static void coroutine_fn close_clean(Rig *rig)
{
    rig_verify(rig);
    g_assert_cmpint(rig_close(rig), ==, 0);
    rig_assert_clean("d");
}

/* ---- what is taken ---- */

static void coroutine_fn whole_clusters_read_back(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(write_noise(&rig, 64 * K, 512 * K, 30, 1, 0), ==, 0);
    g_assert_cmpint(entry_at(&rig, 64 * K).kind, ==, QCOW2_CLUSTER_COMPRESSED);
    g_assert_false(entry_at(&rig, 64 * K).copied);
    assert_noise(&rig, 64 * K, 512 * K, 30, 1);
    rig_assert_filled(&rig, 0, 64 * K, 0);
    close_clean(&rig);
    rig = rig_open("d", "", NULL);
    assert_noise(&rig, 64 * K, 512 * K, 30, 1);
    close_clean(&rig);
}

static void coroutine_fn refusals_change_nothing(void)
{
    static const struct {
        int64_t offset, bytes;
        int ret;
    } cases[] = {
        { 512, 64 * K, -EINVAL },      { 0, 512, -EINVAL },          { 64 * K, 96 * K, -EINVAL },
        { 0, 64 * K, -EIO },           { 128 * K, 64 * K, -EIO },    { 192 * K, 128 * K, -EIO },
        { 64 * K, 128 * K, -EIO },     { 960 * K, 40 * K, -EINVAL },
    };
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 64 * K, 1), ==, 0);
    g_assert_cmpint(compress(&rig, 128 * K, 64 * K, 2), ==, 0);
    g_assert_cmpint(rig_write(&rig, 256 * K, 64 * K, 3), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 256 * K, 64 * K, 0), ==, 0); /* keeps the space */
    uint64_t writes = bdrv_simdisk_count(disk, BDRV_SIM_WRITE);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("case %u", i);
        g_assert_cmpint(compress(&rig, cases[i].offset, cases[i].bytes, 9), ==, cases[i].ret);
    }
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, writes);
    rig_assert_filled(&rig, 0, 64 * K, 1);
    rig_assert_filled(&rig, 64 * K, 64 * K, 0);
    rig_assert_filled(&rig, 128 * K, 64 * K, 2);
    rig_assert_filled(&rig, 192 * K, 832 * K, 0);
    close_clean(&rig);
}

static void coroutine_fn others_do_not_support_it(void)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("d", 256 * K);
    BdrvChild *raw = test_must_open("raw", "", test_must_open("simdisk", "disk=d", NULL));
    Rig rig = { .child = raw };
    g_assert_cmpint(compress(&rig, 0, 64 * K, 1), ==, -ENOTSUP);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, 0);
    test_close(raw);
}

static void coroutine_fn the_last_cluster_may_be_short(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 100 * K, .cluster_size = 64 * K });
    Rig rig = rig_open("d", "", rig_backing("b", 128 * K, 7)); /* what lies behind the end must not show */
    g_assert_cmpint(compress(&rig, 0, 100 * K, 5), ==, 0);
    rig_assert_filled(&rig, 0, 100 * K, 5);
    GError *error = NULL;
    BlockDriverState *bs = rig.child->bs;
    bs->drv->bdrv_drain_begin(bs);
    g_assert_true(bs->drv->bdrv_truncate(bs, 128 * K, true, BDRV_PREALLOC_OFF, 0, &error));
    bs->drv->bdrv_drain_end(bs);
    bdrv_set_length(bs, 128 * K);
    rig_assert_filled(&rig, 100 * K, 28 * K, 0);
    close_clean(&rig);
}

static void coroutine_fn noise_is_stored_as_it_is(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(write_noise(&rig, 0, 128 * K, 100, 1, 0), ==, 0);
    g_assert_cmpint(compress(&rig, 128 * K, 64 * K, 5), ==, 0);
    g_assert_cmpint(write_noise(&rig, 192 * K, 64 * K, 100, 2, 0), ==, 0);
    g_assert_cmpint(entry_at(&rig, 64 * K).kind, ==, QCOW2_CLUSTER_NORMAL);
    g_assert_cmpint(entry_at(&rig, 128 * K).kind, ==, QCOW2_CLUSTER_COMPRESSED);
    assert_noise(&rig, 0, 128 * K, 100, 1);
    assert_noise(&rig, 192 * K, 64 * K, 100, 2);
    close_clean(&rig);
}

static void coroutine_fn fua_is_a_flush(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(compress(&rig, 0, 64 * K, 5), ==, 0);
    uint64_t flushes = bdrv_simdisk_count(disk, BDRV_SIM_FLUSH);
    g_assert_cmpint(write_noise(&rig, 64 * K, 64 * K, 30, 1, BDRV_REQ_FUA), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_FLUSH), ==, flushes + 2);
    close_clean(&rig);
}

/* ---- packing ---- */

static void coroutine_fn neighbours_share_host_clusters(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    int64_t before = bdrv_simdisk_length(disk);
    g_assert_cmpint(write_noise(&rig, 0, 1024 * K, 40, 1, 0), ==, 0);
    for (int64_t at = 64 * K; at < 1024 * K; at += 64 * K) {
        Qcow2L2Entry last = entry_at(&rig, at - 64 * K), next = entry_at(&rig, at);
        /* Byte to byte: not more than the rest of a sector apart. */
        uint64_t end = last.host_offset + last.compressed_bytes;
        g_assert_cmpuint(next.host_offset, <=, end);
        g_assert_cmpuint(next.host_offset, >, end - 512);
    }
    int64_t taken = bdrv_simdisk_length(disk) - before;
    g_assert_cmpint(taken, <, 640 * K);
    close_clean(&rig);
}

/* Of each cluster in turn; the others stay, whatever they share with it. */
static void coroutine_fn what_shares_sectors_is_left_alone(void)
{
    static const char *const how[] = { "a part is written", "it is discarded", "it is zeroed", "all of it is written" };
    for (unsigned i = 0; i < G_N_ELEMENTS(how); i++) {
        g_test_message("%s", how[i]);
        G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&small);
        Rig rig = rig_open("d", "", NULL);
        for (int64_t at = 0; at < 16 * K; at += 512) {
            g_assert_cmpint(write_noise(&rig, at, 512, 20, (uint64_t)at, 0), ==, 0);
        }
        for (int64_t at = 0; at < 16 * K; at += 1024) {
            int ret = i == 0   ? rig_write(&rig, at + 100, 100, 9)
                      : i == 1 ? bdrv_co_pdiscard(rig.child, at, 512)
                      : i == 2 ? bdrv_co_pwrite_zeroes(rig.child, at, 512, 0)
                               : rig_write(&rig, at, 512, 9);
            g_assert_cmpint(ret, ==, 0);
            if (at % 4096 == 0) {
                g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
                rig_verify(&rig);
            }
        }
        for (int64_t at = 512; at < 16 * K; at += 1024) {
            assert_noise(&rig, at, 512, 20, (uint64_t)at);
        }
        close_clean(&rig);
    }
}

static void coroutine_fn a_cluster_without_references_takes_no_more(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(compress(&rig, 0, 64 * K, 1), ==, 0);
    uint64_t old = entry_at(&rig, 0).host_offset;
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 64 * K), ==, 0);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    g_assert_cmpint(rig_write(&rig, 64 * K, 64 * K, 2), ==, 0);
    g_assert_cmpuint(entry_at(&rig, 64 * K).host_offset, ==, old); /* it is something else now */
    g_assert_cmpint(compress(&rig, 128 * K, 64 * K, 3), ==, 0);
    g_assert_cmpuint(entry_at(&rig, 128 * K).host_offset, >=, old + 64 * K);
    rig_assert_filled(&rig, 64 * K, 64 * K, 2);
    rig_assert_filled(&rig, 128 * K, 64 * K, 3);
    close_clean(&rig);
}

static void coroutine_fn a_drain_ends_the_packing(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    BlockDriverState *bs = rig.child->bs;
    g_assert_cmpint(compress(&rig, 0, 64 * K, 1), ==, 0);
    g_assert_cmpint(compress(&rig, 64 * K, 64 * K, 2), ==, 0);
    uint64_t first = entry_at(&rig, 0).host_offset / (64 * K);
    g_assert_cmpuint(entry_at(&rig, 64 * K).host_offset / (64 * K), ==, first);
    bs->drv->bdrv_drain_begin(bs);
    bs->drv->bdrv_drain_end(bs);
    g_assert_cmpint(compress(&rig, 128 * K, 64 * K, 3), ==, 0);
    g_assert_cmpuint(entry_at(&rig, 128 * K).host_offset / (64 * K), !=, first);
    close_clean(&rig);
}

static void coroutine_fn a_full_count_takes_no_more(void)
{
    static const struct {
        int bits;
        unsigned together;
    } cases[] = { { 1, 1 }, { 2, 3 }, { 4, 15 } };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        RigImage narrow = { .disk = "d", .size = 4096 * K, .cluster_size = 64 * K, .refcount_bits = cases[i].bits };
        G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&narrow);
        Rig rig = rig_open("d", "", NULL);
        for (unsigned n = 0; n < 32; n++) {
            g_assert_cmpint(compress(&rig, n * 64 * K, 64 * K, (uint8_t)(n + 1)), ==, 0);
        }
        uint64_t first = entry_at(&rig, 0).host_offset / (64 * K);
        unsigned together = 0;
        while (entry_at(&rig, together * 64 * K).host_offset / (64 * K) == first) {
            together++;
        }
        g_assert_cmpuint(together, ==, cases[i].together);
        for (unsigned n = 0; n < 32; n++) {
            rig_assert_filled(&rig, n * 64 * K, 64 * K, (uint8_t)(n + 1));
        }
        close_clean(&rig);
    }
}

/* ---- everything together ---- */

/* Rounds of compressed and other changes, compared with what the bytes should be. */
static void coroutine_fn change_all(const RigImage *how, uint64_t seed)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(how);
    Rig rig = rig_open("d", how->cluster_size == 512 ? "l2-cache-size=1k,refcount-cache-size=1k" : "", NULL);
    g_autofree uint8_t *want = g_malloc0((gsize)how->size), *buf = g_malloc((gsize)how->size);
    int64_t clusters = how->size / how->cluster_size;

    for (unsigned round = 0; round < 40; round++) {
        int64_t first = test_random_below(&seed, clusters), n = 1 + test_random_below(&seed, MIN(clusters - first, 20));
        int64_t offset = first * how->cluster_size, bytes = n * how->cluster_size;
        int64_t inner = offset + test_random_below(&seed, bytes / 2), part = 1 + test_random_below(&seed, bytes / 2);
        int ret = 0;

        switch (test_random_below(&seed, 5)) {
        case 0:
            memset(buf, (int)round + 1, (size_t)part);
            ret = bdrv_co_pwrite(rig.child, inner, part, buf, 0);
            memset(want + inner, (int)round + 1, (size_t)part);
            break;
        case 1:
            ret = bdrv_co_pwrite_zeroes(rig.child, inner, part, round % 2 ? BDRV_REQ_MAY_UNMAP : 0);
            memset(want + inner, 0, (size_t)part);
            break;
        case 2:
            ret = bdrv_co_flush(rig.child);
            break;
        default:
            ret = bdrv_co_pdiscard(rig.child, offset, bytes);
            g_assert_cmpint(ret, ==, 0);
            fill(buf, bytes, (unsigned)test_random_below(&seed, 101), seed);
            ret = bdrv_co_pwrite(rig.child, offset, bytes, buf, BDRV_REQ_COMPRESSED);
            memcpy(want + offset, buf, (size_t)bytes);
        }
        g_assert_cmpint(ret, ==, 0);
        if (round % 8 == 0) {
            rig_verify(&rig);
        }
    }
    g_assert_cmpint(rig_read(&rig, 0, how->size, buf), ==, 0);
    g_assert_true(memcmp(buf, want, (size_t)how->size) == 0);
    close_clean(&rig);
}

static void coroutine_fn all_widths_and_sizes(void)
{
    static const int widths[] = { 1, 2, 4, 8, 16, 32, 64 };
    static const int64_t sizes[][2] = { { 512, 64 * K }, { 4 * K, 256 * K }, { 64 * K, 1024 * K }, { 2048 * K, 8192 * K } };
    uint64_t seed = test_seed();
    for (unsigned w = 0; w < G_N_ELEMENTS(widths); w++) {
        for (unsigned s = 0; s < G_N_ELEMENTS(sizes); s++) {
            RigImage how = { .disk = "d", .size = sizes[s][1], .cluster_size = sizes[s][0], .refcount_bits = widths[w] };
            if (sizes[s][0] < 64 * K || w % 3 == 0) {
                change_all(&how, test_random(&seed));
            }
        }
    }
    change_all(&(RigImage){ .disk = "d", .size = 512 * K, .cluster_size = 4 * K, .compat = "0.10" }, test_random(&seed));
}

/* Clusters that a snapshot shares stay as they were, whatever becomes of the active ones. */
static void coroutine_fn snapshots_keep_packed_clusters(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(write_noise(&rig, 0, 16 * K, 20, 1, 0), ==, 0);
    close_clean(&rig);
    surgery_add_snapshot(disk);
    rig_assert_clean("d");
    rig = rig_open("d", "", NULL);
    g_assert_cmpint(compress(&rig, 0, 512, 3), ==, -EIO);
    g_assert_cmpint(rig_write(&rig, 100, 1000, 9), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 2 * K, 6 * K), ==, 0);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    g_assert_cmpint(compress(&rig, 2 * K, 6 * K, 4), ==, 0);
    rig_assert_filled(&rig, 100, 1000, 9);
    rig_assert_filled(&rig, 2 * K, 6 * K, 4);
    close_clean(&rig);
}

/* ---- errors ---- */

/* Whichever call fails, nothing is corrupt, and what had been written before is there. */
static void coroutine_fn every_error_is_survived(void)
{
    bool failed = true;
    for (unsigned nth = 1; failed; nth++) {
        g_autoptr(BdrvSimDisk) disk = rig_create(&small);
        Rig rig = rig_open("d", "l2-cache-size=1k,refcount-cache-size=1k", NULL);
        g_assert_cmpint(write_noise(&rig, 0, 4 * K, 20, 1, 0), ==, 0);
        bdrv_simdisk_fail(disk, BDRV_SIM_WRITE | BDRV_SIM_READ, nth, 1, EIO);
        failed = write_noise(&rig, 4 * K, 60 * K, 40, 2, 0) < 0;
        bdrv_simdisk_fail_none(disk);
        assert_noise(&rig, 0, 4 * K, 20, 1);
        g_assert_true(nth < 2000);
        rig_verify(&rig);
        g_assert_cmpint(rig_close(&rig), ==, 0);
        BdrvCheckResult result;
        g_assert_cmpint(rig_check("d", &result), ==, 0);
        g_assert_cmpint(result.corruptions, ==, 0);
    }
}

/* A data write that fails gives its bytes back: no leak, and the next one may have them. */
static void coroutine_fn a_failed_write_leaks_nothing(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(compress(&rig, 0, 64 * K, 1), ==, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_WRITE, 1, 1, EIO);
    g_assert_cmpint(write_noise(&rig, 64 * K, 256 * K, 30, 1, 0), ==, -EIO);
    rig_assert_filled(&rig, 64 * K, 256 * K, 0);
    g_assert_cmpint(write_noise(&rig, 64 * K, 256 * K, 30, 1, 0), ==, 0);
    assert_noise(&rig, 64 * K, 256 * K, 30, 1);
    close_clean(&rig);
}

/* What waits in limbo is settled before a compressed write gives up. */
static void coroutine_fn space_in_limbo_is_used(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 512 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    bdrv_simdisk_set_capacity(disk, bdrv_simdisk_allocated(disk));
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 512 * K), ==, 0);
    g_assert_cmpint(write_noise(&rig, 0, 512 * K, 50, 1, 0), ==, 0);
    assert_noise(&rig, 0, 512 * K, 50, 1);
    close_clean(&rig);
}

/* ---- side by side ---- */

typedef struct Packer {
    const Rig *rig;
    int64_t offset;
    unsigned *running;
} Packer;

static void coroutine_fn pack_and_drop(void *opaque)
{
    const Packer *packer = opaque;
    for (unsigned round = 0; round < 6; round++) {
        uint64_t seed = (uint64_t)packer->offset + round;
        g_assert_cmpint(write_noise(packer->rig, packer->offset, 8 * K, 30, seed, 0), ==, 0);
        assert_noise(packer->rig, packer->offset, 8 * K, 30, seed);
        if (round < 5) {
            g_assert_cmpint(bdrv_co_pdiscard(packer->rig->child, packer->offset, 8 * K), ==, 0);
        }
    }
    --*packer->running;
}

static void coroutine_fn requests_pack_side_by_side(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    bdrv_simdisk_set_delay(disk, 0, 100000);
    Rig rig = rig_open("d", "l2-cache-size=1k,refcount-cache-size=1k", NULL);
    unsigned running = 8;
    Packer packers[8];
    for (unsigned i = 0; i < 8; i++) {
        packers[i] = (Packer){ &rig, i * 8 * K, &running };
        test_start(pack_and_drop, &packers[i]);
    }
    while (running) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 1000000);
    }
    for (unsigned i = 0; i < 8; i++) {
        assert_noise(&rig, i * 8 * K, 8 * K, 30, i * 8 * K + 5);
    }
    close_clean(&rig);
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/compressed/whole clusters read back", whole_clusters_read_back);
    add("/qcow2/compressed/parts of clusters and allocated ones are refused", refusals_change_nothing);
    add("/qcow2/compressed/other drivers do not support it", others_do_not_support_it);
    add("/qcow2/compressed/the last cluster of the disk may be short", the_last_cluster_may_be_short);
    add("/qcow2/compressed/noise is stored as it is", noise_is_stored_as_it_is);
    add("/qcow2/compressed/FUA is a flush", fua_is_a_flush);
    add("/qcow2/compressed/neighbours share host clusters and sectors", neighbours_share_host_clusters);
    add("/qcow2/compressed/what shares a sector is left alone", what_shares_sectors_is_left_alone);
    add("/qcow2/compressed/a cluster without references takes no more", a_cluster_without_references_takes_no_more);
    add("/qcow2/compressed/a drain ends the packing", a_drain_ends_the_packing);
    add("/qcow2/compressed/a full refcount takes no more", a_full_count_takes_no_more);
    add("/qcow2/compressed/every refcount width and cluster size", all_widths_and_sizes);
    add("/qcow2/compressed/snapshots keep packed clusters", snapshots_keep_packed_clusters);
    add("/qcow2/compressed/every error is survived", every_error_is_survived);
    add("/qcow2/compressed/a failed write leaks nothing", a_failed_write_leaks_nothing);
    add("/qcow2/compressed/space in limbo is used", space_in_limbo_is_used);
    add("/qcow2/compressed/requests pack side by side", requests_pack_side_by_side);
    return g_test_run();
}
