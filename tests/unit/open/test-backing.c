/* SPDX-License-Identifier: MIT */
#include "block/open/open.h"
#include "stand.h"

#include <errno.h>
#include <string.h>

/* ---- names ---- */

static void test_full_name(void)
{
    static const struct {
        const char *image, *backing, *full;
    } cases[] = {
        { "i", "b", "b" },
        { "d/i", "b", "d/b" },
        { "d/i", "../b", "d/../b" },
        { "/x/i", "b", "/x/b" },
        { "d/i", "/b", "/b" },
        { "d/i", "proto:b", "proto:b" },
        { "d/i", "./x:b", "d/./x:b" },
        { "d/i", "json:{}", "json:{}" },
        { "proto:i", "b", "proto:b" },
        { "proto:d/i", "b", "proto:d/b" },
        { "proto://h/d/i", "b", "proto://h/d/b" },
        { "json:{\"a\": \"x/y\"}", "/b", "/b" },
        { "json:{\"a\": \"x/y\"}", "b", NULL },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autofree char *full = bdrv_full_backing_filename(cases[i].image, cases[i].backing, &error);

        g_assert_cmpstr(full, ==, cases[i].full);
        g_assert_true((full == NULL) == (error != NULL));
    }
}

static void test_gates(void)
{
    static const struct {
        const char *filename;
        bool local;
    } cases[] = {
        { "b", true }, { "/d/b", true }, { "file:b", true }, { "./x:b", true }, { "nbd:b", false },
        { "json:{}", false }, { "null-co://", false },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        bool guess = false;

        g_assert_true(bdrv_gate_local(NULL, "top", cases[i].filename, NULL, &guess, &error) == cases[i].local);
        g_assert_true(guess == cases[i].local);
        g_assert_true((error == NULL) == cases[i].local);
        guess = false;
        g_assert_true(bdrv_gate_any(NULL, "top", cases[i].filename, "raw", &guess, NULL));
        g_assert_false(guess);
        g_assert_true(bdrv_gate_any(NULL, "top", cases[i].filename, NULL, &guess, NULL));
        g_assert_true(guess);
    }
}

/* ---- chains ---- */

/* Open @filename and describe the chain: "driver filename < driver filename …" */
typedef struct Case {
    const char *filename, *options;
    BdrvOpenFlags flags;
    BdrvOpenerGate *gate;
    BdrvGraph *graph;
    char *chain;
    GError *error;
} Case;

static void coroutine_fn describe(void *opaque)
{
    Case *c = opaque;
    BdrvOptions *options = NULL;
    BlockDriverState *bs;
    GString *chain;

    if (c->options) {
        options = c->options[0] == '{' ? bdrv_options_parse_json(c->options, &c->error)
                                       : bdrv_options_parse(c->options, NULL, &c->error);
        g_assert_no_error(c->error);
    }
    bs = bdrv_co_open_tree(c->graph, c->filename, options, c->flags, false, &c->error);
    if (!bs) {
        return;
    }
    chain = g_string_new(NULL);
    for (BlockDriverState *layer = bs; layer; layer = layer->backing ? layer->backing->bs : NULL) {
        g_string_append_printf(chain, "%s%s %s%s", layer == bs ? "" : " < ", layer->drv->format_name, layer->filename,
                               layer->read_only ? "" : " rw");
    }
    c->chain = g_string_free(chain, false);
    g_assert_cmpint(bdrv_co_node_unref(bs), ==, 0);
}

static void run(Case *c)
{
    c->graph = bdrv_graph_new();
    if (c->gate) {
        bdrv_graph_set_opener_gate(c->graph, c->gate, NULL);
    }
    g_assert_cmpint(co_run_blocking(describe, c), ==, 0);
    g_assert_cmpuint(stand_open_nodes, ==, 0);
    bdrv_graph_unref(c->graph);
}

static void expect_chain(Case *c, const char *chain)
{
    g_test_message("%s %s", c->filename ? c->filename : "-", c->options ? c->options : "-");
    run(c);
    g_assert_no_error(c->error);
    g_assert_cmpstr(c->chain, ==, chain);
    g_free(c->chain);
}

static void chain_is(const char *filename, const char *options, BdrvOpenFlags flags, const char *chain)
{
    Case c = { .filename = filename, .options = options, .flags = flags, .gate = bdrv_gate_any };

    expect_chain(&c, chain);
}

static void allowed(const char *filename, BdrvOpenerGate *gate, const char *chain)
{
    Case c = { .filename = filename, .gate = gate };

    expect_chain(&c, chain);
}

static void refused(const char *filename, const char *options, BdrvOpenerGate *gate, int code, const char *said)
{
    Case c = { .filename = filename, .options = options, .gate = gate };

    g_test_message("%s %s", filename, options ? options : "-");
    run(&c);
    g_assert_error(c.error, BDRV_ERROR, code);
    if (!strstr(c.error->message, said)) {
        g_test_message("message: %s", c.error->message);
    }
    g_assert_nonnull(strstr(c.error->message, said));
    g_error_free(c.error);
}

static void make_chain(void)
{
    stand_clear();
    stand_file("d/b", 4096);
    stand_file("other", 4096);
    stand_image("d/m", "b", "raw");
    stand_image("d/t", "m", "t-fmt");
    stand_image("d/guess", "b", NULL);
    stand_image("d/none", NULL, NULL);
    stand_image("d/missing", "nosuch", "raw");
    stand_image("d/wrong", "b", "t-fmt");
    stand_image("d/unknown", "b", "nosuch");
    stand_image("d/json", "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"t-mem\",\"filename\":\"other\"}}", NULL);
    stand_image("d/json3", "json:{\"driver\":\"raw\",\"file\":{\"driver\":\"null-co\"}}", NULL);
    stand_image("d/json2", "json:{\"file\":{\"driver\":\"t-mem\",\"filename\":\"other\"}}", NULL);
}

static void test_chain(void)
{
    make_chain();
    chain_is("d/t", NULL, 0, "t-fmt d/t < t-fmt d/m < raw d/b");
    chain_is("d/t", NULL, BDRV_O_RDWR, "t-fmt d/t rw < t-fmt d/m < raw d/b");
    chain_is("t-mem:d/t", NULL, 0, "t-fmt d/t < t-fmt d/m < raw d/b");
    chain_is("d/none", NULL, 0, "t-fmt d/none");
    chain_is("d/t", NULL, BDRV_O_NO_BACKING, "t-fmt d/t");
    chain_is("d/json", NULL, 0, "t-fmt d/json < raw other");
    chain_is("d/json2", NULL, 0, "t-fmt d/json2 < raw other");
    chain_is(NULL, "driver=t-fmt,strong=1,file.filename=d/m", 0,
             "t-fmt json:{\"driver\": \"t-fmt\", \"strong\": \"1\", \"file\": {\"driver\": \"t-mem\", \"filename\": "
             "\"d/m\"}} < raw d/b");
}

static void test_overridden(void)
{
    make_chain();
    chain_is("d/m", "backing=", 0,
             "t-fmt json:{\"driver\": \"t-fmt\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"d/m\"}, "
             "\"backing\": null}");
    chain_is("d/m", "{\"backing\": null}", 0,
             "t-fmt json:{\"driver\": \"t-fmt\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"d/m\"}, "
             "\"backing\": null}");
    chain_is("d/m", "backing.file.filename=other", 0,
             "t-fmt json:{\"driver\": \"t-fmt\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"d/m\"}, "
             "\"backing\": {\"driver\": \"raw\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"other\"}}} < raw other");
    chain_is("d/none", "backing.driver=t-mem,backing.filename=other", 0,
             "t-fmt json:{\"driver\": \"t-fmt\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"d/none\"}, "
             "\"backing\": {\"driver\": \"t-mem\", \"filename\": \"other\"}} < t-mem other");
    chain_is("d/t", "backing.backing=", BDRV_O_NO_BACKING, "t-fmt d/t");
    chain_is("d/m", "backing.read-only=off", BDRV_O_RDWR,
             "t-fmt json:{\"driver\": \"t-fmt\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"d/m\"}, "
             "\"backing\": {\"driver\": \"raw\", \"file\": {\"driver\": \"t-mem\", \"filename\": \"d/b\"}}} rw < raw d/b rw");
    refused("d/t", "backing=nosuch", bdrv_gate_any, ENOENT, "backing=nosuch");
    refused("d/t", "backing.foo=1", bdrv_gate_any, EINVAL, "'foo'");
    refused("d/t", "backing=x,backing.foo=1", bdrv_gate_any, EINVAL, "'backing' is given as a value");
    refused("d/t", "{\"backing\": 5}", bdrv_gate_any, EINVAL, "'backing' must be");
    refused("d/t", "backing.backing.foo=1", bdrv_gate_any, EINVAL, "'foo'");
    refused("d/t", "backing.backing=nosuch", bdrv_gate_any, ENOENT, "backing=nosuch");
}

static bool gate_no_guess(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                          GError **errp)
{
    return true;
}

static void test_gate(void)
{
    make_chain();
    chain_is("d/guess", NULL, 0, "t-fmt d/guess < raw d/b");
    refused("d/t", NULL, NULL, EACCES, "d/t");
    refused("d/guess", NULL, gate_no_guess, EINVAL, "not recorded");
    refused("d/json2", NULL, gate_no_guess, EINVAL, "not recorded");
    allowed("d/json", bdrv_gate_local, "t-fmt d/json < raw other");
    refused("d/json3", NULL, bdrv_gate_local, EACCES, "driver 'null-co'");
    refused("d/missing", NULL, bdrv_gate_local, ENOENT, "could not open the backing file of 'd/missing': d/nosuch:");
    refused("d/wrong", NULL, bdrv_gate_any, EINVAL, "d/b: Image is not in t-fmt format");
    refused("d/unknown", NULL, bdrv_gate_any, ENOENT, "unknown driver 'nosuch'");
}

/* A json: name may say what a plain name could have meant, and no more. */
static void test_local_names(void)
{
    static const struct {
        const char *filename, *problem; /* NULL: allowed */
    } cases[] = {
        { "b", NULL },
        { "/dev/x", NULL },
        { "file:b", NULL },
        { "nbd:b", "prefix" },
        { "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"b\"}}", NULL },
        { "json:{\"driver\":\"qcow2\",\"file.driver\":\"host_device\",\"file.filename\":\"/dev/x\"}", NULL },
        { "json:{\"driver\":\"raw\",\"offset\":512,\"size\":512,\"file\":{\"filename\":\"b\"}}", NULL },
        { "json:{\"filename\":\"b\"}", NULL },
        { "json:{\"driver\":\"null-co\"}", "driver 'null-co'" },
        { "json:{\"file\":{\"driver\":\"nosuch\",\"filename\":\"b\"}}", "driver 'nosuch'" },
        { "json:{\"file\":{\"filename\":\"nbd:b\"}}", "file name 'nbd:b'" },
        { "json:{\"filename\":\"json:{}\"}", "file name 'json:{}'" },
        { "json:{\"driver\":\"raw\",\"file\":\"node\"}", "option 'file'" },
        { "json:{\"driver\":\"file\",\"fd\":3}", "option 'fd'" },
        { "json:{\"driver\":\"file\",\"filename\":\"b\",\"locking\":\"off\"}", "option 'locking'" },
        { "json:{\"driver\":\"qcow2\",\"file\":{\"filename\":\"b\"},"
          "\"backing\":{\"filename\":\"c\"}}", "further file" },
        { "json:{\"driver\":\"qcow2\",\"file\":{\"filename\":\"b\"},\"backing\":null}", "further file" },
        { "json:{\"driver\":\"raw\",\"file\":{\"filename\":\"b\"},"
          "\"log\":{\"driver\":\"file\",\"filename\":\"c\"}}", "further file" },
        { "json:{", "" },
        { "json:[]", "" },
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        bool guess = false;
        bool allowed = bdrv_gate_local(NULL, "a", cases[i].filename, "raw", &guess, &error);

        g_test_message("%s: %s", cases[i].filename, error ? error->message : "allowed");
        g_assert_true(allowed == !cases[i].problem);
        g_assert_true(allowed == !error);
        g_assert_true(allowed || strstr(error->message, cases[i].problem));
    }
}

static void test_gate_not_asked(void)
{
    Case c = { .filename = "d/t", .options = "backing.driver=raw,backing.file.filename=other" };

    make_chain();
    run(&c); /* no gate set, but it is the user who names the file */
    g_assert_no_error(c.error);
    g_free(c.chain);
}

static void test_loops(void)
{
    make_chain();
    stand_image("d/self", "self", "t-fmt");
    stand_image("d/dotted", "./../d/dotted", "t-fmt");
    stand_image("d/x", "y", "t-fmt");
    stand_image("d/y", "x", "t-fmt");
    refused("d/self", NULL, bdrv_gate_any, ELOOP, "infinite loop");
    refused("d/dotted", NULL, bdrv_gate_any, ELOOP, "infinite loop");
    refused("d/x", NULL, bdrv_gate_any, ELOOP, "infinite loop");
}

static void make_long_chain(unsigned layers)
{
    stand_clear();
    for (unsigned i = 0; i < layers; i++) {
        g_autofree char *name = g_strdup_printf("d/%u", i);
        g_autofree char *next = g_strdup_printf("%u", i + 1);

        stand_image(name, i + 1 < layers ? next : NULL, "t-fmt");
    }
}

static void test_long_chain(void)
{
    Case c = { .filename = "d/0", .gate = bdrv_gate_any };

    make_long_chain(200);
    run(&c);
    g_assert_no_error(c.error);
    g_assert_nonnull(strstr(c.chain, "d/199"));
    g_free(c.chain);
    make_long_chain(300);
    refused("d/0", NULL, bdrv_gate_any, ELOOP, "more than 200");
    g_assert_cmpuint(stand_opened, <, 500);
}

/* A backing file that is, by json:, a format in a raw in … with a backing file of the same kind. */
static void test_nested_chain(void)
{
    stand_clear();
    for (unsigned i = 0; i < 300; i++) {
        g_autofree char *name = g_strdup_printf("n%u", i);
        g_autofree char *next = g_strdup_printf("json:{\"driver\":\"raw\",\"file\":{\"driver\":\"t-fmt\","
                                                "\"file\":{\"driver\":\"t-mem\",\"filename\":\"n%u\"}}}",
                                                i + 1);
        stand_image(name, next, NULL);
    }
    refused("n0", NULL, bdrv_gate_any, ELOOP, "nested");
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    stand_register();
    g_test_add_func("/backing/a relative name starts at the image's directory", test_full_name);
    g_test_add_func("/backing/the local gate takes plain names", test_gates);
    g_test_add_func("/backing/the local gate takes json: that says no more than a name", test_local_names);
    g_test_add_func("/backing/a chain is opened as the images name it", test_chain);
    g_test_add_func("/backing/options replace what the image names", test_overridden);
    g_test_add_func("/backing/the gate decides on names and on guessing", test_gate);
    g_test_add_func("/backing/the gate is not asked for what the user names", test_gate_not_asked);
    g_test_add_func("/backing/a chain that names itself is refused", test_loops);
    g_test_add_func("/backing/a chain of 200 layers opens and more is refused", test_long_chain);
    g_test_add_func("/backing/nested chains are bounded", test_nested_chain);
    return g_test_run();
}
