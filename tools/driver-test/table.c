/* SPDX-License-Identifier: MIT */
/* The table of the driver: registration, probing, options, what it tells of an image. */
#include "tools/driver-test/kit.h"

static bool probes(const Kit *kit)
{
    g_autofree char *names = bdrv_format_names();
    g_auto(GStrv) list = g_strsplit(names, " ", -1);

    return g_strv_contains((const char *const *)list, kit->driver);
}

/* What a file is recognised as; NULL: it cannot be opened. Takes @options. */
static char *recognised(KitDisk *disk, const char *filename, BdrvOptions *options)
{
    g_autoptr(GError) error = NULL;
    BlockBackend *blk = blk_open(disk->graph, filename, options, BDRV_O_NO_IO, &error);
    char *name = blk ? g_strdup(blk_driver(blk)) : NULL;

    blk_close(blk, NULL);
    return name;
}

static void own_image_is_recognised(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    BdrvOptions *options = kit_options(disk);
    g_autofree char *name = NULL;

    if (!probes(kit)) {
        kit_skip("the driver does not probe");
    }
    kit_write(disk, 0, MIN(disk->length, 4096), 0);
    kit_close(disk);
    bdrv_options_remove(options, "driver");
    name = recognised(disk, NULL, options);
    if (!name || strcmp(name, kit->driver) != 0) {
        kit_fail("an image of the driver is taken for '%s'", name ? name : "nothing that can be opened");
    }
    kit_disk_free(disk);
}

static void expect_foreign(KitDisk *disk, const char *what)
{
    g_autofree char *name = NULL;

    kit_note("probe a file of %s", what);
    name = recognised(disk, disk->files[0].filename, NULL);
    if (!name || strcmp(name, disk->kit->driver) == 0) { /* what nobody knows is raw, and can be opened */
        kit_fail("a file of %s is taken for an image of the driver", what);
    }
}

static void other_files_are_not_recognised(const Kit *kit)
{
    static const int64_t sizes[] = { 0, 1, 3, 511, 512, 4096, 70000 };

    if (!probes(kit) || strcmp(kit->driver, "raw") == 0) {
        kit_skip("the driver does not probe");
    }
    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(sizes); i++) {
        int64_t bytes = sizes[i / 2];
        g_autofree uint8_t *noise = g_malloc0((gsize)bytes + 1);
        g_autofree char *what = g_strdup_printf("%" PRId64 " bytes of %s", bytes, i % 2 ? "noise" : "zeroes");
        KitDisk *disk = kit_disk_blank(kit);

        for (int64_t at = 0; at < bytes && i % 2; at++) {
            noise[at] = (uint8_t)kit_draw(disk, 256);
        }
        bdrv_simdisk_poke(disk->files[0].sim, 0, noise, (size_t)bytes);
        expect_foreign(disk, what);
        kit_disk_free(disk);
    }
}

static void unknown_options_are_refused(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    BdrvOptions *options = kit_options(disk);
    GError *error = NULL;
    BlockBackend *blk;

    kit_close(disk);
    bdrv_options_set_string(options, "no-such-option", "1");
    blk = blk_open(disk->graph, NULL, options, 0, &error);
    if (blk) {
        kit_fail("it was opened with the option 'no-such-option'");
    }
    g_error_free(error);
    kit_disk_free(disk);
}

static void filename_opens_the_same(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    g_autofree char *filename = NULL;
    GError *error = NULL;

    kit_write(disk, disk->length / 3, MIN(disk->length / 3, 5000), 0);
    filename = g_strdup(blk_filename(disk->blk));
    kit_close(disk);
    kit_note("open by the file name %s", filename);
    disk->blk = blk_open(disk->graph, filename, NULL, 0, &error);
    if (!disk->blk) {
        kit_fail("the file name of the node, %s, does not open: %s", filename, error->message);
    }
    if (strcmp(blk_driver(disk->blk), kit->driver) == 0) {
        kit_expect_all(disk);
    }
    kit_disk_free(disk);
}

static void info_is_sane(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    uint32_t align = blk_request_alignment(disk->blk);
    int64_t allocated = blk_allocated_size(disk->blk);
    BdrvInfo info = { 0 };
    int ret = blk_get_info(disk->blk, &info);

    if (ret < 0 && ret != -ENOTSUP) {
        kit_fail("info: %s", g_strerror(-ret));
    }
    if (info.cluster_size < 0 || info.vm_state_offset < 0 || info.is_corrupt || info.is_dirty) {
        kit_fail("info of a fresh image: cluster size %" PRId64 ", VM state at %" PRId64 "%s%s",
                 info.cluster_size, info.vm_state_offset, info.is_corrupt ? ", corrupt" : "",
                 info.is_dirty ? ", dirty" : "");
    }
    if (align < 1 || align > 65536 || (align & (align - 1)) || blk_max_transfer(disk->blk) < 0) {
        kit_fail("limits: requests aligned to %u, of at most %" PRId64 " bytes", align,
                 blk_max_transfer(disk->blk));
    }
    if (allocated < 0 && allocated != -ENOTSUP) {
        kit_fail("allocated size: %s", g_strerror((int)-allocated));
    }
    bdrv_options_free(blk_get_specific_info(disk->blk));
    kit_disk_free(disk);
}

static void measure_is_enough(const Kit *kit)
{
    KitDisk *disk = kit_disk_new(kit);
    g_autoptr(GError) error = NULL;
    BdrvMeasure measure = { 0 };
    BdrvOptions *options = bdrv_options_parse(kit->create ? kit->create : "", NULL, &error);
    int64_t used;

    kit_need_file(kit);
    if (kit->image) {
        kit_skip("the image is given, not made");
    }
    bdrv_options_set_int(options, "size", kit->size);
    if (!bdrv_measure_image(kit->driver, options, NULL, &measure, &error)) {
        if (bdrv_error_code(error) == ENOTSUP) {
            kit_skip("the driver does not measure");
        }
        kit_fail("measuring: %s", error->message);
    }
    kit_write(disk, 0, disk->length, 0);
    kit_close(disk);
    used = bdrv_simdisk_length(disk->files[0].sim);
    if (measure.fully_allocated < measure.required || measure.fully_allocated < used) {
        kit_fail("measured %" PRId64 " bytes, all allocated %" PRId64 "; the full image has %" PRId64,
                 measure.required, measure.fully_allocated, used);
    }
    kit_disk_free(disk);
}

const KitTest table_tests[] = {
    { "table/own-image", "probing recognises an image of the driver", own_image_is_recognised },
    { "table/other-files", "probing recognises neither noise nor empty or short files",
      other_files_are_not_recognised },
    { "table/unknown-option", "an option that nobody knows is refused", unknown_options_are_refused },
    { "table/filename", "the node's file name opens the same disk", filename_opens_the_same },
    { "table/info", "info, limits and allocated size are sane", info_is_sane },
    { "table/measure", "a full image is no larger than was measured", measure_is_enough },
    { NULL },
};
