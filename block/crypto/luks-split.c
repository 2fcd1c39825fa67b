/* SPDX-License-Identifier: MIT */
#include "block/crypto/luks-split.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>

#include "block/crypto/cipher.h"
#include "block/util/bytes.h"

/* Each piece of a digest's length becomes the hash of its number and itself. */
static int diffuse(const BdrvHash *hash, uint8_t *block, size_t bytes)
{
    uint8_t digest[BDRV_HASH_MAX_BYTES], number[4];
    size_t step = bdrv_hash_bytes(hash);
    int ret = 0;

    for (size_t at = 0, i = 0; at < bytes && ret == 0; at += step, i++) {
        size_t piece = MIN(step, bytes - at);
        store_be32(number, (uint32_t)i);
        ret = bdrv_hash_digest(hash, number, sizeof(number), block + at, piece, digest);
        memcpy(block + at, digest, piece);
    }
    OPENSSL_cleanse(digest, sizeof(digest));
    return ret;
}

static void xor_into(uint8_t *into, const uint8_t *from, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        into[i] ^= from[i];
    }
}

/* All stripes but the last one, folded into @block. */
static int fold(const BdrvHash *hash, const uint8_t *material, size_t key_bytes, uint32_t stripes, uint8_t *block)
{
    int ret = 0;
    memset(block, 0, key_bytes);
    for (uint32_t i = 0; i + 1 < stripes && ret == 0; i++) {
        xor_into(block, material + i * key_bytes, key_bytes);
        ret = diffuse(hash, block, key_bytes);
    }
    return ret;
}

int bdrv_luks_split(const BdrvHash *hash, const uint8_t *key, size_t key_bytes, uint32_t stripes, uint8_t *material)
{
    uint8_t *last = material + (stripes - 1) * key_bytes;
    int ret = fold(hash, material, key_bytes, stripes, last);
    xor_into(last, key, key_bytes);
    return ret;
}

int bdrv_luks_merge(const BdrvHash *hash, const uint8_t *material, size_t key_bytes, uint32_t stripes, uint8_t *key)
{
    int ret = fold(hash, material, key_bytes, stripes, key);
    xor_into(key, material + (stripes - 1) * key_bytes, key_bytes);
    return ret;
}
