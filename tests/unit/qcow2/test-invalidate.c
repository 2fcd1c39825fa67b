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

static const char *const secrets[][2] = { { "a", "the first" }, { "b", "the second" } };

static BdrvGraph *new_graph(void)
{
    BdrvGraph *graph = bdrv_graph_new();
    for (unsigned i = 0; i < G_N_ELEMENTS(secrets); i++) {
        bdrv_graph_add_secret(graph, secrets[i][0], secrets[i][1], strlen(secrets[i][1]), NULL);
    }
    return graph;
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

/* PATH OPTIONS CHANGE... */
static int be_the_writer(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = new_graph();
    BlockBackend *blk = blk_open(graph, NULL, options_for(argv[1], argv[0]),
                                 BDRV_O_RDWR | BDRV_O_RESIZE | BDRV_O_UNMAP | BDRV_O_NO_BACKING, NULL);
    bool ok = blk != NULL;
    for (int i = 2; i < argc && ok; i++) {
        ok = change(blk, argv[i]);
    }
    return blk && blk_close(blk, NULL) && ok ? 0 : 1;
}

/* ---- this one ---- */

typedef struct Case {
    BdrvGraph *graph;
    BlockBackend *blk;
    char *directory, *path;
    const char *options; /* to open it with */
} Case;

static void in_another_process(const Case *c, const char *first, const char *second)
{
    const char *argv[] = { program, "--write", c->path, c->options, first, second, NULL };
    g_autoptr(GError) error = NULL;
    int status;
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, NULL, &status, &error);
    g_assert_no_error(error);
    g_assert_cmpint(status, ==, 0);
}

static void make_image(const Case *c, const char *create)
{
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse(create, NULL, NULL);
    bdrv_options_set_int(options, "size", DISK_BYTES);
    bdrv_create_image(c->graph, "qcow2", c->path, options, &error);
    g_assert_no_error(error);
    in_another_process(c, "write:0:100000:1", NULL);
}

static void begin_with(Case *c, const char *create, const char *open, BdrvOpenFlags flags)
{
    const char *where = g_getenv("BDRV_TEST_DIR");
    GError *error = NULL;
    c->options = open;
    c->directory = g_strdup_printf("%s/bdrv-invalidate-XXXXXX", where ? where : "/var/tmp");
    g_assert_nonnull(g_mkdtemp(c->directory));
    c->path = g_build_filename(c->directory, "a.qcow2", NULL);
    c->graph = new_graph();
    make_image(c, create);
    c->blk = blk_open(c->graph, NULL, options_for(open, c->path), flags | BDRV_O_NO_BACKING, &error);
    g_assert_no_error(error);
}

static void begin(Case *c, const char *create, BdrvOpenFlags flags)
{
    begin_with(c, create, UNLOCKED, flags);
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

/* ---- encrypted ---- */

#define LUKS "encrypt.format=luks,encrypt.iter-time=1,encrypt.key-secret=a"
#define BY_A UNLOCKED "encrypt.key-secret=a"

static void test_key_slots(void)
{
    Case c;
    uint8_t data[5000];
    begin_with(&c, "cluster_size=4k," LUKS, BY_A, BDRV_O_RDWR);
    in_another_process(&c, "amend:encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=1", "write:300000:5000:8");
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 99999), ==, 1);
    g_assert_cmpint(byte_at(&c, 304999), ==, 8);
    /* What opened it does so no more; the key stays, and the slots are those of the other process. */
    c.options = UNLOCKED "encrypt.key-secret=b";
    in_another_process(&c, "amend:encrypt.state=inactive,encrypt.old-secret=a", NULL);
    look_anew(&c);
    memset(data, 9, sizeof(data));
    g_assert_cmpint(blk_pwrite(c.blk, 400000, sizeof(data), data, 0), ==, 0);
    g_autoptr(BdrvOptions) info = blk_get_specific_info(c.blk);
    g_assert_false(bdrv_options_get_bool(info, "data.encrypt.slots.0.active", true));
    g_assert_true(bdrv_options_get_bool(info, "data.encrypt.slots.1.active", false));
    g_assert_cmpint(blk_flush(c.blk), ==, 0);
    in_another_process(&c, "write:0:4096:5", NULL);
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 0), ==, 5);
    g_assert_cmpint(byte_at(&c, 404999), ==, 9);
    end(&c);
}

static void test_legacy_encryption(void)
{
    Case c;
    begin_with(&c, "cluster_size=512,encrypt.format=aes,encrypt.key-secret=a", BY_A, 0);
    in_another_process(&c, "write:300000:5000:8", NULL);
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 99999), ==, 1);
    g_assert_cmpint(byte_at(&c, 304999), ==, 8);
    end(&c);
}

/* Until it is what it was. */
static void test_other_volume(void)
{
    Case c;
    begin_with(&c, "cluster_size=4k," LUKS, BY_A, 0);
    g_autofree char *kept = g_strconcat(c.path, "-kept", NULL);
    g_assert_cmpint(g_rename(c.path, kept), ==, 0);
    g_autofree char *content = NULL, *before = NULL;
    gsize bytes, bytes_before;
    g_assert_true(g_file_get_contents(kept, &before, &bytes_before, NULL));
    make_image(&c, "cluster_size=4k," LUKS);
    g_assert_true(g_file_get_contents(c.path, &content, &bytes, NULL));
    g_assert_cmpuint(bytes, ==, bytes_before);
    FILE *file = g_fopen(kept, "r+"); /* which is the one that is open */
    g_assert_cmpuint(fwrite(content, 1, bytes, file), ==, bytes);
    fflush(file);
    refuse(&c, "of another volume now");
    rewind(file);
    g_assert_cmpuint(fwrite(before, 1, bytes, file), ==, bytes);
    fclose(file);
    look_anew(&c);
    g_assert_cmpint(byte_at(&c, 99999), ==, 1);
    g_remove(kept);
    end(&c);
}

static void test_encryption_gone(void)
{
    Case c;
    begin_with(&c, "cluster_size=4k," LUKS, BY_A, 0);
    FILE *file = g_fopen(c.path, "r+");
    const uint8_t none[4] = { 0 };
    fseek(file, 32, SEEK_SET); /* the method in the header */
    fwrite(none, 1, sizeof(none), file);
    fclose(file);
    refuse(&c, "encryption");
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
    g_test_add_func("/qcow2/invalidate/an encrypted image keeps its key, and gets new key slots", test_key_slots);
    g_test_add_func("/qcow2/invalidate/an image with legacy encryption keeps its key", test_legacy_encryption);
    g_test_add_func("/qcow2/invalidate/another volume key is refused until the old one is back", test_other_volume);
    g_test_add_func("/qcow2/invalidate/an image that is no longer encrypted is refused", test_encryption_gone);
    g_test_add_func("/qcow2/invalidate/drained it stays so", test_drained);
    return g_test_run();
}
