/* SPDX-License-Identifier: MIT */
#include "block/crypto/luks-header.h"

#include <bdrv/error.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "block/crypto/cipher.h"
#include "block/util/bytes.h"

#define SLOT_ENABLED 0x00ac71f3u
#define SLOT_DISABLED 0x0000deadu

static const uint8_t magic[6] = { 'L', 'U', 'K', 'S', 0xba, 0xbe };

enum {
    H_VERSION = 6,
    H_CIPHER_NAME = 8,
    H_CIPHER_MODE = 40,
    H_HASH = 72,
    H_PAYLOAD = 104,
    H_KEY_BYTES = 108,
    H_DIGEST = 112,
    H_DIGEST_SALT = 132,
    H_DIGEST_ITERATIONS = 164,
    H_UUID = 168,
    H_SLOTS = 208,
    NAME_BYTES = 32,
    UUID_BYTES = 40,

    S_ACTIVE = 0,
    S_ITERATIONS = 4,
    S_SALT = 8,
    S_KEY_SECTOR = 40,
    S_STRIPES = 44,
    SLOT_BYTES = 48,
};

uint64_t bdrv_luks_material_bytes(uint32_t key_bytes)
{
    uint64_t bytes = (uint64_t)key_bytes * BDRV_LUKS_STRIPES;
    return (bytes + BDRV_LUKS_SECTOR - 1) / BDRV_LUKS_SECTOR * BDRV_LUKS_SECTOR;
}

uint64_t bdrv_luks_slot_offset(uint32_t key_bytes, unsigned slot)
{
    uint64_t bytes = bdrv_luks_material_bytes(key_bytes);
    uint64_t area = (bytes + BDRV_LUKS_AREA_ALIGN - 1) / BDRV_LUKS_AREA_ALIGN * BDRV_LUKS_AREA_ALIGN;
    return BDRV_LUKS_AREA_ALIGN + slot * area;
}

bool bdrv_luks_probe(const uint8_t *buf, size_t bytes)
{
    return bytes >= H_CIPHER_NAME && memcmp(buf, magic, sizeof(magic)) == 0 && load_be16(buf + H_VERSION) == 1;
}

/* A string that fills its field to the last byte has no end. */
static bool take_text(const uint8_t *field, size_t bytes, const char *what, char *text, GError **errp)
{
    if (!memchr(field, '\0', bytes)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the LUKS header's %s is not ended by a zero byte", what);
        return false;
    }
    memcpy(text, field, bytes);
    text[bytes] = '\0';
    return true;
}

static bool check_iterations(uint32_t iterations, const char *what, GError **errp)
{
    if (iterations == 0 || iterations > BDRV_LUKS_MAX_ITERATIONS) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the LUKS header's %s is %" PRIu32 "; 1 to %u are supported", what,
                    iterations, BDRV_LUKS_MAX_ITERATIONS);
        return false;
    }
    return true;
}

static bool decode_slot(const uint8_t *buf, unsigned index, BdrvLuksSlot *slot, GError **errp)
{
    uint32_t active = load_be32(buf + S_ACTIVE);

    if (active != SLOT_ENABLED && active != SLOT_DISABLED) {
        g_set_error(errp, BDRV_ERROR, EINVAL,
                    "LUKS key slot %u has state 0x%08" PRIx32 "; it must be 0x%08x (enabled) or 0x%08x (disabled)",
                    index, active, SLOT_ENABLED, SLOT_DISABLED);
        return false;
    }
    *slot = (BdrvLuksSlot){ .active = active == SLOT_ENABLED,
                            .iterations = load_be32(buf + S_ITERATIONS),
                            .key_sector = load_be32(buf + S_KEY_SECTOR),
                            .stripes = load_be32(buf + S_STRIPES) };
    memcpy(slot->salt, buf + S_SALT, sizeof(slot->salt));
    g_autofree char *what = g_strdup_printf("iteration count of key slot %u", index);
    if (slot->active && !check_iterations(slot->iterations, what, errp)) {
        return false;
    }
    if (slot->active && slot->stripes != BDRV_LUKS_STRIPES) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "LUKS key slot %u has %" PRIu32 " stripes; only %u are supported", index,
                    slot->stripes, BDRV_LUKS_STRIPES);
        return false;
    }
    return true;
}

/* Key material lies between header and payload, each slot's by itself. */
static bool check_layout(const BdrvLuksHeader *h, GError **errp)
{
    uint64_t sectors = bdrv_luks_material_bytes(h->key_bytes) / BDRV_LUKS_SECTOR;
    uint64_t least = (BDRV_LUKS_HEADER_BYTES + BDRV_LUKS_SECTOR - 1) / BDRV_LUKS_SECTOR;

    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        uint64_t begin = h->slots[i].key_sector, end = begin + sectors;
        if (begin < least || end > h->payload_sector) {
            g_set_error(errp, BDRV_ERROR, EINVAL,
                        "key material of LUKS key slot %u is at sectors %" PRIu64 " to %" PRIu64
                        "; it must lie behind the header (sector %" PRIu64 ") and before the payload (sector %" PRIu32
                        ")",
                        i, begin, end, least, h->payload_sector);
            return false;
        }
        for (unsigned j = 0; j < i; j++) {
            uint64_t other = h->slots[j].key_sector;
            if (begin < other + sectors && other < end) {
                g_set_error(errp, BDRV_ERROR, EINVAL,
                            "key material of LUKS key slots %u and %u overlaps (sectors %" PRIu64 " and %" PRIu64
                            ", %" PRIu64 " each)",
                            j, i, other, begin, sectors);
                return false;
            }
        }
    }
    return true;
}

bool bdrv_luks_header_decode(const uint8_t *buf, size_t bytes, BdrvLuksHeader *h, GError **errp)
{
    if (bytes < BDRV_LUKS_HEADER_BYTES) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "a LUKS header has %u bytes; there are %zu", BDRV_LUKS_HEADER_BYTES,
                    bytes);
        return false;
    }
    if (memcmp(buf, magic, sizeof(magic)) != 0) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "Volume is not in LUKS format: the magic number is missing");
        return false;
    }
    if (load_be16(buf + H_VERSION) != 1) {
        g_set_error(errp, BDRV_ERROR, ENOTSUP, "LUKS version %u is not supported; 1 is", load_be16(buf + H_VERSION));
        return false;
    }
    *h = (BdrvLuksHeader){ .payload_sector = load_be32(buf + H_PAYLOAD),
                           .key_bytes = load_be32(buf + H_KEY_BYTES),
                           .digest_iterations = load_be32(buf + H_DIGEST_ITERATIONS) };
    memcpy(h->digest, buf + H_DIGEST, sizeof(h->digest));
    memcpy(h->digest_salt, buf + H_DIGEST_SALT, sizeof(h->digest_salt));
    if (!take_text(buf + H_CIPHER_NAME, NAME_BYTES, "cipher name", h->cipher_name, errp) ||
        !take_text(buf + H_CIPHER_MODE, NAME_BYTES, "cipher mode", h->cipher_mode, errp) ||
        !take_text(buf + H_HASH, NAME_BYTES, "hash name", h->hash, errp) ||
        !take_text(buf + H_UUID, UUID_BYTES, "UUID", h->uuid, errp) ||
        !check_iterations(h->digest_iterations, "iteration count of the key digest", errp)) {
        return false;
    }
    if (h->key_bytes == 0 || h->key_bytes > BDRV_CIPHER_MAX_KEY) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "the LUKS header's key length is %" PRIu32 " bytes; 1 to %u are possible",
                    h->key_bytes, BDRV_CIPHER_MAX_KEY);
        return false;
    }
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        if (!decode_slot(buf + H_SLOTS + i * SLOT_BYTES, i, &h->slots[i], errp)) {
            return false;
        }
    }
    return check_layout(h, errp);
}

static void put_text(uint8_t *field, size_t bytes, const char *text)
{
    memcpy(field, text, MIN(strlen(text), bytes - 1));
}

void bdrv_luks_header_encode(const BdrvLuksHeader *h, uint8_t *buf)
{
    memset(buf, 0, BDRV_LUKS_HEADER_BYTES);
    memcpy(buf, magic, sizeof(magic));
    store_be16(buf + H_VERSION, 1);
    put_text(buf + H_CIPHER_NAME, NAME_BYTES, h->cipher_name);
    put_text(buf + H_CIPHER_MODE, NAME_BYTES, h->cipher_mode);
    put_text(buf + H_HASH, NAME_BYTES, h->hash);
    put_text(buf + H_UUID, UUID_BYTES, h->uuid);
    store_be32(buf + H_PAYLOAD, h->payload_sector);
    store_be32(buf + H_KEY_BYTES, h->key_bytes);
    memcpy(buf + H_DIGEST, h->digest, sizeof(h->digest));
    memcpy(buf + H_DIGEST_SALT, h->digest_salt, sizeof(h->digest_salt));
    store_be32(buf + H_DIGEST_ITERATIONS, h->digest_iterations);
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        uint8_t *slot = buf + H_SLOTS + i * SLOT_BYTES;
        store_be32(slot + S_ACTIVE, h->slots[i].active ? SLOT_ENABLED : SLOT_DISABLED);
        store_be32(slot + S_ITERATIONS, h->slots[i].iterations);
        memcpy(slot + S_SALT, h->slots[i].salt, sizeof(h->slots[i].salt));
        store_be32(slot + S_KEY_SECTOR, h->slots[i].key_sector);
        store_be32(slot + S_STRIPES, h->slots[i].stripes);
    }
}
