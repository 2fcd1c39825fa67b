/* SPDX-License-Identifier: MIT */
/*
 * Fault search: in every operation of a table, on every image, let the 1st, 2nd … n-th call below fail, and see
 * that the error reaches the caller, that nothing is lost or leaks, that the image goes on serving and that
 * trying again works. Ends with the table of calls that failed.
 *
 *   faults                 short form, as a TAP test
 *   faults --files         on real files instead of simdisks
 *   --full                 every image, every fault and every call; --light: few
 *   --op --image --place --fault NAME   only these; --nth N: only that call
 */

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/faults/hooks.h"
#include "tests/faults/search.h"
#include "tests/lib/test-node.h"

typedef struct Choice {
    char *op, *image, *place, *fault; /* NULL: any */
    int nth;
    gboolean light, full, files;
    Level level;
} Choice;

static Choice choice;
static GString *table;

static bool chosen(const char *wanted, const char *name, Level level)
{
    return wanted ? strcmp(wanted, name) == 0 : level <= choice.level;
}

/* All in the full form; in the others what takes longest is tried here and there, elsewhere in each row. */
static Calls which_calls(const Op *op, const Fault *fault)
{
    Calls calls = { .only = (unsigned)choice.nth, .every = 1 };

    if (choice.level == LEVEL_LIGHT) {
        calls.every = 3;
    } else if (choice.level == LEVEL_SHORT && (fault->count < 0 || fault->hooks & (HOOK_ALLOC | HOOK_COROUTINE))) {
        calls.every = 3;
    }
    calls.first = (unsigned)(op - ops) % calls.every;
    return calls;
}

/* A row: the image, and for each fault how many calls failed (and how often the caller did not notice). */
static void search_row(const Op *op, const FaultImage *image, const FaultPlace *place, Found *sum)
{
    unsigned count;
    const Fault *faults = search_faults(place, &count);
    g_autoptr(GString) row = g_string_new(NULL);

    for (unsigned i = 0; i < count; i++) {
        const Fault *fault = &faults[i];
        if (!chosen(choice.fault, fault->name, fault->level) || !search_applies(fault, image, op)) {
            continue;
        }
        Found found = search_calls(op, image, place, fault, which_calls(op, fault));
        sum->failed += found.failed;
        sum->absorbed += found.absorbed;
        sum->leaks += found.leaks;
        if (found.failed) {
            g_string_append_printf(row, "%s%s %" PRIu64, row->len ? ", " : "", fault->name, found.failed);
        }
        if (found.absorbed) {
            g_string_append_printf(row, " (%" PRIu64 ")", found.absorbed);
        }
    }
    g_string_append_printf(table, "  %s, %s, %s: %s\n", op->name, image->name, place->name, row->len ? row->str : "-");
}

static bool goes_there(const Op *op, const FaultImage *image, const FaultPlace *place)
{
    if (place->sim == choice.files || !op_applies(op, image)) {
        return false;
    }
    return place->sim ? op->where != OP_ON_FILES
                      : op->where != OP_ON_SIMDISK && image->on_files && stand_has(place);
}

static void search_op(gconstpointer data)
{
    const Op *op = data;
    Found sum = { 0 };

    for (unsigned p = 0; p < fault_place_count; p++) {
        const FaultPlace *place = &fault_places[p];
        for (unsigned i = 0; i < fault_image_count; i++) {
            const FaultImage *image = &fault_images[i];
            Level level = choice.files ? LEVEL_LIGHT : image->level; /* there each image has kinds of its own */
            if (chosen(choice.place, place->name, place->level) && chosen(choice.image, image->name, level) &&
                goes_there(op, image, place)) {
                search_row(op, image, place, &sum);
            }
        }
    }
    g_test_message("%" PRIu64 " calls failed, %" PRIu64 " of them unnoticed; %" PRIu64 " clusters leaked", sum.failed,
                   sum.absorbed, sum.leaks);
}

int main(int argc, char **argv)
{
    const GOptionEntry options[] = {
        { "light", 0, 0, G_OPTION_ARG_NONE, &choice.light, "Few images and faults", NULL },
        { "full", 0, 0, G_OPTION_ARG_NONE, &choice.full, "Every image and every fault", NULL },
        { "files", 0, 0, G_OPTION_ARG_NONE, &choice.files, "On real files", NULL },
        { "op", 0, 0, G_OPTION_ARG_STRING, &choice.op, "Only this operation", "NAME" },
        { "image", 0, 0, G_OPTION_ARG_STRING, &choice.image, "Only this image", "NAME" },
        { "place", 0, 0, G_OPTION_ARG_STRING, &choice.place, "Only there", "NAME" },
        { "fault", 0, 0, G_OPTION_ARG_STRING, &choice.fault, "Only this fault", "NAME" },
        { "nth", 0, 0, G_OPTION_ARG_INT, &choice.nth, "Only the N-th call", "N" },
        { NULL },
    };
    if (!test_parse(&argc, &argv, "- every call below every operation fails once", options)) {
        return 2;
    }
    choice.level = choice.full ? LEVEL_FULL : choice.light ? LEVEL_LIGHT : LEVEL_SHORT;
    g_test_init(&argc, &argv, NULL);
    table = g_string_new(NULL);
    for (unsigned i = 0; i < op_count; i++) {
        if (chosen(choice.op, ops[i].name, LEVEL_LIGHT)) {
            g_autofree char *path = g_strdup_printf("/faults/any call below may fail: %s", ops[i].name);
            g_test_add_data_func(path, &ops[i], search_op);
        }
    }
    int result = g_test_run();
    stand_forget();
    printf("# operation, image, place: calls failed of each kind (unnoticed)\n");
    g_auto(GStrv) lines = g_strsplit(table->str, "\n", -1);
    for (char **line = lines; *line && **line; line++) {
        printf("# %s\n", *line);
    }
    g_string_free(table, TRUE);
    return result;
}
