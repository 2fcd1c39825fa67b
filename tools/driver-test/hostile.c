/* SPDX-License-Identifier: MIT */
/* Files that somebody has damaged on purpose: an error or any content, but an end. */
#include "tools/driver-test/kit.h"

#include <sys/resource.h>

#define MEMORY_BOUND (2ull << 30)
#define LOOK (2 << 20) /* bytes read at the beginning, and at the end */

/* With sanitizers addresses are plentiful by design: then only their own limits hold. */
static void bound_memory(void)
{
    struct rlimit limit = { MEMORY_BOUND, MEMORY_BOUND };

    if (!KIT_SANITIZED) {
        setrlimit(RLIMIT_AS, &limit);
    }
}

/* An image as it should be, and what its other files have. */
typedef struct Valid {
    uint8_t *image;
    int64_t bytes;
    KitSaved *saved;
} Valid;

static Valid valid_image(const Kit *kit)
{
    KitDisk *disk;
    Valid valid;

    kit_need_file(kit);
    disk = kit_disk_new(kit);
    kit_write(disk, 0, disk->length / 4, 0);
    kit_write(disk, disk->length / 2, 3000, 0);
    kit_zero(disk, disk->length / 8, MIN(70000, disk->length / 4), BDRV_REQ_MAY_UNMAP);
    kit_close(disk);
    valid.bytes = bdrv_simdisk_length(disk->files[0].sim);
    valid.image = g_malloc0((gsize)valid.bytes + 1);
    bdrv_simdisk_peek(disk->files[0].sim, 0, valid.image, (size_t)valid.bytes);
    valid.saved = kit_save(disk);
    kit_disk_free(disk);
    return valid;
}

static void free_valid(Valid *valid)
{
    g_free(valid->image);
    kit_saved_free(valid->saved);
}

static void look(KitDisk *disk)
{
    int64_t length = blk_length(disk->blk), piece = MIN(length, LOOK);
    g_autofree uint8_t *buf = g_malloc((gsize)piece + 1);
    BlockExtent extent;
    BdrvInfo info;

    if (length < 0) {
        kit_fail("the damaged image has %" PRId64 " bytes", length);
    }
    (void)blk_pread(disk->blk, 0, piece, buf, 0);
    (void)blk_pread(disk->blk, length - piece, piece, buf, 0);
    for (int64_t at = 0, n = 0; at < piece && n < 200; at += extent.bytes, n++) {
        if (blk_block_status(disk->blk, at, piece - at, &extent) < 0) {
            break;
        }
        if (extent.bytes < 1 || extent.bytes > piece - at) {
            kit_fail("block status at %" PRId64 " of a damaged image: %" PRId64 " bytes", at, extent.bytes);
        }
    }
    (void)blk_get_info(disk->blk, &info);
    bdrv_options_free(blk_get_specific_info(disk->blk));
}

static void change(KitDisk *disk)
{
    int64_t length = blk_length(disk->blk);
    uint8_t buf[5000] = { 1, 2, 3 };

    if (length >= (int64_t)sizeof(buf)) {
        (void)blk_pwrite(disk->blk, length / 2, sizeof(buf) / 2, buf, 0);
        (void)blk_pwrite(disk->blk, 0, sizeof(buf), buf, 0);
        (void)blk_pwrite_zeroes(disk->blk, 0, MIN(length, 70000), BDRV_REQ_MAY_UNMAP);
        (void)blk_pdiscard(disk->blk, 0, MIN(length, 200000));
        (void)blk_flush(disk->blk);
    }
}

static void check(KitDisk *disk)
{
    BdrvCheckResult result = { 0 };

    (void)blk_check(disk->blk, &result, BDRV_FIX_NONE, NULL);
}

/* Open it read-only, for a check, and for writing. The other files are as they should be. */
static void use(const Kit *kit, const Valid *valid, const uint8_t *image, int64_t bytes)
{
    static const BdrvOpenFlags flags[] = { 0, BDRV_O_CHECK, KIT_RDWR };
    KitDisk *disk = kit_disk_blank(kit);

    bdrv_simdisk_poke(disk->files[0].sim, 0, image, (size_t)bytes);
    for (unsigned i = 1; i < kit->n_children; i++) {
        bdrv_simdisk_restore(disk->files[i].sim, valid->saved->files[i]);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++) {
        g_autoptr(GError) error = NULL;

        if (!kit_try_open(disk, flags[i], &error)) {
            if (bdrv_error_code(error) == EDEADLK) {
                kit_hangs("opening a damaged image");
            }
            continue;
        }
        if (!(flags[i] & BDRV_O_CHECK)) {
            look(disk);
        }
        check(disk);
        if (flags[i] & BDRV_O_RDWR) {
            change(disk);
        }
        kit_try_close(disk, NULL);
    }
    kit_disk_free(disk);
}

/* Numbers that are often not checked for. */
static const uint64_t numbers[] = { 0,
                                    1,
                                    0xff,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    0xffffffffffffffff,
                                    0x100000000 };

static void damage(KitDisk *draw, uint8_t *image, int64_t bytes)
{
    int64_t near = kit_draw(draw, 3) ? 256 : 131072, at = kit_draw(draw, MIN(bytes, near) - 8) & ~3;
    uint64_t number = numbers[kit_draw(draw, G_N_ELEMENTS(numbers))];

    kit_note("change the image at %" PRId64, at);
    switch (kit_draw(draw, 4)) {
    case 0:
        image[at + kit_draw(draw, 4)] ^= (uint8_t)(1 << kit_draw(draw, 8));
        break;
    case 1:
        memcpy(image + at, &number, 4);
        break;
    case 2:
        memcpy(image + at, &number, 8);
        break;
    default:
        number = GUINT64_TO_BE(number);
        memcpy(image + at, &number, 8);
    }
}

static void changed_bytes(const Kit *kit)
{
    Valid valid = valid_image(kit);
    KitDisk draw = { .rand = g_rand_new_with_seed((guint32)kit->seed) };

    if (valid.bytes < 512) {
        kit_skip("the image has %" PRId64 " bytes only", valid.bytes);
    }
    bound_memory();
    for (unsigned i = 0; i < 2 * kit->rounds; i++) {
        g_autofree uint8_t *copy = g_memdup2(valid.image, (gsize)valid.bytes);

        kit_note("---- image %u", i);
        for (int64_t n = kit_draw(&draw, 4); n >= 0; n--) {
            damage(&draw, copy, valid.bytes);
        }
        use(kit, &valid, copy, valid.bytes);
    }
    g_rand_free(draw.rand);
    free_valid(&valid);
}

static void cut_short(const Kit *kit)
{
    static const int64_t lengths[] = { 0,   1,   7,    8,    16,   63,   64,    511,
                                       512, 513, 1024, 4095, 4096, 4097, 65535, 65536 };
    Valid valid = valid_image(kit);

    bound_memory();
    for (unsigned i = 0; i < G_N_ELEMENTS(lengths) + 16; i++) {
        int64_t length =
            i < G_N_ELEMENTS(lengths) ? lengths[i] : valid.bytes * (i - (int)G_N_ELEMENTS(lengths)) / 16;

        if (length < valid.bytes) {
            kit_note("---- the image ends after %" PRId64 " of %" PRId64 " bytes", length, valid.bytes);
            use(kit, &valid, valid.image, length);
        }
    }
    free_valid(&valid);
}

const KitTest hostile_tests[] = {
    { "hostile/changed-bytes", "changed metadata gives an error or content, no crash and no hang",
      changed_bytes },
    { "hostile/cut-short", "a file that ends early gives an error or content", cut_short },
    { NULL },
};
