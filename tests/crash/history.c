/* SPDX-License-Identifier: MIT */
#include "tests/crash/history.h"

#include <errno.h>

#define CHANGES (BDRV_SIM_WRITE | BDRV_SIM_ZERO | BDRV_SIM_DISCARD | BDRV_SIM_COPY)
#define MAX_DELAY_NS 100000

const char *const fail_names[FAIL_KINDS] = { "none", "call", "short", "flush" };
static const unsigned fail_calls[FAIL_KINDS] = { 0, BDRV_SIM_ANY, CHANGES, BDRV_SIM_FLUSH };

typedef struct Runner {
    const CrashHistory *history;
    CrashTrace *trace;
    CrashRun run;
    BdrvSimDisk *disk, *data_disk; /* data_disk: of the data file; NULL: none */
    unsigned step, together; /* where we are */
    unsigned running;        /* coroutines of a group that are not done */
} Runner;

/* The disk of which a call fails; *@nth: which. */
static BdrvSimDisk *failing_disk(const Runner *runner, unsigned *nth)
{
    bool of_data = runner->data_disk && runner->history->fail_nth % 2 == 0;
    *nth = runner->data_disk ? (runner->history->fail_nth + 1) / 2 : runner->history->fail_nth;
    return of_data ? runner->data_disk : runner->disk;
}

static bool has_failed(const Runner *runner)
{
    FailKind kind = runner->history->fail;
    unsigned nth;
    BdrvSimDisk *disk = failing_disk(runner, &nth);
    return kind != FAIL_NONE && bdrv_simdisk_count(disk, fail_calls[kind]) >= nth;
}

static void note_moment(Runner *runner)
{
    Moment *moment = g_new(Moment, 1);
    bool one = runner->step < runner->history->count && runner->together == 1;
    *moment = (Moment){
        .cut = bdrv_simdisk_cut(runner->disk),
        .data_cut = runner->data_disk ? bdrv_simdisk_cut(runner->data_disk) : NULL,
        .sets = model_sets(&runner->run.model),
        .step = runner->step,
        .op = one ? runner->history->steps[runner->step].op : NULL,
        .after_failure = has_failed(runner),
        .may_be_untidy = runner->run.untidy,
    };
    g_ptr_array_add(runner->trace->moments, moment);
}

static void on_request(void *opaque, BdrvSimDisk *disk, const BdrvSimRequest *request)
{
    if (request->kind != BDRV_SIM_READ) {
        note_moment(opaque);
    }
}

static void moment_free(gpointer data)
{
    Moment *moment = data;
    bdrv_simcut_unref(moment->cut);
    if (moment->data_cut) {
        bdrv_simcut_unref(moment->data_cut);
    }
    model_sets_unref(moment->sets);
    g_free(moment);
}

static void set_failure(const Runner *runner)
{
    unsigned nth;
    BdrvSimDisk *disk = failing_disk(runner, &nth);
    switch (runner->history->fail) {
    case FAIL_CALL:
        bdrv_simdisk_fail(disk, fail_calls[FAIL_CALL], nth, 1, EIO);
        break;
    case FAIL_SHORT:
        bdrv_simdisk_fail_partly(disk, fail_calls[FAIL_SHORT], nth, 1, ENOSPC, BDRV_SIM_SECTOR);
        break;
    case FAIL_FLUSH:
        bdrv_simdisk_set_flush_failure(disk, BDRV_SIM_FLUSH_FORGETS);
        bdrv_simdisk_fail(disk, fail_calls[FAIL_FLUSH], nth, -1, EIO);
        break;
    default:
        break;
    }
}

typedef struct Together {
    Runner *runner;
    unsigned step;
} Together;

static void coroutine_fn do_one(Runner *runner, unsigned step)
{
    int ret = crash_do_step(&runner->run, &runner->history->steps[step]);
    if (ret < 0 && runner->history->fail == FAIL_NONE) {
        runner->run.finding = "an operation failed";
    }
}

static void coroutine_fn do_together(void *opaque)
{
    Together *together = opaque;
    do_one(together->runner, together->step);
    together->runner->running--;
}

/* The steps from runner->step on that belong together. */
static void coroutine_fn do_group(Runner *runner)
{
    const CrashHistory *history = runner->history;
    Together group[16];
    runner->together = 1;
    while (history->steps[runner->step + runner->together - 1].with_next && runner->together < G_N_ELEMENTS(group)) {
        runner->together++;
    }
    if (runner->together == 1) {
        do_one(runner, runner->step);
        return;
    }
    runner->running = runner->together;
    for (unsigned i = 0; i < runner->together; i++) {
        group[i] = (Together){ runner, runner->step + i };
        test_start(do_together, &group[i]);
    }
    while (runner->running) {
        co_sleep_until(aio_clock_ns(aio_context_current()) + 1000);
    }
}

static void set_hooks(Runner *runner, BdrvSimHook *hook)
{
    bdrv_simdisk_set_hook(runner->disk, hook, runner);
    if (runner->data_disk) {
        bdrv_simdisk_set_hook(runner->data_disk, hook, runner);
    }
}

static void coroutine_fn run_history(void *opaque)
{
    Runner *runner = opaque;
    set_hooks(runner, on_request);
    if (runner->run.image->start == START_READY) {
        runner->run.is_open = crash_image_open(runner->run.image, "run", runner->history->fail, &runner->run.rig);
    }
    while (runner->step < runner->history->count) {
        do_group(runner);
        note_moment(runner); /* what it promised may have cost no request */
        if (runner->run.is_open && runner->history->fail == FAIL_NONE && !runner->run.image->vdi) {
            rig_verify(&runner->run.rig);
        }
        runner->step += runner->together;
    }
    runner->together = 0;
    int ret = crash_run_end(&runner->run);
    if (ret < 0 && runner->history->fail == FAIL_NONE) {
        runner->run.finding = "closing failed";
    }
    note_moment(runner);
    set_hooks(runner, NULL);
}

static void set_up_disk(BdrvSimDisk *disk, const CrashHistory *history)
{
    bdrv_simdisk_set_seed(disk, history->seed);
    bdrv_simdisk_set_delay(disk, 0, history->delays ? MAX_DELAY_NS : 0);
}

static unsigned count_calls(const Runner *runner, unsigned kinds)
{
    unsigned calls = (unsigned)bdrv_simdisk_count(runner->disk, kinds);
    return runner->data_disk ? 2 * MAX(calls, (unsigned)bdrv_simdisk_count(runner->data_disk, kinds)) : calls;
}

void history_run(const CrashImage *image, const BdrvSimCut *base, const BdrvSimCut *data_base,
                 const uint8_t cells[MODEL_CELLS], const CrashHistory *history, CrashTrace *trace)
{
    Runner *runner = g_new0(Runner, 1); /* the model is large */
    *trace = (CrashTrace){ .moments = g_ptr_array_new_with_free_func(moment_free) };
    runner->history = history;
    runner->trace = trace;
    runner->run.image = image;
    runner->run.disk = "run";
    runner->run.distrust = history->fail == FAIL_FLUSH;
    runner->disk = bdrv_simcut_disk(base, NULL, "run");
    runner->data_disk = data_base ? bdrv_simcut_disk(data_base, NULL, "run-data") : NULL;
    model_reset(&runner->run.model, cells);
    crash_run_begin(&runner->run);
    set_up_disk(runner->disk, history);
    if (runner->data_disk) {
        set_up_disk(runner->data_disk, history);
    }
    set_failure(runner);
    test_run_seeded(history->seed, run_history, runner);
    for (unsigned kind = 0; kind < FAIL_KINDS; kind++) {
        trace->calls[kind] = count_calls(runner, fail_calls[kind]);
    }
    trace->finding = runner->run.finding;
    crash_run_clear(&runner->run);
    bdrv_simdisk_unref(runner->disk);
    if (runner->data_disk) {
        bdrv_simdisk_unref(runner->data_disk);
    }
    g_free(runner);
}

void trace_clear(CrashTrace *trace)
{
    g_ptr_array_unref(trace->moments);
}

/* ---- as text ---- */

uint8_t history_fill(unsigned index)
{
    return (uint8_t)(0x80 + index % 0x7f);
}

char *history_text(const CrashHistory *history)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < history->count; i++) {
        g_autofree char *name = crash_step_name(&history->steps[i]);
        g_string_append(text, name);
        if (i + 1 < history->count) {
            g_string_append_c(text, history->steps[i].with_next ? '+' : ',');
        }
    }
    return g_string_free(text, FALSE);
}

GArray *history_parse(const CrashImage *image, const char *text)
{
    GArray *steps = g_array_new(FALSE, FALSE, sizeof(CrashStep));
    g_auto(GStrv) groups = g_strsplit(text, ",", -1);
    for (unsigned g = 0; groups[g]; g++) {
        g_auto(GStrv) names = g_strsplit(groups[g], "+", -1);
        for (unsigned i = 0; names[i]; i++) {
            CrashStep step;
            if (!crash_step_parse(image, names[i], &step)) {
                g_array_unref(steps);
                return NULL;
            }
            step.with_next = names[i + 1] != NULL;
            step.fill = step.fill ? history_fill(steps->len) : 0;
            g_array_append_val(steps, step);
        }
    }
    return steps;
}
