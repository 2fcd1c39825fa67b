/* SPDX-License-Identifier: MIT */

/*
 * raw: the file is the disk, or a window of it.
 *
 *     driver=raw,offset=512,size=1M,file.driver=file,file.filename=x
 *
 * Without offset and size it is transparent: all of the file, as long as the file is.
 */

#include <bdrv/driver.h>
#include <errno.h>

#define RAW_SIZE_UNIT 512
#define ROUND_UP_TO_SECTOR(bytes) (((bytes) + RAW_SIZE_UNIT - 1) / RAW_SIZE_UNIT * RAW_SIZE_UNIT)

typedef struct RawState {
    int64_t offset; /* where the disk begins in the file */
    int64_t size;   /* bytes, -1: up to the end of the file */
} RawState;

static const BdrvOptionSpec raw_open_options[] = {
    { .name = "offset",
      .type = BDRV_OPTION_SIZE,
      .help = "Offset in the file where the image starts",
      .default_text = "0" },
    { .name = "size",
      .type = BDRV_OPTION_SIZE,
      .help = "Virtual disk size; the rest of the file if not given" },
    { .name = NULL },
};

static const char *const raw_strong_options[] = { "offset", "size", NULL };

/* The protocol makes the file; raw adds nothing to it. */
static const BdrvOptionSpec raw_create_options[] = {
    { .name = "size", .type = BDRV_OPTION_SIZE, .help = "Virtual disk size" },
    { .name = NULL },
};

static const BdrvChildSpec raw_children[] = {
    { .name = "file", .role = BDRV_CHILD_FILTERED },
    { .name = NULL },
};

/* Anything can be raw, but everything else is more likely. */
static int raw_probe(const uint8_t *buf, size_t size, const char *filename)
{
    return 1;
}

static bool coroutine_fn read_window(BlockDriverState *bs, const BdrvOptions *options, RawState *window, GError **errp)
{
    int64_t file_length = bdrv_co_getlength(bs->file);
    int64_t offset = bdrv_options_get_int(options, "offset", 0);
    int64_t size = bdrv_options_has(options, "size") ? bdrv_options_get_int(options, "size", 0) : -1;

    if (file_length < 0) {
        g_set_error(errp, BDRV_ERROR, -file_length, "Could not get image size: %s", g_strerror(-file_length));
        return false;
    }
    if (offset > file_length) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Offset (%" G_GINT64_FORMAT
                    ") cannot be greater than size of the containing file (%" G_GINT64_FORMAT ")",
                    offset, file_length);
        return false;
    }
    if (size >= 0 && size > file_length - offset) {
        g_set_error(
            errp, BDRV_ERROR, EINVAL,
            "The sum of offset (%" G_GINT64_FORMAT ") and size (%" G_GINT64_FORMAT
            ") has to be smaller or equal to the  actual size of the containing file (%" G_GINT64_FORMAT ")",
            offset, size, file_length);
        return false;
    }
    if (size >= 0 && size % RAW_SIZE_UNIT) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Specified size is not multiple of %d", RAW_SIZE_UNIT);
        return false;
    }
    *window = (RawState){ .offset = offset, .size = size };
    return true;
}

static bool coroutine_fn raw_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    if (!read_window(bs, options, bs->opaque, errp)) {
        return false;
    }
    /* FUA that the child cannot do is a flush of this node. */
    bs->supported_write_flags = (bs->file->bs->supported_write_flags & BDRV_REQ_FUA) | BDRV_REQ_UNCHANGED;
    bs->supported_zero_flags = (bs->file->bs->supported_zero_flags & BDRV_REQ_FUA) | BDRV_REQ_MAY_UNMAP |
                               BDRV_REQ_NO_FALLBACK | BDRV_REQ_UNCHANGED;
    return true;
}

static int raw_close(BlockDriverState *bs)
{
    return 0;
}

static bool coroutine_fn raw_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                               void **state, GError **errp)
{
    RawState window;

    if (!read_window(bs, options, &window, errp)) {
        return false;
    }
    *state = g_new(RawState, 1);
    *(RawState *)*state = window;
    return true;
}

static void raw_reopen_commit(BlockDriverState *bs, void *state)
{
    *(RawState *)bs->opaque = *(RawState *)state;
    g_free(state);
}

static void raw_reopen_abort(BlockDriverState *bs, void *state)
{
    g_free(state);
}

/* Byte granular: the child pads. What else the child needs stays as a hint for allocating buffers. */
static void raw_refresh_limits(BlockDriverState *bs)
{
    const RawState *s = bs->opaque;

    bs->limits.request_alignment = 1;
    bs->limits.max_iov = 0;
    bs->limits.max_transfer = 0;
    bs->limits.max_pwrite_zeroes = 0;
    bs->limits.max_pdiscard = 0;
    if (s->offset) { /* multiples of the child's units are not ours */
        bs->limits.pwrite_zeroes_alignment = 0;
        bs->limits.pdiscard_alignment = 0;
    }
}

static int64_t coroutine_fn raw_getlength(BlockDriverState *bs)
{
    const RawState *s = bs->opaque;
    int64_t file_length = bdrv_co_getlength(bs->file);

    if (file_length < 0 || s->size >= 0) {
        return file_length < 0 ? file_length : s->size;
    }
    /* Whole sectors, as guests and qemu-img count: the missing end of the last one reads as zeroes. */
    int64_t length = MAX(file_length - s->offset, 0);
    return length > INT64_MAX - RAW_SIZE_UNIT ? length : ROUND_UP_TO_SECTOR(length);
}

static int coroutine_fn raw_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                     size_t iov_offset, BdrvRequestFlags flags)
{
    const RawState *s = bs->opaque;

    bdrv_debug_event(bs, BDRV_EVENT_READ_AIO);
    return bdrv_co_preadv(bs->file, s->offset + offset, bytes, iov, iov_offset, flags);
}

/* A window of fixed size does not grow: what is behind it is not ours. */
static int check_inside(const RawState *s, int64_t offset, int64_t bytes)
{
    return s->size >= 0 && offset + bytes > s->size ? -ENOSPC : 0;
}

static int coroutine_fn raw_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    const RawState *s = bs->opaque;
    int ret = check_inside(s, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    bdrv_debug_event(bs, BDRV_EVENT_WRITE_AIO);
    return bdrv_co_pwritev(bs->file, s->offset + offset, bytes, iov, iov_offset, flags);
}

static int coroutine_fn raw_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            BdrvRequestFlags flags)
{
    const RawState *s = bs->opaque;
    int ret = check_inside(s, offset, bytes);

    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, s->offset + offset, bytes, flags);
}

static int coroutine_fn raw_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    const RawState *s = bs->opaque;
    int64_t inside = MIN(bytes, bdrv_co_getlength(bs->file) - s->offset - offset);

    /* What only fills up the last sector is not in the file: nothing to discard there. */
    return inside > 0 ? bdrv_co_pdiscard(bs->file, s->offset + offset, inside) : 0;
}

static int coroutine_fn raw_co_copy_range(BlockDriverState *bs, BlockDriverState *src, int64_t src_offset,
                                          int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags)
{
    const RawState *s = bs->opaque;
    int ret = check_inside(s, dst_offset, bytes);

    return ret < 0 ? ret
                   : bdrv_co_copy_range_from(src, src_offset, bs->file, s->offset + dst_offset, bytes, flags);
}

/* raw has no layer of its own: it answers for all that is below. */
static int coroutine_fn raw_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            BlockExtent *extent)
{
    const RawState *s = bs->opaque;
    int64_t inside = MIN(bytes, bdrv_co_getlength(bs->file) - s->offset - offset);

    if (inside <= 0) { /* the end of the last sector, or the file has become shorter under us */
        *extent = (BlockExtent){
            .kind = EXTENT_ZERO, .bytes = bytes, .host_offset = s->offset + offset, .file = bs->file->bs
        };
        return 0;
    }
    return bdrv_co_block_status_above(bs->file, s->offset + offset, inside, extent);
}

/* The disk as it is, in whole sectors. */
static bool coroutine_fn raw_measure(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure, GError **errp)
{
    int64_t size = bdrv_options_get_int(options, "size", 0);

    if (size > INT64_MAX - RAW_SIZE_UNIT) {
        g_set_error(errp, BDRV_ERROR, EFBIG, "size %" G_GINT64_FORMAT " is too large", size);
        return false;
    }
    measure->required = measure->fully_allocated = ROUND_UP_TO_SECTOR(size);
    return true;
}

static bool length_fits(const RawState *s, int64_t length, GError **errp)
{
    if (s->size >= 0) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP,
                    "Cannot resize fixed-size raw disks; leave the option 'size' out");
        return false;
    }
    if (length > INT64_MAX - s->offset) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "Disk size %" G_GINT64_FORMAT " is too large for the chosen offset %" G_GINT64_FORMAT,
                    length, s->offset);
        return false;
    }
    return true;
}

static bool coroutine_fn raw_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                      BdrvRequestFlags flags, GError **errp)
{
    const RawState *s = bs->opaque;

    return length_fits(s, length, errp) &&
           bdrv_co_truncate(bs->file, s->offset + length, exact, prealloc, flags, errp);
}

static bool coroutine_fn raw_check_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                            GError **errp)
{
    const RawState *s = bs->opaque;

    return length_fits(s, length, errp) &&
           bdrv_co_check_truncate(bs->file, s->offset + length, exact, prealloc, errp);
}

static const BlockDriver bdrv_raw = {
    .format_name = "raw",
    .instance_size = sizeof(RawState),
    .is_filter = true,
    .children = raw_children,
    .open_options = raw_open_options,
    .create_options = raw_create_options,
    .strong_options = raw_strong_options,

    .bdrv_probe = raw_probe,
    .bdrv_open = raw_open,
    .bdrv_close = raw_close,
    .bdrv_reopen_prepare = raw_reopen_prepare,
    .bdrv_reopen_commit = raw_reopen_commit,
    .bdrv_reopen_abort = raw_reopen_abort,
    .bdrv_refresh_limits = raw_refresh_limits,

    .bdrv_truncate = raw_truncate,
    .bdrv_check_truncate = raw_check_truncate,

    .bdrv_co_readv = raw_co_readv,
    .bdrv_co_writev = raw_co_writev,
    .bdrv_co_write_zeroes = raw_co_write_zeroes,
    .bdrv_co_discard = raw_co_discard,
    .bdrv_co_copy_range = raw_co_copy_range,
    .bdrv_co_block_status = raw_co_block_status,
    .bdrv_getlength = raw_getlength,
    .bdrv_measure = raw_measure,
};

void bdrv_raw_init(void);
void bdrv_raw_init(void)
{
    bdrv_register(&bdrv_raw);
}
