/* SPDX-License-Identifier: MIT */
#include "tests/crash/resume.h"

#include <errno.h>

#define OPTIONS "options"

static char *describe(const SearchOptions *o)
{
    return g_strdup_printf("length %u shard %u/%u failures %d seed %" G_GUINT64_FORMAT " histories %" G_GUINT64_FORMAT,
                           o->length, o->shard, o->shards, o->failures, o->seed, o->histories);
}

bool resume_open(Resume *resume, const char *path, const SearchOptions *options, GError **errp)
{
    g_autofree char *text = describe(options), *was = NULL;
    *resume = (Resume){ .path = path, .file = g_key_file_new() };
    if (path && g_file_test(path, G_FILE_TEST_EXISTS)) {
        if (!g_key_file_load_from_file(resume->file, path, G_KEY_FILE_NONE, errp)) {
            return false;
        }
        was = g_key_file_get_string(resume->file, OPTIONS, "search", NULL);
        if (g_strcmp0(was, text) != 0) {
            g_set_error(errp, BDRV_ERROR, EINVAL, "%s is of a search with '%s', not '%s'; remove it or use another file",
                        path, was ? was : "(nothing)", text);
            return false;
        }
    }
    g_key_file_set_string(resume->file, OPTIONS, "search", text);
    return true;
}

void resume_close(Resume *resume)
{
    g_key_file_unref(resume->file);
}

/* The counts, by name. */
static const struct {
    const char *name;
    size_t offset; /* in Search */
} counts[] = {
    { "next", offsetof(Search, next) },
    { "histories", offsetof(Search, histories) },
    { "cuts", offsetof(Search, cuts) },
    { "states", offsetof(Search, judge.counts.states) },
    { "distinct", offsetof(Search, judge.counts.distinct) },
    { "leaks", offsetof(Search, judge.counts.leaks) },
    { "reopened-dirty", offsetof(Search, judge.counts.reopened_dirty) },
    { "second-lives", offsetof(Search, judge.counts.second_lives) },
    { "qemu-checked", offsetof(Search, judge.counts.qemu_checked) },
};

bool resume_load(const Resume *resume, Search *search)
{
    g_autofree char *known = g_key_file_get_string(resume->file, search->image->name, "known", NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        uint64_t *value = (uint64_t *)(void *)((char *)search + counts[i].offset);
        *value = g_key_file_get_uint64(resume->file, search->image->name, counts[i].name, NULL);
    }
    search->finished = g_key_file_get_boolean(resume->file, search->image->name, "finished", NULL);
    return !known || judge_load(&search->judge, known);
}

void resume_save(Resume *resume, const Search *search)
{
    GError *error = NULL;
    for (size_t i = 0; i < G_N_ELEMENTS(counts); i++) {
        const uint64_t *value = (const uint64_t *)(const void *)((const char *)search + counts[i].offset);
        g_key_file_set_uint64(resume->file, search->image->name, counts[i].name, *value);
    }
    g_key_file_set_boolean(resume->file, search->image->name, "finished", search->finished);
    if (search->finished) {
        g_key_file_remove_key(resume->file, search->image->name, "known", NULL);
    } else if (resume->path) {
        g_autofree char *known = judge_save(&search->judge);
        g_key_file_set_string(resume->file, search->image->name, "known", known);
    }
    if (resume->path && !g_key_file_save_to_file(resume->file, resume->path, &error)) { /* renames into place */
        g_printerr("%s\n", error->message);
        g_error_free(error);
    }
}
