/* SPDX-License-Identifier: MIT */
/* The invariants of builds with -Ddebug_invariants=true: each is broken on purpose, and must be noticed. */

#include "block/io/io.h"
#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/meta/meta_int.h"
#include "tests/unit/qcow2/rig.h"

#define CLUSTER 4096
#define SIZE (64 * CLUSTER)

typedef struct Sabotage {
    const char *what, *noticed;
    void coroutine_fn (*act)(Rig *rig, Qcow2Meta *meta, uint64_t data);
    bool rich; /* on an image with a bitmap, an encryption header, and a snapshot with VM state, in which @data lies */
} Sabotage;

static const Sabotage *current;

/* @data: a cluster that guest offset 0 is mapped to. */
static void coroutine_fn set_count(Qcow2Meta *meta, uint64_t cluster, uint64_t count, bool dirty)
{
    Qcow2Slice *slice;
    pthread_mutex_lock(&meta->rc.lock);
    g_assert_cmpint(qcow2_refslice_get_locked(meta, cluster, true, &slice), ==, 0);
    qcow2_refcount_set(slice->bytes, qcow2_refslice_index(meta, cluster), meta->s->geometry.refcount_order, count);
    if (dirty) {
        qcow2_cache_dirty_locked(&meta->rc, slice);
    }
    pthread_mutex_unlock(&meta->rc.lock);
}

static void coroutine_fn lose_count(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    set_count(meta, data, 0, true);
    meta->free_hint = 0;
}

static void coroutine_fn change_clean_slice(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    set_count(meta, data + 20, 1, false);
}

static void coroutine_fn leak(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    set_count(meta, data + 20, 1, true);
}

static void coroutine_fn call_data_metadata(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    qcow2_cluster_set_add(&meta->metadata, data, 1);
}

static void coroutine_fn forget_metadata(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    qcow2_cluster_set_remove(&meta->metadata, meta->reftable.host_offset / CLUSTER, 1);
}

static void coroutine_fn free_what_is_used(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    qcow2_cluster_set_add(&meta->busy, data, 1);
}

static void coroutine_fn move_hint(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    meta->free_hint = data + 30;
}

static void coroutine_fn stay_inside(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    qcow2_epoch_enter(meta);
}

static void coroutine_fn miscount_dirty(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    meta->l2.dirty_count++;
}

/* An allocation whose count is never written, then its entry. */
static void coroutine_fn skip_phase_a(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    g_assert_cmpint(rig_write(rig, 8 * CLUSTER, CLUSTER, 3), ==, 0);
    for (unsigned i = 0; i < meta->rc.dirty_count; i++) {
        meta->rc.dirty[i]->dirty = false;
    }
    meta->rc.dirty_count = 0;
    bdrv_co_flush(rig->child);
}

/* ---- what lies besides the tables of the disk ---- */

static Qcow2Bitmap *the_bitmap(Qcow2Meta *meta)
{
    return &meta->s->bitmaps.bitmaps[0];
}

static void coroutine_fn lose_directory(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    Qcow2BitmapsExtension b;
    g_assert_true(qcow2_bitmaps_extension_decode(meta->s->extensions.bitmaps, meta->s->extensions.bitmaps_bytes, &b,
                                                 NULL));
    set_count(meta, b.directory_offset / CLUSTER, 0, true);
    meta->free_hint = 0;
}

static void coroutine_fn lose_bitmap_table(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    set_count(meta, the_bitmap(meta)->table_offset / CLUSTER, 0, true);
    meta->free_hint = 0;
}

static void coroutine_fn lose_bits(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    uint64_t *table = qcow2_bitmap_read_table(meta->bs, the_bitmap(meta)->table_offset, 1, NULL);
    g_assert_cmpuint(table[0], >=, CLUSTER);
    set_count(meta, table[0] / CLUSTER, 0, true);
    meta->free_hint = 0;
    g_free(table);
}

static void coroutine_fn leave_directory_behind(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    the_bitmap(meta)->granularity_bits++;
}

static void coroutine_fn set_bits_unmarked(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    bdrv_dirty_bits_set(the_bitmap(meta)->bits, 20 * CLUSTER, 1);
}

static void coroutine_fn forget_that_bits_changed(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    bdrv_dirty_bits_set(the_bitmap(meta)->bits, 20 * CLUSTER, 1);
    atomic_store(&the_bitmap(meta)->bits->changed, false);
}

static void coroutine_fn forget_mark(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    atomic_store(&meta->s->bitmaps_marked, true);
}

static void coroutine_fn lose_encryption_header(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    set_count(meta, meta->s->crypto->offset / CLUSTER + 1, 0, true);
    meta->free_hint = 0;
}

static void coroutine_fn move_key_slot(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    meta->s->crypto->luks.header.slots[1].key_sector++;
}

static void coroutine_fn change_snapshot(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    meta->s->snapshots.snapshots[0].vm_state_size++;
}

static void coroutine_fn change_size(Rig *rig, Qcow2Meta *meta, uint64_t data)
{
    meta->s->header.size += CLUSTER;
}

static const Sabotage sabotages[] = {
    { "a published cluster that is free", "*below the number of references*", lose_count },
    { "a clean slice that differs from the file", "*clean slice is not what the file holds*", change_clean_slice },
    { "a leaked cluster", "*a cluster is leaked*", leak },
    { "guest data in the map of metadata", "*guest data is in the map*", call_data_metadata },
    { "metadata that is not in the map", "*metadata is not in the map*", forget_metadata },
    { "a cluster in use that is about to become free", "*about to become free*", free_what_is_used },
    { "a hint behind free clusters", "*before the hint*", move_hint },
    { "a request that never leaves", "*still counted in its epoch*", stay_inside },
    { "miscounted dirty slices", "*miscounted*", miscount_dirty },
    { "an entry published before its count", "*whose target the file does not count*", skip_phase_a },
    { "a free cluster of VM state", "*below the number of references*", lose_count, .rich = true },
    { "a free bitmap directory", "*below the number of references*", lose_directory, .rich = true },
    { "a free bitmap table", "*below the number of references*", lose_bitmap_table, .rich = true },
    { "free bits of a bitmap", "*below the number of references*", lose_bits, .rich = true },
    { "a bitmap that the directory does not have so", "*not what the directory says*", leave_directory_behind,
      .rich = true },
    { "bits that are set without a mark", "*the directory does not say so*", set_bits_unmarked, .rich = true },
    { "bits that the file does not have", "*bits of a bitmap*not what the file holds*", forget_that_bits_changed,
      .rich = true },
    { "a mark that is not in the directory", "*is not marked in the directory*", forget_mark, .rich = true },
    { "a free encryption header", "*below the number of references*", lose_encryption_header, .rich = true },
    { "a key slot elsewhere than in the file", "*encryption header is not what*", move_key_slot, .rich = true },
    { "a snapshot that the file does not have so", "*a snapshot is not what*", change_snapshot, .rich = true },
    { "a header that the file does not have", "*the header is not what*", change_size, .rich = true },
};

/* Returns the host offset of VM state that only the snapshot has. */
static uint64_t coroutine_fn enrich(Rig *rig)
{
    BlockDriverState *bs = rig->child->bs;
    struct iovec vec = { .iov_base = (void *)"state", .iov_len = 5 };
    BdrvIov iov = bdrv_iov_init(&vec, 1);
    BdrvSnapshotInfo info = { .name = (char *)"s", .vm_state_size = 5 };
    GError *error = NULL;
    Qcow2RawEntry raw;

    bdrv_co_bitmap_add(bs, "b", 0, true, &error);
    g_assert_no_error(error);
    g_assert_cmpint(rig_write(rig, 8 * CLUSTER, CLUSTER, 2), ==, 0);
    g_assert_cmpint(bdrv_co_save_vmstate(bs, 0, &iov), ==, 0);
    g_assert_cmpint(qcow2_l2_read(bs, qcow2_vm_state_offset(bs), &raw, 1), ==, 1);
    bdrv_co_snapshot_create(bs, &info, &error);
    g_assert_no_error(error);
    g_free(info.id);
    bdrv_co_bitmap_enable(bs, "b", true, &error); /* which stores its bits */
    g_assert_no_error(error);
    return raw.entry & QCOW2_OFFSET_MASK;
}

static void coroutine_fn break_one(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = SIZE, .cluster_size = CLUSTER,
                                                          .encrypt = current->rich ? "luks" : NULL });
    Rig rig = rig_open("d", current->rich ? "encrypt.key-secret=" TEST_SECRET : "", NULL);
    uint64_t data = 0;
    BlockDriverState *bs = rig.child->bs;
    Qcow2RawEntry raw;

    g_assert_cmpint(rig_write(&rig, 0, 2 * CLUSTER, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    qcow2_meta_drain_begin(bs);
    if (current->rich) {
        data = enrich(&rig);
    } else {
        g_assert_cmpint(qcow2_l2_read(bs, 0, &raw, 1), ==, 1);
        data = raw.entry & QCOW2_OFFSET_MASK;
    }
    qcow2_meta_verify(bs, true); /* all is well */
    current->act(&rig, qcow2_meta(bs), data / CLUSTER);
    qcow2_meta_verify(bs, true);
}

static void break_is_noticed(gconstpointer data)
{
    current = data;
    if (g_test_subprocess()) {
        test_run(break_one);
        return;
    }
    g_test_trap_subprocess(NULL, 0, G_TEST_SUBPROCESS_DEFAULT);
    g_test_trap_assert_failed();
    g_test_trap_assert_stderr(current->noticed);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(sabotages); i++) {
        g_autofree char *path = g_strdup_printf("/qcow2/invariants/%s is noticed", sabotages[i].what);
        g_test_add_data_func(path, &sabotages[i], break_is_noticed);
    }
    return g_test_run();
}
