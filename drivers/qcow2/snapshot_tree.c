/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/snapshot_tree.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/meta/meta.h"

/* ---- L1 tables ---- */

static bool make_tree(Qcow2Tree *tree, uint64_t count, GError **errp)
{
    *tree = (Qcow2Tree){ .l1 = g_try_new0(uint64_t, MAX(count, 1)), .count = count };
    if (!tree->l1) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for an L1 table of %" PRIu64 " entries", count);
    }
    return tree->l1 != NULL;
}

bool qcow2_tree_active(BlockDriverState *bs, Qcow2Tree *tree, GError **errp)
{
    if (!make_tree(tree, qcow2_meta_l1_entries(bs), errp)) {
        return false;
    }
    qcow2_meta_get_l1(bs, tree->l1);
    return true;
}

bool coroutine_fn qcow2_tree_load(BlockDriverState *bs, uint64_t host_offset, uint64_t count, uint64_t min_count,
                                  Qcow2Tree *tree, GError **errp)
{
    if (!make_tree(tree, MAX(count, min_count), errp)) {
        return false;
    }
    int ret = count ? bdrv_co_pread(bs->file, (int64_t)host_offset, (int64_t)(count * 8), tree->l1, 0) : 0;
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the L1 table at offset %" PRIu64 ": %s", host_offset,
                    g_strerror(-ret));
        qcow2_tree_clear(tree);
        return false;
    }
    for (uint64_t i = 0; i < count; i++) {
        tree->l1[i] = GUINT64_FROM_BE(tree->l1[i]);
    }
    return true;
}

bool qcow2_tree_copy(const Qcow2Tree *tree, Qcow2Tree *copy, GError **errp)
{
    if (!make_tree(copy, tree->count, errp)) {
        return false;
    }
    memcpy(copy->l1, tree->l1, tree->count * sizeof(uint64_t));
    return true;
}

void qcow2_tree_clear(Qcow2Tree *tree)
{
    g_free(tree->l1);
    *tree = (Qcow2Tree){ 0 };
}

/* ---- L2 tables ---- */

bool coroutine_fn qcow2_tree_read_table(BlockDriverState *bs, uint64_t l1_index, uint64_t l1_entry, uint8_t *buf,
                                        GError **errp)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    const char *problem = qcow2_l1_entry_problem(l1_entry, g->cluster_bits);
    if (problem) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "L1 entry %" PRIu64 " is 0x%" PRIx64 ": %s; run 'bdrv-img check'",
                    l1_index, l1_entry, problem);
        return false;
    }
    uint64_t offset = l1_entry & QCOW2_OFFSET_MASK;
    int ret = bdrv_co_pread(bs->file, (int64_t)offset, g->cluster_size, buf, 0);
    co_maybe_yield();
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot read the L2 table at offset %" PRIu64 ": %s", offset,
                    g_strerror(-ret));
    }
    return ret >= 0;
}

static bool coroutine_fn write_table(BlockDriverState *bs, uint64_t l1_entry, const uint8_t *buf, GError **errp)
{
    uint64_t offset = l1_entry & QCOW2_OFFSET_MASK;
    bdrv_debug_event(bs, BDRV_EVENT_L2_UPDATE);
    int ret = qcow2_meta_write_table(bs, offset, qcow2_state(bs)->geometry.cluster_size, buf);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write the L2 table at offset %" PRIu64 ": %s", offset,
                    g_strerror(-ret));
    }
    return ret >= 0;
}

static uint8_t *table_buffer(BlockDriverState *bs, GError **errp)
{
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, qcow2_state(bs)->geometry.cluster_size);
    if (!buf) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for an L2 table");
    }
    return buf;
}

/* ---- counting ---- */

/* A pass over all host clusters that a tree refers to. */
typedef struct Pass {
    Qcow2Bulk *bulk;
    int delta;           /* 0: only look */
    bool raise;          /* look: whether there is room for one more */
    uint64_t left;       /* references to go */
    uint64_t first, run; /* clusters in a row that were met and are to be visited */
} Pass;

static bool fail_count(const Pass *pass, uint64_t cluster, int ret, GError **errp)
{
    const Qcow2Geometry *g = &qcow2_state(pass->bulk->bs)->geometry;
    uint64_t host_offset = cluster << g->cluster_bits;
    if (ret == -EILSEQ) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the cluster at host offset %" PRIu64 " is in use but has no refcount; run 'bdrv-img check'",
                    host_offset);
    } else if (ret == -ERANGE) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the cluster at host offset %" PRIu64 " has %" PRIu64 " references, the most that refcount_bits=%u "
                    "can count; a snapshot needs one more: convert to an image with wider refcounts",
                    host_offset, g->refcount_max, g->refcount_bits);
    } else {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot %s the refcount of the cluster at host offset %" PRIu64 ": %s",
                    pass->delta ? "change" : "read", host_offset, g_strerror(-ret));
    }
    return false;
}

static bool coroutine_fn look_at_run(Pass *pass, GError **errp)
{
    uint64_t max = qcow2_state(pass->bulk->bs)->geometry.refcount_max;
    for (uint64_t i = 0; i < pass->run; i++) {
        uint64_t count;
        int ret = qcow2_bulk_get(pass->bulk, pass->first + i, &count);
        ret = ret < 0 ? ret : count == 0 ? -EILSEQ : pass->raise && count == max ? -ERANGE : 0;
        if (ret < 0) {
            return fail_count(pass, pass->first + i, ret, errp);
        }
    }
    return true;
}

static bool coroutine_fn visit_run(Pass *pass, GError **errp)
{
    uint64_t done = 0, count = MIN(pass->run, pass->left);
    if (pass->run == 0) {
        return true;
    }
    if (!pass->delta) {
        return look_at_run(pass, errp);
    }
    int ret = qcow2_bulk_add(pass->bulk, pass->first, count, pass->delta, &done);
    pass->left -= done;
    return ret >= 0 || fail_count(pass, pass->first + done, ret, errp);
}

/* Visit what came before unless this goes on with it. */
static bool coroutine_fn meet(Pass *pass, uint64_t first, uint64_t count, GError **errp)
{
    if (pass->run && pass->first + pass->run == first) {
        pass->run += count;
        return true;
    }
    bool ok = visit_run(pass, errp);
    pass->first = first;
    pass->run = count;
    return ok;
}

static bool coroutine_fn meet_table(Pass *pass, uint64_t l1_index, const uint8_t *buf, GError **errp)
{
    const Qcow2Geometry *g = &qcow2_state(pass->bulk->bs)->geometry;
    bool ok = true;
    for (uint32_t i = 0; i < g->l2_entries && ok; i++) {
        Qcow2RawEntry raw = qcow2_l2_entry_load(buf, i, g);
        if (!raw.entry && !raw.bitmap) {
            continue;
        }
        Qcow2L2Entry entry = qcow2_l2_entry_decode(raw, g);
        if (entry.kind == QCOW2_CLUSTER_INVALID) {
            uint64_t cluster = (l1_index << g->l2_bits) + i;
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "the L2 entry for guest offset %" PRIu64 " is 0x%" PRIx64 ": %s; run 'bdrv-img check'",
                        cluster << g->cluster_bits, raw.entry, entry.problem);
            return false;
        }
        if (entry.host_offset) {
            uint64_t bytes = entry.kind == QCOW2_CLUSTER_COMPRESSED ? entry.compressed_bytes : g->cluster_size;
            uint64_t first = entry.host_offset >> g->cluster_bits;
            uint64_t last = (entry.host_offset + bytes - 1) >> g->cluster_bits;
            ok = meet(pass, first, last - first + 1, errp);
        }
    }
    return ok;
}

static bool coroutine_fn run_pass(Pass *pass, const Qcow2Tree *tree, GError **errp)
{
    BlockDriverState *bs = pass->bulk->bs;
    unsigned bits = qcow2_state(bs)->geometry.cluster_bits;
    uint8_t *buf = table_buffer(bs, errp);
    bool ok = buf != NULL;
    for (uint64_t i = 0; i < tree->count && ok && pass->left; i++) {
        if (tree->l1[i] & QCOW2_OFFSET_MASK) {
            ok = qcow2_tree_read_table(bs, i, tree->l1[i], buf, errp) &&
                 meet(pass, (tree->l1[i] & QCOW2_OFFSET_MASK) >> bits, 1, errp) && meet_table(pass, i, buf, errp);
        }
    }
    ok = ok && visit_run(pass, errp);
    bdrv_vfree(buf);
    return ok;
}

bool coroutine_fn qcow2_tree_look(Qcow2Bulk *bulk, const Qcow2Tree *tree, bool raise, GError **errp)
{
    Pass pass = { .bulk = bulk, .raise = raise, .left = UINT64_MAX };
    return run_pass(&pass, tree, errp);
}

bool coroutine_fn qcow2_tree_add(Qcow2Bulk *bulk, const Qcow2Tree *tree, int delta, uint64_t *left, GError **errp)
{
    Pass pass = { .bulk = bulk, .delta = delta, .left = *left };
    bool ok = run_pass(&pass, tree, errp);
    *left = pass.left;
    return ok;
}

/* ---- COPIED flags ---- */

/* A flag belongs to what has space, and that not compressed. */
static bool may_be_copied(uint64_t entry)
{
    return !(entry & QCOW2_COMPRESSED) && (entry & QCOW2_OFFSET_MASK);
}

bool coroutine_fn qcow2_tree_clear_copied(BlockDriverState *bs, Qcow2Tree *tree, GError **errp)
{
    const Qcow2Geometry *g = &qcow2_state(bs)->geometry;
    uint8_t *buf = table_buffer(bs, errp);
    bool ok = buf != NULL;
    for (uint64_t i = 0; i < tree->count && ok; i++) {
        bool changed = false;
        if (!(tree->l1[i] & QCOW2_OFFSET_MASK)) {
            continue;
        }
        tree->l1[i] &= ~QCOW2_COPIED;
        ok = qcow2_tree_read_table(bs, i, tree->l1[i], buf, errp);
        for (uint32_t k = 0; k < g->l2_entries && ok; k++) {
            uint8_t *at = buf + (size_t)k * g->l2_entry_bytes;
            uint64_t entry = load_be64(at);
            if (entry & QCOW2_COPIED) {
                store_be64(at, entry & ~QCOW2_COPIED);
                changed = true;
            }
        }
        ok = ok && (!changed || write_table(bs, tree->l1[i], buf, errp));
    }
    bdrv_vfree(buf);
    return ok;
}

/* The entries of a table that only this tree has; *@changed: the buffer was */
static int coroutine_fn set_in_table(Qcow2Bulk *bulk, uint8_t *buf, bool *changed)
{
    const Qcow2Geometry *g = &qcow2_state(bulk->bs)->geometry;
    int ret = 0;
    *changed = false;
    for (uint32_t k = 0; k < g->l2_entries && ret >= 0; k++) {
        uint8_t *at = buf + (size_t)k * g->l2_entry_bytes;
        uint64_t entry = load_be64(at), count;
        if (!may_be_copied(entry) || entry & QCOW2_COPIED) {
            continue;
        }
        ret = qcow2_bulk_get(bulk, (entry & QCOW2_OFFSET_MASK) >> g->cluster_bits, &count);
        if (ret >= 0 && count == 1) {
            store_be64(at, entry | QCOW2_COPIED);
            *changed = true;
        }
    }
    return ret;
}

bool coroutine_fn qcow2_tree_set_copied(Qcow2Bulk *bulk, Qcow2Tree *tree, const Qcow2Tree *where, GError **errp)
{
    BlockDriverState *bs = bulk->bs;
    unsigned bits = qcow2_state(bs)->geometry.cluster_bits;
    uint8_t *buf = table_buffer(bs, errp);
    bool ok = buf != NULL;
    for (uint64_t i = 0; i < MIN(tree->count, where->count) && ok; i++) {
        uint64_t offset = tree->l1[i] & QCOW2_OFFSET_MASK, count;
        bool changed = false;
        if (!offset || !where->l1[i]) {
            continue;
        }
        int ret = qcow2_bulk_get(bulk, offset >> bits, &count);
        if (ret >= 0 && count != 1) {
            continue; /* what is below a shared table is shared */
        }
        ok = ret >= 0 && qcow2_tree_read_table(bs, i, tree->l1[i], buf, errp);
        ret = ok ? set_in_table(bulk, buf, &changed) : ret;
        if (ret < 0) {
            g_set_error(errp, BDRV_ERROR, -ret, "cannot read refcounts: %s", g_strerror(-ret));
            ok = false;
        }
        ok = ok && (!changed || write_table(bs, tree->l1[i], buf, errp));
        tree->l1[i] |= ok ? QCOW2_COPIED : 0;
    }
    bdrv_vfree(buf);
    return ok;
}
