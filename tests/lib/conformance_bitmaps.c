/* SPDX-License-Identifier: MIT */
/*
 * Dirty bitmaps of a conformance run, and what each of them must hold.
 *
 * A bit is known to be set, known not to be set, or either: a request that overlaps the change of a bitmap may count
 * before or behind it, one that fails may have set its bits already, a discard may have left out what it could not drop.
 * But where the content has changed under an enabled bitmap the bit is set, whatever the request said. Reading a bitmap
 * while nothing else runs makes all of them known.
 */

#include <bdrv/bitmap.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/lib/conformance_int.h"

/* From the least that the format has to more than a disk. 0: the driver's default. */
static const int64_t granularities[] = { 512, 512, 1024, 4096, 65536, 0 };

/* ---- what an operation's seed says ---- */

static unsigned which(const HistoryOp *op)
{
    return op->seed % CONFORMANCE_BITMAPS;
}

static unsigned source_of(const HistoryOp *op)
{
    return op->seed / CONFORMANCE_BITMAPS % CONFORMANCE_BITMAPS;
}

static int64_t granularity_of(const HistoryOp *op)
{
    return granularities[op->seed / CONFORMANCE_BITMAPS % G_N_ELEMENTS(granularities)];
}

static bool enabled_by(const HistoryOp *op)
{
    return op->seed / 256 % 4 != 0;
}

/* Of the lengths that make a directory of several sectors, too. */
static const char *const bitmap_names[CONFORMANCE_BITMAPS] = {
    "b",
    ("a name that takes more than a hundred bytes, so that the entries of the directory come to lie in more than one "
     "sector of the disk, which go out singly when they are marked as in use"),
    "another",
    "the last one",
};

/* ---- the model ---- */

static int64_t granules(int64_t granularity, int64_t length)
{
    return (length + granularity - 1) / granularity;
}

static int64_t longest(const Runner *r)
{
    return r->stack->length + r->stack->room;
}

static void forget(ConformanceBitmap *b)
{
    g_free(b->must);
    g_free(b->may);
    *b = (ConformanceBitmap){ 0 };
}

void conformance_forget_bitmaps(Runner *r)
{
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        forget(&r->bitmaps[i]);
    }
    bdrv_dirty_bits_free(r->beside.bits);
    r->beside.bits = NULL;
}

static void mark(const Runner *r, uint8_t *bits, int64_t granularity, int64_t offset, int64_t bytes)
{
    int64_t end = MIN(offset + bytes, longest(r));

    for (int64_t i = offset / granularity; i * granularity < end; i++) {
        bits[i] = 1;
    }
}

/* It is changed for sure, or perhaps. */
static void note(const Runner *r, ConformanceBitmap *b, int64_t offset, int64_t bytes, bool sure)
{
    mark(r, b->may, b->granularity, offset, bytes);
    if (sure) {
        mark(r, b->must, b->granularity, offset, bytes);
    }
}

void conformance_bitmaps_note(Runner *r, int64_t offset, int64_t bytes, bool sure)
{
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        if (r->bitmaps[i].enabled) {
            note(r, &r->bitmaps[i], offset, bytes, sure);
        }
    }
}

void conformance_bitmaps_resize(Runner *r, int64_t length)
{
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        ConformanceBitmap *b = &r->bitmaps[i];

        if (b->granularity) {
            int64_t left = granules(b->granularity, length), all = granules(b->granularity, longest(r));

            memset(b->must + left, 0, (size_t)(all - left));
            memset(b->may + left, 0, (size_t)(all - left));
        }
    }
}

/* ---- comparing ---- */

static bool is_set(const BdrvDirtyBits *bits, int64_t offset, int64_t bytes)
{
    int64_t start, run;

    return bdrv_dirty_bits_next(bits, offset, &start, &run) && start < offset + bytes;
}

static void compare(Runner *r, unsigned index, const BdrvDirtyBits *bits, const uint8_t *must, const uint8_t *may)
{
    int64_t g = r->bitmaps[index].granularity;

    if (bdrv_dirty_bits_granularity(bits) != g) {
        conformance_fail(r, "bitmap '%s' has granularity %" PRId64 ", not %" PRId64, bitmap_names[index],
                         bdrv_dirty_bits_granularity(bits), g);
    }
    for (int64_t i = 0; i * g < bdrv_dirty_bits_length(bits); i++) {
        bool found = is_set(bits, i * g, g);

        if ((found && !may[i]) || (!found && must[i])) {
            conformance_fail(r, "bitmap '%s' of granularity %" PRId64 " is %sset for %" PRId64, bitmap_names[index], g,
                             found ? "" : "not ", i * g);
        }
    }
}

static void check_list(Runner *r, BlockBackend *blk)
{
    g_autoptr(GError) error = NULL;
    BdrvBitmapInfo *list = NULL;
    int count = blk_bitmap_list(blk, &list, &error);
    unsigned wanted = 0;

    if (count < 0) {
        conformance_fail(r, "listing bitmaps: %s", error->message);
    }
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        const ConformanceBitmap *b = &r->bitmaps[i];
        bool found = false;

        for (int k = 0; k < count && b->granularity; k++) {
            found |= g_str_equal(list[k].name, bitmap_names[i]) && list[k].granularity == b->granularity &&
                     list[k].enabled == b->enabled && list[k].usable;
        }
        if (b->granularity && !found) {
            conformance_fail(r, "bitmap '%s' is not listed as it should be", bitmap_names[i]);
        }
        wanted += b->granularity != 0;
    }
    if ((unsigned)count != wanted) {
        conformance_fail(r, "there are %d bitmaps, not %u", count, wanted);
    }
    bdrv_bitmap_list_free(list, count);
}

void conformance_check_bitmaps(Runner *r, BlockBackend *blk)
{
    if (!r->stack->bitmaps) {
        return;
    }
    check_list(r, blk);
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        ConformanceBitmap *b = &r->bitmaps[i];

        if (b->granularity) {
            g_autoptr(GError) error = NULL;
            g_autoptr(BdrvDirtyBits) bits = blk_bitmap_read(blk, bitmap_names[i], &error);

            if (!bits) {
                conformance_fail(r, "reading bitmap '%s': %s", bitmap_names[i], error->message);
            }
            compare(r, i, bits, b->must, b->may);
            for (int64_t at = 0; at < r->length; at += b->granularity) {
                b->must[at / b->granularity] = b->may[at / b->granularity] = is_set(bits, at, b->granularity);
            }
        }
    }
}

/* ---- changing, by the thread of the run, beside requests ---- */

/* What is not there, or there already; a reopening may have made the image read-only. */
static bool is_expected(const Runner *r, const HistoryOp *op, unsigned index, const GError *error)
{
    bool there = r->bitmaps[index].granularity;

    return g_error_matches(error, BDRV_ERROR, EACCES) ||
           (op->kind == HISTORY_BITMAP_ADD && there && g_error_matches(error, BDRV_ERROR, EEXIST)) ||
           (op->kind != HISTORY_BITMAP_ADD && !there && g_error_matches(error, BDRV_ERROR, ENOENT));
}

static bool read_bits(Runner *r, unsigned index, GError **errp)
{
    _Atomic uint64_t *clock = &r->clock;

    r->beside.read_began = atomic_fetch_add(clock, 1);
    r->beside.bits = blk_bitmap_read(r->blk, bitmap_names[index], errp);
    r->beside.read_ended = atomic_fetch_add(clock, 1);
    r->beside.read_from = index;
    return r->beside.bits != NULL;
}

static bool change(Runner *r, const HistoryOp *op, unsigned *index, GError **errp)
{
    const char *name = bitmap_names[*index];

    switch (op->kind) {
    case HISTORY_BITMAP_ADD:
        return blk_bitmap_add(r->blk, name, granularity_of(op), enabled_by(op), errp);
    case HISTORY_BITMAP_REMOVE:
        return blk_bitmap_remove(r->blk, name, errp);
    case HISTORY_BITMAP_ENABLE:
    case HISTORY_BITMAP_DISABLE:
        return blk_bitmap_enable(r->blk, name, op->kind == HISTORY_BITMAP_ENABLE, errp);
    case HISTORY_BITMAP_CLEAR:
        return blk_bitmap_clear(r->blk, name, errp);
    case HISTORY_BITMAP_READ:
        return read_bits(r, *index, errp);
    default: /* HISTORY_BITMAP_MERGE */
        if (!read_bits(r, source_of(op), errp)) {
            *index = source_of(op);
            return false;
        }
        return blk_bitmap_merge(r->blk, name, r->beside.bits, errp);
    }
}

static int64_t find_granularity(Runner *r, const char *name)
{
    BdrvBitmapInfo *list = NULL;
    int count = blk_bitmap_list(r->blk, &list, NULL);
    int64_t found = 0;

    for (int i = 0; i < count; i++) {
        found = g_str_equal(list[i].name, name) ? list[i].granularity : found;
    }
    bdrv_bitmap_list_free(list, MAX(count, 0));
    return found;
}

/* What it was stays in @before until it is known what the requests beside it did. */
static void adopt(Runner *r, const HistoryOp *op, ConformanceBitmap *b)
{
    size_t bytes;

    r->beside.was_enabled = b->enabled;
    switch (op->kind) {
    case HISTORY_BITMAP_ADD:
        b->granularity = granularity_of(op) ? granularity_of(op) : find_granularity(r, bitmap_names[which(op)]);
        if (!b->granularity) {
            conformance_fail(r, "a bitmap that was added is not there");
        }
        b->enabled = enabled_by(op);
        bytes = (size_t)granules(b->granularity, longest(r));
        b->must = g_malloc0(bytes);
        b->may = g_malloc0(bytes);
        break;
    case HISTORY_BITMAP_REMOVE:
        forget(b);
        break;
    case HISTORY_BITMAP_CLEAR:
        bytes = (size_t)granules(b->granularity, longest(r));
        memset(b->must, 0, bytes);
        memset(b->may, 0, bytes);
        break;
    case HISTORY_BITMAP_ENABLE:
    case HISTORY_BITMAP_DISABLE:
        b->enabled = op->kind == HISTORY_BITMAP_ENABLE;
        break;
    default:
        break;
    }
}

void conformance_change_bitmap(Runner *r, const HistoryOp *op)
{
    g_autoptr(GError) error = NULL;
    unsigned index = which(op);

    bdrv_dirty_bits_free(r->beside.bits);
    r->beside = (ConformanceBeside){ .what = op, .began = atomic_fetch_add(&r->clock, 1) };
    bool ok = change(r, op, &index, &error);
    r->beside.ended = atomic_fetch_add(&r->clock, 1);
    if (!ok && !is_expected(r, op, index, error)) {
        conformance_fail(r, "%s of '%s': %s", history_kind_name(op->kind), bitmap_names[index], error->message);
    }
    r->beside.done = ok;
    if (ok) {
        adopt(r, op, &r->bitmaps[index]);
    }
}

/* ---- what the requests of the round did ---- */

/* Whether requests that succeed set every bit of their range. */
static bool is_sure(const Op *op)
{
    return op->ret == 0 && op->what.kind != HISTORY_DISCARD;
}

/* The bits that were read beside the requests: those of what had ended before are in. */
static void check_bits_read(Runner *r)
{
    const ConformanceBeside *beside = &r->beside;
    const ConformanceBitmap *b = &r->bitmaps[beside->read_from];
    size_t bytes = (size_t)granules(b->granularity, longest(r));
    g_autofree uint8_t *must = g_memdup2(b->must, bytes), *may = g_memdup2(b->may, bytes);

    for (unsigned i = 0; i < r->count && b->enabled; i++) {
        const Op *op = &r->ops[i];

        if (history_changes(op->what.kind) && op->began < beside->read_ended) {
            bool sure = is_sure(op) && op->ended < beside->read_began;

            mark(r, may, b->granularity, op->what.offset, op->what.bytes);
            if (sure) {
                mark(r, must, b->granularity, op->what.offset, op->what.bytes);
            }
        }
    }
    compare(r, beside->read_from, beside->bits, must, may);
}

/* What one request did to a bitmap, which perhaps was changed beside it. */
static void note_request(Runner *r, ConformanceBitmap *b, const Op *op, bool is_target)
{
    bool before = is_target && op->ended < r->beside.began, after = is_target && op->began > r->beside.ended;
    HistoryKind kind = is_target ? r->beside.what->kind : HISTORY_BITMAP_READ;
    bool then = is_target ? r->beside.was_enabled : b->enabled, now = b->enabled;
    bool restarts = kind == HISTORY_BITMAP_ADD || kind == HISTORY_BITMAP_CLEAR;

    if (restarts && before) {
        return; /* what it set is gone */
    }
    bool sure = after ? now : before ? then : then && now && !restarts;
    bool perhaps = after ? now : before ? then : then || now;
    if (perhaps) {
        note(r, b, op->what.offset, op->what.bytes, sure && is_sure(op));
    }
}

static void merge_bits(Runner *r, ConformanceBitmap *b)
{
    int64_t at = 0, bytes;

    for (; bdrv_dirty_bits_next(r->beside.bits, at, &at, &bytes); at += bytes) {
        note(r, b, at, bytes, true);
    }
}

void conformance_bitmaps_learn(Runner *r)
{
    const HistoryOp *what = r->beside.what;

    if (r->beside.bits && r->bitmaps[r->beside.read_from].granularity) {
        check_bits_read(r);
    }
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        ConformanceBitmap *b = &r->bitmaps[i];
        bool is_target = r->beside.done && which(what) == i;

        for (unsigned k = 0; k < r->count && b->granularity; k++) {
            if (history_changes(r->ops[k].what.kind)) {
                note_request(r, b, &r->ops[k], is_target);
            }
        }
        if (is_target && what->kind == HISTORY_BITMAP_MERGE) {
            merge_bits(r, b);
        }
    }
}

/* Content that was not what it is now: enabled bitmaps tell, whatever the requests answered. */
void conformance_bitmaps_learn_change(Runner *r, int64_t offset, int64_t bytes, const uint8_t *before,
                                      const uint8_t *now)
{
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        ConformanceBitmap *b = &r->bitmaps[i];
        bool changed_beside = r->beside.done && which(r->beside.what) == i;

        for (int64_t at = 0; at < bytes && b->enabled && !changed_beside; at++) {
            if (before[at] != now[at]) {
                b->must[(offset + at) / b->granularity] = 1;
            }
        }
    }
}

void conformance_remove_bitmaps(Runner *r)
{
    for (unsigned i = 0; i < CONFORMANCE_BITMAPS; i++) {
        g_autoptr(GError) error = NULL;

        if (r->bitmaps[i].granularity && !blk_bitmap_remove(r->blk, bitmap_names[i], &error)) {
            conformance_fail(r, "removing bitmap '%s': %s", bitmap_names[i], error->message);
        }
        forget(&r->bitmaps[i]);
    }
}
