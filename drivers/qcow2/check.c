/* SPDX-License-Identifier: MIT */
/*
 * Check an image: count every reference to every cluster, compare with the refcounts, then look at the
 * COPIED flags. Everything is read from the file, not through the caches; the node is drained and
 * what it had cached is written first.
 */

#include "drivers/qcow2/check.h"

#include <errno.h>
#include <string.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/meta/meta.h"

/* Refcount blocks from disk that are kept at a time. */
#define DISK_BLOCKS_BYTES (8u << 20)

static void report(Qcow2Check *c, bool is_corruption, const char *format, va_list args)
{
    if (c->result->report) {
        g_autofree char *text = g_strdup_vprintf(format, args);
        c->result->report(c->result->report_opaque, is_corruption, text);
    }
}

void qcow2_check_corruption(Qcow2Check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    c->result->corruptions++;
    report(c, true, format, args);
    va_end(args);
}

void qcow2_check_leak(Qcow2Check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    c->result->leaks++;
    report(c, false, format, args);
    va_end(args);
}

void qcow2_check_error(Qcow2Check *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    c->result->check_errors++;
    report(c, false, format, args);
    va_end(args);
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

static int coroutine_fn load_refcount_table(Qcow2Check *c)
{
    const Qcow2Header *h = &c->s->header;
    uint64_t bytes = (uint64_t)h->refcount_table_clusters << c->s->geometry.cluster_bits;
    c->refcount_table_entries = bytes / 8;
    c->refcount_table = g_try_malloc(bytes);
    if (!c->refcount_table) {
        return -ENOMEM;
    }
    return qcow2_check_pread(c, h->refcount_table_offset, bytes, c->refcount_table);
}

static int coroutine_fn check_begin(Qcow2Check *c)
{
    int64_t length = bdrv_co_getlength(c->bs->file);
    if (length < 0) {
        return (int)length;
    }
    unsigned bits = c->s->geometry.cluster_bits;
    uint64_t size = c->s->header.size;
    c->file_length = (uint64_t)length;
    c->file_clusters = (c->file_length + c->s->geometry.cluster_size - 1) >> bits;
    c->result->total_clusters = (int64_t)((size >> bits) + ((size & (c->s->geometry.cluster_size - 1)) != 0));
    c->disk_block_slots = MAX(DISK_BLOCKS_BYTES >> bits, 4u);
    c->disk_blocks = g_try_new0(uint8_t *, c->disk_block_slots);
    c->disk_block_index = g_try_new0(int64_t, c->disk_block_slots);
    qcow2_check_refs_init(&c->refs, &c->s->geometry);
    return c->disk_blocks && c->disk_block_index ? load_refcount_table(c) : -ENOMEM;
}

static void check_end(Qcow2Check *c)
{
    for (unsigned i = 0; c->disk_blocks && i < c->disk_block_slots; i++) {
        g_free(c->disk_blocks[i]);
    }
    g_free(c->disk_blocks);
    g_free(c->disk_block_index);
    g_free(c->refcount_table);
    qcow2_check_refs_clear(&c->refs);
}

/* Repair is not built: any @fix is refused. Nor is what only information can be shown of. */
int coroutine_fn qcow2_check(BlockDriverState *bs, BdrvCheckResult *result, BdrvCheckFix fix)
{
    Qcow2State *s = qcow2_state(bs);
    if (fix != BDRV_FIX_NONE ||
        (s->header.incompatible_features & (QCOW2_INCOMPAT_DATA_FILE | QCOW2_INCOMPAT_EXTENDED_L2))) {
        return -ENOTSUP;
    }
    int ret = s->meta && !bs->read_only ? qcow2_meta_settle(bs) : 0;
    if (ret < 0) {
        return ret;
    }
    BdrvCheckResult found = { .report = result->report, .report_opaque = result->report_opaque };
    Qcow2Check c = { .bs = bs, .s = s, .result = &found };
    ret = check_begin(&c);
    if (ret >= 0) {
        ret = qcow2_check_count_references(&c);
    }
    if (ret >= 0) {
        ret = qcow2_check_compare_refcounts(&c);
    }
    if (ret >= 0) {
        ret = qcow2_check_copied_flags(&c);
    }
    check_end(&c);
    if (ret >= 0) {
        *result = found;
    }
    return ret;
}
