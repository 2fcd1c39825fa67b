/* SPDX-License-Identifier: MIT */
/* create: make an image; also what convert and dd make their targets with. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

#define SECTOR_BYTES 512

static void print_option(const BdrvOptions *options, const BdrvOptionSpec *spec)
{
    const char *value = spec->default_text;
    g_autofree char *text = NULL;

    for (unsigned i = 0; i < bdrv_options_count(options); i++) {
        const char *key;
        BdrvOptionType type;
        g_autofree char *as_text = NULL;

        bdrv_options_nth(options, i, &key, &type, &as_text);
        if (strcmp(key, spec->name) == 0) {
            int64_t bytes;

            text = g_steal_pointer(&as_text);
            if (spec->type == BDRV_OPTION_SIZE && bdrv_parse_size(text, &bytes, NULL)) {
                g_free(text);
                text = g_strdup_printf("%" PRId64, bytes);
            }
            value = text;
        }
    }
    if (value) {
        g_auto(GStrv) parts = g_strsplit(value, ",", -1);
        g_autofree char *quoted = g_strjoinv(",,", parts); /* as one would write it */

        printf(" %s=%s", spec->name, quoted);
    }
}

/* "Formatting 'x', fmt=qcow2 cluster_size=65536 …": options that are set or have a default, in table order */
static void announce_creation(const char *format, const char *filename, const BdrvOptions *options)
{
    static const BdrvOptionSpec size = { "size", BDRV_OPTION_SIZE, "" };
    const BdrvOptionSpec *table = bdrv_driver_options(format, BDRV_TABLE_CREATE);
    const BdrvOptionSpec *protocol = bdrv_driver_options("file", BDRV_TABLE_CREATE);

    printf("Formatting '%s', fmt=%s", filename, format);
    if (!img_table_has(table, "size")) {
        print_option(options, &size);
    }
    for (const BdrvOptionSpec *spec = table; table != protocol && spec && spec->name; spec++) {
        print_option(options, spec);
    }
    for (const BdrvOptionSpec *spec = protocol; spec && spec->name; spec++) {
        if (bdrv_options_has(options, spec->name) && (table == protocol || !img_table_has(table, spec->name)) &&
            strcmp(spec->name, "size") != 0) {
            print_option(options, spec);
        }
    }
    putchar('\n');
    fflush(stdout);
}

/* Found out before anything is announced. Which protocol a prefixed name means is the library's business. */
static bool check_option_names(const char *format, const char *filename, const BdrvOptions *options)
{
    for (unsigned i = 0; i < bdrv_options_count(options); i++) {
        const char *key;

        bdrv_options_nth(options, i, &key, NULL, NULL);
        if (strcmp(key, "size") != 0 && !strchr(filename, ':') &&
            !img_table_has(bdrv_driver_options(format, BDRV_TABLE_CREATE), key) &&
            !img_table_has(bdrv_driver_options("file", BDRV_TABLE_CREATE), key)) {
            tool_error("%s: Invalid parameter '%s'; '-o help' lists the options of format %s", filename, key, format);
            return false;
        }
    }
    return true;
}

/* The backing file must open, unless -u; its size is the image's if none was given. */
static bool look_at_backing(BdrvGraph *graph, const char *filename, const char *backing, const char *backing_format,
                            int64_t *size)
{
    g_autofree char *directory = g_path_get_dirname(filename);
    bool is_relative = !g_path_is_absolute(backing) && !strchr(backing, ':') && !strchr(filename, ':');
    g_autofree char *full =
        is_relative && strchr(filename, '/') ? g_build_filename(directory, backing, NULL) : g_strdup(backing);
    ToolImage image = { .filename = full, .format = backing_format, .flags = BDRV_O_NO_KEY };
    GError *error = NULL;
    BlockBackend *blk = tool_open(graph, &image, &error);

    if (!blk) {
        tool_error("%s: Could not open '%s': %s\nCould not open backing image.", filename, full, error->message);
        g_error_free(error);
        return false;
    }
    if (!backing_format) {
        tool_error("%s: Backing file specified without backing format\nDetected format of %s.", filename,
                   blk_driver(blk));
        blk_close(blk, NULL);
        return false;
    }
    if (*size < 0) {
        *size = blk_length(blk);
    }
    blk_close(blk, NULL);
    return true;
}

static bool goes_on(void *opaque, int64_t done, int64_t total)
{
    return !img_interrupted();
}

bool img_create_image(BdrvGraph *graph, const char *format, const char *filename, BdrvOptions *taken, int64_t size,
                      bool announce, bool check_backing)
{
    g_autoptr(BdrvOptions) options = taken ? taken : bdrv_options_new();
    const char *backing = bdrv_options_get_string(options, "backing_file", NULL);
    const char *backing_format = bdrv_options_get_string(options, "backing_fmt", NULL);
    GError *error = NULL;

    if (!bdrv_driver_known(format)) {
        g_autofree char *why = tool_unknown_format(format);
        tool_error("%s: %s", filename, why);
        return false;
    }
    if (!bdrv_driver_can_create(format)) {
        tool_error("%s: Format driver '%s' does not support image creation", filename, format);
        return false;
    }
    if (!bdrv_protocol_known(filename)) {
        tool_error("%s: unknown protocol; write ./%s if it is the name of a file", filename, filename);
        return false;
    }
    if (!check_option_names(format, filename, options)) {
        return false;
    }
    if (!img_check_option_types(options, bdrv_driver_options(format, BDRV_TABLE_CREATE), &error)) {
        tool_report(filename, error);
        return false;
    }
    if (size < 0 && bdrv_options_has(options, "size")) {
        const char *text = bdrv_options_get_string(options, "size", NULL);

        if (!text || !img_parse_size(text, "image size", &size)) {
            return false;
        }
    }
    if (backing && !*backing) {
        tool_error("%s: Expected backing file name, got empty string", filename);
        return false;
    }
    if (backing) {
        if (!bdrv_driver_supports_backing(format)) {
            tool_error("%s: Backing file not supported for file format '%s'", filename, format);
            return false;
        }
        if (backing_format && !bdrv_driver_known(backing_format)) {
            g_autofree char *why = tool_unknown_format(backing_format);
            tool_error("%s: backing file: %s", filename, why);
            return false;
        }
        if (strcmp(backing, filename) == 0) {
            tool_error("%s: Trying to create an image with the same filename as the backing file", filename);
            return false;
        }
        if (check_backing && !look_at_backing(graph, filename, backing, backing_format, &size)) {
            return false;
        }
        if (!check_backing && !backing_format) {
            tool_error("%s: Backing file specified without backing format", filename);
            return false;
        }
    }
    if (size < 0) {
        tool_error("%s: Image creation needs a size parameter", filename);
        return false;
    }
    bdrv_options_set_int(options, "size", size);
    if (announce) {
        announce_creation(format, filename, options);
    }
    if (backing_format && !backing) {
        tool_error("%s: Backing format cannot be used without backing file", filename);
        return false;
    }
    /* Disks are whole sectors. */
    if (size <= INT64_MAX - (SECTOR_BYTES - 1)) {
        bdrv_options_set_int(options, "size", (size + SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES);
    }
    if (!bdrv_create_image_progress(graph, format, filename, g_steal_pointer(&options), goes_on, NULL, &error)) {
        tool_report(NULL, error); /* it begins with the name */
        return false;
    }
    return true;
}

int img_create(int argc, char **argv)
{
    g_autoptr(BdrvOptions) options = NULL;
    g_autoptr(BdrvGraph) graph = NULL;
    const char *format = "raw", *backing = NULL, *backing_format = NULL, *filename;
    bool quiet = false, unsafe = false, help = false;
    int64_t size = -1;
    int option;

    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 'F': backing_format = optarg; break;
        case 'b': backing = optarg; break;
        case 'f': format = optarg; break;
        case 'h': return 0;
        case 'o':
            help |= img_wants_help(optarg);
            if (!help && !img_add_options(&options, optarg)) {
                return 1;
            }
            break;
        case 'q': quiet = true; break;
        case 'u': unsafe = true; break;
        default: return 1;
        }
    }
    filename = optind < argc ? argv[optind++] : NULL;
    if (help) {
        return img_print_options_help(format, filename);
    }
    if (!filename) {
        return img_usage_error("Expecting image file name");
    }
    if (optind < argc && !img_parse_size(argv[optind++], "image size", &size)) {
        return 1;
    }
    if (optind < argc) {
        return img_usage_error("Unexpected argument: %s", argv[optind]);
    }
    if (!options) {
        options = bdrv_options_new();
    }
    if (size >= 0 && bdrv_options_has(options, "size")) {
        tool_error("%s: The image size must be specified only once", filename);
        return 1;
    }
    if (backing) {
        bdrv_options_set_string(options, "backing_file", backing);
    }
    if (backing_format) {
        bdrv_options_set_string(options, "backing_fmt", backing_format);
    }
    graph = tool_graph();
    img_interrupt_catch(); /* what has begun is ended, or undone */
    return img_create_image(graph, format, filename, g_steal_pointer(&options), size, !quiet, !unsafe) ? 0 : 1;
}
