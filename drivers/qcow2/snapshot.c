/* SPDX-License-Identifier: MIT */
/*
 * Internal snapshots: a snapshot is an L1 table of its own and an entry in the snapshot table. The node is drained.
 *
 * Each change has one moment at which it happens: a header switch, one aligned sector, to which everything it
 * leads to is durable.
 *
 *   create   new L1 and snapshot tables; COPIED flags cleared, flush; counts raised, flush; switch
 *   apply    new L1 table; counts of the snapshot's tree raised, flush; switch of L1 table and disk size; counts
 *            of the old tree lowered
 *   delete   new snapshot table, flush; switch; counts of the snapshot's tree lowered, flush; COPIED flags set
 *
 * So at every cut no count is below the references, and COPIED is set only where there is one reference. Counts
 * that are too high and flags that are not set are what the dirty bit (version 3) is there for: it is set first
 * and cleared last.
 *
 * Before the switch a failure is undone; what cannot be undone is a leak. After it there is no way back: what
 * could not be freed is a leak, too.
 */

#include "drivers/qcow2/snapshot.h"

#include <errno.h>
#include <inttypes.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/snapshot_tree.h"

/* A change under way. */
typedef struct Change {
    BlockDriverState *bs;
    Qcow2State *s;
    Qcow2Bulk bulk;
    Qcow2Tree active;
    Qcow2Tree tree;          /* the snapshot's, as the change leaves or finds it */
    Qcow2SnapshotTable next; /* the table to be; its entries belong to the old one, or to the change (entry) */
    Qcow2Snapshot entry;     /* create: the new one until the switch */
    uint64_t l1_offset;      /* of a new L1 table, 0: none */
    uint64_t left;           /* references whose count is not raised yet */
    bool raising;            /* some are */
    bool flags_cleared;      /* maybe not all of them */
} Change;

/* ---- the steps that changes have in common ---- */

static bool check_possible(const Qcow2State *s, GError **errp)
{
    if (s->header.incompatible_features & QCOW2_INCOMPAT_DATA_FILE) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "an image with an external data file cannot have internal snapshots");
        return false;
    }
    return qcow2_check_changeable(s, "snapshots", errp);
}

/* All is written, nothing is in limbo or cached. */
static bool coroutine_fn begin(Change *c, BlockDriverState *bs, GError **errp)
{
    *c = (Change){ .bs = bs, .s = qcow2_state(bs) };
    return check_possible(c->s, errp) && qcow2_could(qcow2_meta_settle(bs), "write metadata", errp) &&
           qcow2_tree_active(bs, &c->active, errp) &&
           qcow2_could(qcow2_bulk_begin(&c->bulk, bs, QCOW2_DISCARD_SNAPSHOT), "begin to count references", errp);
}

static void end(Change *c)
{
    qcow2_bulk_end(&c->bulk);
    qcow2_tree_clear(&c->active);
    qcow2_tree_clear(&c->tree);
    qcow2_snapshot_clear(&c->entry);
    g_free(c->next.snapshots);
}

/* The table with @skip left out (-1: none) and room for one more. */
static bool copy_entries(Change *c, int skip, GError **errp)
{
    const Qcow2SnapshotTable *old = &c->s->snapshots;
    c->next.snapshots = g_try_new(Qcow2Snapshot, old->count + 1);
    if (!c->next.snapshots) {
        g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for %u snapshots", old->count + 1);
        return false;
    }
    for (unsigned i = 0; i < old->count; i++) {
        if ((int)i != skip) {
            c->next.snapshots[c->next.count++] = old->snapshots[i];
        }
    }
    return true;
}

static bool coroutine_fn write_l1(Change *c, const Qcow2Tree *tree, GError **errp)
{
    uint64_t bytes = (tree->count * 8 + 511) & ~UINT64_C(511);
    uint8_t *buf = bytes ? bdrv_try_blockalign(c->bs->file->bs, bytes) : NULL;
    int ret = buf || !bytes ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < bytes / 8 && ret >= 0; i++) {
        store_be64(buf + i * 8, i < tree->count ? tree->l1[i] & ~QCOW2_COPIED : 0);
    }
    if (ret >= 0 && bytes) {
        ret = qcow2_meta_new_table(c->bs, buf, bytes, &c->l1_offset);
    }
    bdrv_vfree(buf);
    return qcow2_could(ret, "write an L1 table", errp);
}

/* What was allocated is counted, durably; the counts that were read are old. */
static bool coroutine_fn settle_tables(Change *c, GError **errp)
{
    int ret = qcow2_meta_settle(c->bs);
    qcow2_bulk_renew(&c->bulk);
    return qcow2_could(ret, "write metadata", errp);
}

static bool coroutine_fn commit_l1(Change *c, GError **errp)
{
    qcow2_meta_set_l1(c->bs, c->active.l1);
    return qcow2_could(qcow2_meta_settle(c->bs), "write the L1 table", errp);
}

/* One reference more to everything in @tree, durably. */
static bool coroutine_fn raise_counts(Change *c, const Qcow2Tree *tree, GError **errp)
{
    c->raising = true;
    c->left = UINT64_MAX;
    return qcow2_tree_add(&c->bulk, tree, 1, &c->left, errp) &&
           qcow2_could(qcow2_bulk_sync(&c->bulk), "write refcounts", errp);
}

/* One less, and free what has none left. An error does not keep the rest from being written. */
static bool coroutine_fn lower_counts(Change *c, const Qcow2Tree *tree, GError **errp)
{
    uint64_t left = UINT64_MAX;
    GError *error = NULL;
    bool ok = qcow2_tree_add(&c->bulk, tree, -1, &left, &error);
    int ret = qcow2_bulk_sync(&c->bulk);
    if (ok) {
        return qcow2_could(ret, "write refcounts", errp);
    }
    g_propagate_error(errp, error);
    return false;
}

/* Back to where it began; false if something of it stays. */
static bool coroutine_fn undo_counts(Change *c, const Qcow2Tree *tree)
{
    uint64_t left = UINT64_MAX - c->left;
    return !c->raising || (qcow2_tree_add(&c->bulk, tree, -1, &left, NULL) && qcow2_bulk_sync(&c->bulk) >= 0);
}

static bool coroutine_fn undo_flags(Change *c)
{
    return !c->flags_cleared ||
           (qcow2_tree_set_copied(&c->bulk, &c->active, &c->active, NULL) && commit_l1(c, NULL));
}

static void coroutine_fn release_tables(Change *c, uint64_t l1_entries)
{
    if (c->l1_offset) {
        qcow2_meta_release_table(c->bs, c->l1_offset, l1_entries * 8);
    }
    if (c->next.offset) {
        qcow2_meta_release_table(c->bs, c->next.offset, c->next.bytes);
    }
}

/* A failure before the switch. @tree: what was to be counted once more. */
static void coroutine_fn undo(Change *c, const Qcow2Tree *tree)
{
    BlockDriverState *bs = c->bs;
    if (!c->s->meta || !c->bulk.bs) {
        return; /* nothing was done */
    }
    if (qcow2_meta_in_doubt(bs)) {
        qcow2_meta_keep_mark(bs);
        return;
    }
    bool whole = undo_counts(c, tree) && undo_flags(c);
    qcow2_bulk_renew(&c->bulk);
    release_tables(c, tree->count);
    if (!whole || qcow2_meta_clean(bs) < 0) {
        qcow2_meta_keep_mark(bs);
    }
}

/* The header leads to @c->next: so does memory. */
static void adopt_table(Change *c)
{
    Qcow2SnapshotTable old = c->s->snapshots;
    uint64_t clusters = qcow2_clusters_of(&c->s->geometry, old.bytes);

    c->s->snapshots = c->next;
    c->next = (Qcow2SnapshotTable){ 0 };
    g_free(old.snapshots);
    if (clusters) {
        qcow2_drop_clusters(c->bs, old.offset, clusters, QCOW2_DISCARD_OTHER);
    }
}

static void edit_snapshots(Qcow2Header *header, const void *opaque)
{
    const Qcow2SnapshotTable *table = opaque;
    header->snapshots_offset = table->offset;
    header->nb_snapshots = table->count;
}

/* The table to be: written, counted, then switched to. */
static bool coroutine_fn store_and_switch(Change *c, GError **errp)
{
    return qcow2_store_snapshots(c->bs, &c->next, errp) && settle_tables(c, errp) &&
           qcow2_could(qcow2_edit_header(c->bs, edit_snapshots, &c->next), "write the header", errp);
}

/* After the switch: the end of it. @what has happened in any case. */
static bool coroutine_fn finish(Change *c, bool ok, const char *what, GError **errp)
{
    if (ok) {
        ok = qcow2_could(qcow2_meta_clean(c->bs), "write metadata", errp);
    }
    if (!ok) {
        qcow2_meta_keep_mark(c->bs);
        g_prefix_error(errp, "the snapshot is %s now, but what is no longer needed could not be freed: ", what);
    }
    return ok;
}

/* ---- create ---- */

static bool coroutine_fn prepare_entry(Change *c, const BdrvSnapshotInfo *info, GError **errp)
{
    if (!copy_entries(c, -1, errp) || !qcow2_snapshot_describe(c->s, info, &c->entry, errp)) {
        return false;
    }
    c->entry.id = qcow2_snapshot_new_id(&c->s->snapshots);
    if (!write_l1(c, &c->active, errp)) {
        return false;
    }
    c->entry.l1_table_offset = c->l1_offset;
    c->entry.l1_size = (uint32_t)c->active.count;
    c->next.snapshots[c->next.count++] = c->entry;
    return qcow2_store_snapshots(c->bs, &c->next, errp) && settle_tables(c, errp);
}

static bool coroutine_fn share_active(Change *c, GError **errp)
{
    c->flags_cleared = true;
    return qcow2_tree_clear_copied(c->bs, &c->active, errp) && commit_l1(c, errp) &&
           raise_counts(c, &c->active, errp);
}

/* VM state belongs to the snapshot alone: the active disk forgets what lies past its end. */
static bool coroutine_fn give_vmstate_away(Change *c, GError **errp)
{
    uint64_t first = qcow2_l1_entries_of(&c->s->geometry, c->s->header.size);
    if (!qcow2_tree_active(c->bs, &c->tree, errp)) {
        return false;
    }
    for (uint64_t i = 0; i < c->tree.count; i++) {
        if (i < first) {
            c->tree.l1[i] = 0;
        } else {
            c->active.l1[i] = 0;
        }
    }
    if (!commit_l1(c, errp)) {
        return false;
    }
    qcow2_bulk_renew(&c->bulk); /* the commit was one without counts, but who knows */
    return lower_counts(c, &c->tree, errp);
}

bool coroutine_fn qcow2_snapshot_create(BlockDriverState *bs, BdrvSnapshotInfo *info, GError **errp)
{
    Change c;
    /* clang-format off */
    bool ok = begin(&c, bs, errp) &&
              qcow2_tree_look(&c.bulk, &c.active, true, errp) &&
              qcow2_could(qcow2_meta_mark(bs), "set the dirty bit", errp) &&
              prepare_entry(&c, info, errp) &&
              share_active(&c, errp) &&
              qcow2_could(qcow2_edit_header(bs, edit_snapshots, &c.next), "write the header", errp);
    /* clang-format on */
    if (!ok) {
        undo(&c, &c.active);
    } else {
        info->id = g_strdup(c.entry.id);
        info->disk_size = (int64_t)c.entry.disk_size;
        c.entry = (Qcow2Snapshot){ 0 };
        adopt_table(&c);
        ok = finish(&c, info->vm_state_size == 0 || give_vmstate_away(&c, errp), "created", errp);
    }
    end(&c);
    return ok;
}

/* ---- delete ---- */

static bool find(const Qcow2State *s, const char *id, const char *name, int *index, GError **errp)
{
    *index = qcow2_snapshot_find(&s->snapshots, id, name);
    if (*index < 0) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "there is no snapshot with %s '%s'%s%s%s", id ? "id" : "name",
                    id ? id : name ? name : "", id && name ? " and name '" : "", id && name ? name : "",
                    id && name ? "'" : "");
    }
    return *index >= 0;
}

static bool coroutine_fn load_tree(Change *c, int index, uint64_t min_count, GError **errp)
{
    const Qcow2Snapshot *snapshot = &c->s->snapshots.snapshots[index];
    return qcow2_tree_load(c->bs, snapshot->l1_table_offset, snapshot->l1_size, min_count, &c->tree, errp);
}

/* Tried twice: version 2 has no dirty bit that would put right what is left out. */
static bool coroutine_fn set_flags(Change *c, GError **errp)
{
    return qcow2_tree_set_copied(&c->bulk, &c->active, &c->tree, NULL) ||
           qcow2_tree_set_copied(&c->bulk, &c->active, &c->tree, errp);
}

/* The tree of the snapshot is nobody's any more, nor its L1 table. Counts that could not be lowered are those in the file. */
static bool coroutine_fn free_snapshot(Change *c, const Qcow2Snapshot *snapshot, GError **errp)
{
    uint64_t clusters = qcow2_clusters_of(&c->s->geometry, (uint64_t)snapshot->l1_size * 8);
    bool lowered = lower_counts(c, &c->tree, errp);
    if (!lowered) {
        qcow2_bulk_renew(&c->bulk);
    }
    GError **flag_errp = lowered ? errp : NULL;
    bool ok = set_flags(c, flag_errp) && commit_l1(c, flag_errp) && lowered;
    qcow2_bulk_renew(&c->bulk);
    if (ok && clusters) {
        qcow2_drop_clusters(c->bs, snapshot->l1_table_offset, clusters, QCOW2_DISCARD_SNAPSHOT);
    }
    return ok;
}

bool coroutine_fn qcow2_snapshot_delete(BlockDriverState *bs, const char *id, const char *name, GError **errp)
{
    Change c;
    int index;
    /* clang-format off */
    bool ok = begin(&c, bs, errp) &&
              find(c.s, id, name, &index, errp) &&
              load_tree(&c, index, 0, errp) &&
              qcow2_tree_look(&c.bulk, &c.tree, false, errp) &&
              qcow2_could(qcow2_meta_mark(bs), "set the dirty bit", errp) &&
              copy_entries(&c, index, errp) &&
              store_and_switch(&c, errp);
    /* clang-format on */
    if (!ok) {
        undo(&c, &c.tree);
    } else {
        Qcow2Snapshot gone = c.s->snapshots.snapshots[index];
        adopt_table(&c);
        ok = finish(&c, free_snapshot(&c, &gone, errp), "deleted", errp);
        qcow2_snapshot_clear(&gone);
    }
    end(&c);
    return ok;
}

/* ---- apply ---- */

/* Bitmaps tell what was written; nothing tells what differs between the disk and a snapshot. */
static bool check_no_bitmaps(const Qcow2State *s, GError **errp)
{
    if (s->bitmaps.count) {
        g_set_error(errp, BDRV_ERROR, EBUSY,
                    "the image has dirty bitmaps ('%s'), which would not be right afterwards: remove them first",
                    s->bitmaps.bitmaps[0].name);
    }
    return s->bitmaps.count == 0;
}

/* The one that an id or a name stands for. */
static bool find_either(const Qcow2State *s, const char *id, int *index, GError **errp)
{
    *index = qcow2_snapshot_find(&s->snapshots, id, NULL);
    if (*index < 0) {
        *index = qcow2_snapshot_find(&s->snapshots, NULL, id);
    }
    if (*index < 0) {
        g_set_error(errp, BDRV_ERROR, ENOENT, "there is no snapshot with id or name '%s'", id);
    }
    return *index >= 0;
}

/* The disk size that a snapshot goes with, and what it needs of an L1 table. */
static bool check_size(const Qcow2State *s, int index, bool apply, uint64_t *l1_entries, GError **errp)
{
    const Qcow2Snapshot *snapshot = &s->snapshots.snapshots[index];
    *l1_entries = qcow2_l1_entries_of(&s->geometry, snapshot->disk_size);
    if (snapshot->disk_size > INT64_MAX || *l1_entries > QCOW2_MAX_L1_BYTES / 8) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "snapshot '%s' has a disk of %" PRIu64 " bytes, for which an L1 table of %" PRIu64
                    " entries would be needed; at most %u are supported",
                    snapshot->name, snapshot->disk_size, *l1_entries, QCOW2_MAX_L1_BYTES / 8);
        return false;
    }
    for (unsigned i = 0; apply && snapshot->disk_size != s->header.size && i < s->snapshots.count; i++) {
        if (s->snapshots.snapshots[i].extra_data_bytes < QCOW2_SNAPSHOT_EXTRA_SIZE) {
            g_set_error(errp, BDRV_ERROR, ENOTSUP,
                        "applying snapshot '%s' would change the disk size from %" PRIu64 " to %" PRIu64
                        " bytes, but snapshot '%s' does not record its own",
                        snapshot->name, s->header.size, snapshot->disk_size, s->snapshots.snapshots[i].name);
            return false;
        }
    }
    return true;
}

/* What both lead to by the same L2 table keeps its counts. */
static void leave_out_common(Qcow2Tree *a, Qcow2Tree *b)
{
    for (uint64_t i = 0; i < MIN(a->count, b->count); i++) {
        if ((a->l1[i] & QCOW2_OFFSET_MASK) == (b->l1[i] & QCOW2_OFFSET_MASK)) {
            a->l1[i] = b->l1[i] = 0;
        }
    }
}

typedef struct NewDisk {
    uint64_t l1_offset, size;
    uint32_t l1_size;
} NewDisk;

static void edit_disk(Qcow2Header *header, const void *opaque)
{
    const NewDisk *disk = opaque;
    header->l1_table_offset = disk->l1_offset;
    header->l1_size = disk->l1_size;
    header->size = disk->size;
}

/* L2 tables that become the active disk's. */
static bool note_tables(Change *c, GError **errp)
{
    int ret = 0;
    for (uint64_t i = 0; i < c->tree.count && ret >= 0; i++) {
        if (c->tree.l1[i] & QCOW2_OFFSET_MASK) {
            ret = qcow2_meta_note_table(c->bs, c->tree.l1[i] & QCOW2_OFFSET_MASK);
        }
    }
    return qcow2_could(ret, "note L2 tables", errp);
}

/* @l1: all entries of the new table, of which c->tree has those that change. */
static bool coroutine_fn switch_disk(Change *c, const Qcow2Tree *l1, uint64_t disk_size, GError **errp)
{
    NewDisk disk = { c->l1_offset, disk_size, (uint32_t)l1->count };
    return qcow2_could(bdrv_co_flush(c->bs->file), "flush", errp) &&
           qcow2_could(qcow2_meta_replace_l1(c->bs, l1->l1, l1->count, c->l1_offset, edit_disk, &disk),
                   "write the header", errp);
}

static bool coroutine_fn free_old_disk(Change *c, const NewDisk *old, GError **errp)
{
    uint64_t clusters = qcow2_clusters_of(&c->s->geometry, (uint64_t)old->l1_size * 8);
    bool ok = lower_counts(c, &c->active, errp);
    qcow2_bulk_renew(&c->bulk);
    if (ok && clusters) {
        qcow2_drop_clusters(c->bs, old->l1_offset, clusters, QCOW2_DISCARD_OTHER);
    }
    return ok;
}

static bool coroutine_fn load_both(Change *c, int index, Qcow2Tree *l1, GError **errp)
{
    uint64_t need;
    if (!check_size(c->s, index, true, &need, errp) || !load_tree(c, index, need, errp) ||
        !qcow2_tree_copy(&c->tree, l1, errp)) {
        return false;
    }
    leave_out_common(&c->tree, &c->active);
    return qcow2_tree_look(&c->bulk, &c->tree, true, errp) && qcow2_tree_look(&c->bulk, &c->active, false, errp);
}

/* COPIED flags that somebody else left in the snapshot's tables must not count for the active disk. */
static bool coroutine_fn share_snapshot(Change *c, Qcow2Tree *l1, GError **errp)
{
    for (uint64_t i = 0; i < l1->count; i++) {
        l1->l1[i] &= ~QCOW2_COPIED;
    }
    return note_tables(c, errp) && write_l1(c, l1, errp) && settle_tables(c, errp) &&
           qcow2_tree_clear_copied(c->bs, &c->tree, errp) && raise_counts(c, &c->tree, errp);
}

bool coroutine_fn qcow2_snapshot_goto(BlockDriverState *bs, const char *id, GError **errp)
{
    Change c;
    Qcow2Tree l1 = { 0 };
    int index;
    /* clang-format off */
    bool ok = begin(&c, bs, errp) &&
              check_no_bitmaps(c.s, errp) &&
              find_either(c.s, id, &index, errp) &&
              load_both(&c, index, &l1, errp) &&
              qcow2_could(qcow2_meta_mark(bs), "set the dirty bit", errp) &&
              share_snapshot(&c, &l1, errp);
    /* clang-format on */
    NewDisk old = { c.s->header.l1_table_offset, c.s->header.size, c.s->header.l1_size };
    uint64_t size = ok ? c.s->snapshots.snapshots[index].disk_size : 0;
    ok = ok && switch_disk(&c, &l1, size, errp);
    if (!ok) {
        undo(&c, &c.tree);
    } else {
        bdrv_set_length(bs, (int64_t)size);
        ok = finish(&c, free_old_disk(&c, &old, errp), "applied", errp);
    }
    qcow2_tree_clear(&l1);
    end(&c);
    return ok;
}

/* ---- a table for version 3 ---- */

/* In memory; true if there was one that did not. What version 2 implies is what it says now. */
static bool record_sizes(Qcow2SnapshotTable *table)
{
    bool changed = false;
    for (unsigned i = 0; i < table->count; i++) {
        Qcow2Snapshot *snapshot = &table->snapshots[i];
        if (snapshot->extra_data_bytes < QCOW2_SNAPSHOT_EXTRA_SIZE) {
            snapshot->extra_data = g_realloc(snapshot->extra_data, QCOW2_SNAPSHOT_EXTRA_SIZE);
            snapshot->extra_data_bytes = QCOW2_SNAPSHOT_EXTRA_SIZE;
            store_be64(snapshot->extra_data, snapshot->vm_state_size);
            store_be64(snapshot->extra_data + 8, snapshot->disk_size);
            changed = true;
        }
    }
    return changed;
}

bool coroutine_fn qcow2_snapshots_record_sizes(BlockDriverState *bs, GError **errp)
{
    Change c;
    if (!record_sizes(&qcow2_state(bs)->snapshots)) {
        return true;
    }
    /* clang-format off */
    bool ok = begin(&c, bs, errp) &&
              copy_entries(&c, -1, errp) &&
              store_and_switch(&c, errp);
    /* clang-format on */
    if (!ok) {
        undo(&c, &c.tree);
    } else {
        adopt_table(&c);
        ok = qcow2_could(qcow2_meta_settle(bs), "write metadata", errp);
    }
    end(&c);
    return ok;
}

/* ---- look at a snapshot ---- */

bool coroutine_fn qcow2_snapshot_load_tmp(BlockDriverState *bs, const char *id, const char *name, GError **errp)
{
    Qcow2State *s = qcow2_state(bs);
    Qcow2Tree tree;
    uint64_t need;
    int index;
    if (!s->meta || !bs->read_only) {
        g_set_error(errp, BDRV_ERROR, EACCES, "a snapshot can only be looked at in an image that is opened read-only");
        return false;
    }
    if (!find(s, id, name, &index, errp) || !check_size(s, index, false, &need, errp)) {
        return false;
    }
    const Qcow2Snapshot *snapshot = &s->snapshots.snapshots[index];
    if (!qcow2_tree_load(bs, snapshot->l1_table_offset, snapshot->l1_size, need, &tree, errp)) {
        return false;
    }
    int ret = qcow2_meta_replace_l1(bs, tree.l1, tree.count, snapshot->l1_table_offset, NULL, NULL);
    qcow2_tree_clear(&tree);
    if (!qcow2_could(ret, "load the snapshot", errp)) {
        return false;
    }
    s->snapshot_loaded = true;
    bdrv_set_length(bs, (int64_t)snapshot->disk_size);
    return true;
}
