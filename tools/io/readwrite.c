/* SPDX-License-Identifier: MIT */
/* read, readv, write, writev, flush, discard: the commands that wait for their request. */
#include "tools/io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* The state of the machine goes by sectors. */
static bool check_vmstate(const IoTransfer *transfer)
{
    if (transfer->offset % 512) {
        printf("%" PRId64 " is not a sector-aligned value for 'offset'\n", transfer->offset);
    } else if (transfer->bytes % 512) {
        printf("%" PRId64 " is not a sector-aligned value for 'count'\n", transfer->bytes);
    }
    return transfer->offset % 512 == 0 && transfer->bytes % 512 == 0;
}

static bool parse_length(const char *text, int64_t *bytes)
{
    if (!io_parse_number(text, bytes)) {
        return false;
    }
    if (*bytes > IO_MAX_BYTES) {
        printf("length cannot exceed %" PRId64 ", given %s\n", IO_MAX_BYTES, text);
        return false;
    }
    return true;
}

/* Which part of the data read -P looks at; texts: NULL if not given */
static bool parse_verify_range(IoTransfer *read, const char *start, const char *length)
{
    if (start && !io_parse_number(start, &read->verify_start)) {
        return false;
    }
    read->verify_length = read->bytes - read->verify_start;
    if (length && !io_parse_number(length, &read->verify_length)) {
        return false;
    }
    if (read->verify_length < 0 || read->verify_start > read->bytes ||
        read->verify_length > read->bytes - read->verify_start) {
        printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
}

int io_read(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("read");
    IoTransfer read = { .reads = true, .operation = "read", .verb = "read" };
    const char *verify_start = NULL, *verify_length = NULL;
    bool vmstate = false;
    int option, ret;

    while ((option = getopt(argc, argv, "abCl:pP:qs:v")) != -1) {
        switch (option) {
        case 'b': vmstate = true; break;
        case 'l': verify_length = optarg; break;
        case 'a':
        case 'p': break; /* kept for old scripts: they change nothing */
        case 's': verify_start = optarg; break;
        default:
            ret = io_transfer_option(&read, option, self);
            if (ret < 0) {
                return ret;
            }
        }
    }
    if (optind != argc - 2 || (!read.has_pattern && (verify_start || verify_length))) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &read.offset) || !parse_length(argv[optind + 1], &read.bytes) ||
        (read.has_pattern && !parse_verify_range(&read, verify_start, verify_length)) ||
        (vmstate && !check_vmstate(&read))) {
        return -EINVAL;
    }
    if (!io_transfer_buffer(&read, session->blk)) {
        return -ENOMEM;
    }
    read.began = io_now();
    ret = vmstate ? blk_load_vmstate(session->blk, read.offset, &read.buffer.iov)
                  : blk_preadv(session->blk, read.offset, &read.buffer.iov, 0);
    return io_transfer_end(&read, ret);
}

int io_readv(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("readv");
    IoTransfer read = { .reads = true, .operation = "readv", .verb = "read" };
    int ret = io_transfer_options(&read, argc, argv, "CP:qv", self);

    ret = ret < 0 ? ret : io_transfer_vector(&read, session->blk, argc, argv, self);
    if (ret < 0) {
        return ret;
    }
    read.began = io_now();
    return io_transfer_end(&read, blk_preadv(session->blk, read.offset, &read.buffer.iov, 0));
}

/* Fill the buffer with the content of a file, over and over */
static bool fill_from_file(IoBuffer *buffer, const char *filename)
{
    g_autofree char *content = NULL;
    size_t size = 0, n;
    FILE *file = fopen(filename, "rb");

    if (!file) {
        fprintf(stderr, "%s: %s\n", filename, strerror(errno));
        return false;
    }
    content = g_try_malloc(MAX(buffer->iov.bytes, 1));
    if (content) {
        size = fread(content, 1, MAX(buffer->iov.bytes, 1), file);
    }
    if (!content || ferror(file)) {
        fprintf(stderr, "%s: %s\n", filename, content ? strerror(errno) : "out of memory");
        fclose(file);
        return false;
    }
    fclose(file);
    if (size == 0) {
        fprintf(stderr, "%s: file is empty\n", filename);
        return false;
    }
    for (size_t at = 0; at < buffer->iov.bytes; at += n) {
        n = MIN(size, buffer->iov.bytes - at);
        memcpy(buffer->data + at, content, n);
    }
    return true;
}

/* What write is given besides the options of every transfer */
typedef struct WriteSwitches {
    bool vmstate, compressed;
    const char *pattern_file;
} WriteSwitches;

static bool check_write(const IoTransfer *write, const WriteSwitches *switches)
{
    const char *wrong = NULL;

    if (switches->vmstate && write->zeroes) {
        wrong = "-b and -z cannot be specified at the same time";
    } else if ((write->flags & BDRV_REQ_FUA) && (switches->vmstate || switches->compressed)) {
        wrong = "-f and -b or -c cannot be specified at the same time";
    } else if (write->zeroes + write->has_pattern + (switches->pattern_file != NULL) > 1) {
        wrong = "Only one of -z, -P, and -s can be specified at the same time";
    } else if ((write->flags & BDRV_REQ_NO_FALLBACK) && !write->zeroes) {
        wrong = "-n requires -z to be specified";
    } else if ((write->flags & BDRV_REQ_MAY_UNMAP) && !write->zeroes) {
        wrong = "-u requires -z to be specified";
    }
    if (wrong) {
        printf("%s\n", wrong);
    }
    return !wrong;
}

static int write_data(IoSession *session, IoTransfer *write, const WriteSwitches *switches)
{
    int ret;

    write->began = io_now();
    if (write->zeroes) {
        return io_transfer_end(write,
                               blk_pwrite_zeroes(session->blk, write->offset, write->bytes, write->flags));
    }
    if (!io_transfer_buffer(write, session->blk)) {
        return io_transfer_end(write, -ENOMEM);
    }
    if (switches->pattern_file && !fill_from_file(&write->buffer, switches->pattern_file)) {
        io_buffer_free(&write->buffer);
        return -EINVAL;
    }
    ret = switches->vmstate ? blk_save_vmstate(session->blk, write->offset, &write->buffer.iov)
                            : blk_pwritev(session->blk, write->offset, &write->buffer.iov, write->flags);
    return io_transfer_end(write, ret);
}

int io_write(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("write");
    IoTransfer write = { .operation = "write", .verb = "wrote" };
    WriteSwitches switches = { 0 };
    int option, ret;

    while ((option = getopt(argc, argv, "bcCfnpP:qs:uz")) != -1) {
        switch (option) {
        case 'b': switches.vmstate = true; break;
        case 'c': switches.compressed = true; break;
        case 'p': break;
        case 's': switches.pattern_file = optarg; break;
        default:
            ret = io_transfer_option(&write, option, self);
            if (ret < 0) {
                return ret;
            }
        }
    }
    if (optind != argc - 2) {
        return io_usage(self);
    }
    if (!check_write(&write, &switches)) {
        return -EINVAL;
    }
    if (switches.compressed && !write.zeroes) {
        write.flags |= BDRV_REQ_COMPRESSED; /* zeroes take no space anyway */
    }
    if (!io_parse_number(argv[optind], &write.offset) || !io_parse_number(argv[optind + 1], &write.bytes)) {
        return -EINVAL;
    }
    if (write.bytes > IO_MAX_BYTES && !(write.flags & BDRV_REQ_NO_FALLBACK)) {
        printf("length cannot exceed %" PRId64 " without -n, given %s\n", IO_MAX_BYTES, argv[optind + 1]);
        return -EINVAL;
    }
    if (switches.vmstate && !check_vmstate(&write)) {
        return -EINVAL;
    }
    return write_data(session, &write, &switches);
}

int io_writev(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("writev");
    IoTransfer write = { .operation = "writev", .verb = "wrote" };
    int ret = io_transfer_options(&write, argc, argv, "CfP:q", self);

    ret = ret < 0 ? ret : io_transfer_vector(&write, session->blk, argc, argv, self);
    if (ret < 0) {
        return ret;
    }
    write.began = io_now();
    return io_transfer_end(&write, blk_pwritev(session->blk, write.offset, &write.buffer.iov, write.flags));
}

int io_flush(IoSession *session, int argc, char **argv)
{
    int ret = blk_flush(session->blk);

    if (ret < 0) {
        tool_error("flush failed: %s", strerror(-ret));
    }
    return ret;
}

int io_discard(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("discard");
    IoTransfer discard = { .operation = "discard", .verb = "discard" };
    int ret = io_transfer_options(&discard, argc, argv, "Cq", self);

    if (ret < 0) {
        return ret;
    }
    if (optind != argc - 2) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &discard.offset) || !parse_length(argv[optind + 1], &discard.bytes)) {
        return -EINVAL;
    }
    discard.began = io_now();
    return io_transfer_end(&discard, blk_pdiscard(session->blk, discard.offset, discard.bytes));
}
