/* SPDX-License-Identifier: MIT */
/*
 * The format allows deflate a window of 4 KiB (2^12), and readers rely on it: some inflate with no more. libdeflate
 * always uses 32 KiB, so it cannot write these. ISA-L can: at the default level it is five times as fast as zlib, for
 * output that is 2 to 8 % larger; a level that is asked for is zlib's. What ISA-L does not decode as a whole is left to
 * zlib, so that both builds read the same.
 */

#include "drivers/qcow2/deflate.h"

#include <errno.h>
#include <glib.h>
#include <stdbool.h>
#include <zlib.h>

#include "config.h"
#ifdef CONFIG_ISAL
#include <isa-l/igzip_lib.h>
#endif

#define DEFLATE_WINDOW_BITS 12
#define DEFLATE_MEM_LEVEL 9
#define INFLATE_WINDOW_BITS 15

#ifdef CONFIG_ISAL
typedef struct IsalWork {
    struct isal_zstream stream;
    uint8_t level_buf[ISAL_DEF_LVL3_DEFAULT];
} IsalWork;

static int isal_encode(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_max, uint32_t *out_bytes)
{
    g_autofree IsalWork *work = g_try_malloc(sizeof(*work));
    if (!work) {
        return -ENOMEM;
    }
    struct isal_zstream *z = &work->stream;
    isal_deflate_stateless_init(z);
    z->level = 3;
    z->level_buf = work->level_buf;
    z->level_buf_size = sizeof(work->level_buf);
    z->hist_bits = DEFLATE_WINDOW_BITS;
    z->next_in = (uint8_t *)in;
    z->avail_in = (uint32_t)in_bytes;
    z->next_out = out;
    z->avail_out = (uint32_t)out_max;
    z->end_of_stream = 1;
    z->flush = NO_FLUSH;
    int ret = isal_deflate_stateless(z);
    *out_bytes = ret == COMP_OK ? (uint32_t)(out_max - z->avail_out) : 0;
    return 0;
}

static bool isal_decode(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
    g_autofree struct inflate_state *state = g_try_malloc(sizeof(*state));
    if (!state) {
        return false;
    }
    isal_inflate_init(state);
    state->next_in = (uint8_t *)in;
    state->avail_in = (uint32_t)in_bytes;
    state->next_out = out;
    state->avail_out = (uint32_t)out_bytes;
    return isal_inflate_stateless(state) == ISAL_DECOMP_OK && state->avail_out == 0;
}
#endif

static int zlib_encode(int level, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_max,
                       uint32_t *out_bytes)
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

static int zlib_decode(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
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

int qcow2_deflate(int level, const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_max, uint32_t *out_bytes)
{
#ifdef CONFIG_ISAL
    if (level == 0) {
        return isal_encode(in, in_bytes, out, out_max, out_bytes);
    }
#endif
    return zlib_encode(level, in, in_bytes, out, out_max, out_bytes);
}

int qcow2_inflate(const uint8_t *in, size_t in_bytes, uint8_t *out, size_t out_bytes)
{
#ifdef CONFIG_ISAL
    if (isal_decode(in, in_bytes, out, out_bytes)) {
        return 0;
    }
#endif
    return zlib_decode(in, in_bytes, out, out_bytes);
}
