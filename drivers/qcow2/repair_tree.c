/* SPDX-License-Identifier: MIT */
/*
 * A sound tree beside the damaged one. Each table is read and its entries are judged; if any changes, or the
 * table cannot stay where it is, it is written elsewhere, and so is what leads to it, up to the header. Nothing
 * that the old tree uses is written to.
 */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"
#include "drivers/qcow2/repair.h"

/* A repair makes the file at most this much longer than twice its length. */
#define MAX_EXTRA_CLUSTERS (UINT64_C(64) << 10)

static const Qcow2Geometry *geometry(const Qcow2Repair *r)
{
    return &r->c->s->geometry;
}

/* ---- clusters ---- */

/* Whether one more reference to @cluster can be counted, and nothing else is known to own it. */
static bool may_share(Qcow2Repair *r, uint64_t cluster)
{
    return !qcow2_cluster_set_has_any(&r->c->tables, cluster, 1) &&
           !qcow2_cluster_set_has_any(&r->c->l2_tables, cluster, 1) &&
           cluster < qcow2_repair_refcounts_end(geometry(r)) &&
           qcow2_check_refs_get(&r->refs, cluster) < geometry(r)->refcount_max;
}

static int coroutine_fn copy_bytes(Qcow2Repair *r, uint64_t from, uint64_t to, uint64_t bytes)
{
    uint8_t *buf = g_try_malloc(bytes);
    int ret = buf ? qcow2_check_pread(r->c, from, bytes, buf) : -ENOMEM;
    if (ret >= 0) {
        ret = qcow2_rewrite(r->rewrite, QCOW2_REWRITE_NEW, to, bytes, buf);
    }
    g_free(buf);
    return ret;
}

/* A copy of data cluster @from, one for all who claim it as far as its refcount goes. */
static int coroutine_fn copy_data(Qcow2Repair *r, uint64_t from, uint64_t *to)
{
    gint64 key = (gint64)from;
    Qcow2RepairCopy *copy = g_hash_table_lookup(r->copies, &key);
    int ret = 0;
    if (copy && copy->references < geometry(r)->refcount_max) {
        ret = qcow2_check_refs_add(&r->refs, copy->host_offset >> geometry(r)->cluster_bits);
        copy->references++;
        *to = copy->host_offset;
        return ret;
    }
    ret = qcow2_repair_alloc(r, 1, to);
    if (ret >= 0) {
        ret = copy_bytes(r, from, *to, geometry(r)->cluster_size);
    }
    if (ret >= 0) {
        copy = g_new(Qcow2RepairCopy, 1);
        *copy = (Qcow2RepairCopy){ .host_offset = *to, .references = 1 };
        g_hash_table_replace(r->copies, g_memdup2(&key, sizeof(key)), copy);
        qcow2_check_finding(r->c, QCOW2_CHECK_NOTE,
                            "Copying cluster %" PRIu64 ", which has another owner, to cluster %" PRIu64,
                            from >> geometry(r)->cluster_bits, *to >> geometry(r)->cluster_bits);
    }
    return ret;
}

/* ---- L2 entries: each takes the entry as it is and gives the one that is to be ---- */

static bool has_backing(const Qcow2Repair *r)
{
    return r->c->bs->backing_filename != NULL;
}

/* Version 2 has no zero flag: a cluster of zeroes, another one when its refcount is exhausted. */
static int coroutine_fn share_zeroes(Qcow2Repair *r, uint64_t *wanted)
{
    if (r->zeroes.references && r->zeroes.references < geometry(r)->refcount_max) {
        r->zeroes.references++;
        *wanted = r->zeroes.host_offset;
        return qcow2_check_refs_add(&r->refs, *wanted >> geometry(r)->cluster_bits);
    }
    uint8_t *buf = g_try_malloc0(geometry(r)->cluster_size);
    int ret = buf ? qcow2_repair_alloc(r, 1, wanted) : -ENOMEM;
    if (ret >= 0) {
        r->zeroes = (Qcow2RepairCopy){ .host_offset = *wanted, .references = 1 };
        ret = qcow2_rewrite(r->rewrite, QCOW2_REWRITE_NEW, *wanted, geometry(r)->cluster_size, buf);
    }
    g_free(buf);
    return ret;
}

/* What was mapped here cannot be read. It must not come back as old data of the backing file. */
static int coroutine_fn lost_cluster(Qcow2Repair *r, Qcow2RawEntry raw, Qcow2RawEntry *wanted)
{
    qcow2_check_finding(r->c, QCOW2_CHECK_NOTE,
                        "Repairing L2 entry %" PRIx64 ", which leads nowhere: the cluster reads as zeroes",
                        raw.entry);
    *wanted = (Qcow2RawEntry){ 0 };
    if (geometry(r)->version >= 3) {
        *wanted = qcow2_raw_zero(0, false, geometry(r));
        return 0;
    }
    return has_backing(r) ? share_zeroes(r, &wanted->entry) : 0;
}

static int coroutine_fn tree_compressed(Qcow2Repair *r, Qcow2RawEntry raw, Qcow2RawEntry *wanted)
{
    const Qcow2Geometry *g = geometry(r);
    Qcow2L2Entry e = qcow2_l2_entry_decode((Qcow2RawEntry){ raw.entry, 0 }, g); /* a bitmap means nothing here */
    *wanted = (Qcow2RawEntry){ raw.entry & ~QCOW2_COPIED, 0 };
    if (e.kind != QCOW2_CLUSTER_COMPRESSED || qcow2_check_outside(r->c, e.host_offset, e.compressed_bytes)) {
        return lost_cluster(r, raw, wanted);
    }
    uint64_t first = e.host_offset >> g->cluster_bits;
    uint64_t last = (e.host_offset + e.compressed_bytes - 1) >> g->cluster_bits;
    bool share = true;
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        share = share && may_share(r, cluster);
    }
    if (share) {
        int ret = 0;
        for (uint64_t cluster = first; cluster <= last && ret >= 0; cluster++) {
            ret = qcow2_check_refs_add(&r->refs, cluster);
        }
        return ret;
    }
    uint64_t to;
    int ret = qcow2_repair_alloc(r, (e.compressed_bytes + g->cluster_size - 1) >> g->cluster_bits, &to);
    if (ret >= 0) {
        ret = copy_bytes(r, e.host_offset, to, e.compressed_bytes);
    }
    if (ret >= 0) {
        wanted->entry = qcow2_compressed_descriptor(to, e.compressed_bytes, g->cluster_bits);
        ret = wanted->entry ? 0 : -EFBIG;
    }
    return ret;
}

/* Bits of a bitmap that contradict each other, or an entry without a cluster: data stays, what is lost is zero. */
static uint64_t sound_bitmap(uint64_t bitmap, bool has_cluster)
{
    uint32_t allocated = (uint32_t)bitmap, zero = (uint32_t)(bitmap >> 32);
    return has_cluster ? (uint64_t)(zero & ~allocated) << 32 | allocated : (uint64_t)(zero | allocated) << 32;
}

/* The host cluster is not to be had, and no data is lost with it. */
static Qcow2RawEntry without_space(const Qcow2Geometry *g, Qcow2RawEntry raw)
{
    return g->extended_l2 ? (Qcow2RawEntry){ 0, sound_bitmap(raw.bitmap, false) } : qcow2_raw_zero(0, false, g);
}

/*
 * In a data file there is one place where a cluster can be. A flag that is merely missing is put right later; that of
 * zeroes at offset 0, which have no place, does no harm.
 */
static int tree_data_file_entry(Qcow2Repair *r, Qcow2RawEntry raw, uint64_t guest_offset, Qcow2RawEntry *wanted)
{
    const Qcow2Geometry *g = geometry(r);
    bool placed = qcow2_raw_is_placed(raw, g);
    bool in_place = (raw.entry & QCOW2_OFFSET_MASK) == guest_offset;
    wanted->entry = in_place ? raw.entry & (QCOW2_OFFSET_MASK | QCOW2_COPIED)
                    : placed ? guest_offset | QCOW2_COPIED
                             : 0;
    wanted->entry |= g->extended_l2 ? 0 : raw.entry & QCOW2_L2_ZERO;
    wanted->bitmap = sound_bitmap(raw.bitmap, placed);
    return 0;
}

static int coroutine_fn tree_l2_entry(Qcow2Repair *r, Qcow2RawEntry raw, uint64_t guest_offset, Qcow2RawEntry *wanted)
{
    const Qcow2Geometry *g = geometry(r);
    if (raw.entry & QCOW2_COMPRESSED) {
        return tree_compressed(r, raw, wanted);
    }
    if (g->data_file) {
        return tree_data_file_entry(r, raw, guest_offset, wanted);
    }
    bool zero = (raw.entry & QCOW2_L2_ZERO) && g->version >= 3 && !g->extended_l2;
    bool no_data = g->extended_l2 ? (uint32_t)raw.bitmap == 0 : zero;
    uint64_t offset = raw.entry & QCOW2_OFFSET_MASK, cluster = offset >> g->cluster_bits;
    wanted->entry = (raw.entry & (QCOW2_COPIED | QCOW2_OFFSET_MASK)) | (zero ? QCOW2_L2_ZERO : 0);
    wanted->bitmap = sound_bitmap(raw.bitmap, offset != 0);
    if (offset == 0) {
        return 0;
    }
    bool nowhere = (offset & (g->cluster_size - 1)) || qcow2_check_outside(r->c, offset, g->cluster_size);
    if (!nowhere && may_share(r, cluster)) {
        return qcow2_check_refs_add(&r->refs, cluster);
    }
    if (no_data) {
        *wanted = without_space(g, raw); /* what was kept for it is somebody else's */
        return 0;
    }
    if (!nowhere) {
        return copy_data(r, offset, &wanted->entry);
    }
    int ret = lost_cluster(r, raw, wanted);
    *wanted = g->extended_l2 ? without_space(g, raw) : *wanted; /* other subclusters stay as they are */
    return ret;
}

/* ---- L2 tables ---- */

/* A copy of the table in @buf. */
static int coroutine_fn write_l2_table(Qcow2Repair *r, const uint8_t *buf, uint64_t *wanted)
{
    int ret = qcow2_repair_alloc(r, 1, wanted);
    return ret < 0 ? ret
                   : qcow2_rewrite(r->rewrite, QCOW2_REWRITE_NEW, *wanted, geometry(r)->cluster_size, buf);
}

static int coroutine_fn lost_l2_table(Qcow2Repair *r, uint64_t guest_offset, uint64_t entry, uint8_t *buf,
                                      uint64_t *wanted)
{
    const Qcow2Geometry *g = geometry(r);
    qcow2_check_finding(r->c, QCOW2_CHECK_NOTE,
                        "Repairing L1 entry %" PRIx64 ", which leads nowhere: what it mapped reads as zeroes",
                        entry);
    *wanted = 0;
    if (!has_backing(r) || guest_offset >= r->disk_size) {
        return 0;
    }
    int ret = 0;
    for (uint32_t i = 0; i < g->l2_entries && ret >= 0; i++) {
        Qcow2RawEntry hidden = qcow2_raw_zero(0, false, g);
        ret = g->version < 3 ? share_zeroes(r, &hidden.entry) : 0;
        qcow2_l2_entry_store(buf, i, hidden, g);
    }
    return ret < 0 ? ret : write_l2_table(r, buf, wanted);
}

/* @entry: @index of an L1 table; @buf: a cluster */
static int coroutine_fn tree_l1_entry(Qcow2Repair *r, uint64_t index, uint64_t entry, uint8_t *buf, uint64_t *wanted)
{
    const Qcow2Geometry *g = geometry(r);
    uint64_t guest_offset = index << (g->cluster_bits + g->l2_bits);
    uint64_t offset = entry & QCOW2_OFFSET_MASK, cluster = offset >> g->cluster_bits;
    bool changed = false;
    *wanted = offset ? entry & ~QCOW2_L1_RESERVED : 0;
    if (offset == 0) {
        return 0;
    }
    if ((offset & (g->cluster_size - 1)) || qcow2_check_outside(r->c, offset, g->cluster_size)) {
        return lost_l2_table(r, guest_offset, entry, buf, wanted);
    }
    int ret = qcow2_check_pread(r->c, offset, g->cluster_size, buf);
    for (uint32_t i = 0; i < g->l2_entries && ret >= 0; i++) {
        Qcow2RawEntry old = qcow2_l2_entry_load(buf, i, g), new = old;
        if (old.entry || old.bitmap) {
            ret = tree_l2_entry(r, old, guest_offset + (uint64_t)i * g->cluster_size, &new);
        }
        if (!qcow2_raw_equal(new, old)) {
            qcow2_l2_entry_store(buf, i, new, g);
            changed = true;
        }
    }
    if (ret < 0) {
        return ret;
    }
    if (!changed && !qcow2_cluster_set_has_any(&r->c->tables, cluster, 1) &&
        cluster < qcow2_repair_refcounts_end(g) && qcow2_check_refs_get(&r->refs, cluster) < g->refcount_max) {
        return qcow2_check_refs_add(&r->refs, cluster);
    }
    return write_l2_table(r, buf, wanted);
}

/* ---- L1 tables ---- */

bool qcow2_repair_claim(Qcow2Repair *r, uint64_t offset, uint64_t bytes)
{
    const Qcow2Geometry *g = geometry(r);
    if (offset == 0 || (offset & (g->cluster_size - 1)) || qcow2_check_outside(r->c, offset, bytes)) {
        return false;
    }
    uint64_t first = offset >> g->cluster_bits, last = (offset + bytes - 1) >> g->cluster_bits;
    for (uint64_t cluster = first; cluster <= last; cluster++) {
        if (qcow2_check_refs_get(&r->refs, cluster) || cluster >= qcow2_repair_refcounts_end(g) ||
            qcow2_check_refs_add(&r->refs, cluster) < 0) {
            while (cluster-- > first) {
                qcow2_check_refs_drop(&r->refs, cluster);
            }
            return false;
        }
    }
    return true;
}

int coroutine_fn qcow2_repair_move_table(Qcow2Repair *r, const uint8_t *buf, uint64_t bytes, bool claimed,
                                         uint64_t *offset)
{
    unsigned bits = geometry(r)->cluster_bits;
    uint64_t clusters = (bytes + geometry(r)->cluster_size - 1) >> bits, to;
    int ret = qcow2_repair_alloc(r, clusters, &to);
    if (ret >= 0) {
        ret = qcow2_rewrite(r->rewrite, QCOW2_REWRITE_NEW, to, bytes, buf);
    }
    for (uint64_t i = 0; i < clusters && claimed && ret >= 0; i++) {
        qcow2_check_refs_drop(&r->refs, (*offset >> bits) + i);
    }
    if (ret >= 0) {
        *offset = to;
    }
    return ret;
}

int coroutine_fn qcow2_repair_l1(Qcow2Repair *r, uint64_t *offset, uint64_t entries, uint64_t size)
{
    uint64_t bytes = entries * 8;
    r->disk_size = size;
    if (bytes == 0) {
        return 0;
    }
    uint8_t *table = g_try_malloc(bytes), *l2 = g_try_malloc(geometry(r)->cluster_size);
    bool claimed = qcow2_repair_claim(r, *offset, bytes), changed = !claimed;
    int ret = table && l2 ? qcow2_check_pread(r->c, *offset, bytes, table) : -ENOMEM;
    for (uint64_t i = 0; i < entries && ret >= 0; i++) {
        uint64_t old = load_be64(table + 8 * i), new_entry = old;
        if (old) {
            ret = tree_l1_entry(r, i, old, l2, &new_entry);
        }
        if (new_entry != old) {
            store_be64(table + 8 * i, new_entry);
            changed = true;
        }
        co_maybe_yield();
    }
    if (ret >= 0 && changed) {
        ret = qcow2_repair_move_table(r, table, bytes, claimed, offset);
    }
    g_free(table);
    g_free(l2);
    return ret;
}

/* ---- the whole ---- */

/* Header, encryption header, bitmaps: counted where they are. */
static int coroutine_fn tree_fixed(Qcow2Repair *r)
{
    Qcow2Check *c = r->c;
    BdrvCheckResult ignored = { 0 }, *result = c->result;
    if (c->bitmaps_damaged) {
        qcow2_check_finding(c, QCOW2_CHECK_NOTE, "Repairing the bitmaps: they are damaged and given up");
        r->header.autoclear_features &= ~QCOW2_AUTOCLEAR_BITMAPS;
        if (r->dry) {
            return -ECANCELED;
        }
    }
    c->into = &r->refs;
    c->result = &ignored;
    int ret = qcow2_check_count_fixed(c, !c->bitmaps_damaged);
    c->result = result;
    c->into = &c->refs;
    return ret < 0 ? ret : ignored.corruptions ? -EIO : 0;
}

static int coroutine_fn make_tree(Qcow2Repair *r)
{
    int ret = tree_fixed(r);
    if (ret >= 0) {
        ret = qcow2_repair_l1(r, &r->header.l1_table_offset, r->header.l1_size, r->header.size);
    }
    if (ret >= 0) {
        ret = qcow2_repair_snapshots(r);
    }
    if (ret >= 0 && !r->dry) {
        qcow2_check_finding(r->c, QCOW2_CHECK_NOTE, "Rebuilding refcount structure");
        ret = qcow2_repair_write_refcounts(r);
    }
    return ret;
}

int coroutine_fn qcow2_repair_tree(Qcow2Check *c, Qcow2Rewrite *rewrite, bool dry)
{
    BdrvCheckResult *result = c->result, quiet = { 0 };
    Qcow2Repair r = {
        .c = c,
        .rewrite = rewrite,
        .dry = dry,
        .header = c->s->header,
        .copies = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free),
        .cursor = c->refcounts_unread ? c->end_clusters : 0, /* the old ones may be anywhere in the file */
        .max_allocated = c->file_clusters + MAX_EXTRA_CLUSTERS,
    };
    qcow2_check_refs_init(&r.refs, &c->s->geometry, c->refs.max_bytes);
    c->result = dry ? &quiet : result;
    int ret = make_tree(&r);
    if (ret >= 0 && !dry) {
        ret = qcow2_rewrite_header(rewrite, &r.header);
        ret = ret < 0 ? ret : 1;
    } else if (dry && ret == -ECANCELED) {
        ret = 1;
    }
    c->result = result;
    qcow2_check_refs_clear(&r.refs);
    g_hash_table_unref(r.copies);
    return ret;
}
