/* SPDX-License-Identifier: MIT */
/* Repair: the order of things, and COPIED flags in place. What is repaired where: repair.h. */

#include "drivers/qcow2/repair.h"

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/compressed.h"
#include "block/util/bytes.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/open.h"

/* ---- COPIED flags in place ---- */

static uint64_t flag_of(const Qcow2Geometry *g, Qcow2CheckRefs *refs, uint64_t entry)
{
    return qcow2_check_refs_get(refs, (entry & QCOW2_OFFSET_MASK) >> g->cluster_bits) == 1 ? QCOW2_COPIED : 0;
}

/* @entry with the flag it should have, as far as @phase goes. */
static uint64_t adjust_entry(Qcow2Check *c, uint64_t entry, Qcow2RewritePhase phase)
{
    uint64_t flag = flag_of(&c->s->geometry, &c->refs, entry);
    return phase == QCOW2_REWRITE_RESTRICT ? entry & (flag | ~QCOW2_COPIED) : entry | flag;
}

/* Entries of a table in @buf; false if none changes. */
static bool adjust_entries(Qcow2Check *c, uint8_t *buf, uint64_t count, bool l2, Qcow2RewritePhase phase)
{
    size_t entry_bytes = l2 ? c->s->geometry.l2_entry_bytes : 8;
    bool changed = false;
    for (uint64_t i = 0; i < count; i++) {
        uint64_t entry = load_be64(buf + entry_bytes * i); /* the bitmap behind it has no flag */
        if (!(entry & QCOW2_OFFSET_MASK) || (l2 && (entry & QCOW2_COMPRESSED))) {
            continue;
        }
        bool counted = !l2 || !c->s->geometry.data_file;
        uint64_t wanted = counted ? adjust_entry(c, entry, phase) : entry | QCOW2_COPIED;
        changed = changed || wanted != entry;
        store_be64(buf + entry_bytes * i, wanted);
    }
    return changed;
}

static int coroutine_fn adjust_l2_table(Qcow2Check *c, Qcow2Rewrite *rewrite, uint64_t offset, uint8_t *buf,
                                        Qcow2RewritePhase phase)
{
    int ret = qcow2_check_pread(c, offset, c->s->geometry.cluster_size, buf);
    if (ret >= 0 && adjust_entries(c, buf, c->s->geometry.l2_entries, true, phase)) {
        ret = qcow2_rewrite(rewrite, phase, offset, c->s->geometry.cluster_size, buf);
    }
    return ret;
}

/* All COPIED flags of the active tables. The analysis has found every pointer sound. */
static int coroutine_fn repair_flags(Qcow2Check *c, Qcow2Rewrite *rewrite, Qcow2RewritePhase phase)
{
    const Qcow2Header *h = &c->s->header;
    uint64_t bytes = (uint64_t)h->l1_size * 8;
    uint8_t *l1 = g_try_malloc(MAX(bytes, 1)), *l2 = g_try_malloc(c->s->geometry.cluster_size);
    int ret = l1 && l2 ? qcow2_check_pread(c, h->l1_table_offset, bytes, l1) : -ENOMEM;
    for (uint64_t i = 0; i < h->l1_size && ret >= 0; i++) {
        uint64_t offset = load_be64(l1 + 8 * i) & QCOW2_OFFSET_MASK;
        if (offset) {
            ret = adjust_l2_table(c, rewrite, offset, l2, phase);
        }
        co_maybe_yield();
    }
    if (ret >= 0 && adjust_entries(c, l1, h->l1_size, false, phase)) {
        ret = qcow2_rewrite(rewrite, phase, h->l1_table_offset, bytes, l1);
    }
    g_free(l1);
    g_free(l2);
    return ret;
}

/* Everything that is merely a wrong count or flag; the pointers are sound. */
static int coroutine_fn repair_counts(Qcow2Check *c, Qcow2Rewrite *rewrite, BdrvCheckFix fix, bool flags)
{
    bool errors = fix & BDRV_FIX_ERRORS;
    int ret = errors && c->raise ? qcow2_repair_in_place(c, rewrite, QCOW2_REWRITE_RAISE) : 0;
    if (ret >= 0 && flags) {
        ret = repair_flags(c, rewrite, QCOW2_REWRITE_RESTRICT);
    }
    if (ret >= 0 && (fix & BDRV_FIX_LEAKS) && c->lower) {
        ret = qcow2_repair_in_place(c, rewrite, QCOW2_REWRITE_RELAX);
    }
    if (ret >= 0 && flags) {
        ret = repair_flags(c, rewrite, QCOW2_REWRITE_RELAX);
    }
    return ret;
}

/* ---- header ---- */

/*
 * The header that the analysis began with, whichever the disk has: after a failed flush the file's cache may show one
 * that is not there (fsync(2), EIO). What we do not know about does not survive our writes.
 */
static int coroutine_fn settle_header(Qcow2Rewrite *rewrite)
{
    Qcow2Header header = qcow2_state(rewrite->bs)->header;
    header.autoclear_features &= qcow2_kept_autoclear(qcow2_state(rewrite->bs));
    return qcow2_rewrite_header(rewrite, &header);
}

/* One block after the other: as @table, in the file's byte order, has them. */
static int coroutine_fn write_blocks_again(Qcow2Rewrite *rewrite, const uint8_t *table, uint64_t entries)
{
    BdrvChild *file = rewrite->bs->file;
    uint32_t cluster_size = qcow2_state(rewrite->bs)->geometry.cluster_size;
    uint8_t *block = bdrv_try_blockalign(file->bs, cluster_size);
    int ret = block ? 0 : -ENOMEM;

    for (uint64_t i = 0; i < entries && ret >= 0; i++) {
        uint64_t offset = load_be64(table + 8 * i) & QCOW2_REFTABLE_OFFSET_MASK;
        if (offset) {
            ret = bdrv_co_pread(file, (int64_t)offset, cluster_size, block, 0);
            ret = ret < 0 ? ret : qcow2_rewrite(rewrite, QCOW2_REWRITE_RELAX, offset, cluster_size, block);
        }
    }
    bdrv_vfree(block);
    return ret;
}

/*
 * All refcounts as they are, once more. The image is dirty perhaps because a flush failed when it was closed: what was
 * written then can be read, from the file's cache, but no later flush need write it out (fsync(2), EIO).
 */
static int coroutine_fn write_counts_again(Qcow2Rewrite *rewrite)
{
    const Qcow2Header *h = &qcow2_state(rewrite->bs)->header;
    uint64_t bytes = (uint64_t)h->refcount_table_clusters << h->cluster_bits;
    uint8_t *table = bdrv_try_blockalign(rewrite->bs->file->bs, bytes);

    if (!table) {
        return -ENOMEM;
    }
    int ret = bdrv_co_pread(rewrite->bs->file, (int64_t)h->refcount_table_offset, (int64_t)bytes, table, 0);
    if (ret >= 0) {
        ret = write_blocks_again(rewrite, table, bytes / 8);
    }
    if (ret >= 0) {
        ret = qcow2_rewrite(rewrite, QCOW2_REWRITE_RELAX, h->refcount_table_offset, bytes, table);
    }
    bdrv_vfree(table);
    return ret;
}

/* The image is clean: say so. */
static int coroutine_fn clear_marks(Qcow2Rewrite *rewrite)
{
    Qcow2State *s = qcow2_state(rewrite->bs);
    Qcow2Header header = s->header;
    bool dirty = header.incompatible_features & QCOW2_INCOMPAT_DIRTY;
    header.incompatible_features &= ~(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT);
    int ret = dirty ? write_counts_again(rewrite) : 0;
    if (ret >= 0 && header.incompatible_features != s->header.incompatible_features) {
        ret = qcow2_rewrite_header(rewrite, &header);
    }
    if (ret >= 0) {
        s->dirty_at_open = false;
        atomic_store(&s->corrupt, false);
    }
    return ret;
}

/* ---- the order of things ---- */

/* qcow2_check_end() afterwards in any case. */
static int coroutine_fn analyse(Qcow2Check *c, BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    int ret = qcow2_check_begin(c, bs, result, fix);
    return ret < 0 ? ret : qcow2_check_analyse(c);
}

/* The header is to say what the L2 tables are, and all is looked at again; of a dry run it is that in memory. */
static int coroutine_fn repair_layout(Qcow2Check *c, Qcow2Rewrite *rewrite, BdrvCheckResult *result, BdrvCheckFix fix)
{
    BlockDriverState *bs = c->bs;
    Qcow2State *s = qcow2_state(bs);
    Qcow2Header header = s->header;
    header.incompatible_features ^= QCOW2_INCOMPAT_EXTENDED_L2;
    int ret = fix & BDRV_FIX_DRY_RUN ? 0 : qcow2_rewrite_header(rewrite, &header);
    if (ret < 0) {
        return ret;
    }
    s->header = header;
    qcow2_geometry_init(&s->geometry, &header);
    qcow2_check_end(c);
    int64_t before = result->corruptions;
    *result = (BdrvCheckResult){ .report = result->report, .report_opaque = result->report_opaque };
    ret = analyse(c, bs, result, fix);
    result->corruptions += before;
    return ret < 0 ? ret : c->other_layout ? -EIO : 0;
}

/* Replace the tree, and the snapshot table in memory, which was a part of it. */
static int coroutine_fn replace_tree(Qcow2Check *c, Qcow2Rewrite *rewrite)
{
    BlockDriverState *bs = rewrite->bs;
    Qcow2State *s = qcow2_state(bs);
    int ret = qcow2_repair_tree(c, rewrite, false);
    int64_t length = ret < 0 ? ret : bdrv_co_getlength(bs->file);
    if (length < 0) {
        return (int)length;
    }
    g_autoptr(GError) error = NULL;
    Qcow2SnapshotTable snapshots;
    if (!qcow2_load_snapshots(bs, length, &snapshots, NULL, &error)) {
        return -bdrv_error_code(error);
    }
    qcow2_snapshot_table_clear(&s->snapshots);
    s->snapshots = snapshots;
    g_clear_pointer(&s->snapshot_damage, g_free);
    if (!(s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS)) {
        qcow2_bitmaps_forget(s);
        g_clear_pointer(&s->extensions.bitmaps, g_free);
        s->extensions.bitmaps_bytes = 0;
    }
    return 0;
}

/* Whether pointers need repair that the analysis does not see: two kinds of owner that agree with the count. */
static int coroutine_fn needs_tree(Qcow2Check *c, Qcow2Rewrite *rewrite)
{
    return c->rebuild || !c->result->corruptions ? c->rebuild : qcow2_repair_tree(c, rewrite, true);
}

/* @c: of what was found. Afterwards what is left is another analysis'. */
static int coroutine_fn repair_errors(Qcow2Check *c, Qcow2Rewrite *rewrite, BdrvCheckFix fix)
{
    int ret = needs_tree(c, rewrite);
    if (ret <= 0) {
        return ret < 0 ? ret : repair_counts(c, rewrite, fix, c->copied);
    }
    ret = replace_tree(c, rewrite);
    if (ret < 0) {
        return ret;
    }
    BdrvCheckResult quiet = { 0 };
    Qcow2Check again;
    ret = analyse(&again, rewrite->bs, &quiet, fix);
    if (ret >= 0) {
        ret = again.rebuild || again.incomplete ? -EIO : repair_counts(&again, rewrite, fix, again.copied);
    }
    qcow2_check_end(&again);
    return ret;
}

/* Whether flags are all that is wrong besides leaks: other damage may have made the counts too low. 1, 0 or -errno */
static int coroutine_fn may_repair_flags(Qcow2Check *c, Qcow2Rewrite *rewrite)
{
    int ret = c->raise ? 1 : needs_tree(c, rewrite);
    return ret < 0 ? ret : c->copied && ret == 0;
}

static int coroutine_fn repair_leaks(Qcow2Check *c, Qcow2Rewrite *rewrite)
{
    int ret = may_repair_flags(c, rewrite);
    return ret < 0 ? ret : repair_counts(c, rewrite, BDRV_FIX_LEAKS, ret > 0);
}

/* Look again: what is left, and so what was repaired. */
static int coroutine_fn verify(Qcow2Rewrite *rewrite, BdrvCheckResult *result)
{
    BdrvCheckResult left = { 0 };
    Qcow2Check c;
    int ret = analyse(&c, rewrite->bs, &left, BDRV_FIX_NONE);
    qcow2_check_end(&c);
    if (ret < 0) {
        return ret;
    }
    left.report = result->report;
    left.report_opaque = result->report_opaque;
    left.corruptions_fixed = MAX(result->corruptions - left.corruptions, 0);
    left.leaks_fixed = MAX(result->leaks - left.leaks, 0);
    *result = left;
    return 0;
}

/* What the analysis found may forbid any repair. 0 or -EIO, with the reason as a note */
static int refuse(Qcow2Check *c, BdrvCheckFix fix)
{
    const char *reason = NULL;
    if (c->other_layout) {
        reason = "nothing else is repaired before the incompatible features are: close the image, then check it and "
                 "repair all";
    } else if (c->incomplete) { /* the counts are too low by what they refer to */
        reason = "nothing is repaired while there are tables that cannot be read";
    } else if (!(fix & BDRV_FIX_ERRORS) && c->refcounts_damaged) {
        reason = "the refcount structures must be rebuilt: repair all, not just leaks";
    }
    if (reason) {
        qcow2_check_finding(c, QCOW2_CHECK_NOTE, "ERROR: %s", reason);
    }
    return reason ? -EIO : 0;
}

static int coroutine_fn repair_found(Qcow2Check *c, Qcow2Rewrite *rewrite, BdrvCheckResult *result, BdrvCheckFix fix)
{
    int ret = refuse(c, fix);
    if (ret < 0) {
        return ret;
    }
    if (result->corruptions || result->leaks || result->check_errors) {
        ret = settle_header(rewrite);
        if (ret >= 0) {
            ret = fix & BDRV_FIX_ERRORS ? repair_errors(c, rewrite, fix) : repair_leaks(c, rewrite);
        }
        if (ret >= 0 && rewrite->written) {
            ret = bdrv_co_flush(rewrite->bs->file);
        }
        if (ret >= 0) {
            ret = verify(rewrite, result);
        }
    }
    if (ret >= 0 && !result->corruptions && !result->check_errors) {
        ret = clear_marks(rewrite);
    }
    return ret;
}

int coroutine_fn qcow2_repair(Qcow2Rewrite *rewrite, BdrvCheckResult *result, BdrvCheckFix fix)
{
    Qcow2Check c;
    int ret = analyse(&c, rewrite->bs, result, fix);
    if (ret >= 0 && c.other_layout && (fix & BDRV_FIX_ERRORS) && qcow2_state(rewrite->bs)->metadata_only) {
        ret = repair_layout(&c, rewrite, result, fix);
    }
    if (ret >= 0) {
        ret = repair_found(&c, rewrite, result, fix);
    }
    qcow2_check_end(&c);
    return ret;
}

/* @c: of an analysis; nothing forbids the repair */
static int coroutine_fn predict(Qcow2Check *c, BdrvCheckResult *result, BdrvCheckFix fix)
{
    Qcow2Rewrite none = { .bs = c->bs };
    int ret = fix & BDRV_FIX_ERRORS ? 1 : may_repair_flags(c, &none);
    if (ret < 0) {
        return ret;
    }
    result->leaks_fixed = result->leaks;
    result->corruptions_fixed = ret ? result->corruptions : 0;
    result->leaks = 0;
    result->corruptions -= result->corruptions_fixed;
    result->check_errors = fix & BDRV_FIX_ERRORS ? 0 : result->check_errors;
    return 0;
}

int coroutine_fn qcow2_repair_dry_run(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Header header = s->header;
    Qcow2Check c;
    int ret = analyse(&c, bs, result, fix);
    if (ret >= 0 && c.other_layout && (fix & BDRV_FIX_ERRORS) && s->metadata_only) {
        ret = repair_layout(&c, NULL, result, fix);
    }
    if (ret >= 0) {
        ret = refuse(&c, fix);
    }
    if (ret >= 0) {
        ret = predict(&c, result, fix);
    }
    qcow2_check_end(&c);
    if (s->header.incompatible_features != header.incompatible_features) {
        s->header = header;
        qcow2_geometry_init(&s->geometry, &header);
    }
    return ret;
}

int coroutine_fn qcow2_repair_open_image(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Rewrite rewrite = { .bs = bs };
    bool serving = s->meta != NULL;
    unsigned drained = serving ? qcow2_meta_suspend(bs) : 0;
    int ret = qcow2_repair(&rewrite, result, fix);
    if (serving && !rewrite.in_doubt) {
        GError *error = NULL;
        qcow2_compressed_forget(bs, 0, INT64_MAX);
        if (!qcow2_meta_resume(bs, drained, &error)) {
            ret = ret < 0 ? ret : -bdrv_error_code(error);
            g_error_free(error);
        }
    }
    s->metadata_only = s->metadata_only || !s->meta; /* what could not be loaded again refuses I/O */
    return ret;
}

bool coroutine_fn qcow2_repair_dirty(BlockDriverState *bs, GError **errp)
{
    Qcow2Rewrite rewrite = { .bs = bs };
    BdrvCheckResult result = { 0 };
    Qcow2Check c;
    int ret = analyse(&c, bs, &result, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
    bool beyond = c.pointers_damaged || c.incomplete || c.other_layout;
    if (ret >= 0 && !beyond) {
        ret = qcow2_repair_tree(&c, &rewrite, true);
        beyond = ret > 0;
    }
    if (ret >= 0 && !beyond) {
        ret = repair_found(&c, &rewrite, &result, BDRV_FIX_LEAKS | BDRV_FIX_ERRORS);
    }
    qcow2_check_end(&c);
    if (ret < 0 || beyond) {
        g_set_error(errp, BDRV_ERROR, ret < 0 ? -ret : EIO,
                    "the image was not closed cleanly (dirty bit) and %s%s; run 'bdrv-img check -r all'",
                    beyond ? "more than its refcounts is damaged" : "its refcounts cannot be repaired: ",
                    beyond ? "" : g_strerror(-ret));
        return false;
    }
    return true;
}
