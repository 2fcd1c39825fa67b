/* SPDX-License-Identifier: MIT */
/* What concerns the image as a whole. Whatever changes its structure runs drained. */
#include "block/backend/backend_int.h"
#include "block/io/operation.h"
#include "block/open/open.h"

#include <errno.h>
#include <inttypes.h>

/* ---- drain ---- */

int coroutine_fn blk_co_drain_begin(BlockBackend *blk)
{
    int ret = bdrv_co_drain_begin(blk_bs(blk));

    if (ret == 0) {
        atomic_fetch_add(&blk->drains, 1);
    }
    return ret;
}

void coroutine_fn blk_co_drain_end(BlockBackend *blk)
{
    g_return_if_fail(atomic_load(&blk->drains) > 0);
    atomic_fetch_sub(&blk->drains, 1);
    bdrv_co_drain_end(blk_bs(blk));
}

static int coroutine_fn run_drain_begin(BlockBackend *blk, void *opaque)
{
    return blk_co_drain_begin(blk);
}

static int coroutine_fn run_drain_end(BlockBackend *blk, void *opaque)
{
    blk_co_drain_end(blk);
    return 0;
}

int blk_drain_begin(BlockBackend *blk)
{
    return blk_run_blocking(blk, run_drain_begin, NULL);
}

void blk_drain_end(BlockBackend *blk)
{
    blk_run_surely(blk, run_drain_end, NULL);
}

/* Inside a request that would wait for itself. */
bool coroutine_fn blk_begin_change(BlockBackend *blk, GError **errp)
{
    int ret = bdrv_graph_begin_change(blk_graph(blk));

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "'%s' cannot be changed from inside one of its requests",
                    blk_filename(blk));
        return false;
    }
    blk_co_drain_begin(blk);
    return true;
}

void coroutine_fn blk_end_change(BlockBackend *blk)
{
    bdrv_co_refresh_filter_lengths(blk_bs(blk));
    blk_co_drain_end(blk);
    bdrv_graph_end_change(blk_graph(blk));
}

typedef struct ChangeCall {
    const char *purpose;
    BlkChangeFunc *func;
    const void *args;
    GError **errp;
    bool ok;
} ChangeCall;

bool coroutine_fn blk_co_change(BlockBackend *blk, const char *purpose, BlkChangeFunc *func, const void *args,
                                GError **errp)
{
    bool ok = false;

    if (!blk_begin_change(blk, errp)) {
        return false;
    }
    if (purpose && blk_is_read_only(blk)) {
        g_set_error(errp, BDRV_ERROR, EACCES, "'%s' is read-only; open it read-write to %s", blk_filename(blk), purpose);
    } else {
        ok = func(blk, args, errp);
    }
    blk_end_change(blk);
    return ok;
}

static int coroutine_fn run_change(BlockBackend *blk, void *opaque)
{
    ChangeCall *call = opaque;
    call->ok = blk_co_change(blk, call->purpose, call->func, call->args, call->errp);
    return 0;
}

bool blk_change(BlockBackend *blk, const char *purpose, BlkChangeFunc *func, const void *args, GError **errp)
{
    ChangeCall call = { purpose, func, args, errp, false };

    blk_has_run(blk_run_blocking(blk, run_change, &call), errp);
    return call.ok;
}

/* ---- truncate ---- */

typedef struct TruncateArgs {
    int64_t length;
    bool exact;
    BdrvPrealloc prealloc;
    BdrvRequestFlags flags;
    BdrvOperation operation;
} TruncateArgs;

static bool coroutine_fn resize(BlockBackend *blk, const void *opaque, GError **errp)
{
    const TruncateArgs *args = opaque;

    bdrv_operation_set(&args->operation);
    bool ok = bdrv_co_truncate(&blk->root->child, args->length, args->exact, args->prealloc, args->flags, errp);
    bdrv_operation_set(NULL);
    return ok;
}

bool coroutine_fn blk_co_with_resize(BlockBackend *blk, BlkChangeFunc *func, const void *args, GError **errp)
{
    unsigned used = blk->root->used, shared = blk->root->shared;

    if (!bdrv_co_root_set_rights(blk->root, used | BDRV_RIGHT_RESIZE, shared, errp)) {
        return false;
    }
    bool ok = func(blk, args, errp);
    bdrv_co_root_set_rights(blk->root, used, shared, NULL);
    return ok;
}

static bool coroutine_fn resize_with_right(BlockBackend *blk, const void *args, GError **errp)
{
    return blk_co_with_resize(blk, resize, args, errp);
}

static bool known_preallocation(BdrvPrealloc prealloc, GError **errp)
{
    if ((unsigned)prealloc > BDRV_PREALLOC_FULL) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "%u is no mode of preallocation", (unsigned)prealloc);
    }
    return (unsigned)prealloc <= BDRV_PREALLOC_FULL;
}

bool blk_truncate_progress(BlockBackend *blk, int64_t length, bool exact, BdrvPrealloc prealloc,
                           BdrvRequestFlags flags, BdrvProgressFunc *progress, void *opaque, GError **errp)
{
    TruncateArgs args = { length, exact, prealloc, flags, { progress, opaque } };

    if (length < 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "length %" PRId64 " is negative", length);
        return false;
    }
    if (!known_preallocation(prealloc, errp) || !blk_known(flags, BLK_REQUEST_FLAGS, "request flags", errp)) {
        return false;
    }
    return blk_change(blk, "resize it", resize_with_right, &args, errp);
}

bool blk_truncate(BlockBackend *blk, int64_t length, bool exact, BdrvPrealloc prealloc, BdrvRequestFlags flags,
                  GError **errp)
{
    return blk_truncate_progress(blk, length, exact, prealloc, flags, NULL, NULL, errp);
}

typedef struct JudgeCall {
    TruncateArgs args;
    GError **errp;
    bool ok;
} JudgeCall;

static int coroutine_fn judge(BlockBackend *blk, void *opaque)
{
    JudgeCall *call = opaque;
    const TruncateArgs *args = &call->args;

    call->ok = bdrv_co_check_truncate(&blk->root->child, args->length, args->exact, args->prealloc, call->errp);
    return 0;
}

bool blk_check_truncate(BlockBackend *blk, int64_t length, bool exact, BdrvPrealloc prealloc, GError **errp)
{
    JudgeCall call = { { length, exact, prealloc, 0 }, errp, false };

    if (!known_preallocation(prealloc, errp)) {
        return false;
    }
    blk_has_run(blk_ask(blk, judge, &call), errp);
    return call.ok;
}

/* ---- check ---- */

typedef struct CheckCall {
    BdrvCheckResult *result;
    BdrvCheckFix fix;
    GError **errp;
    bool ok;
} CheckCall;

static int coroutine_fn run_check(BlockBackend *blk, void *opaque)
{
    CheckCall *call = opaque;
    GError *error = NULL;
    int ret;

    if (!blk_begin_change(blk, call->errp)) {
        return 0;
    }
    ret = bdrv_co_check(blk_bs(blk), call->result, call->fix, &error);
    call->ok = ret >= 0 && !error;
    if (!call->ok && !error) {
        g_set_error(&error, BDRV_ERROR, -ret, "checking '%s' failed: %s", blk_filename(blk), g_strerror(-ret));
    }
    if (error) {
        g_propagate_error(call->errp, error);
    }
    blk_end_change(blk);
    return 0;
}

bool blk_check_sized(BlockBackend *blk, BdrvCheckResult *result, size_t result_size, BdrvCheckFix fix, GError **errp)
{
    BdrvCheckResult ours;
    CheckCall call = { &ours, fix, errp, false };

    if (!blk_known(fix, BLK_FIX_FLAGS, "check flags", errp) ||
        !bdrv_sized_in(&ours, sizeof(ours), result, result_size, "BdrvCheckResult", errp)) {
        return false;
    }
    blk_has_run(blk_run_blocking(blk, run_check, &call), errp);
    if (call.ok) {
        bdrv_sized_out(result, result_size, &ours, sizeof(ours));
    }
    return call.ok;
}

/* ---- reopen ---- */

/* @options: taken. Between bdrv_graph_begin_change() and bdrv_graph_end_change(). */
static bool coroutine_fn reopen(BlockBackend *blk, BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    bool given = false;

    if (blk->writethrough_given) {
        flags &= ~BDRV_O_WRITETHROUGH;
        flags |= blk->writethrough ? BDRV_O_WRITETHROUGH : 0;
    }
    if (!blk_take_options(options, &flags, &given, errp)) {
        bdrv_options_free(options);
        return false;
    }
    if (!bdrv_co_reopen(blk->root, options, flags & ~HANDLE_FLAGS, errp)) {
        return false;
    }
    blk_set_writethrough(blk, flags & BDRV_O_WRITETHROUGH);
    blk->writethrough_given |= given;
    return true;
}

bool coroutine_fn blk_co_reopen(BlockBackend *blk, BdrvOptions *options_taken, BdrvOpenFlags flags, GError **errp)
{
    BdrvGraph *graph = blk_graph(blk);
    BdrvOptions *options = options_taken ? options_taken : bdrv_options_new();
    bool ok;

    if (bdrv_graph_begin_change(graph) < 0) {
        bdrv_options_free(options);
        g_set_error(errp, BDRV_ERROR, EDEADLK, "'%s' cannot be changed from inside one of its requests",
                    blk_filename(blk));
        return false;
    }
    ok = reopen(blk, options, flags, errp);
    bdrv_graph_end_change(graph);
    return ok;
}

typedef struct ReopenCall {
    BdrvOptions *options;
    BdrvOpenFlags flags;
    GError **errp;
    bool ok;
} ReopenCall;

static int coroutine_fn run_reopen(BlockBackend *blk, void *opaque)
{
    ReopenCall *call = opaque;

    call->ok = blk_co_reopen(blk, call->options, call->flags, call->errp);
    return 0;
}

bool blk_reopen(BlockBackend *blk, BdrvOptions *options_taken, BdrvOpenFlags flags, GError **errp)
{
    ReopenCall call = { options_taken, flags, errp, false };

    if (!blk_has_run(blk_run_blocking(blk, run_reopen, &call), errp)) {
        bdrv_options_free(options_taken);
    }
    return call.ok;
}
