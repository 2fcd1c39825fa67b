/* SPDX-License-Identifier: MIT */
#include "tools/io/io.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct timespec io_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now;
}

static double seconds_since(struct timespec start)
{
    struct timespec now = io_now();

    return (double)(now.tv_sec - start.tv_sec) + (double)(now.tv_nsec - start.tv_nsec) / 1e9;
}

/* "00.05 sec", from a minute on (and always for machines) "0:01:00.05" */
static char *duration_text(double seconds, bool machine_readable)
{
    unsigned whole = (unsigned)seconds;
    unsigned hundredths = (unsigned)((seconds - whole) * 100);

    if (whole < 60 && !machine_readable) {
        return g_strdup_printf("%02u.%02u sec", whole, hundredths);
    }
    return g_strdup_printf("%u:%02u:%02u.%02u", whole / 3600, whole / 60 % 60, whole % 60, hundredths);
}

void io_report(const char *verb, struct timespec start, int64_t offset, int64_t wanted, int64_t total, int ops,
               bool machine_readable)
{
    double seconds = MAX(seconds_since(start), 1e-9);
    g_autofree char *duration = duration_text(seconds, machine_readable);

    if (machine_readable) {
        printf("%" PRId64 ",%d,%s,%.3f,%.3f\n", total, ops, duration, total / seconds, ops / seconds);
        return;
    }
    g_autofree char *amount = tool_size_text(total);
    g_autofree char *rate = tool_size_text(total / seconds);
    printf("%s %" PRId64 "/%" PRId64 " bytes at offset %" PRId64 "\n", verb, total, wanted, offset);
    printf("%s, %d ops; %s (%s/sec and %.4f ops/sec)\n", amount, ops, duration, rate, ops / seconds);
}

void io_dump(const void *data, int64_t offset, size_t bytes)
{
    const uint8_t *byte = data;

    for (size_t line = 0; line < bytes; line += 16) {
        size_t n = MIN(bytes - line, 16);

        printf("%08" PRIx64 ":  ", offset + (int64_t)line);
        for (size_t i = 0; i < n; i++) {
            printf("%02x ", byte[line + i]);
        }
        putchar(' ');
        for (size_t i = 0; i < n; i++) {
            putchar(isalnum(byte[line + i]) ? byte[line + i] : '.');
        }
        putchar('\n');
    }
}

bool io_buffer_init_size(IoBuffer *buffer, BlockBackend *blk, int64_t bytes, int byte)
{
    buffer->data = blk_blockalign(blk, MAX(bytes, 1));
    if (!buffer->data) {
        printf("cannot allocate a buffer of %" PRId64 " bytes\n", bytes);
        return false;
    }
    memset(buffer->data, byte, bytes);
    buffer->vec = g_new(struct iovec, 1);
    buffer->iov = BDRV_IOV_BUF(*buffer->vec, buffer->data, (size_t)bytes);
    return true;
}

bool io_buffer_init(IoBuffer *buffer, BlockBackend *blk, char **lengths, unsigned count, int byte)
{
    g_autofree struct iovec *vec = g_new(struct iovec, count);
    int64_t sum = 0;
    uint8_t *position;

    for (unsigned i = 0; i < count; i++) {
        int64_t bytes;

        if (!io_parse_number(lengths[i], &bytes)) {
            return false;
        }
        if (bytes > IO_MAX_BYTES) {
            printf("Argument '%s' exceeds maximum size %" PRId64 "\n", lengths[i], IO_MAX_BYTES);
            return false;
        }
        if (sum > IO_MAX_BYTES - bytes) {
            printf("The total number of bytes exceed the maximum size %" PRId64 "\n", IO_MAX_BYTES);
            return false;
        }
        vec[i].iov_len = bytes;
        sum += bytes;
    }
    if (!io_buffer_init_size(buffer, blk, sum, byte)) {
        return false;
    }
    position = buffer->data;
    for (unsigned i = 0; i < count; i++) {
        vec[i].iov_base = position;
        position += vec[i].iov_len;
    }
    g_free(buffer->vec);
    buffer->vec = g_steal_pointer(&vec);
    buffer->iov = bdrv_iov_init(buffer->vec, count);
    return true;
}

void io_buffer_free(IoBuffer *buffer)
{
    bdrv_vfree(buffer->data);
    g_free(buffer->vec);
}

bool io_buffer_is(const IoBuffer *buffer, size_t offset, size_t bytes, int byte)
{
    for (size_t i = 0; i < bytes; i++) {
        if (buffer->data[offset + i] != byte) {
            return false;
        }
    }
    return true;
}
