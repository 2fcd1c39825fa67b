/* SPDX-License-Identifier: MIT */
/* vdi: disk images of VirtualBox, dynamic and fixed. The table, and what opening and closing do; start at vdi.h. */
#include <errno.h>

#include "drivers/vdi/vdi.h"

static const BdrvChildSpec vdi_children[] = {
    { .name = "file", .role = BDRV_CHILD_PROTOCOL },
    { .name = NULL },
};

static int vdi_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return vdi_probe_header(buf, size) ? 100 : 0;
}

/* Whole sectors, as qemu-img counts. */
static int64_t disk_length(const VdiHeader *header)
{
    return (int64_t)((header->disk_size + VDI_SECTOR - 1) / VDI_SECTOR * VDI_SECTOR);
}

/* ---- life ---- */

static void init_locks(VdiState *s)
{
    pthread_mutex_init(&s->lock, NULL);
    co_mutex_init(&s->commit_lock);
    co_range_lock_init(&s->allocating);
}

static void destroy_locks(VdiState *s)
{
    co_range_lock_destroy(&s->allocating);
    co_mutex_destroy(&s->commit_lock);
    pthread_mutex_destroy(&s->lock);
}

static bool coroutine_fn vdi_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    VdiState *s = bs->opaque;

    init_locks(s);
    if (!vdi_load(bs, s, errp) || (!bs->read_only && !(flags & BDRV_O_CHECK) && !vdi_check_writable(s, errp))) {
        vdi_unload(s);
        destroy_locks(s);
        return false;
    }
    bs->length = disk_length(&s->header);
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    return true;
}

static int coroutine_fn vdi_close(BlockDriverState *bs)
{
    VdiState *s = bs->opaque;
    int ret = s->blind ? 0 : vdi_commit(bs);

    vdi_unload(s);
    destroy_locks(s);
    return ret;
}

/* Who was read-only may have looked on while somebody else wrote. */
static bool coroutine_fn vdi_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                            void **state, GError **errp)
{
    VdiState *s = bs->opaque;
    bool writable = flags & BDRV_O_RDWR;

    if (writable && bs->read_only) {
        return vdi_load(bs, s, errp) && ((flags & BDRV_O_CHECK) || vdi_check_writable(s, errp));
    }
    int ret = writable ? 0 : vdi_commit(bs);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write the block map: %s", g_strerror(-ret));
        return false;
    }
    return true;
}

static void vdi_reopen_done(BlockDriverState *bs, void *state)
{
}

static bool coroutine_fn vdi_invalidate_cache(BlockDriverState *bs, GError **errp)
{
    VdiState *s = bs->opaque;
    int ret = s->blind ? 0 : vdi_commit(bs);

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write the block map: %s", g_strerror(-ret));
        s->blind = true;
        return false;
    }
    s->blind = !vdi_load(bs, s, errp) || (!bs->read_only && !vdi_check_writable(s, errp));
    if (!s->blind) {
        bdrv_set_length(bs, disk_length(&s->header));
    }
    return !s->blind;
}

/* ---- questions ---- */

/* Byte granular: the file pads. */
static void vdi_refresh_limits(BlockDriverState *bs)
{
    bs->limits.request_alignment = 1;
    bs->limits.max_iov = 0;
    bs->limits.max_transfer = 0;
    bs->limits.max_pwrite_zeroes = 0;
    bs->limits.max_pdiscard = 0;
    bs->limits.pwrite_zeroes_alignment = 0;
    bs->limits.pdiscard_alignment = 0;
}

static int vdi_get_info(BlockDriverState *bs, BdrvInfo *info)
{
    const VdiState *s = bs->opaque;

    info->cluster_size = s->header.block_size;
    return 0;
}

static bool vdi_has_zero_init(BlockDriverState *bs)
{
    return true;
}

static int coroutine_fn vdi_co_flush_to_disk(BlockDriverState *bs)
{
    const VdiState *s = bs->opaque;

    return s->blind ? -EIO : vdi_commit(bs);
}

static const BlockDriver bdrv_vdi = {
    .format_name = "vdi",
    .instance_size = sizeof(VdiState),
    .children = vdi_children,
    .create_options = vdi_create_options,

    .bdrv_probe = vdi_probe,
    .bdrv_open = vdi_open,
    .bdrv_close = vdi_close,
    .bdrv_reopen_prepare = vdi_reopen_prepare,
    .bdrv_reopen_commit = vdi_reopen_done,
    .bdrv_reopen_abort = vdi_reopen_done,
    .bdrv_refresh_limits = vdi_refresh_limits,
    .bdrv_invalidate_cache = vdi_invalidate_cache,

    .bdrv_create = vdi_create,
    .bdrv_measure = vdi_measure,
    .bdrv_has_zero_init = vdi_has_zero_init,
    .bdrv_truncate = vdi_truncate,
    .bdrv_check_truncate = vdi_check_truncate,
    .bdrv_check = vdi_check,

    .bdrv_co_readv = vdi_co_readv,
    .bdrv_co_writev = vdi_co_writev,
    .bdrv_co_write_zeroes = vdi_co_write_zeroes,
    .bdrv_co_discard = vdi_co_discard,
    .bdrv_co_block_status = vdi_co_block_status,
    .bdrv_co_flush_to_disk = vdi_co_flush_to_disk,

    .bdrv_get_info = vdi_get_info,
};

void bdrv_vdi_init(void);
void bdrv_vdi_init(void)
{
    bdrv_register(&bdrv_vdi);
}
