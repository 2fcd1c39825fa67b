/* SPDX-License-Identifier: MIT */
/* What the commands that move data have in common: their options, "offset length …", and what they show. */
#include "tools/io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_PATTERN = 0xcd, READ_FILL = 0xab };

int io_transfer_option(IoTransfer *transfer, int option, const IoCommand *self)
{
    switch (option) {
    case 'C': transfer->machine_readable = true; break;
    case 'f': transfer->flags |= BDRV_REQ_FUA; break;
    case 'n': transfer->flags |= BDRV_REQ_NO_FALLBACK; break;
    case 'P':
        if (!io_parse_pattern(optarg, &transfer->pattern)) {
            return -EINVAL;
        }
        transfer->has_pattern = true;
        break;
    case 'q': transfer->quiet = true; break;
    case 'u': transfer->flags |= BDRV_REQ_MAY_UNMAP; break;
    case 'v': transfer->verbose = true; break;
    case 'z': transfer->zeroes = true; break;
    default: return io_usage(self);
    }
    return 0;
}

int io_transfer_options(IoTransfer *transfer, int argc, char **argv, const char *options, const IoCommand *self)
{
    int option, ret = 0;

    while (ret == 0 && (option = getopt(argc, argv, options)) != -1) {
        ret = io_transfer_option(transfer, option, self);
    }
    return ret;
}

/* What a buffer is filled with at first */
static int fill_byte(const IoTransfer *transfer)
{
    return transfer->reads ? READ_FILL : transfer->has_pattern ? transfer->pattern : DEFAULT_PATTERN;
}

bool io_transfer_buffer(IoTransfer *transfer, BlockBackend *blk)
{
    return io_buffer_init_size(&transfer->buffer, blk, transfer->bytes, fill_byte(transfer));
}

int io_transfer_vector(IoTransfer *transfer, BlockBackend *blk, int argc, char **argv, const IoCommand *self)
{
    if (optind > argc - 2) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &transfer->offset) ||
        !io_buffer_init(&transfer->buffer, blk, argv + optind + 1, argc - optind - 1, fill_byte(transfer))) {
        return -EINVAL;
    }
    transfer->bytes = transfer->verify_length = transfer->buffer.iov.bytes;
    return 0;
}

static bool verify(const IoTransfer *transfer)
{
    if (io_buffer_is(&transfer->buffer, transfer->verify_start, transfer->verify_length, transfer->pattern)) {
        return true;
    }
    printf("Pattern verification failed at offset %" PRId64 ", %" PRId64 " bytes\n",
           transfer->offset + transfer->verify_start, transfer->verify_length);
    return false;
}

int io_transfer_end(IoTransfer *transfer, int ret)
{
    if (ret < 0) {
        printf("%s failed: %s\n", transfer->operation, strerror(-ret));
    } else {
        ret = transfer->reads && transfer->has_pattern && !verify(transfer) ? -EINVAL : 0;
        if (!transfer->quiet) {
            if (transfer->verbose) {
                io_dump(transfer->buffer.data, transfer->offset, transfer->bytes);
            }
            io_report(transfer->verb, transfer->began, transfer->offset, transfer->bytes, transfer->bytes, 1,
                      transfer->machine_readable);
        }
    }
    io_buffer_free(&transfer->buffer);
    return ret;
}
