/* SPDX-License-Identifier: MIT */
/*
 * Histories must find what a planted bug breaks, within a bounded number of seeds, and play it again from a file;
 * the reducer must leave little of it. Arguments: the true program behind scripts/history, then one for each
 * planted bug, of which the first is one that takes little time to reduce.
 */

#include <glib/gstdio.h>
#include <string.h>
#include <sys/wait.h>

#include "tests/history/command.h"

#define SEEDS "40"
#define OPERATIONS_LEFT 20

static const char *sound;

/* Of @program with the options in @format. What it tells of the failure belongs in no log of a test that passes. */
static int G_GNUC_PRINTF(2, 3) exit_code(const char *program, const char *format, ...)
{
    g_autofree char *options = NULL, *line = NULL, *out = NULL, *err = NULL;
    g_autoptr(GError) error = NULL;
    va_list args;
    int status;

    va_start(args, format);
    options = g_strdup_vprintf(format, args);
    va_end(args);
    line = g_strdup_printf("'%s' %s", program, options);
    g_spawn_command_line_sync(line, &out, &err, &status, &error);
    g_assert_no_error(error);
    if (WEXITSTATUS(status) == 1) {
        g_test_message("%s", g_strstrip(strstr(out, "FAILED") ? strstr(out, "FAILED") : out));
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_found(gconstpointer planted)
{
    g_assert_cmpint(exit_code(planted, "--races --seed 1 --seeds " SEEDS), ==, 1);
    g_assert_cmpint(exit_code(sound, "--races --seed 1 --seeds 2"), ==, 0);
}

static void test_reduced(gconstpointer planted)
{
    g_autofree char *dir = g_dir_make_tmp("bdrv-plant-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "smallest.history", NULL);
    const ConformanceStack *stack;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(exit_code(planted, "--races --seed 1 --seeds " SEEDS " --reduce --output '%s'", file), ==, 1);
    g_autoptr(History) smallest = history_load(file, &stack, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(history_count_ops(smallest), <=, OPERATIONS_LEFT);
    g_assert_cmpint(exit_code(planted, "--replay '%s'", file), ==, 1);
    g_assert_cmpint(exit_code(sound, "--replay '%s'", file), ==, 0);
    g_assert_cmpint(g_remove(file), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    sound = argv[1];
    for (int i = 2; i < argc; i++) {
        g_autofree char *name = g_path_get_basename(argv[i]);
        g_autofree char *path = g_strdup_printf("/history/a planted bug is found: %s", name);

        g_test_add_data_func(path, argv[i], test_found);
    }
    g_test_add_data_func("/history/a failure is made small and played again", argv[2], test_reduced);
    return g_test_run();
}
