/* SPDX-License-Identifier: MIT */
#include "tests/lib/verify.h"

#include "config.h"

#ifdef CONFIG_DEBUG_INVARIANTS

#include <string.h>

#include "block/backend/backend_int.h"
#include "drivers/qcow2/meta/meta.h"

static void coroutine_fn verify_node(BlockDriverState *bs, bool exact)
{
    GPtrArray *children = bdrv_node(bs)->children;

    if (strcmp(bs->drv->format_name, "qcow2") == 0) {
        qcow2_meta_verify(bs, exact);
    }
    for (unsigned i = 0; children && i < children->len; i++) {
        BdrvEdge *edge = g_ptr_array_index(children, i);
        verify_node(edge->child.bs, exact);
    }
}

static int coroutine_fn run_verify(BlockBackend *blk, void *opaque)
{
    const bool *exact = opaque;
    int ret = blk_co_drain_begin(blk);

    g_assert_cmpint(ret, ==, 0);
    verify_node(blk_bs(blk), *exact);
    blk_co_drain_end(blk);
    return 0;
}

void test_verify(BlockBackend *blk, bool exact)
{
    blk_run_blocking(blk, run_verify, &exact);
}

#else

void test_verify(BlockBackend *blk, bool exact)
{
}

#endif
