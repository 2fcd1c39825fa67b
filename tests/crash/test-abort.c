/* SPDX-License-Identifier: MIT */
/*
 * With a planted assertion that fails (the program argv[1]): the history that aborts is found, reduced, and what is left
 * aborts again.
 */

#include <glib.h>
#include <string.h>
#include <sys/wait.h>

static const char *crash;

/* What it prints; its exit code must be 1, as for any finding. */
static char *must_find(const char *options)
{
    g_autofree char *line = g_strdup_printf("'%s' %s", crash, options);
    g_autoptr(GError) error = NULL;
    char *out = NULL;
    int status;

    g_spawn_command_line_sync(line, &out, NULL, &status, &error);
    g_assert_no_error(error);
    g_test_message("%s", out);
    g_assert_true(WIFEXITED(status));
    g_assert_cmpint(WEXITSTATUS(status), ==, 1);
    return out;
}

/* The rest of the line that begins with @what. */
static char *told(const char *text, const char *what)
{
    const char *at = strstr(text, what);

    g_assert_nonnull(at);
    at += strlen(what);
    return g_strndup(at, strcspn(at, "\n"));
}

static void test_aborts(void)
{
    g_autofree char *text = must_find("--image plain --random --histories 300 --seed 1");
    g_assert_nonnull(strstr(text, "the process ends with signal 6"));
    g_autofree char *ops = told(text, "operations: ");
    g_auto(GStrv) steps = g_strsplit_set(ops, ",+", -1);
    g_assert_cmpuint(g_strv_length(steps), <=, 4);

    g_autofree char *again = told(text, "again: scripts/crash-search BUILD ");
    g_autofree char *text_again = must_find(again);
    g_autofree char *ops_again = told(text_again, "operations: ");
    g_assert_cmpstr(ops_again, ==, ops);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    crash = argv[1];
    g_test_add_func("/crash/abort/an assertion that fails is reduced to operations that make it fail again", test_aborts);
    return g_test_run();
}
