/* SPDX-License-Identifier: MIT */
/* The qcow2 driver: the table. What each callback does is in the file that callbacks.h names. */

#include "drivers/qcow2/qcow2.h"

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/create.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/open.h"

/* A later version is recognised, to be refused by name when opened, and never read as raw. */
static int qcow2_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return qcow2_header_probe(buf, size) ? 100 : 0;
}

static void qcow2_refresh_limits(BlockDriverState *bs)
{
    const Qcow2State *s = qcow2_state(bs);
    /* Partial clusters are copied on write here, but sectors are encrypted whole. */
    bs->limits.request_alignment = s->crypto ? BDRV_VOLUME_SECTOR : 1;
    bs->limits.pwrite_zeroes_alignment = s->geometry.subcluster_size;
    bs->limits.pdiscard_alignment = s->geometry.cluster_size;
}

/* Clusters that were never written read as zeroes, whatever lies below. */
static bool qcow2_has_zero_init(BlockDriverState *bs)
{
    return true;
}

static const BdrvChildSpec qcow2_children[] = {
    { "file", BDRV_CHILD_PROTOCOL, false },
    { "data-file", BDRV_CHILD_DATA, true },
    { NULL },
};

/* Caches and checks do not change what the guest sees; without the key there is nothing to see. */
static const char *const qcow2_strong_options[] = { "encrypt.key-secret", NULL };

const BlockDriver bdrv_qcow2 = {
    .format_name = "qcow2",
    .instance_size = sizeof(Qcow2State),
    .supports_backing = true,
    .children = qcow2_children,
    .open_options = qcow2_open_options,
    .create_options = qcow2_create_options,
    .amend_options = qcow2_amend_options,
    .strong_options = qcow2_strong_options,

    .bdrv_probe = qcow2_probe,
    .bdrv_open = qcow2_open,
    .bdrv_close = qcow2_close,
    .bdrv_reopen_prepare = qcow2_reopen_prepare,
    .bdrv_reopen_commit = qcow2_reopen_commit,
    .bdrv_reopen_abort = qcow2_reopen_abort,
    .bdrv_reopen_finish = qcow2_reopen_finish,
    .bdrv_refresh_limits = qcow2_refresh_limits,

    .bdrv_create = qcow2_create,
    .bdrv_set_key = qcow2_set_key,
    .bdrv_has_zero_init = qcow2_has_zero_init,
    .bdrv_truncate = qcow2_truncate,
    .bdrv_check_truncate = qcow2_check_truncate,
    .bdrv_make_empty = qcow2_make_empty,
    .bdrv_change_backing_file = qcow2_change_backing_file,
    .bdrv_amend = qcow2_amend,

    .bdrv_co_readv = qcow2_co_readv,
    .bdrv_co_writev = qcow2_co_writev,
    .bdrv_write_compressed = qcow2_write_compressed,
    .bdrv_co_write_zeroes = qcow2_co_write_zeroes,
    .bdrv_co_discard = qcow2_co_discard,
    .bdrv_co_block_status = qcow2_co_block_status,
    .bdrv_co_flush_to_os = qcow2_co_flush_to_os,
    .bdrv_co_flush_to_disk = qcow2_co_flush_to_disk,

    .bdrv_get_info = qcow2_get_info,
    .bdrv_measure = qcow2_measure,
    .bdrv_get_specific_info = qcow2_get_specific_info,
    .bdrv_check = qcow2_check,
    .bdrv_explain = qcow2_explain,
    .bdrv_snapshot_create = qcow2_snapshot_create,
    .bdrv_snapshot_goto = qcow2_snapshot_goto,
    .bdrv_snapshot_delete = qcow2_snapshot_delete,
    .bdrv_snapshot_list = qcow2_snapshot_list,
    .bdrv_snapshot_load_tmp = qcow2_snapshot_load_tmp,
    .bdrv_save_vmstate = qcow2_save_vmstate,
    .bdrv_load_vmstate = qcow2_load_vmstate,

    .bdrv_bitmap_list = qcow2_bitmap_list,
    .bdrv_bitmap_add = qcow2_bitmap_add,
    .bdrv_bitmap_remove = qcow2_bitmap_remove,
    .bdrv_bitmap_clear = qcow2_bitmap_clear_bits,
    .bdrv_bitmap_enable = qcow2_bitmap_enable,
    .bdrv_bitmap_merge = qcow2_bitmap_merge,
    .bdrv_bitmap_read = qcow2_bitmap_read,

    .bdrv_invalidate_cache = qcow2_invalidate_cache,
    .bdrv_drain_begin = qcow2_drain_begin,
    .bdrv_drain_end = qcow2_drain_end,
};

void bdrv_qcow2_init(void)
{
    bdrv_register(&bdrv_qcow2);
}
