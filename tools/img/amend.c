/* SPDX-License-Identifier: MIT */
/* amend: change options of an image that were decided when it was made. */
#include "tools/img/img.h"

typedef struct Amend {
    ToolImage image;
    BdrvOptions *options; /* -o, NULL: none */
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
    case 't':
        if (!img_take_cache(optarg, "cache mode", &amend->image.flags)) {
            return 1;
        }
        return -1;
    case IMG_OPTION_IMAGE_OPTS: amend->image.image_opts = true; return -1;
    case IMG_OPTION_FORCE: amend->force = true; return -1;
    default: return 1;
    }
}

static int amend_image(const Amend *amend, BlockBackend *blk)
{
    const char *format = blk_driver(blk);
    GError *error = NULL;

    if (!bdrv_driver_options(format, BDRV_TABLE_AMEND)) {
        tool_error("Format driver '%s' does not support option amendment", format);
        return 1;
    }
    if (amend->help) {
        return img_print_amend_help(format);
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
    img_progress_start(amend->progress && !amend->quiet && !amend->help, IMG_PROGRESS_STEPS, 1);
    status = amend_image(amend, blk);
    img_progress_end();
    return img_close(blk, amend->image.filename) ? status : 1;
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
    if (status < 0 && amend.help && amend.image.format) {
        status = img_print_amend_help(amend.image.format);
    }
    if (status < 0 && optind != argc - 1) {
        tool_error("Expecting one image file name");
        status = 1;
    }
    if (status < 0) {
        amend.image.filename = argv[optind];
        status = open_and_amend(&amend);
    }
    bdrv_options_free(amend.options);
    return status;
}
