/* SPDX-License-Identifier: MIT */
/*
 * Count the references of every structure. Damage is reported and counted on as far as it makes sense:
 * an offset that is not aligned still refers to the clusters it touches.
 */

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/bitmap.h"
#include "drivers/qcow2/check.h"
#include "block/util/bytes.h"

/* Tables are read in pieces of at most this. */
#define PIECE_BYTES (1u << 20)

/* Where the guest's clusters lie; of the active table only. */
typedef struct FragmentStats {
    uint64_t next_offset; /* where the next data cluster would be contiguous; 0: no last one */
} FragmentStats;

/* One reference more to every cluster that [offset, +bytes) touches. */
static int add_references(Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    unsigned bits = c->s->geometry.cluster_bits;
    if (bytes == 0) {
        return 0;
    }
    if (qcow2_check_outside(c, offset, bytes)) {
        qcow2_check_finding(
            c, QCOW2_CHECK_OUTSIDE_FILE,
            "ERROR: counting reference for region exceeding the end of the file by one cluster or "
            "more: offset 0x%" PRIx64 " size 0x%" PRIx64,
            offset, bytes);
        return 0;
    }
    uint64_t last = (offset + bytes - 1) >> bits;
    c->end_clusters = MAX(c->end_clusters, last + 1);
    for (uint64_t cluster = offset >> bits; cluster <= last; cluster++) {
        int ret = qcow2_check_refs_add(c->into, cluster);
        if (ret == -ERANGE) {
            qcow2_check_finding(c, QCOW2_CHECK_REFCOUNT_OVERFLOW, "ERROR: overflow cluster offset=0x%" PRIx64,
                                cluster << bits);
        } else if (ret < 0) {
            return ret;
        }
    }
    return 0;
}

/* The same for a table; a repair wants to know which clusters hold tables. */
static int add_table(Qcow2Check *c, Qcow2ClusterSet *set, uint64_t offset, uint64_t bytes)
{
    unsigned bits = c->s->geometry.cluster_bits;
    if (bytes && c->fix && !qcow2_check_outside(c, offset, bytes)) {
        uint64_t first = offset >> bits;
        if (!qcow2_cluster_set_add(set, first, ((offset + bytes - 1) >> bits) - first + 1)) {
            return -ENOMEM;
        }
    }
    return add_references(c, offset, bytes);
}

static int count_compressed(Qcow2Check *c, uint32_t index, Qcow2RawEntry raw, FragmentStats *stats)
{
    if (c->s->geometry.data_file) {
        qcow2_check_finding(c, QCOW2_CHECK_COMPRESSED_ENTRY,
                            "ERROR compressed cluster %" PRIu32 " with data file, entry=0x%" PRIx64, index,
                            raw.entry);
        return 0;
    }
    Qcow2L2Entry e = qcow2_l2_entry_decode(raw, &c->s->geometry);
    if (raw.entry & QCOW2_COPIED) {
        qcow2_check_finding(c, QCOW2_CHECK_COMPRESSED_ENTRY,
                            "ERROR: coffset=0x%" PRIx64
                            ": copied flag must never be set for compressed clusters",
                            e.host_offset);
    }
    if (raw.bitmap) {
        qcow2_check_finding(c, QCOW2_CHECK_COMPRESSED_ENTRY,
                            "ERROR compressed cluster %" PRIu32
                            " with non-zero subcluster allocation bitmap, entry=0x%" PRIx64,
                            index, raw.entry);
    }
    if (stats) {
        /* Compressed clusters are fragmented by nature: they are not cluster sized. */
        c->result->allocated_clusters++;
        c->result->compressed_clusters++;
        c->result->fragmented_clusters++;
    }
    return add_references(c, e.host_offset, e.compressed_bytes);
}

/* Bits that contradict each other, or the entry. */
static void check_bitmap(Qcow2Check *c, Qcow2RawEntry raw, bool placed)
{
    uint64_t offset = raw.entry & QCOW2_OFFSET_MASK;
    uint32_t allocated = (uint32_t)raw.bitmap, zero = (uint32_t)(raw.bitmap >> 32);
    if (placed && (allocated & zero)) {
        qcow2_check_finding(
            c, QCOW2_CHECK_SUBCLUSTER_BITMAP,
            "ERROR offset=%" PRIx64 ": Allocated cluster has corrupted subcluster allocation bitmap", offset);
    } else if (!placed && allocated) {
        qcow2_check_finding(c, QCOW2_CHECK_SUBCLUSTER_BITMAP,
                            "ERROR: Unallocated cluster has non-zero subcluster allocation map");
    }
}

/* The zero flag is a reserved bit where it means nothing. */
static void check_reserved(Qcow2Check *c, Qcow2RawEntry raw)
{
    if ((raw.entry & QCOW2_L2_RESERVED) || ((raw.entry & QCOW2_L2_ZERO) && c->s->geometry.extended_l2)) {
        qcow2_check_finding(c, QCOW2_CHECK_RESERVED_BITS,
                            "ERROR found l2 entry with reserved bits set: %" PRIx64, raw.entry);
    }
    if ((raw.entry & QCOW2_L2_ZERO) && c->s->geometry.version < 3) {
        qcow2_check_finding(
            c, QCOW2_CHECK_RESERVED_BITS,
            "ERROR found l2 entry with the zero flag, which version 2 does not have: %" PRIx64, raw.entry);
    }
}

/* Of an entry that maps the cluster at @guest_offset. Those of a data file are not counted, but each has its place. */
static int count_data(Qcow2Check *c, uint64_t offset, uint64_t guest_offset)
{
    if (!c->s->geometry.data_file) {
        return add_references(c, offset, c->s->geometry.cluster_size);
    }
    if (offset != guest_offset) {
        qcow2_check_finding(c, QCOW2_CHECK_DATA_FILE_OFFSET,
                            "ERROR offset=%" PRIx64 " in the data file does not match guest offset %" PRIx64,
                            offset, guest_offset);
    }
    return 0;
}

static int count_l2_entry(Qcow2Check *c, uint32_t index, Qcow2RawEntry raw, uint64_t guest_offset, FragmentStats *stats)
{
    if (raw.entry & QCOW2_COMPRESSED) {
        return count_compressed(c, index, raw, stats);
    }
    uint64_t offset = raw.entry & QCOW2_OFFSET_MASK;
    uint32_t cluster_size = c->s->geometry.cluster_size;
    check_reserved(c, raw);
    bool placed = qcow2_raw_is_placed(raw, &c->s->geometry);
    check_bitmap(c, raw, placed);
    if (!placed) {
        return 0;
    }
    if (offset & (cluster_size - 1)) {
        bool zero = (raw.entry & QCOW2_L2_ZERO) || (c->s->geometry.extended_l2 && !(uint32_t)raw.bitmap);
        qcow2_check_finding(c, QCOW2_CHECK_NOT_ALIGNED,
                            "ERROR offset=%" PRIx64 ": %s is not properly aligned; L2 entry corrupted.",
                            offset, zero ? "Preallocated cluster" : "Data cluster");
    }
    if (stats) {
        c->result->allocated_clusters++;
        if (stats->next_offset && offset != stats->next_offset) {
            c->result->fragmented_clusters++;
        }
        stats->next_offset = offset + cluster_size;
    }
    return count_data(c, offset, guest_offset);
}

/* @buf: a cluster */
static int coroutine_fn count_l2_table(Qcow2Check *c, uint64_t l2_offset, uint64_t guest_offset, uint8_t *buf,
                                       FragmentStats *stats)
{
    uint32_t cluster_size = c->s->geometry.cluster_size;
    int ret = qcow2_check_pread(c, l2_offset, cluster_size, buf);
    if (ret < 0) {
        qcow2_check_finding(c, QCOW2_CHECK_TABLE_UNREAD,
                            "ERROR: I/O error in check_refcounts_l2: L2 table at 0x%" PRIx64 ": %s",
                            l2_offset, g_strerror(-ret));
        return 0;
    }
    if (stats) {
        stats->next_offset = 0;
    }
    for (uint32_t i = 0; i < c->s->geometry.l2_entries; i++) {
        Qcow2RawEntry raw = qcow2_l2_entry_load(buf, i, &c->s->geometry);
        uint64_t guest = guest_offset + (uint64_t)i * cluster_size;
        if ((raw.entry || raw.bitmap) && (ret = count_l2_entry(c, i, raw, guest, stats)) < 0) {
            return ret;
        }
    }
    return 0;
}

static int coroutine_fn count_l1_entry(Qcow2Check *c, uint64_t index, uint64_t entry, uint8_t *l2_buf,
                                       FragmentStats *stats)
{
    if (entry == 0) {
        return 0;
    }
    if (entry & QCOW2_L1_RESERVED) {
        qcow2_check_finding(c, QCOW2_CHECK_RESERVED_BITS,
                            "ERROR found L1 entry with reserved bits set: %" PRIx64, entry);
    }
    uint64_t l2_offset = entry & QCOW2_OFFSET_MASK; /* may be 0: flags alone lead to the header */
    int ret = add_table(c, &c->l2_tables, l2_offset, c->s->geometry.cluster_size);
    if (ret < 0) {
        return ret;
    }
    if (l2_offset & (c->s->geometry.cluster_size - 1)) {
        qcow2_check_finding(c, QCOW2_CHECK_NOT_ALIGNED,
                            "ERROR l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry corrupted",
                            l2_offset);
    }
    uint64_t guest_offset = index << (c->s->geometry.cluster_bits + c->s->geometry.l2_bits);
    return count_l2_table(c, l2_offset, guest_offset, l2_buf, stats);
}

/* L1 entries of the disk and its snapshots are what takes time. -ECANCELED if the caller wants no more. */
static int goes_on(Qcow2Check *c, uint64_t entries)
{
    BdrvCheckResult *result = c->result;
    uint64_t total = c->s->header.l1_size;
    c->l1_done += entries;
    if (!result->progress) {
        return 0;
    }
    for (unsigned i = 0; i < c->s->snapshots.count; i++) {
        total += c->s->snapshots.snapshots[i].l1_size;
    }
    return result->progress(result->progress_opaque, (int64_t)c->l1_done, (int64_t)total) ? 0 : -ECANCELED;
}

static int coroutine_fn count_l1(Qcow2Check *c, uint64_t l1_offset, uint64_t l1_entries, FragmentStats *stats)
{
    int ret = add_table(c, &c->tables, l1_offset, l1_entries * 8);
    uint8_t *piece = g_try_malloc(PIECE_BYTES);
    uint8_t *l2_buf = g_try_malloc(c->s->geometry.cluster_size);
    if (!piece || !l2_buf) {
        ret = -ENOMEM;
    }
    for (uint64_t done = 0; ret >= 0 && done < l1_entries;) {
        uint64_t n = MIN(l1_entries - done, PIECE_BYTES / 8);
        ret = qcow2_check_pread(c, l1_offset + done * 8, n * 8, piece);
        if (ret < 0) {
            qcow2_check_finding(c, QCOW2_CHECK_TABLE_UNREAD,
                                "ERROR: I/O error in check_refcounts_l1: L1 table at 0x%" PRIx64 ": %s",
                                l1_offset, g_strerror(-ret));
            ret = 0;
            break;
        }
        for (uint64_t i = 0; ret >= 0 && i < n; i++) {
            ret = count_l1_entry(c, done + i, load_be64(piece + 8 * i), l2_buf, stats);
            ret = ret < 0 ? ret : goes_on(c, 1);
        }
        done += n;
    }
    g_free(piece);
    g_free(l2_buf);
    return ret;
}

/* Opening an image without snapshots does not look at it. */
static bool is_snapshots_offset(const Qcow2State *s)
{
    uint64_t offset = s->header.snapshots_offset;
    return offset <= INT64_MAX && (offset & (s->geometry.cluster_size - 1)) == 0;
}

static int coroutine_fn count_snapshots(Qcow2Check *c)
{
    const Qcow2SnapshotTable *table = &c->s->snapshots;
    if (c->s->snapshot_damage) {
        qcow2_check_finding(c, QCOW2_CHECK_SNAPSHOT_TABLE, "ERROR snapshot table: %s", c->s->snapshot_damage);
    } else if (table->count == 0 && !is_snapshots_offset(c->s)) {
        qcow2_check_finding(c, QCOW2_CHECK_SNAPSHOT_TABLE,
                            "ERROR snapshot table offset %" PRIx64 " is invalid, and there are no snapshots",
                            c->s->header.snapshots_offset);
    }
    for (unsigned i = 0; i < table->count; i++) {
        const Qcow2Snapshot *s = &table->snapshots[i];
        if (s->l1_table_offset & (c->s->geometry.cluster_size - 1)) {
            qcow2_check_finding(c, QCOW2_CHECK_SNAPSHOT_TABLE,
                                "ERROR snapshot %s (%s) l1_offset=%" PRIx64
                                ": L1 table is not cluster aligned; snapshot table entry corrupted",
                                s->id, s->name, s->l1_table_offset);
            continue;
        }
        if (s->l1_size > QCOW2_MAX_L1_BYTES / 8) {
            qcow2_check_finding(c, QCOW2_CHECK_SNAPSHOT_TABLE,
                                "ERROR snapshot %s (%s) l1_size=%" PRIx32
                                ": L1 table is too large; snapshot table entry corrupted",
                                s->id, s->name, s->l1_size);
            continue;
        }
        int ret = count_l1(c, s->l1_table_offset, s->l1_size, NULL);
        if (ret < 0) {
            return ret;
        }
    }
    return add_table(c, &c->tables, table->offset, table->bytes);
}

static int coroutine_fn count_bitmap_table(Qcow2Check *c, const Qcow2Bitmap *bitmap)
{
    uint64_t bytes = (uint64_t)bitmap->table_size * 8;
    int ret = add_table(c, &c->tables, bitmap->table_offset, bytes);
    uint8_t *piece = g_try_malloc(PIECE_BYTES);
    if (!piece) {
        return -ENOMEM;
    }
    /* Past the end of the file there is nothing to count. */
    uint64_t end =
        bitmap->table_offset < c->file_length ? MIN(bytes, c->file_length - bitmap->table_offset) : 0;
    for (uint64_t done = 0; ret >= 0 && done < end;) {
        uint64_t n = MIN(end - done, PIECE_BYTES);
        ret = qcow2_check_pread(c, bitmap->table_offset + done, n, piece);
        if (ret < 0) {
            qcow2_check_finding(c, QCOW2_CHECK_TABLE_UNREAD,
                                "ERROR: cannot read the table of bitmap '%s': %s", bitmap->name,
                                g_strerror(-ret));
            ret = 0;
            break;
        }
        for (uint64_t i = 0; ret >= 0 && i + 8 <= n; i += 8) {
            uint64_t entry = load_be64(piece + i);
            uint64_t offset = entry & QCOW2_OFFSET_MASK;
            if ((entry & QCOW2_BITMAP_TABLE_RESERVED) || (offset && (entry & 1)) ||
                (offset & (c->s->geometry.cluster_size - 1))) {
                qcow2_check_finding(c, QCOW2_CHECK_BITMAPS,
                                    "ERROR bitmap '%s': table entry %" PRIx64 " is invalid", bitmap->name,
                                    entry);
            } else if (offset) {
                ret = add_table(c, &c->tables, offset, c->s->geometry.cluster_size);
            }
        }
        done += n;
    }
    g_free(piece);
    return ret;
}

static int coroutine_fn count_bitmap_directory(Qcow2Check *c, const Qcow2BitmapsExtension *ext)
{
    g_autoptr(GError) error = NULL;
    Qcow2BitmapTable table = { 0 };
    uint8_t *directory = g_try_malloc(MAX(ext->directory_size, 1));
    if (!directory) {
        return -ENOMEM;
    }
    int ret = qcow2_check_pread(c, ext->directory_offset, ext->directory_size, directory);
    if (ret < 0) {
        qcow2_check_finding(c, QCOW2_CHECK_TABLE_UNREAD, "ERROR: cannot read the bitmap directory: %s",
                            g_strerror(-ret));
        ret = 0;
    } else if (!qcow2_bitmap_directory_decode(directory, ext->directory_size, ext->nb_bitmaps, &table,
                                              &error)) {
        qcow2_check_finding(c, QCOW2_CHECK_BITMAPS, "ERROR bitmap directory: %s", error->message);
    }
    g_free(directory);
    for (unsigned i = 0; ret >= 0 && i < table.count; i++) {
        g_autofree char *problem = qcow2_bitmap_problem(&table.bitmaps[i], &c->s->geometry, c->s->header.size);
        if (problem) {
            qcow2_check_finding(c, QCOW2_CHECK_BITMAPS, "ERROR bitmap '%s': %s", table.bitmaps[i].name,
                                problem);
        } else {
            ret = count_bitmap_table(c, &table.bitmaps[i]);
        }
    }
    qcow2_bitmap_table_clear(&table);
    return ret;
}

/* Bitmaps count only while their feature bit vouches for them. */
static int coroutine_fn count_bitmap_structures(Qcow2Check *c)
{
    Qcow2BitmapsExtension ext;
    g_autoptr(GError) error = NULL;
    if (!(c->s->header.autoclear_features & QCOW2_AUTOCLEAR_BITMAPS) || !c->s->extensions.bitmaps) {
        return 0;
    }
    if (!qcow2_bitmaps_extension_decode(c->s->extensions.bitmaps, c->s->extensions.bitmaps_bytes, &ext,
                                        &error)) {
        qcow2_check_finding(c, QCOW2_CHECK_BITMAPS, "ERROR %s", error->message);
        return 0;
    }
    if (ext.directory_size > QCOW2_MAX_BITMAP_DIRECTORY_BYTES) {
        qcow2_check_finding(c, QCOW2_CHECK_BITMAPS,
                            "ERROR bitmap directory of %" PRIu64 " bytes is too large", ext.directory_size);
        return 0;
    }
    int ret = add_table(c, &c->tables, ext.directory_offset, ext.directory_size);
    return ret < 0 ? ret : count_bitmap_directory(c, &ext);
}

static int coroutine_fn count_bitmaps(Qcow2Check *c)
{
    int64_t before = c->result->corruptions;
    int ret = count_bitmap_structures(c);
    c->bitmaps_damaged = c->bitmaps_damaged || c->result->corruptions != before;
    return ret;
}

static int count_crypto_header(Qcow2Check *c)
{
    Qcow2CryptoExtension ext;
    if (!c->s->extensions.crypto ||
        !qcow2_crypto_extension_decode(c->s->extensions.crypto, c->s->extensions.crypto_bytes, &ext, NULL)) {
        return 0;
    }
    return add_table(c, &c->tables, ext.offset, ext.length);
}

static int count_refblock(Qcow2Check *c, uint64_t index, uint64_t entry)
{
    uint32_t cluster_size = c->s->geometry.cluster_size;
    uint64_t offset = entry & QCOW2_REFTABLE_OFFSET_MASK;
    if (entry & ~QCOW2_REFTABLE_OFFSET_MASK) {
        qcow2_check_finding(c, QCOW2_CHECK_REFCOUNT_BLOCK,
                            "ERROR refcount table entry %" PRIu64 " has reserved bits set", index);
        return 0;
    }
    if (offset & (cluster_size - 1)) {
        qcow2_check_finding(
            c, QCOW2_CHECK_REFCOUNT_BLOCK,
            "ERROR refcount block %" PRIu64 " is not cluster aligned; refcount table entry corrupted", index);
        return 0;
    }
    if (offset >> c->s->geometry.cluster_bits >= c->file_clusters) {
        qcow2_check_finding(c, QCOW2_CHECK_REFCOUNT_BLOCK,
                            "ERROR refcount block %" PRIu64 " is outside image", index);
        return 0;
    }
    int ret = add_references(c, offset, cluster_size);
    uint64_t count = qcow2_check_refs_get(&c->refs, offset >> c->s->geometry.cluster_bits);
    if (ret >= 0 && count != 1) {
        qcow2_check_finding(c, QCOW2_CHECK_REFCOUNT_BLOCK,
                            "ERROR refcount block %" PRIu64 " refcount=%" PRIu64, index, count);
    }
    return ret;
}

/* Whether nobody else claims a cluster of them, so that they may be written in place. */
static bool refcount_structures_alone(Qcow2Check *c)
{
    unsigned bits = c->s->geometry.cluster_bits;
    uint64_t table = c->s->header.refcount_table_offset >> bits;
    bool alone = true;
    for (uint64_t i = 0; i < c->refcount_table_entries >> (bits - 3) && alone; i++) {
        alone = qcow2_check_refs_get(&c->refs, table + i) == 1;
    }
    for (uint64_t i = 0; i < c->refcount_table_entries && alone; i++) {
        uint64_t block = load_be64(c->refcount_table + 8 * i) & QCOW2_REFTABLE_OFFSET_MASK;
        alone = block == 0 || qcow2_check_refs_get(&c->refs, block >> bits) == 1;
    }
    return alone;
}

static int count_refcount_structures(Qcow2Check *c)
{
    bool damaged_before = c->pointers_damaged;
    int64_t before = c->result->corruptions;
    int ret = add_references(c, c->s->header.refcount_table_offset, c->refcount_table_entries * 8);
    for (uint64_t i = 0; ret >= 0 && i < c->refcount_table_entries; i++) {
        uint64_t entry = load_be64(c->refcount_table + 8 * i);
        if (entry) {
            ret = count_refblock(c, i, entry);
        }
    }
    c->pointers_damaged = damaged_before; /* these will be new */
    if (ret >= 0 && (c->result->corruptions != before || !refcount_structures_alone(c))) {
        c->rebuild = c->refcounts_damaged = true;
    }
    return ret;
}

int coroutine_fn qcow2_check_count_fixed(Qcow2Check *c, bool bitmaps)
{
    int ret = add_table(c, &c->tables, 0, c->s->geometry.cluster_size);
    if (ret >= 0) {
        ret = count_crypto_header(c);
    }
    return ret < 0 || !bitmaps ? ret : count_bitmaps(c);
}

int coroutine_fn qcow2_check_count_references(Qcow2Check *c)
{
    const Qcow2Header *h = &c->s->header;
    FragmentStats stats = { 0 };
    int ret = qcow2_check_count_fixed(c, true);
    if (ret >= 0) {
        ret = count_l1(c, h->l1_table_offset, h->l1_size, &stats);
    }
    if (ret >= 0) {
        ret = count_snapshots(c);
    }
    if (ret >= 0) {
        ret = count_refcount_structures(c);
    }
    return ret;
}
