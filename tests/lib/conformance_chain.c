/* SPDX-License-Identifier: MIT */
/*
 * The backing chain of a conformance run: commit, rebase, and another name in the header. Each closes the image, and opens
 * it again as the header says. What the files below hold is known, so that it is known what an empty image shows.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tests/lib/conformance_int.h"
#include "tests/lib/test-node.h"

unsigned conformance_count_bases(const ConformanceStack *stack)
{
    unsigned n = 0;

    while (stack->bases && stack->bases[n].filename) {
        n++;
    }
    return n;
}

static const ConformanceBase *base_of(const Runner *r, unsigned index)
{
    return index < conformance_count_bases(r->stack) ? &r->stack->bases[index] : NULL; /* NULL: none */
}

static char *filename_of(const Runner *r, const ConformanceBase *base)
{
    return base ? conformance_expand(base->filename, r->id, r->dir) : NULL;
}

static BlockBackend *open_base(Runner *r, const ConformanceBase *base, BdrvOpenFlags flags)
{
    g_autofree char *filename = filename_of(r, base);
    BdrvOptions *options = bdrv_options_new();
    GError *error = NULL;

    bdrv_options_set_string(options, "driver", base->format);
    BlockBackend *blk = blk_open(r->graph, filename, options, flags, &error);
    if (!blk) {
        conformance_fail(r, "opening %s: %s", filename, error->message);
    }
    return blk;
}

static void must_close(Runner *r, BlockBackend *blk)
{
    g_autoptr(GError) error = NULL;

    if (!blk_close(blk, &error)) {
        conformance_fail(r, "closing a file of the chain: %s", error->message);
    }
}

/* Zeroes past its end, and if there is none. */
static uint8_t *read_base(Runner *r, unsigned index)
{
    int64_t longest = r->stack->length + r->stack->room;
    uint8_t *content = g_malloc0((gsize)longest);

    if (base_of(r, index)) {
        BlockBackend *blk = open_base(r, base_of(r, index), 0);
        int ret = blk_pread(blk, 0, MIN(longest, blk_length(blk)), content, 0);

        if (ret < 0) {
            conformance_fail(r, "reading a backing file: %s", g_strerror(-ret));
        }
        must_close(r, blk);
    }
    return content;
}

static void look_below(Runner *r)
{
    g_free(r->below);
    r->below = read_base(r, r->base);
}

/* ---- commit ---- */

/* The base alone reads as the image did over it, and past the image's end as @before. */
static void check_committed(Runner *r, unsigned index, const uint8_t *before)
{
    g_autofree uint8_t *found = read_base(r, index);
    int64_t longest = r->stack->length + r->stack->room;

    if (memcmp(found, r->model, (size_t)r->length) != 0 ||
        memcmp(found + r->length, before + r->length, (size_t)(longest - r->length)) != 0) {
        conformance_fail(r, "the backing file does not hold what was committed");
    }
}

/* A layer between reads, sector by sector, as before or as what was committed below it. */
static void look_between(Runner *r)
{
    g_autofree uint8_t *before = g_steal_pointer(&r->below);

    look_below(r);
    for (int64_t at = 0; at < r->length; at += SECTOR) {
        if (memcmp(r->below + at, before + at, SECTOR) != 0 && memcmp(r->below + at, r->model + at, SECTOR) != 0) {
            conformance_fail(r, "a layer between reads differently at %" PRId64, at);
        }
    }
}

static void commit(Runner *r, const HistoryOp *op)
{
    bool deep = r->base == 0 && op->seed / 2 % 2; /* through the first base into what that one lies over */
    const BlkCommitOptions how = { .keep_top = deep || op->seed % 2 };
    unsigned target = deep ? 1 : r->base;
    g_autoptr(GError) error = NULL;

    if (!base_of(r, target)) {
        return;
    }
    conformance_close(r);
    g_autofree uint8_t *before = read_base(r, target);
    BlockBackend *base = open_base(r, base_of(r, target), BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP);
    BdrvOptions *options = conformance_options(r);
    if (deep) {
        bdrv_options_set_null(options, "backing.backing");
    }
    BlockBackend *top = blk_open(r->graph, NULL, options,
                                 conformance_flags(r->stack) | (deep ? 0 : BDRV_O_NO_BACKING), &error);
    if (!top || !blk_commit(top, base, &how, &error)) {
        conformance_fail(r, "committing: %s", error->message);
    }
    must_close(r, top);
    must_close(r, base);
    check_committed(r, target, before);
    if (!how.keep_top) {
        conformance_bitmaps_note(r, 0, r->length, true);
    }
    look_between(r);
    conformance_open(r);
    conformance_compare_all(r);
}

/* ---- another backing file ---- */

/* From what each layer holds: parts that the image does not have show what is below. */
static void predict(Runner *r, const uint8_t *below)
{
    for (int64_t at = 0; at < r->length;) {
        BlockExtent extent;

        if (blk_block_status(r->blk, at, r->length - at, &extent) < 0) {
            conformance_fail(r, "status of %" PRId64 " failed", at);
        }
        if (extent.kind == EXTENT_BACKING) {
            memcpy(r->model + at, below + at, (size_t)extent.bytes);
        }
        at += extent.bytes;
    }
}

static void reopen_over(Runner *r, unsigned index)
{
    conformance_close(r);
    r->base = index;
    look_below(r);
    conformance_open(r);
    conformance_compare_all(r);
}

static unsigned pick(const Runner *r, const HistoryOp *op)
{
    return op->seed % (conformance_count_bases(r->stack) + 1);
}

static void rebase(Runner *r, const HistoryOp *op)
{
    const ConformanceBase *to = base_of(r, pick(r, op));
    g_autofree char *filename = filename_of(r, to);
    BlkRebaseOptions how = { .filename = filename, .format = to ? to->format : NULL };
    BlockBackend *base = to ? open_base(r, to, 0) : NULL;
    g_autoptr(GError) error = NULL;

    if (!blk_rebase(r->blk, base, &how, &error)) {
        conformance_fail(r, "rebasing to %s: %s", filename ? filename : "nothing", error->message);
    }
    if (base) {
        must_close(r, base);
    }
    conformance_bitmaps_note(r, 0, r->length, false);
    reopen_over(r, pick(r, op));
}

/* The header alone: what the image reads as changes. */
static void change_backing(Runner *r, const HistoryOp *op)
{
    const ConformanceBase *to = base_of(r, pick(r, op));
    g_autofree char *filename = filename_of(r, to);
    g_autofree uint8_t *below = read_base(r, pick(r, op));
    g_autoptr(GError) error = NULL;

    if (!blk_change_backing_file(r->blk, filename, to ? to->format : NULL, &error)) {
        conformance_fail(r, "changing the backing file to %s: %s", filename ? filename : "nothing", error->message);
    }
    predict(r, below);
    reopen_over(r, pick(r, op));
}

/* What the snapshot that stays shows of the chain would change as well. */
void conformance_change_chain(Runner *r, const HistoryOp *op)
{
    if (conformance_count_bases(r->stack) == 0) {
        return;
    }
    conformance_delete_saved(r);
    if (op->kind == HISTORY_COMMIT) {
        commit(r, op);
    } else if (op->kind == HISTORY_REBASE) {
        rebase(r, op);
    } else {
        change_backing(r, op);
    }
}
