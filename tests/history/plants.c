/* SPDX-License-Identifier: MIT */
/*
 * Histories must find what a planted bug breaks, within a bounded number of seeds, and the reducer must leave
 * little of it. Arguments: the true program behind scripts/history, then one for each planted bug.
 */

#include <glib/gstdio.h>

#include "tests/history/command.h"

#define SEEDS "40"
#define OPERATIONS_LEFT 40

static const char *sound;

static int exit_code(const char *const *argv)
{
    g_autoptr(GError) error = NULL;
    int status;

    /* What it tells of the failure belongs in no log of a test that passes. */
    g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_STDOUT_TO_DEV_NULL | G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, NULL,
                 NULL, &status, &error);
    g_assert_no_error(error);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_plant(gconstpointer data)
{
    const char *planted = data;
    g_autofree char *dir = g_dir_make_tmp("bdrv-plant-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(dir, "smallest.history", NULL);
    const char *search[] = { planted, "--seed", "1",   "--seeds", SEEDS, "--reduce", "--minutes",
                             "1",     "--output", file, NULL };
    const char *replay[] = { planted, "--replay", file, NULL };
    const char *replay_sound[] = { sound, "--replay", file, NULL };
    const ConformanceStack *stack;
    g_autoptr(GError) error = NULL;

    g_assert_cmpint(exit_code(search), ==, 1);
    g_autoptr(History) smallest = history_load(file, &stack, &error);
    g_assert_no_error(error);
    g_test_message("%u operations in %u contexts on '%s'", history_count_ops(smallest), smallest->contexts,
                   smallest->stack);
    g_assert_cmpuint(history_count_ops(smallest), <=, OPERATIONS_LEFT);
    g_assert_cmpint(exit_code(replay), ==, 1);
    g_assert_cmpint(exit_code(replay_sound), ==, 0);
    g_assert_cmpint(g_remove(file), ==, 0);
    g_assert_cmpint(g_rmdir(dir), ==, 0);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    sound = argv[1];
    for (int i = 2; i < argc; i++) {
        g_autofree char *name = g_path_get_basename(argv[i]);
        g_autofree char *path = g_strdup_printf("/history/a planted bug is found and made small: %s", name);

        g_test_add_data_func(path, argv[i], test_plant);
    }
    return g_test_run();
}
