/* SPDX-License-Identifier: MIT */
#include "block/open/open.h"
#include "stand.h"

#include <errno.h>
#include <string.h>

typedef struct Case {
    BdrvGraph *graph;
    const char *format, *filename, *options;
    bool ok;
    GError *error;
} Case;

static void coroutine_fn create(void *opaque)
{
    Case *c = opaque;

    c->ok = bdrv_co_create_image(c->graph, c->format, c->filename,
                                 c->options ? bdrv_options_parse(c->options, NULL, NULL) : NULL, &c->error);
}

static Case run(const char *format, const char *filename, const char *options)
{
    Case c = { .graph = bdrv_graph_new(), .format = format, .filename = filename, .options = options };

    g_assert_cmpint(co_run_blocking(create, &c), ==, 0);
    g_assert_true(c.ok == (c.error == NULL));
    g_assert_cmpuint(stand_open_nodes, ==, 0);
    bdrv_graph_unref(c.graph);
    return c;
}

static void creates(const char *format, const char *filename, const char *options)
{
    Case c = run(format, filename, options);

    g_assert_no_error(c.error);
}

static void refused(const char *format, const char *filename, const char *options, int code, const char *said)
{
    Case c = run(format, filename, options);

    g_assert_error(c.error, BDRV_ERROR, code);
    if (!strstr(c.error->message, said)) {
        g_test_message("message: %s", c.error->message);
    }
    g_assert_nonnull(strstr(c.error->message, said));
    g_error_free(c.error);
}

static void test_create(void)
{
    stand_clear();
    creates("t-fmt", "i", "size=1M");
    g_assert_cmpint(stand_length("i"), ==, 512);
    creates("t-fmt", "t-mem:j", "size=1M,backing_file=i,nocow=on");
    g_assert_true(stand_exists("j"));
    creates("t-mem", "m", "size=4k");
    g_assert_cmpint(stand_length("m"), ==, 4096);
    creates("raw", "r", "size=1.5k");
    g_assert_cmpint(stand_length("r"), ==, 1536);
}

static void test_replace(void)
{
    stand_clear();
    stand_file("i", 100000);
    creates("t-fmt", "i", "size=1M");
    g_assert_cmpint(stand_length("i"), ==, 512);
}

static void test_refused(void)
{
    stand_clear();
    refused("nosuch", "i", "size=1", ENOENT, "unknown format 'nosuch'");
    refused("t-fmt", "foo:i", "size=1", ENOENT, "unknown protocol 'foo'");
    refused("t-fmt", "i", "size=x", EINVAL, "'x' is not a size");
    refused("t-fmt", "i", "size=1,foo=2", EINVAL, "'foo'");
    refused("t-fmt", "nospace", "size=1", ENOSPC, "nospace: no space");
    g_assert_false(stand_exists("i"));
}

static void test_half_made(void)
{
    stand_clear();
    stand_file("old", 1000);
    refused("t-fmt", "new", "size=1,fail=on", EINVAL, "new: asked to fail");
    refused("t-fmt", "old", "size=1,fail=on", EINVAL, "old: asked to fail");
    g_assert_false(stand_exists("new"));
    g_assert_true(stand_exists("old"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    stand_register();
    g_test_add_func("/create/the protocol makes the file and the format fills it", test_create);
    g_test_add_func("/create/an existing file is emptied", test_replace);
    g_test_add_func("/create/what cannot be made is refused before a file is touched", test_refused);
    g_test_add_func("/create/a half-made file is deleted unless it was there before", test_half_made);
    return g_test_run();
}
