/* SPDX-License-Identifier: MIT */
#include "tests/faults/ops.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* ---- the table ---- */

static bool is_backed(const FaultImage *image)
{
    return image->backing;
}

static bool is_alone(const FaultImage *image)
{
    return !image->backing;
}

static bool is_compressed(const FaultImage *image)
{
    return image->compressed;
}

/* A count of one bit has no room for a second reference. */
static bool can_share(const FaultImage *image)
{
    return !image->data_file && !g_str_has_suffix(image->create, "refcount_bits=1");
}

static bool has_key_slots(const FaultImage *image)
{
    return strstr(image->create, "encrypt.format=luks");
}

/* A raw data file is the disk: there is nothing to show instead. */
static bool is_not_raw_data(const FaultImage *image)
{
    return !strstr(image->create, "data_file_raw");
}

/* Nothing that it has, or is opened with, needs version 3. */
static bool can_be_version_2(const FaultImage *image)
{
    return !image->data_file && !strstr(image->create, "extended_l2") && !strstr(image->options, "lazy-refcounts") &&
           !strstr(image->options, "discard-no-unref");
}

/* Every kind of place for what bitmaps need, but not for each kind of content. */
static bool takes_bitmaps(const FaultImage *image)
{
    return !image->compressed && !image->snapshot && !strstr(image->create, "compat=0.10") &&
           !strstr(image->create, "extended_l2");
}

static bool takes_bitmaps_and_can_be_emptied(const FaultImage *image)
{
    return takes_bitmaps(image) && is_not_raw_data(image);
}

static bool is_full(const FaultImage *image)
{
    return image->full_block || image->full_table;
}

/* Whether a cluster that was written gives up its space, so that the step can be taken again. */
static bool takes_compressed(const FaultImage *image)
{
    return !image->data_file && !strstr(image->create, "encrypt") && !strstr(image->options, "discard-no-unref") &&
           !(image->backing && strstr(image->create, "compat=0.10"));
}

#define WRITE(offset_, bytes_, value_) { STEP_WRITE, offset_, bytes_, .value = value_ }
#define FLUSH { STEP_FLUSH }
/* Of the same backing file as "simdisk:b" */
#define ANOTHER_NAME "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"simdisk\",\"disk\":\"b\"}}"
#define LONGER_NAME "json:{ \"driver\": \"raw\", \"file\": { \"driver\": \"simdisk\", \"disk\": \"b\" }           }"
#define KEY_1 "encrypt.keyslot=1,"

const Op ops[] = {
    { "open", .closed = true, .where = OP_EVERYWHERE, .steps = { { STEP_OPEN } } },
    { "open read-only", .closed = true, .where = OP_EVERYWHERE, .steps = { { STEP_OPEN_READ_ONLY } } },
    { "create", .closed = true, .where = OP_EVERYWHERE, .steps = { { STEP_CREATE } } },
    { "create, metadata", .closed = true, .wants = is_alone, .qcow2 = true,
      .steps = { { STEP_CREATE, .how = "metadata" } } },
    { "create, falloc", .closed = true, .wants = is_alone, .where = OP_ON_FILES,
      .steps = { { STEP_CREATE, .how = "falloc" } } },
    { "create, full", .closed = true, .wants = is_alone, .where = OP_ON_FILES,
      .steps = { { STEP_CREATE, .how = "full" } } },
    { "read data", .where = OP_EVERYWHERE, .steps = { { STEP_READ, AT_TWOS + 100, 9000 } } },
    { "read zeroes", .qcow2 = true, .steps = { { STEP_READ, AT_ZEROES + 100, AT_TWOS - AT_ZEROES - 200 } } },
    { "read nothing", .qcow2 = true, .steps = { { STEP_READ, AT_NOTHING + 100, 40 * KIB } } },
    { "read of the backing file", .wants = is_backed, .where = OP_EVERYWHERE, .steps = { { STEP_READ, 140 * KIB, 20 * KIB } } },
    { "read compressed", .wants = is_compressed, .where = OP_EVERYWHERE,
      .steps = { { STEP_READ, AT_ONES + 300, 3 * 4096 } } },
    { "read all", .where = OP_EVERYWHERE, .steps = { { STEP_READ, 0, DISK_BYTES } } },
    { "write in place", .where = OP_EVERYWHERE, .steps = { WRITE(AT_TWOS + KIB, 20 * KIB, 3), FLUSH } },
    { "write, not aligned", .where = OP_EVERYWHERE,
      .steps = { WRITE(AT_TWOS + 100, 5000, 3), WRITE(AT_NOTHING + 100 + KIB, 5000, 4), FLUSH } },
    { "allocating write", .qcow2 = true, .where = OP_EVERYWHERE, .steps = { WRITE(AT_NOTHING, 40 * KIB, 3), FLUSH } },
    { "allocating write over zeroes", .qcow2 = true, .steps = { WRITE(AT_ZEROES + 300, 14 * KIB, 3), FLUSH } },
    { "copy on write from the backing file", .wants = is_backed, .where = OP_EVERYWHERE,
      .steps = { WRITE(100 * KIB + 100, 9000, 3), WRITE(148 * KIB + 1, 5000, 4), FLUSH } },
    { "write over compressed clusters", .wants = is_compressed, .where = OP_EVERYWHERE,
      .steps = { WRITE(AT_ONES + 300, 10 * KIB, 3), FLUSH, FLUSH } },
    { "compressed write", .qcow2 = true, .wants = takes_compressed, .where = OP_EVERYWHERE,
      .steps = { { STEP_COMPRESSED, AT_NOTHING, 32 * KIB, .value = 3 },
                 { STEP_COMPRESSED, AT_NOTHING + 64 * KIB, 16 * KIB, .value = 4 }, FLUSH } },
    { "write and discard over compressed writes", .qcow2 = true, .wants = takes_compressed,
      .before = { { STEP_COMPRESSED, AT_NOTHING, 48 * KIB, .value = 3 } },
      .steps = { WRITE(AT_NOTHING + 300, 6000, 5), { STEP_DISCARD, AT_NOTHING + 16 * KIB, 16 * KIB }, FLUSH, FLUSH,
                 { STEP_COMPRESSED, AT_NOTHING + 64 * KIB, 16 * KIB, .value = 4 }, FLUSH } },
    { "compressed write that needs a refcount block or table", .wants = is_full,
      .steps = { { STEP_COMPRESSED, AT_NOTHING, 32 * KIB, .value = 3 }, FLUSH, WRITE(AT_NOTHING + 64 * KIB, 20 * KIB, 4),
                 { STEP_COMPRESSED, AT_NOTHING + 96 * KIB, 32 * KIB, .value = 5 }, FLUSH } },
    { "write that needs a refcount block or table", .wants = is_full,
      .steps = { WRITE(AT_NOTHING, 20 * KIB, 3), FLUSH, WRITE(AT_NOTHING + 30 * KIB, 20 * KIB, 4), FLUSH } },
    { "FUA write", .where = OP_EVERYWHERE,
      .steps = { { STEP_WRITE_FUA, AT_TWOS + KIB, 4 * KIB, .value = 3 },
                 { STEP_WRITE_FUA, AT_NOTHING, 4 * KIB, .value = 4 } } },
    { "write zeroes", .where = OP_EVERYWHERE, .steps = { { STEP_ZERO, AT_TWOS + 300, 60 * KIB }, FLUSH } },
    { "write zeroes and unmap", .where = OP_EVERYWHERE,
      .steps = { { STEP_ZERO_UNMAP, AT_TWOS + 300, 60 * KIB }, FLUSH, FLUSH,
                 WRITE(AT_NOTHING + 50 * KIB, 9000, 3), FLUSH } },
    { "discard", .where = OP_EVERYWHERE,
      .steps = { { STEP_DISCARD, AT_TWOS, 20 * KIB }, FLUSH, FLUSH,
                 WRITE(AT_NOTHING + 20 * KIB, 20 * KIB, 3), FLUSH } },
    { "write over and over", .qcow2 = true,
      .steps = { WRITE(AT_ONES + 5000, 12 * KIB, 3), FLUSH, { STEP_DISCARD, AT_ONES, 12 * KIB }, FLUSH, FLUSH,
                 WRITE(AT_ONES + 3000, 12 * KIB, 4), FLUSH } },
    { "flush", .where = OP_EVERYWHERE, .before = { WRITE(AT_TWOS, 3000, 3), WRITE(AT_NOTHING + 5000, 9000, 4) },
      .steps = { FLUSH } },
    { "flush after a discard", .qcow2 = true,
      .before = { { STEP_DISCARD, AT_TWOS, 16 * KIB }, WRITE(AT_NOTHING + 5000, 9000, 4) }, .steps = { FLUSH, FLUSH } },
    { "resize", .where = OP_EVERYWHERE, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_RESIZE, .bytes = DISK_GROWN }, FLUSH } },
    { "resize, metadata", .qcow2 = true, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_RESIZE, .bytes = DISK_GROWN, .how = "metadata" }, FLUSH } },
    { "resize, falloc", .raw = true, .where = OP_ON_FILES, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_RESIZE, .bytes = DISK_GROWN, .how = "falloc" }, FLUSH } },
    { "resize, full", .raw = true, .where = OP_ON_FILES, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_RESIZE, .bytes = DISK_GROWN, .how = "full" }, FLUSH } },
    { "shrink and grow again", .where = OP_EVERYWHERE, .before = { WRITE(AT_NOTHING + 60 * KIB, 40 * KIB, 3) },
      .steps = { { STEP_RESIZE, .bytes = DISK_SHRUNK }, FLUSH, { STEP_RESIZE, .bytes = DISK_BYTES }, FLUSH } },
    { "make empty", .qcow2 = true, .wants = is_not_raw_data, .where = OP_EVERYWHERE, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_EMPTY }, FLUSH, WRITE(AT_NOTHING, 9000, 4), FLUSH } },
    { "change the backing file", .qcow2 = true, .wants = is_backed, .where = OP_EVERYWHERE,
      .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_BACKING, .how = ANOTHER_NAME },
                 WRITE(AT_NOTHING, 4 * KIB, 4), { STEP_BACKING, .how = "simdisk:b" },
                 { STEP_BACKING, .how = LONGER_NAME }, FLUSH } },
    { "commit", .qcow2 = true, .wants = is_backed, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_COMMIT }, WRITE(AT_NOTHING + 4 * KIB, 9000, 4), FLUSH } },
    { "rebase", .qcow2 = true, .wants = is_backed, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_REBASE }, WRITE(AT_NOTHING + 4 * KIB, 4 * KIB, 4), { STEP_REBASE, .how = ANOTHER_NAME },
                 FLUSH } },
    { "change key slots", .qcow2 = true, .wants = has_key_slots,
      .steps = { { STEP_KEYS, .how = KEY_1 "encrypt.state=active,encrypt.new-secret=key1" },
                 { STEP_KEYS, .how = KEY_1 "encrypt.state=active,encrypt.new-secret=key2" },
                 WRITE(AT_NOTHING, 8 * KIB, 3), { STEP_KEYS, .how = KEY_1 "encrypt.state=inactive" }, FLUSH } },
    { "amend to version 2 and back", .qcow2 = true, .wants = can_be_version_2, .where = OP_EVERYWHERE,
      .before = { { STEP_ZERO, AT_TWOS, 8 * KIB }, { STEP_ZERO_UNMAP, AT_TWOS + 8 * KIB, 8 * KIB } },
      .steps = { { STEP_AMEND, .how = "compat=0.10,refcount_bits=16" }, WRITE(AT_NOTHING, 9000, 4),
                 { STEP_AMEND, .how = "compat=1.1" }, FLUSH } },
    { "amend with a snapshot", .qcow2 = true, .wants = can_be_version_2,
      .before = { { STEP_AMEND, .how = "compat=1.1,refcount_bits=16" }, { STEP_ZERO, AT_TWOS, 8 * KIB },
                  { STEP_SNAPSHOT, .how = "x" } },
      .steps = { { STEP_AMEND, .how = "compat=0.10" }, { STEP_AMEND, .how = "compat=1.1" }, FLUSH } },
    { "amend the width of refcounts", .qcow2 = true, .where = OP_EVERYWHERE, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_AMEND, .how = "compat=1.1,refcount_bits=64" }, WRITE(AT_NOTHING + 4 * KIB, 9000, 4),
                 { STEP_AMEND, .how = "compat=1.1,refcount_bits=8" }, WRITE(AT_NOTHING + 8 * KIB, 9000, 5), FLUSH } },
    { "amend lazy refcounts", .qcow2 = true, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_AMEND, .how = "compat=1.1,lazy_refcounts=on" }, WRITE(AT_NOTHING, 9000, 4), FLUSH,
                 { STEP_AMEND, .how = "compat=1.1,lazy_refcounts=off" }, FLUSH } },
    { "look at the image anew", .qcow2 = true, .where = OP_EVERYWHERE,
      .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_INVALIDATE }, { STEP_READ, AT_TWOS - 4096, 16 * KIB }, WRITE(AT_NOTHING + 4 * KIB, 9000, 4),
                 FLUSH } },
    /* Nothing of its metadata has to be written then, but the data is not durable yet. */
    { "look anew at an image written in place", .qcow2 = true, .before = { WRITE(AT_TWOS, 8 * KIB, 3) },
      .steps = { { STEP_INVALIDATE }, { STEP_READ, AT_TWOS - 4096, 16 * KIB }, FLUSH } },
    { "create a snapshot", .qcow2 = true, .wants = can_share, .before = { WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_SNAPSHOT, .how = "x" }, WRITE(AT_NOTHING + 4 * KIB, 8 * KIB, 4), FLUSH } },
    { "apply a snapshot", .qcow2 = true, .wants = can_share,
      .before = { { STEP_SNAPSHOT, .how = "x" }, WRITE(AT_TWOS, 8 * KIB, 3), WRITE(AT_NOTHING, 8 * KIB, 4) },
      .steps = { { STEP_SNAPSHOT_APPLY, .how = "x" }, WRITE(AT_NOTHING + 4 * KIB, 8 * KIB, 5), FLUSH } },
    { "delete a snapshot", .qcow2 = true, .wants = can_share,
      .before = { { STEP_SNAPSHOT, .how = "x" }, WRITE(AT_TWOS, 8 * KIB, 3), WRITE(AT_NOTHING, 8 * KIB, 4) },
      .steps = { { STEP_SNAPSHOT_DELETE, .how = "x" }, WRITE(AT_TWOS + 4 * KIB, 8 * KIB, 5), FLUSH } },
    { "write with a bitmap", .qcow2 = true, .wants = takes_bitmaps, .before = { { STEP_BITMAP, .how = "add b" } },
      .steps = { WRITE(AT_NOTHING + 300, 9000, 3), { STEP_ZERO_UNMAP, AT_TWOS, 8 * KIB }, FLUSH,
                 { STEP_DISCARD, AT_TWOS + 16 * KIB, 16 * KIB }, WRITE(AT_ONES, 4 * KIB, 4), FLUSH } },
    { "close with a bitmap", .qcow2 = true, .wants = takes_bitmaps, .before = { { STEP_BITMAP, .how = "add b" } },
      .steps = { WRITE(AT_NOTHING, 8 * KIB, 3), { STEP_CLOSE }, { STEP_OPEN }, WRITE(AT_TWOS, 8 * KIB, 4), FLUSH,
                 { STEP_REOPEN_READ_ONLY }, { STEP_REOPEN } } },
    { "change bitmaps", .qcow2 = true, .wants = takes_bitmaps,
      .before = { { STEP_BITMAP, .how = "add b" }, WRITE(AT_TWOS, 8 * KIB, 3) },
      .steps = { { STEP_BITMAP, .how = "add x" }, WRITE(AT_NOTHING, 4 * KIB, 4), { STEP_BITMAP, .how = "merge x" },
                 { STEP_BITMAP, .how = "disable x" }, { STEP_BITMAP, .how = "clear x" },
                 { STEP_BITMAP, .how = "remove x" }, FLUSH } },
    { "resize with a bitmap", .qcow2 = true, .wants = takes_bitmaps,
      .before = { { STEP_BITMAP, .how = "add b" }, WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_RESIZE, .bytes = DISK_GROWN }, WRITE(AT_NOTHING + 8 * KIB, 4 * KIB, 4), FLUSH } },
    { "empty with a bitmap", .qcow2 = true, .wants = takes_bitmaps_and_can_be_emptied,
      .before = { { STEP_BITMAP, .how = "add b" }, WRITE(AT_NOTHING, 8 * KIB, 3) },
      .steps = { { STEP_EMPTY }, FLUSH } },
    { "block status", .where = OP_EVERYWHERE, .steps = { { STEP_STATUS } } },
    { "check", .qcow2 = true, .where = OP_EVERYWHERE,
      .before = { WRITE(AT_NOTHING, 9000, 3), { STEP_DISCARD, AT_TWOS, 16 * KIB } }, .steps = { { STEP_CHECK } } },
    { "copy range", .where = OP_EVERYWHERE,
      .steps = { { STEP_COPY, AT_TWOS - 4096, 16 * KIB, .to = AT_NOTHING + 8192 },
                 { STEP_COPY, AT_ZEROES - 4096, 16 * KIB, .to = AT_TWOS + 16 * KIB }, FLUSH } },
    { "reopen read-only", .where = OP_EVERYWHERE, .before = { WRITE(AT_NOTHING + 5000, 9000, 4) },
      .steps = { { STEP_REOPEN_READ_ONLY } } },
    { "reopen read-write", .read_only = true, .where = OP_EVERYWHERE,
      .steps = { { STEP_REOPEN }, WRITE(AT_NOTHING + 5000, 9000, 4), FLUSH } },
    { "close", .where = OP_EVERYWHERE,
      .before = { WRITE(AT_TWOS, 3000, 3), WRITE(AT_NOTHING + 5000, 9000, 4), { STEP_DISCARD, AT_ONES, 8 * KIB } },
      .steps = { { STEP_CLOSE } } },
};
const unsigned op_count = G_N_ELEMENTS(ops);

bool op_applies(const Op *op, const FaultImage *image)
{
    bool raw = strcmp(image->driver, "raw") == 0;
    /* What must grow is tried where it must; the rest of the table costs there what it costs elsewhere. */
    bool growth = op->wants == is_full;
    return !(op->qcow2 && raw) && !(op->raw && !raw) && (!op->wants || op->wants(image)) && (!is_full(image) || growth);
}

/* ---- taking a step ---- */

static void change(Stand *stand, const Step *step, uint8_t value, bool surely)
{
    g_autofree uint8_t *data = g_malloc((gsize)step->bytes);
    memset(data, value, (gsize)step->bytes);
    model_change(stand->model, step->offset, step->bytes, data, surely);
}

static int read_range(Stand *stand, const Step *step)
{
    g_autofree uint8_t *found = g_malloc((gsize)step->bytes), *known = g_malloc((gsize)step->bytes);
    memset(found, 0xa5, (gsize)step->bytes);
    int ret = blk_pread(stand->blk, step->offset, step->bytes, found, 0);
    model_now(stand->model, step->offset, step->bytes, known);
    if (ret >= 0 && memcmp(found, known, (gsize)step->bytes) != 0) {
        stand_fail("a read that succeeded gave the wrong bytes");
    }
    return ret;
}

static int write_range(Stand *stand, const Step *step, BdrvRequestFlags flags)
{
    g_autofree uint8_t *data = g_malloc((gsize)step->bytes);
    memset(data, step->value, (gsize)step->bytes);
    int ret = blk_pwrite(stand->blk, step->offset, step->bytes, data, flags);
    change(stand, step, step->value, ret >= 0);
    if (ret >= 0 && flags & BDRV_REQ_FUA) {
        model_flushed_range(stand->model, step->offset, step->bytes);
    }
    return ret;
}

static int zero_range(Stand *stand, const Step *step, BdrvRequestFlags flags)
{
    int ret = blk_pwrite_zeroes(stand->blk, step->offset, step->bytes, flags);
    change(stand, step, 0, ret >= 0);
    return ret;
}

/* What has space is refused, and a step may be taken again: it gives up its space first. */
static int compress_range(Stand *stand, const Step *step)
{
    int ret = zero_range(stand, step, BDRV_REQ_MAY_UNMAP);
    return ret < 0 ? ret : write_range(stand, step, BDRV_REQ_COMPRESSED);
}

static int copy_range(Stand *stand, const Step *step)
{
    g_autofree uint8_t *data = g_malloc((gsize)step->bytes);
    model_now(stand->model, step->offset, step->bytes, data);
    int ret = blk_copy_range(stand->blk, step->offset, stand->blk, step->to, step->bytes, 0);
    model_change(stand->model, step->to, step->bytes, data, ret >= 0);
    return ret;
}

static int walk_status(Stand *stand)
{
    g_autofree uint8_t *known = g_malloc(DISK_GROWN);
    int64_t size = model_size(stand->model);
    int first = 0;

    model_now(stand->model, 0, size, known);
    for (int64_t at = 0; at < size;) {
        BlockExtent extent;
        int ret = blk_block_status_above(stand->blk, at, size - at, &extent);
        if (ret < 0) {
            first = first ? first : ret;
            at += MIN(4096, size - at);
            continue;
        }
        if (extent.bytes < 1 || extent.bytes > size - at) {
            stand_fail("an extent of %" PRId64 " bytes at %" PRId64, extent.bytes, at);
        }
        bool zero = extent.kind == EXTENT_ZERO || !extent.present;
        for (int64_t i = 0; zero && i < extent.bytes; i++) {
            if (known[at + i]) {
                stand_fail("byte %" PRId64 " is said to be zero", at + i);
            }
        }
        at += extent.bytes;
    }
    return first;
}

static int check_now(Stand *stand)
{
    BdrvCheckResult result = { 0 };
    g_autoptr(GError) error = NULL;
    if (!blk_check(stand->blk, &result, BDRV_FIX_NONE, &error)) {
        return -bdrv_error_code(error);
    }
    if (result.corruptions) {
        stand_fail("%" PRId64 " corruptions", result.corruptions);
    }
    return result.check_errors ? -EIO : 0;
}

static BdrvPrealloc prealloc_of(const Step *step)
{
    const char *how = step->how ? step->how : "off";
    return strcmp(how, "metadata") == 0 ? BDRV_PREALLOC_METADATA
           : strcmp(how, "falloc") == 0 ? BDRV_PREALLOC_FALLOC
           : strcmp(how, "full") == 0   ? BDRV_PREALLOC_FULL
                                        : BDRV_PREALLOC_OFF;
}

static int resize(Stand *stand, const Step *step)
{
    g_autoptr(GError) error = NULL;
    bool ok = blk_truncate(stand->blk, step->bytes, true, prealloc_of(step), 0, &error);
    /* Shrinking can fail at giving the space back, with the new size told and written. */
    if (ok || blk_length(stand->blk) == step->bytes) {
        model_resize(stand->model, step->bytes);
    } else if (step->bytes < model_size(stand->model)) { /* or at telling it, with the file cut */
        int64_t cut = model_size(stand->model) - step->bytes;
        g_autofree uint8_t *zeroes = g_malloc0((gsize)cut);
        model_change(stand->model, step->bytes, cut, zeroes, false);
    }
    return ok ? 0 : -bdrv_error_code(error);
}

/* What shows is what a new image shows, as far as the disk goes. */
static int make_empty(Stand *stand)
{
    g_autoptr(GError) error = NULL;
    bool ok = blk_make_empty(stand->blk, &error);
    g_autofree uint8_t *content = stand_new_content(stand);
    model_change(stand->model, 0, model_size(stand->model), content, ok);
    return ok ? 0 : -bdrv_error_code(error);
}

/* False if the question failed. */
static bool backing_name(Stand *stand, const char **name)
{
    BdrvLayer layer;
    bool ok = blk_layer(stand->blk, 0, &layer);
    *name = ok ? layer.backing_filename : NULL;
    return ok;
}

static int amend(Stand *stand, const Step *step, bool force)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BdrvOptions) options = bdrv_options_parse(step->how, NULL, &error);
    bool ok = options && blk_amend(stand->blk, options, force, NULL, NULL, &error);
    return ok ? 0 : -bdrv_error_code(error);
}

static int invalidate(Stand *stand)
{
    g_autoptr(GError) error = NULL;
    stand->blind = !blk_invalidate_cache(stand->blk, &error);
    return stand->blind ? -bdrv_error_code(error) : 0;
}

static int change_backing(Stand *stand, const Step *step)
{
    g_autoptr(GError) error = NULL;
    const char *name;
    bool told = backing_name(stand, &name);
    g_autofree char *before = g_strdup(name);
    bool ok = blk_change_backing_file(stand->blk, step->how, step->how ? "raw" : NULL, &error);
    if (told && backing_name(stand, &name) && g_strcmp0(name, ok ? step->how : before) != 0) {
        stand_fail("a change of the backing file that %s", ok ? "succeeded changed nothing" : "failed changed its name");
    }
    return ok ? 0 : -bdrv_error_code(error);
}

/* -1: the question failed. */
static int has_snapshot(Stand *stand, const char *name)
{
    BdrvSnapshotInfo *list;
    int count = blk_list_snapshots(stand->blk, &list);
    int index = count < 0 ? -1 : bdrv_snapshot_find(list, count, NULL, name);
    if (count >= 0) {
        bdrv_snapshot_list_free(list, count);
    }
    return count < 0 ? -1 : index >= 0;
}

static int delete_snapshot(Stand *stand, const char *name)
{
    g_autoptr(GError) error = NULL;
    if (has_snapshot(stand, name) != 1) {
        return 0;
    }
    return blk_snapshot_delete(stand->blk, NULL, name, &error) ? 0 : -bdrv_error_code(error);
}

/* What it keeps is what was read before. One that failed may be there all the same. */
static int create_snapshot(Stand *stand, const char *name)
{
    g_autoptr(GError) error = NULL;
    BdrvSnapshotInfo info = { .name = (char *)name };
    int64_t bytes = model_size(stand->model);
    int ret = delete_snapshot(stand, name);
    if (ret >= 0 && !stand->kept) {
        stand->kept = g_malloc(DISK_GROWN);
    }
    ret = ret < 0 ? ret : blk_pread(stand->blk, 0, bytes, stand->kept, 0);
    if (ret >= 0 && !blk_snapshot_create(stand->blk, &info, &error)) {
        ret = -bdrv_error_code(error);
    }
    g_free(info.id);
    if (ret >= 0) {
        model_flushed(stand->model);
    }
    return ret;
}

static int apply_snapshot(Stand *stand, const char *name)
{
    g_autoptr(GError) error = NULL;
    if (has_snapshot(stand, name) != 1) {
        return 0;
    }
    bool ok = blk_snapshot_goto(stand->blk, name, &error);
    model_change(stand->model, 0, model_size(stand->model), stand->kept, ok);
    if (ok) {
        model_flushed(stand->model);
    }
    return ok ? 0 : -bdrv_error_code(error);
}

static int reopen(Stand *stand, bool writable)
{
    g_autoptr(GError) error = NULL;
    BdrvOpenFlags flags = writable ? BDRV_O_RDWR | BDRV_O_UNMAP | BDRV_O_RESIZE : 0;
    bool ok = blk_reopen(stand->blk, NULL, flags | stand->place->flags, &error);
    if (ok && !writable) {
        model_flushed(stand->model);
    }
    return ok ? 0 : -bdrv_error_code(error);
}

static int close_image(Stand *stand)
{
    int ret = stand->blk ? stand_close(stand) : 0;
    if (ret >= 0) {
        model_flushed(stand->model);
    } else {
        model_lost(stand->model);
    }
    return ret;
}

static int open_image(Stand *stand, bool writable)
{
    int ret = close_image(stand);
    if (ret < 0) {
        return ret;
    }
    stand_open(stand, writable, &ret);
    return ret;
}

static int create(Stand *stand, const Step *step)
{
    int ret = close_image(stand);
    if (ret >= 0) {
        ret = stand_create(stand, step->how ? step->how : "off");
    }
    if (ret >= 0) {
        g_autofree uint8_t *content = stand_new_content(stand);
        model_free(stand->model);
        stand->model = model_new(DISK_GROWN, DISK_BYTES, content);
    }
    return ret;
}

/* The image is opened anew, over what it was committed into. */
static int commit(Stand *stand)
{
    int ret = close_image(stand);
    if (ret >= 0) {
        ret = stand_commit(stand);
    }
    int opened = open_image(stand, true);
    return ret < 0 ? ret : opened;
}

static int rebase(Stand *stand, const Step *step)
{
    int ret = stand_rebase(stand, step->how);
    if (ret >= 0) {
        model_flushed(stand->model);
    }
    return ret;
}

static int flush(Stand *stand)
{
    int ret = blk_flush(stand->blk);
    if (ret >= 0) {
        model_flushed(stand->model);
    }
    return ret;
}

static int take_step(Stand *stand, const Step *step)
{
    bool opens = step->kind == STEP_OPEN || step->kind == STEP_OPEN_READ_ONLY || step->kind == STEP_CREATE ||
                 step->kind == STEP_CLOSE;
    if (!stand->blk && !opens) {
        return 0; /* an earlier step could not open it */
    }
    switch (step->kind) {
    case STEP_OPEN:
    case STEP_OPEN_READ_ONLY:
        return open_image(stand, step->kind == STEP_OPEN);
    case STEP_CREATE:
        return create(stand, step);
    case STEP_READ:
        return read_range(stand, step);
    case STEP_STATUS:
        return walk_status(stand);
    case STEP_WRITE:
    case STEP_WRITE_FUA:
        return write_range(stand, step, step->kind == STEP_WRITE ? 0 : BDRV_REQ_FUA);
    case STEP_COMPRESSED:
        return compress_range(stand, step);
    case STEP_ZERO:
    case STEP_ZERO_UNMAP:
        return zero_range(stand, step, step->kind == STEP_ZERO ? 0 : BDRV_REQ_MAY_UNMAP);
    case STEP_DISCARD: {
        int ret = blk_pdiscard(stand->blk, step->offset, step->bytes);
        change(stand, step, 0, false); /* a hint */
        return ret;
    }
    case STEP_FLUSH:
        return flush(stand);
    case STEP_RESIZE:
        return resize(stand, step);
    case STEP_EMPTY:
        return make_empty(stand);
    case STEP_BITMAP:
        return bitmap_change(stand, step->how);
    case STEP_AMEND:
    case STEP_KEYS:
        return amend(stand, step, step->kind == STEP_KEYS);
    case STEP_INVALIDATE:
        return invalidate(stand);
    case STEP_BACKING:
        return change_backing(stand, step);
    case STEP_COMMIT:
        return commit(stand);
    case STEP_REBASE:
        return rebase(stand, step);
    case STEP_SNAPSHOT:
        return create_snapshot(stand, step->how);
    case STEP_SNAPSHOT_APPLY:
        return apply_snapshot(stand, step->how);
    case STEP_SNAPSHOT_DELETE:
        return delete_snapshot(stand, step->how);
    case STEP_COPY:
        return copy_range(stand, step);
    case STEP_CHECK:
        return check_now(stand);
    case STEP_REOPEN:
    case STEP_REOPEN_READ_ONLY:
        return reopen(stand, step->kind == STEP_REOPEN);
    case STEP_CLOSE:
        return close_image(stand);
    case STEP_END:
        break;
    }
    return 0;
}

int op_take_steps(Stand *stand, const Step *steps)
{
    int first = 0;
    for (const Step *step = steps; step->kind != STEP_END; step++) {
        int ret = take_step(stand, step);
        first = first ? first : MIN(ret, 0);
    }
    return first;
}
