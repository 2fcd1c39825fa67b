/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_LUKS_SPLIT_H
#define BDRV_CRYPTO_LUKS_SPLIT_H

/*
 * The anti-forensic splitter (LUKS1 on-disk format 1.2, section 2.4): a key spread over many stripes, so that
 * overwriting any one of them destroys it.
 */

#include <stdbool.h>

#include "block/crypto/hash.h"

/** bdrv_luks_split() - @key of @key_bytes to @stripes of the same size at @material
 * The random stripes are there already, the last one is made. 0 or -errno */
int bdrv_luks_split(const BdrvHash *hash, const uint8_t *key, size_t key_bytes, uint32_t stripes, uint8_t *material);

/** bdrv_luks_merge() - and back; 0 or -errno */
int bdrv_luks_merge(const BdrvHash *hash, const uint8_t *material, size_t key_bytes, uint32_t stripes, uint8_t *key);

#endif
