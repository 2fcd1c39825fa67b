/* SPDX-License-Identifier: MIT */
/* Creating images: what is in them, what is refused, and what failures and power loss leave. */

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

#include "config.h"
#include "drivers/qcow2/qcow2.h"
#include "tests/lib/test-node.h"
#include "tests/unit/qcow2/stand.h"

#define QCOW2_MAGIC 0x514649fbu

static BdrvCheckResult check(const char *name)
{
    BdrvCheckResult result = { 0 };
    GError *error = NULL;
    BlockBackend *blk = stand_must_open(name, NULL, BDRV_O_CHECK | BDRV_O_NO_BACKING);
    g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, &error));
    g_assert_no_error(error);
    stand_close(blk);
    return result;
}

static void test_header(void)
{
    static const struct {
        const char *options;
        uint64_t version, cluster_bits, size, l1_size, refcount_order, header_length, incompatible;
    } cases[] = {
        { "size=10M", 3, 16, 10 << 20, 1, 4, 112, 0 },
        { "size=1G", 3, 16, 1 << 30, 2, 4, 112, 0 },
        { "size=0", 3, 16, 0, 0, 4, 112, 0 },
        { "size=1000", 3, 16, 1024, 1, 4, 112, 0 },
        { "size=1G,compat=0.10", 2, 16, 1 << 30, 2, 0, 0, 0 },
        { "size=1G,compat=v2", 2, 16, 1 << 30, 2, 0, 0, 0 },
        { "size=1G,compat=v3,cluster_size=2M,refcount_bits=64", 3, 21, 1 << 30, 1, 6, 112, 0 },
        { "size=1M,cluster_size=512,refcount_bits=1", 3, 9, 1 << 20, 32, 0, 112, 0 },
#ifdef CONFIG_LIBZSTD
        { "size=1M,compression_type=zstd", 3, 16, 1 << 20, 1, 4, 112, 1 << 3 },
#endif
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s", cases[i].options);
        stand_create("c", cases[i].options);
        g_assert_cmphex(stand_get("c", 0, 4), ==, QCOW2_MAGIC);
        g_assert_cmpuint(stand_get("c", 4, 4), ==, cases[i].version);
        g_assert_cmpuint(stand_get("c", 20, 4), ==, cases[i].cluster_bits);
        g_assert_cmpuint(stand_get("c", 24, 8), ==, cases[i].size);
        g_assert_cmpuint(stand_get("c", 36, 4), ==, cases[i].l1_size);
        if (cases[i].version == 3) {
            g_assert_cmpuint(stand_get("c", 72, 8), ==, cases[i].incompatible);
            g_assert_cmpuint(stand_get("c", 96, 4), ==, cases[i].refcount_order);
            g_assert_cmpuint(stand_get("c", 100, 4), ==, cases[i].header_length);
            g_assert_cmpuint(stand_get("c", 104, 1), ==, cases[i].incompatible ? 1 : 0);
        }
        BdrvCheckResult result = check("c");
        g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
        stand_forget("c");
    }
}

static void test_every_geometry(void)
{
    static const char *const cluster_sizes[] = { "512", "4k", "64k", "2M" };
    static const char *const preallocs[] = { "off", "metadata" };
    for (unsigned c = 0; c < G_N_ELEMENTS(cluster_sizes); c++) {
        for (unsigned bits = 1; bits <= 64; bits *= 2) {
            for (unsigned p = 0; p < G_N_ELEMENTS(preallocs); p++) {
                g_autofree char *options =
                    g_strdup_printf("size=1500k,cluster_size=%s,refcount_bits=%u,preallocation=%s",
                                    cluster_sizes[c], bits, preallocs[p]);
                stand_create("c", options);
                BdrvCheckResult result = check("c");
                g_test_message("%s: ends at %" G_GINT64_FORMAT, options, result.image_end_offset);
                g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
                g_assert_cmpint(result.allocated_clusters, ==, p ? result.total_clusters : 0);
                g_assert_cmpint(result.fragmented_clusters, ==, 0);
                g_assert_cmpint(stand_length("c"), <=, result.image_end_offset);
                stand_forget("c");
            }
        }
    }
}

/* In a real file: the disk in memory does not know reserved space. */
static void test_reserved_space(void)
{
    static const char *const preallocs[] = { "falloc", "full" };
    g_autofree char *directory = g_dir_make_tmp("qcow2-create-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(directory, "image", NULL);
    for (unsigned p = 0; p < G_N_ELEMENTS(preallocs); p++) {
        GError *error = NULL;
        BdrvOptions *options = bdrv_options_new();
        bdrv_options_set_string(options, "preallocation", preallocs[p]);
        bdrv_options_set_int(options, "size", 3 << 20);
        bdrv_create_image(stand_graph(), "qcow2", file, options, &error);
        g_assert_no_error(error);
        BdrvOptions *driver = bdrv_options_new();
        bdrv_options_set_string(driver, "driver", "qcow2");
        BlockBackend *blk = blk_open(stand_graph(), file, driver, BDRV_O_CHECK, &error);
        g_assert_no_error(error);
        BdrvCheckResult result = { 0 };
        g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, &error));
        g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
        g_assert_cmpint(result.allocated_clusters, ==, 48);
        g_assert_cmpint(blk_allocated_size(blk), >=, 3 << 20);
        stand_close(blk);
    }
    g_remove(file);
    g_rmdir(directory);
}

static void test_backing(void)
{
    stand_create("base", "size=3M");
    stand_create("c", "backing_file=simdisk:base,backing_fmt=qcow2");
    g_assert_cmpuint(stand_get("c", 24, 8), ==, 3 << 20); /* size of the base */
    stand_create("c", "size=5M,backing_file=simdisk:base,backing_fmt=qcow2,compat=0.10");
    g_assert_cmpuint(stand_get("c", 24, 8), ==, 5 << 20);
    g_assert_cmpuint(stand_get("c", 16, 4), ==, strlen("simdisk:base"));
    g_assert_cmphex(stand_get("c", 72, 4), ==, 0xe2792aca);
    g_assert_cmphex(stand_get("c", (int64_t)stand_get("c", 8, 8), 8), ==, UINT64_C(0x73696d6469736b3a));
    stand_forget("c");
    stand_forget("base");
}

static void test_refused(void)
{
    static const struct {
        const char *options;
        int code;
        const char *text;
    } cases[] = {
        { "cluster_size=64k", EINVAL, "*needs a size parameter*" },
        { "size=1M,cluster_size=256", EINVAL, "*cluster_size 256 *power of two between 512 and 2048k*" },
        { "size=1M,cluster_size=3k", EINVAL, "*cluster_size 3072 *" },
        { "size=1M,cluster_size=4M", EINVAL, "*cluster_size 4194304 *" },
        { "size=1M,refcount_bits=3", EINVAL, "*refcount_bits 3 *" },
        { "size=1M,refcount_bits=128", EINVAL, "*refcount_bits 128 *" },
        { "size=1M,refcount_bits=0", EINVAL, "*refcount_bits 0 *" },
        { "size=1M,refcount_bits=8,compat=0.10", EINVAL, "*compatibility level 1.1*" },
        { "size=1M,compat=0.9", EINVAL, "*compat '0.9' is unknown*" },
        { "size=1M,compression_type=lzo", EINVAL, "*compression_type 'lzo' is unknown*" },
        { "size=1M,preallocation=some", EINVAL, "*some*" },
        { "size=200G,cluster_size=512", EFBIG, "*too large for file format 'qcow2'*larger cluster size*" },
        { "size=7E,cluster_size=2M", EFBIG, "*too large for file format 'qcow2'*" },
        { "size=1M,backing_fmt=raw", EINVAL, "*backing_fmt cannot be used without backing_file*" },
        { "size=1M,backing_file=simdisk:x", EINVAL, "*without backing format*" },
        { "size=1M,backing_file=simdisk:x,backing_fmt=raw,preallocation=full", EINVAL,
          "*preallocation=full*" },
        { "backing_file=simdisk:none,backing_fmt=qcow2", ENOENT,
          "*cannot get the size of backing file 'simdisk:none'*" },
        { "size=1M,compat=0.10,lazy_refcounts=on", EINVAL, "*Lazy refcounts only supported with compatibility level*" },
        { "size=1M,extended_l2=on,cluster_size=8k", EINVAL, "*cluster sizes of at least 16384 bytes, not 8192*" },
        { "size=1M,extended_l2=on,compat=0.10", EINVAL, "*compatibility level 1.1*" },
        { "size=1M,encryption=on", ENOKEY, "*'encrypt.key-secret' is required*" },
        { "size=1M,encrypt.format=luks", ENOKEY, "*'encrypt.key-secret' is required*" },
        { "size=1M,encrypt.format=rot13,encrypt.key-secret=s", EINVAL, "*'rot13' is unknown; 'aes' and 'luks'*" },
        { "size=1M,encrypt.format=luks,encrypt.key-secret=none", ENOENT, "*none*" },
        { "size=1M,encrypt.key-secret=s", EINVAL, "*'encrypt.format' is missing*" },
        { "size=1M,encryption=on,encrypt.format=aes", EINVAL, "*alias*" },
        { "size=1M,data_file_raw=on", EINVAL, "*data_file_raw=on requires data_file*" },
        { "size=1M,data_file=d,compat=0.10", EINVAL, "*External data files*compatibility level 1.1*" },
        { "size=1M,data_file=nbd:d", EACCES, "*data file name 'nbd:d' is not that of a local file*" },
        { "size=1M,data_file=json:{}", EACCES, "*data file name 'json:{}' is not that of a local file*" },
        { "size=1M,data_file=", EACCES, "*data file name '' is not that of a local file*" },
        { "size=1M,data_file=d,data_file_raw=on,backing_file=simdisk:x,backing_fmt=raw", EINVAL,
          "*backing_file and data_file_raw=on cannot be used at the same time*" },
        { "size=1M,unheard_of=1", EINVAL, "*unheard_of*" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        int code;
        g_autofree char *message = stand_create_error("c", cases[i].options, &code);
        g_test_message("%s: %s", cases[i].options, message);
        g_assert_true(stand_matches(cases[i].text, message));
        g_assert_cmpint(code, ==, cases[i].code);
    }
}

static void test_long_backing_name(void)
{
    g_autofree char *name = g_strnfill(1023, 'x');
    g_autofree char *fits = g_strdup_printf("size=1M,backing_file=%s,backing_fmt=raw", name);
    g_autofree char *small =
        g_strdup_printf("size=1M,cluster_size=512,backing_file=%s,backing_fmt=raw", name);
    g_autofree char *longer = g_strdup_printf("size=1M,backing_file=x%s,backing_fmt=raw", name);
    int code;
    stand_create("c", fits);
    g_autofree char *no_room = stand_create_error("d", small, &code);
    g_assert_true(
        stand_matches("*cluster size is 512: use a larger cluster size or a shorter name*", no_room));
    g_autofree char *too_long = stand_create_error("d", longer, &code);
    g_assert_true(stand_matches("*1024 bytes; at most 1023*", too_long));
    stand_forget("c");
    stand_forget("d");
}

/* ---- failures ---- */

#define LOUD_OPTIONS "size=2M,cluster_size=4k,preallocation=metadata"

static bool try_create(GError **errp)
{
    BdrvOptions *options = bdrv_options_parse(LOUD_OPTIONS, NULL, errp);
    return bdrv_create_image(stand_graph(), "qcow2", "simdisk:c", options, errp);
}

static void test_failures(void)
{
    uint64_t calls = 0;
    for (unsigned nth = 1; calls == 0 || nth <= calls; nth++) {
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("c", 0);
        g_autoptr(GError) error = NULL;
        unsigned kinds = BDRV_SIM_WRITE | BDRV_SIM_FLUSH | BDRV_SIM_ZERO | BDRV_SIM_TRUNCATE;
        if (calls == 0) {
            g_assert_true(try_create(&error));
            calls = bdrv_simdisk_count(disk, kinds);
            g_assert_cmpuint(calls, >, 5);
            nth = 0;
            continue;
        }
        bdrv_simdisk_fail(disk, kinds, nth, 1, ENOSPC);
        g_assert_false(try_create(&error));
        g_test_message("call %u: %s", nth, error->message);
        g_assert_error(error, BDRV_ERROR, ENOSPC);
    }
}

/* After every request: whatever of the log reached the medium, there is no image or a good one. */
static void cut_here(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    GPtrArray *cuts = opaque;
    g_ptr_array_add(cuts, bdrv_simdisk_cut(disk));
}

static bool no_image_or_a_good_one(void)
{
    g_autoptr(GError) error = NULL;
    BdrvCheckResult result = { 0 };
    BlockBackend *blk = stand_open("cut", NULL, BDRV_O_CHECK, &error);
    if (!blk) {
        return stand_length("cut") < 512 || stand_get("cut", 0, 8) != (UINT64_C(0x514649fb) << 32 | 3);
    }
    bool ok = blk_check(blk, &result, BDRV_FIX_NONE, &error) &&
              result.corruptions + result.leaks + result.check_errors == 0;
    blk_close(blk, NULL);
    return ok;
}

static void test_power_loss(void)
{
    g_autoptr(GPtrArray) cuts = g_ptr_array_new_with_free_func((GDestroyNotify)bdrv_simcut_unref);
    g_autoptr(GError) error = NULL;
    {
        g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("c", 0);
        bdrv_simdisk_set_hook(disk, cut_here, cuts);
        g_assert_true(try_create(&error));
        bdrv_simdisk_set_hook(disk, NULL, NULL);
    }
    unsigned images = 0;
    for (unsigned i = 0; i < cuts->len; i++) {
        BdrvSimCut *cut = cuts->pdata[i];
        unsigned entries = bdrv_simcut_count(cut);
        for (unsigned round = 0; round < 24; round++) {
            g_autofree BdrvSimChoice *choices = g_new0(BdrvSimChoice, entries + 1);
            bdrv_simcut_random(cut, (uint64_t)g_test_rand_int(), choices);
            g_autoptr(BdrvSimDisk) left = bdrv_simcut_disk(cut, round ? choices : NULL, "cut");
            g_assert_nonnull(left);
            g_assert_true(no_image_or_a_good_one());
            images++;
        }
    }
    g_test_message("%u images after power loss", images);
}

/* A place with other content in it, which cannot be resized: a device. */
static void coroutine_fn create_on_device(void)
{
    GError *error = NULL;
    BdrvChild *file = test_must_open("simdisk", "disk=device", NULL);
    g_autoptr(BdrvOptions) options = bdrv_options_new();
    bdrv_options_set_int(options, "size", 2 << 20);
    bdrv_options_set_int(options, "cluster_size", 4096);
    bdrv_options_set_string(options, "preallocation", "metadata");
    bdrv_qcow2.bdrv_create("simdisk:device", file, options, &error);
    g_assert_no_error(error);
    test_close(file);
}

static void test_device(void)
{
    g_autoptr(BdrvSimDisk) disk = bdrv_simdisk_new("device", 8 << 20);
    g_autofree uint8_t *junk = g_malloc(1 << 20);
    memset(junk, 0xff, 1 << 20);
    for (int64_t at = 0; at < 8; at++) {
        bdrv_simdisk_poke(disk, at << 20, junk, 1 << 20);
    }
    bdrv_simdisk_set_unsupported(disk, BDRV_SIM_TRUNCATE);
    test_run(create_on_device);
    BdrvCheckResult result = check("device");
    g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
    uint64_t l2_offset =
        stand_get("device", (int64_t)stand_get("device", 40, 8), 8) & UINT64_C(0xfffffffffffe00);
    for (int64_t i = 0; i < 512; i++) {
        uint64_t data = stand_get("device", (int64_t)l2_offset + 8 * i, 8) & UINT64_C(0xfffffffffffe00);
        g_assert_cmphex(data, !=, 0);
        g_assert_cmphex(stand_get("device", (int64_t)data + 8 * i, 8), ==, 0);
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/create/the header says what was asked for", test_header);
    g_test_add_func("/qcow2/create/every geometry and preallocation checks clean", test_every_geometry);
    g_test_add_func("/qcow2/create/falloc and full reserve space for the data", test_reserved_space);
    g_test_add_func("/qcow2/create/a backing file is recorded and lends its size", test_backing);
    g_test_add_func("/qcow2/create/what is wrong or not built is refused by name", test_refused);
    g_test_add_func("/qcow2/create/a backing name must fit into the header cluster", test_long_backing_name);
    g_test_add_func("/qcow2/create/each failing call fails the creation", test_failures);
    g_test_add_func("/qcow2/create/power loss leaves no image or a good one", test_power_loss);
    g_test_add_func("/qcow2/create/old content of a device does not show", test_device);
    return g_test_run();
}
