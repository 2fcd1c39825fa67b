/* SPDX-License-Identifier: MIT */
#include "tests/crash/reduce.h"

#include <string.h>

#include "tests/crash/attempt.h"

typedef struct Reducer {
    Search *search;
    CrashStep steps[CRASH_HISTORY_MAX];
    CrashHistory history; /* the smallest that is known, of @steps */
} Reducer;

static bool is_found(Search *search, const CrashHistory *history)
{
    int cut, state;
    search_forget(search);
    if (!search->options->aborted) {
        return !search_history(search, history, 0, NULL);
    }
    int number = attempt_dies(search, history, &cut, &state);
    if (number) {
        search_note_abort(search, history, number, cut, state);
    }
    return number != 0;
}

/* The call that fails has another number where there are fewer calls. */
static bool is_found_at_some_call(Search *search, CrashHistory *history)
{
    unsigned most = history->fail_nth;
    if (!history->fail) {
        return is_found(search, history);
    }
    for (history->fail_nth = most; history->fail_nth > 0; history->fail_nth--) {
        if (is_found(search, history)) {
            return true;
        }
    }
    return false;
}

static bool take_if_found(Reducer *reducer, const CrashStep *steps, CrashHistory candidate)
{
    candidate.steps = steps;
    if (candidate.count == 0 || !is_found_at_some_call(reducer->search, &candidate)) {
        return false;
    }
    memcpy(reducer->steps, steps, candidate.count * sizeof(*steps));
    candidate.steps = reducer->steps;
    reducer->history = candidate;
    return true;
}

static bool without_step(Reducer *reducer, unsigned step)
{
    CrashStep steps[CRASH_HISTORY_MAX];
    CrashHistory candidate = reducer->history;
    memcpy(steps, reducer->steps, sizeof(steps));
    memmove(&steps[step], &steps[step + 1], (candidate.count - step - 1) * sizeof(*steps));
    candidate.count--;
    if (candidate.count > 0) {
        steps[candidate.count - 1].with_next = false;
    }
    for (unsigned i = 0; i < candidate.count; i++) { /* as history_parse() numbers them */
        steps[i].fill = steps[i].fill ? history_fill(i) : 0;
    }
    return take_if_found(reducer, steps, candidate);
}

static bool one_after_the_other(Reducer *reducer, unsigned step)
{
    CrashStep steps[CRASH_HISTORY_MAX];
    memcpy(steps, reducer->steps, sizeof(steps));
    steps[step].with_next = false;
    return reducer->steps[step].with_next && take_if_found(reducer, steps, reducer->history);
}

static bool without_failure(Reducer *reducer)
{
    CrashHistory candidate = reducer->history;
    candidate.fail = FAIL_NONE;
    return reducer->history.fail && take_if_found(reducer, reducer->steps, candidate);
}

static bool without_delays(Reducer *reducer)
{
    CrashHistory candidate = reducer->history;
    candidate.delays = false;
    return reducer->history.delays && take_if_found(reducer, reducer->steps, candidate);
}

static bool reduce_once(Reducer *reducer)
{
    bool smaller = without_failure(reducer);
    smaller |= without_delays(reducer);
    for (unsigned i = reducer->history.count; i-- > 0;) {
        smaller |= without_step(reducer, i);
    }
    for (unsigned i = 0; i < reducer->history.count; i++) {
        smaller |= one_after_the_other(reducer, i);
    }
    return smaller;
}

void crash_reduce(Search *search, const CrashHistory *history)
{
    const SearchOptions *given = search->options;
    SearchOptions options = *given;
    Reducer reducer = { .search = search, .history = *history };
    uint64_t histories = search->histories, cuts = search->cuts;
    JudgeCounts counts = search->judge.counts;

    g_autofree char *first = g_strdup(search->finding);
    SearchOptions replay = search->replay;
    g_autofree char *ops = g_strdup(replay.ops);
    memcpy(reducer.steps, history->steps, history->count * sizeof(*history->steps));
    reducer.history.steps = reducer.steps;
    options.only_cut = options.only_state = -1;
    options.all_up_to = ALL_SUBSETS_UP_TO; /* as in a replay, so that states have the same numbers there */
    options.quiet = true;
    search->options = &options;
    while (reduce_once(&reducer)) {
    }
    options.quiet = given->quiet;
    if (!is_found(search, &reducer.history)) { /* once more, to tell of it */
        search->finding = g_strdup_printf("%s\n  (and not found when tried again)", first);
        search->replay = replay;
        search->replay.ops = g_steal_pointer(&ops);
    }
    search->options = given;
    search->histories = histories;
    search->cuts = cuts;
    search->judge.counts = counts;
}
