/* SPDX-License-Identifier: MIT */
#ifndef BDRV_QCOW2_BITMAP_H
#define BDRV_QCOW2_BITMAP_H

/*
 * Persistent dirty bitmaps.
 *
 * s->bitmaps is the directory as the image has it, with the bits of those bitmaps that are loaded. What the image
 * says is right but for one thing: before the first change of the disk the enabled bitmaps are marked as in use, and
 * from then on their bits are in memory only. The next change of the directory, or closing, stores them and takes the
 * mark back. After a crash they stay marked, and mean nothing.
 */

#include "block/util/dirty_bits.h"
#include "drivers/qcow2/qcow2.h"

/* The bits that a write sets. */
struct Qcow2Tracker {
    unsigned count;
    BdrvDirtyBits *bits[]; /* those of s->bitmaps, no references */
};

/* What the bits of all bitmaps that are loaded may take. */
#define QCOW2_MAX_LOADED_BITS (UINT64_C(1) << 30)

/* ---- bitmap_load.c ---- */

/** qcow2_load_bitmaps() - the directory that the extension names, into s->bitmaps; every entry is looked at */
bool coroutine_fn qcow2_load_bitmaps(BlockDriverState *bs, int64_t file_length, GError **errp);
/** qcow2_load_bits() - those of a usable bitmap, unless they are there; drained, or s->bitmap_lock held */
bool coroutine_fn qcow2_load_bits(BlockDriverState *bs, Qcow2Bitmap *bitmap, GError **errp);

/** qcow2_check_bits_room() - whether there is room in memory for the bits of one bitmap more */
bool qcow2_check_bits_room(const Qcow2State *s, unsigned granularity_bits, GError **errp);

/** qcow2_bitmap_read_table() - entries as in the file, host byte order; NULL with @errp set, or if it has none
 * Caller frees. */
uint64_t *coroutine_fn qcow2_bitmap_read_table(BlockDriverState *bs, uint64_t offset, uint32_t entries, GError **errp);
/** qcow2_bitmap_entry_is_sound() - a table entry; what lies past @file_length is not there */
bool qcow2_bitmap_entry_is_sound(uint64_t entry, const Qcow2Geometry *geometry, uint64_t file_length);

bool qcow2_bitmap_table_copy(const Qcow2BitmapTable *table, Qcow2BitmapTable *copy, GError **errp);
void qcow2_bitmap_table_clear(Qcow2BitmapTable *table);
/** qcow2_bitmap_clear() - free what one entry holds */
void qcow2_bitmap_clear(Qcow2Bitmap *bitmap);

/* ---- bitmap_store.c: another directory in place of the old one. Drained. ---- */

/* The tables that a change makes or leaves behind. */
typedef struct Qcow2BitmapSpan {
    uint64_t offset, bytes;
} Qcow2BitmapSpan;

typedef struct Qcow2BitmapChange {
    BlockDriverState *bs;
    Qcow2BitmapTable next; /* s->bitmaps as they are to be; bits that differ from the image are marked changed */
    uint64_t disk_size;    /* for which they are */
    GArray *made;          /* Qcow2BitmapSpan: in the file, nothing leads there yet */
    GArray *gone;          /* Qcow2BitmapSpan: tables that @next does not have any more */
} Qcow2BitmapChange;

/** qcow2_bitmap_change_begin() - @next is a copy; end it in any case */
bool qcow2_bitmap_change_begin(Qcow2BitmapChange *change, BlockDriverState *bs, GError **errp);
void qcow2_bitmap_change_end(Qcow2BitmapChange *change);
/** qcow2_bitmap_change_drop() - leave out entry @index */
void qcow2_bitmap_change_drop(Qcow2BitmapChange *change, unsigned index);
/**
 * qcow2_bitmap_change_commit() - store what has changed, and switch to it together with the disk size
 * Nothing is in use afterwards. On failure s->bitmaps and the image are as before.
 */
bool coroutine_fn qcow2_bitmap_change_commit(Qcow2BitmapChange *change, GError **errp);

/* ---- bitmap_track.c ---- */

/** qcow2_bitmaps_track() - load the enabled bitmaps: the image may become writable */
bool coroutine_fn qcow2_bitmaps_track(BlockDriverState *bs, GError **errp);
/** qcow2_tracker_new() - what writes have to set with @table; NULL without @errp set: nothing */
bool qcow2_tracker_new(const Qcow2BitmapTable *table, Qcow2Tracker **tracker, GError **errp);
/** qcow2_bitmaps_settle() - store all that is in use; drained. True if there is nothing to do. */
bool coroutine_fn qcow2_bitmaps_settle(BlockDriverState *bs, GError **errp);
/** qcow2_bitmaps_forget() - all, without a trace in memory */
void qcow2_bitmaps_forget(Qcow2State *s);
/** qcow2_bitmaps_check_resize() - whether all of them can follow another disk size */
bool qcow2_bitmaps_check_resize(const Qcow2State *s, uint64_t disk_size, GError **errp);
/** qcow2_bitmaps_resize() - write the new disk size to the header, and bitmaps that go with it */
bool coroutine_fn qcow2_bitmaps_resize(BlockDriverState *bs, uint64_t disk_size, GError **errp);

/** qcow2_tracker_note() - the long way of qcow2_note_change() */
int coroutine_fn qcow2_tracker_note(BlockDriverState *bs, uint64_t offset, uint64_t bytes);

/** qcow2_note_change() - [offset, +bytes) of the disk is about to change; before anything is written
 * 0, or -errno: then nothing must be written. */
static inline int coroutine_fn qcow2_note_change(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return G_LIKELY(!qcow2_state(bs)->tracker) ? 0 : qcow2_tracker_note(bs, (uint64_t)offset, (uint64_t)bytes);
}

#endif
