/* SPDX-License-Identifier: MIT */
#include "files.h"

#include <glib/gstdio.h>
#include <string.h>

#include "tests/lib/test-node.h"

static char *file_in(const char *dir, const char *name)
{
    return g_build_filename(dir, name, NULL);
}

static void make_image(BdrvGraph *graph, const char *format, const char *filename, const char *text,
                       int64_t size)
{
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse(text ? text : "", NULL, &error);

    g_assert_no_error(error);
    bdrv_options_set_int(options, "size", size);
    bdrv_create_image(graph, format, filename, options, &error);
    g_assert_no_error(error);
}

/* Some parts of the backing file have data, and it is shorter than its overlay. */
static void make_backing(BdrvGraph *graph, const char *format, const char *filename, int64_t size,
                         uint8_t *content)
{
    int64_t length = size * 3 / 4 / 512 * 512;
    uint64_t random = 1;
    GError *error = NULL;
    BlockBackend *blk;
    BdrvOptions *options = bdrv_options_new();

    make_image(graph, format, filename, NULL, length);
    bdrv_options_set_string(options, "driver", format);
    blk = blk_open(graph, filename, options, BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    for (int64_t at = 0; at < length; at += 30000) {
        int64_t n = test_random_below(&random, 50000);

        n = MIN(n, length - at);
        for (int64_t i = 0; i < n; i++) {
            content[at + i] = test_random(&random);
        }
        g_assert_cmpint(blk_pwrite(blk, at, n, content + at, 0), ==, 0);
    }
    blk_close(blk, &error);
    g_assert_no_error(error);
}

void conformance_file_setup(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir,
                            uint8_t *content)
{
    static const ConformanceFile plain = { .format = "raw" };
    const ConformanceFile *setup = stack->data ? stack->data : &plain;
    g_autofree char *disk = file_in(dir, "disk"), *base = file_in(dir, "base");
    g_autoptr(GString) options = g_string_new(setup->options ? setup->options : "");

    if (setup->backing) {
        make_backing(graph, setup->backing, base, stack->length, content);
        g_string_append_printf(options, "%sbacking_file=%s,backing_fmt=%s", options->len ? "," : "", base,
                               setup->backing);
    }
    make_image(graph, setup->format, disk, options->str, stack->length + setup->extra);
}

/* Without the real tool: a failure where CI is set, else nothing is checked. */
static void check_with_qemu(const char *disk, const char *data)
{
    g_autofree char *image = g_strdup_printf(
        "driver=qcow2,encrypt.key-secret=" CONFORMANCE_SECRET ",file.filename=%s%s%s", disk,
        g_file_test(data, G_FILE_TEST_EXISTS) ? ",data-file.filename=" : "", /* it looks for the name elsewhere */
        g_file_test(data, G_FILE_TEST_EXISTS) ? data : "");
    const char *argv[] = { "qemu-img", "check", "--object", "secret,data=passphrase,id=" CONFORMANCE_SECRET, "--image-opts",
                           image, NULL };
    g_autofree char *program = g_find_program_in_path(argv[0]), *out = NULL, *err = NULL;
    GError *error = NULL;
    int status;

    if (!program) {
        g_assert_null(g_getenv("CI"));
        return;
    }
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status, &error);
    g_assert_no_error(error);
    if (!g_spawn_check_wait_status(status, &error)) {
        g_error("qemu-img check: %s\n%s%s", error->message, out, err);
    }
}

void conformance_file_teardown(const ConformanceStack *stack, const char *id, const char *dir)
{
    g_autofree char *disk = file_in(dir, "disk"), *base = file_in(dir, "base"), *data = file_in(dir, "data");
    const ConformanceFile *setup = stack->data;

    if (setup && g_str_equal(setup->format, "qcow2")) {
        check_with_qemu(disk, data);
    }
    g_unlink(disk);
    g_unlink(data);
    g_unlink(base);
}

static void report(void *opaque, const BdrvCheckKind *kind, const char *text)
{
    g_printerr("check: %s\n", text);
}

static uint8_t *read_all(BdrvGraph *graph, BdrvOptions *options, int64_t *length)
{
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, NULL, options, 0, &error);
    uint8_t *content;

    g_assert_no_error(error);
    *length = blk_length(blk);
    content = g_malloc((gsize)*length);
    g_assert_cmpint(blk_pread(blk, 0, *length, content, 0), ==, 0);
    blk_close(blk, &error);
    g_assert_no_error(error);
    return content;
}

void conformance_check_raw_data(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir)
{
    g_autofree char *text = conformance_expand(stack->options, id, dir);
    g_autofree char *where = conformance_expand(strstr(stack->options, "simdisk") ? "driver=simdisk,disk=%ID%-data"
                                                                                  : "driver=file,filename=%DIR%/data",
                                                id, dir);
    int64_t length, raw_length;
    g_autofree uint8_t *guest = read_all(graph, bdrv_options_parse(text, NULL, NULL), &length);
    g_autofree uint8_t *raw = read_all(graph, bdrv_options_parse(where, NULL, NULL), &raw_length);

    g_assert_cmpmem(guest, (size_t)length, raw, (size_t)raw_length);
    conformance_check_image(stack, graph, id, dir);
}

/* A check needs no key, and the one that the image was made with may have been replaced. */
static char *without_key(const char *options)
{
    g_autoptr(GRegex) key = g_regex_new(",([a-z]+\\.)*encrypt\\.key-secret=[^,]*", 0, 0, NULL);
    return g_regex_replace_literal(key, options, -1, 0, "", 0, NULL);
}

void conformance_check_image(const ConformanceStack *stack, BdrvGraph *graph, const char *id, const char *dir)
{
    g_autofree char *expanded = conformance_expand(stack->options, id, dir), *text = without_key(expanded);
    BdrvCheckResult result = { .report = report };
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(text, NULL, NULL),
                                 BDRV_O_CHECK | (stack->flags & BDRV_O_NOCACHE), &error);

    g_assert_no_error(error);
    blk_check(blk, &result, BDRV_FIX_NONE, &error);
    g_assert_no_error(error);
    g_assert_cmpint(result.check_errors, ==, 0);
    g_assert_cmpint(result.corruptions, ==, 0);
    g_assert_cmpint(result.leaks, ==, 0);
    blk_close(blk, &error);
    g_assert_no_error(error);
}
