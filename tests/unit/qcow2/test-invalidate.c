/* SPDX-License-Identifier: MIT */
/* An image that another process changes: this program started once more. */

#include <bdrv/bdrv.h>
#include <errno.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DISK_BYTES (1 << 20)
#define UNLOCKED "driver=qcow2,file.driver=file,file.locking=off,"

static const char *program;

/* ---- the other process ---- */

static BdrvOptions *options_for(const char *text, const char *path)
{
    BdrvOptions *options = bdrv_options_parse(text, NULL, NULL);
    bdrv_options_set_string(options, "file.filename", path);
    return options;
}

/* "write:OFFSET:BYTES:VALUE", "discard:OFFSET:BYTES", "resize:BYTES", "snapshot", "amend:OPTIONS" or "backing:NAME" */
static bool change(BlockBackend *blk, const char *what)
{
    g_auto(GStrv) parts = g_strsplit(what, ":", -1);
    int64_t first = parts[1] ? g_ascii_strtoll(parts[1], NULL, 0) : 0;
    int64_t bytes = parts[1] && parts[2] ? g_ascii_strtoll(parts[2], NULL, 0) : 0;
    if (g_str_equal(parts[0], "write")) {
        g_autofree uint8_t *data = g_malloc((gsize)bytes);
        memset(data, atoi(parts[3]), (gsize)bytes);
        return blk_pwrite(blk, first, bytes, data, 0) >= 0;
    }
    if (g_str_equal(parts[0], "discard")) {
        return blk_pdiscard(blk, first, bytes) >= 0;
    }
    if (g_str_equal(parts[0], "resize")) {
        return blk_truncate(blk, first, true, BDRV_PREALLOC_OFF, 0, NULL);
    }
    if (g_str_equal(parts[0], "snapshot")) {
        BdrvSnapshotInfo info = { .name = (char *)"s" };
        bool ok = blk_snapshot_create(blk, &info, NULL);
        g_free(info.id);
        return ok;
    }
    if (g_str_equal(parts[0], "backing")) {
        return blk_change_backing_file(blk, parts[1], "raw", NULL);
    }
    g_autoptr(BdrvOptions) options = bdrv_options_parse(parts[1], NULL, NULL);
    return blk_amend(blk, options, false, NULL, NULL, NULL);
}

/* PATH CHANGE... */
static int be_the_writer(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = blk_open(graph, NULL, options_for(UNLOCKED, argv[0]),
                                 BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP | BDRV_O_NO_BACKING, NULL);
    bool ok = blk != NULL;
    for (int i = 1; i < argc && ok; i++) {
        ok = change(blk, argv[i]);
    }
    return blk && blk_close(blk, NULL) && ok ? 0 : 1;
}

/* ---- this one ---- */

typedef struct Case {
    BdrvGraph *graph;
    BlockBackend *blk;
    char *directory, *path;
} Case;

static void in_another_process(const Case *c, const char *first, const char *second)
{
    const char *argv[] = { program, "--write", c->path, first, second, NULL };
    g_autoptr(GError) error = NULL;
    int status;
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, NULL, &status, &error);
    g_assert_no_error(error);
    g_assert_cmpint(status, ==, 0);
}

static void begin(Case *c, const char *create, BdrvOpenFlags flags)
{
    const char *where = g_getenv("BDRV_TEST_DIR");
    GError *error = NULL;
    c->directory = g_strdup_printf("%s/bdrv-invalidate-XXXXXX", where ? where : "/var/tmp");
    g_assert_nonnull(g_mkdtemp(c->directory));
    c->path = g_build_filename(c->directory, "a.qcow2", NULL);
    c->graph = bdrv_graph_new();
    BdrvOptions *options = bdrv_options_parse(create, NULL, NULL);
    bdrv_options_set_int(options, "size", DISK_BYTES);
    bdrv_create_image(c->graph, "qcow2", c->path, options, &error);
    g_assert_no_error(error);
    in_another_process(c, "write:0:100000:1", NULL);
    c->blk = blk_open(c->graph, NULL, options_for(UNLOCKED, c->path), flags | BDRV_O_NO_BACKING, &error);
    g_assert_no_error(error);
}

static void end(Case *c)
{
    g_assert_true(blk_close(c->blk, NULL));
    bdrv_graph_unref(c->graph);
    g_remove(c->path);
    g_rmdir(c->directory);
    g_free(c->path);
    g_free(c->directory);
}

static int byte_at(const Case *c, int64_t offset)
{
    uint8_t byte;
    int ret = blk_pread(c->blk, offset, 1, &byte, 0);
    return ret < 0 ? ret : byte;
}

static void look_anew(const Case *c)
{
    g_autoptr(GError) error = NULL;
    blk_invalidate_cache(c->blk, &error);
    g_assert_no_error(error);
}

static void refuse(const Case *c, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(blk_invalidate_cache(c->blk, &error));
    g_test_message("%s", error->message);
    g_assert_nonnull(strstr(error->message, text));
    g_assert_cmpint(byte_at(c, 0), <, 0);
}

static void test_written(void)
{
    Case c;
    begin(&c, "cluster_size=512", 0);
    g_assert_cmpint(byte_at(&c, 0), ==, 1);
    g_assert_cmpint(byte_at(&c, 600000), ==, 0);
    /* What the first discards is where the second writes. */
    in_another_process(&c, "discard:0:51200", "write:600000:100000:2");
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 0), ==, 0);
    g_assert_cmpint(byte_at(&c, 60000), ==, 1);
    g_assert_cmpint(byte_at(&c, 600000), ==, 2);
    g_assert_cmpint(byte_at(&c, 699999), ==, 2);
    end(&c);
}

static void test_resized(void)
{
    Case c;
    begin(&c, "cluster_size=512", 0);
    in_another_process(&c, "resize:200000000", "write:199000000:100000:3");
    look_anew(&c);
    g_assert_cmpint(blk_length(c.blk), ==, 200000000);
    g_assert_cmpint(byte_at(&c, 199099999), ==, 3);
    in_another_process(&c, "resize:4096", NULL);
    look_anew(&c);
    g_assert_cmpint(blk_length(c.blk), ==, 4096);
    end(&c);
}

static void test_other_structures(void)
{
    Case c;
    BdrvSnapshotInfo *list;
    begin(&c, "cluster_size=4k", 0);
    in_another_process(&c, "amend:refcount_bits=64,lazy_refcounts=on", "snapshot");
    look_anew(&c);
    int count = blk_list_snapshots(c.blk, &list);
    g_assert_cmpint(count, ==, 1);
    bdrv_snapshot_list_free(list, count);
    in_another_process(&c, "amend:compat=0.10,refcount_bits=16", "write:0:4096:4");
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 0), ==, 4);
    g_assert_cmpint(byte_at(&c, 99999), ==, 1);
    end(&c);
}

static void test_writable(void)
{
    Case c;
    uint8_t data[5000];
    begin(&c, "cluster_size=512", BDRV_O_RDWR);
    memset(data, 7, sizeof(data));
    g_assert_cmpint(blk_pwrite(c.blk, 200000, sizeof(data), data, 0), ==, 0);
    look_anew(&c); /* nothing is lost */
    g_assert_cmpint(byte_at(&c, 204999), ==, 7);
    in_another_process(&c, "write:300000:5000:8", NULL);
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 304999), ==, 8);
    g_assert_cmpint(blk_pwrite(c.blk, 400000, sizeof(data), data, 0), ==, 0);
    BdrvCheckResult result = { 0 };
    g_assert_true(blk_check(c.blk, &result, BDRV_FIX_NONE, NULL));
    g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
    g_assert_cmpint(byte_at(&c, 304999), ==, 8);
    end(&c);
}

static void test_invalid(void)
{
    Case c;
    g_autofree char *content = NULL;
    gsize bytes;
    begin(&c, "cluster_size=512", 0);
    g_assert_true(g_file_get_contents(c.path, &content, &bytes, NULL));
    content[0] ^= 1;
    FILE *file = g_fopen(c.path, "r+");
    fwrite(content, 1, 1, file);
    fclose(file);
    refuse(&c, "not in qcow2 format");
    refuse(&c, "not in qcow2 format");
    content[0] ^= 1;
    file = g_fopen(c.path, "r+");
    fwrite(content, 1, 1, file);
    fclose(file);
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 99999), ==, 1);
    end(&c);
}

static void test_cut_off(void)
{
    Case c;
    begin(&c, "cluster_size=512", 0);
    g_assert_cmpint(truncate(c.path, 1024), ==, 0);
    refuse(&c, "reaches past the end");
    BdrvLayer layer;
    g_assert_true(blk_layer(c.blk, 0, &layer));
    end(&c);
}

static void test_other_backing(void)
{
    Case c;
    begin(&c, "cluster_size=512", 0);
    in_another_process(&c, "backing:other", NULL);
    refuse(&c, "another backing file");
    end(&c);
}

static void test_drained(void)
{
    Case c;
    begin(&c, "cluster_size=512", BDRV_O_RDWR);
    g_assert_cmpint(blk_drain_begin(c.blk), ==, 0);
    look_anew(&c);
    blk_drain_end(c.blk);
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 0), ==, 1);
    end(&c);
}

int main(int argc, char **argv)
{
    if (argc > 2 && g_str_equal(argv[1], "--write")) {
        return be_the_writer(argc - 2, argv + 2);
    }
    program = argv[0];
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/qcow2/invalidate/what was written is read", test_written);
    g_test_add_func("/qcow2/invalidate/the disk has another size", test_resized);
    g_test_add_func("/qcow2/invalidate/refcounts, snapshots and version are others", test_other_structures);
    g_test_add_func("/qcow2/invalidate/a writable image loses nothing", test_writable);
    g_test_add_func("/qcow2/invalidate/an image that is none refuses requests until it is one", test_invalid);
    g_test_add_func("/qcow2/invalidate/an image that was cut off refuses requests", test_cut_off);
    g_test_add_func("/qcow2/invalidate/another backing file is refused", test_other_backing);
    g_test_add_func("/qcow2/invalidate/drained it stays so", test_drained);
    return g_test_run();
}
