/* SPDX-License-Identifier: MIT */
/* Where the structures of a new image go. Pure arithmetic; bounds first, so that nothing overflows. */

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/create.h"

static uint64_t div_up(uint64_t n, uint64_t d)
{
    return n / d + (n % d != 0);
}

static bool too_large(const Qcow2CreateParams *p, const char *table, uint32_t bound, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, EFBIG,
                "The image size is too large for file format 'qcow2': %" PRIu64
                " bytes need %s of more than %" PRIu32 " bytes (try using a larger cluster size)",
                p->size, table, bound);
    return false;
}

/* The refcount structures count themselves: add what is missing until it is enough. */
static bool place_refcounts(const Qcow2CreateParams *p, Qcow2Layout *l, uint64_t other_clusters,
                            GError **errp)
{
    uint64_t per_block = ((uint64_t)l->cluster_size * 8) >> p->refcount_order;
    uint64_t table = 1, blocks = 1;
    for (;;) {
        uint64_t need_blocks = div_up(other_clusters + table + blocks, per_block);
        uint64_t need_table = div_up(need_blocks * 8, l->cluster_size);
        if (need_table * l->cluster_size > QCOW2_MAX_REFTABLE_BYTES) {
            return too_large(p, "a refcount table", QCOW2_MAX_REFTABLE_BYTES, errp);
        }
        if (need_blocks <= blocks && need_table <= table) {
            break;
        }
        blocks = MAX(blocks, need_blocks);
        table = MAX(table, need_table);
    }
    l->refcount_table_clusters = table;
    l->refblocks = blocks;
    return true;
}

bool qcow2_layout(const Qcow2CreateParams *params, Qcow2Layout *layout, GError **errp)
{
    Qcow2Layout l = { .cluster_size = UINT32_C(1) << params->cluster_bits };
    uint64_t l2_covers = (uint64_t)l.cluster_size * (l.cluster_size / (params->extended_l2 ? 16 : 8));
    l.l1_entries = div_up(params->size, l2_covers);
    if (l.l1_entries > QCOW2_MAX_L1_BYTES / 8) {
        return too_large(params, "an L1 table", QCOW2_MAX_L1_BYTES, errp);
    }
    if (params->prealloc != BDRV_PREALLOC_OFF) {
        l.l2_tables = l.l1_entries;
        l.data_clusters = div_up(params->size, l.cluster_size);
    }
    uint64_t l1_clusters = div_up(l.l1_entries * 8, l.cluster_size);
    uint64_t data_here = params->data_file ? 0 : l.data_clusters;
    l.crypto_bytes = params->crypt_method == QCOW2_CRYPT_LUKS ? bdrv_luks_area_bytes(&params->luks) : 0;
    uint64_t crypto_clusters = div_up(l.crypto_bytes, l.cluster_size);
    uint64_t others = 1 + crypto_clusters + l1_clusters + l.l2_tables + data_here;
    if (!place_refcounts(params, &l, others, errp)) {
        return false;
    }
    uint64_t clusters = 1;
    l.refcount_table_offset = clusters << params->cluster_bits;
    clusters += l.refcount_table_clusters;
    l.refblocks_offset = clusters << params->cluster_bits;
    clusters += l.refblocks;
    l.crypto_offset = clusters << params->cluster_bits;
    clusters += crypto_clusters;
    l.l1_offset = clusters << params->cluster_bits;
    clusters += l1_clusters;
    l.l2_offset = clusters << params->cluster_bits;
    clusters += l.l2_tables;
    l.metadata_end = l.l2_tables ? clusters << params->cluster_bits : l.l1_offset + l.l1_entries * 8;
    l.data_offset = params->data_file ? 0 : clusters << params->cluster_bits;
    clusters += data_here;
    if (clusters > (uint64_t)INT64_MAX >> params->cluster_bits) {
        return too_large(params, "an image file", UINT32_MAX, errp);
    }
    l.end = clusters << params->cluster_bits;
    *layout = l;
    return true;
}
