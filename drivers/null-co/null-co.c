/* SPDX-License-Identifier: MIT */

/*
 * null-co: a disk that stores nothing. Writes vanish; reads leave the buffer as it is, or give zeroes
 * with read-zeroes=on. It shows what the layers above cost.
 *
 *     driver=null-co,size=1G,latency-ns=0,read-zeroes=off        or the filename null-co://
 */

#include <bdrv/driver.h>
#include <errno.h>
#include <string.h>

typedef struct NullState {
    int64_t latency_ns;
    bool read_zeroes;
} NullState;

static const BdrvOptionSpec null_options[] = {
    { .name = "filename", .type = BDRV_OPTION_STRING, .help = "Only null-co:// is allowed" },
    { .name = "size", .type = BDRV_OPTION_SIZE, .help = "Size of the null block", .default_text = "1G" },
    { .name = "latency-ns",
      .type = BDRV_OPTION_INT,
      .help = "Nanoseconds each request takes",
      .default_text = "0" },
    { .name = "read-zeroes",
      .type = BDRV_OPTION_BOOL,
      .help = "Return zeroes when read",
      .default_text = "off" },
    { .name = NULL },
};

static bool null_parse_filename(const char *filename, BdrvOptions *options, GError **errp)
{
    if (strcmp(filename, "null-co://") != 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "The only allowed filename for this driver is 'null-co://'");
        return false;
    }
    return true;
}

static bool null_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    NullState *s = bs->opaque;
    const char *filename = bdrv_options_get_string(options, "filename", NULL);
    int64_t latency_ns = bdrv_options_get_int(options, "latency-ns", 0);

    if (filename && !null_parse_filename(filename, NULL, errp)) {
        return false;
    }
    if (latency_ns < 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "latency-ns is invalid: %" G_GINT64_FORMAT " is less than 0",
                    latency_ns);
        return false;
    }
    s->latency_ns = latency_ns;
    s->read_zeroes = bdrv_options_get_bool(options, "read-zeroes", false);
    bs->length = bdrv_options_get_int(options, "size", (int64_t)1 << 30);
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    return true;
}

static int null_close(BlockDriverState *bs)
{
    return 0;
}

/* The plain name if nothing but it is needed to open the same again. */
static char *null_refresh_filename(BlockDriverState *bs)
{
    const NullState *s = bs->opaque;
    bool plain = bs->length == (int64_t)1 << 30 && !s->latency_ns && !s->read_zeroes;

    return plain ? g_strdup("null-co://") : NULL;
}

/* Nothing of the state can change; flags can. */
static bool null_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                void **state, GError **errp)
{
    return true;
}

static int coroutine_fn take_time(const NullState *s)
{
    if (s->latency_ns > 0) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + s->latency_ns);
    }
    return 0;
}

static int coroutine_fn null_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    const NullState *s = bs->opaque;

    if (s->read_zeroes) {
        bdrv_iov_memset(iov, iov_offset, 0, bytes);
    }
    return take_time(s);
}

static int coroutine_fn null_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                       const BdrvIov *iov, size_t iov_offset, BdrvRequestFlags flags)
{
    return take_time(bs->opaque);
}

static int coroutine_fn null_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BdrvRequestFlags flags)
{
    return take_time(bs->opaque);
}

static int coroutine_fn null_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return take_time(bs->opaque);
}

static int coroutine_fn null_co_flush_to_disk(BlockDriverState *bs)
{
    return take_time(bs->opaque);
}

static int coroutine_fn null_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                             BlockExtent *extent)
{
    const NullState *s = bs->opaque;

    *extent = (BlockExtent){ .kind = s->read_zeroes ? EXTENT_ZERO : EXTENT_DATA,
                             .allocated = true,
                             .bytes = bytes,
                             .host_offset = offset,
                             .file = bs };
    return 0;
}

static int64_t null_get_allocated_file_size(BlockDriverState *bs)
{
    return 0;
}

static const BlockDriver bdrv_null_co = {
    .format_name = "null-co",
    .protocol_name = "null-co",
    .instance_size = sizeof(NullState),
    .open_options = null_options,

    .bdrv_parse_filename = null_parse_filename,
    .bdrv_refresh_filename = null_refresh_filename,
    .bdrv_open = null_open,
    .bdrv_close = null_close,
    .bdrv_reopen_prepare = null_reopen_prepare,

    .bdrv_co_readv = null_co_readv,
    .bdrv_co_writev = null_co_writev,
    .bdrv_co_write_zeroes = null_co_write_zeroes,
    .bdrv_co_discard = null_co_discard,
    .bdrv_co_flush_to_disk = null_co_flush_to_disk,
    .bdrv_co_block_status = null_co_block_status,
    .bdrv_get_allocated_file_size = null_get_allocated_file_size,
};

void bdrv_null_co_init(void);
void bdrv_null_co_init(void)
{
    bdrv_register(&bdrv_null_co);
}
