/* SPDX-License-Identifier: MIT */
/*
 * convert --resume: a file beside the target tells what is copied, how far the target is flushed, and from what. It is
 * written now and then, read when the same copy is begun again, and removed when all is done.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <glib/gstdio.h>

#include "tools/img/img.h"

#define DONE "flushed"
#define MAX_STATE_BYTES (1 << 20)

struct ImgResume {
    char *path;         /* of the state */
    BdrvOptions *state; /* what is copied, and how: text by name; and DONE */
};

ImgResume *img_resume_new(const char *target)
{
    ImgResume *resume = g_new0(ImgResume, 1);

    resume->path = g_strdup_printf("%s.bdrv-resume", target);
    resume->state = bdrv_options_new();
    return resume;
}

void img_resume_free(ImgResume *resume)
{
    if (resume) {
        bdrv_options_free(resume->state);
        g_free(resume->path);
        g_free(resume);
    }
}

void img_resume_note(ImgResume *resume, const char *key, const char *text)
{
    bdrv_options_set_string(resume->state, key, text);
}

void img_resume_note_file(ImgResume *resume, const char *key, const char *filename, bool content)
{
    g_autoptr(GString) text = g_string_new(filename);
    struct stat st;

    if (stat(filename, &st) == 0) {
        g_string_append_printf(text, ", device %" G_GUINT64_FORMAT ", inode %" G_GUINT64_FORMAT, (guint64)st.st_dev,
                               (guint64)st.st_ino);
        if (content) {
            g_string_append_printf(text, ", %" G_GINT64_FORMAT " bytes, modified %" G_GINT64_FORMAT ".%09ld",
                                   (gint64)st.st_size, (gint64)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
        }
    }
    img_resume_note(resume, key, text->str);
}

/* ---- the file ---- */

bool img_resume_save(ImgResume *resume, int64_t flushed)
{
    bdrv_options_set_int(resume->state, DONE, flushed);
    g_autofree char *text = img_json_text(resume->state);
    g_autoptr(GError) error = NULL;

    /* Durable, and whole or not there at all. */
    if (!g_file_set_contents_full(resume->path, text, -1, G_FILE_SET_CONTENTS_CONSISTENT | G_FILE_SET_CONTENTS_DURABLE,
                                  0666, &error)) {
        img_progress_give_way();
        tool_error("%s: cannot write how far the copy is: %s", resume->path, error->message);
        return false;
    }
    return true;
}

static BdrvOptions *read_file(const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = NULL;
    struct stat st;

    if (stat(path, &st) == 0 && st.st_size > MAX_STATE_BYTES) {
        tool_error("%s: has %" G_GINT64_FORMAT " bytes, and is no state of a copy; remove it to start anew", path,
                   (gint64)st.st_size);
        return NULL;
    }
    BdrvOptions *state =
        g_file_get_contents(path, &text, NULL, &error) ? bdrv_options_parse_json(text, &error) : NULL;
    if (!state) {
        tool_error("%s: cannot read the state of the copy: %s; remove it to start anew", path, error->message);
    }
    return state;
}

/* ---- going on ---- */

/* The first thing that is not as it was; NULL: all is */
static char *find_difference(const BdrvOptions *then, const BdrvOptions *now)
{
    for (unsigned n = 0; n < bdrv_options_count(now); n++) {
        const char *key, *before;
        g_autofree char *text = NULL;

        bdrv_options_nth(now, n, &key, NULL, &text);
        before = bdrv_options_get_string(then, key, NULL);
        if (g_strcmp0(before, text) != 0) {
            return g_strdup_printf("%s was '%s' when the copy was begun, and is '%s' now", key, before ? before : "", text);
        }
    }
    return bdrv_options_count(then) != bdrv_options_count(now) + 1 ? g_strdup("it was begun with other arguments") : NULL;
}

bool img_resume_exists(const ImgResume *resume)
{
    return g_file_test(resume->path, G_FILE_TEST_EXISTS);
}

bool img_resume_load(ImgResume *resume, int64_t length, int64_t *flushed)
{
    g_autoptr(BdrvOptions) then = read_file(resume->path);

    if (!then) {
        return false;
    }
    g_autofree char *difference = find_difference(then, resume->state);
    if (difference) {
        tool_error("%s: cannot go on: %s; remove this file to start anew", resume->path, difference);
        return false;
    }
    *flushed = bdrv_options_get_int(then, DONE, -1);
    if (*flushed < 0 || *flushed > length) {
        tool_error("%s: " DONE " is %" PRId64 ", which should be 0 to %" PRId64 "; remove this file to start anew",
                   resume->path, *flushed, length);
        return false;
    }
    return true;
}

void img_resume_done(ImgResume *resume)
{
    unlink(resume->path);
}
