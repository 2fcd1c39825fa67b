/* SPDX-License-Identifier: MIT */
#include "tests/crash/ops.h"

#include <bdrv/bitmap.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/qcow2.h"

/* ---- where ---- */

/* They differ in what they hold: zeroed, dropped, written, the end of that, never written, past the end (until the disk
 * grows). */
static int64_t place(const CrashImage *image, unsigned n)
{
    const int64_t places[] = { 0, CRASH_SIZE / 8 + 4096, CRASH_SIZE / 4 - 4096, CRASH_SIZE / 2 - 4096,
                               crash_image_size(image) };
    return places[n];
}

static bool at_cluster(const CrashImage *image, unsigned variant, CrashStep *step)
{
    step->offset = place(image, variant) / image->cluster_size * image->cluster_size;
    step->bytes = 8192;
    return true;
}

static bool in_clusters(const CrashImage *image, unsigned variant, CrashStep *step)
{
    bool small = image->cluster_size == 512;
    step->offset = place(image, variant) + (small ? 0 : 512);
    step->bytes = small ? 1536 : image->cluster_size * 3 / 2;
    return true;
}

static bool for_zeroes(const CrashImage *image, unsigned variant, CrashStep *step)
{
    step->offset = place(image, variant / 2 + 1);
    step->bytes = 8192;
    step->flags = variant % 2 ? BDRV_REQ_MAY_UNMAP : 0;
    step->fill = 0;
    return true;
}

/* Whole clusters only. Version 2 cannot discard over a backing file. */
static bool for_discard(const CrashImage *image, unsigned variant, CrashStep *step)
{
    bool ok = at_cluster(image, variant, step) && !(image->compat && image->backing);
    step->bytes = MAX(step->bytes, image->cluster_size);
    step->fill = 0;
    return ok;
}

/* Not where zeroes keep the space. */
static bool for_compressed(const CrashImage *image, unsigned variant, CrashStep *step)
{
    bool ok = at_cluster(image, variant, step) && !(image->compat && image->backing);
    step->bytes = MAX(step->bytes, image->cluster_size); /* whole clusters only */
    step->flags = BDRV_REQ_COMPRESSED;
    return ok && !image->data_file && !image->encrypt && !(image->options && strstr(image->options, "discard-no-unref"));
}

static bool for_fua(const CrashImage *image, unsigned variant, CrashStep *step)
{
    step->offset = place(image, variant * 2 + 1);
    step->bytes = 1024;
    step->flags = BDRV_REQ_FUA;
    return true;
}

/* All that one L2 table maps. */
static bool whole_l2_range(const CrashImage *image, unsigned variant, CrashStep *step)
{
    step->offset = 0;
    step->bytes = image->cluster_size / 8 * image->cluster_size;
    return step->bytes <= crash_image_size(image);
}

static bool for_truncate(const CrashImage *image, unsigned variant, CrashStep *step)
{
    step->size = variant ? SIZE_LARGE : SIZE_GROWN;
    /* Megabytes of data files, fixed images and block maps would be looked at. */
    bool much = (image->data_file && (image->cluster_size > 512 || image->data_file_raw)) || image->fixed ||
                (image->vdi && image->cluster_size > 1024);
    return !(variant && much);
}

static bool for_shrink(const CrashImage *image, unsigned variant, CrashStep *step)
{
    step->size = SIZE_SHRUNK;
    return !image->bitmap || image->missing; /* see judge_bitmap() */
}

/* A count of one bit has no room for a second reference. */
static bool for_snapshot(const CrashImage *image, unsigned variant, CrashStep *step)
{
    return image->refcount_bits > 1 && !image->data_file;
}

/* What the image has, or how it is opened, may need version 3. */
static bool for_version_2(const CrashImage *image, unsigned variant, CrashStep *step)
{
    return !image->extended_l2 && !image->data_file && !image->bitmap &&
           !(image->options && (strstr(image->options, "lazy-refcounts") || strstr(image->options, "discard-no-unref")));
}

/* Bitmaps tell what was written; an applied snapshot is not. */
static bool for_apply(const CrashImage *image, unsigned variant, CrashStep *step)
{
    return for_snapshot(image, variant, step) && !image->bitmap;
}

static bool for_bitmap(const CrashImage *image, unsigned variant, CrashStep *step)
{
    return image->bitmap;
}

static bool for_create(const CrashImage *image, unsigned variant, CrashStep *step)
{
    step->size = SIZE_BASE;
    return image->start != START_READY && !(image->vdi && variant == 2);
}

static bool for_keys(const CrashImage *image, unsigned variant, CrashStep *step)
{
    return crash_has_keys(image);
}

/* A raw data file shows all that there is. */
static bool not_raw(const CrashImage *image, unsigned variant, CrashStep *step)
{
    return !image->data_file_raw;
}

static bool anywhere(const CrashImage *image, unsigned variant, CrashStep *step)
{
    return true;
}

/* ---- what may be read ---- */

static void expect_fill(CrashRun *run, const CrashStep *step, uint32_t operation)
{
    model_write(&run->model, operation, (unsigned)(step->offset / 512), (unsigned)(step->bytes / 512), step->fill);
}

static void expect_size(CrashRun *run, const CrashStep *step, uint32_t operation)
{
    model_write(&run->model, operation, MODEL_SIZE, 1, (uint8_t)step->size);
}

/* Nothing of what was cut off comes back with a later growth. */
static void expect_cut(CrashRun *run, const CrashStep *step, uint32_t operation)
{
    unsigned first = (unsigned)(crash_size_bytes(run->image, step->size) / 512);
    model_write(&run->model, operation, first, MODEL_SECTORS - first, 0);
}

static void expect_empty(CrashRun *run, const CrashStep *step, uint32_t operation)
{
    int64_t length = run->rig.child->bs->length;
    for (unsigned i = 0; i < MODEL_SECTORS && i * 512 < length; i++) {
        bool shows = run->image->backing && i * 512 < CRASH_BACKING_BYTES;
        model_write(&run->model, operation, i, 1, shows ? CRASH_BACKING : 0);
    }
}

static void expect_create(CrashRun *run, const CrashStep *step, uint32_t operation)
{
    model_write(&run->model, operation, MODEL_SIZE, 1, SIZE_NO_IMAGE);
    model_write(&run->model, operation, MODEL_SIZE, 1, (uint8_t)step->size);
    model_write(&run->model, operation, 0, MODEL_SECTORS, 0);
}

/* Nothing of what was there shows through a new image. */
static bool old_or_empty(const CrashReading *reading)
{
    return reading->size != SIZE_BASE || bdrv_buffer_is_zero(reading->values, sizeof(reading->values));
}

/* ---- doing it ---- */

/* Not every driver has something to stop. */
static void coroutine_fn drain_begin(BlockDriverState *bs)
{
    if (bs->drv->bdrv_drain_begin) {
        bs->drv->bdrv_drain_begin(bs);
    }
}

static void coroutine_fn drain_end(BlockDriverState *bs)
{
    if (bs->drv->bdrv_drain_end) {
        bs->drv->bdrv_drain_end(bs);
    }
}

static int coroutine_fn run_write(CrashRun *run, const CrashStep *step)
{
    g_autofree uint8_t *buf = g_malloc((gsize)step->bytes);
    crash_fill(buf, step->offset, step->bytes, step->fill);
    return bdrv_co_pwrite(run->rig.child, step->offset, step->bytes, buf, step->flags);
}

static int coroutine_fn run_zeroes(CrashRun *run, const CrashStep *step)
{
    return bdrv_co_pwrite_zeroes(run->rig.child, step->offset, step->bytes, step->flags);
}

/* A part of a step, with an operation of its own. */
static int coroutine_fn run_part(CrashRun *run, const CrashStep *part, int coroutine_fn (*func)(CrashRun *, const CrashStep *))
{
    uint32_t operation = model_begin(&run->model);
    expect_fill(run, part, operation);
    int ret = func(run, part);
    if (ret < 0) {
        model_failed(&run->model, operation);
    } else {
        model_end(&run->model, operation, false);
    }
    return ret;
}

static bool coroutine_fn has_space(CrashRun *run, const CrashStep *step)
{
    BlockExtent extent = { 0 };
    for (int64_t at = step->offset; at < step->offset + step->bytes && !extent.allocated; at += extent.bytes) {
        if (bdrv_co_block_status(run->rig.child, at, step->offset + step->bytes - at, &extent) < 0) {
            return false;
        }
    }
    return extent.allocated;
}

/* A compressed write takes what has no space: first the range gives up what it has. Somebody may have written meanwhile. */
static int coroutine_fn run_compressed(CrashRun *run, const CrashStep *step)
{
    CrashStep zeroes = *step;
    zeroes.fill = 0;
    zeroes.flags = BDRV_REQ_MAY_UNMAP;
    int ret = run_part(run, &zeroes, run_zeroes);
    if (ret < 0) {
        return ret;
    }
    ret = run_part(run, step, run_write);
    return ret == -EIO && has_space(run, step) ? 0 : ret;
}

/* Amending changes what the image began with. */
static bool is_version_2(const CrashRun *run)
{
    return !run->image->vdi && qcow2_state(run->rig.child->bs)->geometry.version < 3;
}

static int coroutine_fn run_discard(CrashRun *run, const CrashStep *step)
{
    if (is_version_2(run) && run->image->backing) {
        return run_zeroes(run, step); /* it cannot discard over a backing file */
    }
    return bdrv_co_pdiscard(run->rig.child, step->offset, step->bytes);
}

static int coroutine_fn run_flush(CrashRun *run, const CrashStep *step)
{
    return bdrv_co_flush(run->rig.child);
}

static int coroutine_fn run_truncate(CrashRun *run, const CrashStep *step)
{
    BlockDriverState *bs = run->rig.child->bs;
    GError *error = NULL;
    drain_begin(bs);
    bool ok = bs->drv->bdrv_truncate(bs, crash_size_bytes(run->image, step->size), true, BDRV_PREALLOC_OFF, 0, &error);
    drain_end(bs);
    int ret = ok ? bdrv_co_refresh_length(bs) : -bdrv_error_code(error);
    g_clear_error(&error);
    return ret;
}

/* The id of the first snapshot that there is, 0: none. @next: what another one would get; ids follow one another */
static unsigned first_snapshot(const CrashRun *run, unsigned *next)
{
    BlockDriverState *bs = run->rig.child->bs;
    BdrvSnapshotInfo *list = NULL;
    int count = bs->drv->bdrv_snapshot_list(bs, &list);
    unsigned id = count > 0 ? (unsigned)atoi(list[0].id) : 0;
    for (int i = 0; i < count; i++) {
        g_free(list[i].id);
        g_free(list[i].name);
    }
    g_free(list);
    *next = id ? id + (unsigned)count : 1;
    return id;
}

/* What the disk becomes is known before, since nothing else runs. */
static void expect_snapshot(CrashRun *run, const CrashStep *step, uint32_t operation)
{
    unsigned next, id = first_snapshot(run, &next);
    if (id) {
        model_restore(&run->model, operation, run->kept[id]);
    }
}

static void keep(CrashRun *run, unsigned id)
{
    g_assert_cmpuint(id, <, CRASH_SNAPSHOTS);
    g_clear_pointer(&run->kept[id], model_sets_unref);
    run->kept[id] = model_present(&run->model);
}

typedef enum SnapshotAction { SNAPSHOT_CREATE, SNAPSHOT_APPLY, SNAPSHOT_DELETE } SnapshotAction;

static int coroutine_fn snapshot_action(CrashRun *run, SnapshotAction action)
{
    BlockDriverState *bs = run->rig.child->bs;
    BdrvSnapshotInfo info = { .name = (char *)"x" };
    GError *error = NULL;
    char id[12];
    unsigned next, first = first_snapshot(run, &next);
    if (action != SNAPSHOT_CREATE && !first) {
        return bdrv_co_flush(run->rig.child); /* it is durable all the same */
    }
    if (action == SNAPSHOT_CREATE) {
        keep(run, next); /* also if it fails: it may be there all the same */
    }
    g_snprintf(id, sizeof(id), "%u", first);
    drain_begin(bs);
    bool ok = action == SNAPSHOT_CREATE  ? bs->drv->bdrv_snapshot_create(bs, &info, &error)
              : action == SNAPSHOT_APPLY ? bs->drv->bdrv_snapshot_goto(bs, id, &error)
                                         : bs->drv->bdrv_snapshot_delete(bs, id, NULL, &error);
    drain_end(bs);
    int ret = ok ? bdrv_co_refresh_length(bs) : -bdrv_error_code(error);
    g_free(info.id);
    g_clear_error(&error);
    return ret;
}

static int coroutine_fn run_snapshot_create(CrashRun *run, const CrashStep *step)
{
    return snapshot_action(run, SNAPSHOT_CREATE);
}

static int coroutine_fn run_snapshot_apply(CrashRun *run, const CrashStep *step)
{
    return snapshot_action(run, SNAPSHOT_APPLY);
}

static int coroutine_fn run_snapshot_delete(CrashRun *run, const CrashStep *step)
{
    return snapshot_action(run, SNAPSHOT_DELETE);
}

static bool has_bitmap(BlockDriverState *bs, const char *name)
{
    BdrvBitmapInfo *list;
    int count = bs->drv->bdrv_bitmap_list(bs, &list, NULL);
    bool found = false;
    for (int i = 0; i < count; i++) {
        found = found || g_str_equal(list[i].name, name);
    }
    bdrv_bitmap_list_free(list, MAX(count, 0));
    return found;
}

static bool coroutine_fn merge_bitmaps(BlockDriverState *bs, GError **errp)
{
    g_autoptr(BdrvDirtyBits) bits = bs->drv->bdrv_bitmap_read(bs, "b", errp);
    return bits && bs->drv->bdrv_bitmap_merge(bs, "x", bits, errp);
}

/* A bitmap "x" comes and goes beside "b", and changes; in the end "b" goes. */
static int coroutine_fn run_bitmap(CrashRun *run, const CrashStep *step)
{
    BlockDriverState *bs = run->rig.child->bs;
    const BlockDriver *drv = bs->drv;
    bool there = has_bitmap(bs, step->variant == 4 ? "b" : "x"), ok = false;
    GError *error = NULL;
    if (!there && step->variant > 1) {
        return bdrv_co_flush(run->rig.child); /* it is durable all the same */
    }
    drain_begin(bs);
    switch (step->variant) {
    case 0: ok = there ? drv->bdrv_bitmap_remove(bs, "x", &error) : drv->bdrv_bitmap_add(bs, "x", 4096, true, &error); break;
    case 1: ok = there ? drv->bdrv_bitmap_enable(bs, "x", false, &error)
                       : drv->bdrv_bitmap_add(bs, "x", 1024, false, &error); break;
    case 2: ok = drv->bdrv_bitmap_clear(bs, "x", &error); break;
    case 3: ok = !has_bitmap(bs, "b") ? drv->bdrv_bitmap_enable(bs, "x", true, &error) : merge_bitmaps(bs, &error); break;
    case 4: ok = drv->bdrv_bitmap_remove(bs, "b", &error); break;
    }
    drain_end(bs);
    int ret = ok ? 0 : -bdrv_error_code(error);
    g_clear_error(&error);
    return ret;
}

/* Images are opened with a backing file of their own: the name does not matter. */
static int coroutine_fn run_backing(CrashRun *run, const CrashStep *step)
{
    static const char *const names[] = { "b", "a/name/that/takes/more/than/the/rest/of/the/first/sector/of/the/header" };
    BlockDriverState *bs = run->rig.child->bs;
    GError *error = NULL;
    drain_begin(bs);
    bool ok = bs->drv->bdrv_change_backing_file(bs, names[step->variant], "raw", &error);
    drain_end(bs);
    int ret = ok ? 0 : -bdrv_error_code(error);
    g_clear_error(&error);
    return ret;
}

static int coroutine_fn amend(CrashRun *run, BdrvOptions *options_taken, bool force)
{
    g_autoptr(BdrvOptions) options = options_taken;
    BlockDriverState *bs = run->rig.child->bs;
    GError *error = NULL;
    drain_begin(bs);
    bool ok = bs->drv->bdrv_amend(bs, options, force, NULL, NULL, &error);
    drain_end(bs);
    int ret = ok ? bdrv_co_flush(run->rig.child) : -bdrv_error_code(error);
    g_clear_error(&error);
    return ret;
}

static int coroutine_fn run_amend_up(CrashRun *run, const CrashStep *step)
{
    BdrvOptions *options = bdrv_options_new();
    bdrv_options_set_string(options, "compat", "1.1");
    return amend(run, options, false);
}

/* Snapshots of another size keep version 3. */
static int coroutine_fn run_amend_down(CrashRun *run, const CrashStep *step)
{
    const Qcow2State *s = qcow2_state(run->rig.child->bs);
    BdrvOptions *options = bdrv_options_new();
    bool fits = true;
    for (unsigned i = 0; i < s->snapshots.count; i++) {
        fits &= s->snapshots.snapshots[i].disk_size == s->header.size;
    }
    bdrv_options_set_string(options, "compat", fits ? "0.10" : "1.1");
    bdrv_options_set_int(options, "refcount_bits", 16);
    return amend(run, options, false);
}

/* Never one bit: snapshots may come. */
static int coroutine_fn run_amend_refcounts(CrashRun *run, const CrashStep *step)
{
    unsigned wanted = step->variant ? 8 : 64, now = qcow2_state(run->rig.child->bs)->geometry.refcount_bits;
    BdrvOptions *options = bdrv_options_new();
    bdrv_options_set_string(options, "compat", "1.1");
    bdrv_options_set_int(options, "refcount_bits", now == wanted ? 32 : wanted);
    return amend(run, options, false);
}

static int coroutine_fn run_amend_lazy(CrashRun *run, const CrashStep *step)
{
    BdrvOptions *options = bdrv_options_new();
    bdrv_options_set_string(options, "compat", "1.1");
    bdrv_options_set_bool(options, "lazy_refcounts", !qcow2_state(run->rig.child->bs)->lazy_refcounts);
    return amend(run, options, false);
}

/* ---- key slots ---- */

/* Secrets 0 and 2 take turns in slot 0, secret 1 comes and goes in another one. */
#define IN_TURN 1

/* Whether the secret surely opens the image, or (@value 0) surely does not. */
static bool surely(const CrashRun *run, int secret, uint8_t value)
{
    ModelSets *sets = model_present(&run->model);
    unsigned cell = MODEL_KEYS + (unsigned)secret;
    bool is = model_may(sets, cell, value) && !model_may(sets, cell, !value);
    model_sets_unref(sets);
    return is;
}

/* Of the two that take turns. */
static int in_slot_0(const CrashRun *run)
{
    return surely(run, 0, 1) ? 0 : surely(run, 2, 1) ? 2 : -1;
}

/* What opened the image still does: only then can a key be added. */
static bool key_is_known(const CrashRun *run)
{
    const char *id = qcow2_state(run->rig.child->bs)->crypto->key.secret;
    int secret = TEST_SECRETS - 1;
    while (!g_str_equal(test_secrets[secret], id)) {
        secret--;
    }
    return surely(run, secret, 1);
}

/* Slot 6 lies across two sectors of the header. */
static bool can_add_key(CrashRun *run, const CrashStep *step)
{
    run->keys = (CrashKeys){ .added = IN_TURN, .erased = -1, .slot = step->variant ? 6 : -1 };
    return key_is_known(run) && surely(run, IN_TURN, 0);
}

static bool can_replace_key(CrashRun *run, const CrashStep *step)
{
    int old = in_slot_0(run);
    run->keys = (CrashKeys){ .added = old == 0 ? 2 : 0, .erased = old, .slot = 0 };
    return key_is_known(run) && (old >= 0 || (surely(run, 0, 0) && surely(run, 2, 0)));
}

/* Never the last one. The one in slot 0 by its secret or by its slot. */
static bool can_erase_key(CrashRun *run, const CrashStep *step)
{
    int other = in_slot_0(run);
    run->keys = (CrashKeys){ -1, step->variant ? other : IN_TURN, step->variant == 2 ? 0 : -1 };
    return other >= 0 && surely(run, IN_TURN, 1);
}

static void expect_keys(CrashRun *run, const CrashStep *step, uint32_t operation)
{
    if (run->keys.erased >= 0) {
        model_write(&run->model, operation, MODEL_KEYS + (unsigned)run->keys.erased, 1, 0);
    }
    if (run->keys.added >= 0) {
        model_write(&run->model, operation, MODEL_KEYS + (unsigned)run->keys.added, 1, 1);
    }
}

static int coroutine_fn run_keys(CrashRun *run, const CrashStep *step)
{
    const CrashKeys *keys = &run->keys;
    BdrvOptions *options = bdrv_options_new();
    bdrv_options_set_string(options, "encrypt.state", keys->added < 0 ? "inactive" : "active");
    if (keys->added >= 0) {
        bdrv_options_set_string(options, "encrypt.new-secret", test_secrets[keys->added]);
    } else if (keys->slot < 0) {
        bdrv_options_set_string(options, "encrypt.old-secret", test_secrets[keys->erased]);
    }
    if (keys->slot >= 0) {
        bdrv_options_set_int(options, "encrypt.keyslot", keys->slot);
    }
    return amend(run, options, keys->added >= 0 && keys->slot == 0);
}

/* ---- the rest ---- */

static int coroutine_fn run_empty(CrashRun *run, const CrashStep *step)
{
    BlockDriverState *bs = run->rig.child->bs;
    drain_begin(bs);
    int ret = bs->drv->bdrv_make_empty(bs);
    drain_end(bs);
    return ret;
}

static int coroutine_fn open_again(CrashRun *run)
{
    run->is_open = crash_image_open(run->image, run->disk, true, &run->rig);
    return run->is_open ? 0 : -EIO;
}

/* @closed: what closing it answered. */
static int coroutine_fn after_close(CrashRun *run, int closed)
{
    run->is_open = false;
    int opened = closed < 0 && run->distrust ? 0 : open_again(run);
    return closed < 0 ? closed : opened;
}

static int coroutine_fn run_reopen(CrashRun *run, const CrashStep *step)
{
    return after_close(run, crash_run_end(run));
}

/* The driver's close alone, without the flush that closing a handle is, as if the process was killed between requests. A
 * node that is opened then has written nothing, so its flush has nothing to do. */
static int coroutine_fn run_drop(CrashRun *run, const CrashStep *step)
{
    return after_close(run, rig_close(&run->rig));
}

/* The open image goes on serving. What there is to repair are leaks; a call that fails may make it look like more. */
static int coroutine_fn run_check(CrashRun *run, const CrashStep *step)
{
    static const BdrvCheckFix fixes[] = { BDRV_FIX_NONE, BDRV_FIX_LEAKS, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS };
    BlockDriverState *bs = run->rig.child->bs;
    BdrvCheckResult result = { 0 };
    BdrvCheckFix fix = fixes[step->variant];
    drain_begin(bs);
    int ret = bs->drv->bdrv_check(bs, &result, fix);
    drain_end(bs);
    if (ret >= 0 && result.corruptions) {
        run->finding = "the check of the open image finds corruption";
    } else if (ret >= 0 && fix && result.leaks && !result.check_errors) {
        run->finding = "the repair of the open image leaves leaks";
    }
    return ret;
}

static int coroutine_fn run_create(CrashRun *run, const CrashStep *step)
{
    const RigImage how = {
        .disk = run->disk,
        .size = crash_size_bytes(run->image, step->size),
        .cluster_size = run->image->cluster_size,
        .refcount_bits = step->variant == 2 ? 16 : run->image->refcount_bits,
        .preallocation = step->variant == 1 ? "metadata" : NULL,
        .compat = step->variant == 2 ? "0.10" : NULL,
    };
    GError *error = NULL;
    int ret = crash_image_format(run->image, &how, &error) ? 0 : -bdrv_error_code(error);
    g_clear_error(&error);
    return ret < 0 ? ret : open_again(run);
}

/* ---- the table ---- */

const CrashOp crash_ops[] = {
    { "write", 5, at_cluster, expect_fill, run_write, .vdi = true },
    { "unaligned", 5, in_clusters, expect_fill, run_write, .vdi = true },
    { "zeroes", 6, for_zeroes, expect_fill, run_zeroes, .vdi = true },
    { "discard", 4, for_discard, expect_fill, run_discard, .vdi = true },
    { "compressed", 4, for_compressed, NULL, run_compressed },
    { "flush", 1, anywhere, NULL, run_flush, .durable = DURABLE_ALL, .vdi = true },
    { "fua", 2, for_fua, expect_fill, run_write, .durable = DURABLE_ITSELF, .vdi = true },
    { "l2range", 1, whole_l2_range, expect_fill, run_write, .vdi = true },
    { "truncate", 2, for_truncate, expect_size, run_truncate, .alone = true, .vdi = true },
    { "shrink", 1, for_shrink, expect_size, run_truncate, expect_cut, .alone = true, .vdi = true },
    { "snapshot-create", 1, for_snapshot, NULL, run_snapshot_create, .durable = DURABLE_ALL, .alone = true, .untidy = true },
    { "snapshot-apply", 1, for_apply, expect_snapshot, run_snapshot_apply, .durable = DURABLE_ITSELF, .alone = true,
      .untidy = true },
    { "snapshot-delete", 1, for_snapshot, NULL, run_snapshot_delete, .durable = DURABLE_ALL, .alone = true, .untidy = true },
    { "bitmap", 5, for_bitmap, NULL, run_bitmap, .durable = DURABLE_ALL, .alone = true },
    { "backing", 2, not_raw, NULL, run_backing, .durable = DURABLE_ALL, .alone = true },
    { "empty", 1, not_raw, expect_empty, run_empty, .durable = DURABLE_ITSELF, .alone = true },
    { "amend-compat-up", 1, anywhere, NULL, run_amend_up, .durable = DURABLE_ALL, .alone = true },
    { "amend-compat-down", 1, for_version_2, NULL, run_amend_down, .durable = DURABLE_ALL, .alone = true },
    { "amend-refcount-bits", 2, anywhere, NULL, run_amend_refcounts, .durable = DURABLE_ALL, .alone = true },
    { "amend-lazy", 1, anywhere, NULL, run_amend_lazy, .durable = DURABLE_ALL, .alone = true },
    { "key-add", 2, for_keys, expect_keys, run_keys, .durable = DURABLE_ALL, .possible = can_add_key, .alone = true },
    { "key-replace", 1, for_keys, expect_keys, run_keys, .durable = DURABLE_ALL, .possible = can_replace_key, .alone = true },
    { "key-erase", 3, for_keys, expect_keys, run_keys, .durable = DURABLE_ALL, .possible = can_erase_key, .alone = true },
    { "reopen", 1, anywhere, NULL, run_reopen, .durable = DURABLE_ALL, .alone = true, .closes = true, .vdi = true },
    { "drop", 1, anywhere, NULL, run_drop, .durable = DURABLE_NEVER, .alone = true, .closes = true, .vdi = true },
    { "check", 3, anywhere, NULL, run_check, .alone = true, .vdi = true },
    { "create", 3, for_create, expect_create, run_create, expect_size, DURABLE_ITSELF, old_or_empty, .alone = true, .vdi = true },
};
const unsigned crash_op_count = G_N_ELEMENTS(crash_ops);

static bool is_create(const CrashOp *op)
{
    return op->run == run_create;
}

static bool make_step(const CrashImage *image, const CrashOp *op, unsigned variant, CrashStep *step)
{
    *step = (CrashStep){ .op = op, .variant = variant, .fill = CRASH_GARBAGE };
    return variant < op->variants && (!image->vdi || op->vdi) && op->make(image, variant, step);
}

GArray *crash_steps(const CrashImage *image, bool first)
{
    GArray *steps = g_array_new(FALSE, FALSE, sizeof(CrashStep));
    bool create = first && image->start != START_READY;
    for (unsigned i = 0; i < crash_op_count; i++) {
        for (unsigned v = 0; v < crash_ops[i].variants; v++) {
            CrashStep step;
            if (is_create(&crash_ops[i]) == create && make_step(image, &crash_ops[i], v, &step)) {
                g_array_append_val(steps, step);
            }
        }
    }
    return steps;
}

char *crash_step_name(const CrashStep *step)
{
    return g_strdup_printf("%s:%u", step->op->name, step->variant);
}

bool crash_step_parse(const CrashImage *image, const char *text, CrashStep *step)
{
    g_auto(GStrv) parts = g_strsplit(text, ":", 2);
    for (unsigned i = 0; parts[0] && i < crash_op_count; i++) {
        if (g_str_equal(crash_ops[i].name, parts[0])) {
            return make_step(image, &crash_ops[i], parts[1] ? (unsigned)atoi(parts[1]) : 0, step);
        }
    }
    return false;
}

/* ---- running ---- */

/* Version 2 keeps its size as long as there are snapshots. */
static bool may_resize(const CrashRun *run)
{
    unsigned next;
    return !is_version_2(run) || !first_snapshot(run, &next);
}

/* What lies past the end of the disk is cut off; nothing left, nothing open, a disk that has that size
 * or more (when shrunk: less) already: not now. */
static bool fit_step(CrashRun *run, CrashStep *step)
{
    if (is_create(step->op)) {
        return true;
    }
    if (!run->is_open || (step->op->possible && !step->op->possible(run, step))) {
        return false;
    }
    int64_t length = run->rig.child->bs->length;
    if (step->size) {
        int64_t size = crash_size_bytes(run->image, step->size);
        return may_resize(run) && (step->size == SIZE_SHRUNK ? size < length : size > length);
    }
    bool ranged = step->bytes > 0;
    step->bytes = CLAMP(step->bytes, 0, MAX(length - step->offset, 0));
    return !ranged || step->bytes > 0;
}

/* What holds once an operation has ended. One that failed may have come so far all the same. */
static void expect_done(CrashRun *run, const CrashStep *step, int ret)
{
    if (!step->op->done) {
        return;
    }
    uint32_t done = model_begin(&run->model);
    step->op->done(run, step, done);
    if (ret < 0) {
        model_failed(&run->model, done);
    } else {
        model_end(&run->model, done, step->op->durable == DURABLE_ITSELF);
    }
}

int coroutine_fn crash_do_step(CrashRun *run, const CrashStep *as_made)
{
    CrashStep step = *as_made;
    if (!fit_step(run, &step)) {
        return 0;
    }
    uint32_t operation = model_begin(&run->model);
    if (step.op->expect) {
        step.op->expect(run, &step, operation);
    }
    bool was_untidy = run->untidy;
    run->untidy = was_untidy || step.op->untidy;
    int ret = step.op->run(run, &step);
    run->untidy = was_untidy || (step.op->untidy && ret < 0);
    if (ret < 0) {
        model_failed(&run->model, operation);
        expect_done(run, &step, ret);
        if (step.op->closes) {
            model_lost(&run->model);
        }
        return ret;
    }
    if (step.op->durable == DURABLE_ALL) {
        model_flushed(&run->model, operation);
    } else if (step.op->durable == DURABLE_NEVER) {
        model_lost(&run->model);
    }
    model_end(&run->model, operation, step.op->durable == DURABLE_ITSELF);
    expect_done(run, &step, ret);
    return 0;
}

void crash_run_begin(CrashRun *run)
{
    if (run->image->snapshot) {
        keep(run, 1);
    }
}

void crash_run_clear(CrashRun *run)
{
    for (unsigned i = 0; i < CRASH_SNAPSHOTS; i++) {
        g_clear_pointer(&run->kept[i], model_sets_unref);
    }
    model_clear(&run->model);
}

int coroutine_fn crash_run_end(CrashRun *run)
{
    if (!run->is_open) {
        return 0;
    }
    uint32_t operation = model_begin(&run->model);
    int ret = bdrv_co_flush(run->rig.child), closed = rig_close(&run->rig);
    ret = ret < 0 ? ret : closed;
    run->is_open = false;
    if (ret >= 0) {
        model_flushed(&run->model, operation);
    }
    return ret;
}
