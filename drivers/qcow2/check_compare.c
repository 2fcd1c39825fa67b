/* SPDX-License-Identifier: MIT */
/* Hold the counted references against the refcounts on disk, and those against the COPIED flags. */

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/check.h"
#include "block/util/bytes.h"

#define PIECE_BYTES (1u << 20)

int coroutine_fn qcow2_check_disk_block(Qcow2Check *c, uint64_t index, const uint8_t **block)
{
    uint64_t offset = 0;
    if (index < c->refcount_table_entries) {
        offset = load_be64(c->refcount_table + 8 * index) & QCOW2_REFTABLE_OFFSET_MASK;
    }
    uint32_t cluster_size = c->s->geometry.cluster_size;
    if ((offset & (cluster_size - 1)) || offset > (uint64_t)INT64_MAX - cluster_size) {
        return QCOW2_CHECK_UNUSABLE;
    }
    *block = NULL;
    if (offset == 0) {
        return 0;
    }
    /* While counts and refcounts are the same nobody needs a block twice. */
    unsigned slot = c->counts_differ ? (unsigned)(index % c->disk_block_slots) : 0;
    if (!c->disk_blocks[slot]) {
        c->disk_blocks[slot] = g_try_malloc(c->s->geometry.cluster_size);
        c->disk_block_index[slot] = -1;
    }
    if (!c->disk_blocks[slot]) {
        return -ENOMEM;
    }
    if (c->disk_block_index[slot] != (int64_t)index) {
        c->disk_block_index[slot] = -1;
        int ret = qcow2_check_pread(c, offset, c->s->geometry.cluster_size, c->disk_blocks[slot]);
        if (ret < 0) {
            return ret;
        }
        c->disk_block_index[slot] = (int64_t)index;
    }
    *block = c->disk_blocks[slot];
    return 0;
}

/* What COPIED flags are held against: the refcount as it is, or as the repair will make it. */
static int coroutine_fn effective_refcount(Qcow2Check *c, uint64_t host_offset, uint64_t *refcount)
{
    const Qcow2Geometry *g = &c->s->geometry;
    uint64_t cluster = host_offset >> g->cluster_bits;
    const uint8_t *block;
    if ((c->fix & BDRV_FIX_ERRORS) || (!c->counts_differ && cluster < c->end_clusters)) {
        *refcount = qcow2_check_refs_get(&c->refs, cluster);
        return 0;
    }
    int ret = qcow2_check_disk_block(c, cluster >> g->refblock_bits, &block);
    if (ret >= 0) {
        uint64_t index = cluster & ((UINT64_C(1) << g->refblock_bits) - 1);
        *refcount = block ? qcow2_refcount_get(block, index, g->refcount_order) : 0;
        if (c->fix & BDRV_FIX_LEAKS) {
            *refcount = MIN(*refcount, qcow2_check_refs_get(&c->refs, cluster));
        }
    }
    return ret;
}

/* Word for a finding that the repair will put right, as qemu-img check has it. */
static const char *verb(const Qcow2Check *c, BdrvCheckFix needed, const char *otherwise)
{
    return (c->fix & needed) && !(c->fix & BDRV_FIX_DRY_RUN) ? "Repairing" : otherwise;
}

static void compare_cluster(Qcow2Check *c, uint64_t cluster, uint64_t refcount, uint64_t references)
{
    c->counts_differ = c->counts_differ || refcount != references;
    if (refcount < references) {
        c->raise = true;
        qcow2_check_finding(c, QCOW2_CHECK_REFCOUNT_TOO_LOW,
                            "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                            verb(c, BDRV_FIX_ERRORS, "ERROR"), cluster, refcount, references);
    } else if (refcount > references) {
        c->lower = true;
        qcow2_check_finding(c, QCOW2_CHECK_LEAKED_CLUSTER,
                            "%s cluster %" PRIu64 " refcount=%" PRIu64 " reference=%" PRIu64,
                            verb(c, BDRV_FIX_LEAKS, "Leaked"), cluster, refcount, references);
    }
}

/* The clusters of one refcount block, [first, end). Returns the highest one in use + 1, or 0. */
static uint64_t compare_block(Qcow2Check *c, const uint8_t *disk, const uint8_t *counted, uint64_t first,
                              uint64_t end)
{
    unsigned order = c->s->geometry.refcount_order;
    uint64_t used_end = 0;
    for (uint64_t i = 0; i < end - first; i++) {
        uint64_t refcount = disk ? qcow2_refcount_get(disk, i, order) : 0;
        uint64_t references = counted ? qcow2_refcount_get(counted, i, order) : 0;
        compare_cluster(c, first + i, refcount, references);
        if (refcount || references) {
            used_end = first + i + 1;
        }
    }
    return used_end;
}

/* The same of a block of which all is alike. */
static uint64_t end_of_block(const Qcow2Check *c, const uint8_t *counted, uint64_t first, uint64_t end)
{
    while (end > first && !qcow2_refcount_get(counted, end - first - 1, c->s->geometry.refcount_order)) {
        end--;
    }
    return end > first ? end : 0;
}

/* A block that cannot be read: every cluster in use that it should count is an error of the check. */
static void unreadable_block(Qcow2Check *c, uint64_t first, uint64_t end, int ret)
{
    c->counts_differ = true;
    ret = ret == QCOW2_CHECK_UNUSABLE ? -EIO : ret;
    for (uint64_t cluster = first; cluster < end; cluster++) {
        qcow2_check_finding(c, QCOW2_CHECK_REFCOUNTS_UNREAD, "Can't get refcount for cluster %" PRIu64 ": %s",
                            cluster, g_strerror(-ret));
    }
}

static int coroutine_fn compare_index(Qcow2Check *c, uint64_t index, uint64_t *used_end)
{
    const Qcow2Geometry *g = &c->s->geometry;
    uint64_t first = index << g->refblock_bits;
    uint64_t end = MIN(first + (UINT64_C(1) << g->refblock_bits), c->end_clusters);
    const uint8_t *counted = qcow2_check_refs_block(&c->refs, index);
    const uint8_t *disk;
    int ret = qcow2_check_disk_block(c, index, &disk);
    if (ret == -ENOMEM) {
        return ret;
    }
    if (ret < 0) {
        c->rebuild = c->refcounts_damaged = true;
        unreadable_block(c, first, end, ret);
    } else if (disk && counted && memcmp(disk, counted, g->cluster_size) == 0) {
        uint64_t block_end = end_of_block(c, counted, first, end);
        *used_end = MAX(*used_end, block_end);
    } else if (disk || counted) {
        bool raised = c->raise;
        c->raise = false;
        uint64_t block_end = compare_block(c, disk, counted, first, end);
        *used_end = MAX(*used_end, block_end);
        c->rebuild = c->rebuild || (c->raise && !disk); /* no block to raise them in */
        c->raise = c->raise || raised;
    }
    return 0;
}

int coroutine_fn qcow2_check_compare_refcounts(Qcow2Check *c)
{
    const Qcow2Geometry *g = &c->s->geometry;
    uint64_t file_blocks = (c->end_clusters + (UINT64_C(1) << g->refblock_bits) - 1) >> g->refblock_bits;
    uint64_t table_end = MIN(file_blocks, c->refcount_table_entries);
    uint64_t used_end = 1; /* the header */
    int ret = 0;
    for (uint64_t index = 0; ret >= 0 && index < table_end; index++) {
        ret = compare_index(c, index, &used_end);
    }
    /* Past the refcount table only what was counted is looked at: a sparse file may be very long. */
    g_autofree int64_t *more = NULL;
    size_t count = qcow2_check_refs_from(&c->refs, table_end, &more);
    for (size_t i = 0; ret >= 0 && i < count; i++) {
        ret = compare_index(c, (uint64_t)more[i], &used_end);
    }
    c->result->image_end_offset = (int64_t)(used_end << g->cluster_bits);
    return ret;
}

static Qcow2CheckKind copied_kind(uint64_t entry)
{
    return entry & QCOW2_COPIED ? QCOW2_CHECK_COPIED_FLAG_SET : QCOW2_CHECK_COPIED_FLAG_MISSING;
}

/* Compressed clusters never have the flag; the walk has reported it. */
static int coroutine_fn check_l2_flags(Qcow2Check *c, uint64_t l2_offset, uint8_t *buf)
{
    int ret = qcow2_check_pread(c, l2_offset, c->s->geometry.cluster_size, buf);
    if (ret < 0) {
        qcow2_check_finding(c, QCOW2_CHECK_FLAGS_UNREAD,
                            "ERROR: I/O error in check_oflag_copied: L2 table at 0x%" PRIx64 ": %s",
                            l2_offset, g_strerror(-ret));
        return 0;
    }
    for (uint32_t i = 0; i < c->s->geometry.l2_entries; i++) {
        uint64_t entry = qcow2_l2_entry_load(buf, i, &c->s->geometry).entry;
        uint64_t refcount;
        if ((entry & QCOW2_COMPRESSED) || !(entry & QCOW2_OFFSET_MASK)) {
            continue;
        }
        refcount = 1; /* what a data file does not count nobody shares */
        ret = c->s->geometry.data_file ? 0 : effective_refcount(c, entry & QCOW2_OFFSET_MASK, &refcount);
        if (ret < 0) {
            return ret;
        }
        if ((refcount == 1) != ((entry & QCOW2_COPIED) != 0)) {
            c->copied = true;
            qcow2_check_finding(c, copied_kind(entry),
                                "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
                                verb(c, BDRV_FIX_ERRORS, "ERROR"), entry, refcount);
        }
    }
    return 0;
}

static int coroutine_fn check_l1_flag(Qcow2Check *c, uint64_t index, uint64_t entry, uint8_t *l2_buf)
{
    uint64_t l2_offset = entry & QCOW2_OFFSET_MASK;
    uint64_t refcount;
    if (l2_offset == 0) {
        return 0;
    }
    int ret = effective_refcount(c, l2_offset, &refcount);
    if (ret < 0) {
        return ret;
    }
    if ((refcount == 1) != ((entry & QCOW2_COPIED) != 0)) {
        c->copied = true;
        qcow2_check_finding(c, copied_kind(entry),
                            "%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64
                            " refcount=%" PRIu64,
                            verb(c, BDRV_FIX_ERRORS, "ERROR"), index, entry, refcount);
    }
    return check_l2_flags(c, l2_offset, l2_buf);
}

int coroutine_fn qcow2_check_copied_flags(Qcow2Check *c)
{
    const Qcow2Header *h = &c->s->header;
    uint8_t *piece = g_try_malloc(PIECE_BYTES);
    uint8_t *l2_buf = g_try_malloc(c->s->geometry.cluster_size);
    int ret = piece && l2_buf ? 0 : -ENOMEM;
    for (uint64_t done = 0; ret >= 0 && done < h->l1_size;) {
        uint64_t n = MIN(h->l1_size - done, PIECE_BYTES / 8);
        ret = qcow2_check_pread(c, h->l1_table_offset + done * 8, n * 8, piece);
        for (uint64_t i = 0; ret >= 0 && i < n; i++) {
            ret = check_l1_flag(c, done + i, load_be64(piece + 8 * i), l2_buf);
        }
        done += n;
    }
    g_free(piece);
    g_free(l2_buf);
    if (ret < 0 && ret != QCOW2_CHECK_UNUSABLE && ret != -ENOMEM) {
        qcow2_check_finding(c, QCOW2_CHECK_FLAGS_UNREAD, "ERROR: I/O error while looking at COPIED flags: %s",
                            g_strerror(-ret));
    }
    return ret == -ENOMEM ? ret : 0;
}
