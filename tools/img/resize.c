/* SPDX-License-Identifier: MIT */
/* resize: give an image another length. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

/* "20G", "+1G" or "-1G", relative to @length */
static bool parse_target(const char *text, int64_t length, int64_t *target)
{
    g_autoptr(GError) error = NULL;
    char sign = *text == '+' || *text == '-' ? *text++ : 0;
    int64_t bytes;

    if (!bdrv_parse_size(text, &bytes, &error)) {
        tool_error("Parameter 'size' expects a non-negative number below 2^64\n"
                   "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"
                   "and exabytes, respectively.");
        return false;
    }
    if (sign == '+' && bytes > INT64_MAX - length) {
        tool_error("the new size, %" PRId64 " + %" PRId64 ", is more than %" PRId64, length, bytes, INT64_MAX);
        return false;
    }
    *target = sign == '+' ? length + bytes : sign == '-' ? length - bytes : bytes;
    if (*target <= 0) {
        tool_error("New image size must be positive");
        return false;
    }
    return true;
}

/* Bytes of it, of any layer, past @target. */
static int64_t data_past(BlockBackend *blk, int64_t target)
{
    int64_t length = blk_length(blk), data = 0;
    BlockExtent extent;

    for (int64_t offset = target; offset < length; offset += extent.bytes) {
        int ret = blk_block_status_above(blk, offset, length - offset, &extent);

        if (ret < 0) {
            return ret;
        }
        data += img_has_data(&extent) ? extent.bytes : 0;
    }
    return data;
}

static int tell_dry_run(BlockBackend *blk, int64_t target, BdrvPrealloc prealloc, bool quiet)
{
    int64_t length = blk_length(blk), data = data_past(blk, target);
    GError *error = NULL;

    if (!blk_check_truncate(blk, target, true, prealloc, &error)) {
        tool_report(NULL, error);
        return 1;
    }
    if (data < 0) {
        tool_error("Could not look at what lies past the new end: %s", strerror((int)-data));
        return 1;
    }
    if (quiet) {
        return 0;
    }
    printf("Dry run: nothing was changed.\n"
           "'%s' would be resized from %" PRId64 " to %" PRId64 " bytes.\n", blk_filename(blk), length, target);
    if (target < length) {
        printf("%" PRId64 " bytes of data would be lost.\n", data);
    } else if (prealloc != BDRV_PREALLOC_OFF) {
        printf("%" PRId64 " bytes would be preallocated.\n", target - length);
    }
    return 0;
}

static int resize(BlockBackend *blk, const char *size, BdrvPrealloc prealloc, bool shrink, bool dry_run, bool quiet)
{
    int64_t length = blk_length(blk), target;
    GError *error = NULL;

    if (!parse_target(size, length, &target)) {
        return 1;
    }
    if (target <= length && prealloc != BDRV_PREALLOC_OFF) {
        tool_error("Preallocation can only be used for growing images");
        return 1;
    }
    if (target < length && !shrink) {
        tool_error("Use the --shrink option to perform a shrink operation.");
        tool_warning("Shrinking an image will delete all data beyond the shrunken image's end. Before performing "
                     "such an operation, make sure there is no important data there.");
        return 1;
    }
    if (dry_run) {
        return tell_dry_run(blk, target, prealloc, quiet);
    }
    if (!blk_truncate(blk, target, true, prealloc, 0, &error)) {
        tool_report(NULL, error);
        return 1;
    }
    if (!quiet) {
        printf("Image resized.\n");
    }
    return 0;
}

int img_resize(int argc, char **argv)
{
    g_autoptr(BdrvGraph) graph = NULL;
    ToolImage image = { .flags = BDRV_O_RDWR | BDRV_O_RESIZE };
    BdrvPrealloc prealloc = BDRV_PREALLOC_OFF;
    bool quiet = false, shrink = false, dry_run = false;
    const char *size;
    BlockBackend *blk;
    int option, status;

    /* The size comes last and may look like an option: "-1G". */
    size = argc >= 3 ? argv[--argc] : NULL;
    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 'h': return 0;
        case 'f': image.format = optarg; break;
        case 'q': quiet = true; break;
        case IMG_OPTION_IMAGE_OPTS: image.image_opts = true; break;
        case IMG_OPTION_PREALLOCATION:
            if (!tool_parse_prealloc(optarg, &prealloc)) {
                return 1;
            }
            break;
        case IMG_OPTION_DRY_RUN:
            dry_run = true;
            image.flags = 0;
            break;
        case IMG_OPTION_SHRINK: shrink = true; break;
        default: return 1;
        }
    }
    if (!size) {
        return img_usage_error("Not enough arguments");
    }
    if (optind != argc - 1) {
        return img_usage_error("Expecting image file name and size");
    }
    image.filename = argv[optind];
    graph = tool_graph();
    blk = img_open(graph, &image);
    if (!blk) {
        return 1;
    }
    status = resize(blk, size, prealloc, shrink, dry_run, quiet);
    if (!img_close(blk, image.filename)) {
        status = 1;
    }
    return status;
}
