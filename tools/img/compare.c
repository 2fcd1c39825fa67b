/* SPDX-License-Identifier: MIT */
/* compare: do two images read the same? Exit codes: 0 identical, 1 different, 2 and more: an error. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

enum { IDENTICAL = 0, DIFFERENT = 1, FAILED_OPEN = 2, FAILED_STATUS = 3, FAILED_READ = 4 };
enum { CHUNK = 2 << 20 };

typedef struct Side {
    BlockBackend *blk;
    const char *filename;
    int64_t length;
    uint8_t *buffer;
    ImgExtent known;
} Side;

typedef struct Comparison {
    Side sides[2];
    bool strict, quiet, progress;
} Comparison;

static int find_extent(Side *side, int64_t offset, int64_t bytes, BlockExtent *extent)
{
    if (img_extent_known(&side->known, side->blk, offset, extent)) {
        extent->bytes = MIN(extent->bytes, bytes);
        return 0;
    }
    int ret = blk_block_status_above(side->blk, offset, bytes, extent);
    if (ret >= 0) {
        img_extent_keep(&side->known, side->blk, offset, extent);
    }
    return ret;
}

static int fail(const Side *side, const char *what, int64_t offset, int ret, int status)
{
    tool_error("Error while %s offset %" PRId64 " of %s: %s", what, offset, side->filename, strerror(-ret));
    return status;
}

/* What is found out goes on a line of its own, below the bar. */
static void say(const Comparison *comparison, const char *text)
{
    if (!comparison->quiet) {
        img_progress_give_way();
        printf("%s\n", text);
    }
}

static int different(const Comparison *comparison, const char *format, int64_t offset)
{
    if (!comparison->quiet) {
        g_autofree char *text = g_strdup_printf("%" PRId64, offset);
        g_auto(GStrv) parts = g_strsplit(format, "%", 2);
        img_progress_give_way();
        printf("%s%s%s\n", parts[0], text, parts[1]);
    }
    return DIFFERENT;
}

static int read_side(const Side *side, int64_t offset, int64_t bytes)
{
    int ret = blk_pread(side->blk, offset, bytes, side->buffer, 0);

    return ret < 0 ? fail(side, "reading", offset, ret, FAILED_READ) : 0;
}

/* First byte at which the buffers differ, a multiple of 512 from the start; @bytes if none does */
static int64_t first_difference(const uint8_t *a, const uint8_t *b, int64_t bytes)
{
    for (int64_t at = 0; at < bytes; at += 512) {
        if (memcmp(a + at, b + at, MIN(512, bytes - at)) != 0) {
            return at;
        }
    }
    return bytes;
}

/* One side has data: the other must read the same, or as zeroes where it has none. */
static int compare_content(const Comparison *comparison, int64_t offset, int64_t bytes, const BlockExtent *extents)
{
    for (int i = 0; i < 2; i++) {
        if (img_has_data(&extents[i])) {
            int status = read_side(&comparison->sides[i], offset, bytes);

            if (status) {
                return status;
            }
        } else {
            memset(comparison->sides[i].buffer, 0, bytes);
        }
    }
    int64_t at = first_difference(comparison->sides[0].buffer, comparison->sides[1].buffer, bytes);
    return at == bytes ? IDENTICAL : different(comparison, "Content mismatch at offset %!", offset + at);
}

/* Compare [@offset, @end) of both; a side that is shorter has been cut off by the caller. */
static int compare_range(Comparison *comparison, int64_t end)
{
    for (int64_t offset = 0; offset < end;) {
        BlockExtent extents[2];
        int64_t bytes = MIN(end - offset, CHUNK);
        int status = IDENTICAL;

        for (int i = 0; i < 2; i++) {
            Side *side = &comparison->sides[i];
            int ret = find_extent(side, offset, end - offset, &extents[i]);

            if (ret < 0) {
                return fail(side, "getting the status of", offset, ret, FAILED_STATUS);
            }
        }
        if (!img_has_data(&extents[0]) && !img_has_data(&extents[1])) {
            bytes = end - offset;
        }
        bytes = MIN(bytes, MIN(extents[0].bytes, extents[1].bytes));
        if (comparison->strict &&
            (extents[0].kind != extents[1].kind || extents[0].present != extents[1].present ||
             (extents[0].host_offset < 0) != (extents[1].host_offset < 0))) {
            return different(comparison, "Strict mode: Offset % block status mismatch!", offset);
        }
        if (img_has_data(&extents[0]) || img_has_data(&extents[1])) {
            status = compare_content(comparison, offset, bytes, extents);
        }
        if (status != IDENTICAL) {
            return status;
        }
        offset += bytes;
        img_progress_update(offset, MAX(comparison->sides[0].length, comparison->sides[1].length));
    }
    return IDENTICAL;
}

/* What the longer image has beyond the end of the other must be zeroes. */
static int check_rest(const Comparison *comparison, Side *longer, int64_t start)
{
    for (int64_t offset = start; offset < longer->length;) {
        BlockExtent extent;
        int ret = find_extent(longer, offset, longer->length - offset, &extent);
        int64_t bytes;

        if (ret < 0) {
            return fail(longer, "getting the status of", offset, ret, FAILED_STATUS);
        }
        bytes = extent.bytes;
        if (img_has_data(&extent)) {
            bytes = MIN(bytes, CHUNK);
            int status = read_side(longer, offset, bytes);

            if (status) {
                return status;
            }
            for (int64_t at = 0; at < bytes; at += 512) {
                if (!bdrv_buffer_is_zero(longer->buffer + at, MIN(512, bytes - at))) {
                    return different(comparison, "Content mismatch at offset %!", offset + at);
                }
            }
        }
        offset += bytes;
        img_progress_update(offset, longer->length);
    }
    return IDENTICAL;
}

static int compare(Comparison *comparison)
{
    Side *a = &comparison->sides[0], *b = &comparison->sides[1];
    int64_t common = MIN(a->length, b->length);
    int status;

    if (a->length != b->length) {
        if (comparison->strict) {
            say(comparison, "Strict mode: Image size mismatch!");
            return DIFFERENT;
        }
    }
    status = compare_range(comparison, common);
    if (status == IDENTICAL && a->length != b->length) {
        say(comparison, "Warning: Image size mismatch!");
        status = check_rest(comparison, a->length > b->length ? a : b, common);
    }
    if (status == IDENTICAL) {
        say(comparison, "Images are identical.");
    }
    return status;
}

static int open_and_compare(Comparison *comparison, ToolImage *images)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    int status = FAILED_OPEN;

    for (int i = 0; i < 2; i++) {
        Side *side = &comparison->sides[i];

        side->filename = images[i].filename;
        side->blk = img_open(graph, &images[i]);
        if (!side->blk) {
            goto out;
        }
        side->length = blk_length(side->blk);
        side->buffer = blk_blockalign(side->blk, CHUNK);
        if (!side->buffer) {
            tool_error("cannot allocate a buffer of %d bytes", CHUNK);
            goto out;
        }
    }
    img_progress_begin();
    status = compare(comparison);
out:
    for (int i = 0; i < 2; i++) {
        bdrv_vfree(comparison->sides[i].buffer);
        if (comparison->sides[i].blk) {
            img_close(comparison->sides[i].blk, comparison->sides[i].filename);
        }
    }
    return status;
}

int img_compare(int argc, char **argv)
{
    ToolImage images[2] = { 0 };
    Comparison comparison = { 0 };
    const char *cache = NULL;
    int option, status;

    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 'h': return 0;
        case 'f': images[0].format = optarg; break;
        case 'F': images[1].format = optarg; break;
        case 'T': cache = optarg; break;
        case 'p': comparison.progress = true; break;
        case 'q': comparison.quiet = true; break;
        case 's': comparison.strict = true; break;
        case 'U': images[0].flags |= BDRV_O_FORCE_SHARE; break;
        case IMG_OPTION_OBJECT: return FAILED_OPEN;
        case IMG_OPTION_IMAGE_OPTS: images[0].image_opts = true; break;
        default: return 1;
        }
    }
    if (optind != argc - 2) {
        return img_usage_error("Expecting two image file names");
    }
    img_progress_start(comparison.progress && !comparison.quiet, IMG_PROGRESS_BYTES, 2);
    status = img_take_cache(cache, "source cache mode", &images[0].flags) ? 0 : FAILED_OPEN;
    images[1].flags = images[0].flags;
    images[1].image_opts = images[0].image_opts;
    images[0].filename = argv[optind];
    images[1].filename = argv[optind + 1];
    status = status ? status : open_and_compare(&comparison, images);
    img_progress_end();
    return status;
}
