/* SPDX-License-Identifier: MIT */
/* LUKS headers and key slots, on a file in memory. */

#include <bdrv/error.h>
#include <errno.h>
#include <string.h>

#include "block/crypto/luks.h"
#include "block/util/bytes.h"
#include "tests/lib/test-node.h"

enum { AREA = 3 << 20 };

/* Header and key material. */
static uint8_t area[AREA];
static unsigned writes, flushes, fail_write;
static size_t torn; /* bytes that the write that fails writes */

static int coroutine_fn area_read(void *opaque, uint64_t offset, void *buf, size_t bytes)
{
    memcpy(buf, area + offset, bytes);
    return 0;
}

static int coroutine_fn area_write(void *opaque, uint64_t offset, const void *buf, size_t bytes)
{
    if (++writes == fail_write) {
        memcpy(area + offset, buf, MIN(bytes, torn));
        return -EIO;
    }
    memcpy(area + offset, buf, bytes);
    return 0;
}

static int coroutine_fn area_flush(void *opaque)
{
    flushes++;
    return 0;
}

static const BdrvLuksIo io = { area_read, area_write, area_flush, NULL };

static BdrvPassphrase phrase(const char *text)
{
    return (BdrvPassphrase){ (const uint8_t *)text, strlen(text) };
}

static void coroutine_fn make(const char *text)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, NULL);
    BdrvLuksCreate create;
    GError *error = NULL;

    memset(area, 0, sizeof(area));
    writes = flushes = fail_write = 0;
    g_assert_true(bdrv_luks_create_parse(options, &create, &error));
    g_assert_no_error(error);
    g_assert_true(bdrv_luks_create(&io, &create, phrase("first"), &error));
    g_assert_no_error(error);
}

static BdrvLuks coroutine_fn load(void)
{
    BdrvLuks luks;
    GError *error = NULL;
    g_assert_true(bdrv_luks_load(&luks, &io, &error));
    g_assert_no_error(error);
    return luks;
}

/* Whether @text opens the volume; a sector of it encrypted goes to @probe. */
static bool coroutine_fn opens(const BdrvLuks *luks, const char *text, uint8_t *probe)
{
    static const uint8_t zeroes[512];
    g_autoptr(GError) error = NULL;
    BdrvVolume *volume = bdrv_luks_unlock(luks, &io, phrase(text), &error);

    if (!volume) {
        g_assert_error(error, BDRV_ERROR, EACCES);
        return false;
    }
    if (probe) {
        g_assert_cmpint(bdrv_volume_crypt(volume, true, 0, zeroes, probe, 512), ==, 0);
    }
    bdrv_volume_free(volume);
    return true;
}

static void coroutine_fn keys(void)
{
    uint8_t one[512], two[512];
    GError *error = NULL;

    make("");
    BdrvLuks luks = load();
    g_assert_true(opens(&luks, "first", one));
    g_assert_false(opens(&luks, "second", NULL));
    g_assert_false(bdrv_luks_add_key(&luks, &io, phrase("wrong"), phrase("second"), -1, 1, false, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
    flushes = 0;
    g_assert_true(bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("second"), -1, 1, false, &error));
    g_assert_cmpuint(flushes, ==, 2);
    g_assert_true(bdrv_luks_add_key(&luks, &io, phrase("second"), phrase("third"), 7, 1, false, &error));
    luks = load();
    g_assert_true(luks.header.slots[1].active && luks.header.slots[7].active);
    g_assert_true(opens(&luks, "second", two));
    g_assert_cmpmem(one, sizeof(one), two, sizeof(two));
    g_assert_true(opens(&luks, "third", two));
    g_assert_cmpmem(one, sizeof(one), two, sizeof(two));

    g_assert_false(bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("other"), 7, 1, false, &error));
    g_assert_error(error, BDRV_ERROR, EEXIST);
    g_clear_error(&error);
    g_assert_true(bdrv_luks_erase_key(&luks, &io, phrase("first"), -1, false, &error));
    g_assert_no_error(error);
    luks = load();
    g_assert_false(opens(&luks, "first", NULL));
    g_assert_true(opens(&luks, "third", NULL));
    g_assert_false(bdrv_luks_erase_key(&luks, &io, phrase("first"), -1, false, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
}

static void coroutine_fn last_key(void)
{
    GError *error = NULL;

    make("");
    BdrvLuks luks = load();
    g_assert_false(bdrv_luks_erase_slot(&luks, &io, 0, false, &error));
    g_assert_error(error, BDRV_ERROR, EPERM);
    g_clear_error(&error);
    g_assert_false(bdrv_luks_erase_key(&luks, &io, phrase("first"), -1, false, &error));
    g_assert_error(error, BDRV_ERROR, EPERM);
    g_clear_error(&error);
    g_assert_true(opens(&luks, "first", NULL));
    g_assert_true(bdrv_luks_erase_slot(&luks, &io, 0, true, &error));
    luks = load();
    g_assert_false(opens(&luks, "first", NULL));
}

/* Each write of an added key fails in turn: those that were there open the volume all the same. */
static void coroutine_fn added_in_vain(void)
{
    for (unsigned n = 1; n <= 2; n++) {
        GError *error = NULL;
        make("");
        BdrvLuks luks = load();
        writes = 0;
        fail_write = n;
        g_assert_false(bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("second"), -1, 1, false, &error));
        g_assert_error(error, BDRV_ERROR, EIO);
        g_clear_error(&error);
        g_assert_false(luks.header.slots[1].active);
        luks = load();
        g_assert_true(opens(&luks, "first", NULL));
        fail_write = 0;
        g_assert_true(bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("second"), -1, 1, false, &error));
        g_assert_true(opens(&luks, "second", NULL));
    }
}

/* The power is lost at each write of a forced replacement, or in the middle of it: one of both keys opens the volume. */
static void coroutine_fn replaced_in_vain(void)
{
    bool done = false;
    unsigned n;
    for (n = 0; !done; n++) {
        g_autoptr(GError) error = NULL;
        make("");
        BdrvLuks luks = load();
        writes = 0;
        fail_write = n / 2 + 1;
        torn = n % 2 * 512;
        done = bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("second"), 0, 1, true, &error);
        luks = load();
        g_assert_true(opens(&luks, "second", NULL) || opens(&luks, "first", NULL));
    }
    torn = 0;
    g_assert_cmpuint(n, ==, 2 * 6 + 1); /* key material and header of: the spare slot, the slot, the spare slot again */
    BdrvLuks luks = load();
    g_assert_false(opens(&luks, "first", NULL));
    for (unsigned i = 0; i < BDRV_LUKS_SLOTS; i++) {
        g_assert_cmpint(luks.header.slots[i].active, ==, i == 0);
    }
}

static void coroutine_fn slots_named(void)
{
    GError *error = NULL;
    make("");
    BdrvLuks luks = load();
    g_assert_false(bdrv_luks_erase_slot(&luks, &io, 3, false, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_clear_error(&error);
    g_assert_true(bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("second"), 3, 1, false, &error));
    g_assert_false(bdrv_luks_erase_key(&luks, &io, phrase("first"), 3, false, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_clear_error(&error);
    g_assert_true(bdrv_luks_erase_key(&luks, &io, phrase("first"), 0, false, &error));
    g_assert_false(bdrv_luks_erase_key(&luks, &io, phrase("second"), 3, false, &error));
    g_assert_error(error, BDRV_ERROR, EPERM);
    g_clear_error(&error);
    g_assert_true(opens(&luks, "second", NULL));
}

static void coroutine_fn no_room(void)
{
    GError *error = NULL;
    make("cipher-alg=aes-128,cipher-mode=cbc");
    BdrvLuks luks = load();
    for (unsigned i = 1; i < BDRV_LUKS_SLOTS; i++) {
        g_assert_true(bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("again"), -1, 1, false, &error));
    }
    g_assert_false(bdrv_luks_add_key(&luks, &io, phrase("first"), phrase("again"), -1, 1, false, &error));
    g_assert_error(error, BDRV_ERROR, ENOSPC);
    g_clear_error(&error);
}

/* A field damaged at a time. */
static void coroutine_fn hostile(void)
{
    static const struct {
        unsigned at, bytes;
        uint32_t value;
        const char *says;
    } cases[] = {
        { 0, 1, 'l', "magic number" },
        { 6, 2, 2, "LUKS version 2" },
        { 104, 4, 8, "key material of LUKS key slot 0" },
        { 108, 4, 0, "key length is 0" },
        { 108, 4, 65, "key length is 65" },
        { 164, 4, 0, "iteration count of the key digest is 0" },
        { 164, 4, 0xffffffff, "iteration count of the key digest is 4294967295" },
        { 208, 4, 1, "key slot 0 has state 0x00000001" },
        { 208 + 4, 4, 0xffffffff, "iteration count of key slot 0 is 4294967295" },
        { 208 + 40, 4, 1, "key material of LUKS key slot 0" },
        { 208 + 40, 4, 0xffffffff, "key material of LUKS key slot 0" },
        { 208 + 48 + 40, 4, 8, "overlaps" },
        { 208 + 44, 4, 0x7fffffff, "2147483647 stripes" },
    };
    make("");
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        uint8_t saved[BDRV_LUKS_HEADER_BYTES], bytes[4];
        g_autoptr(GError) error = NULL;
        BdrvLuks luks;
        memcpy(saved, area, sizeof(saved));
        store_be32(bytes, cases[i].value);
        memcpy(area + cases[i].at, bytes + 4 - cases[i].bytes, cases[i].bytes);
        g_assert_false(bdrv_luks_load(&luks, &io, &error));
        if (!strstr(error->message, cases[i].says)) {
            g_error("case %u: %s", i, error->message);
        }
        memcpy(area, saved, sizeof(saved));
    }
    memset(area + 8, 'a', 32);
    BdrvLuks luks;
    g_autoptr(GError) error = NULL;
    g_assert_false(bdrv_luks_load(&luks, &io, &error));
    g_assert_nonnull(strstr(error->message, "cipher name is not ended"));
}

static void add(const char *name, void (*func)(void))
{
    g_test_add_data_func(name, func, (GTestDataFunc)test_run);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    add("/luks/keys are added and erased, and all open the same volume", keys);
    add("/luks/the last key is erased by force only", last_key);
    add("/luks/adding a key that fails harms nothing", added_in_vain);
    add("/luks/a key that is replaced is there until the new one is", replaced_in_vain);
    add("/luks/a slot that is named is erased if it is used and not the last", slots_named);
    add("/luks/a ninth key has no place", no_room);
    add("/luks/a damaged header is refused, naming the field", hostile);
    return g_test_run();
}
