/* SPDX-License-Identifier: MIT */
/*
 * The state of a virtual machine: stored like guest data, past what the disk needs of the L1 table, until a snapshot
 * takes it over. The node is drained.
 */

#include <errno.h>

#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/crypto.h"
#include "drivers/qcow2/map.h"
#include "drivers/qcow2/meta/meta.h"

uint64_t qcow2_vm_state_offset(const BlockDriverState *bs)
{
    const Qcow2State *s = qcow2_state(bs);
    unsigned shift = s->geometry.cluster_bits + s->geometry.l2_bits;
    return qcow2_l1_entries_of(&s->geometry, (uint64_t)atomic_load(&bs->length)) << shift;
}

/* Where [offset, +bytes) of the VM state is; -EFBIG if no L1 table reaches there, -ENOTSUP if it has no place. */
static int place(const BlockDriverState *bs, int64_t offset, int64_t bytes, uint64_t *at)
{
    const Qcow2State *s = qcow2_state(bs);
    uint64_t max = (uint64_t)(QCOW2_MAX_L1_BYTES / 8) << (s->geometry.cluster_bits + s->geometry.l2_bits);
    *at = qcow2_vm_state_offset(bs);
    max = MIN(max, (uint64_t)INT64_MAX);
    if (s->geometry.data_file) {
        return -ENOTSUP; /* the guest's file is no place for it, and no snapshot could take it over */
    }
    if (!s->meta || offset < 0 || bytes < 0) {
        return -EIO;
    }
    if (*at > max || (uint64_t)offset > max - *at || (uint64_t)bytes > max - *at - (uint64_t)offset) {
        return -EFBIG;
    }
    *at += (uint64_t)offset;
    return 0;
}

/* The L1 table grows by half, so that a state written piece by piece moves it a few times only. */
static int coroutine_fn reach(BlockDriverState *bs, uint64_t end)
{
    const Qcow2State *s = qcow2_state(bs);
    uint64_t need = qcow2_l1_entries_of(&s->geometry, end), have = qcow2_meta_l1_entries(bs);
    return need <= have ? 0 : qcow2_meta_grow_l1(bs, MIN(MAX(need, have + have / 2), QCOW2_MAX_L1_BYTES / 8));
}

static int coroutine_fn load_at(BlockDriverState *bs, uint64_t at, uint64_t bytes, const BdrvIov *iov)
{
    const Qcow2State *s = qcow2_state(bs);
    size_t done = 0;
    int ret = 0;

    while (ret >= 0 && done < bytes) {
        Qcow2Extent extent;
        unsigned epoch = qcow2_epoch_enter(s->meta);
        ret = qcow2_map(bs, at + done, bytes - done, QCOW2_MAP_PLAIN, &extent);
        qcow2_epoch_leave(s->meta, epoch);
        if (ret < 0) {
            break;
        }
        if (extent.kind == QCOW2_CLUSTER_UNALLOCATED) { /* no backing file shows here */
            bdrv_iov_memset(iov, done, 0, extent.bytes);
        } else {
            ret = qcow2_co_readv(bs, (int64_t)(at + done), (int64_t)extent.bytes, iov, done, 0);
        }
        done += extent.bytes;
    }
    return ret;
}

/* Sectors are encrypted whole, but a state may be written and read in pieces of any size. */
static bool needs_padding(const BlockDriverState *bs, uint64_t at, uint64_t bytes)
{
    return qcow2_state(bs)->crypto && ((at | bytes) & (BDRV_VOLUME_SECTOR - 1));
}

/* The sectors that [at, +bytes) touches, read, changed and written, or just read. */
static int coroutine_fn transfer_padded(BlockDriverState *bs, bool save, uint64_t at, uint64_t bytes, const BdrvIov *iov)
{
    uint64_t mask = BDRV_VOLUME_SECTOR - 1, begin = at & ~mask, padded = ((at + bytes + mask) & ~mask) - begin;
    uint8_t *buf = bdrv_try_blockalign(bs->file->bs, padded);
    struct iovec vec;
    BdrvIov whole = BDRV_IOV_BUF(vec, buf, padded);

    int ret = buf ? load_at(bs, begin, padded, &whole) : -ENOMEM;
    if (ret >= 0 && save) {
        bdrv_iov_to_buf(iov, 0, buf + (at - begin), bytes);
        ret = qcow2_write(bs, (int64_t)begin, (int64_t)padded, &whole, 0);
    } else if (ret >= 0) {
        bdrv_iov_from_buf(iov, 0, buf + (at - begin), bytes);
    }
    bdrv_vfree(buf);
    return ret;
}

int coroutine_fn qcow2_save_vmstate(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov)
{
    uint64_t at;
    int ret = place(bs, offset, bytes, &at);
    if (ret >= 0 && bytes) {
        ret = reach(bs, at + (uint64_t)bytes);
    }
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(bs, BDRV_EVENT_VMSTATE_SAVE);
    if (needs_padding(bs, at, (uint64_t)bytes)) {
        return transfer_padded(bs, true, at, (uint64_t)bytes, iov);
    }
    return bytes ? qcow2_write(bs, (int64_t)at, bytes, iov, 0) : 0;
}

int coroutine_fn qcow2_load_vmstate(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov)
{
    uint64_t at;
    int ret = place(bs, offset, bytes, &at);
    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(bs, BDRV_EVENT_VMSTATE_LOAD);
    ret = needs_padding(bs, at, (uint64_t)bytes) ? transfer_padded(bs, false, at, (uint64_t)bytes, iov)
                                                 : load_at(bs, at, (uint64_t)bytes, iov);
    return ret < 0 ? ret : 0;
}
