/* SPDX-License-Identifier: MIT */
/* dd: copy part of an image, with the operands of dd(1). */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "tools/img/img.h"

typedef struct Dd {
    const char *input, *output;
    int64_t block_size, count, skip; /* count -1: all; skip in blocks */
} Dd;

static bool parse_operand(Dd *dd, const char *operand)
{
    const char *equals = strchr(operand, '=');
    g_autofree char *name = equals ? g_strndup(operand, equals - operand) : g_strdup(operand);
    const char *value = equals ? equals + 1 : "";

    if (!equals) {
        tool_error("unrecognized operand %s", operand);
        return false;
    }
    if (strcmp(name, "if") == 0) {
        dd->input = value;
    } else if (strcmp(name, "of") == 0) {
        dd->output = value;
    } else if (strcmp(name, "count") == 0) {
        return img_parse_size(value, "count", &dd->count);
    } else if (strcmp(name, "skip") == 0) {
        return img_parse_size(value, "skip", &dd->skip);
    } else if (strcmp(name, "bs") == 0) {
        if (!img_parse_size(value, "bs", &dd->block_size)) {
            return false;
        }
        if (dd->block_size < 1 || dd->block_size > INT32_MAX) {
            tool_error("Invalid bs specified. Must be between 1 and %d.", INT32_MAX);
            return false;
        }
    } else {
        tool_error("unrecognized operand %s", name);
        return false;
    }
    return true;
}

static bool times(int64_t blocks, int64_t block_size, int64_t *bytes)
{
    return !__builtin_mul_overflow(blocks, block_size, bytes);
}

/*
 * Which bytes: `count` blocks from the start of the input (as qemu-img has it: the blocks skipped
 * count too), less those skipped.
 */
static void find_range(const Dd *dd, int64_t length, int64_t *start, int64_t *bytes)
{
    int64_t end;

    if (dd->count < 0 || !times(dd->count, dd->block_size, &end) || end > length) {
        end = length;
    }
    if (!times(dd->skip, dd->block_size, start) || *start > end) {
        tool_error("%s: cannot skip to specified offset", dd->input);
        *start = end;
    }
    *bytes = end - *start;
}

static int copy(const Dd *dd, const ToolImage *input, const char *output_format)
{
    g_autoptr(BdrvGraph) graph = tool_graph();
    ToolImage target = { .filename = dd->output, .format = output_format, .flags = BDRV_O_RDWR | BDRV_O_RESIZE };
    BlockBackend *source = img_open(graph, input);
    ImgTransfer transfer = { .sources = &source, .source_count = 1, .coroutines = 8, .base_depth = -1 };
    int status = 1;

    if (!source) {
        return 1;
    }
    img_interrupt_catch();
    find_range(dd, blk_length(source), &transfer.source_start, &transfer.length);
    if (img_create_image(graph, output_format, dd->output, NULL, transfer.length, false, false)) {
        transfer.target = img_open(graph, &target);
    }
    if (transfer.target) {
        status = img_transfer(&transfer) < 0 ? 1 : 0;
        if (!img_close(transfer.target, dd->output)) {
            status = 1;
        }
    }
    img_close(source, dd->input);
    return status;
}

int img_dd(int argc, char **argv)
{
    ToolImage input = { 0 };
    const char *output_format = "raw";
    Dd dd = { .block_size = 512, .count = -1 };
    int option;

    while ((option = img_next_option(argc, argv)) != -1) {
        switch (option) {
        case 'h': return 0;
        case 'f': input.format = optarg; break;
        case 'O': output_format = optarg; break;
        case 'U': input.flags |= BDRV_O_FORCE_SHARE; break;
        case IMG_OPTION_IMAGE_OPTS: input.image_opts = true; break;
        default: return 1;
        }
    }
    for (int i = optind; i < argc; i++) {
        if (!parse_operand(&dd, argv[i])) {
            return 1;
        }
    }
    if (!dd.input || !dd.output) {
        tool_error("Must specify both input and output files");
        return 1;
    }
    input.filename = dd.input;
    return copy(&dd, &input, output_format);
}
