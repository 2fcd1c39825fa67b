/* SPDX-License-Identifier: MIT */
/*
 * A history is the same each time: in one process, in another one with other addresses, from a file.
 * And what once failed is run again: each line of past.txt (in BDRV_HISTORY_DIR) has the arguments of
 * scripts/history and behind '#' what was found.
 *
 *     BDRV_HISTORY       the program behind scripts/history
 *     BDRV_HISTORY_DIR   where past.txt is
 */

#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/history/command.h"

static ConformanceResult play(const char *line)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Command) command = command_parse_line(line, &error);
    g_assert_no_error(error);
    const ConformanceStack *stack = conformance_find_stack(command->stack);
    g_assert_nonnull(stack);
    g_autoptr(History) history = command_history(command, stack, command->seed, NULL, &error);
    g_assert_no_error(error);

    return conformance_play(stack, history);
}

/* Small caches, delays, stalls; one context and several. */
static const char *const samples[] = {
    "--stack plain --contexts 1 --steps 12 --races --seed 11",
    "--stack plain --contexts 3 --steps 12 --races --seed 12",
    "--stack 'version 2' --contexts 2 --steps 12 --seed 13",
    "--stack 'backing file' --contexts 3 --steps 12 --races --seed 14",
    "--stack raw --contexts 2 --steps 12 --races --seed 15",
};

static void test_same_process(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(samples); i++) {
        g_autofree char *other_line = g_strdup_printf("%s0", samples[i]);
        ConformanceResult first = play(samples[i]);
        /* Other indices, other memory. */
        AioContext *ctx = aio_context_new(NULL);
        ConformanceResult other = play(other_line);
        ConformanceResult again = play(samples[i]);

        aio_context_unref(ctx);
        g_assert_cmpuint(first.requests, >, 50);
        g_assert_cmpuint(first.requests, ==, again.requests);
        g_assert_cmphex(first.trace, ==, again.trace);
        g_assert_cmphex(first.trace, !=, other.trace);
    }
}

/* What the program printed; its exit code must be 0. */
static char *run_program(const char *line)
{
    g_autofree char *text = g_strdup_printf("'%s' %s", g_getenv("BDRV_HISTORY"), line);
    g_autoptr(GError) error = NULL;
    char *out = NULL;
    int status;

    g_spawn_command_line_sync(text, &out, NULL, &status, &error);
    g_assert_no_error(error);
    g_spawn_check_wait_status(status, &error);
    g_assert_no_error(error);
    return out;
}

static void test_other_process(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(samples); i++) {
        g_autofree char *here = g_strdup_printf("trace %016" G_GINT64_MODIFIER "x\n", play(samples[i]).trace);
        g_autofree char *there = run_program(samples[i]);

        g_assert_nonnull(strstr(there, here));
    }
}

static void test_from_file(void)
{
    g_autofree char *path = NULL, *record = NULL, *replay = NULL, *drawn = NULL, *read = NULL;
    int fd = g_file_open_tmp("bdrv-history-XXXXXX", &path, NULL);

    g_assert_cmpint(fd, >=, 0);
    record = g_strdup_printf("%s --record '%s'", samples[1], path);
    replay = g_strdup_printf("--replay '%s'", path);
    drawn = run_program(record);
    read = run_program(replay);
    g_assert_cmpstr(drawn, ==, read);
    close(fd);
    g_assert_cmpint(g_remove(path), ==, 0);
}

static void test_bad_text(void)
{
    static const char *const texts[] = {
        "", "stack plain\n", "stack plain\ncontexts 9\nround\nflush\n", "round\nflash lane=0\n",
        "round\nwrite lane=x\n", "round\nwrite lane\n", "flush lane=0\n", "round\nread offset=-1\n",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(texts); i++) {
        g_autoptr(GError) error = NULL;

        g_assert_null(history_parse(texts[i], &error));
        g_assert_nonnull(error);
    }
}

/* ---- the reducer, with a failure made up: a write over sector 20 and a later discard of sector 30 ---- */

static bool touches(const HistoryOp *op, HistoryKind kind, int64_t sector)
{
    return op->kind == kind && op->offset <= sector * 512 && op->offset + op->bytes >= (sector + 1) * 512;
}

static bool made_up_failure(void *opaque, History *candidate)
{
    bool written = false;

    for (unsigned i = 0; i < candidate->rounds->len; i++) {
        const HistoryRound *round = candidate->rounds->pdata[i];

        for (unsigned k = 0; k < round->ops->len; k++) {
            const HistoryOp *op = &g_array_index(round->ops, HistoryOp, k);

            written |= touches(op, HISTORY_WRITE, 20);
            if (written && touches(op, HISTORY_DISCARD, 30)) {
                return true;
            }
        }
    }
    return false;
}

static void test_reduce(void)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Command) command = command_parse_line("--steps 30 --races --contexts 4", &error);
    const ConformanceStack *stack = conformance_find_stack("plain");
    g_autoptr(History) history = command_history(command, stack, 5, NULL, &error), smallest = NULL;
    const HistoryOp *op;

    g_assert_true(made_up_failure(NULL, history));
    smallest = history_reduce(history, stack, made_up_failure, NULL, NULL);
    g_assert_cmpuint(history_count_ops(smallest), ==, 2);
    g_assert_cmpuint(smallest->contexts, ==, 1);
    g_assert_cmpuint(smallest->yield, ==, 0);
    for (unsigned i = 0; i < smallest->rounds->len; i++) {
        const HistoryRound *round = smallest->rounds->pdata[i];

        op = &g_array_index(round->ops, HistoryOp, 0);
        g_assert_cmpint(op->bytes, ==, 512);
    }
}

static void play_past(const char *line, const char *dir)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Command) command = command_parse_line(line, &error);
    g_assert_no_error(error);
    const ConformanceStack *stack = command->replay ? NULL : conformance_find_stack(command->stack);
    g_autoptr(History) history = command_history(command, stack, command->seed, dir, &error);
    g_assert_no_error(error);

    stack = conformance_find_stack(history->stack);
    for (int i = 0; i < command->seeds; i++, history->schedule++) {
        conformance_play(stack, history);
    }
}

static void test_past(void)
{
    const char *dir = g_getenv("BDRV_HISTORY_DIR");
    g_autofree char *path = g_build_filename(dir, "past.txt", NULL), *text = NULL;
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) lines = NULL;

    g_file_get_contents(path, &text, NULL, &error);
    g_assert_no_error(error);
    lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        lines[i][strcspn(lines[i], "#")] = 0;
        if (*g_strstrip(lines[i])) {
            g_test_message("%s", lines[i]);
            play_past(lines[i], dir);
        }
    }
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/history/the same seed gives the same run in one process", test_same_process);
    g_test_add_func("/history/the same seed gives the same run in another process", test_other_process);
    g_test_add_func("/history/a history from a file gives the same run", test_from_file);
    g_test_add_func("/history/what is no history is refused", test_bad_text);
    g_test_add_func("/history/the reducer leaves what is needed", test_reduce);
    g_test_add_func("/history/what once failed works", test_past);
    return g_test_run();
}
