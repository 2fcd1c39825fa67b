/* SPDX-License-Identifier: MIT */
/* Making images, and how large they will be. */
#include <errno.h>

#include "drivers/vdi/vdi.h"

static const char *const prealloc_choices[] = { "off", "falloc", "full", NULL };

const BdrvOptionSpec vdi_create_options[] = {
    { .name = "preallocation",
      .type = BDRV_OPTION_STRING,
      .help = "Preallocation mode (allowed values: off, falloc, full)",
      .choices = prealloc_choices },
    { .name = "static",
      .type = BDRV_OPTION_BOOL,
      .help = "VDI static (pre-allocated) image",
      .default_text = "off" },
    { .name = "block_size",
      .type = BDRV_OPTION_SIZE,
      .help = "VDI block size (1M if not given; qemu-img reads no other)" },
    { .name = NULL },
};

static BdrvPrealloc prealloc_of(const BdrvOptions *options)
{
    BdrvPrealloc prealloc = BDRV_PREALLOC_OFF;

    bdrv_prealloc_find(bdrv_options_get_string(options, "preallocation", "off"), &prealloc);
    return prealloc;
}

/* Space can only be reserved for blocks that have a place: also a dynamic image has all of them then. */
static bool header_of(const BdrvOptions *options, VdiHeader *header, GError **errp)
{
    bool fixed = bdrv_options_get_bool(options, "static", false);

    return vdi_new_header(bdrv_options_get_int(options, "size", 0),
                          bdrv_options_get_int(options, "block_size", VDI_BLOCK_SIZE),
                          fixed ? VDI_TYPE_FIXED : VDI_TYPE_DYNAMIC,
                          fixed || prealloc_of(options) != BDRV_PREALLOC_OFF, header, errp);
}

/* If power is lost meanwhile, no header may stand before what is half of an image, or another one's rest. */
static int coroutine_fn remove_header(BdrvChild *file)
{
    int64_t length = bdrv_co_getlength(file);
    int ret = length <= 0 ? (int)length : bdrv_co_pwrite_zeroes(file, 0, MIN(length, VDI_SECTOR), 0);

    return ret < 0 || length == 0 ? ret : bdrv_co_flush(file);
}

/* A device may have anything there; a new file has a hole, which stays one. */
static int coroutine_fn zero_blocks(BdrvChild *file, const VdiHeader *header)
{
    int64_t end = vdi_host_offset(header, header->blocks_in_file);
    BlockExtent extent;
    int ret = 0;

    for (int64_t at = header->data_offset; at < end && ret >= 0; at += extent.bytes) {
        ret = bdrv_co_block_status(file, at, end - at, &extent);
        if (ret >= 0 && extent.kind != EXTENT_ZERO) {
            ret = bdrv_co_pwrite_zeroes(file, at, extent.bytes, BDRV_REQ_MAY_UNMAP);
        }
    }
    return ret;
}

static int coroutine_fn write_image(BdrvChild *file, const VdiHeader *header, bool reserved)
{
    bool placed = header->blocks_in_file > 0;
    g_autofree _Atomic uint32_t *map = g_try_new(_Atomic uint32_t, header->blocks + 1);
    int ret = map ? 0 : -ENOMEM;

    for (uint32_t i = 0; map && i < header->blocks; i++) {
        atomic_init(&map[i], placed ? i : VDI_ENTRY_FREE);
    }
    if (ret >= 0) {
        ret = vdi_write_map(file, map, header->blocks, header->map_offset);
    }
    if (ret >= 0 && !reserved) {
        ret = zero_blocks(file, header);
    }
    if (ret >= 0) {
        ret = bdrv_co_flush(file);
    }
    if (ret >= 0) {
        ret = bdrv_co_pwrite(file, 0, sizeof(header->bytes), header->bytes, 0);
    }
    return ret < 0 ? ret : bdrv_co_flush(file);
}

bool coroutine_fn vdi_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp)
{
    g_autofree VdiHeader *header = g_new0(VdiHeader, 1);
    BdrvPrealloc prealloc = prealloc_of(options);
    int ret;

    if (!header_of(options, header, errp)) {
        return false;
    }
    ret = remove_header(file);
    if (ret >= 0 &&
        !bdrv_co_truncate(file, vdi_host_offset(header, header->blocks_in_file), false, prealloc, 0, errp)) {
        return false;
    }
    ret = ret < 0 ? ret : write_image(file, header, prealloc != BDRV_PREALLOC_OFF);
    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "cannot write the image: %s", g_strerror(-ret));
        return false;
    }
    return true;
}

bool coroutine_fn vdi_measure(const BdrvOptions *options, BdrvChild *source, BdrvMeasure *measure, GError **errp)
{
    VdiHeader header;
    int64_t data = 0;

    if (!header_of(options, &header, errp)) {
        return false;
    }
    if (source && header.blocks_in_file == 0) {
        data = bdrv_co_measure_data(source, header.block_size);
        if (data < 0) {
            g_set_error(errp, BDRV_ERROR, (int)-data, "cannot tell what the source has: %s", g_strerror((int)-data));
            return false;
        }
    }
    measure->fully_allocated = vdi_host_offset(&header, header.blocks);
    measure->required = header.blocks_in_file > 0 ? measure->fully_allocated : header.data_offset + data;
    return true;
}
