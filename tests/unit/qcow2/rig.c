/* SPDX-License-Identifier: MIT */
#include "tests/unit/qcow2/rig.h"

#include <errno.h>

#include "block/registry/registry.h"
#include "config.h"
#include "drivers/qcow2/meta/meta.h"

static BdrvOptions *create_options(const RigImage *image)
{
    BdrvOptions *options = bdrv_options_new();
    bdrv_options_set_int(options, "size", image->size);
    if (image->cluster_size) {
        bdrv_options_set_int(options, "cluster_size", image->cluster_size);
    }
    if (image->refcount_bits) {
        bdrv_options_set_int(options, "refcount_bits", image->refcount_bits);
    }
    if (image->compat) {
        bdrv_options_set_string(options, "compat", image->compat);
    }
    if (image->preallocation) {
        bdrv_options_set_string(options, "preallocation", image->preallocation);
    }
    if (image->extended_l2) {
        bdrv_options_set_bool(options, "extended_l2", true);
    }
    if (image->data_file) {
        bdrv_options_set_string(options, "data_file", image->data_file);
        bdrv_options_set_bool(options, "data_file_raw", image->data_file_raw);
    }
    if (image->encrypt) {
        bdrv_options_set_string(options, "encrypt.format", image->encrypt);
        bdrv_options_set_string(options, "encrypt.key-secret", TEST_SECRET);
    }
    if (g_strcmp0(image->encrypt, "luks") == 0) { /* of the least key material */
        bdrv_options_set_string(options, "encrypt.cipher-alg", "aes-128");
        bdrv_options_set_string(options, "encrypt.cipher-mode", "cbc");
    }
    const BdrvOptionSpec *specs[] = { bdrv_find_format("qcow2")->create_options,
                                      (const BdrvOptionSpec[]){ { "size", BDRV_OPTION_SIZE }, { NULL } }, NULL };
    GError *error = NULL;
    bdrv_options_validate(options, specs, "qcow2", &error);
    g_assert_no_error(error);
    return options;
}

static BdrvChild *coroutine_fn open_disk(const char *disk)
{
    g_autofree char *options = g_strdup_printf("disk=%s", disk);
    return test_must_open("simdisk", options, NULL);
}

bool coroutine_fn rig_format(const RigImage *image, GError **errp)
{
    BdrvChild *file = open_disk(image->disk);
    g_autoptr(BdrvOptions) options = create_options(image);
    g_autofree char *filename = g_strconcat("simdisk:", image->disk, NULL);
    bool ok = bdrv_find_format("qcow2")->bdrv_create(filename, file, options, errp);
    test_close(file);
    return ok;
}

BdrvSimDisk *coroutine_fn rig_create(const RigImage *image)
{
    BdrvSimDisk *disk = bdrv_simdisk_new(image->disk, 0);
    g_assert_nonnull(disk);
    bdrv_simdisk_set_volatile(disk, false);
    GError *error = NULL;
    rig_format(image, &error);
    g_assert_no_error(error);
    bdrv_simdisk_set_volatile(disk, true);
    return disk;
}

Rig coroutine_fn rig_open(const char *disk, const char *options, BdrvChild *backing)
{
    Rig rig = { .child = test_must_open("qcow2", options ? options : "", open_disk(disk)), .backing = backing };
    if (backing) {
        test_set_backing(rig.child, backing);
    }
    return rig;
}

BdrvChild *coroutine_fn rig_backing(const char *disk, int64_t bytes, uint8_t fill)
{
    BdrvSimDisk *sim = bdrv_simdisk_new(disk, bytes);
    g_autofree uint8_t *buf = g_malloc((size_t)bytes);
    memset(buf, fill, (size_t)bytes);
    bdrv_simdisk_poke(sim, 0, buf, (size_t)bytes);
    BdrvChild *child = open_disk(disk);
    bdrv_simdisk_unref(sim); /* the node holds it */
    return child;
}

int coroutine_fn rig_close(Rig *rig)
{
    BlockDriverState *bs = rig->child->bs;
    if (bs->drv->bdrv_drain_begin) {
        bs->drv->bdrv_drain_begin(bs);
    }
    int ret = bs->drv->bdrv_close(bs);
    /* What test_close() does besides calling the driver. */
    static const BlockDriver closed = { .format_name = "closed" };
    bs->drv = &closed;
    test_close(rig->child);
    *rig = (Rig){ 0 };
    return ret;
}

int coroutine_fn rig_write(const Rig *rig, int64_t offset, int64_t bytes, uint8_t fill)
{
    g_autofree uint8_t *buf = g_malloc((size_t)bytes);
    memset(buf, fill, (size_t)bytes);
    return bdrv_co_pwrite(rig->child, offset, bytes, buf, 0);
}

int coroutine_fn rig_read(const Rig *rig, int64_t offset, int64_t bytes, uint8_t *buf)
{
    return bdrv_co_pread(rig->child, offset, bytes, buf, 0);
}

void coroutine_fn rig_assert_filled(const Rig *rig, int64_t offset, int64_t bytes, uint8_t fill)
{
    g_autofree uint8_t *buf = g_malloc((size_t)bytes);
    memset(buf, (uint8_t)~fill, (size_t)bytes);
    g_assert_cmpint(rig_read(rig, offset, bytes, buf), ==, 0);
    for (int64_t i = 0; i < bytes; i++) {
        if (buf[i] != fill) {
            g_error("byte %" G_GINT64_FORMAT " is 0x%02x, not 0x%02x", offset + i, buf[i], fill);
        }
    }
}

void coroutine_fn rig_verify(const Rig *rig)
{
#ifdef CONFIG_DEBUG_INVARIANTS
    BlockDriverState *bs = rig->child->bs;
    bs->drv->bdrv_drain_begin(bs);
    qcow2_meta_verify(bs, false);
    bs->drv->bdrv_drain_end(bs);
#endif
}

static void report(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    if (kind->severity == BDRV_CHECK_CORRUPTION || g_test_verbose()) {
        g_test_message("check: %s", text);
    }
}

int coroutine_fn rig_check_format(const char *format, const char *disk, bool quiet, BdrvCheckResult *result)
{
    GError *error = NULL;
    BdrvChild *file = open_disk(disk);
    BdrvChild *child = test_open(format, "", file, BDRV_O_CHECK, &error);
    if (!child) {
        int ret = -bdrv_error_code(error);
        g_test_message("check: cannot open: %s", error->message);
        g_error_free(error);
        test_close(file);
        return ret;
    }
    *result = (BdrvCheckResult){ .report = quiet ? NULL : report };
    int ret = child->bs->drv->bdrv_check(child->bs, result, BDRV_FIX_NONE);
    test_close(child);
    return ret;
}

int coroutine_fn rig_check(const char *disk, BdrvCheckResult *result)
{
    return rig_check_format("qcow2", disk, false, result);
}

int coroutine_fn rig_check_quietly(const char *disk, BdrvCheckResult *result)
{
    return rig_check_format("qcow2", disk, true, result);
}

void coroutine_fn rig_assert_clean(const char *disk)
{
    BdrvCheckResult result;
    g_assert_cmpint(rig_check(disk, &result), ==, 0);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpint(result.check_errors, ==, 0);
    g_assert_cmpint(result.leaks, ==, 0);
}
