/* SPDX-License-Identifier: MIT */

/*
 * blkdebug: shows its image as it is, but makes requests fail by rules, stops them at breakpoints, and
 * pretends to other limits. README.md beside this file says how it is used.
 *
 *     blkdebug:CONFIG:IMAGE     driver=blkdebug,config=…,image.filename=…,inject-error.0.event=…
 */

#include <errno.h>
#include <string.h>

#include "drivers/blkdebug/blkdebug.h"

#define SECTOR_BYTES 512

static const BdrvChildSpec blkdebug_children[] = {
    { .name = "image", .role = BDRV_CHILD_FILTERED, .filename_option = "x-image" },
    { .name = NULL },
};

static bool blkdebug_parse_filename(const char *filename, BdrvOptions *options, GError **errp)
{
    const char *rest, *image;

    if (!g_str_has_prefix(filename, "blkdebug:")) { /* driver=blkdebug and a plain name */
        bdrv_options_set_string(options, "x-image", filename);
        return true;
    }
    rest = filename + strlen("blkdebug:");
    image = strchr(rest, ':');
    if (!image) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "'%s' does not name both configuration file and image; write blkdebug:CONFIG:IMAGE, or "
                    "blkdebug::IMAGE without configuration", filename);
        return false;
    }
    if (image > rest) {
        g_autofree char *config = g_strndup(rest, (gsize)(image - rest));

        bdrv_options_set_string(options, "config", config);
    }
    bdrv_options_set_string(options, "x-image", image + 1);
    return true;
}

/* The short name says only these. */
static bool only_config(const BdrvOptions *options)
{
    return bdrv_options_count(options) == (bdrv_options_has(options, "config") ? 1 : 0);
}

static char *blkdebug_refresh_filename(BlockDriverState *bs)
{
    const BlkdebugState *s = bs->opaque;
    const char *config = bdrv_options_get_string(s->options, "config", ""), *image = bs->file->bs->filename;
    bool is_protocol = !bs->file->bs->drv->children || bs->file->bs->drv->protocol_name;

    if (!only_config(s->options) || strchr(config, ':') || !is_protocol || g_str_has_prefix(image, "json:")) {
        return NULL;
    }
    return g_strdup_printf("blkdebug:%s:%s", config, image);
}

/* ---- life ---- */

static bool coroutine_fn read_options(BlockDriverState *bs, const BdrvOptions *options, GError **errp)
{
    BlkdebugState *s = bs->opaque;
    const char *config = bdrv_options_get_string(options, "config", NULL);

    return (!config || blkdebug_read_config(&s->engine, config, errp)) &&
           blkdebug_add_rules(&s->engine, options, errp) &&
           blkdebug_read_limits(s, options, bs->file->bs->limits.request_alignment, errp);
}

static void free_state(BlkdebugState *s)
{
    blkdebug_engine_destroy(&s->engine);
    bdrv_options_free(s->options);
}

static bool coroutine_fn blkdebug_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                                       GError **errp)
{
    BlkdebugState *s = bs->opaque;

    blkdebug_engine_init(&s->engine, bs);
    s->options = bdrv_options_copy(options);
    if (!read_options(bs, options, errp)) {
        free_state(s);
        return false;
    }
    /* No FUA: it shall be a flush, which rules can make fail. */
    bs->supported_write_flags = BDRV_REQ_UNCHANGED;
    bs->supported_zero_flags = BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK | BDRV_REQ_UNCHANGED;
    blkdebug_engine_event(&s->engine, BDRV_EVENT_NONE);
    return true;
}

static int blkdebug_close(BlockDriverState *bs)
{
    free_state(bs->opaque);
    return 0;
}

/* Rules, their state and the limits stay for as long as the node is open. */
static bool blkdebug_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, void **state,
                                    GError **errp)
{
    const BlkdebugState *s = bs->opaque;

    for (unsigned i = 0; i < bdrv_options_count(options); i++) {
        g_autofree char *new_text = NULL, *old_text = NULL;
        const char *key, *old_key = NULL;

        bdrv_options_nth(options, i, &key, NULL, &new_text);
        if (i < bdrv_options_count(s->options)) {
            bdrv_options_nth(s->options, i, &old_key, NULL, &old_text);
        }
        if (!old_key || strcmp(key, old_key) != 0 || strcmp(new_text, old_text) != 0) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "cannot change the option '%s' by reopening; close it and open it",
                        key);
            return false;
        }
    }
    return true;
}

/* Its own limits; those of the child are kept by the child. */
static void blkdebug_refresh_limits(BlockDriverState *bs)
{
    const BlkdebugState *s = bs->opaque;

    bs->limits.request_alignment = s->align ? (uint32_t)s->align : 1;
    bs->limits.max_iov = 0;
    bs->limits.max_transfer = s->max_transfer;
    bs->limits.pwrite_zeroes_alignment = s->opt_write_zero;
    bs->limits.max_pwrite_zeroes = s->max_write_zero;
    bs->limits.pdiscard_alignment = s->opt_discard;
    bs->limits.max_pdiscard = s->max_discard;
}

static void blkdebug_drain_begin(BlockDriverState *bs)
{
    BlkdebugState *s = bs->opaque;

    blkdebug_engine_drain_begin(&s->engine);
}

static void blkdebug_drain_end(BlockDriverState *bs)
{
    BlkdebugState *s = bs->opaque;

    blkdebug_engine_drain_end(&s->engine);
}

/* ---- requests ---- */

static int coroutine_fn check(BlockDriverState *bs, BlkdebugIotype iotype, int64_t offset, int64_t bytes)
{
    BlkdebugState *s = bs->opaque;

    return blkdebug_engine_check(&s->engine, iotype, offset, bytes);
}

/*
 * With align= a request may reach over the end of an image that is no multiple of it. The image must not
 * grow by that where the parent may not resize it.
 */
static int64_t coroutine_fn without_padding(const BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int64_t length = bdrv_co_getlength(bs->file);
    int64_t end = (length + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES;

    if (offset + bytes <= end || (bdrv_child_rights(bs->file) & BDRV_RIGHT_RESIZE)) {
        return bytes;
    }
    return MAX(end - offset, 0);
}

static int coroutine_fn blkdebug_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                          size_t iov_offset, BdrvRequestFlags flags)
{
    int ret = check(bs, BLKDEBUG_READ, offset, bytes);

    return ret < 0 ? ret : bdrv_co_preadv(bs->file, offset, bytes, iov, iov_offset, flags);
}

static int coroutine_fn blkdebug_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                           size_t iov_offset, BdrvRequestFlags flags)
{
    int ret = check(bs, BLKDEBUG_WRITE, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    return bdrv_co_pwritev(bs->file, offset, without_padding(bs, offset, bytes), iov, iov_offset, flags);
}

/* What is no whole unit of opt-write-zero is not done: the core writes it as data. */
static int coroutine_fn blkdebug_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                 BdrvRequestFlags flags)
{
    const BlkdebugState *s = bs->opaque;
    int64_t unit = MAX(MAX(s->opt_write_zero, s->align), 1);
    int ret;

    if (offset % unit || bytes % unit) {
        return -ENOTSUP;
    }
    ret = check(bs, BLKDEBUG_WRITE_ZEROES, offset, bytes);
    return ret < 0 ? ret : bdrv_co_pwrite_zeroes(bs->file, offset, without_padding(bs, offset, bytes), flags);
}

static int coroutine_fn blkdebug_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    int ret = check(bs, BLKDEBUG_DISCARD, offset, bytes);

    return ret < 0 ? ret : bdrv_co_pdiscard(bs->file, offset, bytes);
}

/* The core copies by reads and writes, which rules can make fail. */
static int blkdebug_co_copy_range(BlockDriverState *bs, BlockDriverState *src, int64_t src_offset, int64_t dst_offset,
                                  int64_t bytes, BdrvRequestFlags flags)
{
    return -ENOTSUP;
}

static int coroutine_fn blkdebug_co_flush_to_disk(BlockDriverState *bs)
{
    int ret = check(bs, BLKDEBUG_FLUSH, 0, 0);

    return ret < 0 ? ret : bdrv_co_flush(bs->file);
}

static int coroutine_fn blkdebug_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                                 BlockExtent *extent)
{
    int64_t inside = MIN(bytes, bdrv_co_getlength(bs->file) - offset);
    int ret = check(bs, BLKDEBUG_BLOCK_STATUS, offset, bytes);

    if (ret < 0) {
        return ret;
    }
    if (inside <= 0) { /* padding of a last block */
        *extent = (BlockExtent){ .kind = EXTENT_ZERO, .bytes = bytes, .host_offset = -1 };
        return 0;
    }
    return bdrv_co_block_status(bs->file, offset, inside, extent);
}

static bool coroutine_fn blkdebug_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                                           BdrvRequestFlags flags, GError **errp)
{
    return bdrv_co_truncate(bs->file, length, exact, prealloc, flags, errp);
}

/* ---- events and breakpoints ---- */

static void coroutine_fn blkdebug_debug_event(BlockDriverState *bs, BdrvDebugEvent event)
{
    BlkdebugState *s = bs->opaque;

    blkdebug_engine_event(&s->engine, event);
}

static int blkdebug_debug_breakpoint(BlockDriverState *bs, BdrvDebugEvent event, const char *tag)
{
    BlkdebugState *s = bs->opaque;

    blkdebug_engine_break(&s->engine, event, tag);
    return 0;
}

static int blkdebug_debug_remove_breakpoint(BlockDriverState *bs, const char *tag)
{
    BlkdebugState *s = bs->opaque;

    return blkdebug_engine_remove_break(&s->engine, tag);
}

static int blkdebug_debug_resume(BlockDriverState *bs, const char *tag)
{
    BlkdebugState *s = bs->opaque;

    return blkdebug_engine_resume(&s->engine, tag);
}

static bool blkdebug_debug_is_suspended(BlockDriverState *bs, const char *tag)
{
    BlkdebugState *s = bs->opaque;

    return blkdebug_engine_is_suspended(&s->engine, tag);
}

static const BlockDriver bdrv_blkdebug = {
    .format_name = "blkdebug",
    .protocol_name = "blkdebug",
    .instance_size = sizeof(BlkdebugState),
    .is_filter = true,
    .children = blkdebug_children,
    .open_options = blkdebug_open_options,

    .bdrv_parse_filename = blkdebug_parse_filename,
    .bdrv_refresh_filename = blkdebug_refresh_filename,
    .bdrv_open = blkdebug_open,
    .bdrv_close = blkdebug_close,
    .bdrv_reopen_prepare = blkdebug_reopen_prepare,
    .bdrv_refresh_limits = blkdebug_refresh_limits,

    .bdrv_truncate = blkdebug_truncate,

    .bdrv_co_readv = blkdebug_co_readv,
    .bdrv_co_writev = blkdebug_co_writev,
    .bdrv_co_write_zeroes = blkdebug_co_write_zeroes,
    .bdrv_co_discard = blkdebug_co_discard,
    .bdrv_co_copy_range = blkdebug_co_copy_range,
    .bdrv_co_block_status = blkdebug_co_block_status,
    .bdrv_co_flush_to_disk = blkdebug_co_flush_to_disk,

    .bdrv_drain_begin = blkdebug_drain_begin,
    .bdrv_drain_end = blkdebug_drain_end,
    .bdrv_debug_event = blkdebug_debug_event,
    .bdrv_debug_breakpoint = blkdebug_debug_breakpoint,
    .bdrv_debug_remove_breakpoint = blkdebug_debug_remove_breakpoint,
    .bdrv_debug_resume = blkdebug_debug_resume,
    .bdrv_debug_is_suspended = blkdebug_debug_is_suspended,
};

void bdrv_blkdebug_init(void);
void bdrv_blkdebug_init(void)
{
    bdrv_register(&bdrv_blkdebug);
}
