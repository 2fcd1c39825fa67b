/* SPDX-License-Identifier: MIT */
/* alloc, map: what the top layer itself holds */
#include "tools/io/io.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Length of the run from @offset that is, or is not, in the top layer; at most @bytes. Or -errno. */
static int64_t allocation_run(BlockBackend *blk, int64_t offset, int64_t bytes, bool *allocated)
{
    BlockExtent extent;
    int64_t run = 0;

    while (run < bytes) {
        int ret = blk_block_status(blk, offset + run, bytes - run, &extent);

        if (ret < 0) {
            return ret;
        }
        if (run > 0 && (extent.kind != EXTENT_BACKING) != *allocated) {
            break;
        }
        *allocated = extent.kind != EXTENT_BACKING;
        run += extent.bytes;
    }
    return run;
}

int io_alloc(IoSession *session, int argc, char **argv)
{
    int64_t offset, count = 512, end, sum = 0;

    if (!io_parse_number(argv[1], &offset) || (argc == 3 && !io_parse_number(argv[2], &count))) {
        return -EINVAL;
    }
    end = offset + MIN(count, INT64_MAX - offset);
    end = MIN(end, blk_length(session->blk));
    count = MAX(end - offset, 0);
    for (int64_t at = offset; at < end;) {
        bool allocated = false;
        int64_t run = allocation_run(session->blk, at, end - at, &allocated);

        if (run < 0) {
            printf("is_allocated failed: %s\n", strerror((int)-run));
            return (int)run;
        }
        sum += allocated ? run : 0;
        at += run;
    }
    g_autofree char *where = tool_size_text(offset);
    printf("%" PRId64 "/%" PRId64 " bytes allocated at offset %s\n", sum, count, where);
    return 0;
}

int io_map(IoSession *session, int argc, char **argv)
{
    int64_t length = blk_length(session->blk);

    for (int64_t at = 0; at < length;) {
        bool allocated = false;
        int64_t run = allocation_run(session->blk, at, length - at, &allocated);

        if (run < 0) {
            tool_error("Failed to get allocation status: %s", strerror((int)-run));
            return (int)run;
        }
        g_autofree char *size = tool_size_text(run);
        g_autofree char *where = tool_size_text(at);
        printf("%s (0x%" PRIx64 ") bytes %s allocated at offset %s (0x%" PRIx64 ")\n", size, run,
               allocated ? "   " : "not", where, at);
        at += run;
    }
    return 0;
}
