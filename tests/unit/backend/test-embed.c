/* SPDX-License-Identifier: MIT */
/* What an embedder gets besides I/O: descriptors, gates, maps, statistics, progress, structures that grow. */
#include "tests/unit/backend/slow.h"

#include "block/util/sized.h"

#include <bdrv/driver.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char *directory;

static char *path_of(const char *name)
{
    return g_build_filename(directory, name, NULL);
}

static void must_close(BlockBackend *blk)
{
    GError *error = NULL;

    g_assert_true(blk_close(blk, &error));
    g_assert_no_error(error);
}

static void make(BdrvGraph *graph, const char *name, const char *options)
{
    g_autofree char *path = path_of(name);
    GError *error = NULL;

    g_assert_true(bdrv_create_image(graph, "qcow2", path, bdrv_options_parse(options, NULL, NULL), &error));
    g_assert_no_error(error);
}

static BlockBackend *must_open(BdrvGraph *graph, const char *name, const char *options, BdrvOpenFlags flags)
{
    g_autofree char *path = path_of(name);
    GError *error = NULL;
    BlockBackend *blk = blk_open(graph, path, bdrv_options_parse(options, NULL, NULL), flags, &error);

    g_assert_no_error(error);
    return blk;
}

#define assert_refused(error_, code_, said_)                \
    do {                                                    \
        g_assert_error((error_), BDRV_ERROR, (code_));      \
        g_assert_nonnull(strstr((error_)->message, said_)); \
        g_clear_error(&(error_));                           \
    } while (0)

/* ---- by descriptor ---- */

static void test_descriptor(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *path = path_of("fd");
    GError *error = NULL;
    uint8_t byte = 7;

    make(graph, "fd", "size=1M");
    int fd = open(path, O_RDONLY | O_CLOEXEC), flags = fcntl(fd, F_GETFL);
    BlockBackend *blk = blk_open_fd(graph, fd, NULL, NULL, BDRV_O_RDWR | BDRV_O_NOCACHE, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(blk_driver(blk), ==, "qcow2");
    g_assert_cmpint(fcntl(fd, F_GETFL), ==, flags); /* opened anew for writing, and without the page cache */
    g_unlink(path);                                 /* there is no name to open it by from here on */
    close(fd);
    g_assert_cmpint(blk_pwrite(blk, 1000, 1, &byte, 0), ==, 0);
    g_assert_true(blk_reopen(blk, NULL, 0, &error));
    g_assert_no_error(error);
    byte = 0;
    g_assert_cmpint(blk_pread(blk, 1000, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 7);
    must_close(blk);
}

static void test_descriptor_locks(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *path = path_of("fd-locks");
    GError *error = NULL;

    make(graph, "fd-locks", "size=1M");
    int fd = open(path, O_RDWR | O_CLOEXEC);
    BlockBackend *blk = blk_open_fd(graph, fd, "qcow2", NULL, BDRV_O_RDWR, &error);
    g_assert_no_error(error);
    g_assert_null(blk_open(graph, path, NULL, BDRV_O_RDWR, &error));
    assert_refused(error, EBUSY, "lock");
    must_close(blk);
    must_close(must_open(graph, "fd-locks", "driver=qcow2", BDRV_O_RDWR)); /* though @fd is still open */
    close(fd);
}

static void test_descriptor_refusals(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;
    int ends[2];

    g_assert_null(blk_open_fd(graph, -1, NULL, NULL, 0, &error));
    assert_refused(error, EBADF, "fd -1");
    g_assert_cmpint(pipe(ends), ==, 0);
    g_assert_null(blk_open_fd(graph, ends[0], "raw", NULL, 0, &error));
    assert_refused(error, EINVAL, "is a pipe");
    close(ends[0]);
    close(ends[1]);
}

/* ---- gates ---- */

static bool passes(BdrvOpenerGate *gate, void *opaque, const char *name, int code)
{
    bool guess = false, ok;
    GError *error = NULL;

    ok = gate(opaque, "top", name, "raw", &guess, &error);
    g_assert_true(ok == !error);
    g_assert_false(guess);
    if (!ok) {
        g_assert_error(error, BDRV_ERROR, code);
        g_clear_error(&error);
    }
    return ok;
}

static void test_gate_directory(void)
{
    g_autofree char *inside = path_of("inside"), *sub = path_of("sub"), *below = path_of("sub/below");
    g_autofree char *out = path_of("out"), *dotted = path_of("sub/../inside"), *missing = path_of("missing");
    g_autofree char *prefixed = g_strconcat("file:", inside, NULL), *other = g_strconcat("nbd:", inside, NULL);

    g_assert_cmpint(g_mkdir(sub, 0700), ==, 0);
    g_assert_true(g_file_set_contents(inside, "", 0, NULL) && g_file_set_contents(below, "", 0, NULL));
    g_assert_cmpint(symlink("sub/below", out), ==, 0);
    g_assert_true(passes(bdrv_gate_directory, directory, inside, 0));
    g_assert_true(passes(bdrv_gate_directory, directory, prefixed, 0));
    g_assert_true(passes(bdrv_gate_directory, directory, dotted, 0));
    g_assert_false(passes(bdrv_gate_directory, directory, below, EACCES));
    g_assert_false(passes(bdrv_gate_directory, directory, out, EACCES)); /* where the link leads counts */
    g_assert_true(passes(bdrv_gate_directory, sub, out, 0));
    g_assert_false(passes(bdrv_gate_directory, directory, missing, ENOENT));
    g_assert_false(passes(bdrv_gate_directory, directory, other, EACCES));
    g_assert_false(passes(bdrv_gate_directory, directory, "json:{\"driver\":\"file\"}", EACCES));
    g_assert_false(passes(bdrv_gate_directory, (char *)"/nonexistent", inside, EACCES));
}

static void test_gate_list(void)
{
    g_autofree char *one = path_of("one"), *two = path_of("two"), *link = path_of("link");
    const char *const list[] = { "/nonexistent", "simdisk:base", one, NULL };

    g_assert_true(g_file_set_contents(one, "", 0, NULL) && g_file_set_contents(two, "", 0, NULL));
    g_assert_cmpint(symlink("one", link), ==, 0);
    g_assert_true(passes(bdrv_gate_list, (void *)list, one, 0));
    g_assert_true(passes(bdrv_gate_list, (void *)list, link, 0));
    g_assert_true(passes(bdrv_gate_list, (void *)list, "simdisk:base", 0));
    g_assert_false(passes(bdrv_gate_list, (void *)list, two, EACCES));
    g_assert_false(passes(bdrv_gate_list, (void *)list, "simdisk:other", EACCES));
    g_assert_false(passes(bdrv_gate_none, NULL, one, EACCES));
}

static void test_gate_is_asked(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *base = path_of("base"), *top = path_of("top");
    const char *const list[] = { base, NULL };
    GError *error = NULL;

    make(graph, "base", "size=1M");
    make(graph, "top", "size=1M,backing_file=base,backing_fmt=qcow2");
    bdrv_graph_set_opener_gate(graph, bdrv_gate_none, NULL);
    g_assert_null(blk_open(graph, top, NULL, 0, &error));
    assert_refused(error, EACCES, "may name no other files");
    bdrv_graph_set_opener_gate(graph, bdrv_gate_directory, directory);
    must_close(must_open(graph, "top", "", 0));
    bdrv_graph_set_opener_gate(graph, bdrv_gate_list, (void *)list);
    must_close(must_open(graph, "top", "", 0));
}

/* ---- maps ---- */

typedef struct Seen {
    GString *text;
    unsigned calls, last;
} Seen;

static bool see(void *opaque, int64_t offset, const BlockExtent *extent)
{
    static const char kinds[] = { [EXTENT_BACKING] = 'b', [EXTENT_ZERO] = 'z', [EXTENT_DATA] = 'd' };
    Seen *seen = opaque;

    g_string_append_printf(seen->text, "%c%" G_GINT64_FORMAT "+%" G_GINT64_FORMAT " ", kinds[extent->kind], offset >> 16,
                           extent->bytes >> 16);
    return ++seen->calls != seen->last;
}

static void check_map(BlockBackend *blk, int64_t offset, int64_t bytes, unsigned last, const char *text)
{
    Seen seen = { g_string_new(NULL), 0, last };

    g_assert_cmpint(blk_map(blk, offset << 16, bytes << 16, false, see, &seen), ==, 0);
    g_assert_cmpstr(seen.text->str, ==, text);
    g_string_free(seen.text, TRUE);
}

static void test_map(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree uint8_t *buf = g_malloc0(128 << 10);
    BlockBackend *blk;

    make(graph, "map", "size=1M");
    blk = must_open(graph, "map", "driver=qcow2", BDRV_O_RDWR);
    memset(buf, 1, 128 << 10);
    g_assert_cmpint(blk_pwrite(blk, 64 << 10, 64 << 10, buf, 0), ==, 0); /* two writes, one extent */
    g_assert_cmpint(blk_pwrite(blk, 128 << 10, 64 << 10, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite_zeroes(blk, 256 << 10, 128 << 10, 0), ==, 0);
    check_map(blk, 0, 16, 0, "b0+1 d1+2 b3+1 z4+2 b6+10 ");
    check_map(blk, 0, 16, 2, "b0+1 d1+2 ");
    check_map(blk, 2, 3, 0, "d2+1 b3+1 z4+1 ");
    check_map(blk, 16, 0, 0, "");
    g_assert_cmpint(blk_map(blk, 0, (1 << 20) + 1, false, see, NULL), ==, -EIO);
    g_assert_cmpint(blk_map(blk, -1, 1, false, see, NULL), ==, -EIO);
    g_assert_cmpint(blk_map(blk, INT64_MAX, INT64_MAX, true, see, NULL), ==, -EIO);
    must_close(blk);
}

/* ---- statistics ---- */

static BdrvNodeStats stats_of(BlockBackend *blk, const char *node)
{
    BdrvNodeStats stats;
    GError *error = NULL;

    g_assert_true(blk_get_stats(blk, node, &stats, &error));
    g_assert_no_error(error);
    return stats;
}

static uint64_t sum_of_latencies(const BdrvStatCounts *counts)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < BDRV_LATENCY_BUCKETS; i++) {
        sum += counts->latency[i];
    }
    return sum;
}

static void *read_in_thread(void *opaque)
{
    uint8_t buf[100];

    g_assert_cmpint(blk_pread(opaque, 0, 100, buf, 0), ==, 0);
    return NULL;
}

static void test_stats(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=veil,node-name=top,file.driver=slow,file.node-name=disk", BDRV_O_RDWR);
    GError *error = NULL;
    BdrvNodeStats stats;
    uint8_t buf[512] = { 0 };
    pthread_t thread;

    g_assert_false(blk_get_stats(blk, NULL, &stats, &error));
    assert_refused(error, ENODATA, "blk_keep_stats()");
    g_assert_true(blk_keep_stats(blk, true, NULL));
    g_assert_false(blk_get_stats(blk, "nosuch", &stats, &error));
    assert_refused(error, ENOENT, "nosuch");
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, 0);
    g_assert_cmpint(blk_pwrite(blk, 0, 300, buf, 0), ==, 0);
    g_assert_cmpint(pthread_create(&thread, NULL, read_in_thread, blk), ==, 0);
    pthread_join(thread, NULL);
    slow_state(graph, "disk")->flush_result = -EDQUOT;
    g_assert_cmpint(blk_flush(blk), ==, -EDQUOT);
    for (unsigned i = 0; i < 2; i++) {
        stats = stats_of(blk, i ? "disk" : NULL);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_READ].requests, ==, 2);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_READ].bytes, ==, 612);
        g_assert_cmpuint(sum_of_latencies(&stats.kinds[BDRV_STAT_READ]), ==, 2);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_WRITE].requests, ==, 1);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_WRITE].bytes, ==, 300);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_WRITE].failed, ==, 0);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_FLUSH].requests, ==, 1);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_FLUSH].failed, ==, 1);
        g_assert_cmpuint(stats.kinds[BDRV_STAT_ZERO].requests, ==, 0);
    }
    g_assert_true(blk_keep_stats(blk, false, NULL));
    g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, 0);
    g_assert_cmpuint(stats_of(blk, NULL).kinds[BDRV_STAT_READ].requests, ==, 2); /* kept, but not continued */
    slow_state(graph, "disk")->flush_result = 0;
    must_close(blk);
}

static void test_cache_stats(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk;
    uint8_t buf[512] = { 1 };

    make(graph, "cache", "size=1M");
    blk = must_open(graph, "cache", "driver=qcow2", BDRV_O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, 0, 512, buf, 0), ==, 0);
    must_close(blk);
    blk = must_open(graph, "cache", "driver=qcow2", 0);
    g_assert_true(blk_keep_stats(blk, true, NULL));
    for (unsigned i = 0; i < 5; i++) {
        g_assert_cmpint(blk_pread(blk, 0, 512, buf, 0), ==, 0);
    }
    g_assert_cmpuint(stats_of(blk, NULL).cache_misses, ==, 1); /* one L2 slice */
    g_assert_cmpuint(stats_of(blk, NULL).cache_hits, >=, 4);
    must_close(blk);
}

/* ---- cancelling ---- */

typedef struct Limit {
    unsigned calls, last;
    int64_t done, total;
} Limit;

static bool until_last(void *opaque, int64_t done, int64_t total)
{
    Limit *limit = opaque;

    g_assert_cmpint(done, >=, limit->done);
    g_assert_cmpint(done, <=, total);
    limit->done = done;
    limit->total = total;
    return ++limit->calls != limit->last;
}

static BlockBackend *open_filled(BdrvGraph *graph, const char *name, const char *options, int byte)
{
    g_autofree uint8_t *buf = g_malloc(1 << 20);
    BlockBackend *blk;

    make(graph, name, options);
    blk = must_open(graph, name, "driver=qcow2", BDRV_O_RDWR);
    memset(buf, byte, 1 << 20);
    for (int i = 0; i < 8; i++) {
        g_assert_cmpint(blk_pwrite(blk, (int64_t)i << 20, 1 << 20, buf, 0), ==, 0);
    }
    return blk;
}

static void assert_reads_as(BlockBackend *blk, int byte)
{
    g_autofree uint8_t *buf = g_malloc(8 << 20);

    g_assert_cmpint(blk_pread(blk, 0, 8 << 20, buf, 0), ==, 0);
    g_assert_cmpint(buf[0], ==, byte);
    g_assert_cmpint(memcmp(buf, buf + 1, (8 << 20) - 1), ==, 0);
}

static void test_cancel_commit(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *base = open_filled(graph, "c-base", "size=8M", 1);
    BlockBackend *top = open_filled(graph, "c-top", "size=8M", 2);
    Limit limit = { .last = 2 };
    BlkCommitOptions options = { .progress = until_last, .opaque = &limit };
    GError *error = NULL;

    g_assert_false(blk_commit(top, base, &options, &error));
    assert_refused(error, ECANCELED, "cancelled at");
    g_assert_cmpuint(limit.calls, ==, 2);
    g_assert_cmpint(limit.done, <, limit.total);
    assert_reads_as(top, 2); /* nothing is lost, and it can be done once more */
    limit = (Limit){ 0 };
    g_assert_true(blk_commit(top, base, &options, &error));
    g_assert_cmpint(limit.done, ==, limit.total);
    assert_reads_as(base, 2);
    must_close(top);
    must_close(base);
}

static void test_cancel_rebase(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *base, *top;
    Limit limit = { .last = 3 };
    BlkRebaseOptions options = { .progress = until_last, .opaque = &limit };
    GError *error = NULL;

    base = open_filled(graph, "r-base", "size=8M", 1);
    must_close(base);
    make(graph, "r-top", "size=8M,backing_file=r-base,backing_fmt=qcow2");
    bdrv_graph_set_opener_gate(graph, bdrv_gate_directory, directory);
    top = must_open(graph, "r-top", "driver=qcow2", BDRV_O_RDWR);
    g_assert_false(blk_rebase(top, NULL, &options, &error));
    assert_refused(error, ECANCELED, "cancelled at");
    assert_reads_as(top, 1);
    must_close(top);
    top = must_open(graph, "r-top", "driver=qcow2", BDRV_O_RDWR); /* still with its backing file */
    assert_reads_as(top, 1);
    limit = (Limit){ 0 };
    g_assert_true(blk_rebase(top, NULL, &options, &error));
    must_close(top);
    top = must_open(graph, "r-top", "driver=qcow2", BDRV_O_NO_BACKING);
    assert_reads_as(top, 1);
    must_close(top);
}

/* @limit: NULL: nobody is told */
static bool create(BdrvGraph *graph, const char *format, const char *name, const char *options, Limit *limit,
                   GError **errp)
{
    g_autofree char *path = path_of(name);

    return bdrv_create_image_progress(graph, format, path, bdrv_options_parse(options, NULL, NULL),
                                      limit ? until_last : NULL, limit, errp);
}

static void test_cancel_create(gconstpointer format)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *name = g_strdup_printf("full-%s", (const char *)format), *path = path_of(name);
    const char *options = g_str_equal(format, "luks") ? "size=160M,preallocation=full,key-secret=key,iter-time=10"
                                                      : "size=160M,preallocation=full";
    Limit limit = { .last = 2 };
    GError *error = NULL;
    struct stat st;

    g_assert_true(bdrv_graph_add_secret(graph, "key", "sesame", 6, &error));
    g_assert_false(create(graph, format, name, options, &limit, &error));
    assert_refused(error, ECANCELED, "cancelled at 13"); /* some 128 MiB */
    g_assert_cmpuint(limit.calls, ==, 2);
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    limit = (Limit){ 0 };
    g_assert_true(create(graph, format, name, options, &limit, &error));
    g_assert_cmpint(limit.done, ==, limit.total);
    g_assert_cmpint(limit.total, >=, 160 << 20);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_blocks * INT64_C(512), >=, 160 << 20);
    g_unlink(path);
}

/* A format that knows nothing of preallocation. */
static bool coroutine_fn plain_open(BlockDriverState *bs, const BdrvOptions *options, BdrvOpenFlags flags, GError **errp)
{
    return true;
}

static bool coroutine_fn plain_create(const char *filename, BdrvChild *file, const BdrvOptions *options, GError **errp)
{
    return bdrv_co_truncate(file, bdrv_options_get_int(options, "size", 0), true, BDRV_PREALLOC_OFF, 0, errp);
}

static int coroutine_fn plain_co_readv(BlockDriverState *bs, int64_t offset, int64_t bytes, const BdrvIov *iov,
                                       size_t iov_offset, BdrvRequestFlags flags)
{
    return bdrv_co_preadv(bs->file, offset, bytes, iov, iov_offset, flags);
}

static void test_no_preallocation(void)
{
    static const BdrvChildSpec children[] = { { .name = "file", .role = BDRV_CHILD_PROTOCOL }, { .name = NULL } };
    static const BlockDriver plain = { .format_name = "plain",
                                       .children = children,
                                       .bdrv_open = plain_open,
                                       .bdrv_create = plain_create,
                                       .bdrv_co_readv = plain_co_readv };
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *path = path_of("not-full");
    GError *error = NULL;

    g_assert_true(bdrv_register(&plain));
    g_assert_false(create(graph, "plain", "not-full", "size=16M,preallocation=full", NULL, &error));
    assert_refused(error, ENOTSUP, "format 'plain' does not support preallocation=full");
    g_assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    g_assert_true(create(graph, "plain", "not-full", "size=16M,preallocation=off,nocow=off", NULL, &error));
    g_assert_no_error(error);
    g_unlink(path);
}

static void test_cancel_truncate(gconstpointer format)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree char *name = g_strdup_printf("grown-%s", (const char *)format), *path = path_of(name);
    g_autofree char *driver = g_strdup_printf("driver=%s", (const char *)format);
    BdrvCheckResult check = { 0 };
    Limit limit = { .last = 2 };
    GError *error = NULL;
    uint8_t byte;

    g_assert_true(create(graph, format, name, "size=1M", &limit, &error));
    BlockBackend *blk = must_open(graph, name, driver, BDRV_O_RDWR);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, "x", 0), ==, 0);
    limit = (Limit){ .last = 2 };
    g_assert_false(blk_truncate_progress(blk, 160 << 20, true, BDRV_PREALLOC_FULL, 0, until_last, &limit, &error));
    assert_refused(error, ECANCELED, "cancelled at");
    g_assert_cmpuint(limit.calls, ==, 2);
    g_assert_cmpint(blk_length(blk), ==, 1 << 20);
    if (blk_check(blk, &check, BDRV_FIX_NONE, NULL)) { /* raw has none */
        g_assert_cmpint(check.corruptions + check.leaks, ==, 0);
    }
    limit = (Limit){ 0 };
    g_assert_true(blk_truncate_progress(blk, 160 << 20, true, BDRV_PREALLOC_FULL, 0, until_last, &limit, &error));
    g_assert_cmpint(limit.done, ==, limit.total);
    g_assert_cmpint(blk_length(blk), ==, 160 << 20);
    g_assert_true(blk_truncate(blk, 300 << 20, true, BDRV_PREALLOC_FULL, 0, &error)); /* nobody is told */
    g_assert_cmpint(limit.done, ==, limit.total);
    g_assert_cmpint(blk_pread(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(byte, ==, 'x');
    must_close(blk);
    g_unlink(path);
}

static void test_rounded_length(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    GError *error = NULL;

    make(graph, "rounded", "size=1M");
    BlockBackend *blk = must_open(graph, "rounded", "driver=qcow2", BDRV_O_RDWR);
    g_assert_false(blk_truncate(blk, 2000000, true, BDRV_PREALLOC_OFF, 0, &error));
    g_clear_error(&error);
    g_assert_cmpint(blk_length(blk), ==, 1 << 20);
    g_assert_true(blk_truncate(blk, 2000000, false, BDRV_PREALLOC_OFF, 0, &error));
    g_assert_cmpint(blk_length(blk), ==, 2000384);
    must_close(blk);
    blk = must_open(graph, "rounded", "driver=qcow2", 0);
    g_assert_cmpint(blk_length(blk), ==, 2000384);
    must_close(blk);
}

static void test_cancel_check(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = open_filled(graph, "check", "size=8M,cluster_size=4k", 1);
    Limit limit = { .last = 2 };
    BdrvCheckResult result = { .progress = until_last, .progress_opaque = &limit };
    GError *error = NULL;

    g_assert_false(blk_check(blk, &result, BDRV_FIX_NONE, &error));
    assert_refused(error, ECANCELED, "");
    g_assert_cmpuint(limit.calls, ==, 2);
    limit = (Limit){ .last = 3 };
    g_assert_false(blk_check(blk, &result, BDRV_FIX_ERRORS | BDRV_FIX_LEAKS, &error));
    assert_refused(error, ECANCELED, "");
    assert_reads_as(blk, 1);
    limit = (Limit){ 0 };
    g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, &error));
    g_assert_cmpint(limit.done, ==, limit.total);
    g_assert_cmpint(result.corruptions + result.leaks + result.check_errors, ==, 0);
    g_assert_true(result.progress == until_last);
    must_close(blk);
}

/* What it was reads on, and the image is sound, wherever it is cancelled. */
static void test_cancel_amend(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autoptr(BdrvOptions) wider = bdrv_options_parse("refcount_bits=64", NULL, NULL);
    BlockBackend *blk = open_filled(graph, "amend", "size=8M,cluster_size=4k", 1);
    GError *error = NULL;
    unsigned last = 1, cancelled = 0;

    for (bool done = false; !done; last += 1 + last / 2) {
        Limit limit = { .last = last };
        BdrvCheckResult result = { 0 };

        done = blk_amend(blk, wider, false, until_last, &limit, &error);
        if (!done) {
            assert_refused(error, ECANCELED, "");
            cancelled++;
        }
        g_assert_true(blk_check(blk, &result, BDRV_FIX_NONE, NULL));
        g_assert_cmpint(result.corruptions + result.check_errors, ==, 0);
        assert_reads_as(blk, 1);
    }
    g_assert_cmpuint(cancelled, >, 4);
    must_close(blk);
}

/* ---- who owns what ---- */

#define OWNED 64

typedef struct Owned {
    uint8_t buf[64];
    struct iovec vec;
    BdrvIov iov;
    unsigned calls;
    int ret;
} Owned;

/* Theirs again: whatever is written into the buffer from now on is seen. */
static void give_back(void *opaque, int ret)
{
    Owned *owned = opaque;

    owned->calls++;
    owned->ret = ret;
    g_assert_cmpint(owned->buf[0], ==, ret == 0 ? 0x5a : 0);
    memset(&owned->buf, 0, sizeof(owned->buf));
    owned->vec = (struct iovec){ 0 };
    owned->iov = (BdrvIov){ 0 };
}

static BlkRequest *lend(BlockBackend *blk, Owned *owned)
{
    *owned = (Owned){ .ret = 1 };
    owned->iov = BDRV_IOV_BUF(owned->vec, owned->buf, sizeof(owned->buf));
    return blk_aio_preadv(blk, 0, &owned->iov, 0, give_back, owned);
}

static void test_close_waits(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree Owned *owned = g_new0(Owned, OWNED);
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);

    atomic_store(&slow_state(graph, "disk")->reschedules, 20);
    for (unsigned i = 0; i < OWNED; i++) {
        lend(blk, &owned[i]);
    }
    must_close(blk);
    for (unsigned i = 0; i < OWNED; i++) {
        g_assert_cmpint(owned[i].buf[63], ==, 0x5a); /* it has ended */
        g_assert_cmpuint(owned[i].calls, ==, 0);
    }
    slow_run_until_idle();
    for (unsigned i = 0; i < OWNED; i++) {
        g_assert_cmpuint(owned[i].calls, ==, 1);
        g_assert_cmpint(owned[i].ret, ==, 0);
    }
}

/* Cancelled in every state that there is: parked, about to start, with the driver, ended. */
static void test_one_callback(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    g_autofree Owned *owned = g_new0(Owned, OWNED);
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);

    atomic_store(&slow_state(graph, "disk")->reschedules, 3);
    for (unsigned rounds = 0; rounds < 12; rounds++) {
        bool parked = rounds & 1;

        g_assert_cmpint(parked ? blk_drain_begin(blk) : 0, ==, 0);
        for (unsigned i = 0; i < OWNED; i++) {
            BlkRequest *request = lend(blk, &owned[i]);

            if (i % 3 == 0) {
                blk_aio_cancel(request);
            }
        }
        for (unsigned i = 0; i < rounds; i++) {
            aio_context_run(aio_context_current(), false);
        }
        if (parked) {
            blk_drain_end(blk);
        }
        slow_run_until_idle();
        for (unsigned i = 0; i < OWNED; i++) {
            g_assert_cmpuint(owned[i].calls, ==, 1);
            g_assert_true(owned[i].ret == 0 || (i % 3 == 0 && owned[i].ret == -ECANCELED));
            g_assert_true(bdrv_buffer_is_zero(owned[i].buf, sizeof(owned[i].buf))); /* nobody wrote it afterwards */
        }
    }
    must_close(blk);
}

/* ---- structures that grow ---- */

static void test_earlier_caller(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk;
    struct {
        BdrvInfo info;
        uint8_t behind[16];
    } room;

    make(graph, "sized", "size=1M");
    blk = must_open(graph, "sized", "driver=qcow2", 0);
    memset(&room, 0x77, sizeof(room));
    g_assert_cmpint(blk_get_info_sized(blk, &room.info, offsetof(BdrvInfo, is_dirty)), ==, 0);
    g_assert_cmpint(room.info.cluster_size, ==, 65536);
    g_assert_cmpint(room.info.subcluster_size, ==, 0x7777777777777777); /* it has no such field: untouched */
    g_assert_cmpint(blk_get_info_sized(blk, &room.info, sizeof(room)), ==, 0);
    g_assert_cmpint(room.behind[0] | room.behind[15], ==, 0); /* a later caller: what we do not know is zero */
    must_close(blk);
}

/* ---- limits ---- */

static void ask_limits(void *opaque)
{
    BdrvLimits limits;

    g_assert_cmpint(blk_get_limits(opaque, &limits), ==, 0);
    g_assert_cmpint(limits.pdiscard_alignment, ==, 65536);
}

static void test_limits(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    AioCall call = { .func = ask_limits };
    BlockBackend *disk, *below;
    BdrvLimits limits;

    make(graph, "limits", "size=1M");
    disk = must_open(graph, "limits", "driver=qcow2,node-name=disk,cache.direct=on", BDRV_O_RDWR);
    g_assert_cmpint(blk_get_limits(disk, &limits), ==, 0);
    g_assert_cmpint(limits.request_alignment, ==, blk_request_alignment(disk));
    g_assert_cmpint(limits.max_transfer, ==, blk_max_transfer(disk));
    g_assert_cmpint(limits.pdiscard_alignment, ==, 65536);
    g_assert_cmpint(limits.pwrite_zeroes_alignment, ==, 65536);
    below = blk_open(graph, NULL, bdrv_options_parse("driver=blkdebug,image=disk,align=4096,max-transfer=64K,opt-discard="
                     "128K,max-discard=512K,opt-write-zero=64K,max-write-zero=256K", NULL, NULL), BDRV_O_RDWR, NULL);
    g_assert_nonnull(below);
    g_assert_cmpint(blk_get_limits(below, &limits), ==, 0);
    g_assert_cmpint(limits.request_alignment, ==, 4096);
    g_assert_cmpint(limits.max_transfer, ==, 64 << 10);
    g_assert_cmpint(limits.pdiscard_alignment, ==, 128 << 10);
    g_assert_cmpint(limits.max_pdiscard, ==, 512 << 10);
    g_assert_cmpint(limits.pwrite_zeroes_alignment, ==, 64 << 10);
    g_assert_cmpint(limits.max_pwrite_zeroes, ==, 256 << 10);
    call.opaque = disk; /* a device asks from where it is told of something */
    aio_call(aio_context_current(), &call);
    slow_run_until_idle();
    must_close(below);
    must_close(disk);
}

static void test_limits_of_an_earlier_caller(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk;
    BdrvLimits limits;

    make(graph, "sized-limits", "size=1M");
    blk = must_open(graph, "sized-limits", "driver=qcow2", 0);
    memset(&limits, 0x77, sizeof(limits));
    g_assert_cmpint(blk_get_limits_sized(blk, &limits, offsetof(BdrvLimits, pdiscard_alignment)), ==, 0);
    g_assert_cmpint(limits.pwrite_zeroes_alignment, ==, 65536);
    g_assert_cmpint(limits.pdiscard_alignment, ==, 0x7777777777777777);
    must_close(blk);
}

static void test_later_caller(void)
{
    struct {
        BlkCommitOptions options;
        uint64_t wish;
    } later = { .wish = 0 };
    BlkCommitOptions options;
    GError *error = NULL;

    later.options.rate_limit = 5;
    g_assert_true(bdrv_sized_in(&options, sizeof(options), &later, sizeof(later), "BlkCommitOptions", &error));
    g_assert_cmpint(options.rate_limit, ==, 5);
    later.wish = 1;
    g_assert_false(bdrv_sized_in(&options, sizeof(options), &later, sizeof(later), "BlkCommitOptions", &error));
    assert_refused(error, E2BIG, "BlkCommitOptions");
    memset(&options, 0x77, sizeof(options));
    g_assert_true(bdrv_sized_in(&options, sizeof(options), &later, offsetof(BlkCommitOptions, progress), "x", &error));
    g_assert_true(!options.progress && !options.dry_run);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *place)
{
    return remove(path);
}

int main(int argc, char **argv)
{
    int ret;

    g_test_init(&argc, &argv, NULL);
    slow_register();
    directory = g_dir_make_tmp("bdrv-embed-XXXXXX", NULL);
    g_assert_nonnull(directory);
    g_test_add_func("/embed/an image is opened by a descriptor that stays as it is", test_descriptor);
    g_test_add_func("/embed/an image opened by a descriptor is locked until it is closed", test_descriptor_locks);
    g_test_add_func("/embed/a descriptor of anything but a file or device is refused", test_descriptor_refusals);
    g_test_add_func("/embed/the directory gate goes by where links lead", test_gate_directory);
    g_test_add_func("/embed/the list gate takes what is listed by any name", test_gate_list);
    g_test_add_func("/embed/a backing file is opened if the gate agrees", test_gate_is_asked);
    g_test_add_func("/embed/a map joins what belongs together", test_map);
    g_test_add_func("/embed/each node counts what reaches it", test_stats);
    g_test_add_func("/embed/hits of the metadata cache are counted", test_cache_stats);
    g_test_add_func("/embed/a commit that is cancelled loses nothing", test_cancel_commit);
    g_test_add_func("/embed/a rebase that is cancelled leaves the image as it was", test_cancel_rebase);
    g_test_add_data_func("/embed/creating that is cancelled leaves no file: raw", "raw", test_cancel_create);
    g_test_add_data_func("/embed/creating that is cancelled leaves no file: qcow2", "qcow2", test_cancel_create);
    g_test_add_data_func("/embed/creating that is cancelled leaves no file: luks", "luks", test_cancel_create);
    g_test_add_func("/embed/creating refuses preallocation that the format does not do", test_no_preallocation);
    g_test_add_data_func("/embed/resizing that is cancelled leaves the length: raw", "raw", test_cancel_truncate);
    g_test_add_data_func("/embed/resizing that is cancelled leaves the length: qcow2", "qcow2", test_cancel_truncate);
    g_test_add_func("/embed/resizing tells the length that it rounds to", test_rounded_length);
    g_test_add_func("/embed/a check is cancelled before it repairs", test_cancel_check);
    g_test_add_func("/embed/an amend that is cancelled leaves a sound image", test_cancel_amend);
    g_test_add_func("/embed/closing waits for requests, whose callbacks come afterwards", test_close_waits);
    g_test_add_func("/embed/each request has one callback, and its buffer until then", test_one_callback);
    g_test_add_func("/embed/an earlier caller gets no more than it has room for", test_earlier_caller);
    g_test_add_func("/embed/limits are told, of each handle its own", test_limits);
    g_test_add_func("/embed/limits are told as far as the caller knows them", test_limits_of_an_earlier_caller);
    g_test_add_func("/embed/a later caller may not ask for what is unknown here", test_later_caller);
    ret = g_test_run();
    nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    g_free(directory);
    return ret;
}
