/* SPDX-License-Identifier: MIT */

/* The configuration file: what is taken, and how what is wrong is named. */

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "drivers/blkdebug/blkdebug.h"
#include "tests/lib/test-node.h"

static bool parse(const char *text, BlkdebugEngine *engine, GError **errp)
{
    g_autofree char *copy = g_strdup(text);

    blkdebug_engine_init(engine, NULL);
    return blkdebug_parse_config(engine, "conf", copy, errp);
}

static void test_taken(void)
{
    static const struct {
        const char *text;
        unsigned rules;
    } cases[] = {
        { "", 0 },
        { "\n \t\n# nothing", 0 },
        { "[inject-error]\nevent = \"none\"", 1 },
        { "[inject-error]\nevent = \"none\"\n[inject-error]\nevent = \"none\"\n[set-state]\nevent=\"l2_load\"\n", 3 },
        { "[inject-error \"a-1.x_\"]\nevent = \"none\"\n[set-state \"a-1.x_\"]\nevent=\"none\"", 2 },
        { "  [inject-error]\r\n\tevent = \"none\" # why\r\n", 1 },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlkdebugEngine engine;
        GError *error = NULL;

        g_assert_true(parse(cases[i].text, &engine, &error));
        g_assert_no_error(error);
        g_assert_cmpuint(engine.rules->len, ==, cases[i].rules);
        blkdebug_engine_destroy(&engine);
    }
}

static void test_values(void)
{
    BlkdebugEngine engine;
    const BlkdebugRule *rule;

    g_assert_true(parse("[inject-error]\nevent = \"l2_update\"\nstate = \"7\"\nerrno = \"28\"\nsector = \"9\"\n"
                        "iotype = \"block-status\"\nonce = \"on\"\nimmediately = \"on\"\n"
                        "[set-state]\nevent = \"pwritev\"\nnew_state = \"-4\"\n", &engine, NULL));
    rule = &g_array_index(engine.rules, BlkdebugRule, 0);
    g_assert_cmpint(rule->action, ==, BLKDEBUG_INJECT_ERROR);
    g_assert_cmpint(rule->event, ==, BDRV_EVENT_L2_UPDATE);
    g_assert_cmpint(rule->state, ==, 7);
    g_assert_cmpint(rule->error, ==, 28);
    g_assert_cmpint(rule->sector, ==, 9);
    g_assert_cmpuint(rule->iotypes, ==, BLKDEBUG_BLOCK_STATUS);
    g_assert_true(rule->once && rule->immediately);
    rule = &g_array_index(engine.rules, BlkdebugRule, 1);
    g_assert_cmpint(rule->action, ==, BLKDEBUG_SET_STATE);
    g_assert_cmpint(rule->event, ==, BDRV_EVENT_PWRITEV);
    g_assert_cmpint(rule->state, ==, 0);
    g_assert_cmpint(rule->new_state, ==, -4);
    blkdebug_engine_destroy(&engine);
}

static void test_refused(void)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        { "event = \"none\"", "conf, line 1: 'event = \"none\"' is in no section" },
        { "\n[foo]\n", "conf, line 2: there are no sections [foo]" },
        { "[inject-error\nevent = \"none\"", "conf, line 1: a section begins with" },
        { "[inject-error] x\n", "conf, line 1: a section begins with" },
        { "[inject-error x]\n", "conf, line 1: the name of a section must be in double quotes" },
        { "[inject-error \"\"]\n", "conf, line 1: '' is no name" },
        { "[inject-error \"1\"]\n", "conf, line 1: '1' is no name" },
        { "[set-state \"a\"]\nevent=\"none\"\n[set-state \"a\"]\n", "conf, line 3: there is a section [set-state \"a\"] already" },
        { "[inject-error]\nevent\n", "conf, line 2: 'event' is no option" },
        { "[inject-error]\nevent = none\n", "conf, line 2: the value of 'event' must be in double quotes" },
        { "[inject-error]\nevent = \"none\n", "conf, line 2: the value of 'event' must be in double quotes" },
        { "[inject-error]\nevent = \"none\" errno = \"5\"\n", "conf, line 2: 'errno = \"5\"' behind the value of 'event'" },
        { "[inject-error]\nerrno = \"5\"\n", "conf, line 1: [inject-error]: the rule has no event" },
        { "[inject-error]\nevent = \"l2_laod\"\n", "conf, line 1: [inject-error]: there is no event 'l2_laod'; near it: l2_load" },
        { "[set-state]\nevent = \"none\"\nonce = \"on\"\n", "conf, line 1: [set-state] does not support the option 'once'" },
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++) {
        BlkdebugEngine engine;
        GError *error = NULL;

        g_assert_false(parse(cases[i].text, &engine, &error));
        g_assert_error(error, BDRV_ERROR, EINVAL);
        if (!strstr(error->message, cases[i].message)) {
            g_error("'%s' is not in '%s'", cases[i].message, error->message);
        }
        g_clear_error(&error);
        blkdebug_engine_destroy(&engine);
    }
}

/* Any bytes: no crash, and an error for what is not taken. */
static void test_any_text(void)
{
    static const char *const pieces[] = { "[", "]", "\"", "inject-error", "set-state", "event", "=", " ", "\n", "#", "none", "\t",
                                          "state", "1", "errno", "\xff", "once", "on", "sector", "-1" };
    uint64_t seed = test_seed();

    for (unsigned round = 0; round < 20000; round++) {
        g_autoptr(GString) text = g_string_new(NULL);
        BlkdebugEngine engine;
        GError *error = NULL;

        for (int64_t n = test_random_below(&seed, 30); n >= 0; n--) {
            g_string_append(text, pieces[test_random_below(&seed, G_N_ELEMENTS(pieces))]);
        }
        g_assert_cmpint(parse(text->str, &engine, &error), ==, error == NULL);
        g_clear_error(&error);
        blkdebug_engine_destroy(&engine);
    }
}

static void coroutine_fn files(void)
{
    g_autofree char *name = NULL;
    g_autofree char *large = g_strnfill((1 << 20) + 1, '\n');
    BlkdebugEngine engine;
    GError *error = NULL;
    int fd = g_file_open_tmp("blkdebug-XXXXXX", &name, &error);

    g_assert_no_error(error);
    close(fd);
    blkdebug_engine_init(&engine, NULL);
    g_assert_true(g_file_set_contents(name, "[set-state]\nevent = \"none\"\n", -1, NULL));
    g_assert_true(blkdebug_read_config(&engine, name, &error));
    g_assert_cmpuint(engine.rules->len, ==, 1);
    g_assert_true(g_file_set_contents(name, large, 1 << 20, NULL));
    g_assert_true(blkdebug_read_config(&engine, name, &error));
    g_assert_true(g_file_set_contents(name, large, (1 << 20) + 1, NULL));
    g_assert_false(blkdebug_read_config(&engine, name, &error));
    g_assert_error(error, BDRV_ERROR, EFBIG);
    g_clear_error(&error);
    g_assert_true(g_file_set_contents(name, "#\0#", 3, NULL));
    g_assert_false(blkdebug_read_config(&engine, name, &error));
    g_assert_error(error, BDRV_ERROR, EINVAL);
    g_clear_error(&error);
    g_assert_false(blkdebug_read_config(&engine, "/", &error));
    g_assert_error(error, BDRV_ERROR, EISDIR);
    g_clear_error(&error);
    blkdebug_engine_destroy(&engine);
    g_unlink(name);
}

static void test_files(void)
{
    test_run(files);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/blkdebug/config/each section is a rule", test_taken);
    g_test_add_func("/blkdebug/config/all options of a rule are read", test_values);
    g_test_add_func("/blkdebug/config/an error names file, line and what is wrong", test_refused);
    g_test_add_func("/blkdebug/config/any text is taken or refused", test_any_text);
    g_test_add_func("/blkdebug/config/files are read whole, up to 1 MiB", test_files);
    return g_test_run();
}
