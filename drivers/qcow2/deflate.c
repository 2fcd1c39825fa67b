/* SPDX-License-Identifier: MIT */
/*
 * The format allows deflate a window of 4 KiB (2^12), and readers rely on it: some inflate with no more. libdeflate
 * always uses 32 KiB, so it cannot write these.
 */

#include "drivers/qcow2/deflate.h"

#include <errno.h>
#include <stdbool.h>
#include <zlib.h>

#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEM_LEVEL 9
#define INFLATE_WINDOW_BITS 15

int qcow2_deflate(int level, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_max, uint32_t *out_bytes)
{
    z_stream z = { .next_in = (Bytef *)in, .avail_in = (uInt)in_bytes, .next_out = out, .avail_out = (uInt)out_max };
    if (deflateInit2(&z, level ? level : Z_DEFAULT_COMPRESSION, Z_DEFLATED, -DEFLATE_WINDOW_BITS, DEFLATE_MEM_LEVEL,
                     Z_DEFAULT_STRATEGY) != Z_OK) {
        return -ENOMEM;
    }
    int ret = deflate(&z, Z_FINISH);
    *out_bytes = ret == Z_STREAM_END ? (uint32_t)(out_max - z.avail_out) : 0;
    deflateEnd(&z);
    return 0;
}

int qcow2_inflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    z_stream z = { .next_in = (Bytef *)in, .avail_in = (uInt)in_bytes, .next_out = out, .avail_out = (uInt)out_bytes };
    if (inflateInit2(&z, -INFLATE_WINDOW_BITS) != Z_OK) {
        return -ENOMEM;
    }
    int ret = inflate(&z, Z_FINISH);
    bool whole = z.avail_out == 0 && (ret == Z_STREAM_END || ret == Z_BUF_ERROR || ret == Z_OK);
    inflateEnd(&z);
    if (ret == Z_MEM_ERROR) {
        return -ENOMEM;
    }
    return whole ? 0 : -EIO;
}
