/* SPDX-License-Identifier: MIT */
#include "tests/crash/images.h"

#include <errno.h>
#include <string.h>

#include "block/registry/registry.h"
#include "block/util/bytes.h"
#include "drivers/qcow2/meta/meta.h"
#include "tests/unit/qcow2/surgery.h"

const CrashImage crash_images[] = {
    { "plain", .cluster_size = 512, .refcount_bits = 16 },
    { "backing", .cluster_size = 512, .refcount_bits = 16, .backing = true },
    { "refcount_bits=1", .cluster_size = 512, .refcount_bits = 1 },
    { "refcount_bits=64", .cluster_size = 512, .refcount_bits = 64 },
    { "compat=0.10", .cluster_size = 512, .refcount_bits = 16, .compat = "0.10" },
    { "compat=0.10 backing", .cluster_size = 512, .refcount_bits = 16, .compat = "0.10", .backing = true },
    { "snapshot", .cluster_size = 512, .refcount_bits = 16, .snapshot = true },
    { "compressed", .cluster_size = 1024, .refcount_bits = 16, .compressed = true },
    { "preallocated", .cluster_size = 512, .refcount_bits = 16, .preallocation = "metadata" },
    { "small caches", .cluster_size = 512, .refcount_bits = 16, .options = "l2-cache-size=1k,refcount-cache-size=1k" },
    { "lazy refcounts", .cluster_size = 512, .refcount_bits = 16, .options = "lazy-refcounts=on", .backing = true },
    { "lazy refcounts, small caches", .cluster_size = 512, .refcount_bits = 1,
      .options = "lazy-refcounts=on,l2-cache-size=1k,refcount-cache-size=1k" },
    { "discard-no-unref", .cluster_size = 512, .refcount_bits = 16, .options = "discard-no-unref=on", .backing = true },
    { "2k clusters", .cluster_size = 2048, .refcount_bits = 32, .backing = true },
    { "4k clusters", .cluster_size = 4096, .refcount_bits = 16 },
    { "4k clusters, odd size, backing", .cluster_size = 4096, .refcount_bits = 16, .missing = 1536, .backing = true },
    { "4k clusters, snapshot", .cluster_size = 4096, .refcount_bits = 16, .snapshot = true },
    { "extended_l2", .cluster_size = 16384, .refcount_bits = 16, .extended_l2 = true },
    { "extended_l2 backing", .cluster_size = 16384, .refcount_bits = 16, .extended_l2 = true, .missing = 1536,
      .backing = true },
    { "extended_l2 snapshot", .cluster_size = 16384, .refcount_bits = 16, .extended_l2 = true, .backing = true,
      .snapshot = true },
    { "extended_l2 compressed", .cluster_size = 16384, .refcount_bits = 16, .extended_l2 = true, .compressed = true },
    { "extended_l2 preallocated", .cluster_size = 16384, .refcount_bits = 16, .extended_l2 = true, .backing = true,
      .preallocation = "metadata" },
    { "data file", .cluster_size = 512, .refcount_bits = 16, .data_file = true },
    { "data file, 4k clusters, odd size, backing", .cluster_size = 4096, .refcount_bits = 16, .missing = 1536,
      .backing = true, .data_file = true, .options = "lazy-refcounts=on" },
    { "data file, discard-no-unref", .cluster_size = 512, .refcount_bits = 16, .data_file = true,
      .options = "discard-no-unref=on,l2-cache-size=1k,refcount-cache-size=1k" },
    { "data file, extended_l2 backing", .cluster_size = 16384, .refcount_bits = 16, .extended_l2 = true,
      .backing = true, .data_file = true },
    { "raw data file", .cluster_size = 512, .refcount_bits = 1, .data_file = true, .data_file_raw = true },
    { "raw data file, 4k clusters, odd size", .cluster_size = 4096, .refcount_bits = 16, .missing = 1536,
      .data_file = true, .data_file_raw = true },
    { "raw data file, extended_l2", .cluster_size = 16384, .refcount_bits = 16, .extended_l2 = true, .data_file = true,
      .data_file_raw = true },
    { "bitmap", .cluster_size = 512, .refcount_bits = 16, .bitmap = true },
    { "bitmap, odd size, lazy refcounts, backing", .cluster_size = 4096, .refcount_bits = 16, .missing = 1536,
      .backing = true, .bitmap = true, .options = "lazy-refcounts=on" },
    { "encrypted", .cluster_size = 512, .refcount_bits = 16, .encrypt = "aes" },
    { "encrypted backing", .cluster_size = 1024, .refcount_bits = 16, .encrypt = "aes", .backing = true,
      .snapshot = true },
    { "luks", .cluster_size = 4096, .refcount_bits = 16, .encrypt = "luks", .slow = true },
    { "luks backing", .cluster_size = 2048, .refcount_bits = 16, .encrypt = "luks", .missing = 1536, .backing = true,
      .snapshot = true, .slow = true, .searched = true },
    { "full refcount block", .cluster_size = 512, .refcount_bits = 64, .used = 32 * 1024 - 512 * 4 },
    { "full refcount table", .cluster_size = 512, .refcount_bits = 64, .backing = true, .used = 2048 * 1024 - 512 * 4 },
    { "empty file", .cluster_size = 512, .refcount_bits = 16, .start = START_EMPTY_FILE },
    { "old image", .cluster_size = 512, .refcount_bits = 16, .start = START_OLD_IMAGE },
    { "vdi", .vdi = true, .cluster_size = 512 },
    { "vdi, 1k blocks", .vdi = true, .cluster_size = 1024 },
    { "vdi, 4k blocks, odd size", .vdi = true, .cluster_size = 4096, .missing = 1536 },
    { "vdi, fixed", .vdi = true, .fixed = true, .cluster_size = 512 },
    { "vdi, fixed, 4k blocks, odd size", .vdi = true, .fixed = true, .cluster_size = 4096, .missing = 1536 },
    { "vdi, empty file", .vdi = true, .cluster_size = 512, .start = START_EMPTY_FILE },
    { "vdi, old image", .vdi = true, .cluster_size = 1024, .start = START_OLD_IMAGE },
};
const unsigned crash_image_count = G_N_ELEMENTS(crash_images);

int64_t crash_size_bytes(const CrashImage *image, unsigned size)
{
    int64_t entries = image->cluster_size / 8;
    switch (size) {
    case SIZE_BASE:
        return crash_image_size(image);
    case SIZE_GROWN:
        return crash_image_size(image) + 8192;
    case SIZE_LARGE: /* more than an L1 table of one cluster reaches */
        return entries * entries * image->cluster_size + 8192;
    case SIZE_OLD:
        return CRASH_OLD_SIZE;
    case SIZE_SHRUNK: /* a part of a cluster, unless clusters are sectors */
        return CRASH_SHRUNK_SIZE;
    default:
        return -1;
    }
}

/* The pattern says which sector it is: even bytes are the value, odd ones the sector's number. */
static uint64_t pattern(int64_t n, uint8_t value)
{
    uint16_t pair = (uint16_t)(value << 8 | (n & 0xff));
    return value ? pair * UINT64_C(0x0001000100010001) : 0;
}

void crash_fill(uint8_t *buf, int64_t offset, int64_t bytes, uint8_t value)
{
    for (int64_t i = 0; i < bytes; i += 8) {
        store_be64(buf + i, pattern((offset + i) / 512, value));
    }
}

uint8_t crash_value(const uint8_t sector[512], int64_t n)
{
    uint64_t expected = pattern(n, sector[0]), differs = 0;
    for (unsigned i = 0; i < 512; i += 8) {
        differs |= load_be64(sector + i) ^ expected;
    }
    return differs ? CRASH_GARBAGE : sector[0];
}

char *crash_data_disk(const char *disk)
{
    return g_strconcat(disk, "-data", NULL);
}

static BdrvChild *coroutine_fn open_disk(const char *disk)
{
    g_autofree char *where = g_strdup_printf("disk=%s", disk);
    return test_must_open("simdisk", where, NULL);
}

static const char *format_name(const CrashImage *image)
{
    return image->vdi ? "vdi" : "qcow2";
}

static bool coroutine_fn open_image(const CrashImage *image, const char *disk, const char *options, Rig *rig,
                                    GError **errp)
{
    BdrvChild *file = open_disk(disk);
    BdrvChild *child = test_open(format_name(image), options, file, BDRV_O_RDWR | BDRV_O_UNMAP, errp);
    if (!child) {
        test_close(file);
        return false;
    }
    *rig = (Rig){ .child = child };
    if (image->backing) {
        rig->backing = open_disk("backing");
        test_set_backing(child, rig->backing);
    }
    if (image->data_file) {
        g_autofree char *data = crash_data_disk(disk);
        test_set_data_file(child, open_disk(data));
    }
    return true;
}

static bool coroutine_fn open_by(const CrashImage *image, const char *disk, unsigned secret, Rig *rig, GError **errp)
{
    g_autofree char *options = g_strconcat("encrypt.key-secret=", test_secrets[secret], NULL);
    return open_image(image, disk, options, rig, errp);
}

static bool told(bool opened, bool quiet, GError *error)
{
    if (!opened && !quiet) {
        g_test_message("cannot open the image: %s", error->message);
    }
    g_clear_error(&error);
    return opened;
}

bool coroutine_fn crash_image_open_by(const CrashImage *image, const char *disk, unsigned secret, bool quiet, Rig *rig)
{
    GError *error = NULL;
    return told(open_by(image, disk, secret, rig, &error), quiet, error);
}

bool coroutine_fn crash_image_open(const CrashImage *image, const char *disk, bool quiet, Rig *rig)
{
    GError *error = NULL;
    bool ok = image->encrypt ? open_by(image, disk, 0, rig, &error)
                             : open_image(image, disk, image->options ? image->options : "", rig, &error);
    for (unsigned i = 1; i < TEST_SECRETS && g_error_matches(error, BDRV_ERROR, EACCES); i++) {
        g_clear_error(&error);
        ok = open_by(image, disk, i, rig, &error);
    }
    return told(ok, quiet, error);
}

/* Take clusters that nothing refers to. */
static void coroutine_fn use_up(const Rig *rig, int64_t up_to)
{
    Qcow2Allocation got = { 0 };
    while ((int64_t)got.host_offset + 512 < up_to) {
        g_assert_cmpint(qcow2_alloc_clusters(rig->child->bs, 0, 1, &got), ==, 0);
    }
}

/* Of the first quarter of a disk: zeroes, then the pattern. */
static void base_content(uint8_t *buf, int64_t guest, int64_t bytes)
{
    crash_fill(buf, guest, bytes, CRASH_BASE);
    if (guest < CRASH_SIZE / 8) {
        memset(buf, 0, (size_t)MIN(bytes, CRASH_SIZE / 8 - guest));
    }
}

/* Some of the guest clusters with data, two into each new host cluster. */
static void compress_some(BdrvSimDisk *disk, int64_t cluster_size)
{
    int64_t begin = CRASH_SIZE / 8 / cluster_size * cluster_size, bytes = MIN(8 * cluster_size, CRASH_SIZE / 4 - begin);
    g_autofree uint8_t *content = g_malloc((gsize)bytes);
    base_content(content, begin, bytes);
    surgery_compress(disk, &(SurgeryCompress){
        .first = (uint64_t)(begin / cluster_size), .count = (unsigned)(bytes / cluster_size),
        .step = (uint64_t)cluster_size / 2, .content = content,
    });
}

uint8_t crash_base_value(const CrashImage *image, int64_t n)
{
    return n < CRASH_SIZE / 512 / 8                                   ? 0
           : n < CRASH_SIZE / 512 / 4                                 ? CRASH_BASE
           : image->backing && n < crash_image_size(image) / 512      ? CRASH_BACKING
                                                                      : 0;
}

static void coroutine_fn add_bitmap(const Rig *rig)
{
    BlockDriverState *bs = rig->child->bs;
    bs->drv->bdrv_drain_begin(bs);
    g_assert_true(bs->drv->bdrv_bitmap_add(bs, "b", 512, true, NULL));
    bs->drv->bdrv_drain_end(bs);
}

/* The first half of a quarter is zeroed and dropped, the second written, the rest was never touched. */
static void coroutine_fn write_base(const CrashImage *image, const Rig *rig, uint8_t cells[MODEL_CELLS])
{
    g_autofree uint8_t *buf = g_malloc(CRASH_SIZE);
    crash_fill(buf, 0, CRASH_SIZE, CRASH_BASE);
    g_assert_cmpint(bdrv_co_pwrite(rig->child, 0, CRASH_SIZE / 4, buf, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig->child, 0, CRASH_SIZE / 16, 0), ==, 0);
    g_assert_cmpint(bdrv_co_pwrite_zeroes(rig->child, CRASH_SIZE / 16, CRASH_SIZE / 16, BDRV_REQ_MAY_UNMAP), ==, 0);
    for (int64_t i = 0; i < MODEL_SECTORS; i++) {
        cells[i] = crash_base_value(image, i);
    }
    use_up(rig, image->used);
    if (image->bitmap) {
        add_bitmap(rig);
    }
}

static bool coroutine_fn format_vdi(const RigImage *how, bool fixed, GError **errp)
{
    g_autoptr(BdrvOptions) options = bdrv_options_new();
    BdrvChild *file = open_disk(how->disk);
    bdrv_options_set_int(options, "size", how->size);
    bdrv_options_set_int(options, "block_size", how->cluster_size);
    bdrv_options_set_bool(options, "static", fixed);
    bool ok = bdrv_find_format("vdi")->bdrv_create(how->disk, file, options, errp);
    test_close(file);
    return ok;
}

bool coroutine_fn crash_image_format(const CrashImage *image, const RigImage *how, GError **errp)
{
    return image->vdi ? format_vdi(how, image->fixed || how->preallocation, errp) : rig_format(how, errp);
}

int coroutine_fn crash_image_check(const CrashImage *image, const char *disk, bool quiet, BdrvCheckResult *result)
{
    return rig_check_format(format_name(image), disk, quiet, result);
}

/* All of it durable. */
static BdrvSimDisk *coroutine_fn make_disk(const CrashImage *image, const RigImage *how)
{
    BdrvSimDisk *disk = bdrv_simdisk_new(how->disk, 0);
    GError *error = NULL;
    bdrv_simdisk_set_volatile(disk, false);
    crash_image_format(image, how, &error);
    g_assert_no_error(error);
    return disk;
}

static BdrvSimDisk *make_backing(void)
{
    BdrvSimDisk *disk = bdrv_simdisk_new("backing", 0);
    g_autofree uint8_t *buf = g_malloc(CRASH_BACKING_BYTES);
    crash_fill(buf, 0, CRASH_BACKING_BYTES, CRASH_BACKING);
    bdrv_simdisk_poke(disk, 0, buf, CRASH_BACKING_BYTES);
    return disk;
}

/* An image that another one will be made over: small, all of it written. */
static BdrvSimDisk *coroutine_fn make_old(const CrashImage *image, uint8_t cells[MODEL_CELLS])
{
    RigImage how = { .disk = "base", .size = CRASH_OLD_SIZE, .cluster_size = image->cluster_size };
    BdrvSimDisk *disk = make_disk(image, &how);
    Rig rig;
    g_autofree uint8_t *buf = g_malloc(CRASH_OLD_SIZE);
    g_assert_true(crash_image_open(image, "base", false, &rig));
    crash_fill(buf, 0, CRASH_OLD_SIZE, CRASH_BASE);
    g_assert_cmpint(bdrv_co_pwrite(rig.child, 0, CRASH_OLD_SIZE, buf, 0), ==, 0);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    memset(cells, CRASH_BASE, CRASH_OLD_SIZE / 512);
    cells[MODEL_SIZE] = SIZE_OLD;
    bdrv_simdisk_set_volatile(disk, true);
    return disk;
}

static void coroutine_fn assert_clean(const CrashImage *image)
{
    BdrvCheckResult result;
    g_assert_cmpint(crash_image_check(image, "base", false, &result), ==, 0);
    g_assert_true(result.corruptions == 0 && result.check_errors == 0 && result.leaks == 0);
}

static BdrvSimDisk *coroutine_fn make_ready(const CrashImage *image, uint8_t cells[MODEL_CELLS])
{
    RigImage how = {
        .disk = "base",
        .size = crash_image_size(image),
        .cluster_size = image->cluster_size,
        .refcount_bits = image->refcount_bits,
        .compat = image->compat,
        .preallocation = image->preallocation,
        .extended_l2 = image->extended_l2,
        .data_file = image->data_file ? "base-data" : NULL,
        .data_file_raw = image->data_file_raw,
        .encrypt = image->encrypt,
    };
    BdrvSimDisk *disk = make_disk(image, &how);
    g_autoptr(BdrvSimDisk) data = image->data_file ? bdrv_simdisk_find("base-data") : NULL;
    Rig rig;
    if (data) {
        bdrv_simdisk_set_volatile(data, false);
    }
    g_assert_true(crash_image_open(image, "base", false, &rig));
    write_base(image, &rig, cells);
    g_assert_cmpint(rig_close(&rig), ==, 0);
    cells[MODEL_SIZE] = SIZE_BASE;
    cells[MODEL_KEYS] = crash_has_keys(image);
    if (image->compressed) {
        compress_some(disk, image->cluster_size);
    }
    if (image->snapshot) {
        surgery_add_snapshot(disk);
    }
    if (!image->used) {
        assert_clean(image);
    }
    if (data) {
        bdrv_simdisk_set_volatile(data, true);
    }
    bdrv_simdisk_set_volatile(disk, true);
    return disk;
}

BdrvSimDisk *coroutine_fn crash_image_make(const CrashImage *image, uint8_t cells[MODEL_CELLS], BdrvSimDisk **backing)
{
    memset(cells, 0, MODEL_CELLS);
    *backing = make_backing();
    switch (image->start) {
    case START_EMPTY_FILE:
        cells[MODEL_SIZE] = SIZE_NO_IMAGE;
        return bdrv_simdisk_new("base", 0);
    case START_OLD_IMAGE:
        return make_old(image, cells);
    default:
        return make_ready(image, cells);
    }
}
