/* SPDX-License-Identifier: MIT */
/* The header of a VDI file, version 1.1: bytes to fields and back, and everything it may not say. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drivers/vdi/vdi.h"

enum {
    AT_TEXT = 0,
    AT_SIGNATURE = 64,
    AT_VERSION = 68,
    AT_HEADER_SIZE = 72, /* counted from here */
    AT_TYPE = 76,
    AT_MAP_OFFSET = 340,
    AT_DATA_OFFSET = 344,
    AT_SECTOR_SIZE = 360,
    AT_DISK_SIZE = 368,
    AT_BLOCK_SIZE = 376,
    AT_BLOCK_EXTRA = 380,
    AT_BLOCKS = 384,
    AT_BLOCKS_IN_FILE = 388,
    AT_UUID = 392,        /* of this image, and at 408 of its last change */
    AT_UUID_PARENTS = 424, /* two more: of the image that this one is the difference to */
};
#define VERSION_1_1 0x00010001u
#define HEADER_SIZE 400
#define UUID_BYTES 16
#define TEXT "<<< Oracle VM VirtualBox Disk Image >>>\n"

static uint32_t get32(const uint8_t *buf, size_t at)
{
    uint32_t value;

    memcpy(&value, buf + at, sizeof(value));
    return GUINT32_FROM_LE(value);
}

static uint64_t get64(const uint8_t *buf, size_t at)
{
    uint64_t value;

    memcpy(&value, buf + at, sizeof(value));
    return GUINT64_FROM_LE(value);
}

static void put32(uint8_t *buf, size_t at, uint32_t value)
{
    value = GUINT32_TO_LE(value);
    memcpy(buf + at, &value, sizeof(value));
}

static void put64(uint8_t *buf, size_t at, uint64_t value)
{
    value = GUINT64_TO_LE(value);
    memcpy(buf + at, &value, sizeof(value));
}

bool vdi_probe_header(const uint8_t *buf, size_t size)
{
    return size >= AT_SIGNATURE + 4 && get32(buf, AT_SIGNATURE) == VDI_SIGNATURE;
}

int64_t vdi_map_bytes(uint32_t blocks)
{
    return ((int64_t)blocks * 4 + VDI_SECTOR - 1) / VDI_SECTOR * VDI_SECTOR;
}

/* ---- reading ---- */

static bool G_GNUC_PRINTF(3, 4) refuse(GError **errp, int code, const char *format, ...)
{
    g_autofree char *why = NULL;
    va_list args;

    va_start(args, format);
    why = g_strdup_vprintf(format, args);
    va_end(args);
    g_set_error(errp, BDRV_ERROR, code, "unsupported VDI image (%s)", why);
    return false;
}

/* What kind of image it is. */
static bool check_kind(const uint8_t *buf, GError **errp)
{
    uint32_t version = get32(buf, AT_VERSION), type = get32(buf, AT_TYPE);

    if (!vdi_probe_header(buf, VDI_SECTOR)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Image not in VDI format (bad signature %08" PRIx32 ")",
                    get32(buf, AT_SIGNATURE));
        return false;
    }
    if (version != VERSION_1_1) {
        return refuse(errp, ENOTSUP, "version %" PRIu32 ".%" PRIu32 ", not 1.1", version >> 16, version & 0xffff);
    }
    if (type != VDI_TYPE_DYNAMIC && type != VDI_TYPE_FIXED) {
        return refuse(errp, ENOTSUP, "type %" PRIu32 ", not 1 (dynamic) or 2 (fixed)%s", type,
                      type == 3 || type == 4 ? ": it is the difference to another image" : "");
    }
    for (unsigned i = 0; i < 2 * UUID_BYTES; i++) {
        if (buf[AT_UUID_PARENTS + i]) {
            return refuse(errp, ENOTSUP, "non-NULL %s UUID: it is the difference to another image",
                          i < UUID_BYTES ? "link" : "parent");
        }
    }
    return true;
}

static bool check_blocks(const uint8_t *buf, const VdiHeader *header, GError **errp)
{
    if (get32(buf, AT_SECTOR_SIZE) != VDI_SECTOR) {
        return refuse(errp, ENOTSUP, "sector size %" PRIu32 " is not %d", get32(buf, AT_SECTOR_SIZE), VDI_SECTOR);
    }
    if (header->block_size < VDI_MIN_BLOCK_SIZE || header->block_size > VDI_MAX_BLOCK_SIZE ||
        (header->block_size & (header->block_size - 1))) {
        return refuse(errp, ENOTSUP, "block size %" PRIu32 " is not a power of two from %d to %d", header->block_size,
                      VDI_MIN_BLOCK_SIZE, VDI_MAX_BLOCK_SIZE);
    }
    if (get32(buf, AT_BLOCK_EXTRA)) {
        return refuse(errp, ENOTSUP, "%" PRIu32 " extra bytes for each block, not 0", get32(buf, AT_BLOCK_EXTRA));
    }
    if (header->blocks > VDI_MAX_BLOCKS) {
        return refuse(errp, EFBIG, "%" PRIu32 " blocks, at most %u are", header->blocks, VDI_MAX_BLOCKS);
    }
    if (header->disk_size > (uint64_t)header->blocks * header->block_size) {
        return refuse(errp, EINVAL, "disk size %" PRIu64 ", its block map has room for %" PRIu64, header->disk_size,
                      (uint64_t)header->blocks * header->block_size);
    }
    return true;
}

static bool check_offsets(const VdiHeader *header, int64_t file_length, GError **errp)
{
    int64_t map_end = header->map_offset + vdi_map_bytes(header->blocks);

    if (header->map_offset % VDI_SECTOR || header->map_offset < VDI_SECTOR) {
        return refuse(errp, EINVAL, "block map offset 0x%" PRIx32 " is not a multiple of %d after the header",
                      header->map_offset, VDI_SECTOR);
    }
    if (header->data_offset % VDI_SECTOR || header->data_offset < map_end) {
        return refuse(errp, EINVAL,
                      "data offset 0x%" PRIx32 " is not a multiple of %d from the end of the block map (0x%" PRIx64
                      ") on",
                      header->data_offset, VDI_SECTOR, map_end);
    }
    if (header->map_offset + (int64_t)header->blocks * 4 > file_length) {
        return refuse(errp, EINVAL, "the block map of %" PRIu32 " blocks at 0x%" PRIx32
                      " is not in the file of %" PRId64 " bytes",
                      header->blocks, header->map_offset, file_length);
    }
    return true;
}

bool vdi_decode_header(const uint8_t *buf, int64_t file_length, VdiHeader *header, GError **errp)
{
    VdiHeader read = {
        .type = get32(buf, AT_TYPE),
        .map_offset = get32(buf, AT_MAP_OFFSET),
        .data_offset = get32(buf, AT_DATA_OFFSET),
        .disk_size = get64(buf, AT_DISK_SIZE),
        .block_size = get32(buf, AT_BLOCK_SIZE),
        .blocks = get32(buf, AT_BLOCKS),
        .blocks_in_file = get32(buf, AT_BLOCKS_IN_FILE),
    };

    if (!check_kind(buf, errp) || !check_blocks(buf, &read, errp) || !check_offsets(&read, file_length, errp)) {
        return false;
    }
    memcpy(read.bytes, buf, sizeof(read.bytes));
    *header = read;
    return true;
}

/* ---- writing ---- */

void vdi_encode_header(VdiHeader *header)
{
    uint8_t *buf = header->bytes;

    put32(buf, AT_MAP_OFFSET, header->map_offset);
    put32(buf, AT_DATA_OFFSET, header->data_offset);
    put64(buf, AT_DISK_SIZE, header->disk_size);
    put32(buf, AT_BLOCKS, header->blocks);
    put32(buf, AT_BLOCKS_IN_FILE, header->blocks_in_file);
}

/* Version 4, random. */
static void put_uuid(uint8_t *buf)
{
    for (unsigned i = 0; i < UUID_BYTES; i += 4) {
        put32(buf, i, g_random_int());
    }
    buf[7] = (buf[7] & 0x0f) | 0x40; /* little-endian: this is the high byte of the third field */
    buf[8] = (buf[8] & 0x3f) | 0x80;
}

static bool check_new(int64_t disk_size, int64_t block_size, GError **errp)
{
    if (block_size < VDI_MIN_BLOCK_SIZE || block_size > VDI_MAX_BLOCK_SIZE || (block_size & (block_size - 1))) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "block_size %" PRId64 " is not a power of two from %d to %d", block_size,
                    VDI_MIN_BLOCK_SIZE, VDI_MAX_BLOCK_SIZE);
        return false;
    }
    if (disk_size > (int64_t)VDI_MAX_BLOCKS * block_size) {
        g_set_error(errp, BDRV_ERROR, EFBIG,
                    "Unsupported VDI image size (size is 0x%" PRIx64 ", max supported is 0x%" PRIx64
                    "); a larger block_size allows more",
                    disk_size, (int64_t)VDI_MAX_BLOCKS * block_size);
        return false;
    }
    return true;
}

bool vdi_new_header(int64_t disk_size, int64_t block_size, uint32_t type, bool placed, VdiHeader *header,
                    GError **errp)
{
    if (!check_new(disk_size, block_size, errp)) {
        return false;
    }
    uint32_t blocks = (uint32_t)((disk_size + block_size - 1) / block_size);
    *header = (VdiHeader){
        .type = type,
        .map_offset = VDI_SECTOR,
        .data_offset = VDI_SECTOR + (uint32_t)vdi_map_bytes(blocks),
        .disk_size = (uint64_t)(disk_size + VDI_SECTOR - 1) / VDI_SECTOR * VDI_SECTOR,
        .block_size = (uint32_t)block_size,
        .blocks = blocks,
        .blocks_in_file = placed ? blocks : 0,
    };
    memcpy(header->bytes + AT_TEXT, TEXT, sizeof(TEXT) - 1);
    put32(header->bytes, AT_SIGNATURE, VDI_SIGNATURE);
    put32(header->bytes, AT_VERSION, VERSION_1_1);
    put32(header->bytes, AT_HEADER_SIZE, HEADER_SIZE);
    put32(header->bytes, AT_TYPE, header->type);
    put32(header->bytes, AT_SECTOR_SIZE, VDI_SECTOR);
    put32(header->bytes, AT_BLOCK_SIZE, header->block_size);
    put_uuid(header->bytes + AT_UUID);
    put_uuid(header->bytes + AT_UUID + UUID_BYTES);
    vdi_encode_header(header);
    return true;
}
