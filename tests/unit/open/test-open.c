/* SPDX-License-Identifier: MIT */
#include "block/open/open.h"
#include "stand.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* One opening in a coroutine; the node is unreferenced when the test has looked at it. */
typedef struct Case {
    BdrvGraph *graph;
    const char *filename;
    const char *options; /* dotted or json; NULL: none */
    BdrvOpenFlags flags;
    void (*look)(struct Case *c); /* coroutine; at c->bs */
    BlockDriverState *bs;
    GError *error;
    const char *expect; /* for @look */
} Case;

static void coroutine_fn open_and_look(void *opaque)
{
    Case *c = opaque;
    BdrvOptions *options = NULL;

    if (c->options) {
        options = c->options[0] == '{' ? bdrv_options_parse_json(c->options, &c->error)
                                       : bdrv_options_parse(c->options, NULL, &c->error);
        g_assert_no_error(c->error);
    }
    c->bs = bdrv_co_open_tree(c->graph, c->filename, options, c->flags, false, &c->error);
    g_assert_true((c->bs != NULL) == (c->error == NULL));
    if (c->bs) {
        if (c->look) {
            c->look(c);
        }
        g_assert_cmpint(bdrv_co_node_unref(c->bs), ==, 0);
    }
}

static void run(Case *c)
{
    unsigned before = stand_open_nodes;

    c->graph = bdrv_graph_new();
    bdrv_graph_set_opener_gate(c->graph, bdrv_gate_any, NULL);
    g_assert_cmpint(co_run_blocking(open_and_look, c), ==, 0);
    g_assert_cmpuint(stand_open_nodes, ==, before);
    bdrv_graph_unref(c->graph);
    c->graph = NULL;
}

static void opens(Case c)
{
    run(&c);
    g_assert_no_error(c.error);
}

static void refused(const char *filename, const char *options, BdrvOpenFlags flags, int code, const char *said)
{
    Case c = { .filename = filename, .options = options, .flags = flags };

    g_test_message("%s %s", filename ? filename : "-", options ? options : "-");
    run(&c);
    g_assert_error(c.error, BDRV_ERROR, code);
    if (!strstr(c.error->message, said)) {
        g_test_message("message: %s", c.error->message);
    }
    g_assert_nonnull(strstr(c.error->message, said));
    g_error_free(c.error);
}

/* ---- drivers and filenames ---- */

static void look_driver_and_filename(Case *c)
{
    g_auto(GStrv) parts = g_strsplit(c->expect, " ", 2);

    g_assert_cmpstr(c->bs->drv->format_name, ==, parts[0]);
    g_assert_cmpstr(c->bs->filename, ==, parts[1]);
}

static void test_filenames(void)
{
    static const struct {
        const char *filename, *options, *expect;
    } cases[] = {
        { "d/i", NULL, "t-fmt d/i" },
        { "t-mem:d/i", NULL, "t-fmt d/i" },
        { "d/i", "driver=t-fmt", "t-fmt d/i" },
        { "d/i", "driver=t-mem", "t-mem d/i" },
        { "d/i", "file.tuning=5", "t-fmt d/i" },
        { "d/i", "weak=on,node-name=n,cache.direct=on,discard=unmap", "t-fmt d/i" },
        { "r", NULL, "raw r" },
        { NULL, "file.filename=d/i", "t-fmt d/i" },
        { NULL, "driver=t-mem,filename=r", "t-mem r" },
        { NULL, "driver=t-mem,filename=a:b", "t-mem ./a:b" },
        { "./a:b", NULL, "raw ./a:b" },
        { NULL, "driver=t-fmt,file.driver=t-mem,file.filename=d/i", "t-fmt d/i" },
        { NULL, "driver=t-fmt,file.filename=d/i,strong=1k",
          "t-fmt json:{\"driver\": \"t-fmt\", \"strong\": \"1k\", \"file\": {\"driver\": \"t-mem\", "
          "\"filename\": \"d/i\"}}" },
        { NULL, "driver=raw,size=512,file.filename=r",
          "raw json:{\"driver\": \"raw\", \"size\": \"512\", \"file\": {\"driver\": \"t-mem\", "
          "\"filename\": \"r\"}}" },
        { "json:{\"driver\": \"raw\", \"size\": 512, \"file\": {\"driver\": \"t-mem\", \"filename\": \"r\"}}", NULL,
          "raw json:{\"driver\": \"raw\", \"size\": 512, \"file\": {\"driver\": \"t-mem\", "
          "\"filename\": \"r\"}}" },
        { "json:{\"driver\": \"raw\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"r\"}}", NULL, "raw r" },
        { "json:{\"driver\": \"t-mem\", \"filename\": \"r\"}", "driver=t-mem", "t-mem r" },
        { "json:{\"file.filename\": \"d/i\"}", NULL, "t-fmt d/i" },
        { "json:{\"file\": {\"filename\": \"r\"}}", "file.filename=d/i", "t-fmt d/i" },
        { NULL, "driver=raw,file.driver=raw,file.file.filename=r",
          "raw json:{\"driver\": \"raw\", \"file\": {\"driver\": \"raw\", \"file\": {\"driver\": \"t-mem\", "
          "\"filename\": \"r\"}}}" },
        { NULL, "driver=t-fmt,file.filename=d/i,extra.filename=r",
          "t-fmt json:{\"driver\": \"t-fmt\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"d/i\"}, "
          "\"extra\": {\"driver\": \"t-mem\", \"filename\": \"r\"}}" },
    };

    stand_clear();
    stand_image("d/i", NULL, NULL);
    stand_file("r", 4096);
    stand_file("a:b", 512);
    stand_file("./a:b", 512);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_test_message("%s %s", cases[i].filename ? cases[i].filename : "-",
                       cases[i].options ? cases[i].options : "-");
        opens((Case){ .filename = cases[i].filename,
                      .options = cases[i].options,
                      .look = look_driver_and_filename,
                      .expect = cases[i].expect });
    }
}

static void look_child_image(Case *c)
{
    const BdrvChild *image = bdrv_find_child(c->bs, "image");
    g_auto(GStrv) parts = g_strsplit(c->expect, " ", 2);

    g_assert_nonnull(image);
    g_assert_null(bdrv_find_child(c->bs, "extra"));
    g_assert_cmpstr(image->bs->drv->format_name, ==, parts[0]);
    g_assert_cmpstr(image->bs->filename, ==, parts[1]);
}

static void test_child_images(void)
{
    static const struct {
        const char *options, *expect;
    } cases[] = {
        { "x-image=d/i", "t-fmt d/i" },
        { "x-image=t-mem:d/i", "t-fmt d/i" },
        { "x-image=d/i,image.driver=raw", "raw d/i" },
        { "x-image=json:{\"file\": {\"filename\": \"r\"}}", "raw r" },
        { "image.file.filename=d/i", "t-fmt d/i" },
        { "image.driver=t-mem,image.filename=d/i", "t-mem d/i" },
    };

    stand_clear();
    stand_image("d/i", NULL, NULL);
    stand_file("r", 4096);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *options = g_strconcat("driver=t-fmt,file.filename=d/i,", cases[i].options, NULL);

        g_test_message("%s", options);
        opens((Case){ .options = options, .look = look_child_image, .expect = cases[i].expect });
    }
    refused(NULL, "driver=t-fmt,file.filename=d/i,image.filename=d/i", 0, EINVAL, "neither a driver nor a file");
    refused(NULL, "driver=t-fmt,file.filename=d/i,x-image=nosuch", 0, ENOENT, "nosuch: no such file");
    refused(NULL, "driver=t-fmt,file.filename=d/i,x-image=d/i,image=node", 0, EINVAL,
            "'image' is given as node 'node' and by a filename");
    refused(NULL, "{\"driver\": \"t-fmt\", \"file.filename\": \"d/i\", \"x-image\": 5}", 0, EINVAL,
            "'x-image' must be a string");
}

static void test_refusals(void)
{
    stand_clear();
    stand_image("i", NULL, NULL);
    stand_file("r", 4096);
    refused("nosuch", NULL, 0, ENOENT, "nosuch: no such file");
    refused("foo:x", NULL, 0, ENOENT, "unknown protocol 'foo'");
    refused(NULL, NULL, 0, EINVAL, "neither a driver nor a file");
    refused(NULL, "filename=i", 0, EINVAL, "neither a driver nor a file");
    refused(NULL, "driver=nosuch", 0, ENOENT, "unknown driver 'nosuch'");
    refused(NULL, "{\"driver\": 5}", 0, EINVAL, "'driver' must be a string");
    refused(NULL, "driver=t-fmt", 0, EINVAL, "needs a child 'file'");
    refused(NULL, "driver=t-fmt,file=nosuch", 0, ENOENT, "file=nosuch");
    refused(NULL, "driver=t-fmt,file.foo=1", 0, EINVAL, "neither a driver nor a file");
    refused("i", "foo.bar=1", 0, EINVAL, "i: driver 't-fmt' does not support the option 'foo.bar'");
    refused("i", "file.foo=1", 0, EINVAL, "driver 't-mem' does not support the option 'foo'");
    refused("i", "strong=x", 0, EINVAL, "strong");
    refused("i", "driver=t-mem,filename=r", 0, EINVAL, "named twice");
    refused("i", "file.filename=r", 0, EINVAL, "named twice");
    refused("i", "file=node", 0, EINVAL, "'file' is given as node");
    refused(NULL, "driver=t-fmt,file=node,file.filename=i", 0, EINVAL, "'file' is given as node");
    refused("r", "driver=t-fmt", 0, EINVAL, "r: Image is not in t-fmt format");
    refused("json:{", NULL, 0, EINVAL, "not valid JSON");
    refused("json:[]", NULL, 0, EINVAL, "not valid JSON");
    refused("r", "backing=null", 0, EINVAL, "backing");
    refused("r", "backing.driver=raw", 0, EINVAL, "backing.driver");
    refused("i", "node-name=1a", 0, EINVAL, "'1a' is no valid node-name");
    refused("i", "node-name=a b", 0, EINVAL, "node-name");
    refused("i", "node-name=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 0, EINVAL, "node-name");
    refused("i", "detect-zeroes=unmap", 0, EINVAL, "without setting discard operation to unmap");
    refused("i", "detect-zeroes=unmap,discard=ignore", BDRV_O_UNMAP, EINVAL, "detect-zeroes");
    refused("i", "detect-zeroes=foo", 0, EINVAL, "detect-zeroes");
    refused("i", "discard=foo", 0, EINVAL, "discard");
    refused("i", "read-only=2", 0, EINVAL, "read-only");
    refused("i", "force-share=on", BDRV_O_RDWR, EINVAL, "force-share");
    refused("i", "cache.writeback=off", 0, EINVAL, "cache.writeback");
}

static void test_nesting(void)
{
    g_autoptr(GString) options = g_string_new("driver=raw");
    g_autoptr(GString) prefix = g_string_new(NULL);

    stand_clear();
    for (unsigned i = 0; i < 50; i++) {
        g_string_append(prefix, "file.");
        g_string_append_printf(options, ",%sdriver=raw", prefix->str);
    }
    refused(NULL, options->str, 0, ELOOP, "nested");
}

/* ---- options of every node ---- */

static void look_flags(Case *c)
{
    int expected = atoi(c->expect);

    g_assert_cmpint(c->bs->open_flags, ==, expected);
    g_assert_true(c->bs->read_only == !(expected & BDRV_O_RDWR));
}

static void flags_are(const char *options, BdrvOpenFlags flags, BdrvOpenFlags own, BdrvOpenFlags files)
{
    g_autofree char *expect = g_strdup_printf("%d", own);

    g_test_message("%s with %d", options, flags);
    opens((Case){ .filename = "i", .options = options, .flags = flags, .look = look_flags, .expect = expect });
    g_assert_cmpint(stand_last_mem_flags, ==, files | BDRV_O_UNMAP); /* whatever the format was told */
}

static void test_flags(void)
{
    const BdrvOpenFlags cached = BDRV_O_NOCACHE | BDRV_O_NO_FLUSH, all = cached | BDRV_O_RDWR | BDRV_O_UNMAP;

    stand_clear();
    stand_image("i", NULL, NULL);
    flags_are(NULL, 0, 0, 0);
    flags_are(NULL, all, all, all);
    flags_are(NULL, BDRV_O_CHECK | BDRV_O_NO_BACKING | BDRV_O_NO_IO, BDRV_O_CHECK | BDRV_O_NO_BACKING | BDRV_O_NO_IO,
              0);
    flags_are(NULL, BDRV_O_FORCE_SHARE, BDRV_O_FORCE_SHARE, BDRV_O_FORCE_SHARE);
    flags_are("cache.direct=on,cache.no-flush=on,discard=unmap", 0, cached | BDRV_O_UNMAP, cached | BDRV_O_UNMAP);
    flags_are("cache.drop-behind=on", 0, BDRV_O_DROP_BEHIND, BDRV_O_DROP_BEHIND);
    flags_are("cache.drop-behind=auto", BDRV_O_DROP_BEHIND, BDRV_O_DROP_AUTO, BDRV_O_DROP_AUTO);
    flags_are("cache.drop-behind=off", BDRV_O_DROP_BEHIND | BDRV_O_DROP_AUTO, 0, 0);
    flags_are("cache.direct=off,discard=ignore,read-only=on", all, BDRV_O_NO_FLUSH, BDRV_O_NO_FLUSH);
    flags_are("read-only=off", 0, BDRV_O_RDWR, BDRV_O_RDWR);
    flags_are("read-only=on,force-share=on", BDRV_O_RDWR, BDRV_O_FORCE_SHARE, BDRV_O_FORCE_SHARE);
    flags_are("file.cache.direct=on", BDRV_O_RDWR, BDRV_O_RDWR, BDRV_O_RDWR | BDRV_O_NOCACHE);
    flags_are("read-only=on,file.read-only=off", BDRV_O_RDWR, 0, BDRV_O_RDWR);
    flags_are("detect-zeroes=off", 0, 0, 0);
    flags_are("detect-zeroes=on", 0, 0, 0);
    flags_are("detect-zeroes=unmap,discard=unmap", 0, BDRV_O_UNMAP, BDRV_O_UNMAP);
}

static void look_read_only(Case *c)
{
    g_assert_true(c->bs->read_only);
    g_assert_cmpint(c->bs->open_flags & BDRV_O_RDWR, ==, 0);
}

static void test_auto_read_only(void)
{
    stand_clear();
    stand_image("ro-i", NULL, NULL);
    refused("ro-i", NULL, BDRV_O_RDWR, EACCES, "ro-i: may not be written");
    opens((Case){ .filename = "ro-i", .options = "auto-read-only=on", .flags = BDRV_O_RDWR, .look = look_read_only });
    opens((Case){ .filename = "ro-i",
                  .options = "driver=t-fmt,auto-read-only=on",
                  .flags = BDRV_O_RDWR,
                  .look = look_read_only });
    refused("nosuch", "auto-read-only=on", BDRV_O_RDWR, ENOENT, "nosuch");
}

static void look_probed(Case *c)
{
    g_assert_true(bdrv_node(c->bs)->probed == (c->expect[0] == '1'));
    if (c->bs->file) {
        g_assert_false(bdrv_node(c->bs->file->bs)->probed);
    }
}

static void test_probed(void)
{
    stand_clear();
    stand_image("i", NULL, NULL);
    stand_file("r", 4096);
    stand_file("empty", 0);
    opens((Case){ .filename = "r", .look = look_probed, .expect = "1" });
    opens((Case){ .filename = "empty", .look = look_probed, .expect = "1" });
    opens((Case){ .filename = "i", .look = look_probed, .expect = "1" });
    opens((Case){ .filename = "r", .options = "driver=raw", .look = look_probed, .expect = "0" });
    opens((Case){ .filename = "r", .options = "driver=t-mem", .look = look_probed, .expect = "0" });
}

/* ---- nodes by name ---- */

static void coroutine_fn use_node_by_name(void *opaque)
{
    Case *c = opaque;
    BlockDriverState *file, *top;

    file = bdrv_co_open_tree(c->graph, NULL, bdrv_options_parse("driver=t-mem,filename=i,node-name=f", NULL, NULL), 0,
                             true, &c->error);
    g_assert_no_error(c->error);
    top = bdrv_co_open_tree(c->graph, NULL, bdrv_options_parse("driver=t-fmt,file=f", NULL, NULL), 0, false, NULL);
    g_assert_null(top); /* private: nobody sees it */

    g_assert_true(bdrv_graph_publish(c->graph, file, &c->error));
    top = bdrv_co_open_tree(c->graph, NULL, bdrv_options_parse("driver=t-fmt,file=f", NULL, NULL), 0, false, &c->error);
    g_assert_no_error(c->error);
    g_assert_true(top->file->bs == file);
    g_assert_cmpstr(top->filename, ==, "i");
    bdrv_co_node_unref(top);
    top = bdrv_co_open_tree(c->graph, NULL, bdrv_options_parse("file=f", NULL, NULL), 0, false, &c->error);
    g_assert_no_error(c->error);
    g_assert_cmpstr(top->drv->format_name, ==, "t-fmt");
    bdrv_co_node_unref(top);
    g_assert_cmpint(bdrv_co_node_unref(file), ==, 0);
}

static void test_reference(void)
{
    Case c = { .graph = bdrv_graph_new() };

    stand_clear();
    stand_image("i", NULL, NULL);
    g_assert_cmpint(co_run_blocking(use_node_by_name, &c), ==, 0);
    g_assert_cmpuint(stand_open_nodes, ==, 0);
    bdrv_graph_unref(c.graph);
}

/* ---- opening over a node that others drain ---- */

typedef struct Storm {
    BdrvGraph *graph;
    BlockDriverState *file;
    _Atomic bool done;
} Storm;

static void coroutine_fn drain_and_go_on(void *opaque)
{
    Storm *storm = opaque;

    while (!atomic_load(&storm->done)) {
        g_assert_cmpint(bdrv_co_drain_begin(storm->file), ==, 0);
        bdrv_co_drain_end(storm->file);
        co_reschedule();
    }
}

static void *drain_thread(void *opaque)
{
    g_assert_cmpint(co_run_blocking(drain_and_go_on, opaque), ==, 0);
    return NULL;
}

static void coroutine_fn open_again_and_again(void *opaque)
{
    Storm *storm = opaque;

    for (unsigned i = 0; i < 200; i++) {
        GError *error = NULL;
        BlockDriverState *top = bdrv_co_open_tree(storm->graph, NULL, bdrv_options_parse("file=f", NULL, NULL), 0,
                                                  false, &error);

        g_assert_no_error(error);
        g_assert_cmpint(bdrv_co_node_unref(top), ==, 0);
    }
}

static void coroutine_fn begin_storm(void *opaque)
{
    Storm *storm = opaque;

    storm->file = bdrv_co_open_tree(storm->graph, NULL,
                                    bdrv_options_parse("driver=t-mem,filename=i,node-name=f", NULL, NULL), 0, true,
                                    NULL);
    g_assert_true(bdrv_graph_publish(storm->graph, storm->file, NULL));
}

static void coroutine_fn end_storm(void *opaque)
{
    g_assert_cmpint(bdrv_co_node_unref(((Storm *)opaque)->file), ==, 0);
}

static void test_storm(void)
{
    Storm storm = { .graph = bdrv_graph_new() };
    pthread_t thread;

    stand_clear();
    stand_image("i", NULL, NULL);
    g_assert_cmpint(co_run_blocking(begin_storm, &storm), ==, 0);
    g_assert_cmpint(pthread_create(&thread, NULL, drain_thread, &storm), ==, 0);
    g_assert_cmpint(co_run_blocking(open_again_and_again, &storm), ==, 0);
    atomic_store(&storm.done, true);
    pthread_join(thread, NULL);
    g_assert_cmpint(co_run_blocking(end_storm, &storm), ==, 0);
    g_assert_cmpuint(stand_open_nodes, ==, 0);
    bdrv_graph_unref(storm.graph);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    stand_register();
    g_test_add_func("/open/filenames and options find the driver and come back as filename", test_filenames);
    g_test_add_func("/open/children may be images with filenames of their own", test_child_images);
    g_test_add_func("/open/what is wrong is refused by name and nothing stays open", test_refusals);
    g_test_add_func("/open/nodes in nodes are bounded", test_nesting);
    g_test_add_func("/open/flags are changed by options and inherited by the file", test_flags);
    g_test_add_func("/open/auto-read-only opens what may not be written read-only", test_auto_read_only);
    g_test_add_func("/open/a guessed format is marked", test_probed);
    g_test_add_func("/open/a published node is used by name, a private one is not", test_reference);
    g_test_add_func("/open/opening over a node goes on while others drain it", test_storm);
    return g_test_run();
}
