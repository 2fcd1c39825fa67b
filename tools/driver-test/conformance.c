/* SPDX-License-Identifier: MIT */
/* What a disk does, against a model in memory. */
#include "tools/driver-test/kit.h"

static void random_operations(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);

    for (unsigned turn = 0; turn < 4; turn++) {
        kit_random(disk, kit->rounds / 4 + 1);
        kit_expect_all(disk);
        kit_expect_sound(disk, false);
        kit_again(disk);
        kit_expect_all(disk);
        kit_expect_sound(disk, false);
    }
    kit_disk_free(disk);
}

static void edges_of_blocks(const Kit *kit)
{
    static const int64_t edges[] = { 512, 4096, 65536, 1 << 20 };
    KitDisk *disk = kit_disk_new(kit);

    for (unsigned i = 0; i < G_N_ELEMENTS(edges); i++) {
        for (int64_t at = edges[i] - 1; at <= edges[i] + 1; at++) {
            if (at + 3 <= disk->length) {
                kit_write(disk, at, 3, 0);
            }
        }
        if (2 * edges[i] + 500 <= disk->length) {
            kit_write(disk, edges[i] - 500, edges[i] + 1000, 0);
            kit_zero(disk, edges[i] - 100, 200, 0);
        }
        kit_expect_all(disk);
    }
    kit_write(disk, disk->length - 1, 1, 0);
    kit_write(disk, 0, 1, 0);
    kit_again(disk);
    kit_expect_all(disk);
    kit_disk_free(disk);
}

static void neighbours_of_zeroes(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);

    kit_write(disk, 0, disk->length, 0);
    for (unsigned i = 0; i < 12; i++) {
        int64_t offset, bytes;

        kit_range(disk, &offset, &bytes);
        if (i % 3 == 2) {
            kit_discard(disk, offset, bytes);
        } else {
            kit_zero(disk, offset, bytes, i % 3 ? BDRV_REQ_MAY_UNMAP : 0);
        }
        kit_expect_all(disk);
    }
    kit_again(disk);
    kit_expect_all(disk);
    kit_expect_sound(disk, false);
    kit_disk_free(disk);
}

static void expect_refused(int ret, const char *what, int error)
{
    if (ret != -error) {
        kit_fail("%s: expected %s, came %s (%d)", what, g_strerror(error),
                 ret < 0 ? g_strerror(-ret) : "success", ret);
    }
}

static void past_the_end(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    g_autofree uint8_t *buf = g_malloc0(8192);

    expect_refused(blk_pread(disk->blk, disk->length - 512, 1024, buf, 0), "reading past the end", EIO);
    expect_refused(blk_pwrite(disk->blk, disk->length - 512, 1024, buf, 0), "writing past the end", EIO);
    expect_refused(blk_pwrite(disk->blk, disk->length, 1, buf, 0), "writing at the end", EIO);
    expect_refused(blk_pwrite_zeroes(disk->blk, disk->length - 1, 2, 0), "zeroing past the end", EIO);
    kit_expect_all(disk);
    kit_disk_free(disk);
}

static void check_extent(KitDisk *disk, int64_t offset, const BlockExtent *extent)
{
    if (extent->bytes < 1 || extent->bytes > disk->length - offset) {
        kit_fail("block status at %" PRId64 ": %" PRId64 " bytes, the disk has %" PRId64 " from there on",
                 offset, extent->bytes, disk->length - offset);
    }
    if (extent->kind == EXTENT_DATA && !extent->hole) {
        return;
    }
    for (int64_t i = 0; i < extent->bytes; i++) {
        if (disk->model[offset + i]) {
            kit_fail("block status at %" PRId64 ": %" PRId64 " bytes that read as zeroes, but byte %" PRId64
                     " reads 0x%02x",
                     offset, extent->bytes, offset + i, disk->model[offset + i]);
        }
    }
}

static BdrvSimDisk *file_named(const KitDisk *disk, const char *filename)
{
    for (unsigned i = 0; i < disk->kit->n_children; i++) {
        if (strcmp(disk->files[i].filename, filename) == 0) {
            return disk->files[i].sim;
        }
    }
    return NULL;
}

/* Where the extent says that its bytes are stored, they must be, unless they are encoded. */
static void check_place(KitDisk *disk, int64_t offset, const BlockExtent *extent)
{
    BdrvSimDisk *file = extent->file ? file_named(disk, bdrv_node_filename(extent->file)) : NULL;

    if (extent->host_offset >= 0 && !extent->file) {
        kit_fail("block status at %" PRId64 ": stored at %" PRId64 ", of no file", offset,
                 extent->host_offset);
    }
    if (extent->kind == EXTENT_DATA && extent->host_offset >= 0 && !extent->hole && file) {
        g_autofree uint8_t *stored = g_malloc((gsize)extent->bytes);

        bdrv_simdisk_peek(file, extent->host_offset, stored, (size_t)extent->bytes);
        kit_note("block status: %" PRId64 " bytes at %" PRId64 " are stored at %" PRId64, extent->bytes,
                 offset, extent->host_offset);
        kit_compare(offset, stored, disk->model + offset, extent->bytes);
    }
}

static void walk_extents(KitDisk *disk)
{
    for (int64_t offset = 0, next; offset < disk->length; offset = next) {
        BlockExtent extent = { 0 };
        int ret = blk_block_status_above(disk->blk, offset, disk->length - offset, &extent);

        if (ret < 0) {
            kit_fail("block status at %" PRId64 ": %s", offset, g_strerror(-ret));
        }
        check_extent(disk, offset, &extent);
        check_place(disk, offset, &extent);
        next = offset + extent.bytes;
    }
}

static void block_status(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);

    walk_extents(disk);
    for (unsigned turn = 0; turn < 8; turn++) {
        kit_random(disk, kit->rounds / 16 + 1);
        kit_flush(disk);
        walk_extents(disk);
    }
    kit_again(disk);
    walk_extents(disk);
    kit_disk_free(disk);
}

static void resizing(const Kit *kit)
{
    static const int64_t steps[] = { 65536, -65536, 1024 * 1024 + 512, -700 * 1024, 512, -512, 300 * 1024 };
    KitDisk *disk = kit_disk_new(kit);

    kit_write(disk, 0, disk->length, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        int64_t length = MAX(disk->length + steps[i], 65536), before = disk->length;

        if (!kit_resize(disk, length)) {
            if (steps[i] > 0) {
                kit_skip("the driver does not grow");
            }
            continue;
        }
        kit_expect_all(disk);
        if (disk->length > before) {
            kit_write(disk, before - 1, MIN(disk->length - before, 5000) + 1, 0);
        }
        kit_again(disk);
        kit_expect_all(disk);
        kit_expect_sound(disk, false);
    }
    kit_disk_free(disk);
}

static void read_only(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    const unsigned changes = BDRV_SIM_WRITE | BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_TRUNCATE;
    uint64_t count;
    uint8_t byte = 1;

    kit_random(disk, kit->rounds / 8);
    kit_close(disk);
    count = kit_calls(disk, changes);
    kit_open(disk, 0);
    kit_expect_all(disk);
    expect_refused(blk_pwrite(disk->blk, 0, 1, &byte, 0), "writing", EPERM);
    expect_refused(blk_pwrite_zeroes(disk->blk, 0, 1, 0), "zeroing", EPERM);
    kit_expect_sound(disk, true);
    kit_expect_all(disk);
    kit_close(disk);
    if (kit_calls(disk, changes) != count) {
        kit_fail("opened read-only, the driver has changed its file %" PRIu64 " times",
                 kit_calls(disk, changes) - count);
    }
    kit_disk_free(disk);
}

/* What a power loss leaves after a flush, if nothing that came later is. */
static void expect_durable(KitDisk *disk)
{
    g_autoptr(KitCut) cut = kit_cut(disk);
    KitDisk *left = kit_disk_after(disk, cut, KIT_LOST, 0);

    kit_note("lose the power, and all that was not flushed");
    kit_open(left, KIT_RDWR);
    kit_expect_all(left);
    kit_disk_free(left);
}

static void flush_is_durable(const Kit *kit)
{
    KitDisk *disk;

    kit_need_file(kit);
    disk = kit_disk_new(kit);
    for (unsigned turn = 0; turn < 6; turn++) {
        kit_random(disk, kit->rounds / 16 + 1);
        kit_flush(disk);
        expect_durable(disk);
    }
    kit_disk_free(disk);
}

static void fua_is_durable(const Kit *kit)
{
    KitDisk *disk;

    kit_need_file(kit);
    disk = kit_disk_new(kit);
    kit_flush(disk);
    for (unsigned turn = 0; turn < 6; turn++) {
        int64_t offset, bytes;

        kit_range(disk, &offset, &bytes);
        if (turn % 3 == 2) {
            kit_zero(disk, offset, bytes, BDRV_REQ_FUA);
        } else {
            kit_write(disk, offset, bytes, BDRV_REQ_FUA);
        }
        expect_durable(disk);
    }
    kit_disk_free(disk);
}

static void snapshots(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    BdrvSnapshotInfo info = { .name = (char *)"kit" };
    g_autofree uint8_t *kept = NULL;
    g_autoptr(GError) error = NULL;

    kit_random(disk, 20);
    kept = g_memdup2(disk->model, (gsize)disk->length);
    kit_note("take a snapshot");
    if (!blk_snapshot_create(disk->blk, &info, &error)) {
        if (bdrv_error_code(error) == ENOTSUP) {
            kit_skip("the driver has no snapshots");
        }
        kit_fail("a snapshot: %s", error->message);
    }
    g_free(info.id);
    kit_random(disk, 20);
    kit_again(disk);
    kit_expect_all(disk);
    kit_note("go back to the snapshot");
    if (!blk_snapshot_goto(disk->blk, "kit", &error)) {
        kit_fail("going back: %s", error->message);
    }
    memcpy(disk->model, kept, (size_t)disk->length);
    kit_expect_all(disk);
    if (!blk_snapshot_delete(disk->blk, NULL, "kit", &error)) {
        kit_fail("deleting the snapshot: %s", error->message);
    }
    kit_expect_all(disk);
    kit_expect_sound(disk, false);
    kit_disk_free(disk);
}

const KitTest conformance_tests[] = {
    { "conformance/random", "random operations give what a model in memory gives, now and reopened",
      random_operations },
    { "conformance/edges", "requests across and beside the edges of blocks", edges_of_blocks },
    { "conformance/neighbours", "zeroes and discards leave the bytes beside them alone",
      neighbours_of_zeroes },
    { "conformance/past-end", "requests past the end are refused", past_the_end },
    { "conformance/block-status", "block status agrees with the content and covers the disk", block_status },
    { "conformance/resize", "a resize keeps the content, what is new reads as zeroes", resizing },
    { "conformance/read-only", "opened read-only, nothing is written and changes are refused", read_only },
    { "conformance/flush", "what was flushed survives a power loss", flush_is_durable },
    { "conformance/fua", "what was written with FUA survives a power loss", fua_is_durable },
    { "conformance/snapshots", "a snapshot keeps the content", snapshots },
    { NULL },
};
