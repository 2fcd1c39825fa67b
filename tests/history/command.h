/* SPDX-License-Identifier: MIT */
#ifndef BDRV_TEST_HISTORY_COMMAND_H
#define BDRV_TEST_HISTORY_COMMAND_H

/* The arguments of scripts/history, which also name the histories in past.txt. */

#include "tests/conformance/stacks.h"
#include "tests/lib/history.h"

typedef struct Command {
    char *stack; /* name; "races": each of race_stacks[] */
    char *replay, *record, *output;
    int contexts, requests, steps, lanes, reopen_every, yield, seeds, tries, minutes;
    uint64_t seed;
    gboolean seeded; /* else @seed is to be drawn */
    gboolean threads, idle, apart, races, reduce, trace, list, here;
} Command;

Command *command_parse(int argc, char **argv, GError **errp);
/** command_parse_line() - a line as a shell would split it */
Command *command_parse_line(const char *line, GError **errp);
void command_free(Command *command);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Command, command_free)

/**
 * command_history() - what the command asks for: from its file, or drawn from @seed for @stack
 * @dir: where a relative --replay is looked for; NULL: the current directory
 */
History *command_history(const Command *command, const ConformanceStack *stack, uint64_t seed, const char *dir,
                         GError **errp);

/** history_load() - from a file, and its stack in *@stack; checked to fit it */
History *history_load(const char *path, const ConformanceStack **stack, GError **errp);

#endif
