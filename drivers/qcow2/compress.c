/* SPDX-License-Identifier: MIT */
/* Compressing one cluster, in a worker. */

#include "drivers/qcow2/compress.h"

#include <errno.h>

#include "config.h"
#ifdef CONFIG_LIBZSTD
#include <zstd.h>
#endif

#include "drivers/qcow2/deflate.h"

static int encode_deflate(void *opaque)
{
    Qcow2EncodeJob *job = opaque;
    return qcow2_deflate(job->level, job->in, job->in_bytes, job->out, job->out_max, &job->out_bytes);
}

#ifdef CONFIG_LIBZSTD
static int encode_zstd(void *opaque)
{
    Qcow2EncodeJob *job = opaque;
    ZSTD_CCtx *context = ZSTD_createCCtx();
    if (!context) {
        return -ENOMEM;
    }
    if (job->level) {
        ZSTD_CCtx_setParameter(context, ZSTD_c_compressionLevel, job->level); /* it is in range */
    }
    size_t n = ZSTD_compress2(context, job->out, job->out_max, job->in, job->in_bytes);
    job->out_bytes = ZSTD_isError(n) ? 0 : (uint32_t)n;
    ZSTD_freeCCtx(context);
    return 0;
}
#endif

int qcow2_compression_levels(uint8_t compression_type)
{
#ifdef CONFIG_LIBZSTD
    if (compression_type != 0) {
        return ZSTD_maxCLevel();
    }
#endif
    return QCOW2_DEFLATE_LEVELS;
}

int coroutine_fn qcow2_encode(const Qcow2State *s, Qcow2EncodeJob *job)
{
    job->level = s->compression_level;
    if (s->geometry.compression_type == 0) {
        return co_run_in_worker(AIO_WORK_CPU, encode_deflate, job);
    }
#ifdef CONFIG_LIBZSTD
    return co_run_in_worker(AIO_WORK_CPU, encode_zstd, job);
#else
    return -ENOTSUP;
#endif
}
