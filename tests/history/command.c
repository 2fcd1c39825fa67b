/* SPDX-License-Identifier: MIT */
#include "tests/history/command.h"

#include <errno.h>

static Command *command_new(void)
{
    Command *command = g_new0(Command, 1);

    command->contexts = 2;
    command->requests = 48;
    command->steps = 40;
    command->lanes = 24;
    command->reopen_every = 20;
    command->yield = 20;
    command->seeds = 1;
    command->tries = 30;
    command->minutes = 5;
    return command;
}

void command_free(Command *command)
{
    if (command) {
        g_free(command->stack);
        g_free(command->replay);
        g_free(command->record);
        g_free(command->output);
        g_free(command);
    }
}

static bool check_number(const char *name, int value, int min, int max, GError **errp)
{
    if (value < min || value > max) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "--%s is %d; it can be %d to %d", name, value, min, max);
        return false;
    }
    return true;
}

static bool check(const Command *c, int argc, char **argv, GError **errp)
{
    if (argc > 1) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "unknown argument '%s'", argv[1]);
        return false;
    }
    return check_number("contexts", c->contexts, 1, CONFORMANCE_MAX_CONTEXTS, errp) &&
           check_number("requests", c->requests, 1, CONFORMANCE_MAX_REQUESTS - 1, errp) &&
           check_number("lanes", c->lanes, 0, CONFORMANCE_MAX_REQUESTS, errp) &&
           check_number("steps", c->steps, 1, 1000000, errp) && check_number("yield", c->yield, 0, 100, errp) &&
           check_number("reopen-every", c->reopen_every, 0, 1000000, errp) &&
           check_number("seeds", c->seeds, 1, G_MAXINT, errp) && check_number("tries", c->tries, 1, G_MAXINT, errp) &&
           check_number("minutes", c->minutes, 1, 100000, errp);
}

static gboolean parse_seed(const char *option, const char *value, void *opaque, GError **errp)
{
    Command *c = opaque;

    c->seeded = true;
    return g_ascii_string_to_unsigned(value, 10, 0, UINT64_MAX, &c->seed, errp);
}

Command *command_parse(int argc, char **argv, GError **errp)
{
    g_autoptr(Command) c = command_new();
    const GOptionEntry entries[] = {
        { "list", 0, 0, G_OPTION_ARG_NONE, &c->list, "Names of the stacks", NULL },
        { "stack", 0, 0, G_OPTION_ARG_STRING, &c->stack, "What to run on (races: all made for that)", "NAME" },
        { "contexts", 0, 0, G_OPTION_ARG_INT, &c->contexts, "Event loops, interleaved on one OS thread (2)", "N" },
        { "threads", 0, 0, G_OPTION_ARG_NONE, &c->threads, "A real thread for each context; no seed determines those",
          NULL },
        { "idle", 0, 0, G_OPTION_ARG_NONE, &c->idle, "With --threads: run a context only while it has requests", NULL },
        { "steps", 0, 0, G_OPTION_ARG_INT, &c->steps, "Rounds (40)", "N" },
        { "requests", 0, 0, G_OPTION_ARG_INT, &c->requests, "Of a round, at most (48)", "N" },
        { "lanes", 0, 0, G_OPTION_ARG_INT, &c->lanes, "So many of them at a time; 0: all (24)", "N" },
        { "apart", 0, 0, G_OPTION_ARG_NONE, &c->apart, "Requests of a round do not overlap", NULL },
        { "races", 0, 0, G_OPTION_ARG_NONE, &c->races,
          "Among them drains, reopens, other handles, growth, shrinking, checks, cancelled requests", NULL },
        { "reopen-every", 0, 0, G_OPTION_ARG_INT, &c->reopen_every, "Rounds between closes, about; 0: none (20)", "N" },
        { "yield", 0, 0, G_OPTION_ARG_INT, &c->yield, "Percent of locks and the like that yield (20)", "P" },
        { "seed", 0, 0, G_OPTION_ARG_CALLBACK, parse_seed, "Of the history and the scheduler; else drawn, and printed",
          "S" },
        { "seeds", 0, 0, G_OPTION_ARG_INT, &c->seeds, "Try so many seeds from --seed on (1)", "N" },
        { "replay", 0, 0, G_OPTION_ARG_FILENAME, &c->replay, "Run the history in FILE instead of drawing one", "FILE" },
        { "record", 0, 0, G_OPTION_ARG_FILENAME, &c->record, "Write the history to FILE before it is run", "FILE" },
        { "reduce", 0, 0, G_OPTION_ARG_NONE, &c->reduce, "Make a failing history as small as it can be and print it",
          NULL },
        { "output", 0, 0, G_OPTION_ARG_FILENAME, &c->output, "With --reduce: write it to FILE", "FILE" },
        { "tries", 0, 0, G_OPTION_ARG_INT, &c->tries, "With --reduce: scheduler seeds for each candidate (30)", "N" },
        { "minutes", 0, 0, G_OPTION_ARG_INT, &c->minutes, "With --reduce: at most so long (5)", "M" },
        { "trace", 0, 0, G_OPTION_ARG_NONE, &c->trace, "Print a hash of all decisions and results of each run", NULL },
        { "here", 0, 0, G_OPTION_ARG_NONE, &c->here, "Run in this process: for a debugger", NULL },
        { NULL },
    };
    g_autoptr(GOptionContext) context = g_option_context_new("- the library on virtual time, chosen by a seed");

    GOptionGroup *group = g_option_group_new("history", "", "", c, NULL);

    g_option_group_add_entries(group, entries);
    g_option_context_set_main_group(context, group);
    if (!g_option_context_parse(context, &argc, &argv, errp) || !check(c, argc, argv, errp)) {
        return NULL;
    }
    return g_steal_pointer(&c);
}

Command *command_parse_line(const char *line, GError **errp)
{
    g_autofree char *text = g_strdup_printf("history %s", line);
    g_auto(GStrv) words = NULL;
    g_autofree char **argv = NULL; /* the parser takes words out of it */
    int argc;

    if (!g_shell_parse_argv(text, &argc, &words, errp)) {
        return NULL;
    }
    argv = g_memdup2(words, (argc + 1) * sizeof(*words));
    return command_parse(argc, argv, errp);
}

History *history_load(const char *path, const ConformanceStack **stack, GError **errp)
{
    g_autoptr(History) history = NULL;
    g_autofree char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, errp)) {
        return NULL;
    }
    history = history_parse(text, errp);
    if (!history) {
        g_prefix_error(errp, "%s: ", path);
        return NULL;
    }
    *stack = conformance_find_stack(history->stack);
    if (!*stack || !history_fits(history, *stack)) {
        g_set_error(errp, BDRV_ERROR, EINVAL, *stack ? "%s: a request is not on the disk of the stack '%s'"
                                                     : "%s: there is no stack '%s'; --list tells which there are",
                    path, history->stack);
        return NULL;
    }
    history->origin = g_strdup_printf("--replay '%s'", path);
    return g_steal_pointer(&history);
}

History *command_history(const Command *c, const ConformanceStack *stack, uint64_t seed, const char *dir,
                         GError **errp)
{
    ConformanceRun run = {
        .mode = c->threads ? CONFORMANCE_THREADS : CONFORMANCE_SIM,
        .contexts = (unsigned)c->contexts,
        .concurrency = (unsigned)c->requests,
        .lanes = (unsigned)c->lanes,
        .idle = c->idle,
        .overlap = !c->apart,
        .races = c->races,
        .rounds = (unsigned)c->steps,
        .reopen_every = (unsigned)c->reopen_every,
        .yield = c->yield ? c->yield : -1,
        .seed = seed,
    };

    if (c->replay) {
        g_autofree char *path = dir && !g_path_is_absolute(c->replay) ? g_build_filename(dir, c->replay, NULL)
                                                                      : g_strdup(c->replay);
        return history_load(path, &stack, errp);
    }
    return history_draw(stack, &run);
}
