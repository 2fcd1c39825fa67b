/* SPDX-License-Identifier: MIT */
/* The driver under the whole library: what an embedder sees of files, locks, reopen and devices. */

#include "file-test.h"

#include <bdrv/bdrv.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (256 * 1024)

static BlockBackend *open_text(BdrvGraph *graph, const char *options, BdrvOpenFlags flags, GError **errp)
{
    BdrvOptions *tree = bdrv_options_parse(options, NULL, errp);

    g_assert_nonnull(tree);
    return blk_open(graph, NULL, tree, flags, errp);
}

static BlockBackend *open_path(BdrvGraph *graph, const char *driver, const char *path, const char *more,
                               BdrvOpenFlags flags, GError **errp)
{
    g_autofree char *text = g_strdup_printf("driver=%s,%sfilename=%s%s%s", driver,
                                            strcmp(driver, "file") == 0 || strcmp(driver, "host_device") == 0
                                                ? "" : "file.", path, more ? "," : "", more ? more : "");

    return open_text(graph, text, flags, errp);
}

static uint32_t test_seed(void)
{
    const char *text = g_getenv("BDRV_TEST_SEED");
    uint32_t seed = text ? (uint32_t)strtoul(text, NULL, 0) : g_random_int();

    g_test_message("BDRV_TEST_SEED=%u", seed);
    return seed;
}

/* ---- random requests of any alignment, every engine in every cache mode ---- */

static const struct {
    const char *what, *options;
    BdrvOpenFlags flags;
} stacks[] = {
    { "threads, writeback", "aio=threads", 0 },
    { "threads, none", "aio=threads", BDRV_O_NOCACHE },
    { "native, none", "aio=native", BDRV_O_NOCACHE },
    { "native, directsync", "aio=native", BDRV_O_NOCACHE | BDRV_O_WRITETHROUGH },
#ifdef CONFIG_LIBURING
    { "io_uring, writeback", "aio=io_uring", 0 },
    { "io_uring, none", "aio=io_uring", BDRV_O_NOCACHE },
#endif
    { "auto, writeback", NULL, 0 },
    { "auto, writethrough", NULL, BDRV_O_WRITETHROUGH },
    { "auto, none", NULL, BDRV_O_NOCACHE },
    { "auto, directsync", NULL, BDRV_O_NOCACHE | BDRV_O_WRITETHROUGH },
    { "auto, unsafe", NULL, BDRV_O_NO_FLUSH },
};

static void one_request(BlockBackend *blk, GRand *rand, uint8_t *model, uint8_t *buf)
{
    int64_t offset = g_rand_int_range(rand, 0, SIZE), bytes = g_rand_int_range(rand, 1, MIN(20000, SIZE - offset + 1));
    int byte = g_rand_int_range(rand, 1, 256);

    switch (g_rand_int_range(rand, 0, 7)) {
    case 0:
    case 1:
    case 2:
        memset(buf, byte, bytes);
        memset(model + offset, byte, bytes);
        g_assert_cmpint(blk_pwrite(blk, offset, bytes, buf, byte & 1 ? BDRV_REQ_FUA : 0), ==, 0);
        break;
    case 3:
        memset(model + offset, 0, bytes);
        g_assert_cmpint(blk_pwrite_zeroes(blk, offset, bytes, byte & 1 ? BDRV_REQ_MAY_UNMAP : 0), ==, 0);
        break;
    case 4:
        g_assert_cmpint(blk_flush(blk), ==, 0);
        break;
    case 5: {
        BlockExtent extent;
        g_assert_cmpint(blk_block_status(blk, offset, bytes, &extent), ==, 0);
        g_assert_cmpint(extent.bytes, >=, 1);
        g_assert_cmpint(extent.bytes, <=, bytes);
        if (extent.kind == EXTENT_ZERO) {
            g_assert_true(test_all_bytes_are(model + offset, extent.bytes, 0));
        }
        break;
    }
    default:
        g_assert_cmpint(blk_pread(blk, offset, bytes, buf, 0), ==, 0);
        g_assert_cmpmem(buf, bytes, model + offset, bytes);
    }
}

static void test_random(gconstpointer data)
{
    unsigned i = GPOINTER_TO_UINT(data);
    g_autoptr(GRand) rand = g_rand_new_with_seed(test_seed());
    g_autofree char *path = test_make_file("stack", SIZE, 0);
    g_autofree uint8_t *model = g_malloc0(SIZE), *buf = g_malloc(SIZE);
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;

    for (int round = 0; round < 3; round++) {
        BlockBackend *blk = open_path(graph, "file", path, stacks[i].options,
                                      BDRV_O_RDWR | BDRV_O_UNMAP | stacks[i].flags, &error);
        g_assert_no_error(error);
        for (int n = 0; n < 80; n++) {
            one_request(blk, rand, model, buf);
        }
        g_assert_true(blk_close(blk, &error));
        g_assert_no_error(error);
    }
    BlockBackend *blk = open_path(graph, "file", path, NULL, 0, &error);
    g_assert_cmpint(blk_pread(blk, 0, SIZE, buf, 0), ==, 0);
    g_assert_cmpmem(buf, SIZE, model, SIZE);
    g_assert_true(blk_close(blk, &error));
}

/* ---- names ---- */

static void test_names(void)
{
    g_autofree char *path = test_make_file("na:me", SIZE, 'n');
    g_autofree char *prefixed = g_strdup_printf("file:%s", path);
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;

    BlockBackend *blk = blk_open(graph, prefixed, bdrv_options_parse("driver=raw", NULL, NULL), 0, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(blk_filename(blk), ==, path);
    g_assert_true(blk_close(blk, &error));

    int fd = open(path, O_RDONLY | O_CLOEXEC);
    g_autofree char *by_fd = g_strdup_printf("driver=file,fd=%d", fd);
    G_GNUC_UNUSED g_autofree char *json = g_strdup_printf("\"fd\": %d", fd);
    blk = open_text(graph, by_fd, 0, &error);
    g_assert_no_error(error);
    g_assert_nonnull(strstr(blk_filename(blk), "json:"));
    g_assert_cmpint(blk_length(blk), ==, SIZE);
    g_assert_true(blk_close(blk, &error));
    close(fd);
}

static void test_errors_name_the_file(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;

    g_assert_null(open_path(graph, "file", "/nonexistent/x", NULL, 0, &error));
    test_assert_error(error, ENOENT, "Could not open '/nonexistent/x': No such file or directory");
    g_assert_null(open_path(graph, "file", "/dev/null", "colour=red", 0, &error));
    test_assert_error(error, EINVAL, "colour");
}

/* ---- locks ---- */

/* A format that shares nothing with other writers. NULL: skipped. */
static BlockBackend *open_qcow2(BdrvGraph *graph, const char *path)
{
    GError *error = NULL;
    BlockBackend *blk = NULL;

    if (bdrv_create_image(graph, "qcow2", path, bdrv_options_parse("size=1M", NULL, NULL), &error)) {
        blk = open_path(graph, "qcow2", path, NULL, BDRV_O_RDWR, &error);
    }
    if (!blk && g_error_matches(error, BDRV_ERROR, ENOTSUP)) {
        g_test_skip(error->message);
        g_error_free(error);
        return NULL;
    }
    g_assert_no_error(error);
    return blk;
}

static void test_two_graphs(void)
{
    g_autofree char *path = test_make_file("twice", SIZE, 0);
    g_autoptr(BdrvGraph) a = bdrv_graph_new(), b = bdrv_graph_new();
    GError *error = NULL;

    BlockBackend *first = open_qcow2(a, path);
    if (!first) {
        return;
    }
    g_assert_null(open_path(b, "qcow2", path, NULL, BDRV_O_RDWR, &error));
    test_assert_error(error, EBUSY, "force-share");
    g_assert_null(open_path(b, "qcow2", path, NULL, 0, &error));
    test_assert_error(error, EBUSY, "\"write\" lock");
    BlockBackend *second = open_path(b, "qcow2", path, NULL, BDRV_O_FORCE_SHARE, &error);
    g_assert_no_error(error);
    g_assert_true(blk_close(second, &error));

    /* Read-only, both may; and then nobody may write. */
    g_assert_true(blk_close(first, &error));
    first = open_path(a, "qcow2", path, NULL, 0, &error);
    g_assert_no_error(error);
    second = open_path(b, "qcow2", path, NULL, 0, &error);
    g_assert_no_error(error);
    g_assert_true(blk_close(first, &error));
    g_assert_null(open_path(a, "qcow2", path, NULL, BDRV_O_RDWR, &error));
    test_assert_error(error, EBUSY, "\"write\" lock");
    g_assert_true(blk_close(second, &error));
}

static int run_tool(const char *const *argv)
{
    int status = -1;

    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL,
                               G_SPAWN_SEARCH_PATH | G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL,
                               NULL, NULL, NULL, &status, NULL));
    return g_spawn_check_wait_status(status, NULL) ? 0 : 1;
}

static void test_qemu_io(void)
{
    g_autofree char *tool = g_find_program_in_path("qemu-io");
    g_autofree char *path = test_path("qemu");
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;
    const char *const rw[] = { "qemu-io", "-f", "qcow2", "-c", "length", path, NULL };
    const char *const ro[] = { "qemu-io", "-r", "-f", "qcow2", "-c", "length", path, NULL };
    const char *const shared[] = { "qemu-io", "-r", "-U", "-f", "qcow2", "-c", "length", path, NULL };

    if (!tool) {
        g_test_skip("qemu-io is not installed");
        return;
    }
    BlockBackend *blk = open_qcow2(graph, path);
    if (!blk) {
        return;
    }
    g_assert_cmpint(run_tool(rw), ==, 1);
    g_assert_cmpint(run_tool(ro), ==, 1);
    g_assert_cmpint(run_tool(shared), ==, 0);
    g_assert_true(blk_close(blk, &error));

    blk = open_path(graph, "qcow2", path, NULL, 0, &error);
    g_assert_cmpint(run_tool(rw), ==, 1);
    g_assert_cmpint(run_tool(ro), ==, 0);
    g_assert_true(blk_close(blk, &error));

    blk = open_path(graph, "qcow2", path, NULL, BDRV_O_FORCE_SHARE, &error);
    g_assert_cmpint(run_tool(rw), ==, 0);
    g_assert_true(blk_close(blk, &error));
    g_assert_cmpint(run_tool(rw), ==, 0);
}

/* ---- reopen, copy, resize ---- */

static void test_reopen_under_raw(void)
{
    g_autofree char *path = test_make_file("reopenraw", SIZE, 'r');
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;
    char buf[1000];

    BlockBackend *blk = open_path(graph, "raw", path, NULL, BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    memset(buf, 'w', sizeof(buf));
    for (int i = 0; i < 4; i++) {
        BdrvOpenFlags flags = (i & 1 ? BDRV_O_RDWR : 0) | (i & 2 ? BDRV_O_NOCACHE : 0);
        g_assert_true(blk_reopen(blk, NULL, flags, &error));
        g_assert_no_error(error);
        int ret = blk_pwrite(blk, 100, sizeof(buf), buf, 0);
        g_assert_cmpint(ret == 0, ==, i & 1);
        g_assert_cmpint(blk_pread(blk, 3000, sizeof(buf), buf, 0), ==, 0);
        g_assert_true(test_all_bytes_are(buf, sizeof(buf), 'r'));
    }
    g_assert_true(blk_close(blk, &error));
}

static void test_copying(void)
{
    const char *const places[] = { test_dir, "/dev/shm" };

    for (unsigned i = 0; i < G_N_ELEMENTS(places); i++) {
        g_autofree char *from = test_make_file("copyfrom", SIZE, 'c');
        g_autofree char *to = g_strdup_printf("%s/bdrv-copy-%d", places[i], getpid());
        g_autoptr(BdrvGraph) graph = bdrv_graph_new();
        g_autofree uint8_t *buf = g_malloc(SIZE);
        GError *error = NULL;
        g_assert_true(bdrv_create_image(graph, "raw", to, bdrv_options_parse("size=256k", NULL, NULL), &error));
        g_assert_no_error(error);
        BlockBackend *src = open_path(graph, "raw", from, NULL, 0, &error);
        BlockBackend *dst = open_path(graph, "raw", to, NULL, BDRV_O_RDWR, &error);
        g_assert_no_error(error);
        g_assert_cmpint(blk_copy_range(src, 1000, dst, 2000, 100000, 0), ==, 0);
        g_assert_cmpint(blk_pread(dst, 0, SIZE, buf, 0), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 2000, 0));
        g_assert_true(test_all_bytes_are(buf + 2000, 100000, 'c'));
        g_assert_true(test_all_bytes_are(buf + 102000, SIZE - 102000, 0));
        g_assert_true(blk_close(src, &error));
        g_assert_true(blk_close(dst, &error));
        unlink(to);
    }
}

static void test_resize(void)
{
    g_autofree char *path = test_make_file("resizeblk", SIZE, 'r');
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;
    char buf[512];

    for (int direct = 0; direct < 2; direct++) {
        BlockBackend *blk = open_path(graph, "file", path, NULL,
                                      BDRV_O_RDWR | BDRV_O_RESIZE | (direct ? BDRV_O_NOCACHE : 0), &error);
        g_assert_no_error(error);
        g_assert_true(blk_truncate(blk, 1000, true, BDRV_PREALLOC_OFF, 0, &error));
        g_assert_cmpint(blk_length(blk), ==, 1000);
        g_assert_true(blk_truncate(blk, SIZE, true, BDRV_PREALLOC_FULL, 0, &error));
        g_assert_no_error(error);
        g_assert_cmpint(blk_pread(blk, 900, 512, buf, 0), ==, 0);
        g_assert_true(test_all_bytes_are(buf, 100, 'r'));
        g_assert_true(test_all_bytes_are(buf + 100, 412, 0));
        g_assert_true(blk_close(blk, &error));
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    test_dir_make();

    for (unsigned i = 0; i < G_N_ELEMENTS(stacks); i++) {
        g_autofree char *path = g_strdup_printf("/file/stack/unaligned requests read back: %s", stacks[i].what);
        g_test_add_data_func(path, GUINT_TO_POINTER(i), test_random);
    }
    g_test_add_func("/file/stack/names with a prefix and descriptors", test_names);
    g_test_add_func("/file/stack/errors name the file and the option", test_errors_name_the_file);
    g_test_add_func("/file/stack/two graphs see each other's locks", test_two_graphs);
    g_test_add_func("/file/stack/qemu-io sees our locks", test_qemu_io);
    g_test_add_func("/file/stack/reopen changes access and cache under raw", test_reopen_under_raw);
    g_test_add_func("/file/stack/copying inside of and across file systems", test_copying);
    g_test_add_func("/file/stack/resize keeps what stays and zeroes what comes", test_resize);

    int ret = g_test_run();
    test_dir_remove();
    return ret;
}
