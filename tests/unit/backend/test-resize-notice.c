/* SPDX-License-Identifier: MIT */
/* blk_set_resize_notice(): who is told of another length, when, and by whom. */
#include <bdrv/bdrv.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define MIB (1 << 20)

static char *directory;

static char *path_of(const char *name)
{
    return g_build_filename(directory, name, NULL);
}

/* A new image of 1 MiB. */
static void make(BdrvGraph *graph, const char *format, const char *name)
{
    g_autofree char *path = path_of(name);
    GError *error = NULL;

    g_assert_true(bdrv_create_image(graph, format, path, bdrv_options_parse("size=1M", NULL, NULL), &error));
    g_assert_no_error(error);
}

/* "%s" in the options is the directory. */
static BlockBackend *open_disk(BdrvGraph *graph, const char *options, BdrvOpenFlags flags)
{
    g_autoptr(GString) text = g_string_new(options);
    GError *error = NULL;

    g_string_replace(text, "%s", directory, 0);
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(text->str, NULL, NULL), flags, &error);
    g_assert_no_error(error);
    return blk;
}

static void must_close(BlockBackend *blk)
{
    GError *error = NULL;

    g_assert_true(blk_close(blk, &error));
    g_assert_no_error(error);
}

static void resize(BlockBackend *blk, int64_t length)
{
    GError *error = NULL;

    g_assert_true(blk_truncate(blk, length, true, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_no_error(error);
}

/* What a handle was told. */
typedef struct Told {
    BlockBackend *blk;
    _Atomic int64_t length;
    _Atomic int count;
    int64_t asked; /* the length that the handle had then */
    pthread_t thread;
} Told;

static void note(void *opaque, int64_t length)
{
    Told *told = opaque;

    told->asked = blk_length(told->blk);
    g_assert_cmpint(atomic_load(&told->length), !=, length);
    told->thread = pthread_self();
    atomic_fetch_add(&told->count, 1);
    atomic_store(&told->length, length);
}

static void watch(Told *told, BlockBackend *blk)
{
    *told = (Told){ .blk = blk };
    blk_set_resize_notice(blk, note, told);
    atomic_store(&told->length, blk_length(blk));
}

#define assert_told(told_, count_, length_)                             \
    do {                                                                \
        g_assert_cmpint(atomic_load(&(told_)->count), ==, (count_));    \
        g_assert_cmpint(atomic_load(&(told_)->length), ==, (length_));  \
    } while (0)

static void test_resize(const void *format)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *options = g_strdup_printf("driver=%s,file.filename=%%s/resize", (const char *)format);
    Told told;

    make(graph, format, "resize");
    BlockBackend *blk = open_disk(graph, options, BDRV_O_RDWR);
    watch(&told, blk);
    resize(blk, 3 * MIB);
    assert_told(&told, 1, 3 * MIB);
    g_assert_cmpint(told.asked, ==, 3 * MIB);
    g_assert_true(pthread_equal(told.thread, pthread_self()));
    resize(blk, 3 * MIB); /* which is nothing */
    assert_told(&told, 1, 3 * MIB);
    resize(blk, 2 * MIB);
    assert_told(&told, 2, 2 * MIB);
    g_assert_false(blk_truncate(blk, -1, true, BDRV_PREALLOC_OFF, 0, NULL));
    assert_told(&told, 2, 2 * MIB);
    must_close(blk);
}

/* The handle is on the node, a monitor's filter above it resizes; and the other way round. */
static void test_other_handle(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    Told on_node, on_filter, on_filters;

    make(graph, "qcow2", "shared");
    BlockBackend *node = open_disk(graph, "driver=qcow2,node-name=disk,file.filename=%s/shared", BDRV_O_RDWR);
    BlockBackend *filter = open_disk(graph, "driver=raw,file=disk", BDRV_O_RDWR);
    BlockBackend *filters = open_disk(graph, "driver=blkdebug,image.driver=raw,image.file=disk", BDRV_O_RDWR);
    watch(&on_node, node);
    watch(&on_filter, filter);
    watch(&on_filters, filters);
    resize(filter, 4 * MIB);
    assert_told(&on_node, 1, 4 * MIB);
    assert_told(&on_filter, 1, 4 * MIB);
    assert_told(&on_filters, 1, 4 * MIB);
    resize(node, 2 * MIB);
    assert_told(&on_node, 2, 2 * MIB);
    assert_told(&on_filter, 2, 2 * MIB);
    assert_told(&on_filters, 2, 2 * MIB);
    must_close(filters);
    must_close(filter);
    must_close(node);
}

static void test_two_handles_of_a_file(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    Told one, other;

    make(graph, "raw", "twice");
    BlockBackend *a = open_disk(graph, "driver=raw,file.driver=file,file.node-name=disk,file.filename=%s/twice",
                                BDRV_O_RDWR);
    BlockBackend *b = open_disk(graph, "driver=raw,offset=512,file=disk", BDRV_O_RDWR);
    watch(&one, a);
    watch(&other, b);
    resize(a, 2 * MIB);
    assert_told(&one, 1, 2 * MIB);
    assert_told(&other, 1, 2 * MIB - 512);
    resize(b, 3 * MIB - 512);
    assert_told(&one, 2, 3 * MIB);
    assert_told(&other, 2, 3 * MIB - 512);
    must_close(b);
    must_close(a);
}

static void test_snapshot(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BdrvSnapshotInfo info = { .name = (char *)"before" };
    GError *error = NULL;
    Told told;

    make(graph, "qcow2", "snapshot");
    BlockBackend *blk = open_disk(graph, "driver=qcow2,file.filename=%s/snapshot", BDRV_O_RDWR);
    watch(&told, blk);
    g_assert_true(blk_snapshot_create(blk, &info, &error));
    resize(blk, 2 * MIB);
    g_assert_true(blk_snapshot_goto(blk, "before", &error));
    assert_told(&told, 2, MIB);
    g_free(info.id);
    must_close(blk);
}

static void test_amend(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(BdrvOptions) options = bdrv_options_parse("size=5M", NULL, NULL);
    GError *error = NULL;
    Told told;

    make(graph, "qcow2", "amend");
    BlockBackend *blk = open_disk(graph, "driver=qcow2,file.filename=%s/amend", BDRV_O_RDWR);
    watch(&told, blk);
    g_assert_true(blk_amend(blk, options, false, NULL, NULL, &error));
    g_assert_no_error(error);
    assert_told(&told, 1, 5 * MIB);
    must_close(blk);
}

static void test_write_past_end(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    char sector[512] = "x";
    Told told;

    make(graph, "raw", "grows");
    BlockBackend *blk = open_disk(graph, "driver=raw,file.filename=%s/grows", BDRV_O_RDWR | BDRV_O_RESIZE);
    watch(&told, blk);
    blk_allow_write_beyond_eof(blk, true);
    g_assert_cmpint(blk_pwrite(blk, MIB - 512, 512, sector, 0), ==, 0);
    assert_told(&told, 0, MIB);
    g_assert_cmpint(blk_pwrite(blk, MIB, 512, sector, 0), ==, 0);
    assert_told(&told, 1, MIB + 512);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 2 * MIB, 512, 0), ==, 0);
    assert_told(&told, 2, 2 * MIB + 512);
    must_close(blk);
}

static void test_reopen(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;
    Told told;

    make(graph, "raw", "window");
    BlockBackend *blk = open_disk(graph, "driver=raw,size=64K,file.filename=%s/window", BDRV_O_RDWR);
    watch(&told, blk);
    g_assert_true(blk_reopen(blk, bdrv_options_parse("size=128K", NULL, NULL), BDRV_O_RDWR, &error));
    g_assert_no_error(error);
    assert_told(&told, 1, 128 << 10);
    must_close(blk);
}

static void test_invalidate(void)
{
    g_autoptr(BdrvGraph) ours = bdrv_graph_new(), theirs = bdrv_graph_new();
    GError *error = NULL;
    Told told;

    make(theirs, "qcow2", "elsewhere");
    BlockBackend *writer = open_disk(theirs, "driver=qcow2,file.filename=%s/elsewhere", BDRV_O_RDWR);
    BlockBackend *reader = open_disk(ours, "driver=qcow2,force-share=on,file.filename=%s/elsewhere", 0);
    watch(&told, reader);
    resize(writer, 2 * MIB);
    g_assert_cmpint(blk_flush(writer), ==, 0);
    assert_told(&told, 0, MIB);
    g_assert_true(blk_invalidate_cache(reader, &error));
    g_assert_no_error(error);
    assert_told(&told, 1, 2 * MIB);
    must_close(reader);
    must_close(writer);
}

/* A write does not wait for other handles: a filter learns of it when it is told to look. */
static void test_write_through_another(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    char sector[512] = "x";
    Told on_file, on_filter;

    make(graph, "raw", "beside");
    BlockBackend *writer = open_disk(graph, "driver=raw,file.driver=file,file.node-name=disk,file.filename=%s/beside",
                                     BDRV_O_RDWR | BDRV_O_RESIZE);
    BlockBackend *filter = open_disk(graph, "driver=raw,file=disk", BDRV_O_RDWR);
    BlockBackend *above = open_disk(graph, "driver=blkdebug,image.driver=raw,image.file=disk", BDRV_O_RDWR);
    watch(&on_file, writer);
    watch(&on_filter, above);
    blk_allow_write_beyond_eof(writer, true);
    g_assert_cmpint(blk_pwrite(writer, MIB, 512, sector, 0), ==, 0);
    assert_told(&on_file, 1, MIB + 512);
    assert_told(&on_filter, 0, MIB);
    g_assert_true(blk_invalidate_cache(above, NULL));
    assert_told(&on_filter, 1, MIB + 512);
    g_assert_cmpint(blk_length(filter), ==, MIB + 512);
    must_close(above);
    must_close(filter);
    must_close(writer);
}

static void test_ends(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    Told first, second, closed;

    make(graph, "qcow2", "ends");
    BlockBackend *blk = open_disk(graph, "driver=qcow2,node-name=disk,file.filename=%s/ends", BDRV_O_RDWR);
    BlockBackend *between = open_disk(graph, "driver=raw,file=disk", BDRV_O_RDWR);
    BlockBackend *other = open_disk(graph, "driver=raw,file=disk", BDRV_O_RDWR);
    watch(&closed, between);
    watch(&first, blk);
    watch(&second, blk); /* instead */
    must_close(between);
    resize(other, 2 * MIB);
    assert_told(&first, 0, MIB);
    assert_told(&second, 1, 2 * MIB);
    assert_told(&closed, 0, MIB);
    blk_set_resize_notice(blk, NULL, NULL);
    blk_set_resize_notice(blk, NULL, NULL);
    resize(other, 3 * MIB);
    assert_told(&second, 1, 2 * MIB);
    must_close(other);
    must_close(blk);
}

static void set_another(void *opaque, int64_t length)
{
    Told *told = opaque;

    g_test_expect_message(NULL, G_LOG_LEVEL_CRITICAL, "*called from a resize notice*");
    blk_set_resize_notice(told->blk, note, told);
    g_test_assert_expected_messages();
    atomic_fetch_add(&told->count, 1);
}

/* Which would wait for itself. */
static void test_from_inside(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();

    make(graph, "raw", "inside");
    BlockBackend *blk = open_disk(graph, "driver=raw,file.filename=%s/inside", BDRV_O_RDWR);
    Told told = { .blk = blk };
    blk_set_resize_notice(blk, set_another, &told);
    resize(blk, 2 * MIB);
    resize(blk, 3 * MIB);
    assert_told(&told, 2, 0);
    must_close(blk);
}

/* ---- many threads ---- */

typedef struct Storm {
    BdrvGraph *graph;
    Told told;
    _Atomic bool over;
} Storm;

/* The last bytes of the length that was told can be read: it only grows. */
static void *reading_thread(void *opaque)
{
    Storm *storm = opaque;
    char sector[512];

    while (!atomic_load(&storm->over)) {
        int64_t end = atomic_load(&storm->told.length);

        g_assert_cmpint(blk_pread(storm->told.blk, end - 512, 512, sector, 0), ==, 0);
    }
    return NULL;
}

/* A monitor's handles come and go, and so do their notices. */
static void *monitor_thread(void *opaque)
{
    Storm *storm = opaque;

    while (!atomic_load(&storm->over)) {
        BlockBackend *blk = open_disk(storm->graph, "driver=raw,file=disk", 0);
        Told told = { .blk = blk, .length = -1 };

        blk_set_resize_notice(blk, note, &told);
        g_usleep(100);
        blk_set_resize_notice(blk, NULL, NULL);
        blk_set_resize_notice(blk, note, &told);
        must_close(blk);
    }
    return NULL;
}

static void test_threads(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    Storm storm = { .graph = graph };
    pthread_t threads[4];
    const int times = 50;

    make(graph, "qcow2", "storm");
    BlockBackend *blk = open_disk(graph, "driver=qcow2,node-name=disk,file.filename=%s/storm", BDRV_O_RDWR);
    BlockBackend *resizer = open_disk(graph, "driver=raw,file=disk", BDRV_O_RDWR);
    watch(&storm.told, blk);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_create(&threads[i], NULL, i < 2 ? reading_thread : monitor_thread, &storm);
    }
    for (int i = 1; i <= times; i++) {
        resize(i % 2 ? resizer : blk, MIB + i * 65536);
        assert_told(&storm.told, i, MIB + i * 65536);
    }
    atomic_store(&storm.over, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    must_close(resizer);
    must_close(blk);
}

/* Writes of two threads make one file longer: what is told last is how long it is. */
static void *growing_thread(void *opaque)
{
    Told *told = opaque;
    char sector[512] = "x";

    for (int i = 0; i < 100; i++) {
        g_assert_cmpint(blk_pwrite(told->blk, MIB + i * 512, 512, sector, 0), ==, 0);
    }
    return NULL;
}

static void test_writers(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    pthread_t threads[2];
    Told told;

    make(graph, "raw", "writers");
    BlockBackend *blk = open_disk(graph, "driver=raw,file.filename=%s/writers", BDRV_O_RDWR | BDRV_O_RESIZE);
    watch(&told, blk);
    blk_allow_write_beyond_eof(blk, true);
    for (unsigned i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, growing_thread, &told);
    }
    for (unsigned i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    g_assert_cmpint(atomic_load(&told.length), ==, MIB + 100 * 512);
    must_close(blk);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    return remove(path);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    directory = g_dir_make_tmp("bdrv-notice-XXXXXX", NULL);
    g_assert_nonnull(directory);
    g_test_add_data_func("/resize-notice/a resize tells before it returns: qcow2", "qcow2", test_resize);
    g_test_add_data_func("/resize-notice/a resize tells before it returns: raw", "raw", test_resize);
    g_test_add_func("/resize-notice/a resize by another handle tells all that show the disk", test_other_handle);
    g_test_add_func("/resize-notice/a resize tells who has another part of the file", test_two_handles_of_a_file);
    g_test_add_func("/resize-notice/going to a snapshot of another length tells", test_snapshot);
    g_test_add_func("/resize-notice/an amended size is told", test_amend);
    g_test_add_func("/resize-notice/a write past the end tells", test_write_past_end);
    g_test_add_func("/resize-notice/a reopen with another size tells", test_reopen);
    g_test_add_func("/resize-notice/what another process did is told when the cache is invalidated", test_invalidate);
    g_test_add_func("/resize-notice/a write past the end through another filter is told when it is looked for",
                    test_write_through_another);
    g_test_add_func("/resize-notice/nobody is told who ended it, was replaced or closed", test_ends);
    g_test_add_func("/resize-notice/setting one from inside is refused", test_from_inside);
    g_test_add_func("/resize-notice/what was told can be read, whatever other threads do", test_threads);
    g_test_add_func("/resize-notice/the last notice has the length that holds", test_writers);
    ret = g_test_run();
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    g_free(directory);
    return ret;
}
