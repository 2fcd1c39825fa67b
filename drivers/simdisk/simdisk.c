/* SPDX-License-Identifier: MIT */

/* simdisk: the driver in front of <bdrv/simdisk.h>. Each request: delay, failure, effect, hook, delay. */

#include <bdrv/driver.h>
#include <errno.h>
#include <string.h>

#include "drivers/simdisk/disk.h"

#define PREFIX "simdisk:"

typedef struct SimState {
    BdrvSimDisk *disk;
} SimState;

static const BdrvOptionSpec sim_open_options[] = {
    { .name = "filename", .type = BDRV_OPTION_STRING, .help = "simdisk:NAME" },
    { .name = "disk", .type = BDRV_OPTION_STRING, .help = "Name of the disk in memory" },
    { .name = NULL },
};

static BdrvSimDisk *disk_of(const BlockDriverState *bs)
{
    return ((SimState *)bs->opaque)->disk;
}

static const char *strip_prefix(const char *filename)
{
    return g_str_has_prefix(filename, PREFIX) ? filename + strlen(PREFIX) : filename;
}

static bool sim_parse_filename(const char *filename, BdrvOptions *options, GError **errp)
{
    bdrv_options_set_string(options, "disk", strip_prefix(filename));
    return true;
}

static char *sim_refresh_filename(BlockDriverState *bs)
{
    SimState *s = bs->opaque;

    return s->disk ? g_strdup_printf(PREFIX "%s", sim_disk_name(s->disk)) : NULL;
}

static bool sim_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    SimState *s = bs->opaque;
    const char *filename = bdrv_options_get_string(options, "filename", "");
    const char *name = bdrv_options_get_string(options, "disk", strip_prefix(filename));
    unsigned unsupported;

    s->disk = bdrv_simdisk_find(name);
    if (!s->disk) {
        g_set_error(errp, BDRV_ERROR, ENOENT,
                    "There is no disk '%s' in memory; make it with bdrv_simdisk_new()", name);
        return false;
    }
    unsupported = sim_disk_unsupported(s->disk);
    bs->length = bdrv_simdisk_length(s->disk);
    bs->supported_write_flags = sim_disk_fua(s->disk) ? BDRV_REQ_FUA : 0;
    if (!(unsupported & BDRV_SIM_ZERO)) {
        bs->supported_zero_flags = bs->supported_write_flags | BDRV_REQ_MAY_UNMAP | BDRV_REQ_NO_FALLBACK;
    }
    return true;
}

static int sim_close(BlockDriverState *bs)
{
    SimState *s = bs->opaque;

    g_clear_pointer(&s->disk, bdrv_simdisk_unref);
    return 0;
}

static bool sim_reopen_prepare(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags,
                               void **state, GError **errp)
{
    return true;
}

static void sim_refresh_limits(BlockDriverState *bs)
{
    bs->limits = sim_disk_limits(disk_of(bs));
}

static bool sim_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp)
{
    g_autoptr(BdrvSimDisk) disk = sim_disk_find_or_make(strip_prefix(filename));
    int64_t sizes[] = { 0, bdrv_options_get_int(options, "size", 0) };

    for (unsigned i = 0; i < G_N_ELEMENTS(sizes); i++) {
        BdrvSimRequest request;
        SimEntry *entry;
        int ret = sim_disk_change(disk, BDRV_SIM_TRUNCATE, sizes[i], 0, NULL, 0, &entry, &request);

        if (ret < 0) {
            g_set_error(errp, BDRV_ERROR, -ret, "Could not resize the disk to %" G_GINT64_FORMAT ": %s",
                        sizes[i], g_strerror(-ret));
            return false;
        }
        sim_disk_complete(disk, entry, true);
    }
    return true;
}

static bool sim_delete_file(const char *filename, GError **errp)
{
    if (!bdrv_simdisk_forget(strip_prefix(filename))) {
        g_set_error(errp, BDRV_ERROR, ENOENT,
                    "There is no disk '%s' in memory that was made by creating an image",
                    strip_prefix(filename));
        return false;
    }
    return true;
}

static bool sim_has_zero_init(BlockDriverState *bs)
{
    return true;
}

static void coroutine_fn pass_time(int64_t ns)
{
    if (ns > 0) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + ns);
    }
}

static int coroutine_fn sim_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                     size_t iov_offset, BdrvRequestFlags flags)
{
    BdrvSimDisk *disk = disk_of(bs);
    BdrvSimRequest request = { .kind = BDRV_SIM_READ, .offset = offset, .bytes = bytes };
    int64_t before_ns, after_ns, part, good;
    int ret;

    sim_disk_draw_delay(disk, &before_ns, &after_ns);
    pass_time(before_ns);
    ret = sim_disk_admit(disk, BDRV_SIM_READ, bytes, &part);
    if (ret == 0) {
        ret = sim_disk_find_bad(disk, offset, bytes, &part);
    }
    good = ret == 0 ? bytes : part;
    sim_disk_read(disk, offset, good, iov, iov_offset);
    if (ret == 0) {
        request.number = sim_disk_next_number(disk);
        sim_disk_call_hook(disk, &request);
    }
    pass_time(after_ns);
    return ret;
}

/* @counted: what the call counts as; @kind: what it is in the log. */
static int coroutine_fn sim_change(BlockDriverState *bs, BdrvSimKind counted, BdrvSimKind kind,
                                   int64_t offset, int64_t bytes, const BdrvIov *iov, size_t iov_offset,
                                   BdrvRequestFlags flags)
{
    BdrvSimDisk *disk = disk_of(bs);
    BdrvSimRequest request;
    SimEntry *entry = NULL;
    int64_t before_ns, after_ns, part;
    int ret, changed = 0;

    if (sim_disk_unsupported(disk) & counted) {
        return -ENOTSUP;
    }
    sim_disk_draw_delay(disk, &before_ns, &after_ns);
    pass_time(before_ns);
    ret = sim_disk_admit(disk, counted, bytes, &part);
    if (ret == 0 || part > 0) {
        changed = sim_disk_change(disk, kind, offset, ret == 0 ? bytes : part, iov, iov_offset, &entry, &request);
    }
    if (entry) {
        sim_disk_call_hook(disk, &request);
    }
    pass_time(after_ns);
    ret = ret < 0 ? ret : changed;
    sim_disk_complete(disk, entry, ret == 0 && (flags & BDRV_REQ_FUA));
    return ret;
}

static int coroutine_fn sim_co_writev(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                      size_t iov_offset, BdrvRequestFlags flags)
{
    return sim_change(bs, BDRV_SIM_WRITE, BDRV_SIM_WRITE, offset, bytes, iov, iov_offset, flags);
}

static int coroutine_fn sim_co_write_zeroes(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            BdrvRequestFlags flags)
{
    return sim_change(bs, BDRV_SIM_ZERO, BDRV_SIM_ZERO, offset, bytes, NULL, 0, flags);
}

static int coroutine_fn sim_co_discard(BlockDriverState *bs, int64_t offset, int64_t bytes)
{
    return sim_change(bs, BDRV_SIM_DISCARD, BDRV_SIM_DISCARD, offset, bytes, NULL, 0, 0);
}

static int coroutine_fn sim_co_copy_range(BlockDriverState *bs, BlockDriverState *src, int64_t src_offset,
                                          int64_t dst_offset, int64_t bytes, BdrvRequestFlags flags)
{
    struct iovec vec;
    BdrvIov iov;
    void *buf;
    int64_t good;
    int ret;

    if (src->drv != bs->drv) {
        return -ENOTSUP;
    }
    ret = sim_disk_find_bad(disk_of(src), src_offset, bytes, &good);
    if (ret < 0) {
        return ret;
    }
    buf = g_try_malloc(bytes);
    ret = -ENOMEM;
    if (buf) {
        iov = BDRV_IOV_BUF(vec, buf, bytes);
        sim_disk_read(disk_of(src), src_offset, bytes, &iov, 0);
        ret = sim_change(bs, BDRV_SIM_COPY, BDRV_SIM_WRITE, dst_offset, bytes, &iov, 0, flags);
    }
    g_free(buf);
    return ret;
}

static int coroutine_fn sim_co_flush_to_disk(BlockDriverState *bs)
{
    BdrvSimDisk *disk = disk_of(bs);
    BdrvSimRequest request = { .kind = BDRV_SIM_FLUSH, .completed = true, .durable = true };
    GPtrArray *entries = sim_disk_flush_begin(disk);
    int64_t before_ns, after_ns, part;
    int ret;

    sim_disk_draw_delay(disk, &before_ns, &after_ns);
    pass_time(before_ns + after_ns);
    ret = sim_disk_admit(disk, BDRV_SIM_FLUSH, 0, &part);
    sim_disk_flush_end(disk, entries, ret == 0);
    if (ret == 0) {
        request.number = sim_disk_next_number(disk);
        sim_disk_call_hook(disk, &request);
    }
    return ret;
}

/* Write zeroes to what is new. If that fails the length is what it was. */
static int coroutine_fn reserve(BlockDriverState *bs, int64_t from, int64_t to, BdrvRequestFlags flags)
{
    static uint8_t zeroes[65536];
    int ret = 0;

    for (int64_t at = from, bytes; at < to && ret >= 0; at += bytes) {
        struct iovec vec;
        BdrvIov iov;

        bytes = MIN(to - at, (int64_t)sizeof(zeroes));
        iov = BDRV_IOV_BUF(vec, zeroes, (size_t)bytes);
        ret = sim_change(bs, BDRV_SIM_WRITE, BDRV_SIM_WRITE, at, bytes, &iov, 0, flags);
    }
    if (ret < 0) {
        sim_change(bs, BDRV_SIM_TRUNCATE, BDRV_SIM_TRUNCATE, from, 0, NULL, 0, flags);
    }
    return ret;
}

static bool coroutine_fn sim_truncate(BlockDriverState *bs, int64_t length, bool exact, BdrvPrealloc prealloc,
                         BdrvRequestFlags flags, GError **errp)
{
    int64_t before = bdrv_simdisk_length(disk_of(bs));
    int ret = -ENOTSUP;

    if (prealloc != BDRV_PREALLOC_METADATA) {
        ret = sim_change(bs, BDRV_SIM_TRUNCATE, BDRV_SIM_TRUNCATE, length, 0, NULL, 0, flags);
    }
    if (ret >= 0 && prealloc != BDRV_PREALLOC_OFF) {
        ret = reserve(bs, before, length, flags);
    }
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "Could not resize the disk to %" G_GINT64_FORMAT "%s: %s", length,
                    prealloc == BDRV_PREALLOC_OFF ? "" : " with preallocation", g_strerror(-ret));
    }
    return ret == 0;
}

static int64_t sim_getlength(BlockDriverState *bs)
{
    return bdrv_simdisk_length(disk_of(bs));
}

static int64_t sim_get_allocated_file_size(BlockDriverState *bs)
{
    return bdrv_simdisk_allocated(disk_of(bs));
}

static int coroutine_fn sim_co_block_status(BlockDriverState *bs, int64_t offset, int64_t bytes,
                                            BlockExtent *extent)
{
    bool allocated;

    extent->bytes = sim_disk_run(disk_of(bs), offset, bytes, &allocated);
    extent->kind = allocated ? EXTENT_DATA : EXTENT_ZERO;
    extent->allocated = allocated;
    extent->host_offset = offset;
    extent->file = bs;
    return 0;
}

static const BlockDriver bdrv_simdisk = {
    .format_name = "simdisk",
    .protocol_name = "simdisk",
    .instance_size = sizeof(SimState),
    .open_options = sim_open_options,

    .bdrv_parse_filename = sim_parse_filename,
    .bdrv_refresh_filename = sim_refresh_filename,
    .bdrv_open = sim_open,
    .bdrv_close = sim_close,
    .bdrv_reopen_prepare = sim_reopen_prepare,
    .bdrv_refresh_limits = sim_refresh_limits,

    .bdrv_create = sim_create,
    .bdrv_delete_file = sim_delete_file,
    .bdrv_has_zero_init = sim_has_zero_init,
    .bdrv_truncate = sim_truncate,

    .bdrv_co_readv = sim_co_readv,
    .bdrv_co_writev = sim_co_writev,
    .bdrv_co_write_zeroes = sim_co_write_zeroes,
    .bdrv_co_discard = sim_co_discard,
    .bdrv_co_copy_range = sim_co_copy_range,
    .bdrv_co_flush_to_disk = sim_co_flush_to_disk,
    .bdrv_co_block_status = sim_co_block_status,
    .bdrv_getlength = sim_getlength,
    .bdrv_get_allocated_file_size = sim_get_allocated_file_size,
};

void bdrv_simdisk_init(void);
void bdrv_simdisk_init(void)
{
    bdrv_register(&bdrv_simdisk);
}
