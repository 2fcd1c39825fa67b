/* SPDX-License-Identifier: MIT */
/* The invariants of builds with -Ddebug_invariants=true: each is broken on purpose, and must be noticed. */

#include "drivers/qcow2/meta/meta_int.h"
#include "tests/unit/qcow2/rig.h"

#define CLUSTER 4096
#define SIZE (64 * CLUSTER)

typedef struct Sabotage {
    const char *what, *noticed;
    void coroutine_fn (*act)(Rig *rig, Qcow2Meta *meta, uint64_t data);
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
};

static void coroutine_fn break_one(void)
{
    g_autoptr(BdrvSimDisk) disk = rig_create(&(RigImage){ .disk = "d", .size = SIZE, .cluster_size = CLUSTER });
    Rig rig = rig_open("d", "", NULL);
    BlockDriverState *bs = rig.child->bs;
    Qcow2RawEntry raw;

    g_assert_cmpint(rig_write(&rig, 0, 2 * CLUSTER, 1), ==, 0);
    g_assert_cmpint(bdrv_co_flush(rig.child), ==, 0);
    qcow2_meta_drain_begin(bs);
    qcow2_meta_verify(bs, true); /* all is well */
    g_assert_cmpint(qcow2_l2_read(bs, 0, &raw, 1), ==, 1);
    current->act(&rig, qcow2_meta(bs), (raw.entry & QCOW2_OFFSET_MASK) / CLUSTER);
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
