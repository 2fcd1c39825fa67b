/* SPDX-License-Identifier: MIT */
/*
 * Crash search: run histories of operations on a simulated disk, cut the power after every request, and judge
 * every image that the cut may leave: no corruption, what was flushed is there, every other sector old or new.
 *
 *   ops.c      the table of operations         images.c   what they start from
 *   history.c  runs one, with a cut at every request      search.c  which histories, and a replay of one
 *   states.c   what a cut can leave            content.c  their bytes and hashes
 *   oracle.c   judges bytes (vdi.c: of VDI)    model.c    what may be read
 *   judge.c    all of it for a state           resume.c   going on with a search that was stopped
 *   reduce.c   what was found, made small  attempt.c  if what is tested aborts
 *
 * Without options it is a TAP test of a short form; with --length, --random or --ops a search. See --help.
 */

#include <malloc.h>
#include <stdio.h>
#include <string.h>

#include "tests/crash/attempt.h"
#include "tests/crash/resume.h"

#define SAVE_EVERY_US (10 * G_USEC_PER_SEC)

typedef struct Campaign {
    Resume resume;
    gint64 begun, saved; /* monotonic microseconds */
    uint64_t states_before;
} Campaign;

static void print_totals(const Search *search, const char *when, double seconds, uint64_t states)
{
    const JudgeCounts *c = &search->judge.counts;
    g_print("%s: %s: %" G_GUINT64_FORMAT " histories, %" G_GUINT64_FORMAT " cuts, %" G_GUINT64_FORMAT
            " states, %" G_GUINT64_FORMAT " distinct (%" G_GUINT64_FORMAT " with leaks, %" G_GUINT64_FORMAT
            " written by the first open, %" G_GUINT64_FORMAT " written all over), %" G_GUINT64_FORMAT
            " shown to qemu-img, %.0f states/s\n",
            search->image->name, when, search->histories, search->cuts, c->states, c->distinct, c->leaks,
            c->reopened_dirty, c->second_lives, c->qemu_checked, seconds > 0 ? (double)states / seconds : 0);
}

static void on_progress(void *opaque, const Search *search)
{
    Campaign *campaign = opaque;
    gint64 now = g_get_monotonic_time();
    if (search->finished || search->finding || now - campaign->saved >= SAVE_EVERY_US) {
        const char *when = search->finding ? "FOUND" : search->finished ? "done" : "so far";
        campaign->saved = now;
        resume_save(&campaign->resume, search);
        print_totals(search, when, (double)(now - campaign->begun) / G_USEC_PER_SEC,
                     search->judge.counts.states - campaign->states_before);
    }
}

/* Returns whether nothing was found. */
static bool campaign_image(Campaign *campaign, const CrashImage *image, const SearchOptions *options)
{
    g_autofree Search *search = g_new0(Search, 1);
    search_init(search, image, options);
    search->progress = on_progress;
    search->progress_opaque = campaign;
    if (campaign->resume.path) {
        if (!resume_load(&campaign->resume, search)) {
            g_printerr("%s: what it says of %s makes no sense; remove it\n", campaign->resume.path, image->name);
            search_clear(search);
            return false;
        }
        if (search->finished) {
            print_totals(search, "done before", 0, 0);
            search_clear(search);
            return true;
        }
    }
    campaign->begun = campaign->saved = g_get_monotonic_time();
    campaign->states_before = search->judge.counts.states;
    bool ok = search_run(search);
    if (!ok) {
        g_print("%s\n", search->finding);
    }
    search_clear(search);
    return ok;
}

/* ---- options ---- */

typedef struct Arguments {
    SearchOptions search;
    gint length, cut, state;
    gint64 seed, histories;
    gdouble minutes;
    gboolean random, small, must_find, failures, delays, aborted;
    char *shard, *image, *ops, *fail, *resume;
} Arguments;

static bool wanted(const Arguments *a, const CrashImage *image)
{
    return !a->image || g_str_equal(a->image, image->name);
}

static bool parse_fail(Arguments *a)
{
    char name[16];
    if (!a->fail) {
        return true;
    }
    if (sscanf(a->fail, "%15[a-z]:%u", name, &a->search.fail_nth) == 2 && a->search.fail_nth > 0) {
        for (unsigned kind = 1; kind < FAIL_KINDS; kind++) {
            if (g_str_equal(name, fail_names[kind])) {
                a->search.fail = (FailKind)kind;
                return true;
            }
        }
    }
    g_printerr("--fail takes call:N, short:N or flush:N with N from 1\n");
    return false;
}

static bool parse_shard(Arguments *a)
{
    a->search.shards = 1;
    if (a->shard && (sscanf(a->shard, "%u/%u", &a->search.shard, &a->search.shards) != 2 ||
                     a->search.shard >= a->search.shards)) {
        g_printerr("--shard takes I/N with I from 0 to N - 1\n");
        return false;
    }
    return true;
}

static bool parse_image(const Arguments *a)
{
    bool found = false;
    for (unsigned i = 0; i < crash_image_count; i++) {
        found = found || wanted(a, &crash_images[i]);
    }
    if (!found || (a->ops && !a->image)) {
        g_printerr("--image takes one of these, and --ops needs it:\n");
        for (unsigned i = 0; i < crash_image_count; i++) {
            g_printerr("  %s\n", crash_images[i].name);
        }
    }
    return found && (!a->ops || a->image);
}

static bool finish_arguments(Arguments *a)
{
    SearchOptions *s = &a->search;
    if (a->length < 0 || a->length > CRASH_HISTORY_MAX) {
        g_printerr("--length takes 1 to %d\n", CRASH_HISTORY_MAX);
        return false;
    }
    s->length = (unsigned)a->length;
    s->failures = a->failures;
    s->delays = a->delays;
    s->aborted = a->aborted;
    s->ops = a->ops;
    s->only_cut = a->cut;
    s->only_state = a->state;
    s->histories = (uint64_t)MAX(a->histories, 0);
    s->all_up_to = ALL_SUBSETS_UP_TO;
    s->qemu_every = 500;
    s->seed = a->seed ? (uint64_t)a->seed : a->random ? test_seed() : 1;
    return parse_fail(a) && parse_shard(a) && parse_image(a);
}

static int run_campaign(Arguments *a)
{
    Campaign campaign = { 0 };
    GError *error = NULL;
    unsigned images = 0, done = 0;
    bool ok = true;
    for (unsigned i = 0; i < crash_image_count; i++) {
        images += wanted(a, &crash_images[i]);
    }
    if (!resume_open(&campaign.resume, a->resume, &a->search, &error)) {
        g_printerr("%s\n", error->message);
        g_error_free(error);
        return 2;
    }
    gint64 begun = g_get_monotonic_time();
    for (unsigned i = 0; i < crash_image_count; i++) {
        if (wanted(a, &crash_images[i])) {
            done++;
            if (a->random && !a->search.histories) {
                a->search.deadline = begun + (gint64)(a->minutes * 60e6 * done / images);
            }
            ok = campaign_image(&campaign, &crash_images[i], &a->search) && ok;
        }
    }
    resume_close(&campaign.resume);
    return ok ? 0 : 1;
}

/* ---- as a test ---- */

static const Arguments *test_arguments; /* GTest hands over one pointer only */

static void search_or_fail(const CrashImage *image, const SearchOptions *options)
{
    g_autofree Search *search = g_new0(Search, 1);
    search_init(search, image, options);
    if (!search_run(search)) {
        g_test_message("%s", search->finding);
        g_test_fail();
    }
    g_test_message("%s: %" G_GUINT64_FORMAT " histories, %" G_GUINT64_FORMAT " states, %" G_GUINT64_FORMAT " distinct",
                   image->name, search->histories, search->judge.counts.states, search->judge.counts.distinct);
    search_clear(search);
}

/* Every single operation (slow builds: a third, by seed), a part of the pairs, failing calls, a few random histories. */
static void short_form(gconstpointer data)
{
    const CrashImage *image = data;
    bool small = test_arguments->small;
    unsigned rare = image->slow ? 3 : 1;
    SearchOptions options = { .shards = 1, .seed = 1, .only_cut = -1, .only_state = -1, .qemu_every = small ? 0 : 400 };
    SearchOptions one = options, two = options, failing = options, random = options;
    random.seed = test_seed();
    one.length = 1;
    one.shards = small ? 3 : 1;
    one.shard = (unsigned)(random.seed % one.shards);
    one.all_up_to = small || image->slow ? 4 : 6;
    search_or_fail(image, &one);
    two.length = 2;
    two.shards = (small ? 251 : 101) * rare;
    two.shard = 7;
    two.all_up_to = small ? 3 : 6;
    search_or_fail(image, &two);
    failing.length = 1;
    failing.failures = true;
    failing.shards = (small ? 41 : 7) * rare;
    failing.all_up_to = 3;
    search_or_fail(image, &failing);
    random.histories = 1;
    random.all_up_to = 3;
    search_or_fail(image, &random);
}

static void add_tests(const Arguments *a)
{
    test_arguments = a;
    for (unsigned i = 0; i < crash_image_count; i++) {
        if (wanted(a, &crash_images[i]) && (a->image || !crash_images[i].searched)) {
            g_autofree char *path = g_strdup_printf("/crash/no cut of a short search damages an image: %s", crash_images[i].name);
            g_test_add_data_func(path, &crash_images[i], short_form);
        }
    }
}

/* For a build with a planted bug: it must be found. */
static void something_is_found(gconstpointer data)
{
    for (unsigned i = 0; i < crash_image_count; i++) {
        SearchOptions options = { .length = 2, .shards = 3, .all_up_to = 6, .seed = 1, .only_cut = -1, .only_state = -1, .quiet = true };
        g_autofree Search *search = g_new0(Search, 1);
        search_init(search, &crash_images[i], &options);
        bool ok = search_run(search);
        if (!ok) {
            g_test_message("found: %s", search->finding);
        }
        search_clear(search);
        if (!ok) {
            return;
        }
    }
    g_test_fail();
}

static int run_tests(const Arguments *a)
{
    if (a->must_find) {
        g_test_add_data_func("/crash/the planted bug is found", NULL, something_is_found);
    } else {
        add_tests(a);
    }
    return g_test_run();
}

static void free_arguments(Arguments *a)
{
    g_free(a->shard);
    g_free(a->resume);
    g_free(a->image);
    g_free(a->ops);
    g_free(a->fail);
}

int main(int argc, char **argv)
{
    Arguments a = { .cut = -1, .state = -1, .minutes = 1 };
    const GOptionEntry options[] = {
        { "length", 0, 0, G_OPTION_ARG_INT, &a.length, "All sequences of up to N operations", "N" },
        { "failures", 0, 0, G_OPTION_ARG_NONE, &a.failures, "And each with every single failing call", NULL },
        { "shard", 0, 0, G_OPTION_ARG_STRING, &a.shard, "Only the I-th (from 0) of N parts", "I/N" },
        { "resume", 0, 0, G_OPTION_ARG_FILENAME, &a.resume, "Keep in FILE how far it is, and go on from there", "FILE" },
        { "image", 0, 0, G_OPTION_ARG_STRING, &a.image, "Only this image", "NAME" },
        { "random", 0, 0, G_OPTION_ARG_NONE, &a.random, "Random longer histories", NULL },
        { "minutes", 0, 0, G_OPTION_ARG_DOUBLE, &a.minutes, "How long --random goes on", "M" },
        { "histories", 0, 0, G_OPTION_ARG_INT64, &a.histories, "How many histories of each image --random runs", "N" },
        { "seed", 0, 0, G_OPTION_ARG_INT64, &a.seed, "Of the first random history, or of the scheduler", "S" },
        { "ops", 0, 0, G_OPTION_ARG_STRING, &a.ops, "Only this history, e.g. write:2,flush:0", "OPS" },
        { "fail", 0, 0, G_OPTION_ARG_STRING, &a.fail, "And let a call fail: call:N, short:N, flush:N", "KIND:N" },
        { "delays", 0, 0, G_OPTION_ARG_NONE, &a.delays, "And let requests take time", NULL },
        { "aborted", 0, 0, G_OPTION_ARG_NONE, &a.aborted, "And find out why it aborts: reduce that, in child processes", NULL },
        { "cut", 0, 0, G_OPTION_ARG_INT, &a.cut, "Only this cut of it", "N" },
        { "state", 0, 0, G_OPTION_ARG_INT, &a.state, "Only this state of the cut", "N" },
        { "small", 0, 0, G_OPTION_ARG_NONE, &a.small, "As a test: less of everything, for slow builds", NULL },
        { "must-find", 0, 0, G_OPTION_ARG_NONE, &a.must_find, "As a test: pass if something is found", NULL },
        { NULL },
    };
    if (!test_parse(&argc, &argv, "- power loss at every request of a qcow2 or VDI image", options) || !finish_arguments(&a)) {
        return 2;
    }
    /* A check takes and frees buffers of 1 MiB for each state: keep their pages. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 64 << 20);
    g_test_init(&argc, &argv, NULL);
    if (!a.aborted) {
        attempt_guard();
    }
    int status = a.length > 0 || a.random || a.ops ? run_campaign(&a) : run_tests(&a);
    free_arguments(&a);
    return status;
}
