/* SPDX-License-Identifier: MIT */
#ifndef BDRV_CRYPTO_HASH_H
#define BDRV_CRYPTO_HASH_H

/* Hashes by the names of qemu-img and LUKS: md5 sha1 sha224 sha256 sha384 sha512 ripemd160. By libcrypto. */

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BDRV_HASH_MAX_BYTES 64u

typedef struct BdrvHash BdrvHash;

/** bdrv_hash_find() - ENOTSUP names those there are, or says that libcrypto has it not */
const BdrvHash *bdrv_hash_find(const char *name, GError **errp);

const char *bdrv_hash_name(const BdrvHash *hash);

/** bdrv_hash_bytes() - length of a digest, at most BDRV_HASH_MAX_BYTES */
size_t bdrv_hash_bytes(const BdrvHash *hash);

/** bdrv_hash_digest() - of @prefix and then @data; 0, -ENOMEM, -EIO */
int bdrv_hash_digest(const BdrvHash *hash, const void *prefix, size_t prefix_bytes, const void *data, size_t bytes,
                     uint8_t *digest);

/** bdrv_hash_pbkdf2() - derive a key from a passphrase (RFC 8018, HMAC with @hash); 0, -ENOMEM, -EIO
 * Takes as long as @iterations want: in a worker. */
int bdrv_hash_pbkdf2(const BdrvHash *hash, const void *passphrase, size_t passphrase_bytes, const void *salt,
                     size_t salt_bytes, uint32_t iterations, uint8_t *key, size_t key_bytes);

#endif
