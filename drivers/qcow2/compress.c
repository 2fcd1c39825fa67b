/* SPDX-License-Identifier: MIT */
/*
 * Compressing one cluster, in a worker. The format allows deflate a window of 4 KiB (2^12), and readers
 * rely on it: some inflate with no more. libdeflate always uses 32 KiB, so it cannot write these.
 */

#include "drivers/qcow2/compress.h"

#include <errno.h>
#include <zlib.h>

#include "config.h"
#ifdef CONFIG_LIBZSTD
#include <zstd.h>
#endif

#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEM_LEVEL 9

/* Raw deflate, no header. Without room for all of it the output ends: no gain. */
static int encode_deflate(void *opaque)
{
    Qcow2EncodeJob *job = opaque;
    z_stream z = { .next_in = (Bytef *)job->in,
                   .avail_in = (uInt)job->in_bytes,
                   .next_out = job->out,
                   .avail_out = (uInt)job->out_max };
    if (deflateInit2(&z, job->level ? job->level : Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW_BITS, DEFLATE_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return -ENOMEM;
    }
    int ret = deflate(&z, Z_FINISH);
    job->out_bytes = ret == Z_STREAM_END ? (uint32_t)(job->out_max - z.avail_out) : 0;
    deflateEnd(&z);
    return 0;
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
    return Z_BEST_COMPRESSION;
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
