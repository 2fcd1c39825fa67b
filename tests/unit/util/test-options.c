/* SPDX-License-Identifier: MIT */
#include <bdrv/options.h>
#include <errno.h>
#include <string.h>

static char *json_of(const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, &error);

    g_assert_no_error(error);
    return bdrv_options_to_json(options, false);
}

static void test_three_spellings(void)
{
    const char *json = "{\"driver\": \"qcow2\", \"file\": {\"driver\": \"file\", \"filename\": \"a,b.img\"}}";
    g_autofree char *dotted = json_of("driver=qcow2,file.driver=file,file.filename=a,,b.img");
    g_autoptr(BdrvOptions) parsed = bdrv_options_parse_json(json, NULL);
    g_autofree char *again = bdrv_options_to_json(parsed, false);
    g_autoptr(BdrvOptions) set = bdrv_options_new();
    g_autofree char *third = NULL;

    bdrv_options_set_string(set, "driver", "qcow2");
    bdrv_options_set_string(set, "file.driver", "file");
    bdrv_options_set_string(set, "file.filename", "a,b.img");
    third = bdrv_options_to_json(set, false);
    g_assert_cmpstr(dotted, ==, json);
    g_assert_cmpstr(again, ==, json);
    g_assert_cmpstr(third, ==, json);
}

static void test_dotted(void)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        { "", "{}" },
        { "a=1", "{\"a\": \"1\"}" },
        { "a", "{\"a\": \"on\"}" },
        { "a=", "{\"a\": \"\"}" },
        { "a=b=c", "{\"a\": \"b=c\"}" },
        { "a=1,b=2,a=3", "{\"a\": \"3\", \"b\": \"2\"}" },
        { "a=x,,,b=y", "{\"a\": \"x,\", \"b\": \"y\"}" },
        { "l.0=a,l.1=b", "{\"l\": [\"a\", \"b\"]}" },
        { "l.1=a,l.0=b", "{\"l\": {\"1\": \"a\", \"0\": \"b\"}}" },
        { "s.0.h=a,s.0.p=1,s.1.h=b", "{\"s\": [{\"h\": \"a\", \"p\": \"1\"}, {\"h\": \"b\"}]}" },
        { "nokey", "{\"nokey\": \"on\"}" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *json = json_of(cases[i].text);

        g_assert_cmpstr(json, ==, cases[i].json);
    }
}

static void test_first_key(void)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse("x.img,a=1", "filename", NULL);

    g_assert_cmpstr(bdrv_options_get_string(options, "filename", NULL), ==, "x.img");
    g_assert_cmpstr(bdrv_options_get_string(options, "a", NULL), ==, "1");
}

static void test_dotted_refused(void)
{
    static const char *const cases[] = { "=x", "a=1,,b", ".a=1", "a.=1", "a..b=1", "a=1,=2", ",a=1" };
    g_autoptr(GString) deep = g_string_new("a");

    for (unsigned i = 0; i < 100; i++) {
        g_string_append(deep, ".a");
    }
    for (unsigned i = 0; i <= G_N_ELEMENTS(cases); i++) {
        const char *text = i < G_N_ELEMENTS(cases) ? cases[i] : deep->str;
        g_autoptr(GError) error = NULL;
        g_autoptr(BdrvOptions) options = bdrv_options_parse(text, NULL, &error);

        if (strcmp(text, "a=1,,b") == 0) {
            g_assert_cmpstr(bdrv_options_get_string(options, "a", NULL), ==, "1,b");
            continue;
        }
        g_test_message("%s", text);
        g_assert_null(options);
        g_assert_error(error, BDRV_ERROR, EINVAL);
    }
}

static void test_json_types(void)
{
    const char *json = "{\"s\": \"x\", \"t\": true, \"f\": false, \"i\": -9223372036854775808, "
                       "\"max\": 9223372036854775807, \"d\": 1.5, \"n\": null, \"o\": {}, \"l\": [], "
                       "\"a\": [1, [2], {\"b\": 3}]}";
    g_autoptr(GError) error = NULL;
    g_autoptr(BdrvOptions) options = bdrv_options_parse_json(json, &error);
    g_autofree char *again = NULL;

    g_assert_no_error(error);
    again = bdrv_options_to_json(options, false);
    g_assert_cmpstr(again, ==, json);
    g_assert_true(bdrv_options_get_bool(options, "t", false));
    g_assert_cmpint(bdrv_options_get_int(options, "i", 0), ==, INT64_MIN);
    g_assert_cmpint(bdrv_options_get_int(options, "a.1.0", 0), ==, 2);
    g_assert_true(bdrv_options_is_null(options, "n"));
    g_assert_true(bdrv_options_has(options, "o"));
}

static void test_json_refused(void)
{
    static const char *const cases[] = {
        "", " ", "1", "[1]", "{", "}", "{}}", "{} x", "{\"a\":1}{\"b\":1}", "/*c*/{\"a\":1}", "var x = {\"a\":1}",
        "{\"a\":1,\"a\":2}", "{\"b\":{\"a\":1,\"a\":2}}", "{\"a\":1,}", "{a:1}", "{\"a\":nul}", "{\"a\":nulls}",
        "{\"a\":+5}", "{\"a\":- 5}", "{\"a\":0x10}", "{\"a\":010}", "{\"a\":1.}", "{\"a\":.5}", "{\"a\":1e}",
        "{\"a\":9223372036854775808}", "{\"a\":18446744073709551616}", "{\"a\":\"\\u0000b\"}", "{\"a\":\"\\q\"}",
        "{\"a\":\"x}", "{\"a\":\"\xff\"}", "{\"a\" 1}", "{\"a\":[1}", "{\"a\":{1]}", "{\"a\":1 2}", "{\"a\"}",
        "{\"a\":NaN}", "{\"a\":\"\\", "{:}", "{,}",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(BdrvOptions) options = bdrv_options_parse_json(cases[i], &error);
        g_autofree char *shown = g_strescape(cases[i], NULL);

        g_test_message("%s", shown);
        g_assert_null(options);
        g_assert_error(error, BDRV_ERROR, EINVAL);
    }
}

static void test_json_nesting(void)
{
    for (unsigned depth = 63; depth <= 100000; depth = depth == 63 ? 65 : depth * 1000) {
        g_autoptr(GString) text = g_string_new("{\"a\":");
        g_autoptr(GError) error = NULL;
        g_autoptr(BdrvOptions) options = NULL;

        for (unsigned i = 0; i < depth; i++) {
            g_string_append_c(text, '[');
        }
        for (unsigned i = 0; i < depth; i++) {
            g_string_append_c(text, ']');
        }
        g_string_append_c(text, '}');
        options = bdrv_options_parse_json(text->str, &error);
        g_assert_true((options != NULL) == (depth == 63));
        g_assert_true((error != NULL) == (depth != 63));
    }
}

static void test_json_strings(void)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "{'a': 'single \"quotes\"'}", "{\"a\": \"single \\\"quotes\\\"\"}" },
        { "{\"a\": \"\\n\\t\\\\/\"}", "{\"a\": \"\\n\\t\\\\/\"}" },
        { "{\"a\": \"\xc3\xa9\"}", "{\"a\": \"\\u00E9\"}" },
        { "{\"a\": \"\xf0\x9f\x98\x80\"}", "{\"a\": \"\\uD83D\\uDE00\"}" },
        { "{\"a\": \"\\u0001\"}", "{\"a\": \"\\u0001\"}" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(BdrvOptions) options = bdrv_options_parse_json(cases[i].in, &error);
        g_autofree char *out = NULL;

        g_assert_no_error(error);
        out = bdrv_options_to_json(options, false);
        g_assert_cmpstr(out, ==, cases[i].out);
    }
}

/* Mutated JSON is refused or read; what was read is printed so that it reads the same. */
static void test_json_random(void)
{
    static const char seed_text[] = "{\"a\": [1, {\"b.c\": \"x\\n\"}, -2.5e3, null, {}], \"0\": true, 'd': {\"1\": []}}";
    static const char alphabet[] = "{}[],:\"'\\ 019-+.eEtrufalsn/u";
    const char *given = g_getenv("BDRV_TEST_SEED");
    guint32 seed = given ? (guint32)g_ascii_strtoull(given, NULL, 0) : g_random_int();
    g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
    unsigned read = 0;

    g_test_message("BDRV_TEST_SEED=%u", seed);
    for (unsigned i = 0; i < 20000; i++) {
        char text[sizeof(seed_text)];
        g_autoptr(BdrvOptions) options = NULL;

        memcpy(text, seed_text, sizeof(text));
        for (int n = g_rand_int_range(rand, 0, 4); n > 0; n--) {
            text[g_rand_int_range(rand, 0, sizeof(text) - 1)] = alphabet[g_rand_int_range(rand, 0, sizeof(alphabet))];
        }
        options = bdrv_options_parse_json(text, NULL);
        if (options) {
            g_autofree char *once = bdrv_options_to_json(options, false);
            g_autoptr(BdrvOptions) again = bdrv_options_parse_json(once, NULL);
            g_autofree char *twice = again ? bdrv_options_to_json(again, false) : NULL;

            g_assert_cmpstr(once, ==, twice);
            read++;
        }
    }
    g_assert_cmpuint(read, >, 1000);
}

static void test_pretty(void)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse("a=1,b.c=2,b.d.0=3", NULL, NULL);
    g_autofree char *json = bdrv_options_to_json(options, true);

    g_assert_cmpstr(json, ==,
                    "{\n    \"a\": \"1\",\n    \"b\": {\n        \"c\": \"2\",\n        \"d\": [\n"
                    "            \"3\"\n        ]\n    }\n}");
}

static void test_subtree(void)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse("x=1,f.a=2,fa=3,f.b.c=4,f=5", NULL, NULL);
    g_autoptr(BdrvOptions) taken = bdrv_options_take_subtree(options, "f");
    g_autofree char *rest_json = bdrv_options_to_json(options, false);
    g_autofree char *taken_json = bdrv_options_to_json(taken, false);
    g_autofree char *merged_json = NULL;

    g_assert_cmpstr(rest_json, ==, "{\"x\": \"1\", \"fa\": \"3\", \"f\": \"5\"}");
    g_assert_cmpstr(taken_json, ==, "{\"a\": \"2\", \"b\": {\"c\": \"4\"}}");
    g_assert_true(bdrv_options_remove(options, "f"));
    g_assert_false(bdrv_options_remove(options, "f"));
    bdrv_options_merge(options, "g", taken);
    merged_json = bdrv_options_to_json(options, false);
    g_assert_cmpstr(merged_json, ==, "{\"x\": \"1\", \"fa\": \"3\", \"g\": {\"a\": \"2\", \"b\": {\"c\": \"4\"}}}");
}

static void test_copy(void)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse("a=1", NULL, NULL);
    g_autoptr(BdrvOptions) copy = bdrv_options_copy(options);
    g_autoptr(BdrvOptions) empty = bdrv_options_copy(NULL);

    bdrv_options_set_string(copy, "a", bdrv_options_get_string(copy, "a", NULL));
    bdrv_options_set_int(copy, "b", 2);
    g_assert_cmpuint(bdrv_options_count(options), ==, 1);
    g_assert_cmpuint(bdrv_options_count(copy), ==, 2);
    g_assert_cmpuint(bdrv_options_count(empty), ==, 0);
}

static const char *const choices[] = { "off", "on", "auto", NULL };
static const BdrvOptionSpec specs[] = {
    { "str", BDRV_OPTION_STRING },
    { "choice", BDRV_OPTION_STRING, .choices = choices },
    { "bool", BDRV_OPTION_BOOL },
    { "int", BDRV_OPTION_INT },
    { "size", BDRV_OPTION_SIZE },
    { "double", BDRV_OPTION_DOUBLE },
    { NULL },
};
static const BdrvOptionSpec more_specs[] = { { "deep.er", BDRV_OPTION_BOOL }, { NULL } };
static const BdrvOptionSpec *const tables[] = { specs, more_specs, NULL };

static void test_validate(void)
{
    static const struct {
        const char *in, *out;
    } cases[] = {
        { "{}", "{}" },
        { "{'str': 'x'}", "{\"str\": \"x\"}" },
        { "{'str': 5}", "{\"str\": \"5\"}" },
        { "{'choice': 'auto'}", "{\"choice\": \"auto\"}" },
        { "{'choice': true}", "{\"choice\": \"on\"}" },
        { "{'bool': 'on'}", "{\"bool\": true}" },
        { "{'bool': 'no'}", "{\"bool\": false}" },
        { "{'bool': false}", "{\"bool\": false}" },
        { "{'int': '-0x10'}", "{\"int\": -16}" },
        { "{'int': '7'}", "{\"int\": 7}" },
        { "{'size': '64k'}", "{\"size\": 65536}" },
        { "{'size': 512}", "{\"size\": 512}" },
        { "{'double': '1.5'}", "{\"double\": 1.5}" },
        { "{'deep': {'er': 'true'}}", "{\"deep\": {\"er\": true}}" },
        { "{'choice': 'maybe'}", NULL },
        { "{'bool': 'maybe'}", NULL },
        { "{'bool': 1}", NULL },
        { "{'int': '1k'}", NULL },
        { "{'int': ''}", NULL },
        { "{'int': '9223372036854775808'}", NULL },
        { "{'int': 1.5}", NULL },
        { "{'size': -1}", NULL },
        { "{'size': '-1'}", NULL },
        { "{'size': null}", NULL },
        { "{'size': true}", NULL },
        { "{'str': []}", NULL },
        { "{'str': {}}", NULL },
        { "{'str': null}", NULL },
        { "{'double': 'x'}", NULL },
        { "{'unknown': 1}", NULL },
        { "{'size': {'x': 1}}", NULL },
        { "{'deep': 1}", NULL },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(BdrvOptions) options = bdrv_options_parse_json(cases[i].in, NULL);
        g_autoptr(GError) error = NULL;
        bool ok = bdrv_options_validate(options, tables, "driver 'x'", &error);

        g_test_message("%s", cases[i].in);
        g_assert_true(ok == (cases[i].out != NULL));
        if (ok) {
            g_autofree char *json = bdrv_options_to_json(options, false);
            g_assert_cmpstr(json, ==, cases[i].out);
        } else {
            g_assert_error(error, BDRV_ERROR, EINVAL);
        }
    }
}

static void test_unknown_is_named(void)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse("int=1,foo.bar=2", NULL, NULL);
    g_autoptr(GError) error = NULL;

    g_assert_false(bdrv_options_validate(options, tables, "driver 'x'", &error));
    g_assert_nonnull(strstr(error->message, "driver 'x'"));
    g_assert_nonnull(strstr(error->message, "'foo.bar'"));
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/three spellings give one tree", test_three_spellings);
    g_test_add_func("/options/dotted keys make dictionaries and lists", test_dotted);
    g_test_add_func("/options/a first element may go without a key", test_first_key);
    g_test_add_func("/options/empty and too deep keys are refused", test_dotted_refused);
    g_test_add_func("/options/JSON values keep their types", test_json_types);
    g_test_add_func("/options/what is not JSON is refused", test_json_refused);
    g_test_add_func("/options/deep nesting is refused before it is parsed", test_json_nesting);
    g_test_add_func("/options/strings are escaped as qemu-img escapes them", test_json_strings);
    g_test_add_func("/options/mutated JSON is refused or keeps its meaning", test_json_random);
    g_test_add_func("/options/pretty JSON indents by four", test_pretty);
    g_test_add_func("/options/a subtree is taken out and put back", test_subtree);
    g_test_add_func("/options/a copy is independent", test_copy);
    g_test_add_func("/options/values are converted to their types or refused", test_validate);
    g_test_add_func("/options/an unknown option is named with its driver", test_unknown_is_named);
    return g_test_run();
}
