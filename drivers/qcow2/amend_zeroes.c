/* SPDX-License-Identifier: MIT */
/*
 * Amend: version 2 has no zero flag, so clusters that have it become others that read the same, in the tables of
 * snapshots, too. The node is drained and settled.
 *
 * Some tables at a time, in a round:
 *
 *   plan    what becomes of each entry; clusters are allocated for those that need space, zeroed, counted as often as
 *           their table is, flushed
 *   write   the tables, flush
 *   drop    what the old entries had and the new ones have not
 *
 * So at every cut no count is below the references. What an L2 table of several L1 tables leads to is counted once for
 * each of them.
 */

#include "drivers/qcow2/amend.h"

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/meta/cluster_set.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/snapshot_tree.h"

#define ROUND_BYTES (4u << 20)
#define MAX_ROUND_TABLES 1024u

typedef struct Table {
    uint64_t host_offset, references;
    uint64_t guest_offset; /* of its first entry */
    uint8_t *entries;      /* a cluster; made when first needed */
    bool active;           /* of the active disk: COPIED counts there */
} Table;

/* Clusters that belong to entries of one table: each is counted @references times for them. */
typedef struct Run {
    uint64_t first, count, references;
} Run;

typedef struct Walk {
    BlockDriverState *bs;
    Qcow2State *s;
    Qcow2Bulk bulk;
    Qcow2ClusterSet seen; /* tables that were visited: others lead there, too */
    bool has_backing;
    bool zeroes, compressed; /* survey: were found */
    Table *round;
    unsigned round_count, round_max;
    GArray *added, *dropped; /* Run, of the round */
    bool raising;            /* some of @added may be counted more than once already */
} Walk;

static bool coroutine_fn begin(Walk *w, BlockDriverState *bs, GError **errp)
{
    *w = (Walk){ .bs = bs, .s = qcow2_state(bs) };
    w->has_backing = bs->backing_filename || bs->backing;
    w->added = g_array_new(FALSE, FALSE, sizeof(Run));
    w->dropped = g_array_new(FALSE, FALSE, sizeof(Run));
    w->round_max = CLAMP(ROUND_BYTES >> w->s->geometry.cluster_bits, 1, MAX_ROUND_TABLES);
    w->round = g_try_new0(Table, w->round_max);
    bool ok = w->round && qcow2_cluster_set_init(&w->seen);
    return qcow2_could(ok ? 0 : -ENOMEM, "look at zero clusters", errp) &&
           qcow2_could(qcow2_meta_settle(bs), "write metadata", errp) &&
           qcow2_could(qcow2_bulk_begin(&w->bulk, bs, QCOW2_DISCARD_OTHER), "begin to count references", errp);
}

static void end(Walk *w)
{
    for (unsigned i = 0; w->round && i < w->round_max; i++) {
        bdrv_vfree(w->round[i].entries);
    }
    g_free(w->round);
    g_array_unref(w->added);
    g_array_unref(w->dropped);
    qcow2_cluster_set_destroy(&w->seen);
    qcow2_bulk_end(&w->bulk);
}

/* ---- all tables ---- */

/* Whether the table in w->round[w->round_count] is one of those to be changed. */
typedef bool TableVisitor(Walk *w, Table *table, GError **errp);

static bool coroutine_fn visit_tree(Walk *w, const Qcow2Tree *tree, bool active, TableVisitor *visit, GError **errp)
{
    unsigned bits = w->s->geometry.cluster_bits;
    for (uint64_t i = 0; i < tree->count; i++) {
        uint64_t offset = tree->l1[i] & QCOW2_OFFSET_MASK;
        if (!offset || qcow2_cluster_set_has_any(&w->seen, offset >> bits, 1)) {
            continue;
        }
        Table *table = &w->round[w->round_count];
        table->host_offset = offset;
        table->guest_offset = (i * w->s->geometry.l2_entries) << bits;
        table->active = active;
        if (!table->entries) {
            table->entries = bdrv_try_blockalign(w->bs->file->bs, w->s->geometry.cluster_size);
        }
        if (!table->entries || !qcow2_cluster_set_add(&w->seen, offset >> bits, 1)) {
            return qcow2_could(-ENOMEM, "note L2 tables", errp);
        }
        if (!qcow2_tree_read_table(w->bs, i, tree->l1[i], table->entries, errp) || !visit(w, table, errp)) {
            return false;
        }
    }
    return true;
}

/* The active disk first: what it shares with snapshots is visited as its own. */
static bool coroutine_fn visit_all(Walk *w, TableVisitor *visit, const Qcow2Progress *progress, GError **errp)
{
    unsigned count = w->s->snapshots.count;
    Qcow2Tree tree;
    if (!qcow2_tree_active(w->bs, &tree, errp)) {
        return false;
    }
    bool ok = visit_tree(w, &tree, true, visit, errp);
    qcow2_tree_clear(&tree);
    for (unsigned i = 0; i < count && ok; i++) {
        const Qcow2Snapshot *snapshot = &w->s->snapshots.snapshots[i];
        ok = qcow2_progress(progress, i + 1, count + 1, errp) &&
             qcow2_tree_load(w->bs, snapshot->l1_table_offset, snapshot->l1_size, 0, &tree, errp);
        if (ok) {
            ok = visit_tree(w, &tree, false, visit, errp);
            qcow2_tree_clear(&tree);
        }
    }
    return ok;
}

/* ---- survey ---- */

static bool coroutine_fn survey_table(Walk *w, Table *table, GError **errp)
{
    const Qcow2Geometry *g = &w->s->geometry;
    for (uint32_t i = 0; i < g->l2_entries; i++) {
        Qcow2RawEntry raw = qcow2_l2_entry_load(table->entries, i, g);
        Qcow2L2Entry entry = qcow2_l2_entry_decode(raw, g);
        if (entry.kind == QCOW2_CLUSTER_INVALID) {
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "entry %" PRIu32 " of the L2 table at offset %" PRIu64 " is 0x%" PRIx64
                        ": %s; run 'bdrv-img check'",
                        i, table->host_offset, raw.entry, entry.problem);
            return false;
        }
        w->zeroes |= entry.kind == QCOW2_CLUSTER_ZERO;
        w->compressed |= entry.kind == QCOW2_CLUSTER_COMPRESSED;
    }
    return true;
}

bool coroutine_fn qcow2_survey_clusters(BlockDriverState *bs, bool *zeroes, bool *compressed, GError **errp)
{
    Walk w;
    bool ok = begin(&w, bs, errp) && visit_all(&w, survey_table, NULL, errp);
    *zeroes = w.zeroes;
    *compressed = w.compressed;
    end(&w);
    return ok;
}

/* ---- plan ---- */

static void add_run(GArray *runs, uint64_t first, uint64_t count, uint64_t references)
{
    Run *last = runs->len ? &g_array_index(runs, Run, runs->len - 1) : NULL;
    if (last && last->first + last->count == first && last->references == references) {
        last->count += count;
    } else {
        g_array_append_val(runs, ((Run){ first, count, references }));
    }
}

/* What is encrypted is not zero in the file. */
static int coroutine_fn encrypt_zeroes(Walk *w, const Table *table, const uint32_t *indexes, uint64_t host_offset,
                                       uint64_t count)
{
    const Qcow2Geometry *g = &w->s->geometry;
    g_autofree uint8_t *zeroes = g_try_malloc0(g->cluster_size);
    int ret = zeroes ? 0 : -ENOMEM;
    for (uint64_t i = 0; i < count && ret >= 0; i++) {
        struct iovec vec;
        BdrvIov iov = BDRV_IOV_BUF(vec, zeroes, g->cluster_size);
        uint64_t guest_offset = table->guest_offset + ((uint64_t)indexes[i] << g->cluster_bits);
        ret = qcow2_write_encrypted(w->bs, guest_offset, host_offset + (i << g->cluster_bits), g->cluster_size, &iov, 0);
    }
    return ret;
}

/* @count clusters of the file, one each for the entries that @indexes names. */
static int coroutine_fn zero_host(Walk *w, const Table *table, const uint32_t *indexes, uint64_t host_offset,
                                  uint64_t count, BdrvRequestFlags flags)
{
    uint64_t bytes = count << w->s->geometry.cluster_bits;
    int ret = qcow2_check_data_write(w->bs, host_offset, bytes);
    if (ret >= 0) {
        ret = w->s->crypto ? encrypt_zeroes(w, table, indexes, host_offset, count)
                           : bdrv_co_pwrite_zeroes(w->bs->file, (int64_t)host_offset, (int64_t)bytes, flags);
    }
    return ret < 0 ? ret : 0;
}

/* Space that no other entry has becomes data; *@kept: it did. Else the entry gives up what it has. */
static int coroutine_fn plan_space(Walk *w, Table *table, uint32_t index, const Qcow2L2Entry *entry, bool *kept)
{
    const Qcow2Geometry *g = &w->s->geometry;
    uint64_t cluster = entry->host_offset >> g->cluster_bits, count;
    int ret = qcow2_bulk_get(&w->bulk, cluster, &count);
    *kept = ret >= 0 && count == table->references;
    if (*kept) {
        ret = zero_host(w, table, &index, entry->host_offset, 1, 0);
        qcow2_l2_entry_store(table->entries, index, qcow2_raw_data(entry->host_offset, entry->copied, g), g);
    } else if (ret >= 0) {
        add_run(w->dropped, cluster, 1, table->references);
    }
    return ret;
}

/* Entries without space: *@wanted counts those that are to get some, the others are 0 then. */
static int coroutine_fn plan_entries(Walk *w, Table *table, uint32_t *indexes, uint32_t *wanted)
{
    const Qcow2Geometry *g = &w->s->geometry;
    int ret = 0;
    *wanted = 0;
    for (uint32_t i = 0; i < g->l2_entries && ret >= 0; i++) {
        Qcow2L2Entry entry = qcow2_l2_entry_decode(qcow2_l2_entry_load(table->entries, i, g), g);
        bool kept = false;
        if (entry.kind != QCOW2_CLUSTER_ZERO) {
            continue;
        }
        if (entry.host_offset) {
            ret = plan_space(w, table, i, &entry, &kept);
        }
        if (ret >= 0 && !kept) {
            qcow2_l2_entry_store(table->entries, i, (Qcow2RawEntry){ 0 }, g);
            indexes[*wanted] = i;
            *wanted += w->has_backing;
        }
    }
    return ret;
}

static int coroutine_fn give_space(Walk *w, Table *table, const uint32_t *indexes, uint32_t wanted)
{
    const Qcow2Geometry *g = &w->s->geometry;
    bool copied = table->active && table->references == 1;
    uint64_t hint = 0;
    for (uint32_t done = 0; done < wanted;) {
        Qcow2Allocation got;
        int ret = qcow2_alloc_clusters(w->bs, hint, wanted - done, &got);
        if (ret < 0) {
            return ret;
        }
        add_run(w->added, got.host_offset >> g->cluster_bits, got.count, table->references);
        ret = zero_host(w, table, indexes + done, got.host_offset, got.count, BDRV_REQ_MAY_UNMAP);
        if (ret < 0) {
            return ret;
        }
        for (uint64_t i = 0; i < got.count; i++) {
            Qcow2RawEntry raw = qcow2_raw_data(got.host_offset + (i << g->cluster_bits), copied, g);
            qcow2_l2_entry_store(table->entries, indexes[done + i], raw, g);
        }
        done += (uint32_t)got.count;
        hint = got.host_offset + (got.count << g->cluster_bits);
    }
    return 0;
}

static bool has_zeroes(const Walk *w, const Table *table)
{
    const Qcow2Geometry *g = &w->s->geometry;
    for (uint32_t i = 0; i < g->l2_entries; i++) {
        if (qcow2_l2_entry_load(table->entries, i, g).entry & QCOW2_L2_ZERO &&
            qcow2_l2_entry_decode(qcow2_l2_entry_load(table->entries, i, g), g).kind == QCOW2_CLUSTER_ZERO) {
            return true;
        }
    }
    return false;
}

/* ---- a round ---- */

/* @delta to each cluster of @runs, @references - @less times */
static int coroutine_fn count_runs(Walk *w, const GArray *runs, int delta, uint64_t less)
{
    for (unsigned i = 0; i < runs->len; i++) {
        const Run *run = &g_array_index(runs, Run, i);
        for (uint64_t n = less; n < run->references; n++) {
            uint64_t done;
            int ret = qcow2_bulk_add(&w->bulk, run->first, run->count, delta, &done);
            if (ret < 0) {
                return ret;
            }
        }
    }
    return qcow2_bulk_sync(&w->bulk);
}

/* What is new is there and counted, durably. */
static int coroutine_fn settle_added(Walk *w)
{
    int ret = w->added->len ? qcow2_meta_settle(w->bs) : 0;
    qcow2_bulk_renew(&w->bulk);
    ret = ret < 0 ? ret : bdrv_co_flush(w->bs->file);
    w->raising = ret >= 0;
    return ret < 0 ? ret : count_runs(w, w->added, 1, 1);
}

static int coroutine_fn write_tables(Walk *w)
{
    int ret = 0;
    for (unsigned i = 0; i < w->round_count && ret >= 0; i++) {
        bdrv_debug_event(w->bs, BDRV_EVENT_L2_UPDATE);
        ret = qcow2_meta_write_table(w->bs, w->round[i].host_offset, w->s->geometry.cluster_size, w->round[i].entries);
    }
    return ret < 0 ? ret : bdrv_co_flush(w->bs->file);
}

/* Nothing leads to what was allocated. */
static void coroutine_fn release_added(Walk *w)
{
    unsigned bits = w->s->geometry.cluster_bits;
    for (unsigned i = 0; i < w->added->len; i++) {
        const Run *run = &g_array_index(w->added, Run, i);
        qcow2_release_clusters(w->bs, run->first << bits, run->count);
    }
    qcow2_meta_settle(w->bs);
}

static bool coroutine_fn finish_round(Walk *w, GError **errp)
{
    bool ok = qcow2_could(settle_added(w), "write refcounts", errp) &&
              qcow2_could(write_tables(w), "write L2 tables", errp) &&
              qcow2_could(count_runs(w, w->dropped, -1, 0), "write refcounts", errp);
    if (ok) {
        w->round_count = 0;
        w->raising = false;
        g_array_set_size(w->added, 0);
        g_array_set_size(w->dropped, 0);
    }
    return ok;
}

static bool coroutine_fn expand_table(Walk *w, Table *table, GError **errp)
{
    const Qcow2Geometry *g = &w->s->geometry;
    if (!has_zeroes(w, table)) {
        return true;
    }
    int ret = qcow2_bulk_get(&w->bulk, table->host_offset >> g->cluster_bits, &table->references);
    if (ret >= 0 && table->references == 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the L2 table at offset %" PRIu64 " has no refcount; run 'bdrv-img check'", table->host_offset);
        return false;
    }
    uint32_t wanted = 0, *indexes = g_try_new(uint32_t, g->l2_entries);
    ret = ret < 0 ? ret : qcow2_meta_note_table(w->bs, table->host_offset);
    ret = ret < 0 ? ret : indexes ? plan_entries(w, table, indexes, &wanted) : -ENOMEM;
    ret = ret < 0 ? ret : give_space(w, table, indexes, wanted);
    g_free(indexes);
    if (!qcow2_could(ret, "give zero clusters space", errp)) {
        return false;
    }
    w->round_count++;
    return w->round_count < w->round_max || finish_round(w, errp);
}

bool coroutine_fn qcow2_expand_zeroes(BlockDriverState *bs, const Qcow2Progress *progress, GError **errp)
{
    Walk w;
    /* clang-format off */
    bool ok = begin(&w, bs, errp) &&
              qcow2_could(qcow2_meta_mark(bs), "set the dirty bit", errp) &&
              visit_all(&w, expand_table, progress, errp) &&
              finish_round(&w, errp);
    /* clang-format on */
    if (!ok && w.raising) {
        qcow2_meta_keep_mark(bs);
    } else if (!ok && w.bulk.bs) {
        qcow2_bulk_renew(&w.bulk);
        release_added(&w);
        qcow2_meta_clean(bs);
    }
    end(&w);
    return ok;
}
