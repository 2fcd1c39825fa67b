/* SPDX-License-Identifier: MIT */
#include "tests/crash/keys.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <string.h>

#define HEADER 592
#define SLOTS 8
#define ENABLED 0x00ac71f3
#define STRIPES 4000
#define MATERIAL (KEYS_BYTES * STRIPES)
#define SALT 32
#define DIGEST 20

static uint32_t be32(const uint8_t *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

/* ---- one slot ---- */

static void pbkdf2(const void *secret, size_t bytes, const uint8_t *salt, uint32_t iterations, uint8_t *out,
                   int out_bytes)
{
    g_assert_true(PKCS5_PBKDF2_HMAC(secret, (int)bytes, salt, SALT, (int)iterations, EVP_sha256(), out_bytes, out));
}

/* AES in CBC mode, sectors count from 0: their number is the vector. */
static void decrypt(const uint8_t *key, const uint8_t *in, uint8_t *out)
{
    EVP_CIPHER_CTX *aes = EVP_CIPHER_CTX_new();
    g_assert_true(EVP_DecryptInit_ex(aes, EVP_aes_128_cbc(), NULL, key, NULL));
    for (uint32_t n = 0; n < MATERIAL / 512; n++) {
        uint8_t iv[16] = { (uint8_t)n };
        int bytes;
        EVP_CIPHER_CTX_set_padding(aes, 0);
        g_assert_true(EVP_DecryptInit_ex(aes, NULL, NULL, NULL, iv) &&
                      EVP_DecryptUpdate(aes, out + n * 512, &bytes, in + n * 512, 512));
    }
    EVP_CIPHER_CTX_free(aes);
}

/* The sum of the stripes, hashed after each but the last one. */
static void merge(const uint8_t *material, uint8_t *key)
{
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_MD *sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    memset(key, 0, KEYS_BYTES);
    for (unsigned stripe = 0; stripe < STRIPES; stripe++) {
        const uint8_t number[4] = { 0 };
        uint8_t digest[32];
        for (unsigned i = 0; i < KEYS_BYTES; i++) {
            key[i] ^= material[stripe * KEYS_BYTES + i];
        }
        if (stripe < STRIPES - 1) {
            g_assert_true(EVP_DigestInit_ex(ctx, sha256, NULL) && EVP_DigestUpdate(ctx, number, sizeof(number)) &&
                          EVP_DigestUpdate(ctx, key, KEYS_BYTES) && EVP_DigestFinal_ex(ctx, digest, NULL));
            memcpy(key, digest, KEYS_BYTES);
        }
    }
    EVP_MD_free(sha256);
    EVP_MD_CTX_free(ctx);
}

static bool opens(const uint8_t *area, const uint8_t *slot, const char *secret, uint8_t *key)
{
    const uint8_t *material = area + (uint64_t)be32(slot + 40) * 512;
    uint8_t derived[KEYS_BYTES], digest[DIGEST];
    g_autofree uint8_t *plain = g_malloc(MATERIAL);
    pbkdf2(secret, strlen(secret), slot + 8, be32(slot + 4), derived, KEYS_BYTES);
    decrypt(derived, material, plain);
    merge(plain, key);
    pbkdf2(key, KEYS_BYTES, area + 132, be32(area + 164), digest, DIGEST);
    return memcmp(digest, area + 112, DIGEST) == 0;
}

/* ---- all of them ---- */

static bool is_active(const uint8_t *slot)
{
    return be32(slot) == ENABLED;
}

/* What the header says that the parser of the above takes as given. */
static bool is_sound(const uint8_t *area, uint64_t bytes)
{
    static const uint8_t magic[] = { 'L', 'U', 'K', 'S', 0xba, 0xbe, 0, 1 };
    if (bytes < HEADER || memcmp(area, magic, sizeof(magic)) != 0 || strncmp((const char *)area + 8, "aes", 32) != 0 ||
        strncmp((const char *)area + 40, "cbc-plain64", 32) != 0 || strncmp((const char *)area + 72, "sha256", 32) != 0 ||
        be32(area + 108) != KEYS_BYTES || !be32(area + 164)) {
        return false;
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        const uint8_t *slot = area + 208 + i * 48;
        uint64_t begin = (uint64_t)be32(slot + 40) * 512;
        if ((!is_active(slot) && be32(slot) != 0xdead) || begin < HEADER || begin + MATERIAL > bytes ||
            (is_active(slot) && (!be32(slot + 4) || be32(slot + 44) != STRIPES))) {
            return false;
        }
    }
    return true;
}

static void judge(Keys *keys, const uint8_t *area)
{
    for (unsigned i = 0; i < SLOTS; i++) {
        const uint8_t *slot = area + 208 + i * 48;
        for (unsigned secret = 0; secret < TEST_SECRETS && is_active(slot); secret++) {
            uint8_t key[KEYS_BYTES];
            if (opens(area, slot, test_passphrases[secret], key)) {
                keys->opens[secret] = 1;
                memcpy(keys->key, key, sizeof(key));
            }
        }
    }
    if (!memchr(keys->opens, 1, sizeof(keys->opens))) {
        g_strlcpy(keys->fault, "no secret opens the image any more", sizeof(keys->fault));
    }
}

/* Of the header and of what its slots refer to: the rest is noise. */
static char *digest_of(const uint8_t *area)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA1);
    g_checksum_update(sum, area, HEADER);
    for (unsigned i = 0; i < SLOTS; i++) {
        const uint8_t *slot = area + 208 + i * 48;
        if (is_active(slot)) {
            g_checksum_update(sum, area + (uint64_t)be32(slot + 40) * 512, MATERIAL);
        }
    }
    return g_strdup(g_checksum_get_string(sum));
}

GHashTable *keys_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

Keys *keys_of(GHashTable *known, const uint8_t *area, uint64_t bytes)
{
    bool sound = is_sound(area, bytes);
    g_autofree char *digest = sound ? digest_of(area) : g_strdup("unsound");
    Keys *keys = g_hash_table_lookup(known, digest);
    if (keys) {
        return keys;
    }
    keys = g_new0(Keys, 1);
    if (sound) {
        judge(keys, area);
    } else {
        g_strlcpy(keys->fault, "the LUKS header is damaged", sizeof(keys->fault));
    }
    g_hash_table_insert(known, g_steal_pointer(&digest), keys);
    return keys;
}
