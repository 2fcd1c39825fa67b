/* SPDX-License-Identifier: MIT */

/*
 * blkverify: two children that must always read the same. Changes are made to both at once; what is
 * read is read from both and compared. The first difference is remembered, and every request from
 * then on fails. See README.md.
 *
 *     blkverify:RAW:TEST        driver=blkverify,raw.filename=RAW,test.driver=qcow2,test.file.filename=TEST
 */

#include "blkverify.h"

#include <errno.h>
#include <string.h>

#define SECTOR_BYTES 512
#define MAX_TRANSFER (16 * 1024 * 1024)
#define PREFIX "blkverify:"

static const BdrvChildSpec blkverify_children[] = {
    { .name = "raw", .role = BDRV_CHILD_FILTERED, .filename_option = "x-raw" },
    { .name = "test", .role = BDRV_CHILD_FILTERED, .is_image = true, .filename_option = "x-image" },
    { .name = NULL },
};

/* ---- opening ---- */

/* "blkverify:RAW:TEST"; a name without the prefix is TEST, RAW comes by options. */
static bool blkverify_parse_filename(const char *filename, BdrvOptions *options, GError **errp)
{
    g_autofree char *raw = NULL;
    const char *colon;

    if (!g_str_has_prefix(filename, PREFIX)) {
        bdrv_options_set_string(options, "x-image", filename);
        return true;
    }
    filename += strlen(PREFIX);
    colon = strchr(filename, ':');
    if (!colon || colon == filename || !colon[1]) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "'%s%s' does not name two images; write blkverify:RAW:TEST", PREFIX,
                    filename);
        return false;
    }
    raw = g_strndup(filename, colon - filename);
    bdrv_options_set_string(options, "x-raw", raw);
    bdrv_options_set_string(options, "x-image", colon + 1);
    return true;
}

/* NULL if a child has no plain name, or RAW would end at a colon of its own. */
static char *blkverify_refresh_filename(BlockDriverState *bs)
{
    const char *raw = bdrv_find_child(bs, "raw")->bs->filename;
    const char *test = bdrv_find_child(bs, "test")->bs->filename;

    return strchr(raw, ':') || g_str_has_prefix(test, "json:") ? NULL : g_strconcat(PREFIX, raw, ":", test, NULL);
}

static int64_t whole_sectors(int64_t length)
{
    return (length + SECTOR_BYTES - 1) / SECTOR_BYTES;
}

static bool coroutine_fn blkverify_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                        GError **errp)
{
    BlkverifyState *s = bs->opaque;
    int64_t raw_length, test_length;

    s->raw = bdrv_find_child(bs, "raw");
    s->test = bdrv_find_child(bs, "test");
    raw_length = bdrv_co_getlength(s->raw);
    test_length = bdrv_co_getlength(s->test);
    /* A raw file may end within the sector that the image's length is rounded up to. */
    if (whole_sectors(raw_length) != whole_sectors(test_length)) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "raw is %" G_GINT64_FORMAT " bytes long and test %" G_GINT64_FORMAT "; they must be equal",
                    raw_length, test_length);
        return false;
    }
    co_range_lock_init(&s->ranges);
    pthread_mutex_init(&s->lock, NULL);
    bs->supported_write_flags = BDRV_REQ_FUA;
    bs->supported_zero_flags = BDRV_REQ_FUA | BDRV_REQ_MAY_UNMAP;
    return true;
}

static int coroutine_fn blkverify_close(BlockDriverState *bs)
{
    BlkverifyState *s = bs->opaque;

    g_free(s->message);
    pthread_mutex_destroy(&s->lock);
    co_range_lock_destroy(&s->ranges);
    return 0;
}

/* Nothing here depends on flags; the children are reopened on their own. */
static bool coroutine_fn blkverify_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                                  void **state, GError **errp)
{
    return true;
}

/* A read takes a buffer of its size for the other child. */
static void blkverify_refresh_limits(BlockDriverState *bs)
{
    bs->limits.max_transfer = MIN(bs->limits.max_transfer ? bs->limits.max_transfer : MAX_TRANSFER, MAX_TRANSFER);
}

/* ---- reading ---- */

static int coroutine_fn make_read(BdrvChild *child, const BlkverifyCall *call)
{
    return bdrv_co_preadv(child, call->offset, call->bytes, call->iov, call->iov_offset, call->flags);
}

/* Where the first @bytes of @buf differ from the view, -1: nowhere. */
static int64_t first_difference(const BdrvIov *iov, size_t iov_offset, const uint8_t *buf, int64_t bytes)
{
    int64_t at = 0;

    for (unsigned i = 0; i < iov->count && at < bytes; i++) {
        const struct iovec *vec = &iov->vec[i];
        size_t skip = MIN(iov_offset, vec->iov_len);
        const uint8_t *data = (const uint8_t *)vec->iov_base + skip;
        int64_t n = MIN((int64_t)(vec->iov_len - skip), bytes - at);

        iov_offset -= skip;
        if (n > 0 && memcmp(data, buf + at, n) != 0) {
            while (*data == buf[at]) {
                data++;
                at++;
            }
            return at;
        }
        at += n;
    }
    return -1;
}

static int coroutine_fn blkverify_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                           size_t iov_offset, BdrvRequestFlags flags)
{
    BlkverifyState *s = bs->opaque;
    uint8_t *buf = bdrv_try_blockalign(s->raw->bs, bytes);
    BlkverifyCall test = { make_read, "read", offset, bytes, iov, iov_offset, flags };
    BlkverifyCall raw = test;
    struct iovec vec;
    BdrvIov raw_iov = BDRV_IOV_BUF(vec, buf, bytes);
    CoRange range;
    int ret;

    if (!buf) {
        return -ENOMEM;
    }
    raw.iov = &raw_iov;
    raw.iov_offset = 0;
    co_range_lock(&s->ranges, &range, offset, offset + bytes, false);
    ret = blkverify_call_both(s, &raw, &test);
    co_range_unlock(&s->ranges, &range);
    if (ret >= 0) {
        int64_t at = first_difference(iov, iov_offset, buf, bytes);

        if (at >= 0) {
            ret = blkverify_mismatch(s, &test, "contents mismatch at offset %" G_GINT64_FORMAT, offset + at);
        }
    }
    bdrv_vfree(buf);
    return ret;
}

/* ---- changing ---- */

static int coroutine_fn make_write(BdrvChild *child, const BlkverifyCall *call)
{
    return bdrv_co_pwritev(child, call->offset, call->bytes, call->iov, call->iov_offset, call->flags);
}

static int coroutine_fn make_zeroes(BdrvChild *child, const BlkverifyCall *call)
{
    return bdrv_co_pwrite_zeroes(child, call->offset, call->bytes, call->flags);
}

static int coroutine_fn change_both(BlkverifyState *s, const BlkverifyCall *call)
{
    CoRange range;
    int ret;

    co_range_lock(&s->ranges, &range, call->offset, call->offset + call->bytes, true);
    ret = blkverify_call_both(s, call, call);
    co_range_unlock(&s->ranges, &range);
    return ret;
}

static int coroutine_fn blkverify_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                            size_t iov_offset, BdrvRequestFlags flags)
{
    return change_both(bs->opaque,
                       &(BlkverifyCall){ make_write, "write", offset, bytes, iov, iov_offset, flags });
}

static int coroutine_fn blkverify_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                  BdrvRequestFlags flags)
{
    return change_both(bs->opaque, &(BlkverifyCall){ .make = make_zeroes,
                                                     .verb = "write_zeroes",
                                                     .offset = offset,
                                                     .bytes = bytes,
                                                     .flags = flags });
}

/* The core flushes the children; after a mismatch nothing may be called durable. */
static int coroutine_fn blkverify_co_flush_to_os(BlockDriverState *bs)
{
    BlkverifyState *s = bs->opaque;

    return atomic_load(&s->mismatched) ? -EIO : 0;
}

static bool coroutine_fn resize_both(BlkverifyState *s, int64_t length, bool exact, BdrvPrealloc prealloc,
                                     BdrvRequestFlags flags, GError **errp)
{
    BlkverifyCall call = { .verb = "truncate", .offset = length };
    GError *error = NULL;
    bool test_ok;

    if (atomic_load(&s->mismatched)) {
        g_set_error(errp, BDRV_ERROR, EIO, "raw and test differ already; see the mismatch reported before");
        return false;
    }
    test_ok = bdrv_co_truncate(s->test, length, exact, prealloc, flags, errp);
    if (!test_ok) {
        return false; /* raw is as it was: nothing has come apart */
    }
    if (!bdrv_co_truncate(s->raw, length, exact, prealloc, flags, &error)) {
        blkverify_mismatch(s, &call, "result mismatch: raw: %s, test: success", error->message);
        g_propagate_error(errp, error);
        return false;
    }
    return true;
}

static bool coroutine_fn blkverify_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                            BdrvRequestFlags flags, GError **errp)
{
    BlkverifyState *s = bs->opaque;
    CoRange range;
    bool ok;

    co_range_lock(&s->ranges, &range, 0, INT64_MAX, true);
    ok = resize_both(s, length, exact, prealloc, flags, errp);
    co_range_unlock(&s->ranges, &range);
    return ok;
}

/* ---- questions ---- */

static int64_t coroutine_fn blkverify_getlength(BlockDriverState *bs)
{
    const BlkverifyState *s = bs->opaque;

    return bdrv_co_getlength(s->test);
}

/* As raw says; but the bytes count as stored here, or who copies them elsewhere would pass the comparison by. */
static int coroutine_fn blkverify_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                  BlockExtent *extent)
{
    const BlkverifyState *s = bs->opaque;
    int64_t inside = MIN(bytes, bdrv_co_getlength(s->raw) - offset);
    int ret = 0;

    *extent = (BlockExtent){ .kind = EXTENT_ZERO, .bytes = bytes };
    if (inside > 0) {
        ret = bdrv_co_block_status_above(s->raw, offset, inside, extent);
    }
    extent->host_offset = offset;
    extent->file = bs;
    extent->depth = 0;
    return ret;
}

static int blkverify_get_info(BlockDriverState *bs, BdrvInfo *info)
{
    return 0; /* a plain disk: no clusters */
}

static char *blkverify_explain(BlockDriverState *bs)
{
    BlkverifyState *s = bs->opaque;
    char *message;

    pthread_mutex_lock(&s->lock);
    message = g_strdup(s->message);
    pthread_mutex_unlock(&s->lock);
    return message;
}

static const BlockDriver bdrv_blkverify = {
    .format_name = "blkverify",
    .protocol_name = "blkverify",
    .instance_size = sizeof(BlkverifyState),
    .children = blkverify_children,

    .bdrv_parse_filename = blkverify_parse_filename,
    .bdrv_refresh_filename = blkverify_refresh_filename,
    .bdrv_open = blkverify_open,
    .bdrv_close = blkverify_close,
    .bdrv_reopen_prepare = blkverify_reopen_prepare,
    .bdrv_refresh_limits = blkverify_refresh_limits,

    .bdrv_co_readv = blkverify_co_readv,
    .bdrv_co_writev = blkverify_co_writev,
    .bdrv_co_write_zeroes = blkverify_co_write_zeroes,
    .bdrv_co_flush_to_os = blkverify_co_flush_to_os,
    .bdrv_truncate = blkverify_truncate,

    .bdrv_getlength = blkverify_getlength,
    .bdrv_co_block_status = blkverify_co_block_status,
    .bdrv_get_info = blkverify_get_info,
    .bdrv_explain = blkverify_explain,
};

void bdrv_blkverify_init(void);
void bdrv_blkverify_init(void)
{
    bdrv_register(&bdrv_blkverify);
}
