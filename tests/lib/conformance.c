/* SPDX-License-Identifier: MIT */
/* The conformance runner: contexts, rounds, and what comes between them. */
#include "tests/lib/conformance.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/conformance_int.h"
#include "tests/lib/verify.h"

/* A round of a deterministic run that takes more steps than this goes round in circles. */
#define STEPS_MAX 20000000

static void tell_round(const Runner *r)
{
    for (unsigned i = 0; i < r->count; i++) {
        const Op *op = &r->ops[i];

        g_printerr("  %-7s %8" PRId64 " +%-7" PRId64 " from %" PRId64 " flags %x lane %u: %s %d "
                   "(%" PRIu64 " .. %" PRIu64 ")\n",
                   history_kind_name(op->what.kind), op->what.offset, op->what.bytes, op->what.source, op->what.flags,
                   op->what.lane, op->done ? "returned" : "not done", op->ret, op->began, op->ended);
    }
}

void conformance_fail(Runner *r, const char *format, ...)
{
    g_autofree char *what = NULL;
    va_list args;

    va_start(args, format);
    what = g_strdup_vprintf(format, args);
    va_end(args);
    tell_round(r);
    if (r->history->origin) {
        g_printerr("Again: scripts/history BUILD %s\n", r->history->origin);
    }
    g_error("%s: BDRV_TEST_SEED=%" PRIu64 " round %u: %s", r->stack->name, r->history->schedule, r->round, what);
}

static void G_GNUC_NORETURN fail_hanging(Runner *r, const char *what)
{
    g_autofree char *coroutines = co_dump();

    g_printerr("Coroutines:\n%s", coroutines);
    conformance_fail(r, "%s", what);
}

char *conformance_expand(const char *text, const char *id, const char *dir)
{
    GString *out = g_string_new(text);

    g_string_replace(out, "%ID%", id, 0);
    g_string_replace(out, "%DIR%", dir, 0);
    return g_string_free(out, FALSE);
}

BdrvOpenFlags conformance_flags(const ConformanceStack *stack)
{
    return BDRV_O_RDWR | BDRV_O_UNMAP | stack->flags | (conformance_can_resize(stack) ? BDRV_O_RESIZE : 0);
}

/* ---- carrying a round out ---- */

/* In the worker's thread. */
static void lane_done(Worker *worker)
{
    Runner *r = worker->runner;

    if (--worker->left == 0 && !r->sim) {
        pthread_mutex_lock(&r->lock);
        r->busy--;
        pthread_cond_signal(&r->all_done);
        pthread_mutex_unlock(&r->lock);
    }
}

typedef struct Lane {
    Worker *worker;
    unsigned number;
} Lane;

static void coroutine_fn lane_entry(void *opaque)
{
    Lane *lane = opaque;
    Runner *r = lane->worker->runner;

    for (unsigned i = 0; i < r->count; i++) {
        if (r->ops[i].what.lane == lane->number) {
            conformance_carry_out(&r->ops[i]);
        }
    }
    lane_done(lane->worker);
    g_free(lane);
}

static unsigned lanes_of(const Worker *worker)
{
    const Runner *r = worker->runner;
    unsigned contexts = r->history->contexts;

    return (r->lanes + contexts - 1 - worker->index) / contexts;
}

static void start_lanes(Worker *worker)
{
    worker->left = lanes_of(worker);
    for (unsigned i = 0, n = worker->left; i < n; i++) {
        Lane *lane = g_new(Lane, 1);

        *lane = (Lane){ .worker = worker, .number = worker->index + i * worker->runner->history->contexts };
        co_start(worker->ctx, co_new(lane_entry, lane));
    }
}

static void start_round(void *opaque)
{
    start_lanes(opaque);
}

static void quit_thread(void *opaque)
{
    ((Worker *)opaque)->quit = true;
}

/* The context is run only while requests of its own are under way: others must not need it in between. */
static void run_when_wanted(Worker *worker)
{
    Runner *r = worker->runner;

    for (;;) {
        pthread_mutex_lock(&r->lock);
        while (!worker->wanted) {
            pthread_cond_wait(&r->start, &r->lock);
        }
        worker->wanted = false;
        pthread_mutex_unlock(&r->lock);
        if (worker->quit) {
            return;
        }
        start_lanes(worker);
        while (worker->left > 0) {
            aio_context_run(worker->ctx, true);
        }
    }
}

static void *worker_thread(void *opaque)
{
    Worker *worker = opaque;

    aio_context_enter(worker->ctx);
    if (worker->runner->history->idle) {
        run_when_wanted(worker);
    }
    while (!worker->quit) {
        aio_context_run(worker->ctx, true);
    }
    aio_context_leave(worker->ctx);
    return NULL;
}

static void call_worker(Worker *worker, void (*func)(void *opaque))
{
    Runner *r = worker->runner;

    if (r->history->idle) {
        pthread_mutex_lock(&r->lock);
        worker->quit = func == quit_thread;
        worker->wanted = true;
        pthread_cond_broadcast(&r->start);
        pthread_mutex_unlock(&r->lock);
        return;
    }
    worker->call = (AioCall){ .func = func, .opaque = worker };
    aio_call(worker->ctx, &worker->call);
}

static void start_in_threads(Runner *r)
{
    for (unsigned i = 0; i < r->history->contexts; i++) {
        r->busy += lanes_of(&r->workers[i]) > 0;
    }
    for (unsigned i = 0; i < r->history->contexts; i++) {
        if (lanes_of(&r->workers[i])) {
            call_worker(&r->workers[i], start_round);
        }
    }
}

static void wait_for_threads(Runner *r)
{
    pthread_mutex_lock(&r->lock);
    while (r->busy) {
        pthread_cond_wait(&r->all_done, &r->lock);
    }
    pthread_mutex_unlock(&r->lock);
}

static bool sim_is_busy(const Runner *r)
{
    for (unsigned i = 0; i < r->history->contexts; i++) {
        if (r->workers[i].left > 0) {
            return true;
        }
    }
    return false;
}

static void step_until_done(Runner *r)
{
    for (unsigned steps = 0; sim_is_busy(r); steps++) {
        if (!aio_sim_step(r->sim)) {
            fail_hanging(r, "requests hang: nothing is left to do");
        }
        if (steps > STEPS_MAX) {
            fail_hanging(r, "requests go round in circles");
        }
    }
}

static bool amend_size(BlockBackend *blk, int64_t length, GError **errp)
{
    BdrvOptions *options = bdrv_options_new();

    bdrv_options_set_int(options, "size", length);
    bool ok = blk_amend(blk, options, false, NULL, NULL, errp);
    bdrv_options_free(options);
    return ok;
}

void conformance_resize(Runner *r, int64_t length, bool by_amend)
{
    g_autoptr(GError) error = NULL;

    if (!(by_amend ? amend_size(r->blk, length, &error)
                   : blk_truncate(r->blk, length, true, BDRV_PREALLOC_OFF, 0, &error))) {
        conformance_fail(r, "resizing to %" PRId64 ": %s", length, error->message);
    }
    if (length < r->length) {
        memset(r->model + length, 0, r->length - length);
    }
    conformance_bitmaps_resize(r, length);
    r->length = length;
    if (blk_length(r->blk) != length) {
        conformance_fail(r, "resized to %" PRId64 ", but the image is %" PRId64 " bytes long", length,
                         blk_length(r->blk));
    }
}

static void check(Runner *r)
{
    BdrvCheckResult result = { 0 };
    g_autoptr(GError) error = NULL;

    if (!blk_check(r->blk, &result, BDRV_FIX_NONE, &error) && !g_error_matches(error, BDRV_ERROR, ENOTSUP)) {
        conformance_fail(r, "checking: %s", error->message);
    }
    if (result.corruptions || result.check_errors) {
        conformance_fail(r, "a check finds %" PRId64 " corruptions, %" PRId64 " errors", result.corruptions,
                         result.check_errors);
    }
}

/* Formats without, read-only for the moment, or counts of one bit: not here. */
static bool is_no_snapshot(const GError *error)
{
    return g_error_matches(error, BDRV_ERROR, ENOTSUP) || g_error_matches(error, BDRV_ERROR, EACCES) ||
           (g_error_matches(error, BDRV_ERROR, EINVAL) && strstr(error->message, "refcount_bits="));
}

void conformance_let_others_on(Runner *r)
{
    blk_drain_begin(r->blk);
    blk_drain_end(r->blk);
}

static void snapshot(Runner *r)
{
    BdrvSnapshotInfo info = { .name = (char *)"beside" };
    g_autoptr(GError) error = NULL;

    if (!blk_snapshot_create(r->blk, &info, &error)) {
        if (!is_no_snapshot(error)) {
            conformance_fail(r, "making a snapshot: %s", error->message);
        }
        return;
    }
    /* It must not stay: a reopening may have made the image read-only meanwhile. */
    while (!blk_snapshot_delete(r->blk, info.id, NULL, &error)) {
        if (!g_error_matches(error, BDRV_ERROR, EACCES)) {
            conformance_fail(r, "deleting a snapshot: %s", error->message);
        }
        g_clear_error(&error);
        conformance_let_others_on(r);
    }
    g_free(info.id);
}

/* By the thread of the run, beside the requests. Returns whether it was done: the image may be read-only just now. */
static bool resize_beside(Runner *r, int64_t length)
{
    g_autoptr(GError) error = NULL;

    if (blk_truncate(r->blk, length, true, BDRV_PREALLOC_OFF, 0, &error)) {
        r->shrunk = length < r->length;
        r->length = length;
        return true;
    }
    if (!g_error_matches(error, BDRV_ERROR, EACCES)) {
        conformance_fail(r, "resizing to %" PRId64 " beside requests: %s", length, error->message);
    }
    return false;
}

/* By the thread of the run. Returns whether it is still to be done. */
static bool run_beside(Runner *r, const HistoryOp *beside)
{
    switch (beside->kind) {
    case HISTORY_GROW:
    case HISTORY_SHRINK:
        return !resize_beside(r, beside->offset);
    case HISTORY_CHECK:
        check(r);
        break;
    case HISTORY_SNAPSHOT:
        snapshot(r);
        break;
    default:
        conformance_change_beside(r, beside);
    }
    return false;
}

/* Nothing ran beside it: what it left alone can be looked at as a whole. */
static void look_after(Runner *r, HistoryKind kind)
{
    if (kind == HISTORY_AMEND || kind == HISTORY_INVALIDATE) {
        conformance_compare_all(r);
    } else if (kind == HISTORY_BITMAP_READ) {
        conformance_check_bitmaps(r, r->blk);
    }
}

static void begin_round(Runner *r)
{
    r->count = r->lanes = 0;
    r->shrunk = false;
    bdrv_dirty_bits_free(r->beside.bits);
    r->beside = (ConformanceBeside){ 0 };
}

static void run_requests(Runner *r, const HistoryRound *round)
{
    const HistoryOp *beside = NULL;
    int64_t before = r->length;

    begin_round(r);
    for (unsigned i = 0; i < round->ops->len; i++) {
        const HistoryOp *what = &g_array_index(round->ops, HistoryOp, i);

        if (history_is_beside(what->kind)) {
            beside = what;
            continue;
        }
        conformance_prepare_op(r, &r->ops[r->count++], what);
        r->lanes = MAX(r->lanes, what->lane + 1);
    }
    r->resizing = beside && history_resizes(beside->kind);
    for (unsigned i = 0; r->sim && i < r->history->contexts; i++) {
        start_lanes(&r->workers[i]);
    }
    if (!r->sim) {
        start_in_threads(r);
    }
    bool late = beside && run_beside(r, beside);
    if (r->sim) {
        step_until_done(r);
    } else {
        wait_for_threads(r);
    }
    conformance_learn(r);
    test_verify(r->blk, true);
    r->resizing = false;
    if (late) {
        conformance_resize(r, beside->offset, false); /* later rounds count on it */
    } else if (r->shrunk) {
        memset(r->model + r->length, 0, before - r->length);
    }
    conformance_bitmaps_resize(r, r->length);
    if (beside && round->ops->len == 1) {
        look_after(r, beside->kind);
    }
}

/* ---- between rounds ---- */

BdrvOptions *conformance_options(const Runner *r)
{
    GError *error = NULL;
    BdrvOptions *options = bdrv_options_parse(r->options, NULL, &error);
    const char *key = conformance_key_name(r, r->key);

    g_assert_no_error(error);
    if (key) {
        bdrv_options_set_string(options, "encrypt.key-secret", key);
    }
    return options;
}

void conformance_open(Runner *r)
{
    BdrvOptions *options = conformance_options(r);
    GError *error = NULL;

    bdrv_options_set_string(options, "node-name", CONFORMANCE_NODE);
    r->blk = blk_open(r->graph, NULL, options, conformance_flags(r->stack), &error);
    if (!r->blk) {
        conformance_fail(r, "opening: %s", error->message);
    }
    if (blk_length(r->blk) != r->length) {
        conformance_fail(r, "the image is %" PRId64 " bytes long, not %" PRId64, blk_length(r->blk), r->length);
    }
}

/* Nothing but reading: what was stored. */
static void check_stored_bitmaps(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (r->stack->bitmaps) {
        BlockBackend *blk = blk_open(r->graph, NULL, conformance_options(r), r->stack->flags, &error);

        if (!blk) {
            conformance_fail(r, "opening to read bitmaps: %s", error->message);
        }
        conformance_check_bitmaps(r, blk);
        blk_close(blk, &error);
        g_assert_no_error(error);
    }
}

void conformance_close(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (!blk_close(r->blk, &error)) {
        conformance_fail(r, "closing: %s", error->message);
    }
    r->blk = NULL;
    if (r->stack->inspect) {
        r->stack->inspect(r->stack, r->graph, r->id, r->dir);
    }
    conformance_pick_key(r);
    conformance_check_saved(r);
    check_stored_bitmaps(r);
}

static void reopen_in_place(Runner *r)
{
    g_autoptr(GError) error = NULL;

    if (!blk_reopen(r->blk, NULL, conformance_flags(r->stack), &error)) {
        conformance_fail(r, "reopening: %s", error->message);
    }
}

static void run_round(Runner *r, const HistoryRound *round)
{
    const HistoryOp *first = &g_array_index(round->ops, HistoryOp, 0);

    switch (round->ops->len ? first->kind : HISTORY_FLUSH) {
    case HISTORY_CLOSE:
        conformance_close(r);
        conformance_open(r);
        break;
    case HISTORY_REOPEN_ALONE:
        reopen_in_place(r);
        break;
    case HISTORY_RESIZE:
    case HISTORY_AMEND_SIZE:
        conformance_resize(r, first->offset, first->kind == HISTORY_AMEND_SIZE);
        test_verify(r->blk, true);
        break;
    case HISTORY_COMPARE:
        conformance_compare_all(r);
        break;
    case HISTORY_SAVE:
    case HISTORY_GOTO:
    case HISTORY_EMPTY:
        conformance_change_state(r, first->kind);
        test_verify(r->blk, true);
        break;
    case HISTORY_COMMIT:
    case HISTORY_REBASE:
    case HISTORY_BACKING:
        conformance_change_chain(r, first);
        test_verify(r->blk, true);
        break;
    default:
        run_requests(r, round);
    }
}

/* ---- a run ---- */

static void make_contexts(Runner *r)
{
    GError *error = NULL;

    if (!r->history->threads) {
        r->sim = aio_sim_new(r->history->schedule);
        aio_sim_set_yield_chance(r->sim, r->history->yield);
    } else {
        pthread_mutex_init(&r->lock, NULL);
        pthread_cond_init(&r->all_done, NULL);
        pthread_cond_init(&r->start, NULL);
    }
    for (unsigned i = 0; i < r->history->contexts; i++) {
        Worker *worker = &r->workers[i];

        worker->runner = r;
        worker->index = i;
        worker->ctx = r->sim ? aio_sim_context_new(r->sim) : aio_context_new(&error);
        g_assert_no_error(error);
        if (!r->sim) {
            worker->thread = g_thread_new("conformance", worker_thread, worker);
        }
    }
    if (r->sim) {
        aio_context_enter(r->workers[0].ctx); /* where blocking calls of this thread run */
    }
}

static void free_contexts(Runner *r)
{
    if (r->sim) {
        aio_context_leave(r->workers[0].ctx);
    }
    for (unsigned i = 0; i < r->history->contexts; i++) {
        if (!r->sim) {
            call_worker(&r->workers[i], quit_thread);
            g_thread_join(r->workers[i].thread);
        }
        aio_context_unref(r->workers[i].ctx);
    }
    if (r->sim) {
        r->result.trace ^= aio_sim_trace(r->sim);
        aio_sim_free(r->sim);
    } else {
        pthread_cond_destroy(&r->all_done);
        pthread_cond_destroy(&r->start);
        pthread_mutex_destroy(&r->lock);
    }
}

static Runner *runner_new(const ConformanceStack *stack, const History *history)
{
    static _Atomic unsigned last_id;
    Runner *r = g_new0(Runner, 1);

    r->stack = stack;
    r->history = history;
    r->unit = MAX(stack->unit, 1);
    r->length = stack->length;
    r->model = g_malloc0(stack->length + stack->room);
    r->boundaries = g_new(uint64_t, (stack->length + stack->room) / SECTOR + 2 * CONFORMANCE_MAX_REQUESTS + 4);
    r->id = g_strdup_printf("c%d-%u", (int)getpid(), atomic_fetch_add(&last_id, 1));
    r->dir = g_dir_make_tmp("bdrv-conformance-XXXXXX", NULL);
    g_assert_nonnull(r->dir);
    r->options = conformance_expand(stack->options, r->id, r->dir);
    r->graph = bdrv_graph_new();
    bdrv_graph_set_opener_gate(r->graph, bdrv_gate_any, NULL);
    conformance_add_keys(r);
    return r;
}

static void runner_free(Runner *r)
{
    bdrv_graph_unref(r->graph);
    if (r->stack->teardown) {
        r->stack->teardown(r->stack, r->id, r->dir);
    }
    g_rmdir(r->dir);
    g_free(r->options);
    g_free(r->dir);
    g_free(r->id);
    g_free(r->boundaries);
    g_free(r->model);
    g_free(r->below);
    conformance_forget_saved(r);
    conformance_forget_bitmaps(r);
    g_free(r);
}

ConformanceResult conformance_play(const ConformanceStack *stack, const History *history)
{
    Runner *r = runner_new(stack, history);
    ConformanceResult result;

    g_assert_true(history_fits(history, stack));
    make_contexts(r);
    if (stack->setup) {
        stack->setup(stack, r->graph, r->id, r->dir, r->model);
    }
    r->below = g_memdup2(r->model, stack->length + stack->room);
    conformance_open(r);
    for (r->round = 0; r->round < history->rounds->len; r->round++) {
        run_round(r, history->rounds->pdata[r->round]);
    }
    conformance_compare_all(r);
    conformance_close(r);
    free_contexts(r);
    result = r->result;
    runner_free(r);
    return result;
}

ConformanceResult conformance_run(const ConformanceStack *stack, const ConformanceRun *run)
{
    g_autoptr(History) history = history_draw(stack, run);

    g_assert_cmpuint(run->contexts, <=, CONFORMANCE_MAX_CONTEXTS);
    g_assert_cmpuint(run->concurrency, <, CONFORMANCE_MAX_REQUESTS);
    g_test_message("BDRV_TEST_SEED=%" PRIu64 ": scripts/history BUILD %s", run->seed, history->origin);
    return conformance_play(stack, history);
}
