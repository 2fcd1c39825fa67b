/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/data_file.h"
#include "drivers/qcow2/meta/meta.h"

/*
 * Refcounts may be written at any time, pointers only behind a barrier: flush_to_disk makes that. Where barriers are left
 * out (cache.no-flush) all is written, in order.
 */
int coroutine_fn qcow2_co_flush_to_os(BlockDriverState *bs)
{
    if (!qcow2_state(bs)->meta) {
        return 0;
    }
    return bs->open_flags & BDRV_O_NO_FLUSH ? qcow2_meta_commit(bs) : qcow2_meta_write_counts(bs);
}

/* Of an image that could not be looked at anew no metadata is known, but what was written before is in its files. */
static int coroutine_fn flush_files(BlockDriverState *bs)
{
    int ret = qcow2_data_flush(bs), file_ret = bdrv_co_flush(bs->file);
    return ret < 0 ? ret : file_ret;
}

int coroutine_fn qcow2_co_flush_to_disk(BlockDriverState *bs)
{
    return qcow2_state(bs)->meta ? qcow2_meta_commit(bs) : flush_files(bs);
}

void coroutine_fn qcow2_drain_begin(BlockDriverState *bs)
{
    qcow2_state(bs)->drained++;
    if (qcow2_state(bs)->meta) {
        qcow2_meta_drain_begin(bs);
    }
}

void coroutine_fn qcow2_drain_end(BlockDriverState *bs)
{
    qcow2_state(bs)->drained--;
    if (qcow2_state(bs)->meta) {
        qcow2_meta_drain_end(bs);
    }
}
