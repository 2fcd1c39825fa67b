/* SPDX-License-Identifier: MIT */
/* rebase: give an image another backing file, and what it would lose by that. */
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

typedef struct Rebase {
    ToolImage image, backing; /* backing.filename: as it is to be stored; NULL: not given; "": none */
    const char *cache, *source_cache;
    bool unsafe, progress, quiet, dry_run;
} Rebase;

/* -1: go on; else the exit code */
static int take_option(Rebase *rebase, int option, char **argv)
{
    switch (option) {
    case 'b': rebase->backing.filename = optarg; return -1;
    case 'F': rebase->backing.format = optarg; return -1;
    case 'f': rebase->image.format = optarg; return -1;
    case 'h': return 0;
    case 'p': rebase->progress = true; return -1;
    case 'q': rebase->quiet = true; return -1;
    case 't': rebase->cache = optarg; return -1;
    case 'T': rebase->source_cache = optarg; return -1;
    case 'u': rebase->unsafe = true; return -1;
    case 'U': rebase->backing.flags |= BDRV_O_FORCE_SHARE; return -1;
    case IMG_OPTION_DRY_RUN: rebase->dry_run = true; return -1;
    case IMG_OPTION_IMAGE_OPTS: rebase->image.image_opts = true; return -1;
    default: return 1;
    }
}

static bool has_backing(const Rebase *rebase)
{
    return rebase->backing.filename && *rebase->backing.filename;
}

/* A relative name starts at the directory of the image that names it. */
static char *full_backing(const Rebase *rebase, BlockBackend *top)
{
    const char *name = rebase->backing.filename, *image = blk_filename(top);
    g_autofree char *directory = g_path_get_dirname(image);
    bool is_relative = !g_path_is_absolute(name) && !strchr(name, ':') && !strchr(image, ':');

    return is_relative && strchr(image, '/') ? g_build_filename(directory, name, NULL) : g_strdup(name);
}

static bool open_new(const Rebase *rebase, BlockBackend *top, BdrvGraph *graph, BlockBackend **to)
{
    ToolImage image = rebase->backing;
    GError *error = NULL;

    *to = NULL;
    if (!has_backing(rebase)) {
        return true;
    }
    g_autofree char *full = full_backing(rebase, top);
    image.filename = full;
    *to = tool_open(graph, &image, &error);
    if (!*to) {
        tool_error("Could not open new backing file '%s': %s", rebase->backing.filename, error->message);
        g_error_free(error);
    }
    return *to != NULL;
}

static bool say_failure(const Rebase *rebase, GError *error)
{
    img_progress_give_way();
    tool_error("Could not change the backing file to '%s': %s", has_backing(rebase) ? rebase->backing.filename : "",
               error->message);
    g_error_free(error);
    return false;
}

static void tell_dry_run(const Rebase *rebase, const BlkMoved *moved)
{
    if (rebase->quiet) {
        return;
    }
    printf("Dry run: nothing was changed.\n"
           "%" PRId64 " bytes of data would be copied into '%s', and %" PRId64 " bytes kept as zeroes.\n",
           moved->data, rebase->image.filename, moved->zeroes);
    if (has_backing(rebase)) {
        printf("Its backing file would be '%s' (%s).\n", rebase->backing.filename, rebase->backing.format);
    } else {
        printf("It would have no backing file.\n");
    }
}

static bool rebase_safely(const Rebase *rebase, BlockBackend *top, BdrvGraph *graph)
{
    BlkMoved moved;
    BlkRebaseOptions options = {
        .filename = rebase->backing.filename,
        .format = has_backing(rebase) ? rebase->backing.format : NULL,
        .progress = img_progress_report,
        .moved = &moved,
        .dry_run = rebase->dry_run,
    };
    BlockBackend *to;
    GError *error = NULL;

    if (!open_new(rebase, top, graph, &to)) {
        return false;
    }
    bool ok = blk_rebase(top, to, &options, &error) || say_failure(rebase, error);
    if (ok && rebase->dry_run) {
        img_progress_complete();
        img_progress_end();
        tell_dry_run(rebase, &moved);
    }
    return (!to || img_close(to, rebase->backing.filename)) && ok;
}

static bool rebase_blindly(const Rebase *rebase, BlockBackend *top)
{
    GError *error = NULL;

    return blk_change_backing_file(top, rebase->backing.filename, has_backing(rebase) ? rebase->backing.format : NULL,
                                   &error) ||
           say_failure(rebase, error);
}

/* Found out before anything is written. */
static bool check_formats(const Rebase *rebase)
{
    if (rebase->backing.format && !bdrv_driver_known(rebase->backing.format)) {
        g_autofree char *why = tool_unknown_format(rebase->backing.format);
        tool_error("%s", why);
        return false;
    }
    if (has_backing(rebase) && !rebase->backing.format) {
        tool_error("Could not change the backing file to '%s': backing format must be specified (-F)",
                   rebase->backing.filename);
        return false;
    }
    return true;
}

static int rebase_image(const Rebase *rebase)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    BlockBackend *top = img_open(graph, &rebase->image);

    if (!top) {
        return 1;
    }
    bool ok =
        check_formats(rebase) && (rebase->unsafe ? rebase_blindly(rebase, top) : rebase_safely(rebase, top, graph));
    if (ok && !rebase->dry_run) {
        img_progress_complete();
    }
    return img_close(top, rebase->image.filename) && ok ? 0 : 1;
}

int img_rebase(int argc, char **argv)
{
    Rebase rebase = { .image.flags = BDRV_O_RDWR };
    int option, status;

    while ((option = img_next_option(argc, argv)) != -1) {
        status = take_option(&rebase, option, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 1) {
        return img_usage_error("Expecting one image file name");
    }
    if (!rebase.unsafe && !rebase.backing.filename) {
        return img_usage_error("Must specify backing file (-b) or use unsafe mode (-u)");
    }
    if (rebase.unsafe && rebase.dry_run) {
        return img_usage_error("--dry-run has nothing to tell with -u: only the name of the backing file is changed");
    }
    rebase.image.filename = argv[optind];
    if (rebase.dry_run) {
        rebase.image.flags &= ~BDRV_O_RDWR;
    }
    rebase.image.flags |= rebase.unsafe ? BDRV_O_NO_BACKING : 0;
    img_progress_start(rebase.progress && !rebase.quiet, IMG_PROGRESS_BYTES, 1);
    img_progress_begin();
    status = img_take_cache(rebase.cache, "cache mode", &rebase.image.flags) &&
                     img_take_cache(rebase.source_cache, "source cache mode", &rebase.backing.flags)
                 ? rebase_image(&rebase)
                 : 1;
    img_progress_end();
    return status;
}
