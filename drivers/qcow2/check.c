/* SPDX-License-Identifier: MIT */
/*
 * Check an image: count every reference to every cluster, compare with the refcounts, then look at the
 * COPIED flags. Everything is read from the file, not through the caches; the node is drained and
 * what it had cached is written first.
 */

#include "drivers/qcow2/check.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/meta/meta.h"
#include "drivers/qcow2/repair.h"

/* Refcount blocks from disk that are kept at a time. */
#define DISK_BLOCKS_BYTES (8u << 20)

/* Counts may take this much whatever the size of the file. */
#define REFS_MIN_BYTES (UINT64_C(64) << 20)

void qcow2_check_finding(Qcow2Check *c, Qcow2CheckKind kind, const char *format, ...)
{
    const Qcow2CheckKindInfo *info = &qcow2_check_kinds[kind];
    BdrvCheckResult *result = c->result;
    va_list args;

    result->leaks += info->words.severity == BDRV_CHECK_LEAK;
    result->corruptions += info->words.severity == BDRV_CHECK_CORRUPTION;
    result->check_errors += info->words.severity == BDRV_CHECK_ERROR;
    if (info->is_damage) {
        c->rebuild = c->pointers_damaged = true;
    }
    c->incomplete = c->incomplete || info->hides_references;
    if (result->report) {
        va_start(args, format);
        g_autofree char *text = g_strdup_vprintf(format, args);
        va_end(args);
        result->report(result->report_opaque, &info->words, text);
    }
}

bool qcow2_check_outside(const Qcow2Check *c, uint64_t offset, uint64_t bytes)
{
    if (offset > c->file_length) {
        return bytes != 0;
    }
    uint64_t there = c->file_length - offset;
    return bytes > there && bytes - there >= c->s->geometry.cluster_size;
}

int coroutine_fn qcow2_check_pread(Qcow2Check *c, uint64_t offset, uint64_t bytes, void *buf)
{
    if (offset > INT64_MAX - bytes) {
        return -EIO;
    }
    uint64_t there = offset < c->file_length ? MIN(bytes, c->file_length - offset) : 0;
    memset((uint8_t *)buf + there, 0, bytes - there);
    return there ? bdrv_co_pread(c->bs->file, (int64_t)offset, (int64_t)there, buf, 0) : 0;
}

/* A table that no sane header can name is none. */
static bool refcount_table_usable(const Qcow2State *s)
{
    return s->header.refcount_table_clusters <= QCOW2_MAX_REFTABLE_BYTES >> s->geometry.cluster_bits &&
           !(s->header.refcount_table_offset & (s->geometry.cluster_size - 1)) &&
           s->header.refcount_table_offset <= INT64_MAX - QCOW2_MAX_REFTABLE_BYTES;
}

static int coroutine_fn load_refcount_table(Qcow2Check *c)
{
    const Qcow2Header *h = &c->s->header;
    c->refcounts_damaged = true;
    if (!refcount_table_usable(c->s)) {
        qcow2_check_finding(c, QCOW2_CHECK_REFCOUNT_TABLE,
                            "ERROR refcount table of %" PRIu32 " clusters at 0x%" PRIx64
                            ": header entry corrupted",
                            h->refcount_table_clusters, h->refcount_table_offset);
        c->rebuild = true;
        return 0;
    }
    uint64_t bytes = (uint64_t)h->refcount_table_clusters << c->s->geometry.cluster_bits;
    c->refcount_table = g_try_malloc(MAX(bytes, 1));
    if (!c->refcount_table) {
        return -ENOMEM;
    }
    int ret = qcow2_check_pread(c, h->refcount_table_offset, bytes, c->refcount_table);
    if (ret < 0 && !(c->fix & BDRV_FIX_ERRORS)) {
        return ret; /* all that could be said is that nothing is counted */
    }
    if (ret < 0) {
        qcow2_check_finding(c, QCOW2_CHECK_REFCOUNTS_UNREAD,
                            "ERROR: I/O error: refcount table at 0x%" PRIx64 ": %s", h->refcount_table_offset,
                            g_strerror(-ret));
        c->rebuild = c->refcounts_unread = true; /* elsewhere */
        return 0;
    }
    c->refcount_table_entries = bytes / 8;
    c->refcounts_damaged = false;
    return 0;
}

/*
 * What counts may take. Those of a sound image take as much as its refcount blocks, which are a part of the file;
 * the rest is for images that have lost them.
 */
static uint64_t coroutine_fn refs_max_bytes(BlockDriverState *bs)
{
    int64_t allocated = bdrv_co_get_allocated_file_size(bs->file);
    return MAX(REFS_MIN_BYTES, allocated > 0 ? (uint64_t)allocated : 0);
}

int coroutine_fn qcow2_check_begin(Qcow2Check *c, BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    const Qcow2State *s = qcow2_state(bs);
    *c = (Qcow2Check){ .bs = bs, .s = s, .result = result, .fix = fix };
    c->into = &c->refs;
    qcow2_check_refs_init(&c->refs, &s->geometry, refs_max_bytes(bs));
    int64_t length = bdrv_co_getlength(bs->file);
    if (length < 0) {
        return (int)length;
    }
    unsigned bits = s->geometry.cluster_bits;
    uint64_t size = s->header.size;
    c->file_length = (uint64_t)length;
    c->file_clusters = (c->file_length + s->geometry.cluster_size - 1) >> bits;
    c->end_clusters = c->file_clusters;
    result->total_clusters = (int64_t)((size >> bits) + ((size & (s->geometry.cluster_size - 1)) != 0));
    c->disk_block_slots = MAX(DISK_BLOCKS_BYTES >> bits, 4u);
    c->disk_blocks = g_try_new0(uint8_t *, c->disk_block_slots);
    c->disk_block_index = g_try_new0(int64_t, c->disk_block_slots);
    if (!qcow2_cluster_set_init(&c->tables) || !qcow2_cluster_set_init(&c->l2_tables) || !c->disk_blocks ||
        !c->disk_block_index) {
        return -ENOMEM;
    }
    return load_refcount_table(c);
}

/* Clearing the bits of features that we do not maintain is all that there is to do. */
static void check_autoclear(Qcow2Check *c)
{
    const Qcow2Header *h = &c->s->header;
    bool data_file = h->incompatible_features & QCOW2_INCOMPAT_DATA_FILE;
    if ((h->autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW) && !data_file) {
        qcow2_check_finding(c, QCOW2_CHECK_RAW_DATA_FILE_BIT,
                            "ERROR autoclear features %" PRIx64
                            ": a raw data file, but there is no data file",
                            h->autoclear_features);
    }
}

int coroutine_fn qcow2_check_analyse(Qcow2Check *c)
{
    check_autoclear(c);
    int ret = qcow2_check_layout(c);
    if (ret < 0 || c->other_layout) {
        return ret;
    }
    ret = qcow2_check_count_references(c);
    if (ret >= 0) {
        ret = qcow2_check_compare_refcounts(c);
    }
    ret = ret < 0 ? ret : qcow2_check_copied_flags(c);
    if (ret >= 0) {
        c->result->progress = NULL; /* what is looked at again after a repair must not be cancelled */
    }
    return ret;
}

void qcow2_check_end(Qcow2Check *c)
{
    for (unsigned i = 0; c->disk_blocks && i < c->disk_block_slots; i++) {
        g_free(c->disk_blocks[i]);
    }
    g_free(c->disk_blocks);
    g_free(c->disk_block_index);
    g_free(c->refcount_table);
    qcow2_cluster_set_destroy(&c->tables);
    qcow2_cluster_set_destroy(&c->l2_tables);
    qcow2_check_refs_clear(&c->refs);
}

static int coroutine_fn check_only(BlockDriverState *bs, BdrvCheckResult *result)
{
    Qcow2Check c;
    int ret = qcow2_check_begin(&c, bs, result, BDRV_FIX_NONE);
    ret = ret < 0 ? ret : qcow2_check_analyse(&c);
    qcow2_check_end(&c);
    return ret;
}

int coroutine_fn qcow2_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    Qcow2State *s = qcow2_state(bs);
    bool corrupt = atomic_load(&s->corrupt);
    bool dry_run = fix & BDRV_FIX_DRY_RUN;
    if (fix && !dry_run && bs->read_only) {
        return -EROFS;
    }
    if (fix && !dry_run && s->meta && corrupt) {
        return -EBUSY; /* there is metadata that can no longer be written: close it, open it for check */
    }
    fix |= fix & BDRV_FIX_ERRORS ? BDRV_FIX_LEAKS : 0; /* COPIED flags go by counts that are exact */
    BdrvCheckResult found = {
        .report = result->report,
        .report_opaque = result->report_opaque,
        .progress = result->progress,
        .progress_opaque = result->progress_opaque,
    };
    int ret = s->meta && !bs->read_only && !corrupt ? qcow2_meta_settle(bs) : 0;
    if (ret >= 0) {
        ret = dry_run ? qcow2_repair_dry_run(bs, &found, fix)
              : fix ? qcow2_repair_open_image(bs, &found, fix) : check_only(bs, &found);
    }
    if (ret >= 0) {
        found.progress = result->progress;
        *result = found;
    }
    return ret;
}
