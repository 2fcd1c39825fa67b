/* SPDX-License-Identifier: MIT */
#include "tests/crash/search.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "tests/crash/attempt.h"
#include "tests/crash/reduce.h"
#include "tests/crash/states.h"

/* ---- the states of one history ---- */

typedef struct Visit {
    Search *search;
    const CrashHistory *history;
    const CrashTrace *trace;
    unsigned first_step; /* moments before it belong to a shorter sequence */
    unsigned moment;
    int state;
    const char *fault;
    GString *choices; /* of the state at fault */
} Visit;

static const char *const fate_names[] = { "lost", "kept", "torn inside", "torn outside", "data only", "size only" };

static void describe_choices(Visit *visit, const BdrvSimCut *cut, const BdrvSimChoice *choices)
{
    static const char *const kinds[] = { "read", "write", "zero", "discard", "truncate", "flush", "copy" };
    for (unsigned i = 0; i < bdrv_simcut_count(cut); i++) {
        BdrvSimRequest r = bdrv_simcut_nth(cut, i);
        g_string_append_printf(visit->choices,
                               "  request %" G_GUINT64_FORMAT ": %s 0x%" G_GINT64_MODIFIER "x +%" G_GINT64_FORMAT "%s%s: ",
                               r.number, kinds[__builtin_ctz(r.kind)], r.offset, r.bytes, r.completed ? "" : " in flight",
                               r.forgotten ? " forgotten" : "");
        g_string_append(visit->choices, r.durable ? "durable" : fate_names[choices[i].fate]);
        if (!r.durable && (choices[i].fate == BDRV_SIM_TORN_INSIDE || choices[i].fate == BDRV_SIM_TORN_OUTSIDE)) {
            g_string_append_printf(visit->choices, " %u..%u", choices[i].tear_from, choices[i].tear_to);
        }
        g_string_append_c(visit->choices, '\n');
    }
}

static void export_disk(const BdrvSimCut *cut, const BdrvSimChoice *choices, const char *what, GString *text)
{
    g_autofree char *path = g_strdup_printf("%s/crash-state-%d.%s", g_get_tmp_dir(), (int)getpid(), what);
    g_autoptr(BdrvSimDisk) disk = bdrv_simcut_disk(cut, choices, "exported");
    if (disk && bdrv_simdisk_export(disk, path) == 0) {
        g_string_append_printf(text, "  the %s is in %s\n", what, path);
    }
}

static void describe_state(Visit *visit, const BdrvSimChoice *choices)
{
    const Search *search = visit->search;
    const BdrvSimCut *cut = search->contents[0].cut, *data_cut = search->contents[1].cut;
    visit->choices = g_string_new(NULL);
    describe_choices(visit, cut, choices);
    export_disk(cut, choices, search->image->vdi ? "vdi" : "qcow2", visit->choices);
    if (data_cut) {
        g_string_append(visit->choices, "  data file:\n");
        describe_choices(visit, data_cut, choices + bdrv_simcut_count(cut));
        export_disk(data_cut, choices + bdrv_simcut_count(cut), "data", visit->choices);
    }
}

static bool coroutine_fn visit_state(void *opaque, const BdrvSimChoice *choices)
{
    Visit *visit = opaque;
    Search *search = visit->search;
    const Moment *moment = g_ptr_array_index(visit->trace->moments, visit->moment);
    int only = search->options->only_state;
    visit->state++;
    if (only >= 0 && visit->state != only) {
        return true;
    }
    attempt_at(visit->moment, visit->state);
    visit->fault =
        judge_state(&search->judge, search->contents, choices, moment->sets, moment->op, moment->may_be_untidy);
    if (visit->fault && !search->options->quiet) {
        describe_state(visit, choices);
    }
    return !visit->fault;
}

static bool is_wanted(const Visit *visit, const Moment *moment)
{
    int only = visit->search->options->only_cut;
    if (only >= 0) {
        return visit->moment == (unsigned)only;
    }
    return moment->step >= visit->first_step && (visit->history->fail == FAIL_NONE || moment->after_failure);
}

static void coroutine_fn visit_moments(void *opaque)
{
    Visit *visit = opaque;
    Search *search = visit->search;
    for (; visit->moment < visit->trace->moments->len; visit->moment++) {
        const Moment *moment = g_ptr_array_index(visit->trace->moments, visit->moment);
        if (!is_wanted(visit, moment)) {
            continue;
        }
        search->cuts++;
        visit->state = -1;
        content_load(&search->contents[0], moment->cut);
        if (moment->data_cut) {
            content_load(&search->contents[1], moment->data_cut);
        }
        states_each_pair(moment->cut, moment->data_cut, search->options->all_up_to, visit_state, visit);
        if (visit->fault) {
            return;
        }
    }
}

/* ---- findings ---- */

static char *replay_command(const Search *search)
{
    const SearchOptions *r = &search->replay;
    GString *text = g_string_new(NULL);
    g_string_append_printf(text, "scripts/crash-search BUILD --image '%s' --ops '%s' --seed %" G_GUINT64_FORMAT,
                           search->image->name, r->ops, r->seed);
    if (r->delays) {
        g_string_append(text, " --delays");
    }
    if (r->fail) {
        g_string_append_printf(text, " --fail %s:%u", fail_names[r->fail], r->fail_nth);
    }
    if (r->only_cut >= 0) {
        g_string_append_printf(text, " --cut %d --state %d", r->only_cut, r->only_state);
    }
    return g_string_free(text, FALSE);
}

static void keep_replay(const Visit *visit)
{
    const CrashHistory *h = visit->history;
    visit->search->replay = (SearchOptions){
        .ops = history_text(h),
        .seed = h->seed,
        .delays = h->delays,
        .fail = h->fail,
        .fail_nth = h->fail_nth,
        .shards = 1,
        .all_up_to = visit->search->options->all_up_to,
        .only_cut = visit->fault ? (int)visit->moment : -1,
        .only_state = visit->fault ? visit->state : -1,
    };
}

static void note_finding(Visit *visit, const char *what)
{
    Search *search = visit->search;
    keep_replay(visit);
    g_autofree char *replay = replay_command(search);
    const Moment *moment =
        visit->fault ? g_ptr_array_index(visit->trace->moments, visit->moment) : NULL;
    GString *text = g_string_new(NULL);
    g_string_append_printf(text, "%s: %s\n  operations: %s\n", search->image->name, what, search->replay.ops);
    if (moment) {
        g_string_append_printf(text, "  cut %u, in %s, state %d\n", visit->moment,
                               moment->step >= visit->history->count ? "the closing"
                               : moment->op                          ? moment->op->name
                                                                     : "several operations",
                               visit->state);
    }
    g_string_append_printf(text, "%s  again: %s", visit->choices ? visit->choices->str : "", replay);
    search->finding = g_string_free(text, FALSE);
}

bool search_history(Search *search, const CrashHistory *history, unsigned first_step, unsigned calls[FAIL_KINDS])
{
    CrashTrace trace;
    Visit visit = { .search = search, .history = history, .trace = &trace, .first_step = first_step };
    search->histories++;
    attempt_begin(search->image, history);
    history_run(search->image, search->base, search->data_base, search->cells, history, &trace);
    if (trace.finding) {
        note_finding(&visit, trace.finding);
    } else {
        test_run_seeded(history->seed, visit_moments, &visit);
        if (visit.fault) {
            note_finding(&visit, visit.fault);
        }
    }
    attempt_end();
    if (visit.choices) {
        g_string_free(visit.choices, TRUE);
    }
    for (unsigned i = 0; calls && i < FAIL_KINDS; i++) {
        calls[i] = trace.calls[i];
    }
    content_forget(&search->contents[0]);
    content_forget(&search->contents[1]);
    trace_clear(&trace);
    return !search->finding;
}

void search_note_abort(Search *search, const CrashHistory *history, int number, int cut, int state)
{
    Visit visit = { .search = search, .history = history, .moment = (unsigned)cut, .state = state };
    visit.fault = cut >= 0 ? "" : NULL;
    search_forget(search);
    keep_replay(&visit);
    g_autofree char *replay = replay_command(search);
    g_autofree char *where = cut < 0 ? g_strdup("while they run") : g_strdup_printf("cut %d, state %d", cut, state);
    search->finding = g_strdup_printf("%s: the process ends with signal %d (%s)\n  operations: %s\n  %s\n  again: %s",
                                      search->image->name, number, strsignal(number), search->replay.ops, where, replay);
}

void search_forget(Search *search)
{
    g_clear_pointer(&search->finding, g_free);
    g_free((char *)search->replay.ops);
    search->replay.ops = NULL;
}

/* The same; what is found is made small. */
static bool search_and_reduce(Search *search, const CrashHistory *history, unsigned first_step,
                              unsigned calls[FAIL_KINDS])
{
    bool ok = search_history(search, history, first_step, calls);
    if (!ok) {
        crash_reduce(search, history);
    }
    return ok;
}

/* The history, and if asked for all in which one of its calls fails. */
static bool search_with_failures(Search *search, const CrashHistory *history, unsigned first_step)
{
    unsigned calls[FAIL_KINDS];
    bool ok = search_and_reduce(search, history, first_step, calls);
    for (unsigned kind = 1; ok && search->options->failures && kind < FAIL_KINDS; kind++) {
        for (unsigned nth = 1; ok && nth <= calls[kind]; nth++) {
            CrashHistory failing = *history;
            failing.fail = (FailKind)kind;
            failing.fail_nth = nth;
            ok = search_and_reduce(search, &failing, first_step, NULL);
        }
    }
    return ok;
}

/* ---- which histories ---- */

static void progress(const Search *search)
{
    if (search->progress) {
        search->progress(search->progress_opaque, search);
    }
}

static bool stops_here(const Search *search)
{
    return search->options->stop_after && search->next >= search->options->stop_after;
}

/* Sequence @number of those with @length operations; false if there are not so many. */
static bool nth_sequence(const Search *search, unsigned length, uint64_t number, CrashStep *steps)
{
    for (unsigned i = length; i-- > 0;) {
        const GArray *from = i == 0 ? search->first_steps : search->steps;
        steps[i] = g_array_index(from, CrashStep, number % from->len);
        steps[i].fill = steps[i].fill ? history_fill(i) : 0;
        number /= from->len;
    }
    return number == 0;
}

static bool search_sequences(Search *search)
{
    const SearchOptions *o = search->options;
    uint64_t index = 0;
    for (unsigned length = 1; length <= o->length; length++) {
        CrashStep steps[CRASH_HISTORY_MAX];
        for (uint64_t number = 0; nth_sequence(search, length, number, steps); number++, index++) {
            CrashHistory history = { .steps = steps, .count = length, .seed = o->seed };
            if (index < search->next || index % o->shards != o->shard) {
                continue;
            }
            if (!search_with_failures(search, &history, length - 1)) {
                return false;
            }
            search->next = index + 1;
            progress(search);
            if (stops_here(search)) {
                return true;
            }
        }
    }
    return true;
}

static unsigned random_history(const Search *search, uint64_t *random, CrashStep *steps)
{
    unsigned count = 3 + (unsigned)test_random_below(random, CRASH_HISTORY_MAX / 2 - 3);
    for (unsigned i = 0; i < count; i++) {
        const GArray *from = i == 0 ? search->first_steps : search->steps;
        steps[i] = g_array_index(from, CrashStep, test_random_below(random, from->len));
        steps[i].fill = steps[i].fill ? history_fill(i) : 0;
    }
    for (unsigned i = 0; i + 1 < count; i++) {
        steps[i].with_next = !steps[i].op->alone && !steps[i + 1].op->alone && test_random_below(random, 3) == 0;
    }
    return count;
}

/* Histories of seeds that count up, so that one is found again by its seed. */
static bool search_random(Search *search)
{
    const SearchOptions *o = search->options;
    for (uint64_t n = search->next; o->deadline ? g_get_monotonic_time() < o->deadline : n < o->histories; n++) {
        uint64_t seed = o->seed + n, random = seed;
        unsigned calls[FAIL_KINDS];
        CrashStep steps[CRASH_HISTORY_MAX];
        CrashHistory history = { .steps = steps, .count = random_history(search, &random, steps), .seed = seed };
        history.delays = test_random_below(&random, 2);
        if (!search_and_reduce(search, &history, 0, calls)) {
            return false;
        }
        history.fail = (FailKind)test_random_below(&random, FAIL_KINDS);
        history.fail_nth = 1 + (unsigned)test_random_below(&random, calls[history.fail]);
        if (history.fail && !search_and_reduce(search, &history, 0, NULL)) {
            return false;
        }
        search->next = n + 1;
        progress(search);
        if (stops_here(search)) {
            return true;
        }
    }
    return true;
}

static bool search_replay(Search *search)
{
    const SearchOptions *o = search->options;
    g_autoptr(GArray) steps = history_parse(search->image, o->ops);
    if (!steps || steps->len == 0) {
        search->finding = g_strdup_printf("%s: '%s' has an operation that is unknown or not of this image",
                                          search->image->name, o->ops);
        return false;
    }
    CrashHistory history = {
        .steps = (const CrashStep *)(void *)steps->data,
        .count = steps->len,
        .seed = o->seed,
        .delays = o->delays,
        .fail = o->fail,
        .fail_nth = o->fail_nth,
    };
    if (!o->aborted) {
        return search_history(search, &history, 0, NULL);
    }
    int cut, state, number = attempt_dies(search, &history, &cut, &state);
    search_note_abort(search, &history, number ? number : SIGABRT, cut, state);
    crash_reduce(search, &history);
    return false;
}

typedef struct Base {
    Search *search;
    BdrvSimDisk *disk, *backing;
} Base;

static void coroutine_fn make_base(void *opaque)
{
    Base *base = opaque;
    base->disk = crash_image_make(base->search->image, base->search->cells, &base->backing);
}

void search_init(Search *search, const CrashImage *image, const SearchOptions *options)
{
    Base base = { .search = search };
    *search = (Search){ .image = image, .options = options };
    test_run_seeded(1, make_base, &base);
    search->base = bdrv_simdisk_cut(base.disk);
    search->base_disk = base.disk;
    search->backing_disk = base.backing;
    search->first_steps = crash_steps(image, true);
    search->steps = crash_steps(image, false);
    content_init(&search->contents[0]);
    content_init(&search->contents[1]);
    g_autoptr(BdrvSimDisk) data_disk = image->data_file ? bdrv_simdisk_find("base-data") : NULL;
    search->data_base = data_disk ? bdrv_simdisk_cut(data_disk) : NULL;
    judge_init(&search->judge, image);
    search->judge.qemu_every = options->qemu_every;
}

bool search_run(Search *search)
{
    bool ok = search->options->ops                                      ? search_replay(search)
              : search->options->histories || search->options->deadline ? search_random(search)
                                                                        : search_sequences(search);
    search->finished = ok && !stops_here(search);
    progress(search);
    return ok;
}

void search_clear(Search *search)
{
    bdrv_simcut_unref(search->base);
    bdrv_simdisk_unref(search->base_disk);
    bdrv_simdisk_unref(search->backing_disk);
    g_array_unref(search->first_steps);
    g_array_unref(search->steps);
    content_clear(&search->contents[0]);
    content_clear(&search->contents[1]);
    if (search->data_base) {
        bdrv_simcut_unref(search->data_base);
        bdrv_simdisk_forget("base-data");
    }
    judge_clear(&search->judge);
    search_forget(search);
}
