/* SPDX-License-Identifier: MIT */
/* read, readv, write, writev, flush, discard: the commands that wait for their request. */
#include "tools/io/io.h"

#include <bdrv/driver.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEFAULT_PATTERN = 0xcd, READ_FILL = 0xab };

typedef struct IoSwitches {
    bool machine_readable, quiet, verbose, verify, fua, zeroes, unmap, no_fallback, has_pattern;
    int pattern;
    const char *pattern_file;
    const char *verify_offset, *verify_length;
} IoSwitches;

static int fail_not_built(const char *what)
{
    printf("%s is not built yet\n", what);
    return -ENOTSUP;
}

static int fail(const char *operation, int ret)
{
    printf("%s failed: %s\n", operation, strerror(-ret));
    return ret;
}

static bool check_pattern(const IoBuffer *buffer, const IoSwitches *switches, int64_t offset, int64_t start,
                          int64_t bytes)
{
    if (io_buffer_is(buffer, start, bytes, switches->pattern)) {
        return true;
    }
    printf("Pattern verification failed at offset %" PRId64 ", %" PRId64 " bytes\n", offset + start, bytes);
    return false;
}

/* Which part of the data read -P looks at */
static bool verify_range(const IoSwitches *switches, int64_t bytes, int64_t *start, int64_t *length)
{
    *start = 0;
    if (switches->verify_offset && !io_parse_number(switches->verify_offset, start)) {
        return false;
    }
    *length = bytes - *start;
    if (switches->verify_length && !io_parse_number(switches->verify_length, length)) {
        return false;
    }
    if (*length < 0 || *start > bytes || *length > bytes - *start) {
        printf("pattern verification range exceeds end of read data\n");
        return false;
    }
    return true;
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

int io_read(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("read");
    IoSwitches switches = { 0 };
    IoBuffer buffer;
    int64_t offset, bytes, start = 0, length = 0;
    struct timespec began;
    int option, ret;

    while ((option = getopt(argc, argv, "abCl:pP:qs:v")) != -1) {
        switch (option) {
        case 'b': return fail_not_built("reading the VM state (-b)");
        case 'C': switches.machine_readable = true; break;
        case 'l': switches.verify_length = optarg; break;
        case 'a':
        case 'p': break; /* kept for old scripts: they change nothing */
        case 'P':
            if (!io_parse_pattern(optarg, &switches.pattern)) {
                return -EINVAL;
            }
            switches.verify = true;
            break;
        case 'q': switches.quiet = true; break;
        case 's': switches.verify_offset = optarg; break;
        case 'v': switches.verbose = true; break;
        default: return io_usage(self);
        }
    }
    if (optind != argc - 2 || (!switches.verify && (switches.verify_offset || switches.verify_length))) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &offset) || !parse_length(argv[optind + 1], &bytes) ||
        (switches.verify && !verify_range(&switches, bytes, &start, &length))) {
        return -EINVAL;
    }
    if (!io_buffer_init_size(&buffer, session->blk, bytes, READ_FILL)) {
        return -ENOMEM;
    }
    began = io_now();
    ret = blk_preadv(session->blk, offset, &buffer.iov, 0);
    if (ret < 0) {
        fail("read", ret);
        goto out;
    }
    if (switches.verify && !check_pattern(&buffer, &switches, offset, start, length)) {
        ret = -EINVAL;
    }
    if (switches.quiet) {
        goto out;
    }
    if (switches.verbose) {
        io_dump(buffer.data, offset, bytes);
    }
    io_report("read", began, offset, bytes, bytes, 1, switches.machine_readable);
out:
    io_buffer_free(&buffer);
    return ret;
}

int io_readv(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("readv");
    IoSwitches switches = { 0 };
    IoBuffer buffer;
    int64_t offset;
    struct timespec began;
    int option, ret;

    while ((option = getopt(argc, argv, "CP:qv")) != -1) {
        switch (option) {
        case 'C': switches.machine_readable = true; break;
        case 'P':
            if (!io_parse_pattern(optarg, &switches.pattern)) {
                return -EINVAL;
            }
            switches.verify = true;
            break;
        case 'q': switches.quiet = true; break;
        case 'v': switches.verbose = true; break;
        default: return io_usage(self);
        }
    }
    if (optind > argc - 2) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &offset)) {
        return -EINVAL;
    }
    if (!io_buffer_init(&buffer, session->blk, argv + optind + 1, argc - optind - 1, READ_FILL)) {
        return -EINVAL;
    }
    began = io_now();
    ret = blk_preadv(session->blk, offset, &buffer.iov, 0);
    if (ret < 0) {
        fail("readv", ret);
        goto out;
    }
    if (switches.verify && !check_pattern(&buffer, &switches, offset, 0, buffer.iov.bytes)) {
        ret = -EINVAL;
    }
    if (switches.quiet) {
        goto out;
    }
    if (switches.verbose) {
        io_dump(buffer.data, offset, buffer.iov.bytes);
    }
    io_report("read", began, offset, buffer.iov.bytes, buffer.iov.bytes, 1, switches.machine_readable);
out:
    io_buffer_free(&buffer);
    return ret;
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

static int write_data(IoSession *session, const IoSwitches *switches, int64_t offset, int64_t bytes,
                      BdrvRequestFlags flags)
{
    IoBuffer buffer;
    int ret = -EINVAL;

    if (switches->zeroes) {
        return blk_pwrite_zeroes(session->blk, offset, bytes, flags);
    }
    if (!io_buffer_init_size(&buffer, session->blk, bytes, switches->pattern)) {
        return -ENOMEM;
    }
    if (!switches->pattern_file || fill_from_file(&buffer, switches->pattern_file)) {
        ret = blk_pwritev(session->blk, offset, &buffer.iov, flags);
    } else {
        ret = -ECHILD; /* told the user already */
    }
    io_buffer_free(&buffer);
    return ret;
}

static int check_write_switches(const IoSwitches *switches)
{
    if (switches->zeroes + switches->has_pattern + (switches->pattern_file != NULL) > 1) {
        printf("Only one of -z, -P, and -s can be specified at the same time\n");
        return -EINVAL;
    }
    if (switches->no_fallback && !switches->zeroes) {
        printf("-n requires -z to be specified\n");
        return -EINVAL;
    }
    if (switches->unmap && !switches->zeroes) {
        printf("-u requires -z to be specified\n");
        return -EINVAL;
    }
    return 0;
}

int io_write(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("write");
    IoSwitches switches = { .pattern = DEFAULT_PATTERN };
    bool vmstate = false, compressed = false;
    int64_t offset, bytes;
    struct timespec began;
    int option, ret;

    while ((option = getopt(argc, argv, "bcCfnpP:qs:uz")) != -1) {
        switch (option) {
        case 'b': vmstate = true; break;
        case 'c': compressed = true; break;
        case 'C': switches.machine_readable = true; break;
        case 'f': switches.fua = true; break;
        case 'n': switches.no_fallback = true; break;
        case 'p': break;
        case 'P':
            if (!io_parse_pattern(optarg, &switches.pattern)) {
                return -EINVAL;
            }
            switches.has_pattern = true;
            break;
        case 'q': switches.quiet = true; break;
        case 's': switches.pattern_file = optarg; break;
        case 'u': switches.unmap = true; break;
        case 'z': switches.zeroes = true; break;
        default: return io_usage(self);
        }
    }
    if (optind != argc - 2) {
        return io_usage(self);
    }
    if (vmstate && switches.zeroes) {
        printf("-b and -z cannot be specified at the same time\n");
        return -EINVAL;
    }
    if (check_write_switches(&switches) < 0) {
        return -EINVAL;
    }
    if (vmstate || compressed) {
        return fail_not_built(vmstate ? "writing the VM state (-b)" : "writing compressed clusters (-c)");
    }
    if (!io_parse_number(argv[optind], &offset) || !io_parse_number(argv[optind + 1], &bytes)) {
        return -EINVAL;
    }
    if (bytes > IO_MAX_BYTES && !switches.no_fallback) {
        printf("length cannot exceed %" PRId64 " without -n, given %s\n", IO_MAX_BYTES, argv[optind + 1]);
        return -EINVAL;
    }
    began = io_now();
    ret = write_data(session, &switches, offset, bytes,
                     (switches.fua ? BDRV_REQ_FUA : 0) | (switches.unmap ? BDRV_REQ_MAY_UNMAP : 0) |
                         (switches.no_fallback ? BDRV_REQ_NO_FALLBACK : 0));
    if (ret < 0) {
        return ret == -ECHILD ? ret : fail("write", ret);
    }
    if (!switches.quiet) {
        io_report("wrote", began, offset, bytes, bytes, 1, switches.machine_readable);
    }
    return 0;
}

int io_writev(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("writev");
    IoSwitches switches = { .pattern = DEFAULT_PATTERN };
    IoBuffer buffer;
    int64_t offset;
    struct timespec began;
    int option, ret;

    while ((option = getopt(argc, argv, "CfP:q")) != -1) {
        switch (option) {
        case 'C': switches.machine_readable = true; break;
        case 'f': switches.fua = true; break;
        case 'P':
            if (!io_parse_pattern(optarg, &switches.pattern)) {
                return -EINVAL;
            }
            break;
        case 'q': switches.quiet = true; break;
        default: return io_usage(self);
        }
    }
    if (optind > argc - 2) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &offset)) {
        return -EINVAL;
    }
    if (!io_buffer_init(&buffer, session->blk, argv + optind + 1, argc - optind - 1, switches.pattern)) {
        return -EINVAL;
    }
    began = io_now();
    ret = blk_pwritev(session->blk, offset, &buffer.iov, switches.fua ? BDRV_REQ_FUA : 0);
    if (ret < 0) {
        fail("writev", ret);
    } else if (!switches.quiet) {
        io_report("wrote", began, offset, buffer.iov.bytes, buffer.iov.bytes, 1, switches.machine_readable);
    }
    io_buffer_free(&buffer);
    return ret;
}

int io_flush(IoSession *session, int argc, char **argv)
{
    int ret = blk_flush(session->blk);

    return ret < 0 ? fail("flush", ret) : 0;
}

int io_discard(IoSession *session, int argc, char **argv)
{
    const IoCommand *self = io_find_command("discard");
    bool machine_readable = false, quiet = false;
    int64_t offset, bytes;
    struct timespec began;
    int option, ret;

    while ((option = getopt(argc, argv, "Cq")) != -1) {
        switch (option) {
        case 'C': machine_readable = true; break;
        case 'q': quiet = true; break;
        default: return io_usage(self);
        }
    }
    if (optind != argc - 2) {
        return io_usage(self);
    }
    if (!io_parse_number(argv[optind], &offset) || !parse_length(argv[optind + 1], &bytes)) {
        return -EINVAL;
    }
    began = io_now();
    ret = blk_pdiscard(session->blk, offset, bytes);
    if (ret < 0) {
        return fail("discard", ret);
    }
    if (!quiet) {
        io_report("discard", began, offset, bytes, bytes, 1, machine_readable);
    }
    return 0;
}
