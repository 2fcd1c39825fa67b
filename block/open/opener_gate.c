/* SPDX-License-Identifier: MIT */

/* Ready-made opener gates: what images may name. */
#include "block/open/open_int.h"
#include "block/registry/registry.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool bdrv_gate_none(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                    GError **errp)
{
    g_set_error(errp, BDRV_ERROR, EACCES, "'%s' is refused: images may name no other files here", filename);
    return false;
}

bool bdrv_gate_any(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                   GError **errp)
{
    if (!format) {
        *guess = true;
    }
    return true;
}

static bool refuse(const char *filename, const char *why, GError **errp)
{
    g_set_error(errp, BDRV_ERROR, EACCES, "'%s' is not a local file: %s; an image may name only such files here",
                filename, why);
    return false;
}

static bool is_local_name(const char *filename)
{
    g_autofree char *prefix = bdrv_filename_prefix(filename);

    return !prefix || strcmp(prefix, "file") == 0;
}

/* Formats, and what a plain name could mean as well. */
static bool is_local_driver(const char *name)
{
    const BlockDriver *drv = bdrv_find_format(name);

    return drv && (drv->children || strcmp(name, "file") == 0 || drv->bdrv_probe_device);
}

/*
 * What is wrong with one option of a json: name, NULL: nothing. How a file is opened is for the opener to say. Which of
 * the embedder's secrets unlocks it may be said: that reveals none.
 */
static char *json_option_problem(const char *key, const char *value)
{
    static const char *const harmless[] = { "offset",     "size",           "read-only",
                                            "key-secret", "encrypt.format", "encrypt.key-secret",
                                            NULL };
    const char *name = key;

    while (g_str_has_prefix(name, "file.")) {
        name += strlen("file.");
    }
    if (g_strv_contains(harmless, name)) {
        return NULL;
    }
    if (strchr(name, '.') || strcmp(name, "backing") == 0) {
        return g_strdup_printf("option '%s' is about a further file", key);
    }
    if (strcmp(name, "driver") == 0) {
        return is_local_driver(value) ? NULL : g_strdup_printf("driver '%s'", value);
    }
    if (strcmp(name, "filename") == 0) {
        return is_local_name(value) ? NULL : g_strdup_printf("file name '%s'", value);
    }
    return g_strdup_printf("option '%s'", key);
}

/* No more than a plain name can do: local files and devices, through formats, at an offset, by the opener's secrets. */
static bool check_json_name(const char *filename, GError **errp)
{
    g_autoptr(BdrvOptions) options = bdrv_options_parse_json(filename + strlen("json:"), errp);

    if (options && bdrv_options_count(options) == 0) {
        return refuse(filename, "it names no file", errp);
    }
    for (unsigned i = 0; options && i < bdrv_options_count(options); i++) {
        g_autofree char *value = NULL, *problem = NULL;
        const char *key;

        bdrv_options_nth(options, i, &key, NULL, &value);
        problem = json_option_problem(key, value);
        if (problem) {
            return refuse(filename, problem, errp);
        }
    }
    return options != NULL;
}

bool bdrv_gate_local(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                     GError **errp)
{
    bool ok;

    if (g_str_has_prefix(filename, "json:")) {
        ok = check_json_name(filename, errp);
    } else {
        ok = is_local_name(filename) || refuse(filename, "its prefix names a protocol", errp);
    }
    if (ok && !format) {
        *guess = true;
    }
    return ok;
}

/* ---- by place ---- */

/* The file that a plain name, or one after "file:", means once symbolic links are followed; EACCES, ENOENT … */
static char *real_name(const char *filename, GError **errp)
{
    const char *path = g_str_has_prefix(filename, "file:") ? filename + strlen("file:") : filename;
    char *real = NULL;

    if (!is_local_name(filename)) {
        refuse(filename, "its prefix names a protocol", errp);
    } else if (!(real = realpath(path, NULL))) {
        g_set_error(errp, BDRV_ERROR, errno, "'%s' cannot be found: %s", filename, g_strerror(errno));
    }
    return real;
}

bool bdrv_gate_directory(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                         GError **errp)
{
    const char *directory = opaque;
    char *real = real_name(filename, errp), *allowed = real ? realpath(directory, NULL) : NULL;
    g_autofree char *place = real ? g_path_get_dirname(real) : NULL;
    bool ok = allowed && strcmp(place, allowed) == 0;

    if (real && !ok) {
        g_set_error(errp, BDRV_ERROR, EACCES,
                    "'%s' is not a file of the directory '%s'; an image may name only such files here", filename,
                    directory);
    }
    free(allowed);
    free(real);
    return ok;
}

/* Whether a name of the list means that file; @real: NULL if it is no local one. */
static bool means(const char *listed, const char *filename, const char *real)
{
    char *other = real && is_local_name(listed) ? real_name(listed, NULL) : NULL;
    bool same = strcmp(listed, filename) == 0 || (other && strcmp(other, real) == 0);

    free(other);
    return same;
}

bool bdrv_gate_list(void *opaque, const char *parent, const char *filename, const char *format, bool *guess,
                    GError **errp)
{
    char *real = is_local_name(filename) ? real_name(filename, NULL) : NULL;
    bool ok = false;

    for (const char *const *listed = opaque; *listed && !ok; listed++) {
        ok = means(*listed, filename, real);
    }
    free(real);
    if (!ok) {
        g_set_error(errp, BDRV_ERROR, EACCES, "'%s' is not among the files that an image may name here", filename);
    }
    return ok;
}
