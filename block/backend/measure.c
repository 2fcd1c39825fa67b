/* SPDX-License-Identifier: MIT */
/* How large an image would be, for callers outside of coroutines. */
#include "block/backend/backend_int.h"
#include "block/open/open.h"
#include "block/registry/registry.h"

#include <errno.h>
#include <inttypes.h>

typedef struct MeasureCall {
    const char *format;
    BdrvOptions *options;
    BlockBackend *source; /* NULL: none */
    BdrvMeasure measure;
    GError **errp;
    bool measured;
} MeasureCall;

static bool coroutine_fn find_size(MeasureCall *call, int64_t *size)
{
    if (!call->source) {
        *size = bdrv_options_get_int(call->options, "size", -1);
        if (*size < 0) {
            g_set_error(call->errp, BDRV_ERROR, EINVAL, "neither a size nor an image to measure was given");
        }
        return *size >= 0;
    }
    *size = bdrv_co_getlength(&call->source->root->child);
    if (*size < 0) {
        g_set_error(call->errp, BDRV_ERROR, -*size, "cannot get the length of the source: %s", g_strerror(-*size));
        return false;
    }
    bdrv_options_set_int(call->options, "size", *size);
    return true;
}

static bool coroutine_fn measure(MeasureCall *call)
{
    const BlockDriver *drv = bdrv_find_format(call->format);
    int64_t size;

    if (!drv) {
        g_set_error(call->errp, BDRV_ERROR, ENOENT, "unknown format '%s'", call->format);
        return false;
    }
    if (!drv->bdrv_measure) {
        g_set_error(call->errp, BDRV_ERROR, ENOTSUP, "Block driver '%s' does not support size measurement", call->format);
        return false;
    }
    if (!bdrv_validate_create_options(drv, bdrv_find_format("file"), call->options, call->errp) ||
        !find_size(call, &size)) {
        return false;
    }
    BdrvMeasure found = { size, size, -1 };
    if (!drv->bdrv_measure(call->options, call->source ? &call->source->root->child : NULL, &found, call->errp)) {
        return false;
    }
    call->measure = found;
    return true;
}

static void coroutine_fn run_measure(void *opaque)
{
    MeasureCall *call = opaque;
    void *outer = call->source ? bdrv_gate_enter(call->source->gate) : NULL;

    call->measured = measure(call);
    if (call->source) {
        bdrv_gate_leave(call->source->gate, outer);
    }
}

bool bdrv_measure_image_sized(const char *format, BdrvOptions *options, BlockBackend *source, BdrvMeasure *result,
                              size_t result_size, GError **errp)
{
    MeasureCall call = { .format = format, .options = options ? options : bdrv_options_new(), .source = source, .errp = errp };

    blk_has_run(co_run_blocking(run_measure, &call), errp);
    bdrv_options_free(call.options);
    if (call.measured) {
        bdrv_sized_out(result, result_size, &call.measure, sizeof(call.measure));
    }
    return call.measured;
}
