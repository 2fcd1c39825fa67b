/* SPDX-License-Identifier: MIT */
/* Questions about a handle, asked by some threads while others reopen, resize and change the image. */
#include <bdrv/aio.h>
#include <bdrv/bdrv.h>
#include <bdrv/bitmap.h>

#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>

#define MIB (1 << 20)

static char *directory;

typedef struct Scene {
    BdrvGraph *graph;
    BlockBackend *blk;
    char *path;
    _Atomic unsigned told; /* asked in callbacks */
    _Atomic bool over;
} Scene;

static void must(bool ok, GError *error)
{
    g_assert_no_error(error);
    g_assert_true(ok);
}

static BlockBackend *open_text(BdrvGraph *graph, char *options, BdrvOpenFlags flags)
{
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, NULL, bdrv_options_parse(options, NULL, NULL), flags, &error);

    g_free(options);
    must(blk, error);
    return blk;
}

/* A qcow2 image over another one, with blkdebug between it and its file. */
static void scene_open(Scene *scene, const char *name)
{
    g_autofree char *base = g_strdup_printf("%s/%s-base", directory, name);
    BdrvOptions *options = bdrv_options_parse("size=1M,backing_fmt=qcow2", NULL, NULL);
    GError *error = NULL;

    *scene = (Scene){ .graph = bdrv_graph_new(), .path = g_build_filename(directory, name, NULL) };
    bdrv_graph_set_opener_gate(scene->graph, bdrv_gate_local, NULL);
    must(bdrv_create_image(scene->graph, "qcow2", base, bdrv_options_parse("size=1M", NULL, NULL), &error), error);
    bdrv_options_set_string(options, "backing_file", base);
    must(bdrv_create_image(scene->graph, "qcow2", scene->path, options, &error), error);
    scene->blk = open_text(scene->graph,
                           g_strdup_printf("driver=qcow2,node-name=disk,file.driver=blkdebug,"
                                           "file.image.filename=%s", scene->path), BDRV_O_RDWR);
}

static void scene_close(Scene *scene)
{
    GError *error = NULL;

    must(blk_close(scene->blk, &error), error);
    bdrv_graph_unref(scene->graph);
    g_free(scene->path);
}

/* ---- who asks ---- */

/* What can be asked anywhere. */
static void ask_anywhere(Scene *scene)
{
    BlockBackend *blk = scene->blk;
    BdrvLimits limits;
    g_autofree char *text = bdrv_graph_to_text(scene->graph), *dot = bdrv_graph_to_dot(scene->graph);
    g_autofree char *why = blk_explain(blk);

    g_assert_nonnull(strstr(text, "disk"));
    g_assert_nonnull(strstr(dot, "disk"));
    g_assert_null(why);
    g_assert_cmpint(blk_get_limits(blk, &limits), ==, 0);
    g_assert_cmpint(limits.pdiscard_alignment, ==, 65536);
    g_assert_cmpint(limits.max_iov, >, 0);
    g_assert_cmpint(blk_request_alignment(blk), ==, 1);
    g_assert_cmpint(blk_max_transfer(blk), ==, 0);
    g_assert_cmpint(blk_length(blk), >=, MIB);
    g_assert_cmpstr(blk_driver(blk), ==, "qcow2");
    g_assert_true(g_str_has_suffix(blk_filename(blk), scene->path));
    g_assert_true(g_str_has_prefix(blk_name(blk), "virtio") || g_str_equal(blk_name(blk), ""));
    g_assert_false(blk_probed(blk));
    g_assert_true(blk_graph(blk) == scene->graph);
    blk_is_read_only(blk);
    blk_has_zero_init(blk);
    bdrv_vfree(blk_blockalign(blk, 512));
    bdrv_options_free(blk_get_specific_info(blk));
    bdrv_options_free(blk_layer_specific_info(blk, 1));
    g_assert_cmpint(blk_debug_is_suspended(blk, "nobody"), ==, 0);
}

static void ask_layers(BlockBackend *blk)
{
    BdrvLayer layer;

    g_assert_cmpint(blk_count_layers(blk), ==, 2);
    g_assert_true(blk_layer(blk, 0, &layer));
    g_assert_cmpstr(layer.driver, ==, "qcow2");
    if (layer.full_backing_filename) { /* texts that were told stay, whatever becomes of the image */
        g_usleep(100);
        g_assert_true(g_str_has_suffix(layer.full_backing_filename, "-base"));
        g_assert_true(g_str_has_suffix(layer.backing_filename, "-base"));
        g_assert_cmpstr(layer.backing_format, ==, "qcow2");
    }
    g_assert_true(blk_layer(blk, 1, &layer));
    g_assert_false(blk_layer(blk, 2, &layer));
}

static void ask_blocking(BlockBackend *blk)
{
    BdrvSnapshotInfo *snapshots = NULL;
    BdrvBitmapInfo *bitmaps = NULL;
    BlockExtent extent;
    BdrvNodeStats stats;
    BdrvInfo info;
    GError *error = NULL;
    int count;

    g_assert_cmpint(blk_get_info(blk, &info), ==, 0);
    g_assert_cmpint(info.cluster_size, ==, 65536);
    g_assert_cmpint(blk_allocated_size(blk), >=, 0);
    g_assert_cmpint(blk_block_status_above(blk, 0, MIB, &extent), ==, 0);
    must(blk_check_truncate(blk, 64 * MIB, true, BDRV_PREALLOC_OFF, &error), error);
    count = blk_list_snapshots(blk, &snapshots);
    g_assert_cmpint(count, >=, 0);
    bdrv_snapshot_list_free(snapshots, count);
    count = blk_bitmap_list(blk, &bitmaps, &error);
    must(count >= 0, error);
    bdrv_bitmap_list_free(bitmaps, count);
    must(blk_get_stats(blk, NULL, &stats, &error), error);
}

static void *asking_thread(void *opaque)
{
    Scene *scene = opaque;

    while (!atomic_load(&scene->over)) {
        ask_anywhere(scene);
        ask_layers(scene->blk);
        ask_blocking(scene->blk);
    }
    return NULL;
}

static void ask_in_callback(void *opaque, int ret)
{
    Scene *scene = opaque;

    g_assert_cmpint(ret, ==, 0);
    ask_anywhere(scene);
    atomic_fetch_add(&scene->told, 1);
}

static void coroutine_fn ask_in_coroutine(void *opaque)
{
    ask_anywhere(opaque);
}

/* From callbacks and coroutines; a write each time, so that the metadata changes too. */
static void *calling_thread(void *opaque)
{
    Scene *scene = opaque;
    g_autoptr(AioContext) ctx = aio_context_new(NULL);
    char byte = 0;
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, &byte, 1);
    unsigned asked = 0;

    aio_context_enter(ctx);
    while (!atomic_load(&scene->over)) {
        blk_aio_preadv(scene->blk, asked % 16 * 65536, &iov, 0, ask_in_callback, scene);
        for (asked++; atomic_load(&scene->told) < asked;) {
            aio_context_run(ctx, true);
        }
        g_assert_cmpint(co_run_blocking(ask_in_coroutine, scene), ==, 0);
    }
    aio_context_leave(ctx);
    return NULL;
}

/* Through a handle that comes and goes, on a filter above the image. */
static void *opening_thread(void *opaque)
{
    Scene *scene = opaque;
    GError *error = NULL;

    while (!atomic_load(&scene->over)) {
        BlockBackend *blk = open_text(scene->graph, g_strdup("driver=raw,file=disk"), 0);

        g_assert_cmpint(blk_request_alignment(blk), ==, 1);
        ask_layers(blk);
        must(blk_close(blk, &error), error);
    }
    return NULL;
}

/* ---- who changes ---- */

static void reopen(Scene *scene, const char *options, BdrvOpenFlags flags)
{
    GError *error = NULL;

    must(blk_reopen(scene->blk, options ? bdrv_options_parse(options, NULL, NULL) : NULL, flags, &error), error);
}

static void change_contents(BlockBackend *blk, int i)
{
    BdrvSnapshotInfo info = { .name = (char *)"s" };
    GError *error = NULL;
    char sector[512] = "x";

    g_assert_cmpint(blk_pwrite(blk, i % 16 * 65536, sizeof(sector), sector, 0), ==, 0);
    must(blk_bitmap_add(blk, "b", 65536, true, &error), error);
    must(blk_snapshot_create(blk, &info, &error), error);
    must(blk_snapshot_delete(blk, NULL, "s", &error), error);
    must(blk_bitmap_remove(blk, "b", &error), error);
    must(blk_truncate(blk, MIB + i % 3 * 65536, true, BDRV_PREALLOC_OFF, 0, &error), error);
    g_free(info.id);
}

static void change_names(Scene *scene, int i)
{
    g_autofree char *name = g_strdup_printf("virtio%d", i % 4);
    g_autofree char *image = g_path_get_basename(scene->path);
    g_autofree char *base = g_strdup_printf("%s%s-base", i % 2 ? "./" : "", image);
    GError *error = NULL;

    blk_set_name(scene->blk, name);
    must(blk_change_backing_file(scene->blk, base, "qcow2", &error), error);
}

static void change_all(Scene *scene, int i)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse(i % 2 ? "lazy_refcounts=on" : "lazy_refcounts=off", NULL, NULL);
    GError *error = NULL;
    reopen(scene, i % 2 ? "l2-cache-size=1M" : "l2-cache-size=2M", BDRV_O_RDWR);
    reopen(scene, NULL, 0);
    must(blk_invalidate_cache(scene->blk, &error), error);
    reopen(scene, NULL, BDRV_O_RDWR);
    change_contents(scene->blk, i);
    change_names(scene, i);
    must(blk_amend(scene->blk, options, false, NULL, NULL, &error), error);
    blk_set_writethrough(scene->blk, i % 2);
}

static void test_threads(void)
{
    void *(*const entries[])(void *) = { asking_thread, asking_thread, calling_thread, opening_thread };
    pthread_t threads[G_N_ELEMENTS(entries)];
    GError *error = NULL;
    Scene scene;

    scene_open(&scene, "threads");
    must(blk_keep_stats(scene.blk, true, &error), error);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_create(&threads[i], NULL, entries[i], &scene);
    }
    for (int i = 0; i < 30; i++) {
        change_all(&scene, i);
    }
    atomic_store(&scene.over, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    scene_close(&scene);
}

static void test_texts_stay(void)
{
    const char *name, *filename;
    GError *error = NULL;
    BdrvLayer layer;
    Scene scene;

    scene_open(&scene, "texts");
    blk_set_name(scene.blk, "virtio0");
    name = blk_name(scene.blk);
    filename = blk_filename(scene.blk);
    g_assert_true(blk_layer(scene.blk, 0, &layer));
    g_autofree char *backing = g_strdup(layer.backing_filename);
    reopen(&scene, "l2-cache-size=1M", BDRV_O_RDWR);
    blk_set_name(scene.blk, NULL);
    must(blk_change_backing_file(scene.blk, NULL, NULL, &error), error);
    g_assert_cmpstr(name, ==, "virtio0");
    g_assert_cmpstr(blk_name(scene.blk), ==, "");
    g_assert_true(filename == blk_filename(scene.blk));
    g_assert_cmpstr(layer.backing_filename, ==, backing);
    g_assert_cmpstr(layer.full_backing_filename, ==, backing);
    g_assert_cmpstr(layer.backing_format, ==, "qcow2");
    g_assert_true(blk_layer(scene.blk, 0, &layer));
    g_assert_null(layer.backing_filename);
    g_assert_null(layer.full_backing_filename);
    scene_close(&scene);
}

static void ask_while_drained(void *opaque)
{
    Scene *scene = opaque;
    BdrvLimits limits;

    g_assert_null(blk_get_specific_info(scene->blk));
    g_assert_false(blk_has_zero_init(scene->blk));
    g_assert_cmpint(blk_get_limits(scene->blk, &limits), ==, 0);
    g_assert_cmpint(blk_debug_resume(scene->blk, "nobody"), ==, -ENOENT);
    atomic_fetch_add(&scene->told, 1);
}

static void test_callback_while_drained(void)
{
    g_autoptr(AioContext) ctx = aio_context_new(NULL);
    Scene scene;
    AioCall call = { .func = ask_while_drained, .opaque = &scene };

    aio_context_enter(ctx);
    scene_open(&scene, "drained");
    g_assert_cmpint(blk_drain_begin(scene.blk), ==, 0);
    aio_call_user(ctx, &call);
    while (!atomic_load(&scene.told)) {
        aio_context_run(ctx, true);
    }
    blk_drain_end(scene.blk);
    scene_close(&scene);
    aio_context_leave(ctx);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    return remove(path);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    directory = g_dir_make_tmp("bdrv-query-XXXXXX", NULL);
    g_assert_nonnull(directory);
    g_test_add_func("/query/any thread may ask while another one changes the image", test_threads);
    g_test_add_func("/query/texts stay until the handle is closed", test_texts_stay);
    g_test_add_func("/query/a callback does not wait for the end of a drain", test_callback_while_drained);
    ret = g_test_run();
    nftw(directory, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    g_free(directory);
    return ret;
}
