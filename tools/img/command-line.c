/* SPDX-License-Identifier: MIT */
/* What the subcommands share of reading their arguments, opening and closing. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img/img.h"

int img_usage_error(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    g_autofree char *message = g_strdup_vprintf(format, args);
    va_end(args);
    tool_error("%s", message);
    fprintf(stderr, "Try '%s --help' for more information\n", tool_name());
    return 1;
}

/* What getopt_long() wants of a syntax. */
#define MAX_OPTIONS 40
typedef struct Getopt {
    char letters[2 * MAX_OPTIONS + 2];
    struct option names[MAX_OPTIONS + 1];
} Getopt;

static void make_getopt(Getopt *getopt, const ImgSyntax *syntax)
{
    char *letter = getopt->letters;
    struct option *name = getopt->names;

    *letter++ = ':';
    for (const ImgOption *option = syntax->options; option->id; option++) {
        if (option->id < IMG_OPTION_OUTPUT) {
            *letter++ = (char)option->id;
            letter = option->value ? g_stpcpy(letter, ":") : letter;
        }
        if (option->name) {
            *name++ = (struct option){ option->name, option->value ? required_argument : no_argument, NULL, option->id };
        }
    }
}

int img_next_option(int argc, char **argv)
{
    const ImgSyntax *syntax = img_find_syntax(argv[0]);
    Getopt tables = { 0 };
    int option;

    make_getopt(&tables, syntax);
    do {
        option = getopt_long(argc, argv, tables.letters, tables.names, NULL);
    } while (option == IMG_OPTION_OBJECT && tool_add_object(optarg));
    switch (option) {
    case 'h': img_print_command_help(syntax); return 'h';
    case ':': img_usage_error("missing argument for option '%s'", argv[optind - 1]); return '?';
    case '?': img_usage_error("unrecognized option '%s'", argv[optind - 1]); return '?';
    default: return option;
    }
}

bool img_take_cache(const char *name, const char *what, BdrvOpenFlags *flags)
{
    if (name && !tool_cache_mode(name, flags)) {
        tool_error("Invalid %s: '%s' is none of none, writeback, writethrough, directsync and unsafe", what, name);
        return false;
    }
    return true;
}

bool img_look_output(ImgLook *look)
{
    const char *text = look->output_text ? look->output_text : "human";

    if (strcmp(text, "human") == 0) {
        look->output = IMG_OUTPUT_HUMAN;
    } else if (strcmp(text, "json") == 0) {
        look->output = IMG_OUTPUT_JSON;
    } else if (look->can_draw && strcmp(text, "svg") == 0) {
        look->output = IMG_OUTPUT_SVG;
    } else {
        tool_error("--output must be used with human%s json as argument.", look->can_draw ? ", svg or" : " or");
        return false;
    }
    return true;
}

int img_look_option(ImgLook *look, int option)
{
    switch (option) {
    case 'h': return 0;
    case 'f': look->image.format = optarg; return -1;
    case 'U': look->image.flags |= BDRV_O_FORCE_SHARE; return -1;
    case IMG_OPTION_IMAGE_OPTS: look->image.image_opts = true; return -1;
    case IMG_OPTION_OUTPUT: look->output_text = optarg; return -1;
    default: return 1;
    }
}

bool img_look_filename(ImgLook *look, int argc, char **argv)
{
    if (optind != argc - 1) {
        img_usage_error("Expecting one image file name");
        return false;
    }
    look->image.filename = argv[optind];
    return img_look_output(look);
}

bool img_parse_size(const char *text, const char *what, int64_t *bytes)
{
    g_autoptr(GError) error = NULL;

    if (bdrv_parse_size(text, bytes, &error)) {
        return true;
    }
    if (bdrv_error_code(error) == ERANGE) {
        tool_error("Invalid %s specified. Must be less than or equal to %" G_GINT64_FORMAT ".", what, G_MAXINT64);
    } else {
        tool_error("Invalid %s specified. You may use k, M, G, T, P or E suffixes for", what);
        tool_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
    }
    return false;
}

bool img_parse_integer(const char *text, const char *what, int64_t min, int64_t max, int64_t *value)
{
    char *end;

    errno = 0;
    int64_t number = g_ascii_strtoll(text, &end, 0);
    if (errno || end == text || *end || number < min || number > max) {
        tool_error("Invalid %s specified", what);
        return false;
    }
    *value = number;
    return true;
}

/* "a=b,c=d": a comma in front or behind is half of a list; ",," is a comma in a value. */
static bool is_option_list(const char *text)
{
    size_t length = strlen(text), commas = 0;

    while (commas < length && text[length - 1 - commas] == ',') {
        commas++;
    }
    return *text && *text != ',' && commas % 2 == 0;
}

bool img_add_options(BdrvOptions **options, const char *text)
{
    GError *error = NULL;
    g_autoptr(BdrvOptions) more = NULL;

    if (!is_option_list(text)) {
        tool_error("Invalid option list: %s", text);
        return false;
    }
    more = bdrv_options_parse(text, NULL, &error);
    if (!more) {
        tool_report(NULL, error);
        return false;
    }
    if (!*options) {
        *options = bdrv_options_new();
    }
    bdrv_options_merge(*options, NULL, more);
    return true;
}

bool img_table_has(const BdrvOptionSpec *table, const char *key)
{
    for (; table && table->name; table++) {
        if (strcmp(table->name, key) == 0) {
            return true;
        }
    }
    return false;
}

bool img_check_option_types(const BdrvOptions *options, const BdrvOptionSpec *table, GError **errp)
{
    for (const BdrvOptionSpec *spec = table; spec && spec->name; spec++) {
        const BdrvOptionSpec one[] = { { .name = spec->name, .type = spec->type }, { NULL } };
        g_autoptr(BdrvOptions) value = bdrv_options_new();
        const char *text = bdrv_options_get_string(options, spec->name, NULL);

        if (text) {
            bdrv_options_set_string(value, spec->name, text);
        }
        if (!bdrv_options_validate(value, (const BdrvOptionSpec *const[]){ one, NULL }, "image", errp)) {
            return false;
        }
    }
    return true;
}

BlockBackend *img_open(BdrvGraph *graph, const ToolImage *image)
{
    GError *error = NULL;
    BlockBackend *blk = tool_open(graph, image, &error);

    if (!blk) {
        g_autofree char *prefix = g_strconcat(image->filename, ": ", NULL);
        bool named = *image->filename && g_str_has_prefix(error->message, prefix);

        tool_error("Could not open '%s': %s", image->filename, error->message + (named ? strlen(prefix) : 0));
        g_error_free(error);
    }
    return blk;
}

bool img_close(BlockBackend *blk, const char *filename)
{
    GError *error = NULL;

    if (blk_close(blk, &error)) {
        return true;
    }
    tool_error("%s: error while closing: %s", filename, error->message);
    g_error_free(error);
    return false;
}

char *img_json_text(const BdrvOptions *object)
{
    return bdrv_options_to_json(object, true);
}
