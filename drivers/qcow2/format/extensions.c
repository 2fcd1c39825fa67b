/* SPDX-License-Identifier: MIT */
/*
 * Header extensions (specification: "Header extensions"): type, length, data, padding to 8. Known ones
 * go to their fields, unknown ones are kept to be written back.
 */

#include "drivers/qcow2/format/format.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/util/bytes.h"

#define EXT_END 0x00000000u
#define EXT_BACKING_FORMAT 0xe2792acau
#define EXT_FEATURE_NAMES 0x6803f857u
#define EXT_BITMAPS 0x23852875u
#define EXT_CRYPTO 0x0537be77u
#define EXT_DATA_FILE 0x44415441u

#define EXT_HEADER_BYTES 8u
#define MAX_STRING_BYTES 1023u
/* Unknown extensions of one image; each costs memory of its own. */
#define MAX_UNKNOWN 4096u

static size_t padded(size_t bytes)
{
    return (bytes + 7) & ~(size_t)7;
}

static bool no_memory(size_t bytes, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, ENOMEM, "no memory for a header extension of %zu bytes", bytes);
    return false;
}

static bool duplicate(uint32_t type, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, EINVAL,
                "header extension 0x%08" PRIx32 " is there twice; it may appear once", type);
    return false;
}

static bool take_string(char **field, uint32_t type, const uint8_t *data, uint32_t length, GError **errp)
{
    if (*field) {
        return duplicate(type, errp);
    }
    if (length > MAX_STRING_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "header extension 0x%08" PRIx32 " holds a string of %" PRIu32
                    " bytes; at most %u are allowed",
                    type, length, MAX_STRING_BYTES);
        return false;
    }
    *field = g_strndup((const char *)data, length);
    return true;
}

static bool take_bytes(uint8_t **field, uint32_t *field_bytes, uint32_t type, const uint8_t *data,
                       uint32_t length, GError **errp)
{
    if (*field) {
        return duplicate(type, errp);
    }
    /* One byte more, so that an empty extension is still a pointer. */
    uint8_t *copy = g_try_malloc((gsize)length + 1);
    if (!copy) {
        return no_memory(length, errp);
    }
    memcpy(copy, data, length);
    *field = copy;
    *field_bytes = length;
    return true;
}

static bool take_unknown(Qcow2HeaderExtensions *ext, uint32_t type, const uint8_t *data, uint32_t length,
                         GError **errp)
{
    if (ext->unknown_count >= MAX_UNKNOWN) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the header has more than %u unknown extensions", MAX_UNKNOWN);
        return false;
    }
    Qcow2UnknownExtension item = { .type = type };
    if (!take_bytes(&item.data, &item.length, type, data, length, errp)) {
        return false;
    }
    Qcow2UnknownExtension *grown = g_try_renew(Qcow2UnknownExtension, ext->unknown, ext->unknown_count + 1);
    if (!grown) {
        g_free(item.data);
        return no_memory(length, errp);
    }
    grown[ext->unknown_count++] = item;
    ext->unknown = grown;
    return true;
}

static bool take_extension(Qcow2HeaderExtensions *ext, uint32_t type, const uint8_t *data, uint32_t length,
                           GError **errp)
{
    switch (type) {
    case EXT_BACKING_FORMAT:
        return take_string(&ext->backing_format, type, data, length, errp);
    case EXT_DATA_FILE:
        return take_string(&ext->data_file, type, data, length, errp);
    case EXT_FEATURE_NAMES:
        return take_bytes(&ext->feature_names, &ext->feature_names_bytes, type, data, length, errp);
    case EXT_BITMAPS:
        return take_bytes(&ext->bitmaps, &ext->bitmaps_bytes, type, data, length, errp);
    case EXT_CRYPTO:
        return take_bytes(&ext->crypto, &ext->crypto_bytes, type, data, length, errp);
    default:
        return take_unknown(ext, type, data, length, errp);
    }
}

bool qcow2_extensions_decode(const uint8_t *buf, size_t size, uint64_t first_offset,
                             Qcow2HeaderExtensions *ext, GError **errp)
{
    for (size_t at = 0; size - at >= EXT_HEADER_BYTES;) {
        uint32_t type = load_be32(buf + at);
        uint32_t length = load_be32(buf + at + 4);
        size_t room = size - at - EXT_HEADER_BYTES;
        if (length > room) {
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "header extension 0x%08" PRIx32 " at byte %" PRIu64 " claims %" PRIu32
                        " bytes of data; only %zu remain for extensions",
                        type, first_offset + at, length, room);
            return false;
        }
        if (type == EXT_END) {
            return true;
        }
        if (!take_extension(ext, type, buf + at + EXT_HEADER_BYTES, length, errp)) {
            return false;
        }
        /* The padding of the last one may be cut off. */
        at += EXT_HEADER_BYTES + MIN(padded(length), room);
    }
    return true;
}

size_t qcow2_extensions_size(const Qcow2HeaderExtensions *ext)
{
    size_t total = EXT_HEADER_BYTES; /* end marker */
    total += ext->backing_format ? EXT_HEADER_BYTES + padded(strlen(ext->backing_format)) : 0;
    total += ext->data_file ? EXT_HEADER_BYTES + padded(strlen(ext->data_file)) : 0;
    total += ext->crypto ? EXT_HEADER_BYTES + padded(ext->crypto_bytes) : 0;
    total += ext->feature_names ? EXT_HEADER_BYTES + padded(ext->feature_names_bytes) : 0;
    total += ext->bitmaps ? EXT_HEADER_BYTES + padded(ext->bitmaps_bytes) : 0;
    for (unsigned i = 0; i < ext->unknown_count; i++) {
        total += EXT_HEADER_BYTES + padded(ext->unknown[i].length);
    }
    return total;
}

static size_t put(uint8_t *buf, uint32_t type, const void *data, size_t length)
{
    store_be32(buf, type);
    store_be32(buf + 4, (uint32_t)length);
    memcpy(buf + EXT_HEADER_BYTES, data, length);
    memset(buf + EXT_HEADER_BYTES + length, 0, padded(length) - length);
    return EXT_HEADER_BYTES + padded(length);
}

size_t qcow2_extensions_encode(const Qcow2HeaderExtensions *ext, uint8_t *buf, size_t size)
{
    if (size < qcow2_extensions_size(ext)) {
        return 0;
    }
    size_t at = 0;
    if (ext->backing_format) {
        at += put(buf + at, EXT_BACKING_FORMAT, ext->backing_format, strlen(ext->backing_format));
    }
    if (ext->data_file) {
        at += put(buf + at, EXT_DATA_FILE, ext->data_file, strlen(ext->data_file));
    }
    if (ext->crypto) {
        at += put(buf + at, EXT_CRYPTO, ext->crypto, ext->crypto_bytes);
    }
    if (ext->bitmaps) {
        at += put(buf + at, EXT_BITMAPS, ext->bitmaps, ext->bitmaps_bytes);
    }
    if (ext->feature_names) {
        at += put(buf + at, EXT_FEATURE_NAMES, ext->feature_names, ext->feature_names_bytes);
    }
    for (unsigned i = 0; i < ext->unknown_count; i++) {
        at += put(buf + at, ext->unknown[i].type, ext->unknown[i].data, ext->unknown[i].length);
    }
    at += put(buf + at, EXT_END, "", 0);
    return at;
}

void qcow2_extensions_clear(Qcow2HeaderExtensions *ext)
{
    g_free(ext->backing_format);
    g_free(ext->data_file);
    g_free(ext->feature_names);
    g_free(ext->bitmaps);
    g_free(ext->crypto);
    for (unsigned i = 0; i < ext->unknown_count; i++) {
        g_free(ext->unknown[i].data);
    }
    g_free(ext->unknown);
    g_free(ext->unknown_header);
    *ext = (Qcow2HeaderExtensions){ 0 };
}

bool qcow2_bitmaps_extension_decode(const uint8_t *buf, size_t size, Qcow2BitmapsExtension *out,
                                    GError **errp)
{
    if (size != 24) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the bitmaps extension has %zu bytes; it must have 24", size);
        return false;
    }
    Qcow2BitmapsExtension b = {
        .nb_bitmaps = load_be32(buf),
        .directory_size = load_be64(buf + 8),
        .directory_offset = load_be64(buf + 16),
    };
    if (load_be32(buf + 4) != 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the reserved field of the bitmaps extension is 0x%08" PRIx32 ", not 0",
                    load_be32(buf + 4));
        return false;
    }
    if (b.nb_bitmaps == 0 || b.nb_bitmaps > QCOW2_MAX_BITMAPS) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the bitmaps extension counts %" PRIu32 " bitmaps; 1 to %u are allowed", b.nb_bitmaps,
                    QCOW2_MAX_BITMAPS);
        return false;
    }
    *out = b;
    return true;
}

void qcow2_crypto_extension_encode(const Qcow2CryptoExtension *ext, uint8_t *buf)
{
    store_be64(buf, ext->offset);
    store_be64(buf + 8, ext->length);
}

bool qcow2_crypto_extension_decode(const uint8_t *buf, size_t size, Qcow2CryptoExtension *out, GError **errp)
{
    if (size != 16) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "the encryption header extension has %zu bytes; it must have 16", size);
        return false;
    }
    *out = (Qcow2CryptoExtension){ .offset = load_be64(buf), .length = load_be64(buf + 8) };
    return true;
}
