/* SPDX-License-Identifier: MIT */
/*
 * Dirty tracking: every change of the disk sets the bits of the enabled bitmaps, in memory and before it is written.
 *
 * Before the first one they are marked as in use in the directory, where it is, and that is flushed: whatever of the
 * change reaches the disk afterwards, no bitmap claims to be right without it. Sectors of the directory may go out
 * singly; each flag counts by itself. One that is read as in use may be so in the file's cache only, after a flush that
 * failed: then the flush alone has to be made before the first change.
 */

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/meta/meta.h"

/* ---- what writes set ---- */

bool qcow2_tracker_new(const Qcow2BitmapTable *table, Qcow2Tracker **tracker, GError **errp)
{
    unsigned count = 0, in_use = 0;
    for (unsigned i = 0; i < table->count; i++) {
        count += qcow2_bitmap_is_tracked(&table->bitmaps[i]);
        in_use += (table->bitmaps[i].flags & QCOW2_BITMAP_IN_USE) != 0;
    }
    *tracker = NULL;
    if (count == 0 && in_use == 0) {
        return true;
    }
    Qcow2Tracker *t = g_try_malloc0(sizeof(*t) + count * sizeof(t->bits[0]));
    if (!t) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for %u bitmaps", count);
        return false;
    }
    for (unsigned i = 0; i < table->count; i++) {
        if (qcow2_bitmap_is_tracked(&table->bitmaps[i])) {
            t->bits[t->count++] = table->bitmaps[i].bits;
        }
    }
    *tracker = t;
    return true;
}

bool coroutine_fn qcow2_bitmaps_track(BlockDriverState *bs, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    for (unsigned i = 0; i < s->bitmaps.count; i++) {
        Qcow2Bitmap *bitmap = &s->bitmaps.bitmaps[i];
        if (qcow2_bitmap_is_tracked(bitmap) && !qcow2_load_bits(bs, bitmap, errp)) {
            return false;
        }
    }
    g_clear_pointer(&s->tracker, g_free);
    return qcow2_tracker_new(&s->bitmaps, &s->tracker, errp);
}

/* The directory, with the flag set in every entry that is about to be wrong. */
static int coroutine_fn write_marks(BlockDriverState *bs)
{
    const Qcow2State *s = qcow2_state(bs);
    Qcow2BitmapTable marked = { .bitmaps = g_try_new(Qcow2Bitmap, s->bitmaps.count), .count = s->bitmaps.count };
    Qcow2BitmapsExtension b;
    uint64_t bytes = qcow2_bitmap_directory_bytes(&s->bitmaps);
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, bytes);
    int ret = marked.bitmaps && buf ? 0 : -ENOMEM;

    if (ret >= 0 && !qcow2_bitmaps_extension_decode(s->extensions.bitmaps, s->extensions.bitmaps_bytes, &b, NULL)) {
        ret = -EIO;
    }
    for (unsigned i = 0; i < marked.count && ret >= 0; i++) {
        marked.bitmaps[i] = s->bitmaps.bitmaps[i];
        marked.bitmaps[i].flags |= qcow2_bitmap_is_tracked(&marked.bitmaps[i]) ? QCOW2_BITMAP_IN_USE : 0;
    }
    if (ret >= 0) {
        qcow2_bitmap_directory_encode(&marked, buf);
        ret = qcow2_meta_write_table(bs, b.directory_offset, bytes, buf);
    }
    g_free(marked.bitmaps);
    bdrv_vfree(buf);
    return ret;
}

/* It must be certain which directory the header on the disk leads to. */
static int coroutine_fn mark_locked(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = qcow2_meta_settle_header(bs);
    if (ret >= 0 && s->tracker->count) {
        s->bitmaps_touched = true;
        ret = write_marks(bs);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(bs->file);
    }
    if (ret >= 0) {
        atomic_store(&s->bitmaps_marked, true);
    }
    return ret;
}

static int coroutine_fn mark(BlockDriverState *bs)
{
    Qcow2State *s = qcow2_state(bs);
    co_mutex_lock(&s->bitmap_lock);
    int ret = atomic_load(&s->bitmaps_marked) ? 0 : mark_locked(bs);
    co_mutex_unlock(&s->bitmap_lock);
    return ret;
}

int coroutine_fn qcow2_tracker_note(BlockDriverState *bs, uint64_t offset, uint64_t bytes)
{
    const Qcow2State *s = qcow2_state(bs);
    const Qcow2Tracker *tracker = s->tracker;
    if (!s->meta || atomic_load_explicit(&s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    int ret = atomic_load(&s->bitmaps_marked) ? 0 : mark(bs);
    for (unsigned i = 0; i < tracker->count && ret >= 0; i++) {
        bdrv_dirty_bits_set(tracker->bits[i], offset, bytes);
    }
    return ret < 0 ? ret : 0;
}

/* ---- drained ---- */

bool coroutine_fn qcow2_bitmaps_settle(BlockDriverState *bs, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);
    Qcow2BitmapChange change;
    if (!s->bitmaps_touched || bs->read_only || !s->meta || atomic_load(&s->corrupt)) {
        return true;
    }
    bool ok = qcow2_bitmap_change_begin(&change, bs, errp) && qcow2_bitmap_change_commit(&change, errp);
    qcow2_bitmap_change_end(&change);
    if (!ok) {
        g_prefix_error(errp, "cannot store the dirty bitmaps, which stay marked as in use: ");
    }
    return ok;
}

void qcow2_bitmaps_forget(Qcow2State *s)
{
    g_clear_pointer(&s->tracker, g_free);
    qcow2_bitmap_table_clear(&s->bitmaps);
    s->bitmaps_touched = false;
    atomic_store(&s->bitmaps_marked, false);
}

bool qcow2_bitmaps_check_resize(const Qcow2State *s, uint64_t disk_size, GError **errp)
{
    const char *problem = NULL;
    uint64_t bytes = 0;
    for (unsigned i = 0; i < s->bitmaps.count && !problem; i++) {
        const Qcow2Bitmap *b = &s->bitmaps.bitmaps[i];
        if (b->type == QCOW2_BITMAP_TYPE_DIRTY && (b->flags & QCOW2_BITMAP_IN_USE)) {
            problem = "is inconsistent (marked as in use): remove it first";
        } else if (!qcow2_bitmap_is_usable(b)) {
            problem = "is of a kind that cannot be resized: remove it first";
        } else if (disk_size == 0) {
            problem = "needs a disk that is not empty: remove it first";
        } else if (qcow2_bitmap_table_size(b->granularity_bits, &s->geometry, disk_size) >
                   QCOW2_MAX_BITMAP_BYTES >> s->geometry.cluster_bits) {
            problem = "would have more than 512 MiB: remove it first";
        } else {
            bytes += bdrv_dirty_bits_bytes(b->granularity_bits, disk_size); /* all are loaded */
            problem = bytes > QCOW2_MAX_LOADED_BITS ? "would take too much memory with the others: remove some" : NULL;
        }
        if (problem) {
            g_set_error(errp, BDRV_ERROR, ENOTSUP, "bitmap '%s' %s", b->name, problem);
        }
    }
    return !problem;
}

static bool coroutine_fn resize_bits(Qcow2BitmapChange *c, unsigned index, GError **errp)
{
    Qcow2Bitmap *old = &qcow2_state(c->bs)->bitmaps.bitmaps[index], *bitmap = &c->next.bitmaps[index];
    if (!qcow2_load_bits(c->bs, old, errp)) {
        return false;
    }
    bdrv_dirty_bits_free(bitmap->bits);
    bitmap->bits = bdrv_dirty_bits_copy(old->bits, c->disk_size);
    if (!bitmap->bits) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for bitmap '%s'", bitmap->name);
        return false;
    }
    atomic_store(&bitmap->bits->changed, true);
    return true;
}

bool coroutine_fn qcow2_bitmaps_resize(BlockDriverState *bs, uint64_t disk_size, GError **errp)
{
    Qcow2BitmapChange change;
    bool ok = qcow2_bitmap_change_begin(&change, bs, errp);
    change.disk_size = disk_size;
    for (unsigned i = 0; ok && i < change.next.count; i++) {
        ok = resize_bits(&change, i, errp);
    }
    ok = ok && qcow2_bitmap_change_commit(&change, errp);
    qcow2_bitmap_change_end(&change);
    return ok;
}
