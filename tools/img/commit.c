/* SPDX-License-Identifier: MIT */
/* commit: write what an image has into its backing file, or into one further down. */
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "tools/img/img.h"

typedef struct Commit {
    ToolImage image;
    const char *base; /* -b; NULL: the backing file */
    const char *cache;
    bool keep, quiet, progress, dry_run;
    BlkCommitOptions options;
} Commit;

/* The layer to write to. */
typedef struct Base {
    unsigned depth;
    char *filename, *driver;
} Base;

/* -1: go on; else the exit code */
static int take_option(Commit *commit, int option, char **argv)
{
    switch (option) {
    case 'b': commit->base = optarg; return -1;
    case 'd': commit->keep = true; return -1;
    case 'f': commit->image.format = optarg; return -1;
    case 'h': return 0;
    case 'p': commit->progress = true; return -1;
    case 'q': commit->quiet = true; return -1;
    case 'r': return img_parse_size(optarg, "rate limit", &commit->options.rate_limit) ? -1 : 1;
    case 't': commit->cache = optarg; return -1;
    case IMG_OPTION_DRY_RUN: commit->dry_run = true; return -1;
    case IMG_OPTION_IMAGE_OPTS: commit->image.image_opts = true; return -1;
    default: return 1;
    }
}

static bool same_file(const char *a, const char *b)
{
    char full_a[PATH_MAX], full_b[PATH_MAX];

    return a && b && (strcmp(a, b) == 0 || (realpath(a, full_a) && realpath(b, full_b) && strcmp(full_a, full_b) == 0));
}

/* The name may be as the image stores it, or as it is found from here. */
static bool find_base(const Commit *commit, BlockBackend *blk, Base *base)
{
    g_autofree char *stored = NULL;
    BdrvLayer layer;

    for (unsigned depth = 0; blk_layer(blk, depth, &layer); depth++) {
        bool found = depth > 0 && (!commit->base || g_strcmp0(stored, commit->base) == 0 ||
                                   same_file(layer.filename, commit->base));

        if (found) {
            *base = (Base){ depth, g_strdup(layer.filename), g_strdup(layer.driver) };
            return true;
        }
        g_free(stored);
        stored = g_strdup(layer.backing_filename);
    }
    img_progress_give_way();
    if (commit->base) {
        tool_error("Did not find '%s' in the backing chain of '%s'", commit->base, commit->image.filename);
    } else {
        tool_error("Image does not have a backing file");
    }
    return false;
}

/* Look at the whole chain; everything is closed again. */
static bool look_for_base(const Commit *commit, Base *base)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    ToolImage image = commit->image;

    image.flags &= TOOL_CACHE_FLAGS;
    BlockBackend *blk = img_open(graph, &image);

    if (blk) {
        img_progress_start(commit->progress && !commit->quiet, IMG_PROGRESS_BYTES, 1);
        img_progress_begin();
    }
    bool ok = blk && find_base(commit, blk, base);
    return blk && img_close(blk, commit->image.filename) && ok;
}

/* The chain down to the layer above the base. */
static BlockBackend *open_top(const Commit *commit, const Base *base, BdrvGraph *graph)
{
    ToolImage image = commit->image;
    g_autoptr(BdrvOptions) extra = NULL;

    if (base->depth == 1) {
        image.flags |= BDRV_O_NO_BACKING;
    } else {
        g_autoptr(GString) key = g_string_new("backing");

        for (unsigned i = 1; i < base->depth; i++) {
            g_string_append(key, ".backing");
        }
        extra = bdrv_options_new();
        bdrv_options_set_null(extra, key->str);
        image.extra = extra;
    }
    return img_open(graph, &image);
}

static void tell_dry_run(const Commit *commit, BlockBackend *top, BlockBackend *base, const BlkCommitOptions *options)
{
    int64_t from = blk_length(base), to = blk_length(top);

    printf("Dry run: nothing was changed.\n"
           "%" PRId64 " bytes of data would be copied to '%s', and %" PRId64 " bytes zeroed there.\n",
           options->moved->data, blk_filename(base), options->moved->zeroes);
    if (from < to) {
        printf("'%s' would grow from %" PRId64 " to %" PRId64 " bytes.\n", blk_filename(base), from, to);
    }
    printf("'%s' would be %s.\n", commit->image.filename, options->keep_top ? "kept as it is" : "emptied");
}

static int commit_opened(const Commit *commit, BlockBackend *top, BlockBackend *base)
{
    BlkCommitOptions options = commit->options;
    BlkMoved moved;
    GError *error = NULL;

    options.progress = img_progress_report;
    options.moved = &moved;
    options.dry_run = commit->dry_run;
    options.keep_top = commit->keep || commit->base; /* what lies between may have become another disk */
    bool ok = blk_commit(top, base, &options, &error);
    if (ok) {
        img_progress_complete();
    }
    img_progress_end();
    if (!ok) {
        tool_report(NULL, error);
    } else if (commit->dry_run && !commit->quiet) {
        tell_dry_run(commit, top, base, &options);
    }
    return ok ? 0 : 1;
}

static int commit_to(const Commit *commit, const Base *found)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    ToolImage image = {
        .filename = found->filename,
        .format = found->driver,
        .flags = commit->image.flags | (commit->dry_run ? 0 : BDRV_O_RESIZE),
    };
    BlockBackend *top = open_top(commit, found, graph), *base = top ? img_open(graph, &image) : NULL;
    int status = base ? commit_opened(commit, top, base) : 1;

    status = base && !img_close(base, image.filename) ? 1 : status;
    status = top && !img_close(top, commit->image.filename) ? 1 : status;
    if (status == 0 && !commit->quiet && !commit->dry_run) {
        printf("Image committed.\n");
    }
    return status;
}

int img_commit(int argc, char **argv)
{
    Commit commit = { .image.flags = BDRV_O_RDWR | BDRV_O_UNMAP };
    Base base = { 0 };
    int option, status;

    while ((option = img_next_option(argc, argv)) != -1) {
        status = take_option(&commit, option, argv);
        if (status >= 0) {
            return status;
        }
    }
    if (optind != argc - 1) {
        return img_usage_error("Expecting one image file name");
    }
    commit.image.filename = argv[optind];
    if (commit.dry_run) {
        commit.image.flags &= ~(BDRV_O_RDWR | BDRV_O_UNMAP);
    }
    bool ok = img_take_cache(commit.cache, "cache mode", &commit.image.flags) && look_for_base(&commit, &base);
    status = ok ? commit_to(&commit, &base) : 1;
    img_progress_end();
    g_free(base.filename);
    g_free(base.driver);
    return status;
}
