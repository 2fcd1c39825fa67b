/* SPDX-License-Identifier: MIT */
/* The metadata layer: errors at every call, flush counts, limbo, overlap guard, snapshots. */

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/meta/cluster_set.h"
#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/rig.h"

#define K 1024

static const RigImage small = { .disk = "d", .size = 256 * K, .cluster_size = 512 };

/* ---- sets ---- */

static void sets_hold_what_was_added(void)
{
    Qcow2ClusterSet set;
    g_assert_true(qcow2_cluster_set_init(&set));
    for (uint64_t i = 0; i < 1000; i++) {
        g_assert_true(qcow2_cluster_set_add(&set, i * 1000003, 3));
    }
    g_assert_true(qcow2_cluster_set_add(&set, 60, 200));
    for (uint64_t i = 1; i < 1000; i++) {
        g_assert_true(qcow2_cluster_set_has_any(&set, i * 1000003 + 2, 1));
        g_assert_false(qcow2_cluster_set_has_any(&set, i * 1000003 + 3, 1000003 - 3));
    }
    qcow2_cluster_set_remove(&set, 64, 100);
    g_assert_true(qcow2_cluster_set_has_any(&set, 60, 4));
    g_assert_false(qcow2_cluster_set_has_any(&set, 64, 100));
    g_assert_true(qcow2_cluster_set_has_any(&set, 64, 101));
    qcow2_cluster_set_destroy(&set);
}

/* ---- flushes ---- */

static uint64_t coroutine_fn flushes_of(BdrvSimDisk *disk, const Rig *rig)
{
    uint64_t before = bdrv_simdisk_count(disk, BDRV_SIM_FLUSH);
    g_assert_cmpint(bdrv_co_flush(rig->child), ==, 0);
    return bdrv_simdisk_count(disk, BDRV_SIM_FLUSH) - before;
}

static void coroutine_fn a_flush_costs_at_most_two(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 4 * K, 1), ==, 0);
    g_assert_cmpuint(flushes_of(disk, &rig), ==, 2); /* pointers changed */
    g_assert_cmpint(rig_write(&rig, 0, 4 * K, 2), ==, 0);
    g_assert_cmpuint(flushes_of(disk, &rig), ==, 1); /* data only */
    g_assert_cmpuint(flushes_of(disk, &rig), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

/* ---- errors ---- */

typedef struct Fault {
    unsigned kinds;
    int error;
} Fault;

/* Some of everything; what a failed operation leaves behind may be either. */
static void coroutine_fn exercise(const Rig *rig, uint8_t fill)
{
    rig_write(rig, 0, 40 * K, fill);
    bdrv_co_flush(rig->child);
    bdrv_co_pdiscard(rig->child, 0, 8 * K);
    rig_write(rig, 100 * K + 100, 3000, fill);
    bdrv_co_pwrite_zeroes(rig->child, 16 * K, 8 * K, 0);
    bdrv_co_flush(rig->child);
    rig_write(rig, 20 * K + 7, 70 * K, fill);
    bdrv_co_flush(rig->child);
}

static void coroutine_fn fail_nth(const Fault *fault, unsigned nth, bool *reached)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "l2-cache-size=1k,refcount-cache-size=1k,l2-cache-entry-size=512", NULL);
    uint64_t before = bdrv_simdisk_count(disk, fault->kinds);
    bdrv_simdisk_fail(disk, fault->kinds, nth, 1, fault->error);
    exercise(&rig, 1);
    *reached = bdrv_simdisk_count(disk, fault->kinds) - before >= nth;
    bdrv_simdisk_fail_none(disk);
    /* The same again works, reads back, and leaves no corruption. */
    g_assert_cmpint(rig_write(&rig, 0, 200 * K, 3), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    rig_assert_filled(&rig, 0, 200 * K, 3);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    BdrvCheckResult result;
    g_assert_cmpint(rig_check("d", &result), ==, 0);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpint(result.check_errors, ==, 0);
    rig = rig_open("d", "", NULL);
    rig_assert_filled(&rig, 0, 200 * K, 3);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

static void coroutine_fn every_call_may_fail(void)
{
    static const Fault faults[] = {
        { BDRV_SIM_WRITE, EIO }, { BDRV_SIM_WRITE, ENOSPC }, { BDRV_SIM_READ, EIO }, { BDRV_SIM_FLUSH, EIO },
        { BDRV_SIM_DISCARD | BDRV_SIM_ZERO | BDRV_SIM_TRUNCATE, EIO },
    };
    for (unsigned f = 0; f < G_N_ELEMENTS(faults); f++) {
        bool reached = true;
        unsigned nth = 1;
        for (; reached && nth < 300; nth++) {
            fail_nth(&faults[f], nth, &reached);
        }
        g_test_message("kinds %x error %d: %u places", faults[f].kinds, faults[f].error, nth - 2);
    }
}

/* A flush that fails tells so, and the next one makes up for it. */
static void coroutine_fn a_failed_flush_is_made_up_for(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 4 * K, 1), ==, 0);
    bdrv_simdisk_fail(disk, BDRV_SIM_FLUSH, 1, 1, EIO);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, -EIO);
    rig_assert_filled(&rig, 0, 4 * K, 1);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    g_autoptr(BdrvSimCut) cut = bdrv_simdisk_cut(disk);
    g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, NULL, "left");
    Rig after = rig_open("left", "", NULL);
    rig_assert_filled(&after, 0, 4 * K, 1);
    g_assert_cmpint(rig_close(&after), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
}

/* ---- limbo ---- */

static void coroutine_fn limbo_waits_for_the_reader(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "", NULL);
    Qcow2Meta *meta = qcow2_state(rig.child->bs)->meta;
    BlockExtent old, now;
    g_assert_cmpint(rig_write(&rig, 0, 512, 1), ==, 0);
    g_assert_cmpint(bdrv_co_block_status(rig.child, 0, 512, &old), ==, 0);
    unsigned epoch = qcow2_epoch_enter(meta); /* somebody who has looked it up */
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 512), ==, 0);
    for (unsigned i = 0; i < 50; i++) {
        g_assert_cmpint(rig_write(&rig, 512 * (i + 1), 512, 2), ==, 0);
        g_assert_cmpint(bdrv_co_block_status(rig.child, 512 * (i + 1), 512, &now), ==, 0);
        g_assert_cmpint(now.host_offset, !=, old.host_offset);
        g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    }
    qcow2_epoch_leave(meta, epoch);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    g_assert_cmpint(rig_write(&rig, 0, 512, 3), ==, 0);
    g_assert_cmpint(bdrv_co_block_status(rig.child, 0, 512, &now), ==, 0);
    g_assert_cmpint(now.host_offset, ==, old.host_offset);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

/* The file cannot grow, but what was just discarded is enough. */
static void coroutine_fn no_space_settles_limbo(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 1024 * K, .cluster_size = 4096 });
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 256 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    bdrv_simdisk_set_capacity(disk, bdrv_simdisk_allocated(disk));
    g_assert_cmpint(rig_write(&rig, 512 * K, 128 * K, 2), ==, -ENOSPC);
    rig_assert_filled(&rig, 512 * K, 128 * K, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 256 * K), ==, 0);
    g_assert_cmpint(rig_write(&rig, 512 * K, 128 * K, 3), ==, 0);
    rig_assert_filled(&rig, 512 * K, 128 * K, 3);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

/*
 * What is discarded is punched by somebody else's commit, which takes its time; whoever finds no space meanwhile
 * waits for it. @start_ns: after so long the writer begins.
 */
typedef struct PunchRace {
    Rig rig;
    int64_t start_ns;
    int write_ret;
    unsigned running;
} PunchRace;

static void coroutine_fn commit_often(void *opaque)
{
    PunchRace *race = opaque;
    for (unsigned i = 0; i < 4; i++) {
        g_assert_cmpint(qcow2_meta_commit(race->rig.child->bs), ==, 0);
    }
    race->running--;
}

static void coroutine_fn write_late(void *opaque)
{
    PunchRace *race = opaque;
    co_sleep_until(aio_clock_ns(aio_context_current()) + race->start_ns);
    race->write_ret = rig_write(&race->rig, 512 * K, 256 * K, 3); /* takes all that was discarded */
    race->running--;
}

/* In the coroutine that makes the hole. */
static void slow_hole(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    if (request->kind == BDRV_SIM_DISCARD) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 20000);
    }
}

static void coroutine_fn race_a_punch(int64_t start_ns)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 1024 * K, .cluster_size = 4096 });
    PunchRace race = { .rig = rig_open("d", "", NULL), .start_ns = start_ns, .write_ret = 1, .running = 2 };
    g_assert_cmpint(rig_write(&race.rig, 0, 256 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(race.rig.child), ==, 0);
    bdrv_simdisk_set_capacity(disk, bdrv_simdisk_allocated(disk));
    for (int64_t at = 252 * K; at >= 0; at -= 4 * K) { /* many small holes, not one large */
        g_assert_cmpint(bdrv_co_pdiscard(race.rig.child, at, 4 * K), ==, 0);
    }
    bdrv_simdisk_set_delay(disk, 1000, 1000);
    bdrv_simdisk_set_hook(disk, slow_hole, NULL);
    test_start(commit_often, &race);
    test_start(write_late, &race);
    while (race.running) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 100);
    }
    bdrv_simdisk_set_hook(disk, NULL, NULL);
    bdrv_simdisk_set_delay(disk, 0, 0);
    g_assert_cmpint(race.write_ret, ==, 0);
    g_assert_cmpint(rig_close(&race.rig), ==, 0);
    rig_assert_clean("d");
}

static void coroutine_fn no_space_waits_for_others_punches(void)
{
    for (int64_t start_ns = 0; start_ns < 200000; start_ns += 4000) {
        race_a_punch(start_ns);
    }
}

/* Memory for large zeroed blocks runs out while this is set: takes the place of GLib's. */
static gsize no_memory_from;

gpointer g_try_malloc0(gsize bytes)
{
    return no_memory_from && bytes >= no_memory_from ? NULL : calloc(1, MAX(bytes, 1));
}

static void coroutine_fn settle_ends_without_memory(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 4096 * K, .cluster_size = 512 });
    Rig rig = rig_open("d", "", NULL);
    g_assert_cmpint(rig_write(&rig, 0, 4096 * K, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    g_assert_cmpint(bdrv_co_pdiscard(rig.child, 0, 4096 * K), ==, 0);
    no_memory_from = 1024; /* the first table of a set that has to grow */
    int ret = qcow2_meta_settle(rig.child->bs);
    no_memory_from = 0;
    g_assert_cmpint(ret, ==, -ENOMEM);
    g_assert_cmpint(qcow2_meta_settle(rig.child->bs), ==, 0);
    rig_assert_filled(&rig, 0, 4096 * K, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

/* ---- the guard ---- */

static uint64_t peek64(BdrvSimDisk *disk, uint64_t offset)
{
    uint64_t value;
    bdrv_simdisk_peek(disk, (int64_t)offset, &value, sizeof(value));
    return GUINT64_FROM_BE(value);
}

/* A damaged image: an L1 entry leads to a refcount block. What reads as an empty L2 entry there holds counts. */
static void coroutine_fn tables_never_overwrite_each_other(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    uint64_t l1_table = peek64(disk, 40), block = peek64(disk, peek64(disk, 48));
    uint64_t entry = GUINT64_TO_BE(block | QCOW2_COPIED);
    uint8_t before[512], after[512];
    bdrv_simdisk_poke(disk, (int64_t)l1_table + 8, &entry, sizeof(entry));
    Rig rig = rig_open("d", "", NULL);
    rig_write(&rig, 32 * K + 40 * 512, 512, 1); /* the 41st entry of the second table */
    bdrv_simdisk_peek(disk, (int64_t)block, before, sizeof(before));
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, -EIO);
    g_assert_nonnull(qcow2_corrupt_message(rig.child->bs));
    rig_close(&rig);
    bdrv_simdisk_peek(disk, (int64_t)block, after, sizeof(after));
    g_assert_cmpmem(before, sizeof(before), after, sizeof(after));
    g_assert_cmpint(peek64(disk, 72) & QCOW2_INCOMPAT_CORRUPT, !=, 0);
}

static void coroutine_fn data_never_hits_metadata(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "", NULL);
    const Qcow2Header *header = &qcow2_state(rig.child->bs)->header;
    Qcow2RawEntry entry = { header->l1_table_offset | QCOW2_COPIED, 0 };
    g_assert_cmpint(qcow2_l2_publish(rig.child->bs, 0, &entry, 1, NULL), ==, 0);
    g_assert_cmpint(rig_write(&rig, 0, 512, 1), ==, -EIO);
    g_assert_nonnull(qcow2_corrupt_message(rig.child->bs));
    g_assert_cmpint(rig_write(&rig, 4096, 512, 1), ==, -EIO); /* all writes have stopped */
    rig_close(&rig);
    uint8_t incompatible;
    bdrv_simdisk_peek(disk, 79, &incompatible, 1);
    g_assert_cmpint(incompatible & QCOW2_INCOMPAT_CORRUPT, !=, 0);
}

static void coroutine_fn a_bad_entry_marks_the_image(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = 256 * K, .cluster_size = 4096 });
    Rig rig = rig_open("d", "", NULL);
    Qcow2RawEntry entry = { 0x5200 | QCOW2_COPIED, 0 }; /* not a multiple of 4096 */
    uint8_t buf[512];
    g_assert_cmpint(qcow2_l2_publish(rig.child->bs, 0, &entry, 1, NULL), ==, 0);
    g_assert_cmpint(rig_read(&rig, 0, 512, buf), ==, -EIO);
    g_assert_nonnull(qcow2_corrupt_message(rig.child->bs));
    rig_close(&rig);
}

/* ---- the header ---- */

typedef struct HeaderChange {
    const Rig *rig;
    Qcow2HeaderEdit *edit;
    int result; /* 1: under way */
} HeaderChange;

static void edit_size(Qcow2Header *header, const void *opaque)
{
    header->size = 512 * K;
}

static void edit_compatible(Qcow2Header *header, const void *opaque)
{
    header->compatible_features |= UINT64_C(1) << 40;
}

static void coroutine_fn change_header(void *opaque)
{
    HeaderChange *change = opaque;
    change->result = qcow2_edit_header(change->rig->child->bs, change->edit, NULL);
}

static void coroutine_fn header_changes_keep_each_other(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "", NULL);
    HeaderChange changes[] = { { &rig, edit_size, 1 }, { &rig, edit_compatible, 1 } };
    bdrv_simdisk_set_delay(disk, 1000, 1000);
    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        co_enter(co_new(change_header, &changes[i]));
    }
    while (changes[0].result > 0 || changes[1].result > 0) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 1000);
    }
    g_assert_cmpint(changes[0].result, ==, 0);
    g_assert_cmpint(changes[1].result, ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    g_assert_cmpuint(peek64(disk, 24), ==, 512 * K);
    g_assert_cmphex(peek64(disk, 80), ==, UINT64_C(1) << 40);
}

/* As when a repair could not load them again. */
static void coroutine_fn without_tables_nothing_is_resized(void)
{
    G_GNUC_UNUSED g_autoptr(BdrvSimDisk) disk = rig_create(&small);
    Rig rig = rig_open("d", "", NULL);
    BlockDriverState *bs = rig.child->bs;
    GError *error = NULL;
    bs->drv->bdrv_drain_begin(bs);
    unsigned drained = qcow2_meta_suspend(bs);
    g_assert_false(bs->drv->bdrv_truncate(bs, 64 * 1024 * K, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_error(error, BDRV_ERROR, EIO);
    g_clear_error(&error);
    g_assert_true(qcow2_meta_resume(bs, drained, NULL));
    bs->drv->bdrv_drain_end(bs);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    rig_assert_clean("d");
}

static void add(const char *path, void (*body)(void))
{
    g_test_add_data_func(path, body, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/meta/a cluster set holds what was added", sets_hold_what_was_added);
    add("/qcow2/meta/a guest flush costs at most two flushes of the file", a_flush_costs_at_most_two);
    add("/qcow2/meta/every call of the file may fail once", every_call_may_fail);
    add("/qcow2/meta/a failed flush is made up for by the next", a_failed_flush_is_made_up_for);
    add("/qcow2/meta/a dropped cluster waits for who may still read it", limbo_waits_for_the_reader);
    add("/qcow2/meta/without space limbo is settled before ENOSPC", no_space_settles_limbo);
    add("/qcow2/meta/without space a punch under way is waited for", no_space_waits_for_others_punches);
    add("/qcow2/meta/settling limbo ends without memory", settle_ends_without_memory);
    add("/qcow2/meta/two tables in one cluster are never written", tables_never_overwrite_each_other);
    add("/qcow2/meta/a data write that would hit metadata is refused", data_never_hits_metadata);
    add("/qcow2/meta/a bad entry marks the image corrupt", a_bad_entry_marks_the_image);
    add("/qcow2/meta/two header changes at once are both there", header_changes_keep_each_other);
    add("/qcow2/meta/without tables nothing is resized", without_tables_nothing_is_resized);
    return g_test_run();
}
