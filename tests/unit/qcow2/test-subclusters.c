/* SPDX-License-Identifier: MIT */
/* Extended L2 entries: what is allocated, copied, zeroed and shown is a subcluster, a 32nd of a cluster. */

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "drivers/qcow2/meta/meta_int.h"
#include "tests/unit/qcow2/rig.h"
#include "tests/unit/qcow2/surgery.h"

#define K 1024
#define CLUSTER (64 * K)
#define SUB (2 * K)

static const RigImage image = { .disk = "d", .size = 1024 * K, .cluster_size = CLUSTER, .extended_l2 = true };

/* Kinds of the subclusters of a cluster, "d" data, "z" zero, "-" backing; runs as numbers before the letter. */
static char *coroutine_fn kinds(const Rig *rig, int64_t offset)
{
    GString *text = g_string_new(NULL);
    for (int64_t at = offset; at < offset + CLUSTER;) {
        BlockExtent extent;
        g_assert_cmpint(bdrv_co_block_status(rig->child, at, offset + CLUSTER - at, &extent), ==, 0);
        g_assert_cmpint(extent.bytes % SUB, ==, 0);
        g_string_append_printf(text, "%d%c", (int)(extent.bytes / SUB),
                               extent.kind == EXTENT_DATA ? 'd' : extent.kind == EXTENT_ZERO ? 'z' : '-');
        at += extent.bytes;
    }
    return g_string_free(text, FALSE);
}

static void coroutine_fn assert_kinds(const Rig *rig, int64_t offset, const char *expected)
{
    g_autofree char *found = kinds(rig, offset);
    g_assert_cmpstr(found, ==, expected);
}

static int64_t coroutine_fn place_of(const Rig *rig, int64_t offset)
{
    BlockExtent extent;
    g_assert_cmpint(bdrv_co_block_status(rig->child, offset, 512, &extent), ==, 0);
    return extent.host_offset;
}

static void coroutine_fn close_clean(Rig *rig)
{
    rig_verify(rig);
    g_assert_cmpint(rig_close(rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn only_what_is_touched_is_copied(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, rig_backing("b", 1024 * K, 3));
    g_autoptr(BdrvSimDisk) backing = bdrv_simdisk_find("b");

    g_assert_cmpint(rig_write(&rig, 4 * K, 4 * K, 5), ==, 0); /* two whole ones: nothing to copy */
    g_assert_cmpuint(bdrv_simdisk_count(backing, BDRV_SIM_READ), ==, 0);
    assert_kinds(&rig, 0, "2-2d28-");
    int64_t place = place_of(&rig, 4 * K);

    g_assert_cmpint(rig_write(&rig, 20 * K + 512, 3 * K, 6), ==, 0); /* parts of two: one read before, one behind */
    g_assert_cmpuint(bdrv_simdisk_count(backing, BDRV_SIM_READ), ==, 2);
    assert_kinds(&rig, 0, "2-2d6-2d20-");
    g_assert_cmpint(place_of(&rig, 20 * K), ==, place + 16 * K); /* in the cluster's own space */

    g_assert_cmpint(rig_write(&rig, 5 * K, 16 * K, 7), ==, 0); /* across all of it */
    g_assert_cmpuint(bdrv_simdisk_count(backing, BDRV_SIM_READ), ==, 2);
    assert_kinds(&rig, 0, "2-10d20-");
    rig_assert_filled(&rig, 0, 4 * K, 3);
    rig_assert_filled(&rig, 4 * K, K, 5);
    rig_assert_filled(&rig, 5 * K, 16 * K, 7);
    rig_assert_filled(&rig, 21 * K, 2 * K + 512, 6);
    rig_assert_filled(&rig, 23 * K + 512, 104 * K, 3);
    close_clean(&rig);
    rig = rig_open("d", NULL, NULL);
    assert_kinds(&rig, 0, "2-10d20-");
    rig_assert_filled(&rig, 5 * K, 16 * K, 7);
    close_clean(&rig);
}

static void coroutine_fn zeroes_go_by_subclusters(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, rig_backing("b", 1024 * K, 3));

    g_assert_cmpint(rig_write(&rig, 0, 16 * K, 5), ==, 0);
    int64_t place = place_of(&rig, 0);
    uint64_t writes = bdrv_simdisk_count(disk, BDRV_SIM_WRITE);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 4 * K, 4 * K, BDRV_REQ_NO_FALLBACK), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 40 * K, 2 * K, BDRV_REQ_NO_FALLBACK), ==, 0);
    g_assert_cmpuint(bdrv_simdisk_count(disk, BDRV_SIM_WRITE), ==, writes);
    assert_kinds(&rig, 0, "2d2z4d12-1z11-");
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 5 * K, K, BDRV_REQ_NO_FALLBACK), ==, 0); /* is zero already */
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 9 * K, K, BDRV_REQ_NO_FALLBACK), ==, -ENOTSUP);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 9 * K, 9 * K, 0), ==, 0); /* the first one is written in part */
    assert_kinds(&rig, 0, "2d2z1d4z11-1z11-");
    rig_assert_filled(&rig, 0, 4 * K, 5);
    rig_assert_filled(&rig, 4 * K, 4 * K, 0);
    rig_assert_filled(&rig, 8 * K, K, 5);
    rig_assert_filled(&rig, 9 * K, 9 * K, 0);
    rig_assert_filled(&rig, 18 * K, 22 * K, 3);
    rig_assert_filled(&rig, 40 * K, 2 * K, 0);
    g_assert_cmpint(rig_write(&rig, 4 * K + 512, 512, 8), ==, 0); /* filled where it is */
    g_assert_cmpint(place_of(&rig, 4 * K), ==, place + 4 * K);
    rig_assert_filled(&rig, 4 * K, 512, 0);
    rig_assert_filled(&rig, 5 * K, 3 * K, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 0, CLUSTER, 0), ==, 0);
    assert_kinds(&rig, 0, "32z");
    g_assert_cmpint(place_of(&rig, 0), ==, place);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 0, CLUSTER, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(place_of(&rig, 0), ==, -1);
    close_clean(&rig);
}

static void coroutine_fn the_last_zeroes_free_the_cluster(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, NULL);
    g_assert_cmpint(rig_write(&rig, 0, CLUSTER, 5), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 0, 62 * K, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(place_of(&rig, 0), >, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 62 * K, 2 * K, BDRV_REQ_MAY_UNMAP), ==, 0);
    g_assert_cmpint(place_of(&rig, 0), ==, -1);
    assert_kinds(&rig, 0, "32z");
    close_clean(&rig);
}

static void coroutine_fn discard_wants_whole_clusters(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, rig_backing("b", 1024 * K, 3));
    g_assert_cmpint(rig_write(&rig, 0, 8 * K, 5), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 62 * K), ==, 0);
    assert_kinds(&rig, 0, "4d28-");
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 2 * CLUSTER), ==, 0);
    assert_kinds(&rig, 0, "32z");
    assert_kinds(&rig, CLUSTER, "32z");
    g_assert_cmpint(place_of(&rig, 0), ==, -1);
    close_clean(&rig);
}

/* A cluster that a snapshot shares moves: what it had goes along, what it had not is not copied. */
static void coroutine_fn shared_clusters_move_in_parts(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, rig_backing("b", 1024 * K, 3));
    g_assert_cmpint(rig_write(&rig, 0, 4 * K, 5), ==, 0);
    g_assert_cmpint(rig_write(&rig, 12 * K, 2 * K, 6), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 6 * K, 2 * K, 0), ==, 0);
    g_assert_cmpint(rig_write(&rig, 60 * K, 4 * K, 7), ==, 0);
    int64_t place = place_of(&rig, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    surgery_add_snapshot(disk);

    rig = rig_open("d", NULL, rig_backing("b2", 1024 * K, 3));
    g_autoptr(BdrvSimDisk) backing = bdrv_simdisk_find("b2");
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 2 * K, 2 * K, 0), ==, 0); /* the bitmap alone: it need not move */
    g_assert_cmpint(place_of(&rig, 0), ==, place);
    g_assert_cmpint(rig_write(&rig, 20 * K, 2 * K, 8), ==, 0);
    g_assert_cmpint(place_of(&rig, 0), !=, place);
    g_assert_cmpuint(bdrv_simdisk_count(backing, BDRV_SIM_READ), ==, 0);
    assert_kinds(&rig, 0, "1d1z1-1z2-1d3-1d19-2d");
    rig_assert_filled(&rig, 0, 2 * K, 5);
    rig_assert_filled(&rig, 2 * K, 2 * K, 0);
    rig_assert_filled(&rig, 4 * K, 2 * K, 3);
    rig_assert_filled(&rig, 6 * K, 2 * K, 0);
    rig_assert_filled(&rig, 12 * K, 2 * K, 6);
    rig_assert_filled(&rig, 20 * K, 2 * K, 8);
    rig_assert_filled(&rig, 22 * K, 38 * K, 3);
    rig_assert_filled(&rig, 60 * K, 4 * K, 7);
    close_clean(&rig);
}

static void coroutine_fn compressed_clusters_become_whole(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, NULL);
    g_assert_cmpint(rig_write(&rig, 0, 2 * CLUSTER, 5), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    surgery_compress(disk, &(SurgeryCompress){ .count = 2 });
    rig = rig_open("d", NULL, NULL);
    rig_assert_filled(&rig, 0, 2 * CLUSTER, 5);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 4 * K, 2 * K, BDRV_REQ_NO_FALLBACK), ==, -ENOTSUP);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, 4 * K, 2 * K, 0), ==, 0);
    assert_kinds(&rig, 0, "32d");
    rig_assert_filled(&rig, 0, 4 * K, 5);
    rig_assert_filled(&rig, 4 * K, 2 * K, 0);
    rig_assert_filled(&rig, 6 * K, 58 * K, 5);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig.child, CLUSTER, CLUSTER, BDRV_REQ_NO_FALLBACK), ==, 0);
    assert_kinds(&rig, CLUSTER, "32z");
    close_clean(&rig);
}

/* Space that nobody has written shows the backing file, and is filled where it is. */
static void coroutine_fn preallocated_space_shows_the_backing_file(void)
{
    RigImage with_space = image;
    with_space.preallocation = "metadata";
    g_autoptr(BdrvSimDisk) disk = rig_create(&with_space);
    Rig rig = rig_open("d", NULL, rig_backing("b", 1024 * K, 3));
    int64_t place = place_of(&rig, 0);
    g_assert_cmpint(place, >, 0);
    rig_assert_filled(&rig, 0, 1024 * K, 3);
    g_assert_cmpint(rig_write(&rig, 3 * K, K, 5), ==, 0);
    g_assert_cmpint(place_of(&rig, 2 * K), ==, place + 2 * K);
    assert_kinds(&rig, 0, "1-1d30-");
    rig_assert_filled(&rig, 2 * K, K, 3);
    rig_assert_filled(&rig, 3 * K, K, 5);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, CLUSTER, CLUSTER), ==, 0);
    g_assert_cmpint(place_of(&rig, CLUSTER), ==, -1);
    rig_assert_filled(&rig, CLUSTER, CLUSTER, 0);
    close_clean(&rig);
}

static bool coroutine_fn grow(const Rig *rig, int64_t length)
{
    GError *error = NULL;
    bool ok = bdrv_co_truncate(rig->child, length, true, BDRV_PREALLOC_OFF, 0, &error);
    g_assert_no_error(error);
    return ok;
}

/* The disk ended in the middle of a subcluster, behind others; what lay past the end must not show. */
static void coroutine_fn growing_hides_the_rest_of_the_last_cluster(void)
{
    RigImage odd = image;
    odd.size = CLUSTER + 9 * K;
    g_autoptr(BdrvSimDisk) disk = rig_create(&odd);
    Rig rig = rig_open("d", NULL, rig_backing("b", 1024 * K, 3));
    g_assert_cmpint(rig_write(&rig, CLUSTER + 4 * K, 2 * K, 5), ==, 0);
    g_assert_true(grow(&rig, CLUSTER + 30 * K));
    assert_kinds(&rig, 0, "32-");
    rig_assert_filled(&rig, CLUSTER, 4 * K, 3);
    rig_assert_filled(&rig, CLUSTER + 4 * K, 2 * K, 5);
    rig_assert_filled(&rig, CLUSTER + 6 * K, 3 * K, 3);
    rig_assert_filled(&rig, CLUSTER + 9 * K, 21 * K, 0);
    g_assert_true(grow(&rig, 4 * CLUSTER));
    assert_kinds(&rig, CLUSTER, "2-1d1-1d27z");
    assert_kinds(&rig, 2 * CLUSTER, "32z");
    rig_assert_filled(&rig, CLUSTER + 9 * K, 2 * CLUSTER, 0);
    close_clean(&rig);
}

static void coroutine_fn senseless_bitmaps_stop_the_image(void)
{
    static const struct {
        Qcow2RawEntry raw;
        const char *message;
    } cases[] = {
        { { 0x50000 | QCOW2_COPIED, UINT64_C(0x100000001) }, "*both allocated and zero*" },
        { { 0, 0x10 }, "*allocated, but the cluster is not*" },
        { { QCOW2_COMPRESSED | 0x50000, 1 }, "*a compressed cluster has a subcluster bitmap*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(BdrvSimDisk) disk = rig_create(&image);
        Rig rig = rig_open("d", NULL, NULL);
        uint8_t buf[512];
        g_assert_cmpint(qcow2_l2_publish(rig.child->bs, 0, &cases[i].raw, 1, NULL), ==, 0);
        g_assert_cmpint(rig_read(&rig, 0, 512, buf), ==, -EIO);
        g_assert_true(g_pattern_match_simple(cases[i].message, qcow2_corrupt_message(rig.child->bs)));
        g_assert_cmpint(rig_write(&rig, 512 * K, 512, 1), ==, -EIO);
        rig_close(&rig);
    }
}

/* ---- words of one entry ---- */

#define CHANGES 20000

typedef struct Torn {
    Qcow2Cache *cache;
    uint64_t tag;
    _Atomic bool done;
    _Atomic unsigned seen; /* reads that were answered */
} Torn;

/* The two words of what is stored are always alike; one of each would not be. */
static void *read_entries(void *opaque)
{
    Torn *torn = opaque;
    while (!atomic_load(&torn->done)) {
        Qcow2RawEntry entries[4];
        if (qcow2_cache_read_entries(torn->cache, torn->tag, 0, 4, entries)) {
            for (unsigned i = 0; i < 4; i++) {
                g_assert_cmphex(entries[i].entry, ==, entries[i].bitmap);
            }
            atomic_fetch_add(&torn->seen, 1);
        }
    }
    return NULL;
}

static void coroutine_fn readers_never_see_half_an_entry(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&image);
    Rig rig = rig_open("d", NULL, NULL);
    Qcow2Meta *meta = qcow2_meta(rig.child->bs);
    Qcow2RawEntry same[4] = { { 0, 0 } };
    pthread_t threads[2];

    g_assert_cmpint(qcow2_l2_publish(rig.child->bs, 0, same, 4, NULL), ==, 0); /* loads the slice */
    Torn torn = { .cache = &meta->l2, .tag = qcow2_table_get(&meta->l1, 0) & QCOW2_OFFSET_MASK };
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        g_assert_cmpint(pthread_create(&threads[i], NULL, read_entries, &torn), ==, 0);
    }
    /* At least so many changes, and until there were reads between them. */
    for (uint64_t n = 1; n <= CHANGES || atomic_load(&torn.seen) < 1000; n++) {
        for (unsigned i = 0; i < 4; i++) {
            same[i] = (Qcow2RawEntry){ n * 512, n * 512 };
        }
        pthread_mutex_lock(&meta->l2.lock);
        Qcow2Slice *slice = qcow2_cache_find_locked(&meta->l2, torn.tag);
        qcow2_cache_store_locked(&meta->l2, slice, 0, same, 4, NULL);
        pthread_mutex_unlock(&meta->l2.lock);
        if (n % 64 == 0) {
            sched_yield();
        }
    }
    atomic_store(&torn.done, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    memset(same, 0, sizeof(same));
    g_assert_cmpint(qcow2_l2_publish(rig.child->bs, 0, same, 4, NULL), ==, 0);
    close_clean(&rig);
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/qcow2/subclusters/only subclusters that a write touches are copied", only_what_is_touched_is_copied);
    add("/qcow2/subclusters/write-zeroes goes by subclusters", zeroes_go_by_subclusters);
    add("/qcow2/subclusters/the last zeroes that may unmap free the cluster", the_last_zeroes_free_the_cluster);
    add("/qcow2/subclusters/a discard wants whole clusters", discard_wants_whole_clusters);
    add("/qcow2/subclusters/a shared cluster moves with the parts it has", shared_clusters_move_in_parts);
    add("/qcow2/subclusters/a part of a compressed cluster makes all of it data", compressed_clusters_become_whole);
    add("/qcow2/subclusters/preallocated space shows the backing file", preallocated_space_shows_the_backing_file);
    add("/qcow2/subclusters/growing hides what lies past the old end", growing_hides_the_rest_of_the_last_cluster);
    add("/qcow2/subclusters/readers without a lock never see half an entry", readers_never_see_half_an_entry);
    add("/qcow2/subclusters/senseless bitmaps stop the image", senseless_bitmaps_stop_the_image);
    return g_test_run();
}
