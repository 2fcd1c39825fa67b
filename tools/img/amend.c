/* SPDX-License-Identifier: MIT */
/* amend: change options of an image that were decided when it was made. */
#include "tools/img/img.h"

typedef struct Amend {
    ToolImage image;
    BdrvOptions *options; /* -o, NULL: none */
    const char *cache;
    bool help, quiet, progress, force;
} Amend;

static bool parse_option(Amend *amend, const char *text)
{
    amend->help |= img_wants_help(text);
    return amend->help || img_add_options(&amend->options, text);
}

/* -1: go on; else the exit code */
static int take_option(Amend *amend, int option, char **argv)
{
    switch (option) {
    case 'f': amend->image.format = optarg; return -1;
    case 'h': return 0;
    case 'o': return parse_option(amend, optarg) ? -1 : 1;
    case 'p': amend->progress = true; return -1;
    case 'q': amend->quiet = true; return -1;
    case 't': amend->cache = optarg; return -1;
    case IMG_OPTION_IMAGE_OPTS: amend->image.image_opts = true; return -1;
    case IMG_OPTION_FORCE: amend->force = true; return -1;
    default: return 1;
    }
}

/* Each option can be changed and is of its type. Of other amendments no progress is shown. */
static bool is_understood(const BdrvOptions *options, const BdrvOptionSpec *table)
{
    for (unsigned i = 0; i < bdrv_options_count(options); i++) {
        const char *key;

        bdrv_options_nth(options, i, &key, NULL, NULL);
        if (!img_table_has(table, key)) {
            return false;
        }
    }
    return img_check_option_types(options, table, NULL);
}

static int amend_image(const Amend *amend, BlockBackend *blk)
{
    const char *format = blk_driver(blk);
    const BdrvOptionSpec *table = bdrv_driver_options(format, BDRV_TABLE_AMEND);
    GError *error = NULL;

    if (!table) {
        tool_error("Format driver '%s' does not support option amendment", format);
        return 1;
    }
    if (amend->help) {
        return img_print_amend_help(format);
    }
    if (is_understood(amend->options, table)) {
        img_progress_begin();
    }
    if (!blk_amend(blk, amend->options, amend->force, img_progress_report, NULL, &error)) {
        tool_report(NULL, error);
        return 1;
    }
    img_progress_complete();
    return 0;
}

static int open_and_amend(const Amend *amend)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    BlockBackend *blk = img_open(graph, &amend->image);
    int status;

    if (!blk) {
        return 1;
    }
    status = amend_image(amend, blk);
    return img_close(blk, amend->image.filename) ? status : 1;
}

/* The options have been read; what is wrong from here on ends the line that is the progress's, as in qemu-img. */
static int amend_named(Amend *amend, int argc, char **argv)
{
    if (amend->help && amend->image.format) {
        return img_print_amend_help(amend->image.format);
    }
    if (optind != argc - 1) {
        tool_error("Expecting one image file name");
        return 1;
    }
    if (!img_take_cache(amend->cache, "cache mode", &amend->image.flags)) {
        return 1;
    }
    amend->image.filename = argv[optind];
    return open_and_amend(amend);
}

int img_amend(int argc, char **argv)
{
    Amend amend = { .image.flags = BDRV_O_RDWR };
    int option, status = -1;

    while (status < 0 && (option = img_next_option(argc, argv)) != -1) {
        status = take_option(&amend, option, argv);
    }
    if (status < 0 && !amend.options && !amend.help) {
        status = img_usage_error("Must specify options (-o)");
    }
    if (status < 0) {
        img_progress_start(amend.progress && !amend.quiet, IMG_PROGRESS_STEPS, 1);
        status = amend_named(&amend, argc, argv);
        img_progress_end();
    }
    bdrv_options_free(amend.options);
    return status;
}
