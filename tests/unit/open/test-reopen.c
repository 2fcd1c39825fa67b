/* SPDX-License-Identifier: MIT */
#include "block/open/open.h"
#include "stand.h"

#include <errno.h>
#include <string.h>

/* Open "i" with @options and @flags, reopen it, and look at what it and its file are open with then. */
typedef struct Case {
    const char *options, *new_options;
    BdrvOpenFlags flags, new_flags;
    int code;            /* expected error; 0: none */
    BdrvOpenFlags own, file; /* expected afterwards */
    unsigned reopened;   /* nodes asked to prepare */
} Case;

static BdrvOptions *parsed(const char *text)
{
    return bdrv_options_parse(text ? text : "", NULL, NULL);
}

static unsigned rights(BdrvOpenFlags flags)
{
    return BDRV_RIGHT_CONSISTENT_READ | (flags & BDRV_O_RDWR ? BDRV_RIGHT_WRITE : 0);
}

static void coroutine_fn run_case(void *opaque)
{
    const Case *c = opaque;
    BdrvGraph *graph = bdrv_graph_new();
    GError *error = NULL;
    BlockDriverState *bs = bdrv_co_open_tree(graph, "i", parsed(c->options), c->flags, false, &error);
    BdrvGate *gate = bdrv_gate_new();
    BdrvEdge *edge;

    g_assert_no_error(error);
    edge = bdrv_root_attach(bs, gate, "test", rights(bs->open_flags), BDRV_RIGHTS_ALL, &error);
    g_assert_no_error(error);
    stand_reopened = 0;
    bdrv_co_reopen(edge, parsed(c->new_options), c->new_flags, &error);
    if (c->code) {
        g_assert_error(error, BDRV_ERROR, c->code);
    } else {
        g_assert_no_error(error);
        g_assert_cmpuint(stand_reopened, ==, c->reopened);
    }
    g_clear_error(&error);
    g_assert_cmpint(bs->open_flags, ==, c->own);
    g_assert_true(bs->read_only == !(c->own & BDRV_O_RDWR));
    g_assert_cmpint(bs->file->bs->open_flags, ==, c->file | BDRV_O_UNMAP); /* whatever the format was told */
    g_assert_cmpint(bdrv_co_root_detach(edge), ==, 0);
    bdrv_gate_free(gate);
    bdrv_graph_unref(graph);
}

static void run(const Case *cases, unsigned count)
{
    stand_clear();
    stand_image("i", NULL, NULL);
    for (unsigned i = 0; i < count; i++) {
        Case c = cases[i];

        g_test_message("%s then %s", c.options ? c.options : "-", c.new_options ? c.new_options : "-");
        g_assert_cmpint(co_run_blocking(run_case, &c), ==, 0);
        g_assert_cmpuint(stand_open_nodes, ==, 0);
    }
}

#define RW BDRV_O_RDWR
#define DIRECT BDRV_O_NOCACHE
#define NO_FLUSH BDRV_O_NO_FLUSH
#define UNMAP BDRV_O_UNMAP

static void test_flags(void)
{
    static const Case cases[] = {
        { NULL, NULL, 0, RW, 0, RW, RW, 2 },
        { NULL, NULL, RW, 0, 0, 0, 0, 2 },
        { NULL, NULL, RW | DIRECT, RW, 0, RW, RW, 2 },
        { NULL, NULL, RW, RW, 0, RW, RW, 0 },
        { NULL, NULL, BDRV_O_NO_IO, DIRECT, 0, DIRECT | BDRV_O_NO_IO, DIRECT, 2 },
        { "read-only=on", NULL, RW, RW, 0, RW, RW, 2 },
        { "cache.direct=on", NULL, 0, RW | DIRECT, 0, RW | DIRECT, RW | DIRECT, 2 },
        { "file.cache.direct=on", NULL, 0, RW, 0, RW, RW | DIRECT, 2 },
    };

    run(cases, G_N_ELEMENTS(cases));
}

static void test_options(void)
{
    static const Case cases[] = {
        { NULL, "weak=on", 0, 0, 0, 0, 0, 1 },
        { "weak=on", "weak=off,cache.direct=on", 0, 0, 0, DIRECT, DIRECT, 2 },
        { NULL, "file.tuning=3", 0, 0, 0, 0, 0, 1 },
        { NULL, "file.cache.direct=on", 0, 0, 0, 0, DIRECT, 1 },
        { NULL, "driver=t-fmt,weak=on", 0, 0, 0, 0, 0, 1 },
        { "node-name=n", "node-name=n,weak=on", 0, 0, 0, 0, 0, 1 },
        { "cache.direct=on", NULL, 0, RW, 0, RW | DIRECT, RW | DIRECT, 2 },
        { "cache.direct=off", NULL, 0, RW | DIRECT, 0, RW, RW, 2 },
        { "cache.direct=on", "cache.direct=off", 0, RW, 0, RW, RW, 2 },
        { "cache.direct=on,cache.no-flush=on,discard=unmap", NULL, RW, 0, 0, DIRECT | NO_FLUSH | UNMAP,
          DIRECT | NO_FLUSH | UNMAP, 2 },
        { "force-share=on", NULL, 0, DIRECT, 0, DIRECT | BDRV_O_FORCE_SHARE, DIRECT | BDRV_O_FORCE_SHARE, 2 },
        { "force-share=on", NULL, 0, RW, 0, RW, RW, 2 },
    };

    run(cases, G_N_ELEMENTS(cases));
}

static void test_refused(void)
{
    static const Case cases[] = {
        { NULL, "driver=raw", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "node-name=other", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "foo=1", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "file.foo=1", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "file.driver=raw", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "backing=", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "backing.driver=raw", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "file=other", 0, RW, EINVAL, 0, 0, 0 },
        { NULL, "file.tuning=13", DIRECT, 0, EINVAL, DIRECT, DIRECT, 0 },
        { NULL, "force-share=on", RW, RW, EINVAL, RW, RW, 0 },
    };

    run(cases, G_N_ELEMENTS(cases));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    stand_register();
    g_test_add_func("/reopen/new flags reach the file", test_flags);
    g_test_add_func("/reopen/new options are added to those given at open", test_options);
    g_test_add_func("/reopen/what cannot be changed leaves all as it was", test_refused);
    return g_test_run();
}
