/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/data_file.h"

#include <errno.h>
#include <inttypes.h>

#include "drivers/qcow2/map.h"

bool qcow2_data_is_raw(const Qcow2State *s)
{
    /* What shows a backing file cannot be the same as a raw file: that bit is not kept up then. */
    return s->geometry.data_file && s->header.crypt_method == 0 && (s->header.autoclear_features & QCOW2_AUTOCLEAR_DATA_FILE_RAW) &&
           s->header.backing_file_size == 0;
}

bool qcow2_check_data_file(BlockDriverState *bs, bool needed, GError **errp)
{
    const Qcow2State *s = qcow2_state(bs);

    if (!s->geometry.data_file) {
        if (bs->data_file) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "'data-file' can only be set for images with an external data file");
        }
        return !bs->data_file;
    }
    if (needed && s->header.nb_snapshots) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the image has %" PRIu32 " internal snapshots (nb_snapshots) and an external data file, which cannot "
                    "have any",
                    s->header.nb_snapshots);
        return false;
    }
    if (needed && !bs->data_file && !s->extensions.data_file) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "'data-file' is required for this image: its header does not name its data file; give "
                    "data-file.filename=… or data-file=node-name");
        return false;
    }
    bs->data_filename = g_strdup(s->extensions.data_file);
    return true;
}

int coroutine_fn qcow2_data_alloc(BlockDriverState *bs, uint64_t guest_offset, uint64_t host_hint, uint64_t count,
                                  Qcow2Allocation *out)
{
    if (!qcow2_state(bs)->geometry.data_file) {
        return qcow2_alloc_clusters(bs, host_hint, count, out);
    }
    *out = (Qcow2Allocation){ .host_offset = guest_offset, .count = count };
    return 0;
}

void coroutine_fn qcow2_data_release(BlockDriverState *bs, uint64_t host_offset, uint64_t count)
{
    if (!qcow2_state(bs)->geometry.data_file) {
        qcow2_release_clusters(bs, host_offset, count);
    }
}

int coroutine_fn qcow2_data_flush(BlockDriverState *bs)
{
    return bs->data_file ? bdrv_co_flush(bs->data_file) : 0;
}

int coroutine_fn qcow2_data_zero(BlockDriverState *bs, int64_t offset, int64_t bytes, BdrvRequestFlags flags)
{
    Qcow2State *s = qcow2_state(bs);
    int ret = 0;

    if (!s->meta || atomic_load_explicit(&s->corrupt, memory_order_relaxed)) {
        return -EIO;
    }
    if (!s->discard.pass[QCOW2_DISCARD_REQUEST]) {
        flags &= ~BDRV_REQ_MAY_UNMAP;
    }
    unsigned epoch = qcow2_epoch_enter(s->meta);
    while (bytes > 0 && ret >= 0) {
        Qcow2Extent extent;
        ret = qcow2_map(bs, (uint64_t)offset, (uint64_t)bytes, QCOW2_MAP_PLAIN, &extent);
        if (ret >= 0 && extent.kind == QCOW2_CLUSTER_NORMAL) { /* the rest is zeroes already */
            ret = bdrv_co_pwrite_zeroes(bs->data_file, offset, (int64_t)extent.bytes, flags);
        }
        offset += ret >= 0 ? (int64_t)extent.bytes : 0;
        bytes -= ret >= 0 ? (int64_t)extent.bytes : 0;
    }
    qcow2_epoch_leave(s->meta, epoch);
    return ret < 0 ? ret : 0;
}
