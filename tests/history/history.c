/* SPDX-License-Identifier: MIT */
/*
 * scripts/history: histories of requests on virtual time, from a seed or a file; the reducer.
 *
 * Each batch runs in a child process, since a failure is an abort. It reports the seed it is at through
 * a pipe, so that the parent knows what failed. The parent never uses the library itself.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/history/command.h"

/* A child that takes longer for one run hangs. */
#define RUN_SECONDS 600

typedef struct Batch {
    const History *history; /* whose schedule is @seed in each run */
    const ConformanceStack *stack;
    const Command *command;
    uint64_t first, count;
    bool draw; /* a new history for each seed */
    bool quiet;
} Batch;

static void report(const Command *c, const History *history, uint64_t seed, ConformanceResult result)
{
    if (c->trace || c->seeds == 1) {
        printf("%s, seed %" PRIu64 ": %" PRIu64 " requests, trace %016" PRIx64 "\n", history->stack, seed,
               result.requests, result.trace);
        fflush(stdout);
    }
}

static History *history_of(const Batch *batch, uint64_t seed)
{
    History *history;

    if (batch->draw) {
        return command_history(batch->command, batch->stack, seed, NULL, NULL);
    }
    history = history_copy(batch->history);
    history->schedule = seed;
    return history;
}

/* In the child, or here. */
static void run_batch(const Batch *batch, int pipe_fd)
{
    for (uint64_t i = 0; i < batch->count; i++) {
        uint64_t seed = batch->first + i;
        g_autoptr(History) history = history_of(batch, seed);

        if (pipe_fd >= 0 && write(pipe_fd, &seed, sizeof(seed)) != sizeof(seed)) {
            exit(2);
        }
        alarm(RUN_SECONDS);
        ConformanceResult result = conformance_play(batch->stack, history);
        if (!batch->quiet) {
            report(batch->command, history, seed, result);
        }
    }
}

static void G_GNUC_NORETURN child_main(const Batch *batch, int pipe_fd)
{
    static const struct rlimit no_core = { 0, 0 };

    setrlimit(RLIMIT_CORE, &no_core);
    if (batch->quiet) {
        int null = open("/dev/null", O_WRONLY);

        dup2(null, STDERR_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    run_batch(batch, pipe_fd);
    exit(0);
}

/* Whether a run failed, and *@seed at which. */
static bool batch_fails(const Batch *batch, uint64_t *seed)
{
    int fds[2], status;
    uint64_t at;
    pid_t pid;

    fflush(NULL);
    if (pipe(fds) < 0 || (pid = fork()) < 0) {
        fprintf(stderr, "history: %s\n", g_strerror(errno));
        exit(2);
    }
    if (pid == 0) {
        close(fds[0]);
        child_main(batch, fds[1]);
    }
    close(fds[1]);
    *seed = batch->first;
    while (read(fds[0], &at, sizeof(at)) == sizeof(at)) {
        *seed = at;
    }
    close(fds[0]);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status != 0;
}

/* ---- reducing ---- */

typedef struct Reducer {
    const ConformanceStack *stack;
    const Command *command;
    int64_t deadline; /* of the monotonic clock, µs */
} Reducer;

static bool candidate_fails(void *opaque, History *candidate)
{
    const Reducer *reducer = opaque;
    Batch batch = {
        .history = candidate, .stack = reducer->stack, .command = reducer->command, .first = candidate->schedule,
        .count = (uint64_t)reducer->command->tries, .quiet = true,
    };

    return g_get_monotonic_time() < reducer->deadline && batch_fails(&batch, &candidate->schedule);
}

static void tell_progress(void *opaque, const History *smaller)
{
    fprintf(stderr, "\r%u operations in %u rounds, %u contexts  ", history_count_ops(smaller), smaller->rounds->len,
            smaller->contexts);
}

static void reduce(const Command *c, const History *failing, const ConformanceStack *stack)
{
    Reducer reducer = { stack, c, g_get_monotonic_time() + c->minutes * 60 * G_USEC_PER_SEC };
    g_autoptr(History) smallest = history_reduce(failing, stack, candidate_fails, tell_progress, &reducer);
    g_autofree char *text = history_print(smallest);
    g_autoptr(GError) error = NULL;

    fprintf(stderr, "\n");
    printf("%s", text);
    if (c->output && !g_file_set_contents(c->output, text, -1, &error)) {
        fprintf(stderr, "history: %s\n", error->message);
    }
    if (c->output) {
        printf("Again: scripts/history BUILD --replay '%s'\n", c->output);
    }
}

/* ---- one command ---- */

static bool record(const Command *c, const History *history)
{
    g_autofree char *text = history_print(history);
    g_autoptr(GError) error = NULL;

    if (c->record && !g_file_set_contents(c->record, text, -1, &error)) {
        fprintf(stderr, "history: %s\n", error->message);
        return false;
    }
    return true;
}

/* Returns the exit code: 1 if a run failed. */
static int run_stack(const Command *c, const ConformanceStack *stack, uint64_t seed)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(History) history =
        c->replay ? history_load(c->replay, &stack, &error) : command_history(c, stack, seed, NULL, &error);
    Batch batch = { .history = history, .stack = stack, .command = c, .draw = !c->replay, .count = (uint64_t)c->seeds };
    uint64_t failed;

    if (!history) {
        fprintf(stderr, "history: %s\n", error->message);
        return 2;
    }
    if (!record(c, history)) {
        return 2;
    }
    batch.first = c->replay && !c->seeded ? history->schedule : seed;
    if (c->here) {
        run_batch(&batch, -1);
        return 0;
    }
    if (!batch_fails(&batch, &failed)) {
        return 0;
    }
    g_autoptr(History) failing = history_of(&batch, failed);
    printf("FAILED: %s, seed %" PRIu64 "; again: scripts/history BUILD %s", stack->name, failed, failing->origin);
    if (c->replay) {
        printf(" --seed %" PRIu64, failed);
    }
    printf("\n");
    if (c->reduce) {
        reduce(c, failing, stack);
    }
    return 1;
}

static void list(void)
{
    const ConformanceStack *const tables[] = { race_stacks, conformance_stacks };

    for (unsigned i = 0; i < G_N_ELEMENTS(tables); i++) {
        for (const ConformanceStack *stack = tables[i]; stack->name; stack++) {
            printf("%s\n", stack->name);
        }
    }
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(Command) c = command_parse(argc, argv, &error);
    const ConformanceStack *stack;
    int result = 0;

    if (!c) {
        fprintf(stderr, "history: %s\n", error->message);
        return 2;
    }
    if (c->list) {
        list();
        return 0;
    }
    uint64_t seed = c->seeded ? c->seed : g_random_int();
    if (c->replay) {
        return run_stack(c, NULL, seed);
    }
    if (c->stack && !g_str_equal(c->stack, "races")) {
        stack = conformance_find_stack(c->stack);
        if (!stack) {
            fprintf(stderr, "history: there is no stack '%s'; --list tells which there are\n", c->stack);
            return 2;
        }
        return run_stack(c, stack, seed);
    }
    for (stack = race_stacks; stack->name && !result; stack++) {
        result = run_stack(c, stack, seed);
    }
    return result;
}
