/* SPDX-License-Identifier: MIT */
/*
 * Making a failing history smaller, greedily: leave out operations, from halves of all down to single ones;
 * fewer contexts; no yields; requests of their own lanes; shorter ranges; no flags. Again until nothing helps.
 */

#include <string.h>

#include "tests/lib/conformance.h"
#include "tests/lib/history.h"

typedef struct Reduction {
    History *best;
    const ConformanceStack *stack;
    HistoryFails *fails;
    HistoryProgress *progress;
    void *opaque;
} Reduction;

/* Takes @candidate. */
static bool accept(Reduction *reduction, History *candidate)
{
    if (!candidate->rounds->len || !history_fits(candidate, reduction->stack) ||
        !reduction->fails(reduction->opaque, candidate)) {
        history_free(candidate);
        return false;
    }
    history_free(reduction->best);
    reduction->best = candidate;
    if (reduction->progress) {
        reduction->progress(reduction->opaque, candidate);
    }
    return true;
}

/* A copy without @count operations from the @first on; rounds that become empty go too. */
static History *without(const History *history, unsigned first, unsigned count)
{
    History *copy = history_copy(history);
    unsigned n = 0;

    for (unsigned i = 0; i < copy->rounds->len;) {
        GArray *ops = ((HistoryRound *)copy->rounds->pdata[i])->ops;

        for (unsigned k = 0; k < ops->len; n++) {
            if (n >= first && n < first + count) {
                g_array_remove_index(ops, k);
            } else {
                k++;
            }
        }
        if (ops->len) {
            i++;
        } else {
            g_ptr_array_remove_index(copy->rounds, i);
        }
    }
    return copy;
}

static bool drop_operations(Reduction *reduction)
{
    unsigned before = history_count_ops(reduction->best);

    for (unsigned chunk = MAX(before / 2, 1); chunk; chunk /= 2) {
        for (unsigned at = 0; at < history_count_ops(reduction->best);) {
            if (!accept(reduction, without(reduction->best, at, chunk))) {
                at += chunk;
            }
        }
    }
    return history_count_ops(reduction->best) < before;
}

static bool simplify_run(Reduction *reduction)
{
    bool any = false;

    while (reduction->best->contexts > 1) {
        History *candidate = history_copy(reduction->best);

        candidate->contexts--;
        if (!accept(reduction, candidate)) {
            break;
        }
        any = true;
    }
    if (reduction->best->yield) {
        History *candidate = history_copy(reduction->best);

        candidate->yield = 0;
        any |= accept(reduction, candidate);
    }
    return any;
}

/* The ways in which one operation can be simpler; false: it is already so. */
static bool halve(HistoryOp *op, int64_t unit)
{
    int64_t bytes = op->bytes / 2 - op->bytes / 2 % unit;

    if (!history_has_range(op->kind) || bytes < unit) {
        return false;
    }
    op->bytes = bytes;
    return true;
}

static bool drop_front(HistoryOp *op, int64_t unit)
{
    int64_t bytes = op->bytes;

    if (!halve(op, unit)) {
        return false;
    }
    op->offset += bytes - op->bytes;
    op->source += op->kind == HISTORY_COPY ? bytes - op->bytes : 0;
    return true;
}

static bool make_plain(HistoryOp *op, int64_t unit)
{
    bool was_plain = !op->flags && !op->cancel && !op->turns;

    op->flags = 0;
    op->cancel = false;
    op->turns = 0;
    return !was_plain;
}

static bool to_first_lane(HistoryOp *op, int64_t unit)
{
    bool was = op->lane == 0;

    op->lane = 0;
    return !was;
}

static HistoryOp *nth_op(History *history, unsigned n)
{
    for (unsigned i = 0; i < history->rounds->len; i++) {
        GArray *ops = ((HistoryRound *)history->rounds->pdata[i])->ops;

        if (n < ops->len) {
            return &g_array_index(ops, HistoryOp, n);
        }
        n -= ops->len;
    }
    return NULL;
}

static bool simplify_operations(Reduction *reduction)
{
    static bool (*const ways[])(HistoryOp *op, int64_t unit) = { halve, drop_front, make_plain, to_first_lane };
    int64_t unit = MAX(reduction->stack->unit, 1);
    bool any = false;

    for (unsigned n = 0; n < history_count_ops(reduction->best); n++) {
        for (unsigned way = 0; way < G_N_ELEMENTS(ways);) {
            History *candidate = history_copy(reduction->best);

            if (!ways[way](nth_op(candidate, n), unit)) {
                history_free(candidate);
                way++;
            } else if (accept(reduction, candidate)) {
                any = true;
            } else {
                way++;
            }
        }
    }
    return any;
}

History *history_reduce(const History *history, const ConformanceStack *stack, HistoryFails *fails,
                        HistoryProgress *progress, void *opaque)
{
    Reduction reduction = { history_copy(history), stack, fails, progress, opaque };
    bool any = true;

    while (any) {
        any = drop_operations(&reduction);
        any |= simplify_run(&reduction);
        any |= simplify_operations(&reduction);
    }
    return reduction.best;
}
