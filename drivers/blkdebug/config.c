/* SPDX-License-Identifier: MIT */

/*
 * The configuration file: one section a rule, as in QEMU's -readconfig files.
 *
 *     # fail the second write
 *     [set-state]
 *     event = "write_aio"
 *     new_state = "2"
 *
 *     [inject-error "name"]
 *     event = "write_aio"
 *     state = "2"
 *
 * Sections of one name are rules of their own, which is why this is no GKeyFile: that would merge them.
 */

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "drivers/blkdebug/blkdebug.h"

#define CONFIG_MAX ((size_t)1 << 20) /* bytes */

typedef struct Parser {
    BlkdebugEngine *engine;
    const char *filename;
    unsigned line;
    GHashTable *names; /* "inject-error name" of sections that have a name; owned */
    /* The section that is being read; options NULL: none yet. */
    BdrvOptions *options;
    bool injects;
    char *what; /* for messages; owned */
} Parser;

static bool G_GNUC_PRINTF(3, 4) fail(const Parser *parser, GError **errp, const char *format, ...)
{
    g_autofree char *text = NULL;
    va_list ap;

    va_start(ap, format);
    text = g_strdup_vprintf(format, ap);
    va_end(ap);
    g_set_error(errp, BDRV_ERROR, EINVAL, "%s, line %u: %s", parser->filename, parser->line, text);
    return false;
}

/* The section has ended: it is a rule. */
static bool finish_section(Parser *parser, GError **errp)
{
    bool ok = !parser->options || blkdebug_add_rule(parser->engine, parser->injects, parser->options, parser->what, errp);

    g_clear_pointer(&parser->options, bdrv_options_free);
    g_clear_pointer(&parser->what, g_free);
    return ok;
}

static bool is_name(const char *text)
{
    if (!g_ascii_isalpha(*text)) {
        return false;
    }
    while (g_ascii_isalnum(*text) || (*text && strchr("-._", *text))) {
        text++;
    }
    return !*text;
}

/* @text: what is behind the group in the brackets: nothing, or a name in quotes. Changed. */
static bool note_name(Parser *parser, const char *group, char *text, GError **errp)
{
    size_t length = strlen(text);

    if (length == 0) {
        return true;
    }
    if (length < 2 || text[0] != '"' || text[length - 1] != '"') {
        return fail(parser, errp, "the name of a section must be in double quotes: [%s \"name\"]", group);
    }
    text[length - 1] = '\0';
    text++;
    if (!is_name(text)) {
        return fail(parser, errp, "'%s' is no name for a section; use a letter, then letters, digits, '-', '.' and '_'",
                    text);
    }
    if (!g_hash_table_add(parser->names, g_strdup_printf("%s %s", group, text))) {
        return fail(parser, errp, "there is a section [%s \"%s\"] already", group, text);
    }
    return true;
}

/* @line: from the '[' on. Changed. */
static bool begin_section(Parser *parser, char *line, GError **errp)
{
    char *end = strrchr(line, ']'), *group = line + 1, *rest;

    if (!end || end[1]) {
        return fail(parser, errp, "a section begins with [inject-error] or [set-state]");
    }
    *end = '\0';
    rest = group + strcspn(group, " \t");
    if (*rest) {
        *rest++ = '\0';
    }
    parser->injects = strcmp(group, "inject-error") == 0;
    if (!parser->injects && strcmp(group, "set-state") != 0) {
        return fail(parser, errp, "there are no sections [%s], only [inject-error] and [set-state]", group);
    }
    if (!note_name(parser, group, g_strstrip(rest), errp)) {
        return false;
    }
    parser->options = bdrv_options_new();
    parser->what = g_strdup_printf("%s, line %u: [%s]", parser->filename, parser->line, group);
    return true;
}

/* key = "value"; a comment may follow. @line is changed. */
static bool add_option(Parser *parser, char *line, GError **errp)
{
    char *equals = strchr(line, '='), *value, *end;

    if (!parser->options) {
        return fail(parser, errp, "'%s' is in no section; begin with [inject-error] or [set-state]", line);
    }
    if (!equals) {
        return fail(parser, errp, "'%s' is no option; write key = \"value\"", line);
    }
    *equals = '\0';
    value = g_strchug(equals + 1);
    end = *value == '"' ? strchr(value + 1, '"') : NULL;
    if (!end) {
        return fail(parser, errp, "the value of '%s' must be in double quotes", g_strchomp(line));
    }
    *end = '\0';
    g_strchug(end + 1);
    if (end[1] && end[1] != '#') {
        return fail(parser, errp, "'%s' behind the value of '%s'; only a comment may follow", end + 1, g_strchomp(line));
    }
    bdrv_options_set_string(parser->options, g_strchomp(line), value + 1);
    return true;
}

/* @line: without blanks at its ends. */
static bool parse_line(Parser *parser, char *line, GError **errp)
{
    if (!*line || *line == '#') {
        return true;
    }
    if (*line == '[') {
        return finish_section(parser, errp) && begin_section(parser, line, errp);
    }
    return add_option(parser, line, errp);
}

bool blkdebug_parse_config(BlkdebugEngine *engine, const char *filename, char *text, GError **errp)
{
    Parser parser = { .engine = engine, .filename = filename };
    char *line;
    bool ok = true;

    parser.names = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    while (ok && (line = strsep(&text, "\n"))) {
        parser.line++;
        ok = parse_line(&parser, g_strstrip(line), errp);
    }
    ok = ok && finish_section(&parser, errp);
    bdrv_options_free(parser.options);
    g_free(parser.what);
    g_hash_table_unref(parser.names);
    return ok;
}

/* ---- the file ---- */

typedef struct ReadJob {
    const char *filename;
    char *text; /* CONFIG_MAX + 1 bytes */
    size_t size;
} ReadJob;

static int read_all(ReadJob *job, int fd)
{
    while (job->size <= CONFIG_MAX) {
        ssize_t n = read(fd, job->text + job->size, CONFIG_MAX + 1 - job->size);

        if (n == 0) {
            return 0;
        }
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        job->size += n > 0 ? n : 0;
    }
    return -EFBIG;
}

static int read_file(void *opaque)
{
    ReadJob *job = opaque;
    int fd = open(job->filename, O_RDONLY | O_CLOEXEC), ret;

    if (fd < 0) {
        return -errno;
    }
    ret = read_all(job, fd);
    close(fd);
    return ret;
}

bool coroutine_fn blkdebug_read_config(BlkdebugEngine *engine, const char *filename, GError **errp)
{
    g_autofree char *text = g_malloc(CONFIG_MAX + 1);
    ReadJob job = { .filename = filename, .text = text };
    int ret = co_run_in_worker(AIO_WORK_IO, read_file, &job);

    if (ret < 0) {
        g_set_error(errp, BDRV_ERROR, -ret, "could not read the blkdebug configuration file '%s': %s", filename,
                    ret == -EFBIG ? "it is larger than 1 MiB" : g_strerror(-ret));
        return false;
    }
    text[job.size] = '\0';
    if (strlen(text) != job.size) {
        g_set_error(errp, BDRV_ERROR, EINVAL, "'%s' is no configuration file: it has a NUL byte", filename);
        return false;
    }
    return blkdebug_parse_config(engine, filename, text, errp);
}
