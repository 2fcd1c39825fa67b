/* SPDX-License-Identifier: MIT */
/* Hashes, ciphers and sectors: against published vectors, and back again. */

#include <bdrv/error.h>
#include <errno.h>
#include <string.h>

#include "block/crypto/luks-split.h"
#include "block/crypto/volume.h"
#include "config.h"
#include "tests/lib/test-node.h"

static void from_hex(const char *hex, uint8_t *bytes)
{
    for (; *hex; hex += 2) {
        *bytes++ = (uint8_t)(g_ascii_xdigit_value(hex[0]) << 4 | g_ascii_xdigit_value(hex[1]));
    }
}

static void assert_hex(const uint8_t *bytes, const char *hex)
{
    uint8_t wanted[128];
    from_hex(hex, wanted);
    g_assert_cmpmem(bytes, strlen(hex) / 2, wanted, strlen(hex) / 2);
}

static void digests(void)
{
    static const struct {
        const char *name, *of_abc;
    } cases[] = { /* RFC 1321, FIPS 180-2, the RIPEMD-160 paper */
        { "md5", "900150983cd24fb0d6963f7d28e17f72" },
        { "sha1", "a9993e364706816aba3e25717850c26c9cd0d89d" },
        { "sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7" },
        { "sha256", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
        { "ripemd160", "8eb208f7e05d987a9b044a8e98c6b087f15a0bfc" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GError *error = NULL;
        uint8_t digest[BDRV_HASH_MAX_BYTES];
        const BdrvHash *hash = bdrv_hash_find(cases[i].name, &error);
        g_assert_no_error(error);
        g_assert_cmpint(bdrv_hash_digest(hash, "a", 1, "bc", 2, digest), ==, 0);
        g_assert_cmpuint(bdrv_hash_bytes(hash), ==, strlen(cases[i].of_abc) / 2);
        assert_hex(digest, cases[i].of_abc);
    }
}

/* RFC 6070 */
static void key_derivation(void)
{
    const BdrvHash *sha1 = bdrv_hash_find("sha1", NULL);
    uint8_t key[25];

    g_assert_cmpint(bdrv_hash_pbkdf2(sha1, "password", 8, "salt", 4, 4096, key, 20), ==, 0);
    assert_hex(key, "4b007901b765489abead49d926f721d065a429c1");
    g_assert_cmpint(bdrv_hash_pbkdf2(sha1, "passwordPASSWORDpassword", 24, "saltSALTsaltSALTsaltSALTsaltSALTsalt", 36, 4096,
                                     key, 25), ==, 0);
    assert_hex(key, "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038");
    g_assert_cmpint(bdrv_hash_pbkdf2(sha1, "password", 8, "salt", 4, 0, key, 20), ==, -EINVAL);
}

/* One block each: FIPS 197, NESSIE for Serpent, the submission of Twofish, RFC 2144. */
static void ciphers(void)
{
    static const struct {
        const char *name, *key, *plain, *cipher;
    } cases[] = {
        { "aes-128", "000102030405060708090a0b0c0d0e0f", "00112233445566778899aabbccddeeff",
          "69c4e0d86a7b0430d8cdb78070b4c55a" },
        { "aes-192", "000102030405060708090a0b0c0d0e0f1011121314151617", "00112233445566778899aabbccddeeff",
          "dda97ca4864cdfe06eaf70a0ec0d7191" },
        { "aes-256", "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
          "00112233445566778899aabbccddeeff", "8ea2b7ca516745bfeafc49904b496089" },
#ifdef CONFIG_NETTLE
        { "twofish-128", "00000000000000000000000000000000", "00000000000000000000000000000000",
          "9f589f5cf6122c32b6bfec2f2ae8c35a" },
        { "serpent-128", "80000000000000000000000000000000", "00000000000000000000000000000000",
          "264e5481eff42a4606abda06c0bfda3d" },
        { "cast5-128", "0123456712345678234567893456789a", "0123456789abcdef", "238b4fe5847e44b2" },
#endif
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        GError *error = NULL;
        uint8_t key[BDRV_CIPHER_MAX_KEY], plain[16], out[16];
        const BdrvCipherAlgorithm *algorithm = bdrv_cipher_find(cases[i].name, &error);
        g_assert_no_error(error);
        from_hex(cases[i].key, key);
        from_hex(cases[i].plain, plain);
        BdrvCipher *cipher = bdrv_cipher_new(algorithm, BDRV_CIPHER_ECB, key);
        g_assert_nonnull(cipher);
        g_assert_cmpint(bdrv_cipher_crypt(cipher, true, NULL, plain, out, algorithm->block_bytes), ==, 0);
        assert_hex(out, cases[i].cipher);
        g_assert_cmpint(bdrv_cipher_crypt(cipher, false, NULL, out, out, algorithm->block_bytes), ==, 0);
        g_assert_cmpmem(out, algorithm->block_bytes, plain, algorithm->block_bytes);
        bdrv_cipher_free(cipher);
    }
}

/* IEEE 1619, XTS-AES-256, vector 10: a sector of 512 bytes, number 0xff. */
static void xts_sector(void)
{
    uint8_t key[64], in[512], out[512];
    char keys[129];
    BdrvVolumeSpec spec;
    GError *error = NULL;

    g_strlcpy(keys, "2718281828459045235360287471352662497757247093699959574966967627", sizeof(keys));
    g_strlcat(keys, "3141592653589793238462643383279502884197169399375105820974944592", sizeof(keys));
    from_hex(keys, key);
    for (unsigned i = 0; i < sizeof(in); i++) {
        in[i] = (uint8_t)i;
    }
    g_assert_true(bdrv_volume_spec_parse("aes", "xts-plain64", 64, &spec, &error));
    g_assert_no_error(error);
    BdrvVolume *volume = bdrv_volume_new(&spec, key, &error);
    g_assert_no_error(error);
    g_assert_cmpint(bdrv_volume_crypt(volume, true, 0xff * 512, in, out, sizeof(out)), ==, 0);
    assert_hex(out, "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b");
    g_assert_cmpint(bdrv_volume_crypt(volume, false, 0xff * 512, out, out, sizeof(out)), ==, 0);
    g_assert_cmpmem(out, sizeof(out), in, sizeof(in));
    bdrv_volume_free(volume);
}

static const char *const modes[] = { "xts-plain64", "cbc-plain", "cbc-plain64", "cbc-essiv:sha256", "ctr-plain64",
                                     "ecb-plain64", "xts-essiv:sha256" };

/* A buffer in odd pieces, out of place and in place, from many threads' lanes. */
static void coroutine_fn pieces(void)
{
    uint64_t seed = test_seed();
    enum { BYTES = 16 * 512 };
    uint8_t key[BDRV_CIPHER_MAX_KEY], plain[BYTES], whole[BYTES], split[BYTES], copy[BYTES];
    struct iovec vec[4] = { { copy, 100 }, { copy + 100, 1500 }, { copy + 1600, 512 }, { copy + 2112, BYTES - 2112 } };
    BdrvIov iov = bdrv_iov_init(vec, 4);

    for (unsigned i = 0; i < BYTES; i++) {
        plain[i] = (uint8_t)test_random(&seed);
        key[i % sizeof(key)] = (uint8_t)test_random(&seed);
    }
    for (unsigned m = 0; m < G_N_ELEMENTS(modes); m++) {
        GError *error = NULL;
        BdrvVolumeSpec spec;
        bool xts = g_str_has_prefix(modes[m], "xts");
        g_assert_true(bdrv_volume_spec_parse("aes", modes[m], xts ? 64 : 32, &spec, &error));
        g_assert_no_error(error);
        g_autofree char *text = bdrv_volume_spec_mode_text(&spec);
        g_assert_cmpstr(text, ==, modes[m]);
        BdrvVolume *volume = bdrv_volume_new(&spec, key, &error);
        g_assert_no_error(error);

        g_assert_cmpint(bdrv_volume_crypt(volume, true, 1 << 20, plain, whole, BYTES), ==, 0);
        memcpy(copy, plain, BYTES);
        g_assert_cmpint(bdrv_volume_co_encrypt(volume, 1 << 20, &iov, 0, BYTES, split), ==, 0);
        g_assert_cmpmem(split, BYTES, whole, BYTES);
        g_assert_cmpmem(copy, BYTES, plain, BYTES); /* what is encrypted stays as it was */

        memcpy(copy, whole, BYTES);
        g_assert_cmpint(bdrv_volume_co_decrypt(volume, (1 << 20) + 512, &iov, 512, BYTES - 512), ==, 0);
        g_assert_cmpmem(copy + 512, BYTES - 512, plain + 512, BYTES - 512);
        bdrv_volume_free(volume);
    }
}

static void refusals(void)
{
    static const struct {
        const char *cipher, *mode;
        size_t key_bytes;
        const char *says;
    } cases[] = {
        { "aes", "xts", 64, "names no IV generator" },
        { "aes", "cfb-plain64", 32, "cipher mode 'cfb' is unknown" },
        { "aes", "cbc-benbi", 32, "IV generator 'benbi' is unknown" },
        { "aes", "cbc-essiv", 32, "needs a hash" },
        { "aes", "cbc-essiv:whirlpool", 32, "hash 'whirlpool' is unknown" },
        { "aes", "cbc-essiv:sha1", 32, "'sha1' has 20 bytes" },
        { "aes", "cbc-plain64", 20, "a key of 20 bytes" },
        { "camellia", "cbc-plain64", 32, "cipher 'camellia'" },
#ifdef CONFIG_NETTLE
        { "cast5", "xts-plain64", 32, "64 bits" },
#else
        { "twofish", "xts-plain64", 64, "built without nettle" },
        { "aes", "xts-plain64", 48, "built without nettle" },
#endif
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        BdrvVolumeSpec spec;
        g_assert_false(bdrv_volume_spec_parse(cases[i].cipher, cases[i].mode, cases[i].key_bytes, &spec, &error));
        g_assert_nonnull(strstr(error->message, cases[i].says));
    }
}

static void splitter(void)
{
    const BdrvHash *hash = bdrv_hash_find("sha256", NULL);
    uint64_t seed = test_seed();
    enum { KEY = 64, STRIPES = 50 };
    uint8_t key[KEY], back[KEY], material[KEY * STRIPES];

    for (unsigned i = 0; i < sizeof(material); i++) {
        material[i] = (uint8_t)test_random(&seed);
        key[i % KEY] = (uint8_t)test_random(&seed);
    }
    g_assert_cmpint(bdrv_luks_split(hash, key, KEY, STRIPES, material), ==, 0);
    g_assert_cmpint(bdrv_luks_merge(hash, material, KEY, STRIPES, back), ==, 0);
    g_assert_cmpmem(back, KEY, key, KEY);
    material[KEY * 7] ^= 1;
    g_assert_cmpint(bdrv_luks_merge(hash, material, KEY, STRIPES, back), ==, 0);
    g_assert_cmpint(memcmp(back, key, KEY), !=, 0);
}

static void run_pieces(void)
{
    test_run(pieces);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/crypto/digests are those of the standards", digests);
    g_test_add_func("/crypto/pbkdf2 is that of RFC 6070", key_derivation);
    g_test_add_func("/crypto/ciphers are those of the standards", ciphers);
    g_test_add_func("/crypto/a sector in xts is that of IEEE 1619", xts_sector);
    g_test_add_func("/crypto/a buffer in odd pieces is encrypted as a whole one", run_pieces);
    g_test_add_func("/crypto/what is unknown or does not fit is refused by name", refusals);
    g_test_add_func("/crypto/a key comes back from its stripes, and not if one is damaged", splitter);
    return g_test_run();
}
