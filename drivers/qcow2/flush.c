/* SPDX-License-Identifier: MIT */
#include "drivers/qcow2/callbacks.h"
#include "drivers/qcow2/meta/meta.h"

int coroutine_fn qcow2_co_flush_to_disk(BlockDriverState *bs)
{
    return qcow2_state(bs)->meta ? qcow2_meta_commit(bs) : 0;
}

void coroutine_fn qcow2_drain_begin(BlockDriverState *bs)
{
    if (qcow2_state(bs)->meta) {
        qcow2_meta_drain_begin(bs);
    }
}

void coroutine_fn qcow2_drain_end(BlockDriverState *bs)
{
    if (qcow2_state(bs)->meta) {
        qcow2_meta_drain_end(bs);
    }
}
