/* SPDX-License-Identifier: MIT */
/* Nodes, names, rights, drain and reopen, through handles. */
#include "tests/unit/backend/slow.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define R BDRV_RIGHT_CONSISTENT_READ
#define W BDRV_RIGHT_WRITE
#define Z BDRV_RIGHT_RESIZE

static void must_close(BlockBackend *blk)
{
    GError *error = NULL;

    g_assert_true(blk_close(blk, &error));
    g_assert_no_error(error);
}

/* ---- rights ---- */

static const struct {
    const char *options;
    BdrvOpenFlags flags;
    unsigned used, unshared; /* of the protocol node: what becomes file locks */
} rights[] = {
    { "driver=slow,node-name=disk", BDRV_O_RDWR, R | W, 0 },
    { "driver=slow,node-name=disk", BDRV_O_RDWR | BDRV_O_RESIZE, R | W | Z, 0 },
    { "driver=slow,node-name=disk", 0, R, 0 },
    { "driver=veil,file.driver=slow,file.node-name=disk", BDRV_O_RDWR, R | W, 0 },
    { "driver=veil,file.driver=slow,file.node-name=disk", 0, R, 0 },
    { "driver=shape,file.driver=slow,file.node-name=disk", BDRV_O_RDWR, R | W | Z, W | Z },
    { "driver=shape,file.driver=slow,file.node-name=disk", 0, R, W | Z },
    { "driver=shape,file.driver=slow,file.node-name=disk", BDRV_O_FORCE_SHARE, R, 0 },
    { "driver=veil,file.driver=shape,file.file.driver=slow,file.file.node-name=disk", BDRV_O_RDWR, R | W | Z, W | Z },
    { "driver=shape,file.driver=veil,file.file.driver=slow,file.file.node-name=disk", BDRV_O_RDWR, R | W | Z, W | Z },
    { "driver=shape,file.driver=slow,backing.driver=slow,backing.node-name=disk", BDRV_O_RDWR, R, 0 },
    { "driver=shape,file.driver=slow,backing.driver=shape,backing.file.driver=slow,backing.file.node-name=disk",
      BDRV_O_RDWR, R, W | Z },
    { "driver=slow,node-name=disk", BDRV_O_NO_SHARE, R, W | Z },
    { "driver=slow,node-name=disk", BDRV_O_NO_SHARE | BDRV_O_FORCE_SHARE, R, 0 },
    { "driver=veil,file.driver=slow,file.node-name=disk", BDRV_O_NO_SHARE, R, W | Z },
    { "driver=veil,file.driver=slow,file.node-name=disk", BDRV_O_NO_SHARE | BDRV_O_FORCE_SHARE, R, 0 },
    { "driver=shape,file.driver=slow,backing.driver=slow,backing.node-name=disk", BDRV_O_NO_SHARE, R, W | Z },
    { "driver=shape,file.driver=slow,backing.driver=shape,backing.file.driver=slow,backing.backing.driver=veil,"
      "backing.backing.file.driver=slow,backing.backing.file.node-name=disk",
      BDRV_O_NO_SHARE, R, W | Z },
};

static void test_rights(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rights); i++) {
        g_autoptr(BdrvGraph) graph = bdrv_graph_new();
        BlockBackend *blk = slow_open(graph, rights[i].options, rights[i].flags);
        SlowState *slow = slow_state(graph, "disk");

        g_test_message("%s flags %x", rights[i].options, rights[i].flags);
        g_assert_cmphex(slow->used, ==, rights[i].used);
        g_assert_cmphex(slow->unshared, ==, rights[i].unshared);
        must_close(blk);
    }
}

static void test_conflict(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *first = slow_open(graph, "driver=shape,node-name=top,file.driver=slow,file.node-name=disk",
                                    BDRV_O_RDWR);
    SlowState *slow = slow_state(graph, "disk");
    GError *error = NULL;
    BlockBackend *second;

    second = blk_open(graph, NULL, bdrv_options_parse("driver=veil,file=disk", NULL, NULL), BDRV_O_RDWR, &error);
    g_assert_null(second);
    g_assert_error(error, BDRV_ERROR, EBUSY);
    g_assert_nonnull(strstr(error->message, "'disk'"));
    g_assert_nonnull(strstr(error->message, "'top'"));
    g_clear_error(&error);
    g_assert_cmphex(slow->used, ==, R | W | Z);
    g_assert_cmphex(slow->unshared, ==, W | Z);

    /* A reader gets along, and is in the way of nobody. */
    second = slow_open(graph, "driver=veil,file=disk", 0);
    must_close(second);
    must_close(first);
}

static void test_writer_on_read_only(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *reader = slow_open(graph, "driver=slow,node-name=disk", 0);
    GError *error = NULL;

    g_assert_null(blk_open(graph, NULL, bdrv_options_parse("driver=veil,file=disk", NULL, NULL), BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, EACCES);
    g_assert_nonnull(strstr(error->message, "'disk'"));
    g_clear_error(&error);
    g_assert_null(blk_open(graph, NULL, bdrv_options_parse("driver=shape,file=disk", NULL, NULL), BDRV_O_RDWR, NULL));
    must_close(reader);
}

static void test_lock_refused(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *reader = slow_open(graph, "driver=slow,node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    GError *error = NULL;

    slow->refuse_rights = true;
    g_assert_null(blk_open(graph, NULL, bdrv_options_parse("driver=shape,file=disk", NULL, NULL), 0, &error));
    g_assert_error(error, BDRV_ERROR, EAGAIN);
    g_clear_error(&error);
    g_assert_cmphex(slow->used, ==, R);
    g_assert_cmphex(slow->unshared, ==, 0);
    must_close(reader);
}

static void test_rights_go(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *reader = slow_open(graph, "driver=slow,node-name=disk", BDRV_O_RDWR);
    BlockBackend *writer;
    SlowState *slow = slow_state(graph, "disk");
    uint8_t byte = 0;

    must_close(slow_open(graph, "driver=veil,file=disk", 0));
    g_assert_cmphex(slow->used, ==, R | W);
    writer = slow_open(graph, "driver=veil,file=disk", BDRV_O_RDWR | BDRV_O_RESIZE);
    g_assert_cmphex(slow->used, ==, R | W | Z);
    g_assert_cmpint(blk_pwrite(writer, 0, 1, &byte, 0), ==, 0);
    must_close(writer);
    g_assert_cmphex(slow->used, ==, R | W);
    must_close(reader);
}

/* ---- names ---- */

static void test_names(void)
{
    static const struct {
        const char *options;
        int code;
    } bad[] = {
        { "driver=slow,node-name=disk", EEXIST },
        { "driver=veil,node-name=disk,file.driver=slow", EEXIST },
        { "driver=veil,node-name=same,file.driver=slow,file.node-name=same", EEXIST },
        { "driver=slow,node-name=#block0", EINVAL },
        { "driver=slow,node-name=a b", EINVAL },
        { "driver=slow,node-name=0a", EINVAL },
    };
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        GError *error = NULL;

        g_test_message("%s", bad[i].options);
        g_assert_null(blk_open(graph, NULL, bdrv_options_parse(bad[i].options, NULL, NULL), 0, &error));
        g_assert_error(error, BDRV_ERROR, bad[i].code);
        g_clear_error(&error);
    }
    g_assert_null(bdrv_graph_find(graph, "same"));
    must_close(blk);
    g_assert_null(bdrv_graph_find(graph, "disk"));
    must_close(slow_open(graph, "driver=slow,node-name=disk", 0));
}

static void test_dump(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=shape,node-name=top,file.driver=slow,file.node-name=disk",
                                  BDRV_O_RDWR);
    g_autofree char *text = bdrv_graph_to_text(graph), *dot = bdrv_graph_to_dot(graph);

    g_test_message("%s", text);
    g_assert_nonnull(strstr(text, "file -> slow \"disk\""));
    g_assert_nonnull(strstr(text, "uses read,write,resize, denies write,resize"));
    g_assert_true(g_str_has_prefix(dot, "digraph"));
    must_close(blk);
}

/* ---- drain ---- */

typedef struct Drainer {
    BlockBackend *blk;
    _Atomic bool began, ended;
    int ret;
    pthread_t id;
} Drainer;

static void *drain_in_thread(void *opaque)
{
    Drainer *drainer = opaque;

    drainer->ret = blk_drain_begin(drainer->blk);
    drainer->began = true;
    while (!drainer->ended) {
        g_usleep(100);
    }
    blk_drain_end(drainer->blk);
    return NULL;
}

static void count_callback(void *opaque, int ret)
{
    *(int *)opaque += ret == 0 ? 1 : 100;
}

static void test_drain_waits(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=shape,file.driver=slow,file.node-name=disk", 0);
    BlockBackend *other = slow_open(graph, "driver=veil,file=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    Drainer drainer = { .blk = blk };
    uint8_t buf[512];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    int done = 0;

    slow_hold(slow);
    blk_aio_preadv(other, 0, &iov, 0, count_callback, &done); /* sits in the driver, came through another handle */
    g_assert_cmpuint(slow_holding(slow), ==, 1);
    pthread_create(&drainer.id, NULL, drain_in_thread, &drainer);
    while (atomic_load(&slow->drained) == 0) {
        g_usleep(100);
    }
    g_usleep(2000);
    g_assert_false(drainer.began);
    slow_release(slow);
    while (!drainer.began) {
        aio_context_run(aio_context_current(), false);
    }
    g_assert_cmpint(drainer.ret, ==, 0);
    slow_run_until_idle();
    g_assert_cmpint(done, ==, 1);

    blk_aio_preadv(other, 0, &iov, 0, count_callback, &done); /* parks */
    blk_aio_preadv(blk, 0, &iov, 0, count_callback, &done);
    slow_run_until_idle();
    g_assert_cmpint(done, ==, 1);
    g_assert_cmpuint(slow->reads, ==, 1);
    drainer.ended = true;
    pthread_join(drainer.id, NULL);
    slow_run_until_idle();
    g_assert_cmpint(done, ==, 3);
    g_assert_cmpint(slow->drained, ==, 0);
    must_close(blk);
    must_close(other);
}

typedef struct Latecomer {
    BdrvGraph *graph;
    _Atomic bool open;
    int ret;
    pthread_t id;
} Latecomer;

static void *come_late(void *opaque)
{
    Latecomer *late = opaque;
    BlockBackend *blk = slow_open(late->graph, "driver=veil,file=disk", 0);
    uint8_t byte;

    late->open = true;
    late->ret = blk_pread(blk, 0, 1, &byte, 0);
    must_close(blk);
    return NULL;
}

static void test_drain_nests(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=shape,file.driver=slow,file.node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    Latecomer late = { .graph = graph, .ret = 1 };
    uint8_t buf[512];
    struct iovec vec;
    BdrvIov iov = BDRV_IOV_BUF(vec, buf, sizeof(buf));
    int done = 0;

    g_assert_cmpint(blk_drain_begin(blk), ==, 0);
    g_assert_cmpint(blk_drain_begin(blk), ==, 0);
    g_assert_cmpint(slow->drained, ==, 1);
    pthread_create(&late.id, NULL, come_late, &late); /* its gate starts closed */
    blk_aio_preadv(blk, 0, &iov, 0, count_callback, &done);
    blk_drain_end(blk);
    slow_run_until_idle();
    g_usleep(2000);
    g_assert_cmpint(done, ==, 0);
    g_assert_cmpuint(slow->reads, ==, 0);
    g_assert_false(late.open);
    blk_drain_end(blk);
    slow_run_until_idle();
    g_assert_cmpint(done, ==, 1);
    pthread_join(late.id, NULL);
    g_assert_cmpint(late.ret, ==, 0);
    g_assert_cmpint(slow->drained, ==, 0);
    must_close(blk);
}

static void test_drain_inside(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=slow,node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    uint8_t byte;

    slow->drain_in_read = true;
    g_assert_cmpint(blk_pread(blk, 0, 1, &byte, 0), ==, 0);
    g_assert_cmpint(slow->drain_result, ==, -EDEADLK);
    must_close(blk);
}

/* ---- reopen ---- */

static void test_reopen(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *blk = slow_open(graph, "driver=shape,file.driver=slow,file.node-name=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    GError *error = NULL;
    uint8_t byte = 0;

    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, -EPERM);
    g_assert_true(blk_reopen(blk, NULL, BDRV_O_RDWR, &error));
    g_assert_no_error(error);
    g_assert_false(blk_is_read_only(blk));
    g_assert_cmphex(slow->used, ==, R | W | Z);
    g_assert_cmpuint(slow->committed, ==, 1);
    g_assert_true(slow->last_reopen_wrote);
    g_assert_cmpint(blk_pwrite(blk, 0, 1, &byte, 0), ==, 0);

    slow->refuse_reopen = true;
    g_assert_false(blk_reopen(blk, NULL, 0, &error));
    g_assert_error(error, BDRV_ERROR, EPERM);
    g_clear_error(&error);
    g_assert_false(blk_is_read_only(blk));
    g_assert_cmphex(slow->used, ==, R | W | Z);

    slow->refuse_reopen = false;
    g_assert_true(blk_reopen(blk, bdrv_options_parse("read-only=on", NULL, NULL), BDRV_O_RDWR, &error));
    g_assert_no_error(error);
    g_assert_true(blk_is_read_only(blk));
    g_assert_cmpuint(slow->flushes, >, 0);
    g_assert_cmphex(slow->used, ==, R);
    g_assert_cmpint(slow->drained, ==, 0);

    g_assert_false(blk_reopen(blk, bdrv_options_parse("nonsense=1", NULL, NULL), 0, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_clear_error(&error);
    must_close(blk);
}

static void test_reopen_conflict(void)
{
    g_autoptr(BdrvGraph) graph = bdrv_graph_new();
    BlockBackend *reader = slow_open(graph, "driver=shape,file.driver=slow,file.node-name=disk,file.read-only=off", 0);
    BlockBackend *other = slow_open(graph, "driver=veil,file=disk", 0);
    SlowState *slow = slow_state(graph, "disk");
    GError *error = NULL;

    g_assert_false(blk_reopen(other, NULL, BDRV_O_RDWR, &error));
    g_assert_error(error, BDRV_ERROR, EBUSY);
    g_clear_error(&error);
    g_assert_cmphex(slow->used, ==, R);
    g_assert_cmpint(slow->drained, ==, 0);
    g_assert_true(blk_is_read_only(other));
    must_close(other);
    must_close(reader);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    slow_register();
    g_test_add_func("/graph/the rights of a stack are those that file locks tell", test_rights);
    g_test_add_func("/graph/a second writer is refused with the name of the first", test_conflict);
    g_test_add_func("/graph/a writer on a read-only node is refused", test_writer_on_read_only);
    g_test_add_func("/graph/a refused file lock leaves everything as it was", test_lock_refused);
    g_test_add_func("/graph/rights go with who needed them", test_rights_go);
    g_test_add_func("/graph/node names are unique and well formed", test_names);
    g_test_add_func("/graph/the dump shows nodes and rights", test_dump);
    g_test_add_func("/graph/a drain waits for a request of another handle and thread", test_drain_waits);
    g_test_add_func("/graph/drains nest and hold for handles that come later", test_drain_nests);
    g_test_add_func("/graph/a drain inside a request is refused", test_drain_inside);
    g_test_add_func("/graph/reopen switches rights, or nothing", test_reopen);
    g_test_add_func("/graph/reopen meets other users", test_reopen_conflict);
    return g_test_run();
}
